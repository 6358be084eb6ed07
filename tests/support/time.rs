//! Real time, for deadlines: the proxy under test keeps real ones.

use std::{
    sync::{Condvar, Mutex},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use wardent::event::time::Stamps;

/// How long anything that must happen may take before the test says it did not.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The moment it is.
#[expect(
    clippy::disallowed_methods,
    reason = "tests measure the real deadlines of a real proxy"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970, for signatures.
#[expect(
    clippy::disallowed_methods,
    reason = "signatures carry the real time of day"
)]
pub(crate) fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// The day it is, in UTC: `2026-09-02`.
pub(crate) fn today() -> String {
    let unix_ms = u64::try_from(unix_seconds()).unwrap() * 1_000;
    let mut text = Vec::new();
    Stamps::default().write_rfc3339(unix_ms, &mut text);
    String::from_utf8(text).unwrap()[..10].to_owned()
}

/// Waits until the condition holds.
///
/// # Panics
/// When it does not hold within [`PATIENCE`].
pub(crate) fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(
        holds_within(PATIENCE, condition),
        "not within {PATIENCE:?}: {what}"
    );
}

/// Whether the condition comes to hold within the time given.
pub(crate) fn holds_within(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = now() + patience;
    loop {
        if condition() {
            return true;
        }
        if now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Lets time pass where the case itself is about time passing (a slow peer, an idle peer).
pub(crate) fn pass(time: Duration) {
    thread::sleep(time);
}

/// A door that scripts wait at until the test opens it.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    /// Lets everybody through, now and later.
    pub(crate) fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }

    /// Waits until the gate is open; a test that forgot to open it fails, it does not hang.
    pub(crate) fn wait(&self) {
        let open = self.open.lock().unwrap();
        let (open, _) = self
            .changed
            .wait_timeout_while(open, PATIENCE, |open| !*open)
            .unwrap();
        assert!(*open, "nobody opened the gate within {PATIENCE:?}");
    }
}
