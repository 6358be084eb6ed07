//! The networks operators publish for their bots: shipped inside the binary, refreshed from a file.
//!
//! A list begins with `[its-name]`, says from when it is (`as-of 2026-09-02`), and goes on with one
//! network a line. Empty lines and lines that begin with `#` mean nothing. What is not in a list is
//! not the operator's, but only while the list is fresh: operators add networks without a word.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;

use crate::base::{net::parse_network, network_set::NetworkSet};

const SHIPPED: &str = include_str!("networks.txt");

/// The most networks of all lists together: a mistaken file must not eat the memory.
const NETWORKS_MAX: usize = 100_000;

/// The widest networks a bot may come from, in bits of prefix. `0.0.0.0/0` would make everybody Googlebot.
const PREFIX_MIN_V4: u8 = 8;
const PREFIX_MIN_V6: u8 = 19;

/// How long a list disproves a claim, in milliseconds: 90 days from its date.
///
/// Older ones still prove. Operators change their lists every few weeks, but mostly by a network
/// among many; after a quarter too much may have moved to refuse anybody for it.
const FRESH_FOR_MS: u64 = 90 * DAY_MS;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// How many times as long or as short as before a refreshed list may be.
const JUMP_MAX: usize = 4;

/// All lists, by name. Immutable: a new file makes a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networks(HashMap<Box<str>, List>);

/// One operator's networks for one purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
struct List {
    set: NetworkSet,
    /// How many networks were written.
    count: usize,
    /// The day it is from, in milliseconds since 1970.
    as_of_ms: u64,
}

/// What lists say about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// One of them has it.
    Listed,
    /// All of them are here and fresh, and none has it.
    NotListed,
    /// None has it, but one of them is missing or too old to disprove anything. Also when none are named.
    CannotTell,
}

/// What is wrong with a file of networks, and in which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworksError {
    /// Counted from one.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub fault: String,
}

impl fmt::Display for NetworksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.fault)
    }
}

impl std::error::Error for NetworksError {}

/// Why a refreshed file does not take the place of the one in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jump {
    list: Box<str>,
    before: usize,
    after: usize,
}

impl fmt::Display for Jump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            list,
            before,
            after,
        } = self;
        write!(
            f,
            "the list {list} went from {before} to {after} networks: more than {JUMP_MAX} times as \
             many or as few look like a mistake; the old lists stay, a restart takes the new ones"
        )
    }
}

impl std::error::Error for Jump {}

impl Networks {
    /// The lists inside the binary.
    #[expect(
        clippy::expect_used,
        reason = "the file is part of the binary, and a test reads it"
    )]
    pub fn shipped() -> Self {
        Self::parse(SHIPPED).expect("the shipped networks are right")
    }

    /// Reads a file of networks, whole or not at all.
    ///
    /// # Errors
    /// When a line says something else than the form allows, a list is empty, undated or written
    /// twice, or a network is wider than any bot's.
    pub fn parse(text: &str) -> Result<Self, NetworksError> {
        let mut file = File::default();
        for (index, written) in text.lines().enumerate() {
            file.line = index + 1;
            file.read(written.trim())
                .map_err(|fault| file.error(fault))?;
        }
        file.close().map_err(|fault| file.error(fault))?;
        if file.lists.is_empty() {
            return Err(file.error("no list at all: an empty file is a mistake".to_owned()));
        }
        Ok(Self(file.lists))
    }

    /// The names of the lists.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(AsRef::as_ref)
    }

    /// What the lists of these names say about an address at this time, in milliseconds since 1970.
    pub fn listing(&self, names: &[Box<str>], ip: IpAddr, unix_ms: u64) -> Listing {
        let mut all_disprove = !names.is_empty();
        for name in names {
            match self.0.get(name) {
                Some(list) if list.set.contains(ip) => return Listing::Listed,
                Some(list) => all_disprove &= list.is_fresh(unix_ms),
                None => all_disprove = false,
            }
        }
        if all_disprove {
            Listing::NotListed
        } else {
            Listing::CannotTell
        }
    }

    /// Whether these may take the place of `old`.
    ///
    /// # Errors
    /// When a list has become several times as long or as short: half a download, or another file.
    pub fn may_replace(&self, old: &Self) -> Result<(), Jump> {
        for (name, before) in &old.0 {
            let after = self.0.get(name).map_or(0, |list| list.count);
            let before = before.count;
            if after.saturating_mul(JUMP_MAX) < before || before.saturating_mul(JUMP_MAX) < after {
                return Err(Jump {
                    list: name.clone(),
                    before,
                    after,
                });
            }
        }
        Ok(())
    }
}

