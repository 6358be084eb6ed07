//! The changer: one thread that makes and removes topics.
//!
//! Nothing that is appended waits for the directories it makes. It makes a partition's files, safely, and
//! hands their writer to the appender; it takes the writers of a topic back and removes the files.
//!
//! What a crash leaves is the old or the new. The last partition of a new topic is made first, and safely:
//! where it is there, all are, since opening a log makes those below it. The first partition of a topic that
//! goes is given another name first, which has the topic's id: where that is there, the topic is gone, since
//! opening a log removes what has its id.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    changes::{ALL_PARTITIONS_MAX, Asked, Change, Changed, Handover, NotChanged, TOPICS_MAX},
    checkpoint::{CLEANED, Unread, read_offsets},
    dir::make_partition,
    meta,
    partition::Partition,
    store::Log,
    topic::{
        PARTITIONS_MAX, Topic, TopicConfig, TopicSettings, deleted_name, dir_name, is_name,
        of_dir_name,
    },
    topics::Topics,
    writer::Writer,
};

/// How long it sleeps when nothing wakes it, and between tries to remove what could not be removed.
const NAP_MAX: Duration = Duration::from_secs(1);

/// Makes and removes topics.
#[derive(Debug)]
pub struct Changer {
    log: Arc<Log>,
    /// What the next partition is told from others by.
    next_number: usize,
    step: Step,
    /// Directories that are to have another name: what is called so, and what it shall be called.
    renames: Vec<(PathBuf, PathBuf)>,
    /// Directories that are to go.
    doomed: Vec<PathBuf>,
    /// Whether names were given that are not safe.
    is_unsafe: bool,
    /// Whether the checkpoints say nothing of partitions that are no more.
    are_checkpoints_true: bool,
    next_try_ns: u64,
}

/// What is under way, and who is told.
enum Step {
    Idle,
    /// The flusher writes the checkpoints, so that nothing there is taken for what is made then.
    Checkpoints(Making, Changed),
    /// The appender takes partitions on, or another config.
    Taking(Arc<Topic>, Changed),
    /// The appender gives a topic back; it was one of these.
    Leaving(Arc<Topic>, Arc<Topics>, Changed),
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Idle => "Idle",
            Self::Checkpoints(..) => "Checkpoints",
            Self::Taking(..) => "Taking",
            Self::Leaving(..) => "Leaving",
        })
    }
}

/// Partitions to be made: from the topic's `from` on.
#[derive(Debug)]
struct Making {
    topic: Arc<Topic>,
    from: u32,
    until: u32,
}

impl Changer {
    pub(super) fn new(log: Arc<Log>) -> Self {
        Self {
            next_number: log.topics().partitions().len(),
            log,
            step: Step::Idle,
            renames: Vec::new(),
            doomed: Vec::new(),
            is_unsafe: false,
            are_checkpoints_true: false,
            next_try_ns: 0,
        }
    }

    /// The log it changes.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// One turn: a step of the change that is under way, or the next one. Says whether there may be more to
    /// do at once.
    pub fn turn(&mut self) -> bool {
        if !self.is_idle() {
            let step = std::mem::replace(&mut self.step, Step::Idle);
            return self.go_on(step);
        }
        match self.log.changes.next() {
            Some(Asked { change, done }) => {
                self.begin(change, done);
                true
            }
            None => self.clear_away(),
        }
    }

    /// Whether no change is under way.
    fn is_idle(&self) -> bool {
        matches!(self.step, Step::Idle)
    }

    /// Sleeps until something is asked for, or answered.
    pub(super) fn nap(&self) {
        let changes = &self.log.changes;
        changes.bell.nap(NAP_MAX, || changes.is_waiting());
    }

    /// Whether it is to end, and nothing is half done.
    pub(super) fn is_over(&self) -> bool {
        self.log.changes.is_closed() && self.is_idle()
    }

    /// Refuses what waits. Nothing is changed any more.
    pub fn finish(&mut self) {
        self.log.changes.close();
        self.log.changes.refuse_all();
        self.log.changes.set_over();
        self.log.appends().bell.ring();
    }

