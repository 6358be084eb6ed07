//! Threads without which the process must not go on.

use std::{io::Write as _, process, thread};

/// Held by a thread for its whole life: a panic in it ends the process.
///
/// Without its owner of bans or its watchdog Wardent would go on serving, and nobody would notice
/// what is missing. A supervisor starts it again.
#[derive(Debug)]
pub struct AbortOnPanic(pub &'static str);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            // The panic itself has been told already; who reads it may have gone.
            let _ = writeln!(std::io::stderr(), "the {} panicked: aborting", self.0);
            process::abort();
        }
    }
}
