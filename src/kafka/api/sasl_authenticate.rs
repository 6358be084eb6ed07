//! SaslAuthenticate (key 36): a message of the mechanism that was chosen (KIP-152, KIP-368).

use bytes::Bytes;

use super::super::{
    broker::Call,
    counters::Cut,
    error::ErrorCode,
    login::{self, Turn},
    wire::{Malformed, Reader, Writer},
};

/// A message.
#[derive(Debug)]
pub(super) struct Request {
    message: Bytes,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let message = from.bytes()?;
        from.tags()?;
        Ok(Self { message })
    }
}

/// What it is answered with.
#[derive(Debug)]
pub(super) struct Response {
    error: ErrorCode,
    why: Option<&'static str>,
    message: Vec<u8>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        let version = to.version();
        to.i16(self.error.code());
        to.nullable_string(self.why);
        to.bytes(&self.message);
        if version >= 1 {
            // A session lasts as long as its connection.
            to.i64(0);
        }
        to.tags();
    }

    fn refused(error: ErrorCode, why: &'static str) -> Self {
        Self {
            error,
            why: Some(why),
            message: Vec::new(),
        }
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    match login::turn(call, &request.message).await {
        Turn::Answer(message) => Response {
            error: ErrorCode::None,
            why: None,
            message,
        },
        Turn::Refused => Response::refused(
            ErrorCode::SaslAuthenticationFailed,
            "Authentication failed: no such user, or not that password, or too many attempts",
        ),
        Turn::Illegal => {
            if !call.session.login.borrow().is_open() {
                call.session.ending.set(Some(Cut::Login));
            }
            Response::refused(
                ErrorCode::IllegalSaslState,
                "SaslHandshake comes first, and once",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{SaslAuthenticateRequest, SaslAuthenticateResponse};

    use super::*;
    use crate::kafka::{table::Key, wire::oracle};

    #[test]
    fn every_version_is_read_and_written() {
        for version in oracle::versions(Key::SaslAuthenticate) {
            let theirs =
                SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"n,,"));
            let ours = oracle::read(Key::SaslAuthenticate, version, &theirs, Request::read);
            assert_eq!(ours.message, b"n,,".as_slice());
            let answer = Response {
                error: ErrorCode::SaslAuthenticationFailed,
                why: Some("no"),
                message: b"e=x".to_vec(),
            };
            let told: SaslAuthenticateResponse =
                oracle::written(Key::SaslAuthenticate, version, |to| answer.write(to));
            assert_eq!(told.error_code, 58);
            assert_eq!(told.error_message.as_deref(), Some("no"));
            assert_eq!(told.auth_bytes, b"e=x".as_slice());
            assert_eq!(told.session_lifetime_ms, 0);
        }
    }
}
