//! FindCoordinator (key 10): who coordinates a group. It is always this broker (KIP-699).

use super::super::{
    auth::{Operation, Resource},
    broker::{Call, NODE_ID},
    error::ErrorCode,
    wire::{Malformed, Reader, Writer},
};

/// Kinds of keys.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// Groups or transactional ids.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    kind: i8,
    keys: Vec<String>,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let version = from.version();
        let mut keys = Vec::new();
        if version <= 3 {
            keys.push(from.string()?);
        }
        let kind = if version >= 1 { from.i8()? } else { GROUP };
        if version >= 4 {
            keys = from.array(Reader::string)?;
        }
        from.tags()?;
        Ok(Self { kind, keys })
    }
}

/// Who coordinates each of them.
#[derive(Debug)]
pub(super) struct Response {
    host: String,
    port: u16,
    /// Keys, and why there is no coordinator.
    found: Vec<(String, ErrorCode)>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        let version = to.version();
        if version >= 1 {
            // Throttle time.
            to.i32(0);
        }
        if version >= 4 {
            to.array(&self.found, |to, (key, error)| {
                to.string(key);
                self.write_node(to, *error);
                to.i16(error.code());
                to.nullable_string(message(*error));
                to.tags();
            });
        } else {
            let error = self
                .found
                .first()
                .map_or(ErrorCode::None, |(_, error)| *error);
            to.i16(error.code());
            if version >= 1 {
                to.nullable_string(message(error));
            }
            self.write_node(to, error);
        }
        to.tags();
    }

    fn write_node(&self, to: &mut Writer, error: ErrorCode) {
        let (node, host, port) = match error == ErrorCode::None {
            true => (NODE_ID, self.host.as_str(), i32::from(self.port)),
            false => (-1, "", -1),
        };
        to.i32(node);
        to.string(host);
        to.i32(port);
    }
}

fn message(error: ErrorCode) -> Option<&'static str> {
    (error == ErrorCode::InvalidRequest).then_some("neither a group nor a transactional id")
}

#[expect(clippy::unused_async, reason = "as all APIs are")]
pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let check = |key: &str| match request.kind {
        GROUP if key.is_empty() => ErrorCode::InvalidGroupId,
        GROUP if call.may(Operation::Describe, Resource::Group(key)) => ErrorCode::None,
        GROUP => ErrorCode::GroupAuthorizationFailed,
        TRANSACTION if call.may(Operation::Describe, Resource::TransactionalId(key)) => {
            // There are no transactions here.
            ErrorCode::CoordinatorNotAvailable
        }
        TRANSACTION => ErrorCode::TransactionalIdAuthorizationFailed,
        _ => ErrorCode::InvalidRequest,
    };
    let checked = request.keys.into_iter().map(|key| {
        let error = check(&key);
        (key, error)
    });
    let settings = &call.broker.settings;
    Response {
        host: settings.host.clone(),
        port: settings.port,
        found: checked.collect(),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{FindCoordinatorRequest, FindCoordinatorResponse},
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{table::Key, wire::oracle};

    #[test]
    fn requests_are_read() {
        for version in oracle::versions(Key::FindCoordinator) {
            let key = StrBytes::from_static_str("g");
            let mut theirs = FindCoordinatorRequest::default();
            if version >= 1 {
                theirs = theirs.with_key_type(GROUP);
            }
            theirs = match version {
                4.. => theirs.with_coordinator_keys(vec![key]),
                _ => theirs.with_key(key),
            };
            let ours = oracle::read(Key::FindCoordinator, version, &theirs, Request::read);
            let keys = vec!["g".to_owned()];
            assert_eq!(ours, Request { kind: GROUP, keys });
        }
    }

    #[test]
    fn answers_are_written() {
        let response = Response {
            host: "h".to_owned(),
            port: 9092,
            found: vec![("g".to_owned(), ErrorCode::None)],
        };
        for version in oracle::versions(Key::FindCoordinator) {
            let write = |to: &mut Writer| response.write(to);
            let read: FindCoordinatorResponse =
                oracle::written(Key::FindCoordinator, version, write);
            if version >= 4 {
                let found = &read.coordinators[0];
                assert_eq!((found.key.as_str(), found.error_code), ("g", 0));
                assert_eq!(
                    (found.node_id.0, found.host.as_str(), found.port),
                    (1, "h", 9092)
                );
            } else {
                assert_eq!(
                    (read.node_id.0, read.host.as_str(), read.port),
                    (1, "h", 9092)
                );
            }
        }
    }
}
