//! PLAIN (RFC 4616): a name and a password as they are, so only ever inside TLS.

use zeroize::Zeroizing;

/// Bytes of a message at most.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// What a client says of itself.
pub(crate) struct Said {
    pub(crate) user: String,
    pub(crate) password: Zeroizing<Vec<u8>>,
}

/// Reads `[authzid] NUL user NUL password`; none where it is something else, or somebody wants to act
/// as another.
pub(crate) fn read(message: &[u8]) -> Option<Said> {
    if message.len() > MESSAGE_BYTES_MAX {
        return None;
    }
    let mut parts = message.split(|&byte| byte == 0);
    let (authzid, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    let is_another = !authzid.is_empty() && authzid != user;
    if parts.next().is_some() || is_another || user.is_empty() || password.is_empty() {
        return None;
    }
    Some(Said {
        user: str::from_utf8(user).ok()?.to_owned(),
        password: Zeroizing::new(password.to_vec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_password_are_read() {
        for message in [&b"\0me\0secret"[..], b"me\0me\0secret"] {
            let said = read(message).unwrap();
            assert_eq!(
                (said.user.as_str(), said.password.as_slice()),
                ("me", &b"secret"[..])
            );
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for message in [
            &b""[..],
            b"me\0secret",
            b"other\0me\0secret",
            b"\0\0secret",
            b"\0me\0",
            b"\0me\0secret\0",
            b"\0\xff\0secret",
        ] {
            assert!(read(message).is_none(), "{}", message.escape_ascii());
        }
    }
}
