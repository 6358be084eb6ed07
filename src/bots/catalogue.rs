//! The list of known bots: one a line, shipped inside the binary, replaceable by a file.
//!
//! A line is `category<TAB>name`, then what else is known, each after a tab: `token=…` (where a word
//! begins), `word=…` (a whole word), `prefix=…` (where the user agent begins) or `anywhere=…`, each
//! without regard to case and to how many blanks there are; the name itself where none of these is given. `networks=…` names a list
//! of published networks, `dns=…` a domain its host names end in, `signature=…` the origin that
//! signs its requests. Empty lines and lines that begin with `#` mean nothing.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock},
};

use super::{
    category::Category,
    classify::{Bot, Matcher},
    words::Place,
};

const SHIPPED: &str = include_str!("catalogue.tsv");

/// The most entries, and the longest name, token or value in bytes: a mistaken file must not eat the memory.
const ENTRIES_MAX: usize = 20_000;
const TEXT_MAX: usize = 200;

/// The shortest token. Two letters are part of too many words.
const TOKEN_MIN: usize = 3;

/// Known bots, ready to be looked for. Immutable: a new file makes a new one.
#[derive(Debug)]
pub struct Catalogue {
    entries: Box<[Entry]>,
    /// The entries' places, by their names.
    names: HashMap<Box<str>, usize>,
    matcher: Matcher,
}

/// One known bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is called.
    pub name: Box<str>,
    /// What it is for.
    pub category: Category,
    /// What it is known by.
    pub tokens: Box<[Token]>,
    /// The lists of networks it comes from; all of them, when there are any.
    pub networks: Box<[Box<str>]>,
    /// The domains its host names end in, in lower case.
    pub domains: Box<[Box<str>]>,
    /// The origins that sign its requests (Web Bot Auth).
    pub signers: Box<[Box<str>]>,
}

impl Entry {
    /// Whether there is anything its address could be held against.
    pub fn is_verifiable(&self) -> bool {
        !self.networks.is_empty() || !self.domains.is_empty()
    }
}

/// Text that gives a bot away.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Token {
    /// The text, in lower case.
    pub text: Box<str>,
    /// Where it has to stand.
    pub place: Place,
}

/// What is wrong with a catalogue, and in which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueError {
    /// Counted from one.
    pub line: usize,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a line of a catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// There is nothing after the category.
    NoName,
    /// The category is none.
    Category(String),
    /// A key that means nothing.
    Key(String),
    /// A field without `=`.
    NoKey(String),
    /// Too short, too long, or not printable ASCII.
    Text(String),
    /// Another bot has this name, in this line.
    SameName(String, usize),
    /// Another bot is known by this token, in this line.
    SameToken(String, usize),
    /// There is not one bot in it.
    Empty,
    /// More bots than [`Catalogue`] holds.
    TooMany,
    /// The tokens do not make a searcher.
    Unsearchable(String),
}

impl fmt::Display for CatalogueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.fault)
    }
}

impl std::error::Error for CatalogueError {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoName => f.write_str("no name: write `category<TAB>name`"),
            Self::Category(word) => {
                let words = Category::ALL.map(Category::word).join(", ");
                write!(f, "{word:?} is no category: use one of {words}")
            }
            Self::Key(key) => write!(f, "{key:?} is no key: use one of {}", KEYS.join(", ")),
            Self::NoKey(field) => write!(
                f,
                "{field:?} has no key: write `key=value`, with one of {}",
                KEYS.join(", ")
            ),
            Self::Text(text) => write!(
                f,
                "{text:?} cannot be used: a value is printable ASCII of at most {TEXT_MAX} \
                 characters, a token has at least {TOKEN_MIN}"
            ),
            Self::SameName(name, line) => {
                write!(f, "{name:?} is already the name of the bot in line {line}")
            }
            Self::SameToken(token, line) => {
                write!(f, "{token:?} already stands for the bot in line {line}")
            }
            Self::Empty => f.write_str("no bot at all: an empty catalogue is a mistake"),
            Self::TooMany => write!(f, "more than {ENTRIES_MAX} bots"),
            Self::Unsearchable(why) => write!(f, "the tokens cannot be searched for: {why}"),
        }
    }
}

const KEYS: [&str; 7] = [
    "token",
    "word",
    "prefix",
    "anywhere",
    "networks",
    "dns",
    "signature",
];

