//! The token that acts over the listener need: whoever has it may do what the admin socket may.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use data_encoding::{BASE64, HEXLOWER};
use http::{HeaderMap, header};
use rustix::{fs::OFlags, process::geteuid};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::secret::{SECRET_BYTES_MAX, SecretBytes};

/// Whoever else has one of these may not: read it, where he is anybody; write it.
const MODE_OF_OTHERS: u32 = 0o026;

/// Random bytes of a token that is made here; it is spelled in hexadecimal digits.
const RANDOM_BYTES: usize = 32;

/// The token.
#[derive(Debug, Clone)]
pub struct Token(SecretBytes);

/// What a request says of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// Nothing.
    Nothing,
    /// The token.
    Token,
    /// Something else.
    Wrong,
}

impl From<SecretBytes> for Token {
    fn from(bytes: SecretBytes) -> Self {
        Self(bytes)
    }
}

impl Token {
    /// The token of the file at `path`, which is made where there is none, for its owner's eyes alone.
    ///
    /// # Errors
    /// When there is no randomness, or the file cannot be read or made, is another's or open to others, or holds no
    /// token.
    pub fn kept_at(path: &Path) -> io::Result<Self> {
        match Self::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(path),
            read => read,
        }
    }

    fn read(path: &Path) -> io::Result<Self> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)?;
        is_kept_well(&file.metadata()?)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX));
        file.take(SECRET_BYTES_MAX as u64).read_to_end(&mut bytes)?;
        let token = SecretBytes::from(bytes.trim_ascii_end().to_vec());
        token
            .long_enough("admin.token")
            .map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad.to_string()))?;
        Ok(Self(token))
    }

    fn make(path: &Path) -> io::Result<Self> {
        let mut random = Zeroizing::new([0; RANDOM_BYTES]);
        getrandom::fill(&mut *random).map_err(io::Error::other)?;
        let text = Zeroizing::new(HEXLOWER.encode(&*random));
        let fresh = path.with_extension("token.new");
        // One that an earlier try has left may be readable by others.
        let _ = fs::remove_file(&fresh);
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        Ok(Self(SecretBytes::from(text.as_bytes().to_vec())))
    }

    /// What a request says of it: `Authorization: Bearer`, or `Basic` with it as the password (RFC 6750
    /// section 2.1, RFC 7617), whoever the user.
    pub(super) fn shown_in(&self, headers: &HeaderMap) -> Shown {
        let mut all = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (all.next(), all.next()) else {
            // Two of them are no answer to who it is.
            return match headers.contains_key(header::AUTHORIZATION) {
                true => Shown::Wrong,
                false => Shown::Nothing,
            };
        };
        match credentials(value.as_bytes()) {
            // In constant time, but for the length.
            Some(shown) if bool::from(shown.ct_eq(self.0.as_bytes())) => Shown::Token,
            Some(_) | None => Shown::Wrong,
        }
    }
}

/// Whether the file is one that only Wardent's user and root write, and that not everybody reads.
fn is_kept_well(file: &fs::Metadata) -> io::Result<()> {
    let refused = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    if !file.is_file() {
        return refused("it is not a regular file".to_owned());
    }
    let (owner, mode) = (file.uid(), file.mode() & 0o777);
    if owner != geteuid().as_raw() && owner != 0 {
        return refused(format!("it belongs to the user {owner}"));
    }
    if mode & MODE_OF_OTHERS != 0 {
        return refused(format!("its mode is {mode:04o}: chmod 0600"));
    }
    Ok(())
}

/// The secret of an `Authorization`.
fn credentials(value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = value.split_at_checked(space)?;
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(Zeroizing::new(rest.to_vec()));
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let decoded = Zeroizing::new(BASE64.decode(rest).ok()?);
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some(Zeroizing::new(decoded.get(colon + 1..)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use http::HeaderValue;

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn shown(values: &[&str]) -> Shown {
        let token = Token(SecretBytes::from(TOKEN.as_bytes().to_vec()));
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        token.shown_in(&headers)
    }

    #[test]
    fn both_ways_to_show_it_are_taken() {
        let basic = |text: &str| format!("Basic {}", BASE64.encode(text.as_bytes()));
        assert_eq!(shown(&[]), Shown::Nothing);
        assert_eq!(shown(&[&format!("Bearer {TOKEN}")]), Shown::Token);
        assert_eq!(shown(&[&format!("bearer  {TOKEN} ")]), Shown::Token);
        assert_eq!(shown(&[&basic(&format!("admin:{TOKEN}"))]), Shown::Token);
        assert_eq!(shown(&[&basic(&format!(":{TOKEN}"))]), Shown::Token);
        for wrong in [
            "Bearer",
            "Bearer x",
            TOKEN,
            &format!("Digest {TOKEN}"),
            &format!("Bearer {TOKEN}0"),
            &basic(TOKEN),
            "Basic %%%",
        ] {
            assert_eq!(shown(&[wrong]), Shown::Wrong, "{wrong}");
        }
        let right = format!("Bearer {TOKEN}");
        assert_eq!(shown(&[&right, &right]), Shown::Wrong);
    }

    #[test]
    fn it_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.token");
        let made = Token::kept_at(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Token::kept_at(&path).unwrap();
        assert_eq!(made.0.as_bytes(), again.0.as_bytes());
        assert_eq!(made.0.as_bytes().len(), 64);
        fs::write(&path, "short\n").unwrap();
        assert!(Token::kept_at(&path).is_err());
    }

    #[test]
    fn one_that_others_might_have_laid_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.token");
        let refused = || Token::kept_at(&path).unwrap_err().to_string();
        Token::kept_at(&path).unwrap();
        for (mode, is_fine) in [
            (0o600, true),
            (0o640, true),
            (0o400, true),
            (0o644, false),
            (0o620, false),
            (0o602, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Token::kept_at(&path).is_ok(), is_fine, "{mode:o}");
        }
        let elsewhere = dir.path().join("elsewhere");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        refused();
        fs::remove_file(&path).unwrap();
        // Nobody writes to it; it is not waited for.
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        assert_eq!(refused(), "it is not a regular file");
    }
}
