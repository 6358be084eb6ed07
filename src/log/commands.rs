//! What others ask of the appender besides appending: retention, compaction, rolls.

use std::{fmt, io, sync::Arc};

use crossbeam_queue::ArrayQueue;

use super::{ProducerFacts, cleaned::Cleaned, partition::Partition};
use crate::base::bell::Bell;

/// Commands that may wait.
const COMMANDS_MAX: usize = 16;

/// Something to be done with the segments of a partition.
#[derive(Debug)]
pub enum Command {
    /// Closes the active segment, unless it has no batch.
    Roll(Arc<Partition>),
    /// Lets the partition begin at this offset, or at its high watermark where that is lower, and removes the
    /// closed segments that are wholly below.
    DeleteBelow(Arc<Partition>, i64),
    /// Puts one new segment in the place of a run of closed ones, whose base offsets these are; the new one
    /// has the first of them as its own.
    Replace(Arc<Partition>, Vec<i64>, Box<Cleaned>),
    /// Walks the segment with this base offset; takes what is damaged out of it, and makes its indexes anew.
    Mend(Arc<Partition>, i64),
    /// Tells what is known of the partition's idempotent producers.
    Producers(Arc<Partition>, TellProducers),
}

/// Is told of producers, on the appender's thread. It must not wait.
pub struct TellProducers(pub Box<dyn FnOnce(Vec<ProducerFacts>) + Send>);

impl fmt::Debug for TellProducers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TellProducers").finish_non_exhaustive()
    }
}

impl Command {
    pub(super) fn partition(&self) -> &Arc<Partition> {
        match self {
            Self::Roll(partition)
            | Self::DeleteBelow(partition, _)
            | Self::Replace(partition, _, _)
            | Self::Mend(partition, _)
            | Self::Producers(partition, _) => partition,
        }
    }
}

/// Why a command was not carried out.
#[derive(Debug)]
pub enum NotDone {
    /// The partition is offline.
    Offline,
    /// The topic was deleted, or is none of this log.
    Deleted,
    /// These are not closed segments that follow each other, or the new one does not fit in their place.
    NoRun,
    /// The disk failed or is full. What was done of it stays consistent.
    Io(io::Error),
    /// The log is being closed.
    Stopping,
}

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Offline => "the partition is offline until it is healed",
            Self::Deleted => "the topic was deleted",
            Self::NoRun => "these are not closed segments that follow each other",
            Self::Io(_) => "the disk failed",
            Self::Stopping => "the log is being closed",
        })
    }
}

impl std::error::Error for NotDone {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Offline | Self::Deleted | Self::NoRun | Self::Stopping => None,
        }
    }
}

/// Called once, on the appender's thread, with what became of a command. It must not wait.
pub type CommandDone = Box<dyn FnOnce(Result<(), NotDone>) + Send>;

/// A command, and who is told.
pub(super) struct Asked {
    pub(super) command: Command,
    pub(super) done: CommandDone,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.command.fmt(f)
    }
}

/// The queue of commands.
#[derive(Debug)]
pub(super) struct Commands(ArrayQueue<Asked>);

impl Commands {
    pub(super) fn new() -> Self {
        Self(ArrayQueue::new(COMMANDS_MAX))
    }

    /// Queues a command, or hands it back because the queue is full.
    pub(super) fn give(
        &self,
        command: Command,
        done: CommandDone,
        bell: &Bell,
    ) -> Result<(), Command> {
        let asked = Asked { command, done };
        self.0.push(asked).map_err(|asked| asked.command)?;
        bell.ring();
        Ok(())
    }

    pub(super) fn next(&self) -> Option<Asked> {
        self.0.pop()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        while let Some(asked) = self.0.pop() {
            (asked.done)(Err(NotDone::Stopping));
        }
    }
}
