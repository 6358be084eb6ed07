//! Structured log lines on standard error, written by a thread of their own.
//!
//! A full pipe costs lines and never a wait: what does not fit into the writer's queue is dropped
//! and counted.

use std::io::IsTerminal as _;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt};

/// What log and event lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// One JSON object a line.
    Json,
    /// For a person.
    Human,
}

impl Look {
    /// The look for a stream: for a person where it is a terminal, else JSON.
    pub fn fitting(stream: &impl std::io::IsTerminal) -> Self {
        if stream.is_terminal() {
            Self::Human
        } else {
            Self::Json
        }
    }
}

/// Lines that may wait for the writer.
const LINES_MAX: usize = 8 * 1024;

/// The log of this process. Dropping it writes what still waits.
#[derive(Debug)]
pub struct Log {
    _writer: WorkerGuard,
    dropped: ErrorCounter,
}

impl Log {
    /// Starts the log at `level` (`error`, `warn`, `info`, `debug`, `trace` or `off`), for the whole
    /// process. A log that was started before goes on instead.
    pub fn start(level: &str, look: Look) -> Self {
        let (writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(LINES_MAX)
            .thread_name("log")
            .finish(std::io::stderr());
        let dropped = writer.error_counter();
        let filter = EnvFilter::new(format!("warn,wardent={level}"));
        let lines = fmt().with_writer(writer).with_env_filter(filter);
        // Fails where a log was started before; that one goes on.
        let _ = match look {
            Look::Json => lines.json().flatten_event(true).try_init(),
            Look::Human => lines
                .with_ansi(std::io::stderr().is_terminal())
                .with_target(false)
                .try_init(),
        };
        Self {
            _writer: guard,
            dropped,
        }
    }

    /// Counts the lines that were dropped because nobody took them.
    pub fn dropped(&self) -> ErrorCounter {
        self.dropped.clone()
    }
}
