//! ApiVersions (key 18): which APIs are spoken, and in which versions (KIP-35, KIP-511).

use super::super::{
    broker::Call,
    error::ErrorCode,
    table::{APIS, Row},
    wire::{Malformed, Reader, Writer},
};

/// Asks for them.
#[derive(Debug)]
pub(super) struct Request {
    /// What the client is, from version 3 on.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "it is read past; the session goes by the client id"
        )
    )]
    pub(super) software: Option<(String, String)>,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let software = match from.version() {
            3.. => Some((from.string()?, from.string()?)),
            _ => None,
        };
        from.tags()?;
        Ok(Self { software })
    }
}

/// Tells them.
#[derive(Debug)]
pub(super) struct Response {
    error: ErrorCode,
}

impl Response {
    /// For a version that is not spoken; to be written in version 0.
    pub(super) fn unsupported() -> Self {
        Self {
            error: ErrorCode::UnsupportedVersion,
        }
    }

    pub(super) fn write(&self, to: &mut Writer) {
        let version = to.version();
        to.i16(self.error.code());
        to.array(APIS, write_row);
        if version >= 1 {
            // Throttle time.
            to.i32(0);
        }
        to.tags();
    }
}

fn write_row(to: &mut Writer, row: &Row) {
    to.i16(row.key.code());
    to.i16(row.oldest);
    to.i16(row.newest);
    to.tags();
}

#[expect(clippy::unused_async, reason = "as all APIs are")]
pub(super) async fn answer(_request: Request, _call: &Call<'_>) -> Response {
    Response {
        error: ErrorCode::None,
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
    use kafka_protocol::protocol::StrBytes;

    use super::*;
    use crate::kafka::{table::Key, wire::oracle};

    #[test]
    fn requests_are_read() {
        for version in oracle::versions(Key::ApiVersions) {
            let theirs = match version {
                3.. => ApiVersionsRequest::default()
                    .with_client_software_name(StrBytes::from_static_str("kcat"))
                    .with_client_software_version(StrBytes::from_static_str("1.7.1")),
                _ => ApiVersionsRequest::default(),
            };
            let ours = oracle::read(Key::ApiVersions, version, &theirs, Request::read);
            let software = (version >= 3).then(|| ("kcat".to_owned(), "1.7.1".to_owned()));
            assert_eq!(ours.software, software);
        }
    }

    #[test]
    fn the_answer_is_the_table() {
        let answer = Response {
            error: ErrorCode::None,
        };
        for version in oracle::versions(Key::ApiVersions) {
            let write = |to: &mut Writer| answer.write(to);
            let told: ApiVersionsResponse = oracle::written(Key::ApiVersions, version, write);
            assert_eq!(told.error_code, 0);
            let told = told.api_keys.iter();
            let told: Vec<_> = told
                .map(|api| (api.api_key, api.min_version, api.max_version))
                .collect();
            let table = APIS
                .iter()
                .map(|row| (row.key.code(), row.oldest, row.newest));
            assert_eq!(told, table.collect::<Vec<_>>());
        }
    }
}
