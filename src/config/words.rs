//! How a word in a file becomes a value: every scalar is read as text and parsed once, so that
//! quotes do not matter and each refusal is in our words and at its exact place.

use std::{
    collections::BTreeMap, fmt, marker::PhantomData, net::SocketAddr, num::NonZeroU32,
    path::PathBuf, time::Duration,
};

use ipnet::IpNet;
use serde::{
    Deserialize, Deserializer,
    de::{
        self, IntoDeserializer, MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};

use crate::{
    base::{
        net::{Address, HostPort, Upstream, parse_network},
        units::{Rate, parse_duration, parse_size},
    },
    guard::route::Pattern,
};

use super::report::{shown, told};

/// Stands before every message of ours inside serde's error. No file can hold it: control
/// characters are refused first.
pub(super) const OURS: char = '\u{1}';

/// A value that is written as one word.
pub(super) trait FromWord: Sized {
    /// What belongs here, for whoever wrote a list or a mapping instead.
    const EXPECTED: &'static str;

    /// Parses the word; the error says what is wrong and what would be right.
    fn from_word(word: &str) -> Result<Self, String>;
}

/// Carries a [`FromWord`] value through serde.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Word<T>(pub(super) T);

impl<'de, T: FromWord> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(WordVisitor(PhantomData))
    }
}

struct WordVisitor<T>(PhantomData<T>);

impl<T: FromWord> Visitor<'_> for WordVisitor<T> {
    type Value = Word<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Word<T>, E> {
        T::from_word(word).map(Word).map_err(refusal)
    }
}

/// A serde error with a message of ours.
pub(super) fn refusal<E: de::Error>(message: impl fmt::Display) -> E {
    E::custom(format_args!("{OURS}{message}"))
}

pub(super) fn one<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromWord,
{
    Word::deserialize(deserializer).map(|Word(value)| value)
}

/// A word, or `null` for none.
pub(super) fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromWord,
{
    let word = Option::deserialize(deserializer)?;
    Ok(word.map(|Word(value)| value))
}

/// A list of words, or nothing.
pub(super) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromWord,
{
    let words: Option<Vec<Word<T>>> = Option::deserialize(deserializer)?;
    let words = words.unwrap_or_default().into_iter();
    Ok(words.map(|Word(value)| value).collect())
}

/// One word, or a list of at least one.
pub(super) fn words<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromWord,
{
    let words: Vec<Word<T>> = one_or_list(deserializer)?;
    Ok(words.into_iter().map(|Word(value)| value).collect())
}

/// One value, or a list of at least one.
pub(super) fn one_or_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(OneOrList(PhantomData))
}

struct OneOrList<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrList<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one value or a list")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Vec<T>, E> {
        T::deserialize(word.into_deserializer()).map(|one| vec![one])
    }

    // What YAML takes for a number or a truth is a word to us.
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Vec<T>, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Vec<T>, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Vec<T>, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Vec<T>, E> {
        self.visit_str(&truth.to_string())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        match list.is_empty() {
            true => Err(refusal("the list is empty (give one at least)")),
            false => Ok(list),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, keys: A) -> Result<Vec<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(keys)).map(|one| vec![one])
    }
}

/// One value, or a list of at least one.
pub(super) struct OneOrMore<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_or_list(deserializer).map(Self)
    }
}

/// A map from words to words; duplicate keys are refused before serde sees them.
pub(super) struct Map<K, V>(pub(super) BTreeMap<K, V>);

impl<'de, K: FromWord + Ord, V: FromWord> Deserialize<'de> for Map<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries: BTreeMap<Word<K>, Word<V>> = BTreeMap::deserialize(deserializer)?;
        let entries = entries.into_iter();
        Ok(Self(
            entries
                .map(|(Word(key), Word(value))| (key, value))
                .collect(),
        ))
    }
}

/// `None` for the word `skip`, else a list or mapping.
pub(super) fn skip_or<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(SkipOr(PhantomData))
}

struct SkipOr<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for SkipOr<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`skip` or a mapping")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Option<T>, E> {
        match word {
            "skip" => Ok(None),
            other => Err(refusal(format_args!(
                "`{}` is not known (use `skip` or a mapping)",
                shown(other)
            ))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Option<T>, A::Error> {
        T::deserialize(SeqAccessDeserializer::new(items)).map(Some)
    }

    fn visit_map<A: MapAccess<'de>>(self, keys: A) -> Result<Option<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(keys)).map(Some)
    }
}

/// A size in bytes, more than nothing.
pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    one(deserializer).map(|Size(bytes)| bytes)
}

/// A size in bytes where there is one.
pub(super) fn optional_size<'de, D>(deserializer: D) -> Result<Option<u64>, D::Error>
where
    D: Deserializer<'de>,
{
    Ok(optional(deserializer)?.map(|Size(bytes)| bytes))
}

struct Size(u64);

impl FromWord for Size {
    const EXPECTED: &'static str = "a size such as 10MiB";

    fn from_word(word: &str) -> Result<Self, String> {
        match parse_size(word) {
            Ok(0) => Err("must be more than nothing".to_owned()),
            Ok(bytes) => Ok(Self(bytes)),
            Err(error) => Err(told(&error)),
        }
    }
}

impl FromWord for Duration {
    const EXPECTED: &'static str = "a duration such as 30s";

    fn from_word(word: &str) -> Result<Self, String> {
        match parse_duration(word) {
            Ok(Self::ZERO) => Err("must be longer than nothing".to_owned()),
            Ok(duration) => Ok(duration),
            Err(error) => Err(told(&error)),
        }
    }
}

