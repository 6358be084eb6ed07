//! What a log must have after whatever happened to it: what was offered, answered, shown and deleted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex},
};

use crate::{
    base::fuzz::Dice,
    log::{Batch, Builder, Compression, View},
};

/// What is wrong with a log, in words.
pub(super) type Wrong = String;

/// How what is in a partition is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Durable,
    Compacted,
    Lazy,
}

/// How the log was left before it is opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// In good order.
    Closed,
    /// The process was killed.
    Killed,
    /// The power was cut.
    PowerCut,
}

/// What the log said to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is in the log, from this offset on.
    At(i64),
    Refused,
}

/// Answers with lane and number of the append, written by callbacks as long as the machine runs.
pub(super) type Answers = Arc<Mutex<Vec<(usize, usize, Answer)>>>;

/// A record as it stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) offset: i64,
    pub(super) id: u64,
    pub(super) epoch: i32,
}

/// One append.
#[derive(Debug, Clone)]
struct Offered {
    /// The id of its first record; the others follow.
    first_id: u64,
    keys: Vec<u32>,
    answer: Option<Answer>,
    session: u32,
    /// The first of the appends that this one repeats, because they were refused.
    original: usize,
}

/// A record that is in the log.
#[derive(Debug, Clone, Copy)]
struct Known {
    offset: i64,
    key: u32,
}

/// What is known of one partition.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) class: Class,
    offered: Vec<Offered>,
    next_id: u64,
    /// The records that are in the log, by id.
    known: BTreeMap<u64, Known>,
    /// Everything below is safe, says the log.
    pub(super) flushed: i64,
    /// Everything below was shown to readers.
    pub(super) shown: i64,
    /// What retention was asked to take.
    pub(super) deleted_below: i64,
    /// Counts how often the log was opened.
    session: u32,
    /// Sessions that began after the log was not closed.
    unclean: BTreeSet<u32>,
    epochs: BTreeMap<u32, i32>,
    /// Sessions whose epoch found no room on the disk.
    unkept: BTreeSet<u32>,
    /// Offsets that recovery told to be gone.
    holes: BTreeSet<i64>,
}

impl Lane {
    pub(super) fn new(class: Class) -> Self {
        Self {
            class,
            offered: Vec::new(),
            next_id: 1,
            known: BTreeMap::new(),
            flushed: 0,
            shown: 0,
            deleted_below: 0,
            session: 0,
            unclean: BTreeSet::new(),
            epochs: BTreeMap::new(),
            unkept: BTreeSet::new(),
            holes: BTreeSet::new(),
        }
    }

    /// A batch of new records with these keys, and its number.
    pub(super) fn offer(
        &mut self,
        builder: &mut Builder,
        keys: Vec<u32>,
        padding: usize,
        timestamp_ms: i64,
    ) -> (usize, Batch) {
        for (id, key) in (self.next_id..).zip(&keys) {
            let mut value = format!("{id}:").into_bytes();
            let mut dice = Dice::seeded(id);
            value.extend((0..padding).map(|_| dice.next().to_le_bytes()[0]));
            let key = key.to_string();
            builder.push(timestamp_ms, Some(key.as_bytes()), Some(&value), &[]);
        }
        let number = self.offered.len();
        // What was refused is offered again, now and then: at the most one of both is in the log.
        let refused = self
            .offered
            .last()
            .filter(|last| last.session == self.session && last.answer == Some(Answer::Refused));
        let original = refused.map_or(number, |last| last.original);
        let first_id = self.next_id;
        self.next_id += keys.len() as u64;
        self.offered.push(Offered {
            first_id,
            keys,
            answer: None,
            session: self.session,
            original,
        });
        (number, builder.finish(Compression::Lz4))
    }

