//! The one door to the files of the log, so that a power cut and a broken disk fit into a unit test.
//!
//! [`System`] is the machine's own file system. Files are written at positions, never through a shared
//! cursor, and what was written is safe only after [`File::sync_data`]; a file's name only after
//! [`Disk::sync_dir`] of the directory it is in.

#[cfg(test)]
pub(crate) mod sim;
mod system;

use std::{fmt, io, path::Path};

pub use system::System;

/// A file system.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Makes a directory, and those above it that are not there. One that is there is fine.
    ///
    /// # Errors
    /// When the system refuses.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names of what is in a directory, in no order. Names that are no UTF-8 are left out: they are
    /// not the log's.
    ///
    /// # Errors
    /// When it cannot be read.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens a file.
    ///
    /// # Errors
    /// When it is not there (`Read`, `Write`), is there (`CreateNew`), or the system refuses.
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>>;

    /// Gives a file another name, and what had that name before is gone; or a directory a name that nothing
    /// has.
    ///
    /// # Errors
    /// When the system refuses.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Whoever has it open can go on reading it.
    ///
    /// # Errors
    /// When it is not there, or the system refuses.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// When it is not there or not empty, or the system refuses.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes the names in a directory safe: files that were made, renamed and removed in it.
    ///
    /// # Errors
    /// When the disk fails. What is safe is then unknown.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that may still be written where `dir` is.
    ///
    /// # Errors
    /// When the system does not say.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// Takes the lock that stands for `path`, until what is returned is dropped or the process ends.
    /// The file then holds this process's id, as text.
    ///
    /// # Errors
    /// `WouldBlock` when another process has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn fmt::Debug + Send + Sync>>;
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// To be read; it must be there.
    Read,
    /// To be read and written; it must be there.
    Write,
    /// To be read and written; made when it is not there, kept as it is when it is.
    Create,
    /// To be read and written; it must not be there.
    CreateNew,
}

/// An open file.
pub trait File: fmt::Debug + Send + Sync {
    /// Reads at `offset`, up to the length of `into`; 0 at the end. May read less than there is.
    ///
    /// # Errors
    /// When the disk fails.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at `offset`. May write less than asked for.
    ///
    /// # Errors
    /// When the disk fails or is full.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Its length, in bytes.
    ///
    /// # Errors
    /// When the system does not say.
    fn size(&self) -> io::Result<u64>;

    /// Cuts it, or fills it up with zeros.
    ///
    /// # Errors
    /// When the disk fails or is full.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes its bytes and its length safe (fdatasync).
    ///
    /// # Errors
    /// When the disk fails. What of it is safe is then unknown, and asking again proves nothing: the
    /// system may have dropped what it could not write.
    fn sync_data(&self) -> io::Result<()>;

    /// Takes so many bytes of the disk for this file, without writing them.
    ///
    /// # Errors
    /// When the disk is full.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Says that a part of it will not be read soon. A hint.
    fn forget(&self, offset: u64, len: u64);
}

impl dyn File + '_ {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// When the disk fails or is full. A part may have been written.
    pub fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        let mut patience = Patience::default();
        while !bytes.is_empty() {
            match self.write_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    offset += written as u64;
                    patience = Patience::default();
                }
                Err(error) => patience.with(error)?,
            }
        }
        Ok(())
    }

    /// Fills `into` from `offset`; returns how much there was, less than all of it only at the end of
    /// the file.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn read_full_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut patience = Patience::default();
        let mut filled = 0;
        while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => {
                    filled += read;
                    patience = Patience::default();
                }
                Err(error) => patience.with(error)?,
            }
        }
        Ok(filled)
    }

    /// Fills `into` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when there is not so much; else when the disk fails.
    pub fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let wanted = into.len();
        match self.read_full_at(into, offset)? {
            read if read == wanted => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// How often a call was made again at once.
#[derive(Debug, Default)]
struct Patience(u32);

impl Patience {
    /// `EINTR` and `EAGAIN` in a row, until they are taken for a failure: each means that the same call
    /// may succeed.
    const TRIES_MAX: u32 = 1_000;

    fn with(&mut self, error: io::Error) -> io::Result<()> {
        let may_pass = matches!(
            error.kind(),
            io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
        );
        if !may_pass || self.0 == Self::TRIES_MAX {
            return Err(error);
        }
        self.0 += 1;
        Ok(())
    }
}