impl FromWord for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_word(word: &str) -> Result<Self, String> {
        choose(word, &[("true", true), ("false", false)])
    }
}

/// A whole number within bounds, or what would be right.
pub(super) fn number(word: &str, least: u32, most: u32) -> Result<u32, String> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit()) && !word.is_empty();
    // What 010 is depends on the reader: 10 for YAML 1.2, 8 for YAML 1.1.
    let is_octal = word.len() > 1 && word.starts_with('0');
    let number = word.parse().ok().filter(|_| is_plain && !is_octal);
    let in_range = number.filter(|number| (least..=most).contains(number));
    in_range.ok_or_else(|| match most {
        u32::MAX => format!("`{}` is not a whole number of {least} or more", shown(word)),
        most => format!(
            "`{}` is not a whole number from {least} to {most}",
            shown(word)
        ),
    })
}

impl FromWord for u32 {
    const EXPECTED: &'static str = "a whole number";

    fn from_word(word: &str) -> Result<Self, String> {
        number(word, 0, Self::MAX)
    }
}

/// A whole number within bounds.
pub(super) struct Within<const LEAST: u32, const MOST: u32>(pub(super) NonZeroU32);

impl<const LEAST: u32, const MOST: u32> FromWord for Within<LEAST, MOST> {
    const EXPECTED: &'static str = "a whole number";

    fn from_word(word: &str) -> Result<Self, String> {
        let number = number(word, LEAST.max(1), MOST)?;
        Ok(Self(NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)))
    }
}

impl FromWord for NonZeroU32 {
    const EXPECTED: &'static str = "a whole number";

    fn from_word(word: &str) -> Result<Self, String> {
        Within::<1, { u32::MAX }>::from_word(word).map(|Within(number)| number)
    }
}

impl FromWord for Rate {
    const EXPECTED: &'static str = "a rate such as 20/s";

    fn from_word(word: &str) -> Result<Self, String> {
        parsed(word)
    }
}

impl FromWord for Address {
    const EXPECTED: &'static str = "host:port or unix:/path";

    fn from_word(word: &str) -> Result<Self, String> {
        parsed(word)
    }
}

impl FromWord for SocketAddr {
    const EXPECTED: &'static str = "host:port";

    fn from_word(word: &str) -> Result<Self, String> {
        match Address::from_word(word)? {
            Address::Tcp(address) => Ok(address),
            Address::Unix(_) => Err("must be host:port (the unix socket is `admin.socket`)".into()),
        }
    }
}

impl FromWord for Upstream {
    const EXPECTED: &'static str = "host:port or unix:/path";

    fn from_word(word: &str) -> Result<Self, String> {
        parsed(word)
    }
}

impl FromWord for HostPort {
    const EXPECTED: &'static str = "host:port";

    fn from_word(word: &str) -> Result<Self, String> {
        parsed(word)
    }
}

impl FromWord for Pattern {
    const EXPECTED: &'static str = "a path such as /accounts/login/";

    fn from_word(word: &str) -> Result<Self, String> {
        Self::parse(word).map_err(|bad| format!("`{}` {bad}", shown(word)))
    }
}

fn parsed<T>(word: &str) -> Result<T, String>
where
    T: std::str::FromStr<Err: fmt::Display>,
{
    word.parse().map_err(|error: T::Err| told(&error))
}

impl FromWord for IpNet {
    const EXPECTED: &'static str = "a network such as 10.0.0.0/8";

    fn from_word(word: &str) -> Result<Self, String> {
        parse_network(word).map_err(|error| told(&error))
    }
}

impl FromWord for PathBuf {
    const EXPECTED: &'static str = "the path of a file";

    fn from_word(word: &str) -> Result<Self, String> {
        match word.is_empty() || word.contains('\0') {
            true => Err("the path is empty or holds a NUL".to_owned()),
            false => Ok(Self::from(word)),
        }
    }
}

/// So many names are told at once; of more, the nearest.
const FEW: usize = 4;

/// The choice that goes by this name, or the names there are.
pub(super) fn choose<T: Copy>(word: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let chosen = choices.iter().find(|(name, _)| *name == word);
    chosen.map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let advice = match names.len() {
            0..=FEW => format!("use {}", or(&names)),
            _ => advice(word, &names),
        };
        format!("`{}` is not known ({advice})", shown(word))
    })
}

/// The name that was probably meant, or all of them.
pub(super) fn advice(word: &str, names: &[&str]) -> String {
    let likeness = |name: &&str| strsim::jaro_winkler(&word.to_lowercase(), &name.to_lowercase());
    let nearest = names
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest.filter(|name| likeness(name) > 0.8) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("use {}", or(names)),
    }
}

fn or(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => "nothing".to_owned(),
    }
}

/// An enum whose variants are words in a file.
macro_rules! vocabulary {
    (
        $(#[$about:meta])*
        $name:ident { $( $(#[$says:meta])* $variant:ident = $word:literal, )+ }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $( $(#[$says])* $variant, )+ }

        impl $name {
            /// Every one of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$( Self::$variant ),+];

            /// The word that stands for it in a file.
            pub fn word(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        impl $crate::config::words::FromWord for $name {
            const EXPECTED: &'static str = "one word";

            fn from_word(word: &str) -> Result<Self, String> {
                $crate::config::words::choose(word, &[$( ($word, Self::$variant) ),+])
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::config::words::one(deserializer)
            }
        }
    };
}
pub(super) use vocabulary;
