//! The three signature fields, as far as Web Bot Auth uses structured fields (RFC 9651).
//!
//! Strict where RFC 9651 is, and stricter: a string with an escape, which no signer needs, cannot be
//! read. Borrows from the fields and bounds what it collects.

/// The most components a signature may cover.
const COMPONENTS_MAX: usize = 16;

/// A member of `Signature-Input`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Input<'a> {
    pub(super) label: &'a str,
    /// The components and parameters as they were written: the last line of what was signed.
    pub(super) written: &'a str,
    pub(super) components: Vec<Component<'a>>,
    pub(super) key_id: &'a str,
    /// In seconds since 1970.
    pub(super) created: u64,
    pub(super) expires: u64,
}

/// A part of the request that a signature covers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Component<'a> {
    pub(super) name: &'a str,
    /// The parameter `key`: one member of a field that is a dictionary.
    pub(super) key: Option<&'a str>,
    /// Name and parameters as they were written.
    pub(super) written: &'a str,
}

/// An agent that `Signature-Agent` names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Agent<'a> {
    pub(super) origin: &'a str,
    /// The value as it was written.
    pub(super) written: &'a str,
}

/// The first member of `Signature-Input` that is for web bot auth, and is complete.
pub(super) fn web_bot_auth(field: &str) -> Option<Input<'_>> {
    let mut cursor = Cursor(field.trim());
    loop {
        let label = cursor.key()?;
        cursor.eat('=')?;
        let (input, tag) = cursor.input(label)?;
        if tag == Some("web-bot-auth") {
            return input;
        }
        cursor.next_member()?;
    }
}

/// The bytes, still in base64, of the member of `Signature` with this label.
pub(super) fn bytes<'a>(field: &'a str, label: &str) -> Option<&'a str> {
    let mut cursor = Cursor(field.trim());
    loop {
        let own = cursor.key()?;
        cursor.eat('=')?;
        let Some(Item::Bytes(bytes)) = cursor.item() else {
            return None;
        };
        if own == label {
            return Some(bytes);
        }
        cursor.next_member()?;
    }
}

/// The agent under this key, or the only one: the bare string of the older draft, or the dictionary's only member.
pub(super) fn agent<'a>(field: &'a str, key: Option<&str>) -> Option<Agent<'a>> {
    let mut cursor = Cursor(field);
    if field.starts_with('"') {
        let agent = cursor.agent()?;
        return (key.is_none() && cursor.0.is_empty()).then_some(agent);
    }
    loop {
        let own = cursor.key()?;
        cursor.eat('=')?;
        let agent = cursor.agent()?;
        let is_meant = key.map_or_else(|| cursor.0.is_empty(), |key| key == own);
        if is_meant {
            return Some(agent);
        }
        // Several members and no key: nobody says which of them is meant.
        key?;
        cursor.next_member()?;
    }
}

