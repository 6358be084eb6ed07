//! Whether the log's directory can be used, found out without creating anything.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::{report::Problem, yaml::Source};

/// Looks at `dir`, or at where it would be created; none when it can be used.
///
/// What is in the way for everybody is an error. What only this user may not do is a warning:
/// whoever checks a configuration need not be the user that serves with it.
pub(super) fn look_at(dir: &Path, source: &Source<'_>) -> Option<Problem> {
    let (nearest, metadata) = nearest_existing(dir)?;
    let refused = match metadata {
        Ok(metadata) if metadata.is_dir() => {
            let wanted = Access::WRITE_OK | Access::EXEC_OK;
            let granted = accessat(CWD, &nearest, wanted, AtFlags::EACCESS);
            io::Error::from(granted.err()?)
        }
        Ok(_) => {
            let what = format!(
                "{} is no directory (choose another, or move away what is there)",
                told(dir, &nearest)
            );
            return Some(source.error("log.dir", what));
        }
        Err(error) => error,
    };
    let what = format!(
        "{} cannot be written by this user: {refused} (it must belong to the user that serves)",
        told(dir, &nearest)
    );
    let place = source.index().nearest("log.dir");
    Some(source.warning(&place, what))
}

/// The deepest part of `dir` that is there, and what it is; none when nothing is.
fn nearest_existing(dir: &Path) -> Option<(PathBuf, io::Result<fs::Metadata>)> {
    dir.ancestors().find_map(|part| {
        // The last ancestor of a relative path is empty: it stands for where we are.
        let part = match part.as_os_str().is_empty() {
            true => Path::new("."),
            false => part,
        };
        match fs::metadata(part) {
            Err(error) if is_not_there(&error) => None,
            metadata => Some((part.to_owned(), metadata)),
        }
    })
}

fn is_not_there(error: &io::Error) -> bool {
    // The second: what is in the way is further up, and found there.
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn told(dir: &Path, nearest: &Path) -> String {
    match dir == nearest {
        true => format!("log.dir: {}", dir.display()),
        false => format!("log.dir: {}: {}", dir.display(), nearest.display()),
    }
}