impl List {
    fn is_fresh(&self, unix_ms: u64) -> bool {
        unix_ms.saturating_sub(self.as_of_ms) <= FRESH_FOR_MS
    }
}

/// A file as far as it has been read.
#[derive(Default)]
struct File {
    line: usize,
    lists: HashMap<Box<str>, List>,
    networks: usize,
    open: Option<Open>,
}

/// The list whose lines are being read.
struct Open {
    name: Box<str>,
    as_of_ms: Option<u64>,
    networks: HashSet<IpNet>,
}

impl File {
    fn error(&self, fault: String) -> NetworksError {
        NetworksError {
            line: self.line,
            fault,
        }
    }

    fn read(&mut self, line: &str) -> Result<(), String> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            self.close()?;
            if name.is_empty() {
                return Err("a list needs a name: write `[operator-bot]`".to_owned());
            }
            if self.lists.contains_key(name) {
                return Err(format!("there is a list {name} already"));
            }
            self.open = Some(Open {
                name: name.into(),
                as_of_ms: None,
                networks: HashSet::new(),
            });
            return Ok(());
        }
        let Some(open) = &mut self.open else {
            return Err(format!("{line:?} belongs to no list: write `[name]` first"));
        };
        if let Some(day) = line.strip_prefix("as-of ") {
            let as_of_ms = day_ms(day)
                .ok_or_else(|| format!("{day:?} is no day: write it as `2026-09-02`"))?;
            return match open.as_of_ms.replace(as_of_ms) {
                Some(_) => Err(format!("the list {} has two dates", open.name)),
                None => Ok(()),
            };
        }
        let network = parse_network(line).map_err(|error| error.to_string())?;
        let narrowest = match network {
            IpNet::V4(_) => PREFIX_MIN_V4,
            IpNet::V6(_) => PREFIX_MIN_V6,
        };
        if network.prefix_len() < narrowest {
            return Err(format!(
                "{network} is too wide: use /{narrowest} or narrower"
            ));
        }
        open.networks.insert(network);
        self.networks += 1;
        if self.networks > NETWORKS_MAX {
            return Err(format!("more than {NETWORKS_MAX} networks"));
        }
        Ok(())
    }

    /// Puts the open list among the others.
    fn close(&mut self) -> Result<(), String> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let name = open.name;
        let as_of_ms = open.as_of_ms.ok_or_else(|| {
            format!("the list {name} says nowhere from when it is: write `as-of 2026-09-02`")
        })?;
        let count = open.networks.len();
        if count == 0 {
            return Err(format!("the list {name} is empty"));
        }
        let set = open.networks.into_iter().collect();
        let list = List {
            set,
            count,
            as_of_ms,
        };
        self.lists.insert(name, list);
        Ok(())
    }
}

/// The beginning of a day `YYYY-MM-DD` of 1970 or later, in milliseconds since 1970.
fn day_ms(day: &str) -> Option<u64> {
    let mut parts = day.splitn(3, '-');
    let mut number = |digits: usize| {
        let part = parts.next()?;
        let is_number = part.len() == digits && part.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| part.parse::<u64>().ok()).flatten()
    };
    let (year, month, day) = (number(4)?, number(2)?, number(2)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years begin in March here, so that the leap day is their last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some((days - DAYS_TO_1970) * DAY_MS)
}

