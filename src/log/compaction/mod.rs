//! Compaction: of each key only the last record stays (KIP-58), and of a forgotten one nothing (KIP-534).
//!
//! A pass reads the closed segments of a partition twice: a survey that learns each key's last offset, and
//! changes nothing; then every batch is judged, and what is left of a segment is written beside it. Offsets are
//! never given anew, so that consumers find their place again: a batch keeps its first and last one whatever
//! goes of it, and the last batch of a segment stays though it be empty. The active segment is never touched.
//!
//! Segments are replaced one after the other, from the oldest, each only when the one before is safe. So
//! an older value is always gone before the tombstone that hides it.
//!
//! Memory: [`KEYS_MAX`] keys at most are handled in one pass, 30 MB; the rest waits for the next.

mod judge;
mod keys;
mod rest;
mod survey;
mod walk;

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

pub(crate) use judge::Tombstones;
pub(crate) use keys::KEYS_MAX;

use self::{
    judge::Judge,
    rest::Rest,
    survey::Survey,
    walk::{Chunk, Walk},
};
use super::{
    batch::{Damage, View},
    cleaned::Cleaned,
    partition::Partition,
    segment,
};
use crate::base::disk::Disk;

/// What is to be compacted.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// Of this partition.
    pub(crate) partition: Arc<Partition>,
    /// Its closed segments below the high watermark, the oldest first.
    pub(crate) segments: Vec<Source>,
    /// Where the last pass ended.
    pub(crate) first_dirty: i64,
    /// How large what is left of several segments may become.
    pub(crate) segment_bytes: u64,
    /// How long a tombstone stays after the first pass that met it.
    pub(crate) delete_retention: Duration,
    /// Milliseconds since 1970, where the clock is believed. Without it tombstones stay, and get no horizon.
    pub(crate) now_ms: Option<u64>,
    /// Keys that are handled at once; the rest waits for the next pass.
    pub(crate) keys_max: usize,
}

/// A closed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    /// The offset it is named by.
    pub(crate) base_offset: i64,
    /// The first offset after it.
    pub(crate) end_offset: i64,
    /// Bytes of its batches.
    pub(crate) bytes: u64,
}

/// How far a pass is.
#[derive(Debug)]
pub(crate) enum Step {
    /// There is more to do.
    More,
    /// The segments with these base offsets are to be replaced before the next step. If that fails, there
    /// must be none.
    Replace(Vec<i64>, Box<Cleaned>),
    /// It is over.
    Done(Summary),
}

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Summary {
    /// Where the next pass begins.
    pub(crate) first_dirty: i64,
    /// Whether the keys of all fitted. If not, another pass is due.
    pub(crate) is_complete: bool,
    /// Keys whose last record was looked for.
    pub(crate) keys: u64,
    /// Most memory taken for them, in bytes.
    pub(crate) keys_bytes: u64,
    /// Records that went.
    pub(crate) records_dropped: u64,
    /// Bytes of the segments before.
    pub(crate) bytes_before: u64,
    /// And after.
    pub(crate) bytes_after: u64,
    /// What is known of tombstones that stayed.
    pub(crate) tombstones: Tombstones,
}

/// Why a pass stopped. What it had not yet handed over is as it was.
#[derive(Debug)]
pub(crate) enum Halt {
    /// A batch is damaged.
    Damaged {
        /// In this file.
        path: PathBuf,
        /// Bytes from its beginning.
        position: u64,
        /// In this way.
        damage: Damage,
    },
    /// The disk failed, or is full.
    Io(PathBuf, io::Error),
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged {
                path,
                position,
                damage,
            } => write!(f, "{} at byte {position}: {damage}", path.display()),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for Halt {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::Damaged { .. } => None,
        }
    }
}

/// A pass over one partition.
#[derive(Debug)]
pub(crate) struct Compaction {
    disk: Arc<dyn Disk>,
    job: Job,
    stage: Stage,
    /// The next segment that is to be walked.
    next: usize,
    walk: Option<Walk>,
    /// What is left of segments before the one that is walked, while more may fit into the same file.
    held: Option<Rest>,
    bytes_after: u64,
}

#[derive(Debug)]
enum Stage {
    Surveying(Survey),
    /// With what is left of the segment that is walked.
    Rewriting(Box<Judge>, Option<Rest>),
}

impl Compaction {
    /// A pass that has done nothing yet.
    pub(crate) fn new(disk: Arc<dyn Disk>, job: Job) -> Self {
        let stage = Stage::Surveying(Survey::new(job.first_dirty, job.keys_max));
        Self {
            disk,
            job,
            stage,
            next: 0,
            walk: None,
            held: None,
            bytes_after: 0,
        }
    }

    /// Goes on: reads about half a mebibyte, and writes what comes of it.
    ///
    /// # Errors
    /// When a batch is damaged or the disk fails. Then the pass is over.
    pub(crate) fn step(&mut self) -> Result<Step, Halt> {
        let step = match self.stage {
            Stage::Surveying(_) => self.survey(),
            Stage::Rewriting(..) => self.rewrite(),
        };
        if step.is_err() {
            self.abandon();
        }
        step
    }

    /// Ends the pass: what was written and not handed over is removed.
    pub(crate) fn abandon(&mut self) {
        let current = match &mut self.stage {
            Stage::Rewriting(_, rest) => rest.as_mut(),
            Stage::Surveying(_) => None,
        };
        for rest in current.into_iter().chain(&mut self.held) {
            rest.abandon(&*self.disk);
        }
    }

