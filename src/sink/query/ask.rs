//! A question for events and its answer, as the API and the command line both know them.

use std::{str::FromStr as _, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};

use super::{
    EventTopic,
    filter::{BadFilter, CONDITIONS, Filter},
    position::Position,
    scan::{self, Bounds, Event, Order},
    tally::Tally,
};
use crate::{
    event::time::Stamps,
    log::{Partition, ReadError},
};

/// Events of one answer, unless asked otherwise.
const PAGE: usize = 100;

/// Events of one answer at most.
pub const PAGE_MAX: usize = 1_000;

/// What a question may say beside the conditions.
pub const PARAMETERS: [&str; 4] = ["topic", "order", "limit", "after"];

/// A question for events.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Where they are told.
    pub topic: EventTopic,
    /// Which are wanted.
    pub filter: Filter,
    /// Which come first.
    pub order: Order,
    /// How many at most.
    pub limit: usize,
    /// Where to go on.
    pub after: Position,
}

/// An answer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Found {
    /// The events as they are stored, in the order that was asked for.
    pub events: Vec<Box<RawValue>>,
    /// What to give as `after`, to go on in the same order.
    pub next: String,
    /// Whether there is nothing more, for now.
    pub is_end: bool,
    /// What to give as `after` with `order=oldest`, for what comes after all that was there.
    pub tail: String,
    /// What it took.
    pub tally: Tally,
}

impl Ask {
    /// Reads the parameters that `get` knows; spans of time end at `now_ms`.
    ///
    /// # Errors
    /// When one of them says nothing.
    pub fn read<'a>(
        get: impl Fn(&'static str) -> Option<&'a str>,
        now_ms: u64,
    ) -> Result<Self, BadFilter> {
        let bad = |name, why: &str| BadFilter {
            name,
            why: why.to_owned(),
        };
        let topic = match get("topic") {
            Some(text) => EventTopic::parse(text)
                .ok_or_else(|| bad("topic", "there are access, ban, audit"))?,
            None => EventTopic::Access,
        };
        let order = match get("order") {
            None | Some("newest") => Order::Newest,
            Some("oldest") => Order::Oldest,
            Some(_) => return Err(bad("order", "write newest or oldest")),
        };
        let limit = match get("limit").map(str::parse) {
            None => PAGE,
            Some(Ok(limit)) if (1..=PAGE_MAX).contains(&limit) => limit,
            Some(_) => return Err(bad("limit", "write a whole number from 1 to 1000")),
        };
        let after = Position::from_str(get("after").unwrap_or_default());
        Ok(Self {
            topic,
            filter: Filter::read(topic, &get, now_ms)?,
            order,
            limit,
            after: after.map_err(|error| bad("after", &error.to_string()))?,
        })
    }

    /// All names of parameters.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PARAMETERS.into_iter().chain(CONDITIONS)
    }

    /// Those of the partitions in which the events are told.
    pub fn partitions(&self, all: &[Arc<Partition>]) -> Vec<Arc<Partition>> {
        let is_own = |one: &&Arc<Partition>| one.topic().name == self.topic.name();
        all.iter().filter(is_own).cloned().collect()
    }

    /// The answer from these partitions; `is_over` cuts it short.
    ///
    /// # Errors
    /// When a partition cannot be read.
    pub fn answer(
        &self,
        partitions: &[Arc<Partition>],
        is_over: &mut dyn FnMut() -> bool,
    ) -> Result<Found, ReadError> {
        let tail = scan::end(partitions);
        let bounds = &mut Bounds {
            events: self.limit,
            is_over,
        };
        let page = scan::page(partitions, &self.filter, self.order, &self.after, bounds)?;
        let mut tally = page.tally;
        let mut events = Vec::with_capacity(page.events.len());
        for event in &page.events {
            match stored(event) {
                Some(event) => events.push(event),
                None => tally.unreadable += 1,
            }
        }
        let next = page.next.to_string();
        Ok(Found {
            events,
            tail: match self.order {
                Order::Newest => tail.to_string(),
                Order::Oldest => next.clone(),
            },
            next,
            is_end: page.is_end,
            tally,
        })
    }
}