    fn begin(&mut self, change: Change, done: Changed) {
        let begun = match change {
            Change::Create(settings) => self.create(settings),
            Change::Grow { name, partitions } => self.grow(&name, partitions),
            Change::Delete { name } => return self.delete(&name, done),
            Change::Configure { name, config } => return self.configure(&name, config, done),
        };
        match begun {
            Ok(making) if self.are_checkpoints_true => self.make(making, done),
            Ok(making) => {
                // Release: pairs with the flusher, which writes what is there from here on.
                let wants = &self.log.changes.wants_checkpoints;
                wants.store(true, Ordering::Release);
                self.step = Step::Checkpoints(making, done);
                self.log.flusher_bell.ring();
            }
            Err(not_changed) => done(Err(not_changed)),
        }
    }

    fn go_on(&mut self, step: Step) -> bool {
        let changes = &self.log.changes;
        match step {
            Step::Idle => {}
            Step::Checkpoints(making, done) => match changes.checkpointed.pop() {
                Some(Ok(())) => {
                    self.are_checkpoints_true = true;
                    self.make(making, done);
                }
                Some(Err(error)) => done(Err(NotChanged::Io(error))),
                None => {
                    self.step = Step::Checkpoints(making, done);
                    return false;
                }
            },
            Step::Taking(topic, done) => match changes.handed.pop() {
                Some(_) => done(Ok(topic)),
                None => {
                    self.step = Step::Taking(topic, done);
                    return false;
                }
            },
            Step::Leaving(topic, topics, done) => match changes.handed.pop() {
                Some(writers) => self.remove(topic, &topics, writers, done),
                None => {
                    self.step = Step::Leaving(topic, topics, done);
                    return false;
                }
            },
        }
        true
    }

    /// Hands something to the appender. It has answered what it was handed before.
    fn hand(&mut self, handover: Handover, next: Step) {
        let handed = self.log.changes.handover.push(handover);
        debug_assert!(handed.is_ok(), "one handover at a time");
        self.log.appends().bell.ring();
        self.step = next;
    }

