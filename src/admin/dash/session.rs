//! Who has shown the token to the form: sessions, in memory alone.
//!
//! A browser holds a random name of its session in a cookie that no script sees and no other site has sent
//! (`HttpOnly`, `SameSite=Strict`; RFC 6265bis); only the name's hash is kept here. Forms carry a second secret,
//! so that a cookie alone does nothing.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use data_encoding::HEXLOWER;
use http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The cookie's name.
const COOKIE: &str = "wardent_session";

/// How long a session lasts, in seconds: a day's work.
pub(super) const LASTS_S: u64 = 12 * 3_600;

/// Sessions at once; the oldest goes.
const SESSIONS_MAX: usize = 32;

/// Wrong tokens within a minute, from which on the next is answered late.
const WRONG_MAX: usize = 5;
const MINUTE_MS: u64 = 60_000;

/// Random bytes of a name, and of a form's secret.
const RANDOM_BYTES: usize = 32;

/// Sessions, and what was guessed lately. Written and read by tasks of the admin side alone.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    sessions: VecDeque<Session>,
    /// When tokens were wrong, in milliseconds of the monotonic clock.
    wrong_ms: VecDeque<u64>,
}

#[derive(Debug)]
struct Session {
    seen: Seen,
    until_ms: u64,
    said: Option<Said>,
}

/// A session that a request belongs to.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// The hash of its name.
    digest: [u8; 32],
    /// What its forms carry.
    pub(super) form: String,
}

/// What came of an act, for the next page to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// Whether it was done.
    pub(super) is_done: bool,
    /// In words.
    pub(super) words: String,
}

impl Sessions {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one, and gives the cookie that names it.
    ///
    /// # Errors
    /// When there is no randomness.
    pub(super) fn begin(&self, now_ms: u64, is_secure: bool) -> Result<String, getrandom::Error> {
        let (name, form) = (random()?, random()?);
        let session = Session {
            seen: Seen {
                digest: digest(&name),
                form,
            },
            until_ms: now_ms + LASTS_S * 1_000,
            said: None,
        };
        let mut known = self.known();
        if known.sessions.len() >= SESSIONS_MAX {
            known.sessions.pop_front();
        }
        known.sessions.push_back(session);
        Ok(cookie(&name, LASTS_S, is_secure))
    }

    /// The session that a request names, if it lasts.
    pub(super) fn find(&self, headers: &HeaderMap, now_ms: u64) -> Option<Seen> {
        let digest = digest(name_in(headers)?);
        let mut known = self.known();
        known.sessions.retain(|session| session.until_ms > now_ms);
        let mut all = known.sessions.iter();
        let found = all.find(|session| bool::from(session.seen.digest.ct_eq(&digest)))?;
        Some(found.seen.clone())
    }

    /// Ends a session, and gives the cookie that forgets it.
    pub(super) fn end(&self, seen: &Seen) -> String {
        let is_other = |session: &Session| session.seen.digest != seen.digest;
        self.known().sessions.retain(is_other);
        cookie("", 0, false)
    }

    /// Keeps what the next page of a session says.
    pub(super) fn say(&self, seen: &Seen, said: Said) {
        let mut known = self.known();
        let mut all = known.sessions.iter_mut();
        if let Some(own) = all.find(|session| session.seen.digest == seen.digest) {
            own.said = Some(said);
        }
    }

    /// What this page is to say; once.
    pub(super) fn said(&self, seen: &Seen) -> Option<Said> {
        let mut known = self.known();
        let mut all = known.sessions.iter_mut();
        let own = all.find(|session| session.seen.digest == seen.digest)?;
        own.said.take()
    }

    /// Takes note of a wrong token, and says whether there were so many that the answer should be late.
    pub(super) fn was_wrong(&self, now_ms: u64) -> bool {
        let mut known = self.known();
        let since_ms = now_ms.saturating_sub(MINUTE_MS);
        known.wrong_ms.retain(|&wrong_ms| wrong_ms >= since_ms);
        let is_late = known.wrong_ms.len() >= WRONG_MAX;
        if is_late {
            known.wrong_ms.pop_front();
        }
        known.wrong_ms.push_back(now_ms);
        is_late
    }
}

