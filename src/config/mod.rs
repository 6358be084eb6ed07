//! The operator's words, turned into valid types: `wardent.yaml` and `policy.yaml`.
//!
//! A document that was loaded holds only valid values; whatever is wrong is told with file, line,
//! column and what would be right. Secrets are named here, never read.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

mod check;
mod index;
mod log_dir;
pub mod nginx;
mod notes;
pub mod policy;
pub mod report;
pub mod secrets;
pub mod settings;
mod tls;
pub mod values;
pub mod wardent;
pub mod watch;
mod words;
mod yaml;

pub use report::{Problem, Report, Severity};

/// Both files, and what an operator should know about them.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// `wardent.yaml`.
    pub wardent: wardent::Document,
    /// The policy it names.
    pub policy: policy::Document,
    /// The SHA-256 of the policy's file, in hex.
    pub policy_sha256: String,
    /// Warnings and notes.
    pub notes: Vec<Problem>,
}

/// A policy, and what an operator should know about it.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedPolicy {
    /// The policy.
    pub policy: policy::Document,
    /// The SHA-256 of its file, in hex: which text it is.
    pub sha256: String,
    /// Warnings and notes.
    pub notes: Vec<Problem>,
}

/// Loads `wardent.yaml` and the policy it names.
///
/// # Errors
/// When a file cannot be read or is refused; what is wrong in both is told at once.
pub fn load(wardent_yaml: &Path) -> Result<Loaded, Report> {
    let name = wardent_yaml.display().to_string();
    let text = read_text(wardent_yaml)?;
    let (wardent, source) = wardent::read(&text, &name, folder(wardent_yaml))?;
    let mut problems = check::check_wardent(&wardent, &source);
    let log_dir = log_dir::look_at(&wardent.log.dir, &source);
    let tls = tls::look_at(&wardent, &source);
    let is_error = |problem: &Problem| problem.severity == Severity::Error;
    let looked_at = log_dir.into_iter().chain(tls);
    let (unusable, doubtful): (Vec<_>, Vec<_>) = looked_at.partition(is_error);
    problems.extend(unusable);
    match load_policy(&wardent.policy, &wardent) {
        Ok(loaded) if problems.is_empty() => {
            let mut notes = notes::of_wardent(&wardent, &source);
            notes.extend(notes::exposed_files_of_wardent(&wardent, &source));
            notes.extend(doubtful);
            notes.extend(loaded.notes);
            Ok(Loaded {
                wardent,
                policy: loaded.policy,
                policy_sha256: loaded.sha256,
                notes,
            })
        }
        Ok(_) => Err(Report { problems }),
        Err(report) => {
            problems.extend(report.problems);
            Err(Report { problems })
        }
    }
}

/// Loads `wardent.yaml` alone, for commands that talk to a running Wardent.
///
/// # Errors
/// When the file cannot be read or is refused.
pub fn load_wardent(wardent_yaml: &Path) -> Result<wardent::Document, Report> {
    let name = wardent_yaml.display().to_string();
    let text = read_text(wardent_yaml)?;
    let (wardent, _) = wardent::read(&text, &name, folder(wardent_yaml))?;
    Ok(wardent)
}

/// Loads a policy for a Wardent that is set up as in `wardent`, with what is worth knowing about it.
///
/// # Errors
/// When the file cannot be read or is refused.
pub fn load_policy(
    policy_yaml: &Path,
    wardent: &wardent::Document,
) -> Result<LoadedPolicy, Report> {
    let name = policy_yaml.display().to_string();
    let text = read_text(policy_yaml)?;
    let (policy, notes) = policy::load(&text, &name, folder(policy_yaml), wardent)?;
    let sha256 = HEXLOWER.encode(&Sha256::digest(text.as_bytes()));
    Ok(LoadedPolicy {
        policy,
        sha256,
        notes,
    })
}

/// What relative paths in `file` start from.
fn folder(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

fn read_text(path: &Path) -> Result<String, Report> {
    text_of(path, yaml::FILE_MAX)
}

/// The text of a file that a document names.
///
/// # Errors
/// When it cannot be read, is no regular file, is no UTF-8 or has more than `bytes_max` bytes.
pub fn text_of(path: &Path, bytes_max: usize) -> Result<String, Report> {
    let name = path.display().to_string();
    let unreadable = |error: io::Error| yaml::unlocated(&name, &format!("cannot be read: {error}"));
    // Opening a pipe that nobody writes would wait forever.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(yaml::unlocated(&name, "cannot be read: not a regular file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(bytes_max as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > bytes_max {
        let what = format!("the file is larger than {} MiB", bytes_max >> 20);
        return Err(yaml::unlocated(&name, &what));
    }
    yaml::decode(&name, bytes)
}

#[cfg(test)]
mod tests;