    fn create(&mut self, settings: TopicSettings) -> Result<Making, NotChanged> {
        let TopicSettings {
            name,
            partitions,
            config,
        } = settings;
        let topics = self.log.topics();
        if !is_name(&name) {
            return Err(NotChanged::Name);
        }
        if topics.get(&name).is_some() {
            return Err(NotChanged::Exists);
        }
        if !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Err(NotChanged::Partitions);
        }
        has_room(&topics, 1, partitions)?;
        self.has_nothing_left(&name)?;
        self.forget_compacted(&name).map_err(NotChanged::Io)?;
        let id = meta::new_id().map_err(NotChanged::Io)?;
        Ok(Making {
            topic: Arc::new(Topic::new(name, id, partitions, config)),
            from: 0,
            until: partitions,
        })
    }

    fn grow(&mut self, name: &str, partitions: u32) -> Result<Making, NotChanged> {
        let topics = self.log.topics();
        let topic = topics.get(name).ok_or(NotChanged::Unknown)?;
        let from = topic.partitions();
        if partitions <= from || partitions > PARTITIONS_MAX {
            return Err(NotChanged::Partitions);
        }
        has_room(&topics, 0, partitions - from)?;
        self.has_nothing_left(name)?;
        Ok(Making {
            topic: Arc::clone(topic),
            from,
            until: partitions,
        })
    }

    /// Whether no directory is left of what was of this name.
    fn has_nothing_left(&mut self, name: &str) -> Result<(), NotChanged> {
        self.rename().map_err(NotChanged::Io)?;
        let is_its = |dir: &PathBuf| {
            let own = dir.file_name().and_then(OsStr::to_str);
            own.and_then(of_dir_name)
                .is_some_and(|(topic, _)| topic == name)
        };
        while let Some(place) = self.doomed.iter().position(is_its) {
            if let Some(dir) = self.doomed.get(place) {
                self.remove_dir(dir).map_err(NotChanged::Io)?;
            }
            self.doomed.remove(place);
        }
        Ok(())
    }

    /// Forgets up to where another topic of this name was compacted: the new one is not.
    fn forget_compacted(&self, name: &str) -> io::Result<()> {
        let (disk, dir) = (&*self.log.disk, self.log.dir());
        self.log.keep_compacted(|| {
            let offsets = match read_offsets(disk, dir, CLEANED) {
                Ok(offsets) => offsets,
                Err(Unread::Io(error)) => return Err(error),
                // Nobody goes by it.
                Err(Unread::Newer(_) | Unread::Wrong(_)) => return Ok(None),
            };
            let is_other = |(topic, ..): &(String, u32, i64)| topic != name;
            let others: Vec<_> = offsets
                .iter()
                .filter(|one| is_other(one))
                .cloned()
                .collect();
            Ok((others.len() < offsets.len()).then_some(others))
        })
    }

    /// Makes partitions, the last one first, and hands them to the appender.
    fn make(&mut self, making: Making, done: Changed) {
        let Making { topic, from, until } = making;
        let mut writers = Vec::new();
        let made = (from..until).rev().try_for_each(|index| {
            let number = self.next_number;
            self.next_number += 1;
            writers.push(make_partition(&self.log, &topic, index, number)?);
            match index + 1 == until || index == from {
                true => self.log.disk.sync_dir(self.log.dir()),
                false => Ok(()),
            }
        });
        if let Err(error) = made {
            // The one that failed may be there in part.
            let first = until.saturating_sub(u32::try_from(writers.len()).unwrap_or(0) + 1);
            drop(writers);
            let dir = |index| self.log.dir().join(dir_name(&topic.name, index));
            // The last one goes last, as it came first.
            let dirs: Vec<_> = (first.max(from)..until).map(dir).collect();
            self.doomed.extend(dirs);
            self.clear_away();
            return done(Err(NotChanged::Io(error)));
        }
        let partitions = writers.iter().map(|writer| Arc::clone(&writer.partition));
        let topics = self.log.topics().with(partitions);
        let handover = Handover::Join(Arc::clone(&topic), writers, Arc::new(topics));
        self.hand(handover, Step::Taking(topic, done));
    }

    fn configure(&mut self, name: &str, config: TopicConfig, done: Changed) {
        match self.log.topics().get(name) {
            Some(topic) => {
                let handover = Handover::Configure(Arc::clone(topic), config);
                self.hand(handover, Step::Taking(Arc::clone(topic), done));
            }
            None => done(Err(NotChanged::Unknown)),
        }
    }

    fn delete(&mut self, name: &str, done: Changed) {
        let topics = self.log.topics();
        let Some(topic) = topics.get(name).cloned() else {
            return done(Err(NotChanged::Unknown));
        };
        let left = Arc::new(topics.without(&topic));
        let handover = Handover::Leave(Arc::clone(&topic), left);
        self.hand(handover, Step::Leaving(topic, topics, done));
    }

    /// Removes a topic, which the appender has given back, or puts it back where that cannot be done.
    fn remove(
        &mut self,
        topic: Arc<Topic>,
        topics: &Arc<Topics>,
        writers: Vec<Writer>,
        done: Changed,
    ) {
        let renamed = |partition: &Arc<Partition>| {
            let name = deleted_name(&topic.name, partition.index(), &topic.id);
            (partition.dir.clone(), self.log.dir().join(name))
        };
        let own = topics.partitions_of(&topic.name);
        let mut renames = own.iter().map(renamed);
        let Some((from, to)) = renames.next() else {
            return done(Ok(topic));
        };
        if let Err(error) = self.log.disk.rename(&from, &to) {
            // Nothing has happened to it; what was offered meanwhile was refused.
            let refused = |_| done(Err(NotChanged::Io(error)));
            let handover = Handover::Join(Arc::clone(&topic), writers, Arc::clone(topics));
            return self.hand(handover, Step::Taking(topic, Box::new(refused)));
        }
        drop(writers);
        for partition in own {
            partition.set_deleted();
        }
        self.log.flusher_bell.ring();
        self.are_checkpoints_true = false;
        self.doomed.push(to);
        self.renames.extend(renames);
        self.is_unsafe = true;
        // From here on it is gone. Where that is not safe, a power cut may bring it back, whole.
        let synced = self.log.disk.sync_dir(self.log.dir());
        done(match synced.and_then(|()| self.rename()) {
            Ok(()) => Ok(topic),
            Err(error) => Err(NotChanged::Io(error)),
        });
    }

    /// Gives the names that are still to be given, safely.
    fn rename(&mut self) -> io::Result<()> {
        while let Some((from, to)) = self.renames.last() {
            self.log.disk.rename(from, to)?;
            self.is_unsafe = true;
            self.doomed.extend(self.renames.pop().map(|(_, to)| to));
        }
        if self.is_unsafe {
            self.log.disk.sync_dir(self.log.dir())?;
            self.is_unsafe = false;
        }
        Ok(())
    }

    /// Removes a directory of those that are to go. Says whether there may be more to do at once.
    fn clear_away(&mut self) -> bool {
        let is_clear = self.renames.is_empty() && self.doomed.is_empty() && !self.is_unsafe;
        let now_ns = self.log.clock.monotonic_ns();
        if is_clear || now_ns < self.next_try_ns {
            return false;
        }
        // As long as one has its old name, the others tell that it is to go.
        let cleared = self.rename().and_then(|()| match self.doomed.first() {
            Some(dir) => self.remove_dir(dir),
            None => Ok(()),
        });
        match cleared {
            Ok(()) if self.doomed.is_empty() => false,
            Ok(()) => {
                self.doomed.remove(0);
                true
            }
            Err(error) => {
                let pause_ns = u64::try_from(NAP_MAX.as_nanos()).unwrap_or(u64::MAX);
                self.next_try_ns = now_ns.saturating_add(pause_ns);
                tracing::warn!(
                    "the log: removing what is left of a topic failed: {error}; it is tried again"
                );
                false
            }
        }
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let disk = &self.log.disk;
        let names = match disk.names(dir) {
            // It was never made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            names => names?,
        };
        for name in names {
            disk.remove(&dir.join(name))?;
        }
        disk.remove_dir(dir)
    }
}

