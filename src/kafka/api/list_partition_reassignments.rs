//! ListPartitionReassignments (key 46): which partitions are being moved: none ever, to one broker (KIP-455).

use super::super::{
    auth::{Operation, Resource},
    broker::Call,
    error::ErrorCode,
    wire::{Malformed, Reader, Writer},
};

/// Which partitions does not matter.
#[derive(Debug)]
pub(super) struct Request;

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let _within = from.i32()?;
        from.nullable_array(|from| {
            let _name = from.string()?;
            let _partitions = from.array(Reader::i32)?;
            from.tags()
        })?;
        from.tags()?;
        Ok(Self)
    }
}

/// None.
#[derive(Debug)]
pub(super) struct Response {
    error: ErrorCode,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        // Throttle time.
        to.i32(0);
        to.i16(self.error.code());
        to.nullable_string(None);
        to.array::<()>(&[], |_, ()| {});
        to.tags();
    }
}

#[expect(clippy::unused_async, reason = "as all APIs are")]
pub(super) async fn answer(_request: Request, call: &Call<'_>) -> Response {
    Response {
        error: match call.may(Operation::Describe, Resource::Cluster) {
            true => ErrorCode::None,
            false => ErrorCode::ClusterAuthorizationFailed,
        },
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, TopicName,
            list_partition_reassignments_request::ListPartitionReassignmentsTopics,
        },
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{
        table::Key,
        topics::rig::{Rig, run},
        wire::oracle,
    };

    #[test]
    fn nothing_is_being_moved() {
        run(|rig: Rig| async move {
            let topic = ListPartitionReassignmentsTopics::default()
                .with_name(TopicName(StrBytes::from_static_str("orders")))
                .with_partition_indexes(vec![0, 3]);
            let key = Key::ListPartitionReassignments;
            for topics in [None, Some(vec![topic])] {
                let theirs = ListPartitionReassignmentsRequest::default().with_topics(topics);
                let ours = oracle::read(key, 0, &theirs, Request::read);
                let told = answer(ours, &rig.call(0)).await;
                let write = |to: &mut Writer| told.write(to);
                let read: ListPartitionReassignmentsResponse = oracle::written(key, 0, write);
                assert_eq!((read.error_code, read.topics.len()), (0, 0));
            }
        });
    }
}
