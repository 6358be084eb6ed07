//! Sees that a file has been edited, whichever way the editor goes about it.
//!
//! It looks at what the path leads to, ten times a second: that sees writing in place, renaming
//! over, and swapping a symbolic link anywhere on the way, on any file system, and it cannot miss an
//! event. Ten calls of `stat` a second cost nothing that could be measured.

use std::{os::unix::fs::MetadataExt as _, path::Path, time::Duration};

/// How often to look.
pub const LOOK: Duration = Duration::from_millis(100);
/// How long a file must have been left alone, so that a half-written one is not read.
const SETTLED: Duration = Duration::from_millis(200);

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// None while there is no file.
    fn of(path: &Path) -> Option<Self> {
        let data = std::fs::metadata(path).ok()?;
        Some(Self {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }
}

/// Watches one file.
#[derive(Debug)]
pub struct Watch {
    loaded: Option<Stamp>,
    seen: Option<Stamp>,
    seen_since_ms: u64,
}

impl Watch {
    /// Watches for what comes after the present state of `path`.
    pub fn new(path: &Path) -> Self {
        let stamp = Stamp::of(path);
        Self {
            loaded: stamp,
            seen: stamp,
            seen_since_ms: 0,
        }
    }

    /// Looks at `path`; true once for every new state that has been left alone for 200 ms.
    ///
    /// A file that is away is being replaced; it is waited for.
    pub fn has_settled(&mut self, path: &Path, now_ms: u64) -> bool {
        let stamp = Stamp::of(path);
        if stamp != self.seen {
            self.seen = stamp;
            self.seen_since_ms = now_ms;
        }
        let settled_ms = u64::try_from(SETTLED.as_millis()).unwrap_or(u64::MAX);
        let is_settled = now_ms.saturating_sub(self.seen_since_ms) >= settled_ms;
        let is_new = stamp.is_some() && stamp != self.loaded;
        if is_new && is_settled {
            self.loaded = stamp;
        }
        is_new && is_settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn every_way_of_editing_is_seen_once_it_has_settled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.yaml");
        fs::write(dir.path().join("one"), "a").unwrap();
        fs::write(dir.path().join("two"), "b").unwrap();
        symlink(dir.path().join("one"), &path).unwrap();
        let mut watch = Watch::new(&path);
        let mut now_ms = 0;
        let mut seen = |what: &str| {
            now_ms += 1_000;
            assert!(!watch.has_settled(&path, now_ms), "{what}: too early");
            assert!(!watch.has_settled(&path, now_ms + 199), "{what}: too early");
            assert!(watch.has_settled(&path, now_ms + 200), "{what}: not seen");
            assert!(
                !watch.has_settled(&path, now_ms + 300),
                "{what}: seen twice"
            );
        };
        fs::write(&path, "in place").unwrap();
        seen("in place");
        symlink(dir.path().join("two"), dir.path().join("new")).unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        seen("another link");
        fs::write(dir.path().join("new"), "x").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        seen("renamed over");
    }

    #[test]
    fn a_file_that_is_away_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.yaml");
        fs::write(&path, "a").unwrap();
        let mut watch = Watch::new(&path);
        fs::remove_file(&path).unwrap();
        assert!(!watch.has_settled(&path, 1_000));
        assert!(!watch.has_settled(&path, 2_000));
        fs::write(&path, "b").unwrap();
        assert!(!watch.has_settled(&path, 3_000));
        assert!(watch.has_settled(&path, 3_200));
    }
}