impl Seen {
    /// Whether a form is one that this session was given.
    pub(super) fn gave(&self, form: &str) -> bool {
        self.form.as_bytes().ct_eq(form.as_bytes()).into()
    }
}

/// `Secure` would keep the cookie from a listener without TLS, which on loopback is the usual one.
fn cookie(name: &str, lasts_s: u64, is_secure: bool) -> String {
    let secure = if is_secure { "; Secure" } else { "" };
    format!("{COOKIE}={name}; Path=/; Max-Age={lasts_s}; HttpOnly; SameSite=Strict{secure}")
}

fn random() -> Result<String, getrandom::Error> {
    let mut bytes = [0; RANDOM_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(HEXLOWER.encode(&bytes))
}

fn digest(name: &str) -> [u8; 32] {
    Sha256::digest(name.as_bytes()).into()
}

/// The name in the cookies of a request; none where there are two, of which one is somebody else's.
fn name_in(headers: &HeaderMap) -> Option<&str> {
    let fields = headers.get_all(header::COOKIE).iter();
    let pairs = fields.filter_map(|field| field.to_str().ok());
    let pairs = pairs.flat_map(|field| field.split(';'));
    let mut names = pairs.filter_map(|pair| {
        let (own, name) = pair.trim().split_once('=')?;
        (own == COOKIE).then_some(name)
    });
    let name = names.next()?;
    names.next().is_none().then_some(name)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(cookies: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(header::COOKIE, HeaderValue::from_str(cookie).unwrap());
        }
        headers
    }

    fn pair(set: &str) -> &str {
        set.split(';').next().unwrap()
    }

    #[test]
    fn a_session_lasts_for_its_time_and_until_it_is_ended() {
        let sessions = Sessions::default();
        let set = sessions.begin(1_000, false).unwrap();
        assert!(set.ends_with("; HttpOnly; SameSite=Strict"), "{set}");
        let own = headers(&["a=b; c", pair(&set)]);
        let seen = sessions.find(&own, 2_000).unwrap();
        assert!(seen.gave(&seen.form.clone()) && !seen.gave("") && !seen.gave("x"));
        assert!(sessions.find(&own, 1_000 + LASTS_S * 1_000).is_none());
        let set = sessions.begin(1_000, true).unwrap();
        assert!(set.ends_with("; Secure"), "{set}");
        let own = headers(&[pair(&set)]);
        let seen = sessions.find(&own, 2_000).unwrap();
        assert!(sessions.end(&seen).contains("Max-Age=0"));
        assert!(sessions.find(&own, 2_000).is_none());
    }

    #[test]
    fn nothing_but_the_name_that_was_given_is_taken() {
        let sessions = Sessions::default();
        let set = sessions.begin(0, false).unwrap();
        let own = pair(&set);
        for wrong in [
            &[][..],
            &["wardent_session="],
            &["wardent_session"],
            &["wardent_session=0"],
            &["x", own, own],
            &[&own.to_uppercase()],
        ] {
            assert!(sessions.find(&headers(wrong), 1).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn there_are_so_many_and_the_oldest_goes() {
        let sessions = Sessions::default();
        let first = sessions.begin(0, false).unwrap();
        let second = sessions.begin(0, false).unwrap();
        for _ in 2..=SESSIONS_MAX {
            sessions.begin(0, false).unwrap();
        }
        assert!(sessions.find(&headers(&[pair(&first)]), 1).is_none());
        assert!(sessions.find(&headers(&[pair(&second)]), 1).is_some());
    }

    #[test]
    fn what_came_of_an_act_is_said_once() {
        let sessions = Sessions::default();
        let set = sessions.begin(0, false).unwrap();
        let seen = sessions.find(&headers(&[pair(&set)]), 1).unwrap();
        let said = Said {
            is_done: true,
            words: "done".to_owned(),
        };
        sessions.say(&seen, said.clone());
        assert_eq!(sessions.said(&seen), Some(said));
        assert_eq!(sessions.said(&seen), None);
    }

    #[test]
    fn who_guesses_waits_from_the_sixth_time_in_a_minute_on() {
        let sessions = Sessions::default();
        assert!((0..5).all(|nth| !sessions.was_wrong(nth)));
        assert!(sessions.was_wrong(6));
        assert!(sessions.was_wrong(7));
        assert!(!sessions.was_wrong(100_000));
    }
}
