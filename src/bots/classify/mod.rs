//! Names the bot in a user agent: one pass over its bytes, without allocating.

use aho_corasick::{
    Anchored, MatchKind, PatternID,
    automaton::{Automaton as _, StateID},
    nfa::contiguous::NFA,
};

use super::{
    catalogue::Entry,
    category::Category,
    words::{Place, Sign, words},
};

/// How much of a user agent is read, in bytes. The longest a person's browser is known to send is a sixth of it.
pub(super) const SCANNED_MAX: usize = 2_048;

/// How much of an unlisted bot's name is told, in bytes.
const NAME_MAX: usize = 64;

/// What a user agent is called that is not there, that is too long, and that gives no name.
const MISSING: &str = "no user agent";
const OVERLONG: &str = "overlong user agent";
const NAMELESS: &str = "unnamed";

/// A client that is no person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bot<'a> {
    /// What it is called. The client's own words where it is not listed: printable ASCII of at most
    /// 64 bytes, and as many different ones as a client likes to make up.
    pub name: &'a str,
    /// What it is for.
    pub category: Category,
    /// What the catalogue knows of it; none where it is not listed.
    pub entry: Option<&'a Entry>,
}

impl Bot<'_> {
    const fn unlisted(name: &str, category: Category) -> Bot<'_> {
        Bot {
            name,
            category,
            entry: None,
        }
    }
}

/// Looks for all tokens and all words at once.
#[derive(Debug)]
pub(super) struct Matcher {
    automaton: NFA,
    start: StateID,
    /// What each of the automaton's patterns is.
    patterns: Box<[Pattern]>,
}

#[derive(Debug, Clone, Copy)]
struct Pattern {
    place: Place,
    meaning: Meaning,
}

#[derive(Debug, Clone, Copy)]
enum Meaning {
    /// The entry of this index.
    Entry(usize),
    Sign(Sign),
}

impl Matcher {
    /// Builds the search for these entries' tokens and the common words.
    ///
    /// # Errors
    /// When there are too many for the searcher, in its words.
    pub(super) fn new(entries: &[Entry]) -> Result<Self, String> {
        let (mut texts, mut patterns) = (Vec::new(), Vec::new());
        let mut add = |text, place, meaning| {
            texts.push(text);
            patterns.push(Pattern { place, meaning });
        };
        for (index, entry) in entries.iter().enumerate() {
            for token in &entry.tokens {
                add(&*token.text, token.place, Meaning::Entry(index));
            }
        }
        for (text, place, sign) in words() {
            add(text, place, Meaning::Sign(sign));
        }
        // A DFA would take half of the time, 8 MB instead of half of one, and 40 ms to build; workers
        // remember the user agents of people, which are nearly all.
        let automaton = NFA::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .prefilter(false)
            .build(texts)
            .map_err(|error| error.to_string())?;
        let start = automaton.start_state(Anchored::No);
        Ok(Self {
            start: start.map_err(|error| error.to_string())?,
            automaton,
            patterns: patterns.into(),
        })
    }

    pub(super) fn classify<'a>(
        &self,
        entries: &'a [Entry],
        user_agent: &'a [u8],
    ) -> Option<Bot<'a>> {
        let text = user_agent.trim_ascii();
        if text.is_empty() {
            return Some(Bot::unlisted(MISSING, Category::Unknown));
        }
        let scanned = text.get(..SCANNED_MAX).unwrap_or(text);
        let mut seen = Seen::default();
        self.find(scanned, |pattern, hit| {
            let pattern = self.patterns.get(pattern.as_usize());
            let Some(pattern) = pattern.filter(|pattern| hit.stands(pattern.place)) else {
                return;
            };
            match pattern.meaning {
                Meaning::Entry(index) => seen.entry(index, entries.get(index), pattern.place, &hit),
                Meaning::Sign(sign) => seen.sign(sign, &hit),
            }
        });
        let overlong = || Bot::unlisted(OVERLONG, Category::Unknown);
        seen.bot(entries, scanned)
            .or_else(|| (text.len() > SCANNED_MAX).then(overlong))
    }

    /// Tells every text that is there. A tab is read as a blank, and many blanks as one: they look
    /// alike to whoever reads a log, and a token with one of them inside is found with any of them.
    fn find<'a>(&self, text: &'a [u8], mut tell: impl FnMut(PatternID, Hit<'a>)) {
        let mut state = self.start;
        let (mut is_in_blanks, mut has_skipped) = (false, false);
        for (end, &byte) in (1..).zip(text) {
            let is_blank = is_blank(byte);
            if is_blank && is_in_blanks {
                has_skipped = true;
                continue;
            }
            is_in_blanks = is_blank;
            let read = if is_blank { b' ' } else { byte };
            state = self.automaton.next_state(Anchored::No, state, read);
            if !self.automaton.is_match(state) {
                continue;
            }
            for nth in 0..self.automaton.match_len(state) {
                let pattern = self.automaton.match_pattern(state, nth);
                let len = self.automaton.pattern_len(pattern);
                let start = match has_skipped {
                    true => start_of(text, len, end),
                    false => end - len,
                };
                tell(pattern, Hit::new(text, start, end, len));
            }
        }
    }
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Where a text of this length begins that ends here, many blanks counted as one.
fn start_of(text: &[u8], len: usize, end: usize) -> usize {
    let before = |at: usize| at.checked_sub(1).and_then(|at| text.get(at)).copied();
    let mut start = end;
    for _ in 0..len {
        let is_in_blanks = before(start).is_some_and(is_blank);
        start = start.saturating_sub(1);
        while is_in_blanks && before(start).is_some_and(is_blank) {
            start -= 1;
        }
    }
    start
}

