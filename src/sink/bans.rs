//! Bans as records of the log: written as they change, read back at the start.

use super::letters::{Letter, UNREAD_MAX};
use crate::{
    event::{
        audit::{Audit, BanStanding, Evidence, Standing, What},
        avro::{self, Codec},
        ban::BanState,
        privacy::Privacy,
        time::Stamps,
    },
    log::{Builder, View},
    owner::{Change, Memory, Restoring, Target, Told, Violation},
};

/// Bytes that a change takes while it waits.
pub(super) fn bytes_of(told: &Told) -> usize {
    let memories = [&told.before, &told.after].into_iter().flatten();
    let why: usize = memories.map(|memory| memory.why.len()).sum();
    size_of::<Told>() + why + told.evidence.len() * size_of::<Violation>()
}

/// Turns changes into records.
#[derive(Debug, Default)]
pub struct Encoder {
    /// What the audit shows of an address. Bans are remembered whole.
    privacy: Privacy,
    /// What values of bans and of the audit are turned into; JSON where none.
    bans: Option<&'static Codec>,
    audit: Option<&'static Codec>,
    stamps: Stamps,
    value: Vec<u8>,
    /// A value that was turned.
    turned: Vec<u8>,
}

impl Encoder {
    /// One that leaves of addresses in the audit what `privacy` does.
    pub fn new(privacy: Privacy) -> Self {
        Self {
            privacy,
            ..Self::default()
        }
    }

    /// The same, with values of bans and of the audit as these codecs have them; JSON where none.
    pub fn with_codecs(self, bans: Option<&'static Codec>, audit: Option<&'static Codec>) -> Self {
        Self {
            bans,
            audit,
            ..self
        }
    }

    /// Adds a change to the records of `wardent.client.ban` and to those of `wardent.audit.event`.
    pub(super) fn encode(&mut self, told: &Told, bans: &mut Builder, audit: &mut Builder) {
        let timestamp_ms = signed(told.unix_ms);
        // What is only observed bans nobody, after a start no more than before.
        if told.enforced {
            let key = told.target.to_string();
            self.value.clear();
            let value = told.after.as_ref().map(|memory| {
                memory
                    .record(&told.target, told.unix_ms)
                    .write(&self.stamps, &mut self.value);
                turned(self.bans, &self.value, &mut self.turned)
            });
            bans.push(timestamp_ms, Some(key.as_bytes()), value, &[]);
        }
        if let Some(note) = self.note(told) {
            tracing::info!(
                change = told.change.name(),
                client = note.target,
                level = told.after.as_ref().map_or(0, |memory| memory.level),
                enforced = told.enforced,
                why = ?note.why,
                by = ?note.actor,
                "ban"
            );
            self.encode_audit(&note, audit);
        }
    }

    /// Adds a record to those of `wardent.audit.event`.
    pub(super) fn encode_audit(&mut self, note: &Audit, audit: &mut Builder) {
        self.value.clear();
        note.write(&self.stamps, &mut self.value);
        let key = note.key().as_bytes();
        let value = turned(self.audit, &self.value, &mut self.turned);
        audit.push(signed(note.unix_ms), Some(key), Some(value), &[]);
    }

    /// What a change is to the audit; nothing where nobody did anything.
    fn note(&self, told: &Told) -> Option<Audit> {
        let what = match told.change {
            Change::Began if told.enforced => What::Ban,
            Change::Began => What::WouldBan,
            Change::Expired => What::Expire,
            Change::Lifted => What::Unban,
            Change::Spared => What::Spare,
            Change::Forgotten | Change::Noted => return None,
        };
        let why = match told.change {
            Change::Lifted | Change::Spared => None,
            Change::Began | Change::Expired | Change::Forgotten | Change::Noted => {
                told.after.as_ref()
            }
        };
        let standing = |memory: &Memory| Standing::Ban(self.standing(memory));
        let evidence = told.evidence.iter();
        Some(Audit {
            target: Some(self.privacy.of_network(told.target.network()).to_string()),
            before: told.before.as_ref().map(standing),
            after: told.after.as_ref().map(standing),
            evidence: evidence.map(|seen| self.evidence(seen)).collect(),
            why: why.map_or_else(String::new, |memory| memory.why.clone()),
            enforced: told.enforced,
            ..Audit::new(what, told.actor(), told.unix_ms)
        })
    }

