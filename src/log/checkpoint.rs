//! The small text files of the log, as Kafka writes them. Each is replaced whole: whoever reads one sees the
//! old or the new, also after a power cut.
//!
//! ```text
//! recovery-point-offset-checkpoint      leader-epoch-checkpoint
//! 0                                     0
//! 2                                     1
//! wardent.client.ban 0 1041             0 0
//! wardent.http.access 0 88123
//! ```

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{changes::ALL_PARTITIONS_MAX, segment::OFFSET_MAX, topic::NAME_BYTES_MAX};
use crate::base::disk::{Disk, Open};

/// What is safe on disk, by partition.
pub const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
/// Where partitions begin.
pub const LOG_STARTS: &str = "log-start-offset-checkpoint";
/// What is shown, by partition: Kafka's high watermarks.
pub const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
/// Up to where partitions are compacted.
pub const CLEANED: &str = "cleaner-offset-checkpoint";
/// Which leader appended from which offset on; one in each partition's directory.
pub(super) const EPOCHS: &str = "leader-epoch-checkpoint";

/// The end of a file's name until it is complete.
pub(super) const TMP: &str = ".tmp";

/// The longest line: a name, a partition's number, an offset, two spaces and the end, in bytes.
const LINE_BYTES_MAX: usize = NAME_BYTES_MAX + 10 + 19 + 3;

/// The longest of these files, in bytes: a line for each partition that there may be, and two before.
const BYTES_MAX: u64 = ((ALL_PARTITIONS_MAX + 2) * LINE_BYTES_MAX) as u64;

