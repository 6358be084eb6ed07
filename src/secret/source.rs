//! Where a secret is kept, and reading it from there. The only file of this room with I/O.
//!
//! Files are read again on reload; the environment and systemd's credentials are fixed when the
//! process starts, so a new value there needs a restart.

use std::{
    env,
    ffi::OsString,
    fmt,
    fs::OpenOptions,
    io::{self, Read},
    os::unix::{ffi::OsStringExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::SecretBytes;

/// The most bytes a secret may have, its newline included: more is a wrong file.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

/// Where a secret is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// A systemd credential: a file of this name in `$CREDENTIALS_DIRECTORY` (systemd.exec(5)).
    Credential(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Credential(name) => write!(f, "systemd credential {name}"),
        }
    }
}

/// Reads a secret: the bytes that are there, without one newline (`\n` or `\r\n`) at the end.
///
/// Waits for the disk, so it has no place on the request path; it does not wait for a pipe.
///
/// # Errors
/// When there is nothing to read, or what is there is no regular file, is empty, or has more than
/// [`SECRET_BYTES_MAX`] bytes. How long a key must be is for [`SecretBytes::long_enough`] to say.
pub fn read(source: &Source) -> Result<SecretBytes, SourceError> {
    read_from(source, |name| env::var_os(name)).map_err(|problem| SourceError {
        source: source.clone(),
        problem,
    })
}