    fn survey(&mut self) -> Result<Step, Halt> {
        let Stage::Surveying(survey) = &mut self.stage else {
            return Ok(Step::More);
        };
        if let Some(walk) = &mut self.walk {
            let Some(chunk) = walk.next()? else {
                self.walk = None;
                return Ok(Step::More);
            };
            let taken = survey.take(&chunk);
            taken.map_err(|(position, damage)| walk.damaged(position, damage))?;
            return Ok(Step::More);
        }
        if survey.cut().is_none()
            && let Some(source) = self.job.segments.get(self.next)
        {
            self.walk = Some(self.job.walk(source, &*self.disk)?);
            self.next += 1;
            return Ok(Step::More);
        }
        let survey = std::mem::take(survey);
        let ends = self.job.segments.iter().map(|source| source.end_offset);
        let end = survey.cut().or(ends.max()).unwrap_or(self.job.first_dirty);
        self.job.segments.retain(|source| source.base_offset < end);
        let judge = Judge::new(survey, end, &self.job);
        self.stage = Stage::Rewriting(Box::new(judge), None);
        self.next = 0;
        Ok(Step::More)
    }

    fn rewrite(&mut self) -> Result<Step, Halt> {
        let Stage::Rewriting(judge, current) = &mut self.stage else {
            return Ok(Step::More);
        };
        if let (Some(walk), Some(rest)) = (&mut self.walk, current.as_mut()) {
            let Some(chunk) = walk.next()? else {
                self.walk = None;
                return self.end_of_segment();
            };
            let judged = judge_chunk(&chunk, judge, rest, &self.job, &*self.disk);
            judged.map_err(|unfit| match unfit {
                Unfit::Batch(position, damage) => walk.damaged(position, damage),
                Unfit::Disk(halt) => halt,
            })?;
            return Ok(Step::More);
        }
        if let Some(source) = self.job.segments.get(self.next) {
            self.walk = Some(self.job.walk(source, &*self.disk)?);
            *current = Some(Rest::new(*source));
            self.next += 1;
            return Ok(Step::More);
        }
        match self.held.is_some() {
            true => self.hand_over(None),
            false => Ok(Step::Done(self.summary())),
        }
    }

    /// Puts what is left of a segment behind that of the ones before it, if they fit together.
    fn end_of_segment(&mut self) -> Result<Step, Halt> {
        let Stage::Rewriting(_, current) = &mut self.stage else {
            return Ok(Step::More);
        };
        let is_merged = match (self.held.as_mut(), current.as_mut()) {
            (Some(held), Some(next)) if held.can_take(next, self.job.segment_bytes) => {
                held.merge(next, &self.job, &*self.disk)?;
                true
            }
            _ => false,
        };
        let next = current.take();
        match is_merged {
            true => Ok(Step::More),
            false => self.hand_over(next),
        }
    }

    /// Hands over what is held, and holds `next`.
    fn hand_over(&mut self, next: Option<Rest>) -> Result<Step, Halt> {
        let Some(mut rest) = std::mem::replace(&mut self.held, next) else {
            return Ok(Step::More);
        };
        self.bytes_after += rest.size();
        let replaced = rest.of.iter().map(|source| source.base_offset);
        let replaced = replaced.collect();
        Ok(match rest.finish(&*self.disk)? {
            Some(cleaned) => Step::Replace(replaced, Box::new(cleaned)),
            None => Step::More,
        })
    }

    fn summary(&self) -> Summary {
        let Stage::Rewriting(judge, _) = &self.stage else {
            return Summary::default();
        };
        let sources = self.job.segments.iter().map(|source| source.bytes);
        Summary {
            first_dirty: judge.end,
            is_complete: judge.survey.cut().is_none(),
            keys: judge.survey.keys.len() as u64,
            keys_bytes: judge.survey.keys.bytes() as u64,
            records_dropped: judge.records_dropped,
            bytes_before: sources.sum(),
            bytes_after: self.bytes_after,
            tombstones: judge.tombstones,
        }
    }
}

impl Job {
    fn path(&self, base_offset: i64) -> PathBuf {
        segment::path(&self.partition.dir, base_offset, segment::LOG)
    }

    fn walk(&self, source: &Source, disk: &dyn Disk) -> Result<Walk, Halt> {
        Walk::new(disk, self.path(source.base_offset), source.bytes)
    }
}

/// Why a chunk could not be judged.
enum Unfit {
    /// For the batch at this position of the file.
    Batch(u64, Damage),
    /// For the disk.
    Disk(Halt),
}

fn judge_chunk(
    chunk: &Chunk<'_>,
    judge: &mut Judge,
    rest: &mut Rest,
    job: &Job,
    disk: &dyn Disk,
) -> Result<(), Unfit> {
    let mut bytes = chunk.bytes;
    while !bytes.is_empty() {
        let position = chunk.position + (chunk.bytes.len() - bytes.len()) as u64;
        let at = |damage| Unfit::Batch(position, damage);
        let (view, after) = View::read(bytes).map_err(at)?;
        // Once more: a new checksum must not make right what was read wrongly.
        view.verify().map_err(at)?;
        let verdict = judge.judge(&view).map_err(at)?;
        rest.take(&view, &verdict, job, disk).map_err(Unfit::Disk)?;
        bytes = after;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
