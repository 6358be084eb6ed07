//! Room on the disk that is kept for what must not be lost: given up when the disk is full, taken again when
//! there is room.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::base::disk::{Disk, Open};

const NAME: &str = "ballast";

/// The file that keeps the room.
#[derive(Debug)]
pub(super) struct Ballast {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    bytes: u64,
    is_there: bool,
}

impl Ballast {
    /// Takes the room, if it is there to be taken.
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path, bytes: u64) -> Self {
        let mut ballast = Self {
            disk,
            dir: dir.to_owned(),
            bytes,
            is_there: false,
        };
        ballast.restore();
        ballast
    }

    fn path(&self) -> PathBuf {
        self.dir.join(NAME)
    }

    pub(super) fn is_there(&self) -> bool {
        self.is_there
    }

    /// Whether nothing of the room is in use that should be kept.
    pub(super) fn is_whole(&self) -> bool {
        self.is_there || self.bytes == 0
    }

    /// Gives the room up. Says whether there was any.
    pub(super) fn give_up(&mut self) -> bool {
        let was_there = self.is_there;
        if was_there {
            self.is_there = false;
            return self.disk.remove(&self.path()).is_ok();
        }
        false
    }

    /// Takes the room again, where as much is left besides it.
    pub(super) fn restore(&mut self) {
        if !self.is_there && self.bytes > 0 {
            self.is_there = self.taken().unwrap_or(false);
        }
    }

    fn taken(&self) -> io::Result<bool> {
        let path = self.path();
        let file = self.disk.open(&path, Open::Create)?;
        let has = file.size()?;
        if has == self.bytes {
            return Ok(true);
        }
        // One of another size is from another configuration.
        file.set_len(0)?;
        let taken = self.disk.free_bytes(&self.dir)? >= self.bytes.saturating_mul(2)
            && file.allocate(self.bytes).is_ok();
        if !taken {
            self.disk.remove(&path)?;
        }
        Ok(taken)
    }
}

/// Whether an error says that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
