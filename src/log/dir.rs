//! Opening the log's directory: one process, a version that is known, the topics that should be there and
//! those that are.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Appender, Found,
    ballast::{Ballast, is_full},
    changer::Changer,
    checkpoint::{
        self, CLEANED, HIGH_WATERMARKS, LOG_STARTS, RECOVERY_POINTS, TMP, Unread, read_epochs,
        read_offsets, write_epochs,
    },
    flusher::Flusher,
    meta::{self, META, Meta, PARTITION},
    partition::Partition,
    producers::{self, ALL_PRODUCERS_MAX},
    recovery::{Known, Recovery},
    segment::Segment,
    store::{CLEAN_SHUTDOWN, LOCK, Log, OpenError, Opened, Settings},
    topic::{
        DELETED, Topic, TopicConfig, TopicSettings, deleted_id, deleted_name, dir_name, of_dir_name,
    },
    topics::Topics,
    writer::{Active, Writer},
};
use crate::base::{clock::Clock, disk::Disk};

/// Epochs of leaders that a partition remembers: one for each crash.
const EPOCHS_MAX: usize = 256;

/// Starts in a row that may have found no room for their epoch.
const UNKEPT_MAX: i32 = 1024;

/// Opens the log, alone among all processes, and recovers it.
///
/// # Errors
/// When another process has it, a later version wrote it, what says what it is is not understood, or the
/// disk fails.
pub fn open(settings: Settings, disk: Arc<dyn Disk>, clock: Clock) -> Result<Opened, OpenError> {
    let dir = settings.dir;
    check_versions(&*disk, &dir)?;
    let at = |error| io_error(&dir, error);
    make(&*disk, &dir)?;
    let lock = lock(&*disk, &dir)?;
    // Once more: another process may have written until now.
    check_versions(&*disk, &dir)?;
    let was_clean = take_mark(&*disk, &dir).map_err(at)?;
    let mut opening = Opening {
        disk: &disk,
        clock: &clock,
        dir: &dir,
        was_clean,
        is_full: false,
        found: Vec::new(),
        writers: Vec::new(),
    };
    let meta = opening.meta()?;
    opening.tidy()?;
    let mut ballast = Ballast::new(Arc::clone(&disk), &dir, settings.ballast_bytes);
    let mut topics = opening.topics(&settings.topics);
    let is_full = matches!(&topics, Err(OpenError::Io { error, .. }) if is_full(error));
    if is_full {
        ballast.give_up();
        opening.is_full = true;
        opening.writers.clear();
        topics = opening.topics(&settings.topics);
    }
    topics?;
    let Opening { found, writers, .. } = opening;
    let partitions = writers.iter().map(|writer| Arc::clone(&writer.partition));
    let topics = Topics::of(partitions.collect());
    let log = Arc::new(Log::new(dir.clone(), meta, topics, (disk, clock), lock));
    Ok(Opened {
        appender: Appender::new(Arc::clone(&log), writers, ballast),
        flusher: Flusher::new(Arc::clone(&log)),
        changer: Changer::new(Arc::clone(&log)),
        log,
        report: found,
        was_clean,
    })
}

fn io_error(path: &Path, error: io::Error) -> OpenError {
    OpenError::Io {
        path: path.to_owned(),
        error,
    }
}

/// Makes a directory with those above it, safely.
///
/// One after the other, so that where the process is killed in between only the last that is there is not
/// safe. It is made so the next time.
fn make(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    let mut not_safe = Vec::new();
    for dir in dir.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
        let is_there = is_dir(disk, dir)?;
        not_safe.push((dir, is_there));
        if is_there {
            break;
        }
    }
    for (dir, was_there) in not_safe.into_iter().rev() {
        disk.create_dir(dir).map_err(|error| io_error(dir, error))?;
        let above = match dir.parent() {
            Some(above) if above.as_os_str().is_empty() => Path::new("."),
            Some(above) => above,
            None => continue,
        };
        match disk.sync_dir(above) {
            // Somebody else made it there.
            Err(error) if was_there && error.kind() == io::ErrorKind::PermissionDenied => {}
            result => result.map_err(|error| io_error(above, error))?,
        }
    }
    Ok(())
}