/// Why a text file of the log is not understood.
#[derive(Debug)]
pub enum Unread {
    /// It is of a later version, this one.
    Newer(String),
    /// This is wrong with it.
    Wrong(String),
    /// The disk failed.
    Io(io::Error),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The text of a file; none where it is not there.
///
/// # Errors
/// When it cannot be read, is longer than such a file can be, or is no text.
pub(super) fn read(disk: &dyn Disk, path: &Path) -> Result<Option<String>, Unread> {
    let file = match disk.open(path, Open::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let size = file.size()?;
    if size > BYTES_MAX {
        return Err(Unread::Wrong(format!("it has {size} bytes")));
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    let read = file.read_full_at(&mut bytes, 0)?;
    bytes.truncate(read);
    let text = String::from_utf8(bytes).map_err(|_| Unread::Wrong("it is no text".to_owned()))?;
    Ok(Some(text))
}

/// Replaces the file `name` in `dir` by `text`, safely on disk.
///
/// # Errors
/// When the disk fails or is full. The file then has the old text, or the new.
pub(super) fn write(disk: &dyn Disk, dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let tmp = written(disk, dir, name, text)?;
    disk.rename(&tmp, &dir.join(name))?;
    disk.sync_dir(dir)
}

/// Replaces several files in `dir`, as [`write`] does each.
pub(super) fn write_all(disk: &dyn Disk, dir: &Path, files: &[(&str, String)]) -> io::Result<()> {
    for (name, text) in files {
        let tmp = written(disk, dir, name, text)?;
        disk.rename(&tmp, &dir.join(name))?;
    }
    disk.sync_dir(dir)
}

fn written(disk: &dyn Disk, dir: &Path, name: &str, text: &str) -> io::Result<PathBuf> {
    let tmp = dir.join(format!("{name}{TMP}"));
    let file = disk.open(&tmp, Open::Create)?;
    file.set_len(0)?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.sync_data()?;
    Ok(tmp)
}

/// Offsets by partition.
pub type Offsets = Vec<(String, u32, i64)>;

/// Reads offsets by partition; none where the file is not there.
///
/// # Errors
/// When it is not understood.
pub fn read_offsets(disk: &dyn Disk, dir: &Path, name: &str) -> Result<Offsets, Unread> {
    let Some(text) = read(disk, &dir.join(name))? else {
        return Ok(Vec::new());
    };
    entries(&text, |line| {
        let mut words = line.rsplitn(3, ' ');
        let offset = words.next()?.parse().ok();
        let offset = offset.filter(|offset| (0..=OFFSET_MAX).contains(offset))?;
        let index = words.next()?.parse().ok()?;
        Some((words.next()?.to_owned(), index, offset))
    })
}

/// Writes offsets by partition, safely on disk.
///
/// # Errors
/// When the disk fails or is full. The file then has the old ones, or the new.
pub fn write_offsets(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    offsets: &[(String, u32, i64)],
) -> io::Result<()> {
    write(disk, dir, name, &offsets_text(offsets))
}

pub(super) fn offsets_text(offsets: &[(String, u32, i64)]) -> String {
    let lines = offsets
        .iter()
        .map(|(topic, index, offset)| format!("{topic} {index} {offset}\n"));
    format!("0\n{}\n{}", offsets.len(), lines.collect::<String>())
}

/// The epochs of a partition's leaders, each with the offset from which on it appended.
pub(super) fn read_epochs(disk: &dyn Disk, dir: &Path) -> Result<Vec<(i32, i64)>, Unread> {
    let Some(text) = read(disk, &dir.join(EPOCHS))? else {
        return Ok(Vec::new());
    };
    let epochs = entries(&text, |line| {
        let (epoch, offset) = line.split_once(' ')?;
        let epoch: i32 = epoch.parse().ok().filter(|epoch| *epoch >= 0)?;
        let offset: i64 = offset.parse().ok().filter(|offset| *offset >= 0)?;
        Some((epoch, offset))
    })?;
    Ok(epochs)
}

pub(super) fn write_epochs(disk: &dyn Disk, dir: &Path, epochs: &[(i32, i64)]) -> io::Result<()> {
    let lines = epochs
        .iter()
        .map(|(epoch, offset)| format!("{epoch} {offset}\n"));
    let text = format!("0\n{}\n{}", epochs.len(), lines.collect::<String>());
    write(disk, dir, EPOCHS, &text)
}

/// Version 0, the number of entries, and the entries, a line each.
fn entries<T>(text: &str, entry: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Unread> {
    let wrong = |line: usize, what: &str| Unread::Wrong(format!("line {line}: {what}"));
    let mut lines = text.lines();
    let version = lines
        .next()
        .ok_or_else(|| wrong(1, "there is no version"))?;
    match version.trim().parse::<u32>() {
        Ok(0) => {}
        Ok(_) => return Err(Unread::Newer(version.trim().to_owned())),
        Err(_) => return Err(wrong(1, "the version is no number")),
    }
    let count: Option<usize> = lines.next().and_then(|line| line.trim().parse().ok());
    let count = count.ok_or_else(|| wrong(2, "the number of entries is none"))?;
    let mut found = Vec::new();
    for (index, line) in lines.enumerate() {
        found.push(entry(line).ok_or_else(|| wrong(index + 3, "it is no entry"))?);
    }
    match found.len() == count {
        true => Ok(found),
        false => Err(wrong(
            2,
            &format!("{count} entries are told, {} are there", found.len()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk::System;

    #[test]
    fn offsets_are_written_as_kafka_writes_them_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let offsets = vec![
            ("a.b-c".to_owned(), 0, 17),
            ("a.b-c".to_owned(), 1, OFFSET_MAX),
        ];
        write_offsets(&System, dir.path(), RECOVERY_POINTS, &offsets).unwrap();
        let text = std::fs::read_to_string(dir.path().join(RECOVERY_POINTS)).unwrap();
        assert_eq!(text, "0\n2\na.b-c 0 17\na.b-c 1 9223372028264841215\n");
        let read = read_offsets(&System, dir.path(), RECOVERY_POINTS).unwrap();
        assert_eq!(read, offsets);
        assert_eq!(System.names(dir.path()).unwrap(), [RECOVERY_POINTS]);
    }

    #[test]
    fn as_many_offsets_as_there_may_be_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let name = |number: usize| format!("{number:0>NAME_BYTES_MAX$}");
        let offsets = (0..ALL_PARTITIONS_MAX).map(|number| (name(number), u32::MAX, OFFSET_MAX));
        let offsets: Vec<_> = offsets.collect();
        write_offsets(&System, dir.path(), RECOVERY_POINTS, &offsets).unwrap();
        let read = read_offsets(&System, dir.path(), RECOVERY_POINTS).unwrap();
        assert_eq!(read, offsets);
    }

    #[test]
    fn a_checkpoint_that_is_not_there_has_no_offsets() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            read_offsets(&System, dir.path(), LOG_STARTS)
                .unwrap()
                .is_empty()
        );
        assert!(read_epochs(&System, dir.path()).unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_with_a_checkpoint_is_told_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let cases = [
            ("", "line 1: there is no version"),
            ("x\n", "line 1: the version is no number"),
            ("0\n", "line 2: the number of entries is none"),
            ("0\n2\na 0 1\n", "line 2: 2 entries are told, 1 are there"),
            ("0\n1\na 0 -1\n", "line 3: it is no entry"),
            ("0\n1\na 0 9223372036854775807\n", "line 3: it is no entry"),
            ("0\n1\na 0\n", "line 3: it is no entry"),
        ];
        for (text, expected) in cases {
            std::fs::write(dir.path().join(CLEANED), text).unwrap();
            match read_offsets(&System, dir.path(), CLEANED).unwrap_err() {
                Unread::Wrong(what) => assert_eq!(what, expected),
                other @ (Unread::Newer(_) | Unread::Io(_)) => panic!("{text:?}: {other:?}"),
            }
        }
        std::fs::write(dir.path().join(CLEANED), "1\n0\n").unwrap();
        let newer = read_offsets(&System, dir.path(), CLEANED).unwrap_err();
        assert!(matches!(newer, Unread::Newer(version) if version == "1"));
    }

    #[test]
    fn epochs_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        write_epochs(&System, dir.path(), &[(0, 0), (1, 88)]).unwrap();
        let text = std::fs::read_to_string(dir.path().join(EPOCHS)).unwrap();
        assert_eq!(text, "0\n2\n0 0\n1 88\n");
        assert_eq!(read_epochs(&System, dir.path()).unwrap(), [(0, 0), (1, 88)]);
    }
}
