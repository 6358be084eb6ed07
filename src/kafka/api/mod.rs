//! The APIs, a file each: what is asked, what is answered, and what happens in between.

mod alter_client_quotas;
mod alter_user_scram_credentials;
mod api_versions;
mod create_acls;
mod delete_acls;
mod describe_acls;
mod describe_client_quotas;
mod describe_user_scram_credentials;
mod fetch;
mod list_offsets;
mod metadata;
mod sasl_authenticate;
mod sasl_handshake;

use tokio::sync::SemaphorePermit;

use super::{
    broker::Call,
    error::ErrorCode,
    frame,
    table::{Key, Row},
    wire::{Malformed, Reader, Shape, Writer},
};
use crate::log::{Partition, ReadError};

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Answer<'a> {
    /// These bytes, complete.
    Bytes(Vec<u8>),
    /// The same, with the room that they take until they are sent.
    Held(Vec<u8>, SemaphorePermit<'a>),
    /// Nothing is answered, and the connection goes on.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "Produce without acknowledgement")
    )]
    Nothing,
}

macro_rules! answered {
    ($api:ident, $from:expr, $call:expr, $to:expr) => {{
        let request = $api::Request::read($from)?;
        // What follows is of a later protocol, or of nobody's.
        $from.end()?;
        let response = $api::answer(request, $call).await;
        response.write(&mut $to);
        Ok(Answer::Bytes(complete($to)))
    }};
}

/// Answers a request of a version that is advertised.
///
/// # Errors
/// When it is malformed.
pub(crate) async fn answer<'a>(
    row: &Row,
    correlation: i32,
    mut body: Reader,
    call: &Call<'a>,
) -> Result<Answer<'a>, Malformed> {
    let shape = row.shape(call.version);
    let from = &mut body;
    let mut to = Writer::new(frame::begin(correlation, row.key, shape), shape);
    match row.key {
        Key::Fetch => {
            let request = fetch::Request::read(from)?;
            from.end()?;
            let mut response = fetch::answer(request, call).await;
            response.write(&mut to);
            let bytes = complete(to);
            Ok(match response.room.take() {
                Some(room) => Answer::Held(bytes, room),
                None => Answer::Bytes(bytes),
            })
        }
        Key::ListOffsets => answered!(list_offsets, from, call, to),
        Key::Metadata => answered!(metadata, from, call, to),
        Key::SaslHandshake => answered!(sasl_handshake, from, call, to),
        Key::ApiVersions => answered!(api_versions, from, call, to),
        Key::DescribeAcls => answered!(describe_acls, from, call, to),
        Key::CreateAcls => answered!(create_acls, from, call, to),
        Key::DeleteAcls => answered!(delete_acls, from, call, to),
        Key::SaslAuthenticate => answered!(sasl_authenticate, from, call, to),
        Key::DescribeClientQuotas => answered!(describe_client_quotas, from, call, to),
        Key::AlterClientQuotas => answered!(alter_client_quotas, from, call, to),
        Key::DescribeUserScramCredentials => {
            answered!(describe_user_scram_credentials, from, call, to)
        }
        Key::AlterUserScramCredentials => {
            answered!(alter_user_scram_credentials, from, call, to)
        }
    }
}

/// The answer to who asks for versions in one that is not spoken: those that are, in the oldest one, so that
/// anybody can read it (KIP-511).
pub(crate) fn unsupported_versions(correlation: i32) -> Answer<'static> {
    let shape = Shape {
        version: 0,
        is_flexible: false,
    };
    let mut to = Writer::new(frame::begin(correlation, Key::ApiVersions, shape), shape);
    api_versions::Response::unsupported().write(&mut to);
    Answer::Bytes(complete(to))
}

fn complete(to: Writer) -> Vec<u8> {
    let mut bytes = to.into_bytes();
    frame::end(&mut bytes);
    bytes
}

/// The epoch in which the partition is led; -1 tells that none is known.
fn leader_epoch(_partition: &Partition) -> i32 {
    -1
}

/// Compares the epoch that a client goes by with that of the partition (KIP-320).
fn check_epoch(partition: &Partition, stated: i32) -> Result<(), ErrorCode> {
    let own = leader_epoch(partition);
    match stated {
        -1 => Ok(()),
        _ if own < 0 => Ok(()),
        _ if stated < own => Err(ErrorCode::FencedLeaderEpoch),
        _ if stated > own => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

/// What is told where a partition cannot be read.
fn read_failed(partition: &Partition, error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Damaged { .. } => {
            tracing::warn!("{} cannot be read for a client: {error}", partition.name());
            ErrorCode::CorruptMessage
        }
        ReadError::Io(..) => {
            tracing::warn!("{} cannot be read for a client: {error}", partition.name());
            ErrorCode::KafkaStorageError
        }
    }
}