fn has_room(topics: &Topics, more: usize, partitions: u32) -> Result<(), NotChanged> {
    let partitions = usize::try_from(partitions).unwrap_or(usize::MAX);
    let all = topics.partitions().len().saturating_add(partitions);
    match topics.iter().len() + more > TOPICS_MAX || all > ALL_PARTITIONS_MAX {
        true => Err(NotChanged::TooMany),
        false => Ok(()),
    }
}

impl Drop for Changer {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.step, Step::Idle) {
            Step::Idle => {}
            Step::Checkpoints(_, done) | Step::Taking(_, done) | Step::Leaving(_, _, done) => {
                done(Err(NotChanged::Stopping));
            }
        }
        self.log.changes.refuse_all();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_log_has_so_many_topics_and_partitions_and_no_more() {
        let topic = |number: usize, partitions: u32| {
            let topic = Topic::new(
                format!("t{number}"),
                [0; 16],
                partitions,
                TopicConfig::default(),
            );
            let topic = Arc::new(topic);
            (0..partitions).map(move |index| {
                let own = Arc::clone(&topic);
                Arc::new(Partition::new(own, index, 0, Path::new("/"), Vec::new(), 0))
            })
        };
        let large = Topics::of((0..4).flat_map(|number| topic(number, 1_023)).collect());
        assert!(has_room(&large, 1, 4).is_ok());
        assert!(matches!(has_room(&large, 0, 5), Err(NotChanged::TooMany)));
        let many = Topics::of((0..1_000).flat_map(|number| topic(number, 1)).collect());
        assert!(has_room(&many, 0, 100).is_ok());
        assert!(matches!(has_room(&many, 1, 1), Err(NotChanged::TooMany)));
    }
}