    fn standing(&self, memory: &Memory) -> BanStanding {
        let spelled = |unix_ms| self.stamps.rfc3339(unix_ms);
        let of_ban = |unix_ms| memory.has_ban().then(|| spelled(unix_ms));
        BanStanding {
            state: memory.state,
            level: memory.level,
            since: of_ban(memory.since_unix_ms),
            until: of_ban(memory.until_unix_ms),
            grace_until: memory.grace_until_unix_ms.map(spelled),
            by: memory.decided.name().to_owned(),
        }
    }

    fn evidence(&self, seen: &Violation) -> Evidence {
        Evidence {
            id: String::from_utf8_lossy(seen.request.as_bytes()).into_owned(),
            time: self.stamps.rfc3339(seen.unix_ms),
            cause: seen.cause.name(),
            points: seen.points,
            path: seen
                .path
                .as_bytes()
                .iter()
                .copied()
                .map(char::from)
                .collect(),
        }
    }
}

/// The event as a codec has it, in `out`; as it is, where there is none or it does not know it.
fn turned<'a>(codec: Option<&Codec>, event: &'a [u8], out: &'a mut Vec<u8>) -> &'a [u8] {
    out.clear();
    match codec.is_some_and(|codec| codec.write(event, out)) {
        true => out,
        false => event,
    }
}

/// How the way back from the log went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Records read.
    pub records: u64,
    /// Batches that were damaged, and passed over.
    pub damaged: u64,
    /// Records that say nothing this version can read, and were passed over.
    pub unreadable: u64,
    /// The first of these.
    pub letters: Vec<Letter>,
}

/// Takes the bans back that `batches` remember: whole batches as they are stored, one after the other.
///
/// A damaged batch is passed over. Where nobody can tell where the next one begins, it ends there.
pub fn replay(
    mut batches: &[u8],
    ipv6_prefix: u8,
    scratch: &mut Vec<u8>,
    into: &mut Restoring<'_>,
    replayed: &mut Replayed,
) {
    while let Ok((view, rest)) = View::read(batches) {
        batches = rest;
        let records = view.verify().and_then(|()| view.records(scratch));
        let Ok(records) = records else {
            replayed.damaged += 1;
            continue;
        };
        for record in records {
            let Ok(record) = record else {
                replayed.damaged += 1;
                break;
            };
            replayed.records += 1;
            if restore(record.key, record.value, ipv6_prefix, into).is_none() {
                replayed.unreadable += 1;
                if replayed.letters.len() < UNREAD_MAX {
                    let words = "the record is no state of a ban that this version can read";
                    replayed.letters.push(Letter::unreadable(&record, words));
                }
            }
        }
    }
}

/// Takes one record back; none when it cannot be read.
fn restore(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    ipv6_prefix: u8,
    into: &mut Restoring<'_>,
) -> Option<()> {
    let key = std::str::from_utf8(key?).ok()?;
    let target = Target::parse(key, ipv6_prefix).ok()?;
    let Some(value) = value else {
        into.forget(&target);
        return Some(());
    };
    let mut json = Vec::new();
    let record = BanState::read(avro::as_json(value, &mut json)?).ok()?;
    let told_unix_ms = record.unix_ms;
    into.remember(target, Memory::from(record), told_unix_ms);
    Some(())
}

fn signed(unix_ms: u64) -> i64 {
    i64::try_from(unix_ms).unwrap_or(i64::MAX)
}
