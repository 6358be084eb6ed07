//! Heartbeat (key 12): a member lives, and hears whether it is to join again.

use super::super::{
    auth::{Operation, Resource},
    broker::Call,
    error::ErrorCode,
    group::{Beat, Who},
    wire::{Malformed, Reader, Writer},
};

/// Who lives.
#[derive(Debug)]
pub(super) struct Request(Beat);

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let group = from.string()?;
        let generation = from.i32()?;
        let member = from.string()?;
        let instance = match from.version() {
            3.. => from.nullable_string()?,
            _ => None,
        };
        from.tags()?;
        Ok(Self(Beat {
            group,
            generation,
            who: Who { member, instance },
        }))
    }
}

/// What it is to do.
#[derive(Debug)]
pub(super) struct Response(ErrorCode);

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        if to.version() >= 1 {
            // Throttle time.
            to.i32(0);
        }
        to.i16(self.0.code());
        to.tags();
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let Request(beat) = request;
    Response(
        match call.may(Operation::Read, Resource::Group(&beat.group)) {
            true => call.broker.groups.heartbeat(beat).await,
            false => ErrorCode::GroupAuthorizationFailed,
        },
    )
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{GroupId, HeartbeatRequest, HeartbeatResponse},
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{table::Key, wire::oracle};

    #[test]
    fn requests_are_read_and_answers_written() {
        for version in oracle::versions(Key::Heartbeat) {
            let text = StrBytes::from_static_str;
            let mut theirs = HeartbeatRequest::default()
                .with_group_id(GroupId(text("g")))
                .with_generation_id(7)
                .with_member_id(text("m"));
            if version >= 3 {
                theirs = theirs.with_group_instance_id(Some(text("i")));
            }
            let Request(ours) = oracle::read(Key::Heartbeat, version, &theirs, Request::read);
            let expected = Beat {
                group: "g".to_owned(),
                generation: 7,
                who: Who {
                    member: "m".to_owned(),
                    instance: (version >= 3).then(|| "i".to_owned()),
                },
            };
            assert_eq!(ours, expected);
            let write = |to: &mut Writer| Response(ErrorCode::RebalanceInProgress).write(to);
            let read: HeartbeatResponse = oracle::written(Key::Heartbeat, version, write);
            assert_eq!(read.error_code, 27);
        }
    }
}
