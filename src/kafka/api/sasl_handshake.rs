//! SaslHandshake (key 17): by which mechanism a client wants to prove who it is (KIP-43, KIP-152).

use super::super::{
    broker::Call,
    counters::Cut,
    error::ErrorCode,
    login,
    wire::{Malformed, Reader, Writer},
};

/// Names it.
#[derive(Debug)]
pub(super) struct Request {
    mechanism: String,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            mechanism: from.string()?,
        })
    }
}

/// Tells which there are.
#[derive(Debug)]
pub(super) struct Response {
    error: ErrorCode,
    mechanisms: Vec<&'static str>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        to.i16(self.error.code());
        to.array(&self.mechanisms, |to, name| to.string(name));
    }
}

#[expect(clippy::unused_async, reason = "as all APIs are")]
pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let session = call.session;
    let offered = || call.broker.access.mechanisms(session.is_tls);
    let wanted = offered().find(|mechanism| mechanism.name() == request.mechanism);
    let is_raw = call.version == 0;
    let error = match wanted.map(|mechanism| login::choose(call, mechanism, is_raw)) {
        Some(Ok(())) => ErrorCode::None,
        None if !session.login.borrow().is_open() => {
            session.ending.set(Some(Cut::Login));
            ErrorCode::UnsupportedSaslMechanism
        }
        None | Some(Err(())) => ErrorCode::IllegalSaslState,
    };
    Response {
        error,
        mechanisms: offered().map(|mechanism| mechanism.name()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{SaslHandshakeRequest, SaslHandshakeResponse},
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{table::Key, wire::oracle};

    #[test]
    fn every_version_is_read_and_written() {
        for version in oracle::versions(Key::SaslHandshake) {
            let theirs = SaslHandshakeRequest::default()
                .with_mechanism(StrBytes::from_static_str("SCRAM-SHA-256"));
            let ours = oracle::read(Key::SaslHandshake, version, &theirs, Request::read);
            assert_eq!(ours.mechanism, "SCRAM-SHA-256");
            let answer = Response {
                error: ErrorCode::UnsupportedSaslMechanism,
                mechanisms: vec!["PLAIN", "SCRAM-SHA-512"],
            };
            let told: SaslHandshakeResponse =
                oracle::written(Key::SaslHandshake, version, |to| answer.write(to));
            assert_eq!(told.error_code, 33);
            let told: Vec<_> = told.mechanisms.iter().map(|name| name.as_str()).collect();
            assert_eq!(told, ["PLAIN", "SCRAM-SHA-512"]);
        }
    }
}
