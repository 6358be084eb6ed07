//! The owner of bans inside this process, and where its decisions are told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use super::StartError;
use crate::owner::{Owner, Publish, Told, Trouble};

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
#[derive(Debug)]
pub(super) struct BanLog;

impl Publish for BanLog {
    fn room(&self) -> usize {
        usize::MAX
    }

    fn tell(&mut self, told: Told) -> Result<(), Told> {
        if let Some(receipt) = told.receipt {
            receipt.kept();
        }
        Ok(())
    }

    fn trouble(&self) -> Arc<Trouble> {
        Arc::default()
    }
}
