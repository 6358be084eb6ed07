//! The machine's own file system.

use std::{
    fmt, fs, io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags};

use super::{Disk, File, Open};

/// Who may read the log's files: its owner, and its owner's group. A directory also needs to be entered.
const FILE_MODE: u32 = 0o640;
const DIR_MODE: u32 = 0o750;

/// The machine's own file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Disk for System {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(DIR_MODE).create(dir)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>> {
        Ok(Box::new(options(how).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn fmt::Debug + Send + Sync>> {
        let file = options(Open::Create).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let pid = std::process::id().to_string();
        // It helps who is kept out; a full disk keeps nobody from the lock. So the old one's room is used.
        let _ = file
            .write_all_at(pid.as_bytes(), 0)
            .and_then(|()| file.set_len(pid.len() as u64));
        Ok(Box::new(file))
    }
}

fn options(how: Open) -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options
        .read(true)
        .write(how != Open::Read)
        .create(how == Open::Create)
        .create_new(how == Open::CreateNew)
        .mode(FILE_MODE)
        // A link in the directory of the log is nobody's doing but an enemy's.
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

impl File for fs::File {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, bytes, offset)
    }

    fn size(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(
            self,
            FallocateFlags::empty(),
            0,
            len,
        )?)
    }

    fn forget(&self, offset: u64, len: u64) {
        // A hint: whether it was taken changes nothing.
        let _ = rustix::fs::fadvise(
            self,
            offset,
            std::num::NonZeroU64::new(len),
            Advice::DontNeed,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_at_a_position_is_read_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = System.open(&path, Open::CreateNew).unwrap();
        file.write_all_at(b"wardent", 3).unwrap();
        let mut bytes = [0; 16];
        assert_eq!(file.read_full_at(&mut bytes, 0).unwrap(), 10);
        assert_eq!(&bytes[..10], b"\0\0\0wardent");
        assert_eq!(
            file.read_exact_at(&mut bytes, 0).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        assert!(System.open(&path, Open::CreateNew).is_err());
        assert_eq!(System.names(dir.path()).unwrap(), ["file"]);
    }

    #[test]
    fn a_lock_is_one_processes_alone_and_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        fs::write(&path, "4194304 of another day").unwrap();
        let lock = System.lock(&path).unwrap();
        assert_eq!(
            System.lock(&path).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            std::process::id().to_string()
        );
        drop(lock);
        System.lock(&path).unwrap();
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, b"").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(System.open(&link, Open::Write).is_err());
    }
}