/// A text that was found, and what stands around it.
struct Hit<'a> {
    start: usize,
    end: usize,
    /// How long what was looked for is, in bytes.
    len: usize,
    before: &'a [u8],
    own: &'a [u8],
    after: &'a [u8],
}

impl<'a> Hit<'a> {
    fn new(text: &'a [u8], start: usize, end: usize, len: usize) -> Self {
        Self {
            start,
            end,
            len,
            before: text.get(..start).unwrap_or_default(),
            own: text.get(start..end).unwrap_or_default(),
            after: text.get(end..).unwrap_or_default(),
        }
    }

    /// Whether it stands where it has to. An end that is punctuation is its own boundary.
    fn stands(&self, place: Place) -> bool {
        let is = |byte: Option<&u8>, kind: fn(&u8) -> bool| byte.is_some_and(kind);
        let joins =
            |inner: Option<&u8>, outer: Option<&u8>, kind| is(inner, kind) && is(outer, kind);
        let starts = || {
            !joins(
                self.own.first(),
                self.before.last(),
                u8::is_ascii_alphanumeric,
            )
        };
        let ends = |kind| !joins(self.own.last(), self.after.first(), kind);
        match place {
            Place::Anywhere => true,
            Place::Beginning => self.start == 0,
            Place::WordStart => starts(),
            Place::WordEnd => ends(u8::is_ascii_alphabetic),
            Place::Word => starts() && ends(u8::is_ascii_alphanumeric),
        }
    }

    /// Whether what follows, blanks aside, begins with one of these, which are in lower case.
    fn goes_on_with(&self, words: &[&str]) -> bool {
        let after = self.after.trim_ascii_start();
        words.iter().any(|word| {
            let own = after.get(..word.len());
            own.is_some_and(|own| own.eq_ignore_ascii_case(word.as_bytes()))
        })
    }

    fn goes_on_with_a_letter(&self) -> bool {
        let after = self.after.trim_ascii_start();
        after.first().is_some_and(u8::is_ascii_alphabetic)
    }

    /// Whether an `@` stands between a name and a host: `name@host.tld`.
    ///
    /// Looks at two labels of at most 63 bytes (RFC 1035 section 2.3.4), however many `@` there are.
    fn is_email(&self) -> bool {
        let is_name = self.before.last().is_some_and(u8::is_ascii_alphanumeric);
        let label = |text: &[u8], is_part: fn(&u8) -> bool| {
            let part = text.iter().take(LABEL_MAX).take_while(|b| is_part(b));
            part.count()
        };
        let host = label(self.after, |b| b.is_ascii_alphanumeric() || *b == b'-');
        let dot_and_rest = self.after.get(host..).unwrap_or_default();
        let Some((b'.', rest)) = dot_and_rest.split_first() else {
            return false;
        };
        let letters = label(rest, u8::is_ascii_alphabetic);
        let ends = !rest.get(letters).is_some_and(u8::is_ascii_alphanumeric);
        is_name && host > 0 && letters >= 2 && ends
    }

    /// Whether a `.com` ends a host name of at least three characters before the dot.
    fn is_domain(&self) -> bool {
        let label = self.before.iter().rev();
        let label = label.take_while(|b| b.is_ascii_alphanumeric() || **b == b'-');
        let ends = |b: &u8| !b.is_ascii_alphanumeric() && *b != b'.';
        label.take(3).count() == 3 && self.after.first().is_none_or(ends)
    }
}

/// The longest label of a host's name, in bytes.
const LABEL_MAX: usize = 63;

/// What browsers that are no bots say after `compatible;`.
const BROWSERS: [&str; 6] = [
    "msie",
    "konqueror",
    "u;",
    "linux",
    "windows",
    "googletoolbar",
];

/// What has been found so far.
#[derive(Default)]
struct Seen {
    best: Option<Found>,
    /// The categories said and hinted at, one bit each.
    said: u16,
    hinted: u16,
    names_a_device: bool,
    /// Where the first sign of a bot stands, and where the name it gives begins.
    first_said: Option<Named>,
    first_hinted: Option<Named>,
}

/// A listed bot that was found. The better one is less: who it is before how it is built, a name
/// before what stands anywhere (such as the address of a page about all bots of an operator), then
/// the longer token, then the earlier one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    is_only_a_tool: bool,
    stands_anywhere: bool,
    shortness: usize,
    start: usize,
    index: usize,
}

