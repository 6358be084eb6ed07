//! The owner of bans inside this process, and where its decisions are told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use super::StartError;
use crate::owner::{Ban, Change, Decided, Owner, Publish};

/// The owner's thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct OwnerThread {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl OwnerThread {
    pub(super) fn start(owner: Owner) -> Result<Self, StartError> {
        let ended = Arc::<AtomicBool>::default();
        let thread = owner
            .start(Arc::clone(&ended))
            .map_err(|error| StartError::System(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            ended,
            thread: Some(thread),
        })
    }
}

impl Drop for OwnerThread {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in it has aborted the process.
            let _ = thread.join();
        }
    }
}

/// Tells changes of bans to the process's own log.
///
/// Bans live in memory: a restart forgets them. Whoever keeps them takes this place, and has them
/// back at start by [`Owner`]'s book.
#[derive(Debug)]
pub(super) struct BanLog;

impl Publish for BanLog {
    fn tell(&mut self, change: Change, ban: &Ban, actor: Option<&str>) {
        let by = match (&ban.decided, actor) {
            (_, Some(actor)) => actor,
            (Decided::By(actor), None) => actor,
            (Decided::ByPolicy, None) => "policy",
        };
        tracing::info!(
            change = change.name(),
            client = %ban.target,
            level = ban.level,
            until_unix_ms = ban.until_unix_ms,
            enforced = ban.enforced,
            why = ?ban.why,
            by = ?by,
            "ban"
        );
    }
}