/// A bare item (RFC 9651 section 3.3) of the kinds that occur here.
enum Item<'a> {
    Integer(u64),
    Text(&'a str),
    Bytes(&'a str),
    /// A token or a boolean: nothing here asks for one.
    Other,
}

struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn eat(&mut self, c: char) -> Option<()> {
        self.0 = self.0.strip_prefix(c)?;
        Some(())
    }

    /// What comes before the first character that `is_part` is false for.
    fn while_part(&mut self, is_part: fn(char) -> bool) -> &'a str {
        let end = self.0.find(|c| !is_part(c)).unwrap_or(self.0.len());
        let (part, rest) = self.0.split_at(end);
        self.0 = rest;
        part
    }

    /// What comes before `c`, which is eaten.
    fn until(&mut self, c: char) -> Option<&'a str> {
        let (before, after) = self.0.split_once(c)?;
        self.0 = after;
        Some(before)
    }

    fn key(&mut self) -> Option<&'a str> {
        let key = self.while_part(|c| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.' | '*')
        });
        let begins = key.starts_with(|c: char| c.is_ascii_lowercase() || c == '*');
        begins.then_some(key)
    }

    fn text(&mut self) -> Option<&'a str> {
        self.eat('"')?;
        let text = self.until('"')?;
        let is_plain = |byte: u8| (byte == b' ' || byte.is_ascii_graphic()) && byte != b'\\';
        text.bytes().all(is_plain).then_some(text)
    }

    fn item(&mut self) -> Option<Item<'a>> {
        match self.0.chars().next()? {
            '"' => self.text().map(Item::Text),
            ':' => {
                self.eat(':')?;
                self.until(':').map(Item::Bytes)
            }
            '0'..='9' => {
                let digits = self.while_part(|c| c.is_ascii_digit());
                digits.parse().ok().map(Item::Integer)
            }
            c if c.is_ascii_alphabetic() || matches!(c, '?' | '*') => {
                self.while_part(|c| c.is_ascii_alphanumeric() || "?!#$%&'*+-.^_`|~:/".contains(c));
                Some(Item::Other)
            }
            _ => None,
        }
    }

    /// Reads `;key=item` as often as it comes; a key alone is true.
    fn parameters(&mut self, mut each: impl FnMut(&'a str, Item<'a>)) -> Option<()> {
        while self.eat(';').is_some() {
            self.0 = self.0.trim_start_matches(' ');
            let key = self.key()?;
            let item = match self.eat('=') {
                Some(()) => self.item()?,
                None => Item::Other,
            };
            each(key, item);
        }
        Some(())
    }

    /// A string and its parameters.
    fn agent(&mut self) -> Option<Agent<'a>> {
        let before = self.0;
        let origin = self.text()?;
        self.parameters(|_, _| ())?;
        let written = written(before, self.0)?;
        Some(Agent { origin, written })
    }

    fn component(&mut self) -> Option<Component<'a>> {
        let before = self.0;
        let name = self.text()?;
        let (mut key, mut is_known) = (None, true);
        self.parameters(|own, item| match (own, item) {
            ("key", Item::Text(text)) if key.is_none() => key = Some(text),
            _ => is_known = false,
        })?;
        let written = written(before, self.0)?;
        is_known.then_some(Component { name, key, written })
    }

    /// A member of `Signature-Input`, where it is complete, and its tag.
    fn input(&mut self, label: &'a str) -> Option<(Option<Input<'a>>, Option<&'a str>)> {
        let before = self.0;
        self.eat('(')?;
        let mut components = Vec::new();
        loop {
            self.0 = self.0.trim_start_matches(' ');
            if self.eat(')').is_some() {
                break;
            }
            let component = self.component()?;
            let is_twice = components
                .iter()
                .any(|own: &Component<'_>| own.written == component.written);
            if is_twice || components.len() == COMPONENTS_MAX {
                return None;
            }
            components.push(component);
        }
        let (mut created, mut expires, mut key_id, mut tag) = (None, None, None, None);
        let mut is_ed25519 = true;
        self.parameters(|key, item| match (key, item) {
            ("created", Item::Integer(seconds)) => created = Some(seconds),
            ("expires", Item::Integer(seconds)) => expires = Some(seconds),
            ("keyid", Item::Text(text)) => key_id = Some(text),
            ("tag", Item::Text(text)) => tag = Some(text),
            ("alg", Item::Text(text)) => is_ed25519 = text == "ed25519",
            _ => {}
        })?;
        let written = written(before, self.0)?;
        let complete = created.zip(expires).zip(key_id).filter(|_| is_ed25519);
        let input = complete.map(|((created, expires), key_id)| Input {
            label,
            written,
            components,
            key_id,
            created,
            expires,
        });
        Some((input, tag))
    }

    fn next_member(&mut self) -> Option<()> {
        self.0 = self.0.trim_start_matches([' ', '\t']);
        self.eat(',')?;
        self.0 = self.0.trim_start_matches([' ', '\t']);
        Some(())
    }
}

/// What of `before` has been read when `after` is left.
fn written<'a>(before: &'a str, after: &str) -> Option<&'a str> {
    before.get(..before.len().checked_sub(after.len())?)
}
