//! The salt of hashed addresses: 32 random bytes in a file, and others each UTC day.
//!
//! A salt that has had its day is never used again and nowhere kept, so that nobody, also who has the
//! log and the file, can tell whose a hash of an earlier day was.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use data_encoding::HEXLOWER;

use crate::{
    base::clock::Clock,
    event::{
        privacy::{SALT_BYTES, Salted},
        time::Stamps,
    },
};

/// Keeps the salt of the day.
#[derive(Debug)]
pub struct Salt {
    path: PathBuf,
    clock: Clock,
    /// The day that the salt belongs to: `2026-11-21`.
    day: String,
    salted: Arc<Salted>,
    /// The file's text, until it is written.
    unwritten: Option<String>,
}

impl Salt {
    /// Takes today's salt from the file at `path`, or makes one.
    ///
    /// # Errors
    /// When there is no randomness, or the file cannot be read or written.
    pub fn open(path: &Path, clock: Clock) -> io::Result<Self> {
        let today = day_of(&clock);
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            // No text at all is no salt of ours either.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
            Err(error) => return Err(error),
        };
        let kept = read(&text).filter(|(day, _)| *day == today);
        let mut salt = Self {
            path: path.to_owned(),
            clock,
            salted: Arc::new(Salted::with(&[0; SALT_BYTES])),
            day: String::new(),
            unwritten: None,
        };
        match kept {
            Some((day, bytes)) => {
                salt.salted.change(&bytes);
                day.clone_into(&mut salt.day);
            }
            None => salt.renew(today)?,
        }
        Ok(salt)
    }

    /// What hashes with the salt of the day.
    pub fn salted(&self) -> &Arc<Salted> {
        &self.salted
    }

    /// Makes another salt if it is another day; to be called now and then.
    ///
    /// # Errors
    /// When there is no randomness: the old salt is used on. When the file cannot be written: the new salt
    /// is used, and the next call writes it.
    pub fn turn(&mut self) -> io::Result<()> {
        let today = day_of(&self.clock);
        if today != self.day {
            self.renew(today)?;
        }
        self.write()
    }

    fn renew(&mut self, today: String) -> io::Result<()> {
        let mut bytes = [0; SALT_BYTES];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        self.salted.change(&bytes);
        self.unwritten = Some(format!("{today} {}\n", HEXLOWER.encode(&bytes)));
        self.day = today;
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(text) = &self.unwritten else {
            return Ok(());
        };
        let fresh = self.path.with_extension("new");
        // One that an earlier try has left may be readable by others.
        let _ = fs::remove_file(&fresh);
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&fresh, &self.path)?;
        self.unwritten = None;
        Ok(())
    }
}

fn day_of(clock: &Clock) -> String {
    let mut text = Vec::new();
    Stamps::default().write_rfc3339(clock.unix_ms(), &mut text);
    let text = String::from_utf8(text).unwrap_or_default();
    text.split('T').next().unwrap_or_default().to_owned()
}

fn read(text: &str) -> Option<(&str, [u8; SALT_BYTES])> {
    let (day, digits) = text.trim_end().split_once(' ')?;
    let bytes = HEXLOWER.decode(digits.as_bytes()).ok()?;
    Some((day, bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::event::privacy::Privacy;

    /// 2026-11-21T23:59:50Z.
    const LATE: u64 = 1_795_305_590_000;

    fn hash_by(salt: &Salt) -> String {
        let privacy = Privacy::Hash(Arc::clone(salt.salted()));
        privacy.of([198, 51, 100, 7].into()).to_string()
    }

    #[test]
    fn a_salt_outlives_the_process_and_not_its_day() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ip-privacy.salt");
        let clock = Clock::manual(LATE);
        let mut first = Salt::open(&path, clock.clone()).unwrap();
        let today = hash_by(&first);
        first.turn().unwrap();
        assert_eq!(hash_by(&first), today);
        assert_eq!(hash_by(&Salt::open(&path, clock.clone()).unwrap()), today);
        let before = fs::read_to_string(&path).unwrap();
        assert!(before.starts_with("2026-11-21 "), "{before}");
        clock.advance_ms(10_000);
        first.turn().unwrap();
        let tomorrow = hash_by(&first);
        assert_ne!(tomorrow, today);
        assert_eq!(
            hash_by(&Salt::open(&path, clock.clone()).unwrap()),
            tomorrow
        );
        let after = fs::read_to_string(&path).unwrap();
        assert!(after.starts_with("2026-11-22 "), "{after}");
        // A clock that is set back brings no old salt back.
        clock.set_unix_ms(LATE);
        first.turn().unwrap();
        assert!(![today, tomorrow].contains(&hash_by(&first)));
        let names = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names, 1, "nothing of an old salt is left");
    }

    #[test]
    fn its_file_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ip-privacy.salt");
        fs::write(dir.path().join("ip-privacy.new"), "left over").unwrap();
        Salt::open(&path, Clock::manual(LATE)).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_is_no_salt_gives_way_to_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ip-privacy.salt");
        for wrong in [&b""[..], b"2026-11-21", b"2026-11-21 abcd\n", b"\xff\xfe"] {
            fs::write(&path, wrong).unwrap();
            let salt = Salt::open(&path, Clock::manual(LATE)).unwrap();
            let again = Salt::open(&path, Clock::manual(LATE)).unwrap();
            assert_eq!(hash_by(&salt), hash_by(&again));
        }
    }

    #[test]
    fn a_new_salt_is_used_though_its_file_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        fs::create_dir(&home).unwrap();
        let path = home.join("ip-privacy.salt");
        let clock = Clock::manual(LATE);
        let mut salt = Salt::open(&path, clock.clone()).unwrap();
        let today = hash_by(&salt);
        fs::remove_dir_all(&home).unwrap();
        clock.advance_ms(10_000);
        salt.turn().unwrap_err();
        let tomorrow = hash_by(&salt);
        assert_ne!(tomorrow, today);
        fs::create_dir(&home).unwrap();
        salt.turn().unwrap();
        assert_eq!(hash_by(&salt), tomorrow);
        assert_eq!(hash_by(&Salt::open(&path, clock).unwrap()), tomorrow);
    }
}