fn refused(path: PathBuf, unread: Unread) -> OpenError {
    match unread {
        Unread::Newer(version) => OpenError::Newer { path, version },
        Unread::Wrong(what) => OpenError::Wrong { path, what },
        Unread::Io(error) => OpenError::Io { path, error },
    }
}

/// Refuses a log whose files are of later versions, before anything is written. What is missing is fine.
pub(super) fn check_versions(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    Meta::read(disk, dir).map_err(|unread| refused(dir.join(META), unread))?;
    let newer_only = |path: PathBuf, result: Result<(), Unread>| match result {
        Err(Unread::Newer(version)) => Err(OpenError::Newer { path, version }),
        // One that is damaged is made anew.
        Ok(()) | Err(Unread::Wrong(_)) => Ok(()),
        Err(Unread::Io(error)) => Err(OpenError::Io { path, error }),
    };
    for name in [RECOVERY_POINTS, LOG_STARTS, HIGH_WATERMARKS, CLEANED] {
        let read = read_offsets(disk, dir, name).map(|_| ());
        newer_only(dir.join(name), read)?;
    }
    for (topic, index) in partitions_in(disk, dir)? {
        let own = dir.join(dir_name(&topic, index));
        let read = meta::read_topic_id(disk, &own).map(|_| ());
        newer_only(own.join(PARTITION), read)?;
        let read = read_epochs(disk, &own).map(|_| ());
        newer_only(own.join(checkpoint::EPOCHS), read)?;
    }
    Ok(())
}

/// Whether something that is there is a directory.
fn is_dir(disk: &dyn Disk, path: &Path) -> Result<bool, OpenError> {
    match disk.names(path) {
        Ok(_) => Ok(true),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(io_error(path, error)),
    }
}