/// The days from 0000-03-01 to 1970-01-01.
const DAYS_TO_1970: u64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    /// Noon of 2026-09-02, the day of the list below.
    const NOW: u64 = 1_788_350_400_000;

    const FILE: &str = "# comment\n[foo]\nas-of 2026-09-02\n198.51.100.0/24\n2001:db8::/32\n\n\
                        [bar]\nas-of 2026-09-02\n203.0.113.7\n";

    fn names(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|name| (*name).into()).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn fault(text: &str) -> (usize, String) {
        let error = Networks::parse(text).unwrap_err();
        (error.line, error.fault)
    }

    #[test]
    fn the_shipped_networks_are_right_and_serve_the_shipped_catalogue() {
        let networks = Networks::parse(SHIPPED).unwrap();
        let catalogue = crate::bots::Catalogue::shipped();
        let named = catalogue.entries().iter().flat_map(|entry| &entry.networks);
        for name in named {
            assert!(networks.0.contains_key(name), "there is no list {name}");
        }
        let googlebot = names(&["google-googlebot"]);
        assert_eq!(
            networks.listing(&googlebot, ip("66.249.66.1"), NOW),
            Listing::Listed
        );
    }

    #[test]
    fn a_listed_address_is_told_by_family_and_list() {
        let networks = Networks::parse(FILE).unwrap();
        let listing = |list: &str, text| networks.listing(&names(&[list]), ip(text), NOW);
        assert_eq!(listing("foo", "198.51.100.7"), Listing::Listed);
        assert_eq!(listing("foo", "2001:db8::7"), Listing::Listed);
        assert_eq!(listing("foo", "203.0.113.7"), Listing::NotListed);
        assert_eq!(listing("bar", "203.0.113.7"), Listing::Listed);
        let both = names(&["foo", "bar"]);
        assert_eq!(
            networks.listing(&both, ip("203.0.113.7"), NOW),
            Listing::Listed
        );
    }

    #[test]
    fn an_old_a_missing_or_no_list_disproves_nothing() {
        let networks = Networks::parse(FILE).unwrap();
        let stranger = ip("192.0.2.1");
        let foo = names(&["foo"]);
        let last = NOW - DAY_MS / 2 + FRESH_FOR_MS;
        assert_eq!(networks.listing(&foo, stranger, last), Listing::NotListed);
        assert_eq!(
            networks.listing(&foo, stranger, last + 1),
            Listing::CannotTell
        );
        assert_eq!(
            networks.listing(&foo, ip("198.51.100.7"), last + 1),
            Listing::Listed
        );
        let unknown = names(&["foo", "baz"]);
        assert_eq!(
            networks.listing(&unknown, stranger, NOW),
            Listing::CannotTell
        );
        assert_eq!(networks.listing(&[], stranger, NOW), Listing::CannotTell);
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        assert_eq!(fault("198.51.100.0/24").0, 1);
        assert_eq!(fault("[foo]\n198.51.100.0/24\n").0, 2);
        assert_eq!(fault("[foo]\nas-of 2026-09-02\n\n[bar]").0, 4);
        assert_eq!(fault("[foo]\nas-of yesterday").0, 2);
        assert_eq!(fault("[foo]\nas-of 2026-13-02").0, 2);
        assert_eq!(fault("[foo]\nas-of 2026-09-02\n198.51.100.7/24").0, 3);
        assert_eq!(
            fault("[foo]\nas-of 2026-09-02\n0.0.0.0/0"),
            (3, "0.0.0.0/0 is too wide: use /8 or narrower".to_owned())
        );
        assert_eq!(fault(&format!("{FILE}[foo]")).0, 10);
        assert_eq!(fault("# nothing").0, 1);
    }

    #[test]
    fn a_list_that_shrinks_or_grows_beyond_belief_does_not_take_the_place_of_the_old_one() {
        let old = Networks::parse(FILE).unwrap();
        assert_eq!(old.may_replace(&old), Ok(()));
        let without_bar = Networks::parse(FILE.split("[bar]").next().unwrap()).unwrap();
        assert!(without_bar.may_replace(&old).is_err());
        assert_eq!(old.may_replace(&without_bar), Ok(()));
        let grown = |networks: u8| {
            let lines: String = (0..networks).map(|i| format!("192.0.2.{i}\n")).collect();
            Networks::parse(&format!("{FILE}{lines}")).unwrap()
        };
        assert_eq!(grown(3).may_replace(&old), Ok(()));
        assert!(grown(4).may_replace(&old).is_err());
    }

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        assert_eq!(day_ms("1970-01-01"), Some(0));
        assert_eq!(day_ms("2000-02-29"), Some(951_782_400_000));
        assert_eq!(day_ms("2026-09-02"), Some(NOW - DAY_MS / 2));
        for no_day in [
            "",
            "2026-9-2",
            "1969-12-31",
            "2026-00-01",
            "2026-01-32",
            "2026-01-01-01",
            "+026-01-01",
        ] {
            assert_eq!(day_ms(no_day), None, "{no_day}");
        }
    }
}
