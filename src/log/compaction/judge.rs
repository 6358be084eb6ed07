//! What becomes of one batch.

use super::{
    Job,
    keys::KeyName,
    survey::{Survey, is_read},
};
use crate::log::{
    batch::{Batch, Damage, View},
    build::Builder,
    codec::Compression,
    record::Record,
    trusted_time::millis,
};

/// What becomes of a batch.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It stays as it is.
    Stays,
    /// It is replaced by this one, which has fewer records or a horizon for its tombstones.
    Becomes(Batch),
    /// It goes; of a segment's last batch this stays, without its records.
    Goes(Batch),
}

/// What is known of tombstones that stayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tombstones {
    /// The earliest time at which one of them may go, in milliseconds since 1970.
    pub(crate) earliest_horizon_ms: Option<i64>,
    /// Some that have no horizon yet, because the clock was not believed.
    pub(crate) without_horizon: u64,
}

/// Judges batches by what the survey found.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) survey: Survey,
    /// The first offset that is not judged.
    pub(super) end: i64,
    now_ms: Option<i64>,
    delete_retention_ms: i64,
    pub(super) tombstones: Tombstones,
    pub(super) records_dropped: u64,
    builder: Builder,
    scratch: Vec<u8>,
    /// For each record of the batch, whether it stays.
    stays: Vec<bool>,
}

impl Judge {
    pub(super) fn new(survey: Survey, end: i64, job: &Job) -> Self {
        let delete_retention_ms = millis(job.delete_retention);
        Self {
            survey,
            end,
            now_ms: job.now_ms.and_then(|now_ms| i64::try_from(now_ms).ok()),
            delete_retention_ms: i64::try_from(delete_retention_ms).unwrap_or(i64::MAX),
            tombstones: Tombstones::default(),
            records_dropped: 0,
            builder: Builder::new(),
            scratch: Vec::new(),
            stays: Vec::new(),
        }
    }

    /// What becomes of a batch whose checksum is right.
    ///
    /// # Errors
    /// When its records cannot be read.
    pub(super) fn judge(&mut self, view: &View<'_>) -> Result<Verdict, Damage> {
        if view.base_offset() >= self.end || view.is_control() || !is_read(view) {
            return Ok(Verdict::Stays);
        }
        self.stays.clear();
        let mut tombstones: u64 = 0;
        let mut scratch = std::mem::take(&mut self.scratch);
        for record in view.records(&mut scratch)? {
            let record = record?;
            let stays = self.record_stays(&record, view.delete_horizon());
            tombstones += u64::from(stays && record.value.is_none());
            self.stays.push(stays);
        }
        self.scratch = scratch;

        let all = self.stays.len();
        let kept = self.stays.iter().filter(|stays| **stays).count();
        self.records_dropped += (all - kept) as u64;
        let horizon_ms = self.horizon_of(view, tombstones);
        let gets_horizon = horizon_ms.is_some() && view.delete_horizon().is_none();
        if kept == 0 && !self.survey.is_producers_last(view) {
            return self.rewrite(view, None).map(Verdict::Goes);
        }
        if kept == all && !gets_horizon {
            return Ok(Verdict::Stays);
        }
        self.rewrite(view, horizon_ms).map(Verdict::Becomes)
    }

    fn record_stays(&self, record: &Record<'_>, horizon_ms: Option<i64>) -> bool {
        // Without a key nobody can say what would replace it; a compacted topic refuses such records.
        let Some(key) = record.key else {
            return false;
        };
        let last = self.survey.keys.last(KeyName::of(key));
        if last.is_some_and(|last| last > record.offset) {
            return false;
        }
        let is_over = match (self.now_ms, horizon_ms) {
            (Some(now_ms), Some(horizon_ms)) => now_ms > horizon_ms,
            (None, _) | (_, None) => false,
        };
        // What cannot be read may be an older value of this key, which would come back without it.
        let hides_nothing = self
            .survey
            .first_unread
            .is_none_or(|unread| unread > record.offset);
        record.value.is_some() || !is_over || !hides_nothing
    }

    /// When the tombstones of a batch may go: what it says, or from now on. All older records of their keys
    /// go in this pass and earlier in the log, so that none outlives its tombstone.
    fn horizon_of(&mut self, view: &View<'_>, tombstones: u64) -> Option<i64> {
        if tombstones == 0 {
            return None;
        }
        let from_now = self
            .now_ms
            .map(|now_ms| now_ms.saturating_add(self.delete_retention_ms));
        let horizon_ms = view.delete_horizon().or(from_now);
        let known = &mut self.tombstones;
        match horizon_ms {
            // They stay for what cannot be read, which no later pass will change.
            Some(horizon_ms) if self.now_ms.is_some_and(|now_ms| now_ms > horizon_ms) => {}
            Some(horizon_ms) => {
                let earliest_ms = known.earliest_horizon_ms.unwrap_or(horizon_ms);
                known.earliest_horizon_ms = Some(earliest_ms.min(horizon_ms));
            }
            None => known.without_horizon += tombstones,
        }
        horizon_ms
    }

    fn rewrite(&mut self, view: &View<'_>, horizon_ms: Option<i64>) -> Result<Batch, Damage> {
        // Whoever can read it now can read what is left of it.
        let codec = view.codec();
        let compression = Compression::of(codec).ok_or(Damage::Compression(codec))?;
        let mut stays = self.stays.iter();
        self.builder.rewrite(view, horizon_ms, compression, |_| {
            stays.next().copied().unwrap_or(true)
        })
    }
}