/// The partitions that have a directory in `dir`, by topic and number.
fn partitions_in(disk: &dyn Disk, dir: &Path) -> Result<Vec<(String, u32)>, OpenError> {
    let names = match disk.names(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error(dir, error)),
    };
    let mut found = Vec::new();
    for (topic, index) in names.iter().filter_map(|name| of_dir_name(name)) {
        if is_dir(disk, &dir.join(dir_name(topic, index)))? {
            found.push((topic.to_owned(), index));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn std::fmt::Debug + Send + Sync>, OpenError> {
    let path = dir.join(LOCK);
    match disk.lock(&path) {
        Ok(lock) => Ok(lock),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let text = checkpoint::read(disk, &path).ok().flatten();
            let pid = text.and_then(|text| text.trim().parse().ok());
            let dir = dir.to_owned();
            Err(OpenError::Locked { dir, pid })
        }
        Err(error) => Err(io_error(&path, error)),
    }
}

/// Whether the mark of an orderly stop was there. It is not any more.
fn take_mark(disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
    match disk.remove(&dir.join(CLEAN_SHUTDOWN)) {
        Ok(()) => {
            disk.sync_dir(dir)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A log that is being opened.
struct Opening<'a> {
    disk: &'a Arc<dyn Disk>,
    clock: &'a Clock,
    dir: &'a Path,
    was_clean: bool,
    /// Whether the disk was found to be full.
    is_full: bool,
    found: Vec<Found>,
    writers: Vec<Writer>,
}

/// Offsets of one checkpoint, by the name of the partition's directory.
type ByDir = HashMap<String, i64>;

impl Opening<'_> {
    fn meta(&self) -> Result<Meta, OpenError> {
        let path = self.dir.join(META);
        let read = Meta::read(&**self.disk, self.dir);
        let at = |error| io_error(&path, error);
        let meta = match read.map_err(|unread| refused(path.clone(), unread))? {
            Some(meta) if !meta.is_old => return Ok(meta),
            Some(old) => Meta {
                is_old: false,
                ..old
            },
            None => Meta::new().map_err(at)?,
        };
        meta.write(&**self.disk, self.dir).map_err(at)?;
        Ok(meta)
    }

    /// Removes what is left over from files that were being replaced and topics that were being deleted.
    fn tidy(&mut self) -> Result<(), OpenError> {
        let at = |error| io_error(self.dir, error);
        self.end_deletions().map_err(at)?;
        for name in self.disk.names(self.dir).map_err(at)? {
            let path = self.dir.join(&name);
            if name.ends_with(DELETED) && is_dir(&**self.disk, &path)? {
                for file in self.disk.names(&path).map_err(at)? {
                    self.disk.remove(&path.join(file)).map_err(at)?;
                }
                self.disk.remove_dir(&path).map_err(at)?;
                self.found.push(Found::Removed(path));
            } else if name.ends_with(TMP) && !is_dir(&**self.disk, &path)? {
                self.disk.remove(&path).map_err(at)?;
                self.found.push(Found::Removed(path));
            }
        }
        Ok(())
    }

    /// A topic of which one partition is on its way out goes whole: it was deleted, and the process stopped
    /// before it came to the others.
    fn end_deletions(&self) -> io::Result<()> {
        let names = self.disk.names(self.dir)?;
        let deleted: Vec<_> = names.iter().filter_map(|name| deleted_id(name)).collect();
        let mut is_changed = false;
        for (topic, index) in names.iter().filter_map(|name| of_dir_name(name)) {
            let dir = self.dir.join(dir_name(topic, index));
            let id = meta::read_topic_id(&**self.disk, &dir).ok().flatten();
            if let Some(id) = id.filter(|id| deleted.contains(id)) {
                let to = self.dir.join(deleted_name(topic, index, &id));
                self.disk.rename(&dir, &to)?;
                is_changed = true;
            }
        }
        match is_changed {
            true => self.disk.sync_dir(self.dir),
            false => Ok(()),
        }
    }

    /// Topics that should be there, and those that are.
    fn topics(&mut self, settings: &[TopicSettings]) -> Result<(), OpenError> {
        let mut wanted = BTreeMap::new();
        for one in settings {
            wanted.insert(
                one.name.clone(),
                (one.partitions.max(1), one.config.clone()),
            );
        }
        for (topic, index) in partitions_in(&**self.disk, self.dir)? {
            let foreign = || (1, TopicConfig::default());
            let (partitions, _) = wanted.entry(topic).or_insert_with(foreign);
            *partitions = (*partitions).max(index + 1);
        }
        let recovery_points = self.offsets(RECOVERY_POINTS)?;
        let log_starts = self.offsets(LOG_STARTS)?;
        let mut producers = 0;
        for (name, (partitions, config)) in wanted {
            let id = self.topic_id(&name, partitions)?;
            let topic = Arc::new(Topic::new(name, id, partitions, config));
            for index in 0..partitions {
                let own = dir_name(&topic.name, index);
                let known = Known {
                    was_clean: self.was_clean,
                    recovery_point: recovery_points.get(&own).copied().unwrap_or(0),
                    log_start: log_starts.get(&own).copied().unwrap_or(0),
                };
                let number = self.writers.len();
                let opened = self.partition(&topic, (index, number), known);
                let writer = opened.map_err(|error| io_error(&self.dir.join(&own), error))?;
                producers += writer.producers.len();
                self.writers.push(writer);
                if producers > ALL_PRODUCERS_MAX {
                    let all = self.writers.iter_mut().map(|one| &mut one.producers);
                    producers = producers::fit(all, ALL_PRODUCERS_MAX);
                }
            }
        }
        self.disk
            .sync_dir(self.dir)
            .map_err(|error| io_error(self.dir, error))
    }

    /// The offsets of a checkpoint. One that is not understood has none: more is walked then.
    fn offsets(&mut self, name: &str) -> Result<ByDir, OpenError> {
        let path = self.dir.join(name);
        let offsets = match read_offsets(&**self.disk, self.dir, name) {
            Ok(offsets) => offsets,
            Err(Unread::Wrong(what)) => {
                self.found.push(Found::Checkpoint { path, what });
                Vec::new()
            }
            Err(unread) => return Err(refused(path, unread)),
        };
        let by_dir = |(topic, index, offset): (String, u32, i64)| (dir_name(&topic, index), offset);
        Ok(offsets.into_iter().map(by_dir).collect())
    }

    /// The id that the first partition has which has one, or a new one.
    fn topic_id(&mut self, topic: &str, partitions: u32) -> Result<meta::Id, OpenError> {
        for index in 0..partitions {
            let dir = self.dir.join(dir_name(topic, index));
            let path = dir.join(PARTITION);
            match meta::read_topic_id(&**self.disk, &dir) {
                Ok(Some(id)) => return Ok(id),
                Ok(None) => {}
                Err(Unread::Wrong(what)) => self.found.push(Found::Checkpoint { path, what }),
                Err(unread) => return Err(refused(path, unread)),
            }
        }
        meta::new_id().map_err(|error| io_error(self.dir, error))
    }

    fn partition(
        &mut self,
        topic: &Arc<Topic>,
        (index, number): (u32, usize),
        known: Known,
    ) -> io::Result<Writer> {
        let dir = self.dir.join(dir_name(&topic.name, index));
        self.disk.create_dir(&dir)?;
        let id = meta::read_topic_id(&**self.disk, &dir).ok().flatten();
        if id != Some(topic.id) {
            meta::write_topic_id(&**self.disk, &dir, &topic.id)?;
        }
        let recovery = Recovery {
            disk: self.disk,
            log_dir: self.dir,
            dir: &dir,
            found: &mut self.found,
        };
        let opened = recovery.open(known)?;
        let end = opened.segments.last().map_or(0, |last| last.end_offset());
        let is_whole = known.was_clean && !opened.was_cut;
        let mut segments = opened.segments.iter().rev();
        let appended = segments.find_map(|segment| segment.last_epoch());
        let mut epochs = self.epochs(&dir, end, appended, is_whole)?;
        for epoch in epochs.iter_mut().filter(|(_, start)| *start < 0) {
            epoch.1 = start_of(epoch.0, &opened.segments, end);
        }
        let epoch = epochs.last().map_or(0, |(epoch, _)| *epoch);
        let safe_below = if is_whole {
            end
        } else {
            end.min(known.recovery_point)
        };
        let producers = producers::load(
            self.disk,
            &dir,
            &opened.segments,
            safe_below,
            self.clock.monotonic_ns(),
        )?;
        let base = opened.segments.first().map_or(0, |one| one.base_offset);
        let log_start = opened.log_start.clamp(base, end.max(base));
        let active = opened.segments.last().cloned();
        let active = active.ok_or_else(|| io::Error::other("a partition without a segment"))?;
        let partition = Partition::new(
            Arc::clone(topic),
            index,
            number,
            self.dir,
            opened.segments,
            log_start,
        );
        let partition = partition.with_epochs(epochs);
        Ok(Writer::new(
            Arc::new(partition),
            Active::new(active, opened.indexer, &**self.disk),
            epoch,
            producers,
            Arc::clone(self.disk),
            self.clock.clone(),
        ))
    }

    /// The epochs of the partition's leaders; the last is that of this process's appends: another than before, unless nothing can have been lost, so that
    /// consumers see that what they read may be gone (KIP-320).
    ///
    /// The last that was `appended` may not be in the checkpoint, where there was no room for it. It stands
    /// outside the checksums, so it is believed only where it can have come about.
    ///
    /// One whose first offset is not known has -1.
    fn epochs(
        &mut self,
        dir: &Path,
        end: i64,
        appended: Option<i32>,
        is_whole: bool,
    ) -> io::Result<Vec<(i32, i64)>> {
        let mut epochs = match read_epochs(&**self.disk, dir) {
            Ok(epochs) => epochs,
            Err(Unread::Io(error)) => return Err(error),
            Err(Unread::Wrong(what) | Unread::Newer(what)) => {
                let path = dir.join(checkpoint::EPOCHS);
                self.found.push(Found::Checkpoint { path, what });
                Vec::new()
            }
        };
        let kept = epochs.last().map(|(epoch, _)| *epoch);
        let least = kept.unwrap_or(0);
        let credible = least..least.saturating_add(UNKEPT_MAX);
        let last = appended.filter(|epoch| credible.contains(epoch)).or(kept);
        let epoch = match last {
            Some(epoch) if is_whole => {
                if kept != Some(epoch) {
                    epochs.push((epoch, -1));
                }
                return Ok(epochs);
            }
            Some(epoch) => epoch.saturating_add(1),
            None => 0,
        };
        // An epoch in which nothing was appended, or nothing is left, never was.
        epochs.retain(|(_, start)| *start < end);
        epochs.push((epoch, end));
        let excess = epochs.len().saturating_sub(EPOCHS_MAX);
        epochs.drain(..excess);
        match write_epochs(&**self.disk, dir, &epochs) {
            // The batches that are appended in it have it.
            Err(error) if self.is_full && is_full(&error) => {
                let path = dir.join(checkpoint::EPOCHS);
                let what = format!("epoch {epoch} has no room on the disk");
                self.found.push(Found::Checkpoint { path, what });
            }
            written => written?,
        }
        Ok(epochs)
    }
}

/// Where the first batch of that epoch is; `end` where there is none.
fn start_of(epoch: i32, segments: &[Arc<Segment>], end: i64) -> i64 {
    let mut start = end;
    for segment in segments {
        // What cannot be walked is met by who reads it.
        let _ = segment.walk(segment.base_offset, |batch| {
            if batch.leader_epoch() == epoch {
                start = start.min(batch.base_offset());
            }
        });
    }
    start
}

/// Makes the directory of a new partition, complete and safe but for its name.
///
/// # Errors
/// When the disk fails or is full. Some of it may be there.
pub(super) fn make_partition(
    log: &Log,
    topic: &Arc<Topic>,
    index: u32,
    number: usize,
) -> io::Result<Writer> {
    let mut opening = Opening {
        disk: &log.disk,
        clock: &log.clock,
        dir: log.dir(),
        was_clean: true,
        is_full: false,
        found: Vec::new(),
        writers: Vec::new(),
    };
    let nothing = Known {
        was_clean: true,
        recovery_point: 0,
        log_start: 0,
    };
    opening.partition(topic, (index, number), nothing)
}

/// Opens the partitions of a log to be read, while another process may be appending to it: takes no lock,
/// writes nothing, and ends each with its last whole batch. Damage is left where it is, and met by who reads.
///
/// # Errors
/// When it is not there, a later version wrote it, or the disk fails.
pub fn open_to_read(dir: &Path, disk: &Arc<dyn Disk>) -> Result<Vec<Arc<Partition>>, OpenError> {
    check_versions(&**disk, dir)?;
    if !is_dir(&**disk, dir)? {
        return Err(io_error(dir, io::ErrorKind::NotFound.into()));
    }
    let own = partitions_in(&**disk, dir)?;
    let starts = read_offsets(&**disk, dir, LOG_STARTS).unwrap_or_default();
    let mut partitions = Vec::new();
    for (topic, index) in &own {
        let path = dir.join(dir_name(topic, *index));
        let at = |error| io_error(&path, error);
        let count = own.iter().filter(|(other, _)| other == topic).count();
        let id = meta::read_topic_id(&**disk, &path).ok().flatten();
        let topic = Arc::new(Topic::new(
            topic.clone(),
            id.unwrap_or_default(),
            u32::try_from(count).unwrap_or(u32::MAX),
            TopicConfig::default(),
        ));
        let segments = super::offline::segments(disk, &path).map_err(at)?;
        let base = segments.first().map_or(0, |one| one.base_offset);
        let is_own =
            |(name, number, _): &&(String, u32, i64)| *name == topic.name && number == index;
        let start = starts.iter().find(is_own).map_or(0, |(_, _, start)| *start);
        let number = partitions.len();
        let partition = Partition::new(topic, *index, number, dir, segments, start.max(base));
        partitions.push(Arc::new(partition));
    }
    Ok(partitions)
}