/// How an unlisted bot's name is found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    /// The word around this position.
    At(usize),
    /// The word that follows this position.
    After(usize),
}

impl Named {
    const fn position(self) -> usize {
        match self {
            Self::At(position) | Self::After(position) => position,
        }
    }
}

const fn bit(category: Category) -> u16 {
    1 << category as u16
}

/// Which category an unlisted bot is of when its words speak for several.
const BY_WEIGHT: [Category; 9] = [
    Category::AiAssistant,
    Category::AiSearch,
    Category::AiTraining,
    Category::SecurityScanner,
    Category::Seo,
    Category::HeadlessBrowser,
    Category::HttpLibrary,
    Category::SearchEngine,
    Category::Unknown,
];

impl Seen {
    fn entry(&mut self, index: usize, entry: Option<&Entry>, place: Place, hit: &Hit<'_>) {
        let found = Found {
            is_only_a_tool: entry.is_some_and(|entry| entry.category.is_only_a_tool()),
            stands_anywhere: place == Place::Anywhere,
            shortness: usize::MAX - hit.len,
            start: hit.start,
            index,
        };
        self.best = Some(self.best.map_or(found, |best| best.min(found)));
    }

    fn sign(&mut self, sign: Sign, hit: &Hit<'_>) {
        let at = Named::At(hit.start);
        let after = Named::After(hit.end);
        match sign {
            Sign::Device => self.names_a_device = true,
            Sign::Says(category) => self.says(category, at),
            Sign::Hints(category) => self.hints(category, at),
            Sign::Bot if ends_with_cu(hit.before) => {}
            Sign::Bot => self.says(Category::Unknown, at),
            Sign::At if hit.is_email() => self.says(Category::Unknown, at),
            Sign::Domain if hit.is_domain() => self.hints(Category::Unknown, at),
            Sign::Gecko if hit.goes_on_with(&["safari", "mobile"]) => {}
            Sign::Gecko => self.says(Category::Unknown, after),
            Sign::Compatible if hit.goes_on_with(&BROWSERS) => {}
            Sign::Mozilla if hit.goes_on_with(&["applewebkit"]) => {}
            Sign::Compatible | Sign::Mozilla if hit.goes_on_with_a_letter() => {
                self.hints(Category::Unknown, after);
            }
            Sign::At | Sign::Domain | Sign::Compatible | Sign::Mozilla => {}
        }
    }

    fn says(&mut self, category: Category, named: Named) {
        self.said |= bit(category);
        first(&mut self.first_said, named);
    }

    fn hints(&mut self, category: Category, named: Named) {
        self.hinted |= bit(category);
        first(&mut self.first_hinted, named);
    }

    /// The verdict: who is listed, else who says so, else who hints at it and names no device.
    fn bot<'a>(&self, entries: &'a [Entry], text: &'a [u8]) -> Option<Bot<'a>> {
        let listed = self.best.and_then(|found| entries.get(found.index));
        if let Some(entry) = listed {
            return Some(Bot {
                name: &entry.name,
                category: entry.category,
                entry: Some(entry),
            });
        }
        let is_bot = self.said != 0 || (self.hinted != 0 && !self.names_a_device);
        let words = self.said | self.hinted;
        let category = BY_WEIGHT.into_iter().find(|own| words & bit(*own) != 0);
        let named = self.first_said.into_iter().chain(self.first_hinted);
        let named = named.min_by_key(|named| named.position());
        category.filter(|_| is_bot).map(|category| {
            Bot::unlisted(named.map_or(NAMELESS, |named| name(text, named)), category)
        })
    }
}

fn first(slot: &mut Option<Named>, named: Named) {
    if slot.is_none_or(|first| named.position() < first.position()) {
        *slot = Some(named);
    }
}

fn ends_with_cu(before: &[u8]) -> bool {
    let end = before.last_chunk::<2>();
    end.is_some_and(|end| end.eq_ignore_ascii_case(b"cu"))
}

/// An unlisted bot's name: the word at a position, or the first one after it.
fn name(text: &[u8], named: Named) -> &str {
    let is_part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let start = match named {
        Named::At(position) => {
            let before = text.get(..position).unwrap_or_default();
            position - before.iter().rev().take_while(|b| is_part(b)).count()
        }
        Named::After(position) => {
            let after = text.get(position..).unwrap_or_default();
            position + after.iter().take_while(|b| !is_part(b)).count()
        }
    };
    let rest = text.get(start..).unwrap_or_default();
    let length = rest.iter().take_while(|b| is_part(b)).count();
    let word = rest.get(..length.min(NAME_MAX)).unwrap_or_default();
    // The scheme of a contact address is no name.
    let is_scheme = |scheme: &[u8]| word.eq_ignore_ascii_case(scheme);
    if word.is_empty() || is_scheme(b"http") || is_scheme(b"https") {
        return NAMELESS;
    }
    str::from_utf8(word).unwrap_or(NAMELESS)
}

#[cfg(test)]
mod tests;
