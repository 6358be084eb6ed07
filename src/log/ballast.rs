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
    /// Whether it gave way, or had no room from the beginning.
    is_spent: bool,
}

impl Ballast {
    /// Takes the room, if it is there to be taken.
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path, bytes: u64) -> Self {
        let mut ballast = Self {
            disk,
            dir: dir.to_owned(),
            bytes,
            is_there: false,
            is_spent: false,
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

    /// Whether there is no room but what it gave, or hardly any: what is left is for what must not be lost.
    pub(super) fn is_spent(&self) -> bool {
        self.is_spent
    }

    /// Gives the room up. Says whether there was any.
    pub(super) fn give_up(&mut self) -> bool {
        let was_there = self.is_there;
        if was_there {
            self.is_there = false;
            self.is_spent = true;
            return self.disk.remove(&self.path()).is_ok();
        }
        false
    }

    /// Takes the room again, where as much is left besides it.
    pub(super) fn restore(&mut self) {
        if self.is_there || self.bytes == 0 {
            return;
        }
        match self.taken() {
            Ok(is_there) => self.is_there = is_there,
            // Where the disk says nothing of its room, that is as it was.
            Err(error) => self.is_spent |= is_full(&error),
        }
    }

    fn taken(&mut self) -> io::Result<bool> {
        let path = self.path();
        let file = self.disk.open(&path, Open::Create)?;
        let has = file.size()?;
        if has == self.bytes {
            self.is_spent = false;
            return Ok(true);
        }
        // One of another size is from another configuration.
        file.set_len(0)?;
        self.is_spent = self.disk.free_bytes(&self.dir)? < self.bytes.saturating_mul(2);
        let taken = !self.is_spent && file.allocate(self.bytes).is_ok();
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
