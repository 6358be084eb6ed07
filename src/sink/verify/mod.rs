//! Looks at every byte of the log, and says what is wrong and where.
//!
//! Every batch of every segment: its checksum, its records, its offsets; every entry of its indexes; and of
//! all access events together, whether each is there or told as lost. Reads only. Of a log that runs it
//! looks at what was there when it began.

pub mod complete;
mod segment;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use self::{
    complete::{Books, Completeness},
    segment::{Files, Walk, Wrong},
};
use super::query::EventTopic;
use crate::{
    base::disk::Disk,
    event::avro,
    log::{Partition, SegmentFacts, View},
};

/// What is told in full of what is wrong.
const FINDINGS_MAX: usize = 100;

/// What to look at.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The log's directory.
    pub dir: &'a Path,
    /// The disk it is on.
    pub disk: &'a dyn Disk,
    /// Its partitions.
    pub partitions: &'a [Arc<Partition>],
    /// Whether somebody appends meanwhile, and takes old segments away.
    pub is_running: bool,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Partitions.
    pub partitions: u64,
    /// Segments.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sound batches.
    pub batches: u64,
    /// Their records.
    pub records: u64,
    /// Bytes at the ends of partitions that are no whole batches, where nobody appends: the next start
    /// takes them off.
    pub torn_bytes: u64,
    /// How much is wrong.
    pub wrong: u64,
    /// What is wrong; the first 100.
    pub findings: Vec<Finding>,
    /// Whether all access events are there.
    pub access: Completeness,
}

/// Something wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The file, under the log's directory.
    pub file: String,
    /// Where in the file, in bytes; none where it is about all of it.
    pub position: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl Verified {
    /// Whether everything is as it was written, and no event is missing.
    pub fn is_sound(&self) -> bool {
        let access = &self.access;
        self.wrong == 0 && access.missing == 0 && access.repeated == 0 && !access.is_unproven
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes that were looked at.
    pub bytes: u64,
    /// Bytes there are.
    pub of: u64,
}

/// Looks at all of it. `goes_on` is asked after every read, and ends it by saying no: then there is no result.
///
/// # Errors
/// When a file cannot be read.
pub fn verify(
    subject: Subject<'_>,
    goes_on: &mut dyn FnMut(Progress) -> bool,
) -> io::Result<Option<Verified>> {
    let mut told = Verified {
        partitions: subject.partitions.len() as u64,
        ..Verified::default()
    };
    let mut books = Books::default();
    let mut walks = Vec::with_capacity(subject.partitions.len());
    for partition in subject.partitions {
        walks.push(PartitionWalk::new(subject, partition, &mut books));
    }
    let mut progress = Progress {
        bytes: 0,
        of: walks.iter().map(|walk| walk.bytes).sum(),
    };
    // Side by side by time: only so is little of the access events missing at any moment.
    while let Some(walk) = walks
        .iter_mut()
        .filter(|walk| !walk.is_done)
        .min_by_key(|walk| walk.told_ms)
    {
        progress.bytes += walk.step(&mut told, &mut books)?;
        if !goes_on(progress) {
            return Ok(None);
        }
    }
    told.access = books.close();
    Ok(Some(told))
}

/// How far one partition is looked at.
struct PartitionWalk<'a> {
    subject: Subject<'a>,
    partition: &'a Arc<Partition>,
    is_access: bool,
    /// The segments that were there at the beginning; the next comes last.
    segments: Vec<Files>,
    open: Option<(Files, Walk)>,
    expected: i64,
    /// When the last batch was told, in Unix milliseconds.
    told_ms: i64,
    bytes: u64,
    is_done: bool,
    scratch: Vec<u8>,
}

impl<'a> PartitionWalk<'a> {
    fn new(subject: Subject<'a>, partition: &'a Arc<Partition>, books: &mut Books) -> Self {
        let topic = partition.topic();
        let is_access = topic.name == EventTopic::Access.name();
        let mut segments = files_of(subject, partition);
        let expected = segments.first().map_or(0, |first| first.base_offset);
        if is_access && expected > 0 {
            let told_ms = segments.first().and_then(|first| begins_ms(subject, first));
            books.begins_cut(partition.index(), told_ms.unwrap_or(i64::MAX));
        }
        segments.reverse();
        Self {
            subject,
            partition,
            is_access,
            bytes: segments.iter().map(|segment| segment.bytes).sum(),
            segments,
            open: None,
            expected,
            told_ms: i64::MIN,
            is_done: false,
            scratch: Vec::new(),
        }
    }

    /// Looks at a piece of it; returns how many bytes that were.
    fn step(&mut self, told: &mut Verified, books: &mut Books) -> io::Result<u64> {
        let Some((files, mut walk)) = self.take_open(told, books)? else {
            self.is_done = true;
            return Ok(0);
        };
        let before = walk.position();
        let Self {
            partition,
            is_access,
            told_ms,
            scratch,
            ..
        } = self;
        let goes_on = walk.step(|batch| {
            *told_ms = batch.max_timestamp();
            told.batches += 1;
            told.records += u64::from(batch.count());
            let books = is_access.then_some(&mut *books);
            look_into(batch, partition.index(), scratch, books)
        })?;
        let bytes = walk.position() - before;
        if goes_on {
            self.open = Some((files, walk));
            return Ok(bytes);
        }
        told.segments += 1;
        told.bytes += files.bytes;
        if !self.subject.is_running && !files.is_closed {
            told.torn_bytes += walk.torn_bytes();
        }
        let wrong = match walk.wrong.is_empty() || !self.subject.is_running {
            true => std::mem::take(&mut walk.wrong),
            // Perhaps it was changed while it was read.
            false => self.seen_again(&files)?,
        };
        self.expected = walk.expected();
        told.tell(self.subject.dir, &files, wrong);
        Ok(bytes)
    }

