//! The log's threads, and how they come to an end.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{Appender, Changer, Flusher, store::Log};
use crate::base::abort::AbortOnPanic;

/// A log at work.
#[derive(Debug)]
pub struct Running {
    log: Arc<Log>,
    appender: JoinHandle<()>,
    flusher: JoinHandle<()>,
    changer: JoinHandle<()>,
    over: Receiver<bool>,
}

/// How a log ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything is safe on disk.
    Clean,
    /// Something could not be made safe; what was to be acknowledged was given back.
    Unclean,
    /// The disk did not answer in time.
    OutOfTime,
}

/// Starts appender, flusher and changer on threads of their own. A panic in one of them aborts the process.
///
/// # Errors
/// When the system gives no thread.
pub fn start(
    mut appender: Appender,
    mut flusher: Flusher,
    mut changer: Changer,
) -> io::Result<Running> {
    let log = Arc::clone(appender.log());
    let (ended, over) = sync_channel(1);
    let appending = move || {
        let _abort = AbortOnPanic("appender");
        appender.log().appends().bell.is_heard_here();
        // The changer needs it to its end.
        while !(appender.is_over() && appender.log().changes.is_over()) {
            if !appender.turn() {
                appender.nap();
            }
        }
        appender.finish();
    };
    let flushing = move || {
        let _abort = AbortOnPanic("flusher");
        flusher.log().flusher_bell.is_heard_here();
        while !flusher.is_over() {
            if !flusher.turn() {
                flusher.nap();
            }
        }
        // Who stops the log may have gone.
        let _ = ended.send(flusher.finish());
    };
    let changing = move || {
        let _abort = AbortOnPanic("topics");
        changer.log().changes.bell.is_heard_here();
        while !changer.is_over() {
            if !changer.turn() {
                changer.nap();
            }
        }
        changer.finish();
    };
    let named = |name: &str| thread::Builder::new().name(name.to_owned());
    Ok(Running {
        flusher: named("flusher").spawn(flushing)?,
        appender: named("appender").spawn(appending)?,
        changer: named("topics").spawn(changing)?,
        log,
        over,
    })
}

impl Running {
    /// The log.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Ends the log: takes nothing any more, ends the change of topics that is under way, appends what was taken, makes everything safe, and leaves the
    /// mark of an orderly stop. Waits for `within` at the most; a disk that does not answer keeps the threads.
    pub fn stop(self, within: Duration) -> Ended {
        self.log.changes.close();
        self.log.appends().close();
        match self.over.recv_timeout(within) {
            Ok(is_safe) => {
                // They are at their ends; a panic in them has aborted the process.
                let _ = self.changer.join();
                let _ = self.appender.join();
                let _ = self.flusher.join();
                if is_safe {
                    Ended::Clean
                } else {
                    Ended::Unclean
                }
            }
            Err(_) => Ended::OutOfTime,
        }
    }
}
