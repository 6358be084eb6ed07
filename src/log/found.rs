//! What opening the log found and set right, to be told to the operator.

use std::{fmt, path::PathBuf};

use super::Damage;

/// Something that was not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The end of a segment was no whole batch and was cut off.
    TornTail {
        /// The segment.
        path: PathBuf,
        /// Where it ends now.
        position: u64,
        /// Bytes that were cut off.
        bytes: u64,
        /// What is wrong with the first of them.
        damage: Damage,
    },
    /// Something in the middle of a segment was no whole batch; it was taken out, and what follows was kept.
    Quarantined {
        /// The segment.
        path: PathBuf,
        /// Where it was.
        position: u64,
        /// How many bytes.
        bytes: u64,
        /// What is wrong with the first of them.
        damage: Damage,
        /// Where they are now; none where there was no room to keep more of them.
        kept: Option<PathBuf>,
    },
    /// Indexes were missing, or did not fit their segment, and were made anew.
    IndexRebuilt(PathBuf),
    /// Left over from something that was not brought to its end; removed.
    Removed(PathBuf),
    /// A complete segment waited to take the place of others, and did so.
    Swapped(PathBuf),
    /// A file of offsets was not understood, and is made anew.
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Between two segments of a partition, records are gone.
    Missing {
        /// Its directory.
        dir: PathBuf,
        /// The first offset that is gone.
        from: i64,
        /// The first after it that is there.
        until: i64,
    },
    /// A partition ends before what was once safe on disk.
    Shorter {
        /// Its directory.
        dir: PathBuf,
        /// Where it ended, at least.
        expected: i64,
        /// Where it ends.
        end: i64,
    },
}

impl Found {
    /// Whether records are gone, or may be.
    pub fn is_loss(&self) -> bool {
        match self {
            Self::TornTail { .. }
            | Self::Quarantined { .. }
            | Self::Missing { .. }
            | Self::Shorter { .. } => true,
            Self::IndexRebuilt(_)
            | Self::Removed(_)
            | Self::Swapped(_)
            | Self::Checkpoint { .. } => false,
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TornTail {
                path,
                position,
                bytes,
                damage,
            } => write!(
                f,
                "{}: the last {bytes} bytes, from {position} on, were no whole batch ({damage}) and were cut off",
                path.display()
            ),
            Self::Quarantined {
                path,
                position,
                bytes,
                damage,
                kept,
            } => {
                write!(
                    f,
                    "{}: {bytes} bytes at {position} were no whole batch ({damage}) and were taken out",
                    path.display()
                )?;
                match kept {
                    Some(kept) => write!(f, "; they are in {}", kept.display()),
                    None => f.write_str("; the quarantine is full, they are gone"),
                }
            }
            Self::IndexRebuilt(path) => {
                write!(f, "{}: its indexes were made anew", path.display())
            }
            Self::Removed(path) => write!(f, "{}: left over, removed", path.display()),
            Self::Swapped(path) => {
                write!(
                    f,
                    "{}: took the place of what it was made of",
                    path.display()
                )
            }
            Self::Checkpoint { path, what } => {
                write!(f, "{}: {what}; it is made anew", path.display())
            }
            Self::Missing { dir, from, until } => write!(
                f,
                "{}: offsets from {from} to below {until} are gone, they were not safe",
                dir.display()
            ),
            Self::Shorter { dir, expected, end } => write!(
                f,
                "{}: it ends at offset {end}, and had been safe up to {expected}",
                dir.display()
            ),
        }
    }
}