    /// The segment that is being looked at, or the next one.
    fn take_open(
        &mut self,
        told: &mut Verified,
        books: &mut Books,
    ) -> io::Result<Option<(Files, Walk)>> {
        if let Some(open) = self.open.take() {
            return Ok(Some(open));
        }
        while let Some(files) = self.segments.pop() {
            match Walk::open(self.subject.disk, &files, self.expected) {
                Ok(walk) => return Ok(Some((files, walk))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.pass_over(&files, told, books);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Goes on behind a segment that is not there: retention took it, or somebody else.
    fn pass_over(&mut self, files: &Files, told: &mut Verified, books: &mut Books) {
        let is_taken = self.subject.is_running && self.now(files).is_none();
        if !is_taken {
            let wrong = Wrong {
                extension: "log",
                position: None,
                what: "is not there".to_owned(),
            };
            told.tell(self.subject.dir, files, vec![wrong]);
            return;
        }
        let next = self.segments.last();
        self.expected = next.map_or(self.expected, |next| next.base_offset);
        if self.is_access {
            let told_ms = next.and_then(|next| begins_ms(self.subject, next));
            books.begins_cut(self.partition.index(), told_ms.unwrap_or(i64::MAX));
        }
    }

    /// This segment as the log has it now. Of a topic that was deleted meanwhile it has none.
    fn now(&self, files: &Files) -> Option<Files> {
        if self.partition.is_deleted() {
            return None;
        }
        let now = files_of(self.subject, self.partition);
        now.into_iter()
            .find(|now| now.base_offset == files.base_offset)
    }

    /// What is wrong with a segment when it is looked at a second time.
    fn seen_again(&mut self, files: &Files) -> io::Result<Vec<Wrong>> {
        let Some(now) = self.now(files) else {
            return Ok(Vec::new());
        };
        let mut walk = match Walk::open(self.subject.disk, &now, self.expected) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        let index = self.partition.index();
        while walk.step(|batch| look_into(batch, index, &mut self.scratch, None))? {}
        Ok(walk.wrong)
    }
}

/// Reads all records of a batch; says what is wrong with them.
fn look_into(
    batch: &View<'_>,
    partition: u32,
    scratch: &mut Vec<u8>,
    mut books: Option<&mut Books>,
) -> Option<String> {
    let records = match batch.records(scratch) {
        Ok(records) => records,
        Err(damage) => return Some(damage.to_string()),
    };
    let mut strangers = 0_u64;
    let mut json = Vec::new();
    for record in records {
        let record = match record {
            Ok(record) => record,
            Err(damage) => return Some(damage.to_string()),
        };
        if let Some(books) = &mut books {
            let value = record.value.unwrap_or_default();
            let event = avro::as_json(value, &mut json).unwrap_or_default();
            strangers += u64::from(!books.take(partition, batch.max_timestamp(), event));
        }
    }
    (strangers > 0).then(|| format!("{strangers} records are no access events"))
}

fn files_of(subject: Subject<'_>, partition: &Partition) -> Vec<Files> {
    let dir = subject.dir.join(partition.name());
    let topic = partition.topic();
    let may_skip = match subject.is_running {
        true => topic.config().cleanup.compacts(),
        // How it is kept is not known then, but for Wardent's own.
        false => ![EventTopic::Access, EventTopic::Audit]
            .map(EventTopic::name)
            .contains(&&*topic.name),
    };
    let segments = partition.segments();
    let last = segments.last().map(|last| last.base_offset);
    let files = |facts: SegmentFacts| Files {
        stem: dir.join(format!("{:020}", facts.base_offset)),
        base_offset: facts.base_offset,
        bytes: facts.bytes,
        is_closed: Some(facts.base_offset) != last,
        may_skip,
    };
    segments.into_iter().map(files).collect()
}

/// When the first batch of a segment was told.
fn begins_ms(subject: Subject<'_>, files: &Files) -> Option<i64> {
    let mut begins_ms = None;
    let mut walk = Walk::open(subject.disk, files, files.base_offset).ok()?;
    walk.step(|batch| {
        begins_ms = begins_ms.or(Some(batch.max_timestamp()));
        None
    })
    .ok()?;
    begins_ms
}

impl Verified {
    fn tell(&mut self, dir: &Path, files: &Files, wrong: Vec<Wrong>) {
        self.wrong += wrong.len() as u64;
        for Wrong {
            extension,
            position,
            what,
        } in wrong
        {
            if self.findings.len() == FINDINGS_MAX {
                return;
            }
            let file: PathBuf = files.stem.with_extension(extension);
            let file = file.strip_prefix(dir).unwrap_or(&file);
            self.findings.push(Finding {
                file: file.display().to_string(),
                position,
                what,
            });
        }
    }
}

#[cfg(test)]
mod tests;