fn read_from(
    source: &Source,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<SecretBytes, Problem> {
    let mut bytes = match source {
        Source::File(path) => read_file(path)?,
        Source::Env(name) => {
            let value = variable(name).ok_or(Problem::NotSet)?;
            Zeroizing::new(value.into_vec())
        }
        Source::Credential(name) => {
            if name.is_empty() || name == "." || name == ".." || name.contains('/') {
                return Err(Problem::CredentialName);
            }
            let directory = variable("CREDENTIALS_DIRECTORY").ok_or(Problem::NoCredentials)?;
            read_file(&Path::new(&directory).join(name))?
        }
    };
    if bytes.len() > SECRET_BYTES_MAX {
        return Err(Problem::TooLarge);
    }
    if bytes.pop_if(|last| *last == b'\n').is_some() {
        bytes.pop_if(|last| *last == b'\r');
    }
    if bytes.is_empty() {
        return Err(Problem::Empty);
    }
    Ok(SecretBytes(bytes))
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Problem> {
    // Without NONBLOCK, opening a pipe would wait for its writer before anyone can ask what it is.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(Problem::Unreadable)?;
    if !file.metadata().map_err(Problem::Unreadable)?.is_file() {
        return Err(Problem::NotAFile);
    }
    // Room for all of it at once: a vector that grows leaves copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 64));
    let bound = u64::try_from(SECRET_BYTES_MAX).unwrap_or(u64::MAX);
    file.take(bound + 1)
        .read_to_end(&mut bytes)
        .map_err(Problem::Unreadable)?;
    Ok(Zeroizing::new(bytes.as_slice().to_vec()))
}

/// A secret that could not be read: which, and why.
#[derive(Debug)]
pub struct SourceError {
    /// Where it should have been.
    pub source: Source,
    /// What was found there.
    pub problem: Problem,
}

/// What stands in the way of reading a secret.
#[derive(Debug)]
pub enum Problem {
    /// The file cannot be opened or read.
    Unreadable(io::Error),
    /// There is a directory, pipe, socket or device.
    NotAFile,
    /// There are no bytes, or nothing but a newline.
    Empty,
    /// There are more than [`SECRET_BYTES_MAX`] bytes.
    TooLarge,
    /// The environment variable is not set.
    NotSet,
    /// `$CREDENTIALS_DIRECTORY` is not set: systemd gave this process no credentials.
    NoCredentials,
    /// The credential's name is not a file name.
    CredentialName,
}

impl fmt::Display for SourceError {
    /// One line with the system's own words in it; [`Error::source`](std::error::Error::source)
    /// is therefore none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = &self.source;
        match &self.problem {
            Problem::Unreadable(cause) => write!(
                f,
                "{source}: cannot be read: {cause}; put the secret there (`wardent secret new` makes one) and let Wardent's user read it"
            ),
            Problem::NotAFile => write!(
                f,
                "{source}: is not a regular file; name a file that holds nothing but the secret"
            ),
            Problem::Empty => write!(
                f,
                "{source}: is empty; put the secret there (`wardent secret new` makes one)"
            ),
            Problem::TooLarge => write!(
                f,
                "{source}: has more than {SECRET_BYTES_MAX} bytes; name a file that holds nothing but the secret"
            ),
            Problem::NotSet => write!(
                f,
                "{source}: is not set; set it, or read the secret from a file"
            ),
            Problem::NoCredentials => write!(
                f,
                "{source}: CREDENTIALS_DIRECTORY is not set; add `LoadCredential=` to the unit, or read the secret from a file"
            ),
            Problem::CredentialName => write!(
                f,
                "{source}: is not a file name; write the name that `LoadCredential=` gives it, without a path"
            ),
        }
    }
}

impl std::error::Error for SourceError {}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::Mode;
    use tempfile::TempDir;

    use super::*;

    fn file_with(content: &[u8]) -> (TempDir, Source) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, content).unwrap();
        (dir, Source::File(path))
    }

    fn problem_of(content: &[u8]) -> Problem {
        let (_dir, source) = file_with(content);
        read(&source).unwrap_err().problem
    }

    #[test]
    fn one_newline_at_the_end_is_not_part_of_the_secret() {
        for (content, expected) in [
            (b"key".as_slice(), b"key".as_slice()),
            (b"key\n", b"key"),
            (b"key\r\n", b"key"),
            (b"key\n\n", b"key\n"),
            (b"key\r\n\r\n", b"key\r\n"),
            (b"key\r", b"key\r"),
            (b" key \n", b" key "),
            (b"\0\xff\n", b"\0\xff"),
        ] {
            let (_dir, source) = file_with(content);
            assert_eq!(read(&source).unwrap().as_bytes(), expected, "{content:?}");
        }
    }

    #[test]
    fn nothing_or_a_newline_is_empty() {
        for content in [b"".as_slice(), b"\n", b"\r\n"] {
            assert!(matches!(problem_of(content), Problem::Empty), "{content:?}");
        }
    }

    #[test]
    fn sixty_four_kib_are_read_and_a_byte_more_is_not() {
        let (_dir, source) = file_with(&[b'x'; SECRET_BYTES_MAX]);
        assert_eq!(read(&source).unwrap().as_bytes().len(), SECRET_BYTES_MAX);
        assert!(matches!(
            problem_of(&[b'x'; SECRET_BYTES_MAX + 1]),
            Problem::TooLarge
        ));
    }

    #[test]
    fn a_missing_file_is_named_with_the_systems_words_and_what_to_do() {
        let missing = Source::File("/nonexistent/secret".into());
        let told = read(&missing).unwrap_err().to_string();
        assert!(
            told.starts_with("/nonexistent/secret: cannot be read: No such file"),
            "{told}"
        );
        assert!(told.contains("wardent secret new"), "{told}");
    }

    #[test]
    fn directories_devices_and_pipes_are_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RUSR).unwrap();
        for path in [dir.path(), Path::new("/dev/zero"), &pipe] {
            let refusal = read(&Source::File(path.to_owned())).unwrap_err();
            assert!(matches!(refusal.problem, Problem::NotAFile), "{refusal}");
        }
    }

    #[test]
    fn a_variable_is_read_like_a_file() {
        let variable = |name: &str| (name == "KEY").then(|| OsString::from("value\n"));
        let set = read_from(&Source::Env("KEY".to_owned()), variable);
        assert_eq!(set.unwrap().as_bytes(), b"value");
        let unset = read_from(&Source::Env("OTHER".to_owned()), variable);
        assert!(matches!(unset.unwrap_err(), Problem::NotSet));
    }

    #[test]
    fn an_oversized_variable_is_refused() {
        let long = |_: &str| Some(OsString::from("x".repeat(SECRET_BYTES_MAX + 1)));
        let refusal = read_from(&Source::Env("KEY".to_owned()), long).unwrap_err();
        assert!(matches!(refusal, Problem::TooLarge));
    }

    #[test]
    fn a_credential_is_a_file_in_systemds_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("k1"), "value\n").unwrap();
        let variable = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| dir.path().into());
        let read_named = |name: &str| read_from(&Source::Credential(name.to_owned()), variable);
        assert_eq!(read_named("k1").unwrap().as_bytes(), b"value");
        assert!(matches!(
            read_named("k2").unwrap_err(),
            Problem::Unreadable(_)
        ));
        for escape in ["", ".", "..", "../k1", "/etc/passwd", "a/b"] {
            let refusal = read_named(escape).unwrap_err();
            assert!(matches!(refusal, Problem::CredentialName), "{escape:?}");
        }
    }

    #[test]
    fn without_systemd_there_are_no_credentials() {
        let refusal = read_from(&Source::Credential("k1".to_owned()), |_| None).unwrap_err();
        assert!(matches!(refusal, Problem::NoCredentials));
    }
}