/// The event as it is stored, in ASCII; a tombstone as an object that says so.
fn stored(event: &Event) -> Option<Box<RawValue>> {
    let text = match &event.value {
        Some(value) => ascii(std::str::from_utf8(value).ok()?),
        None => {
            let mut time = Vec::new();
            let unix_ms = u64::try_from(event.timestamp_ms).unwrap_or(0);
            Stamps::default().write_rfc3339(unix_ms, &mut time);
            let key = event.key.as_deref().unwrap_or_default();
            ascii(
                &json!({
                    "event": "tombstone",
                    "time": String::from_utf8_lossy(&time),
                    "key": String::from_utf8_lossy(key),
                })
                .to_string(),
            )
        }
    };
    RawValue::from_string(text).ok()
}

/// JSON with what is not printable ASCII escaped. That stands inside strings only, or is a line break.
fn ascii(json: &str) -> String {
    if json.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        return json.to_owned();
    }
    let mut units = [0; 2];
    json.chars()
        .fold(String::with_capacity(json.len() * 2), |mut out, c| {
            match c {
                ' '..='~' => out.push(c),
                '\t' | '\n' | '\r' => out.push(' '),
                _ => {
                    for unit in c.encode_utf16(&mut units) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
            }
            out
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::query::written::{Events, Written};

    fn ask(parameters: &[(&str, &str)]) -> Result<Ask, BadFilter> {
        let get = |name| {
            let found = parameters.iter().find(|(own, _)| *own == name);
            found.map(|(_, text)| *text)
        };
        Ask::read(get, 1_000)
    }

    #[test]
    fn events_are_told_as_they_are_stored_and_move_no_cursor() {
        let batch: Events<'_> = &[
            (1, r#"{"event":"access","path":"/\u001b[2J"}"#),
            (
                2,
                "{\"event\":\"access\",\n\"path\":\"/\u{9b}\u{202e}\u{1f4a9}\u{7f}\"}",
            ),
            (3, ""),
        ];
        let written = Written::new(&[&[batch]]);
        let log = written.partitions();
        let found = ask(&[("order", "oldest")])
            .unwrap()
            .answer(log, &mut || false)
            .unwrap();
        let told: Vec<&str> = found.events.iter().map(|event| event.get()).collect();
        assert_eq!(
            told,
            [
                r#"{"event":"access","path":"/\u001b[2J"}"#,
                r#"{"event":"access", "path":"/\u009b\u202e\ud83d\udca9\u007f"}"#,
                r#"{"event":"tombstone","key":"key","time":"1970-01-01T00:00:00.003Z"}"#,
            ]
        );
        assert!(
            told.iter()
                .all(|told| serde_json::from_str::<serde_json::Value>(told).is_ok())
        );
        assert!(found.is_end);
    }

    #[test]
    fn the_tail_is_where_the_newest_began() {
        let batch: Events<'_> = &[(1, "{}"), (2, "{}")];
        let written = Written::new(&[&[batch]]);
        let log = written.partitions();
        let found = ask(&[("limit", "1")])
            .unwrap()
            .answer(log, &mut || false)
            .unwrap();
        assert_eq!(
            (found.next.as_str(), found.tail.as_str(), found.is_end),
            ("0-1", "0-2", false)
        );
        let on = [("order", "oldest"), ("after", found.tail.as_str())];
        let found = ask(&on).unwrap().answer(log, &mut || false).unwrap();
        assert!(found.events.is_empty() && found.is_end);
        assert_eq!((found.next.as_str(), found.tail.as_str()), ("0-2", "0-2"));
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        for (name, text, words) in [
            ("topic", "x", "`topic`: there are access, ban, audit"),
            ("order", "x", "`order`: write newest or oldest"),
            ("limit", "0", "`limit`: write a whole number from 1 to 1000"),
            (
                "limit",
                "1001",
                "`limit`: write a whole number from 1 to 1000",
            ),
            (
                "after",
                "x",
                "`after`: give `next` of an earlier answer, as it stands there",
            ),
            ("since", "1", "`since`: the unit is missing"),
        ] {
            let told = ask(&[(name, text)]).unwrap_err().to_string();
            assert!(told.starts_with(words), "{told}");
        }
        assert_eq!(
            ask(&[("topic", "wardent.client.ban")]).unwrap().topic,
            EventTopic::Ban
        );
    }
}