    /// Takes what was said to an append.
    pub(super) fn answered(&mut self, number: usize, answer: Answer) -> Result<(), Wrong> {
        let offered = &mut self.offered[number];
        if offered.answer.replace(answer).is_some() {
            return Err(format!("append {number} was answered twice"));
        }
        if let Answer::At(base) = answer {
            let ids = offered.first_id..;
            for ((id, offset), key) in ids.zip(base..).zip(&offered.keys) {
                self.known.insert(id, Known { offset, key: *key });
            }
        }
        Ok(())
    }

    fn of_session(&self) -> impl Iterator<Item = &Offered> {
        let session = self.session;
        self.offered
            .iter()
            .filter(move |offered| offered.session == session)
    }

    /// Appends that were not answered.
    pub(super) fn unanswered(&self) -> usize {
        self.of_session()
            .filter(|offered| offered.answer.is_none())
            .count()
    }

    /// Records that were ever offered.
    pub(super) fn offered_records(&self) -> usize {
        self.offered.iter().map(|offered| offered.keys.len()).sum()
    }

    /// Whether the append is in the log.
    pub(super) fn is_accepted(&self, number: usize) -> bool {
        matches!(self.offered[number].answer, Some(Answer::At(_)))
    }

    /// Whether compaction may take the record: a later one of its key has been shown.
    pub(super) fn is_superseded(&self, id: u64) -> bool {
        let Some(own) = self.known.get(&id) else {
            return false;
        };
        let mut later = self.known.range(id + 1..);
        later.any(|(_, known)| known.offset < self.shown && known.key == own.key)
    }

    /// The log was opened, perhaps not after an orderly stop. Recovery told that offsets are missing.
    pub(super) fn begin(&mut self, is_unclean: bool, missing: &[i64]) {
        self.holes.extend(missing);
        self.session += 1;
        if is_unclean {
            self.unclean.insert(self.session);
        }
    }

    /// The disk was full: where all that is appended now is lost, nothing says that this epoch ever was.
    pub(super) fn epoch_is_not_kept(&mut self) {
        self.unkept.insert(self.session);
    }

    /// Checks what is in the log when it was opened again, and goes on from there. It `may_have_holes`
    /// where recovery told that it took bytes out.
    pub(super) fn reopened(
        &mut self,
        found: &[Stored],
        left: Left,
        may_have_holes: bool,
    ) -> Result<(), Wrong> {
        self.check(found)?;
        self.check_holes(found, may_have_holes)?;
        let there: BTreeMap<u64, i64> = found.iter().map(|one| (one.id, one.offset)).collect();
        let is_cut = left == Left::PowerCut && self.class == Class::Lazy;
        for (id, known) in &self.known {
            let may_be_gone = there.contains_key(id)
                || known.offset < self.deleted_below
                || is_cut && known.offset >= self.flushed
                || self.class == Class::Compacted && self.is_superseded(*id);
            if !may_be_gone {
                let (offset, class, flushed) = (known.offset, self.class, self.flushed);
                return Err(format!(
                    "record {id} at {offset} is lost: {class:?}, {left:?}, flushed {flushed}"
                ));
            }
        }
        // What is gone stays gone, and what is there stays there.
        self.known.retain(|id, _| there.contains_key(id));
        for offered in &mut self.offered {
            let ids = offered.first_id..;
            for (id, key) in ids.zip(&offered.keys) {
                if let Some(&offset) = there.get(&id) {
                    self.known.insert(id, Known { offset, key: *key });
                    offered.answer = Some(Answer::At(offset));
                }
            }
            offered.answer.get_or_insert(Answer::Refused);
        }
        Ok(())
    }

    /// Checks what a reader finds below the high watermark.
    pub(super) fn check_read(&self, found: &[Stored], high_watermark: i64) -> Result<(), Wrong> {
        let there: BTreeSet<u64> = found.iter().map(|one| one.id).collect();
        for (id, known) in &self.known {
            let may_be_gone = there.contains(id)
                || known.offset < self.deleted_below
                || self.class == Class::Compacted && self.is_superseded(*id);
            if !may_be_gone {
                let offset = known.offset;
                return Err(format!(
                    "record {id} at {offset} is not read below {high_watermark}"
                ));
            }
        }
        Ok(())
    }

