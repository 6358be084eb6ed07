//! Where the commands that read the log have it from: the running Wardent, or else its files.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    StartError,
    admin_cli::{Ended, warn},
    client::Running,
};
use crate::{
    base::disk::{Disk, System},
    config::{self, wardent::Document},
    log::{self, OpenError, Partition},
};

/// What answers.
#[derive(Debug)]
pub(super) enum Reader<'a> {
    /// The running Wardent.
    Running(Running<'a>),
    /// The log's files, which nobody writes to.
    Files(Files),
}

/// The log's files.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) dir: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) partitions: Vec<Arc<Partition>>,
}

/// The configuration at `config`.
///
/// # Errors
/// When it cannot be used.
pub(super) fn document(config: &Path) -> Result<Document, Ended> {
    config::load_wardent(config).map_err(|report| Ended::Config(StartError::Config(report)))
}

impl<'a> Reader<'a> {
    /// The running Wardent of this configuration; its files, if none runs.
    ///
    /// # Errors
    /// When neither can be asked by this user.
    pub(super) fn open(document: &'a Document) -> Result<Self, String> {
        let running = Running::behind(&document.admin.socket)?;
        if running.is_there()? {
            return Ok(Self::Running(running));
        }
        let files = Files::open(&document.log.dir)?;
        warn(&format!(
            "wardent does not run: this is what stands in {}",
            files.dir.display()
        ));
        Ok(Self::Files(files))
    }
}

impl Files {
    /// The files of the log in `dir`.
    ///
    /// # Errors
    /// When there is none, or this user may not read it.
    pub(super) fn open(dir: &Path) -> Result<Self, String> {
        let disk: Arc<dyn Disk> = Arc::new(System);
        let opened = log::open_to_read(dir, &disk);
        let partitions = opened.map_err(|error| in_words(dir, &error))?;
        if partitions.is_empty() {
            return Err(format!("{}: no log is there", dir.display()));
        }
        Ok(Self {
            dir: dir.to_owned(),
            disk,
            partitions,
        })
    }
}

fn in_words(dir: &Path, error: &OpenError) -> String {
    let kind = match error {
        OpenError::Io { error, .. } => Some(error.kind()),
        OpenError::Locked { .. } | OpenError::Newer { .. } | OpenError::Wrong { .. } => None,
    };
    let advice = match kind {
        Some(io::ErrorKind::NotFound) => {
            "no log is there: has wardent run with this configuration?"
        }
        Some(io::ErrorKind::PermissionDenied) => {
            "this user may not read the log: be root, or the user `wardent`"
        }
        _ => return error.to_string(),
    };
    format!("{}: {advice}", dir.display())
}