impl Catalogue {
    /// The catalogue inside the binary, built once: at the first call, which takes some 20 ms.
    #[expect(
        clippy::expect_used,
        reason = "the file is part of the binary, and a test reads it"
    )]
    pub fn shipped() -> Arc<Self> {
        static CATALOGUE: LazyLock<Arc<Catalogue>> = LazyLock::new(|| {
            Arc::new(Catalogue::parse(SHIPPED).expect("the shipped catalogue is right"))
        });
        Arc::clone(&CATALOGUE)
    }

    /// Reads a catalogue, whole or not at all.
    ///
    /// # Errors
    /// When a line says something else than the form allows, two lines contradict each other, or
    /// there is not one bot in it.
    pub fn parse(text: &str) -> Result<Self, CatalogueError> {
        let mut entries = Vec::new();
        let mut seen = Seen::default();
        let mut last_line = 1;
        for (index, written) in text.lines().enumerate() {
            let line = index + 1;
            last_line = line;
            let at = |fault| CatalogueError { line, fault };
            let written = written.trim_end();
            if written.is_empty() || written.starts_with('#') {
                continue;
            }
            if entries.len() == ENTRIES_MAX {
                return Err(at(Fault::TooMany));
            }
            let entry = entry(written).map_err(at)?;
            seen.note(&entry, line).map_err(at)?;
            entries.push(entry);
        }
        let at_end = |fault| CatalogueError {
            line: last_line,
            fault,
        };
        if entries.is_empty() {
            return Err(at_end(Fault::Empty));
        }
        let matcher = Matcher::new(&entries).map_err(|why| at_end(Fault::Unsearchable(why)))?;
        let entries: Box<[Entry]> = entries.into();
        let places = entries.iter().enumerate();
        Ok(Self {
            names: places
                .map(|(place, entry)| (entry.name.clone(), place))
                .collect(),
            entries,
            matcher,
        })
    }

    /// The bots, in the order of the file.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What is known of the bot of this name.
    pub fn named(&self, name: &str) -> Option<&Entry> {
        self.entries.get(*self.names.get(name)?)
    }

    /// The bot whose requests this origin signs (Web Bot Auth). Some of them look like a browser otherwise.
    pub fn signed_by(&self, origin: &str) -> Option<Bot<'_>> {
        let signs = |entry: &&Entry| entry.signers.iter().any(|own| &**own == origin);
        let entry = self.entries.iter().find(signs)?;
        Some(Bot {
            name: &entry.name,
            category: entry.category,
            entry: Some(entry),
        })
    }

    /// The bot that sent this user agent, or none where it may be a person.
    ///
    /// Reads at most 2 KiB, once, and allocates
    /// nothing. Bytes beyond ASCII are no letters. No user agent at all, or one of blanks, is an
    /// unknown bot: every browser sends one. So is one too long to be read whole.
    pub fn classify<'a>(&'a self, user_agent: &'a [u8]) -> Option<Bot<'a>> {
        self.matcher.classify(&self.entries, user_agent)
    }
}

/// What earlier lines said.
#[derive(Default)]
struct Seen {
    names: HashMap<Box<str>, usize>,
    tokens: HashMap<Token, usize>,
}

impl Seen {
    fn note(&mut self, entry: &Entry, line: usize) -> Result<(), Fault> {
        let name = entry.name.to_ascii_lowercase().into();
        if let Some(other) = self.names.insert(name, line) {
            return Err(Fault::SameName(entry.name.to_string(), other));
        }
        for token in &entry.tokens {
            if let Some(other) = self.tokens.insert(token.clone(), line) {
                return Err(Fault::SameToken(token.text.to_string(), other));
            }
        }
        Ok(())
    }
}

fn entry(line: &str) -> Result<Entry, Fault> {
    let mut fields = line.split('\t');
    let word = fields.next().unwrap_or_default();
    let category = Category::from_word(word).ok_or_else(|| Fault::Category(word.to_owned()))?;
    let name = fields
        .next()
        .filter(|name| !name.is_empty())
        .ok_or(Fault::NoName)?;
    let mut tokens = Vec::new();
    let (mut networks, mut domains, mut signers) = (Vec::new(), Vec::new(), Vec::new());
    for field in fields {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| Fault::NoKey(field.to_owned()))?;
        match key {
            "token" => tokens.push(token(value, Place::WordStart)?),
            "word" => tokens.push(token(value, Place::Word)?),
            "prefix" => tokens.push(token(value, Place::Beginning)?),
            "anywhere" => tokens.push(token(value, Place::Anywhere)?),
            "networks" => networks.push(checked(value)?.into()),
            "dns" => domains.push(checked(value)?.to_ascii_lowercase().into()),
            "signature" => signers.push(checked(value)?.into()),
            _ => return Err(Fault::Key(key.to_owned())),
        }
    }
    if tokens.is_empty() {
        tokens.push(token(name, Place::WordStart)?);
    }
    Ok(Entry {
        name: checked(name)?.into(),
        category,
        tokens: tokens.into(),
        networks: networks.into(),
        domains: domains.into(),
        signers: signers.into(),
    })
}