    /// Checks that nothing in the log is strange, twice, or out of order.
    pub(super) fn check(&mut self, found: &[Stored]) -> Result<(), Wrong> {
        for pair in found.windows(2) {
            let is_next = pair[0].offset < pair[1].offset
                && pair[0].id < pair[1].id
                && pair[0].epoch <= pair[1].epoch;
            if !is_next {
                return Err(format!("{:?} is followed by {:?}", pair[0], pair[1]));
            }
        }
        let mut appends = BTreeMap::new();
        for one in found {
            if let Some(known) = self
                .known
                .get(&one.id)
                .filter(|known| known.offset != one.offset)
            {
                return Err(format!("{one:?} was at {}", known.offset));
            }
            let after = self
                .offered
                .partition_point(|offered| offered.first_id <= one.id);
            let number = after.checked_sub(1).filter(|_| one.id < self.next_id);
            let number = number.ok_or_else(|| format!("{one:?} was never offered"))?;
            let offered = &self.offered[number];
            // A durable append whose sync failed is refused while it is still in the file. If the machine
            // stops before it is taken from there, it is found.
            let may_be_there = offered.answer != Some(Answer::Refused)
                || self.class != Class::Lazy && offered.session + 1 == self.session;
            if !may_be_there {
                return Err(format!("{one:?} was refused, or gone before"));
            }
            if *appends.entry(offered.original).or_insert(number) != number {
                return Err(format!("{one:?} is there a second time"));
            }
            self.check_epoch(offered.session, one)?;
        }
        Ok(())
    }

    /// Checks that no offset is missing, but for those that recovery, or compaction, took.
    fn check_holes(&mut self, found: &[Stored], may_have_more: bool) -> Result<(), Wrong> {
        for pair in found.windows(2) {
            let missing = pair[0].offset + 1..pair[1].offset;
            if may_have_more || self.class == Class::Compacted {
                self.holes.extend(missing);
            } else if missing.clone().any(|offset| !self.holes.contains(&offset)) {
                return Err(format!("a hole between {:?} and {:?}", pair[0], pair[1]));
            }
        }
        Ok(())
    }

    fn check_epoch(&mut self, session: u32, one: &Stored) -> Result<(), Wrong> {
        let epoch = *self.epochs.entry(session).or_insert(one.epoch);
        if epoch != one.epoch {
            return Err(format!("{one:?} is of a session with epoch {epoch}"));
        }
        let Some((before, earlier)) = self.epochs.range(..session).next_back() else {
            return Ok(());
        };
        let is_unclean = self.unclean.range(before + 1..=session).next().is_some();
        let may_be_again = epoch == *earlier && self.unkept.contains(before);
        if epoch <= *earlier && is_unclean && !may_be_again {
            return Err(format!("{one:?} is after an unclean stop in no new epoch"));
        }
        Ok(())
    }
}

/// The records of stored batches.
pub(super) fn stored(bytes: &[u8]) -> Result<Vec<Stored>, Wrong> {
    let told = |what: &dyn fmt::Display| format!("what is read is no batch: {what}");
    let mut found = Vec::new();
    let mut scratch = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (view, after) = View::read(rest).map_err(|damage| told(&damage))?;
        view.verify().map_err(|damage| told(&damage))?;
        for record in view.records(&mut scratch).map_err(|damage| told(&damage))? {
            let record = record.map_err(|damage| told(&damage))?;
            found.push(Stored {
                offset: record.offset,
                id: id_of(record.value.unwrap()),
                epoch: view.leader_epoch(),
            });
        }
        rest = after;
    }
    Ok(found)
}

/// The id that the value of a record begins with.
pub(super) fn id_of(value: &[u8]) -> u64 {
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |id, digit| id * 10 + u64::from(digit - b'0'))
}