fn token(text: &str, place: Place) -> Result<Token, Fault> {
    let mut lower = checked(text)?.to_ascii_lowercase();
    // As user agents are read.
    while lower.contains("  ") {
        lower = lower.replace("  ", " ");
    }
    if lower.len() < TOKEN_MIN {
        return Err(Fault::Text(text.to_owned()));
    }
    Ok(Token {
        text: lower.into(),
        place,
    })
}

fn checked(text: &str) -> Result<&str, Fault> {
    let is_printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    let is_right = !text.is_empty() && text.len() <= TEXT_MAX && text.bytes().all(is_printable);
    is_right
        .then_some(text)
        .ok_or_else(|| Fault::Text(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> (usize, Fault) {
        let error = Catalogue::parse(text).unwrap_err();
        (error.line, error.fault)
    }

    #[test]
    fn the_shipped_catalogue_is_right() {
        let catalogue = Catalogue::parse(SHIPPED).unwrap();
        assert!(catalogue.entries().len() > 1_400);
        let gptbot = catalogue.entries().iter().find(|e| &*e.name == "GPTBot");
        let gptbot = gptbot.unwrap();
        assert_eq!(gptbot.category, Category::AiTraining);
        assert_eq!(&*gptbot.networks[0], "openai-gptbot");
    }

    #[test]
    fn a_line_says_all_that_is_known_of_a_bot() {
        let text = "# comment\n\nseo\tFoo\ttoken=Foo/\tword=FooBar\tprefix=foo-\tanywhere=foo.example\t\
                    networks=foo\tdns=Crawl.Foo.Example\tsignature=https://foo.example\n";
        let catalogue = Catalogue::parse(text).unwrap();
        let [entry] = catalogue.entries() else {
            panic!("one line, one bot")
        };
        let places: Vec<_> = entry.tokens.iter().map(|token| token.place).collect();
        assert_eq!(
            places,
            [
                Place::WordStart,
                Place::Word,
                Place::Beginning,
                Place::Anywhere
            ]
        );
        assert_eq!(&*entry.domains[0], "crawl.foo.example");
        assert_eq!(&*entry.signers[0], "https://foo.example");
    }

    #[test]
    fn a_signed_request_is_the_bots_whose_operator_signed() {
        let catalogue = Catalogue::shipped();
        let bot = catalogue.signed_by("https://chatgpt.com").unwrap();
        assert_eq!(bot.name, "ChatGPT Agent");
        assert_eq!(catalogue.signed_by("https://chatgpt.com.example"), None);
    }

    #[test]
    fn a_bot_without_tokens_is_known_by_its_name() {
        let catalogue = Catalogue::parse("seo\tFooBot").unwrap();
        assert_eq!(&*catalogue.entries()[0].tokens[0].text, "foobot");
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        assert_eq!(
            fault("# one\nseos\tFoo"),
            (2, Fault::Category("seos".to_owned()))
        );
        assert_eq!(fault("seo"), (1, Fault::NoName));
        assert_eq!(fault("seo\t"), (1, Fault::NoName));
        assert_eq!(
            fault("seo\tFoo\ttokens=x"),
            (1, Fault::Key("tokens".to_owned()))
        );
        assert_eq!(fault("seo\tFoo\tBar"), (1, Fault::NoKey("Bar".to_owned())));
        assert_eq!(
            fault("seo\tFoo\ttoken=ab"),
            (1, Fault::Text("ab".to_owned()))
        );
        assert_eq!(fault("seo\tFoö"), (1, Fault::Text("Foö".to_owned())));
        assert_eq!(
            fault("seo\tFoo\n\nseo\tfoo\ttoken=other"),
            (3, Fault::SameName("foo".to_owned(), 1))
        );
        assert_eq!(
            fault("seo\tFoo\nai-search\tBar\ttoken=FOO"),
            (2, Fault::SameToken("foo".to_owned(), 1))
        );
        assert_eq!(fault("\n# nobody\n"), (2, Fault::Empty));
        let long = "x".repeat(TEXT_MAX + 1);
        assert_eq!(fault(&format!("seo\t{long}")), (1, Fault::Text(long)));
    }

    #[test]
    fn the_words_of_a_mistake_say_what_would_be_right() {
        let error = Catalogue::parse("seo\tFoo\ttokens=x").unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 1: \"tokens\" is no key: use one of token, word, prefix, anywhere, networks, \
             dns, signature"
        );
    }
}
