//! InitProducerId (key 22): an id for an idempotent producer (KIP-98, KIP-360).
//!
//! Whoever asks gets a new one, in epoch 0, also who has one and would go on with it: Kafka does so where there
//! is no transactional id. Transactions are not supported, and who asks for them is told so at once.

use super::super::{
    auth::{Operation, Resource, ResourceType},
    broker::Call,
    error::ErrorCode,
    wire::{Malformed, Reader, Writer},
};

/// An id, please.
#[derive(Debug)]
pub(super) struct Request {
    transactional_id: Option<String>,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let transactional_id = from.nullable_string()?;
        let _timeout_ms = from.i32()?;
        if from.version() >= 3 {
            let _id = from.i64()?;
            let _epoch = from.i16()?;
        }
        from.tags()?;
        Ok(Self { transactional_id })
    }
}

/// The id.
#[derive(Debug)]
pub(super) struct Response {
    given: Result<i64, ErrorCode>,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        // Throttle time.
        to.i32(0);
        let error = self.given.err().unwrap_or(ErrorCode::None);
        to.i16(error.code());
        to.i64(self.given.unwrap_or(-1));
        to.i16(if self.given.is_ok() { 0 } else { -1 });
        to.tags();
    }
}

pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    Response {
        given: given(request, call).await,
    }
}

async fn given(request: Request, call: &Call<'_>) -> Result<i64, ErrorCode> {
    if let Some(id) = request.transactional_id {
        // Of all codes the one that clients take for final.
        tracing::info!(id = ?id, "a Kafka client asks for transactions, which are not supported");
        return Err(ErrorCode::TransactionalIdAuthorizationFailed);
    }
    let may = call.may(Operation::IdempotentWrite, Resource::Cluster)
        || call.may_somewhere(Operation::Write, ResourceType::Topic);
    if !may {
        return Err(ErrorCode::ClusterAuthorizationFailed);
    }
    let broker = call.broker;
    broker.producer_ids.next(&broker.meta).await.map_err(|not| {
        tracing::warn!("no producer id could be set aside: {not}");
        ErrorCode::CoordinatorNotAvailable
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use kafka_protocol::{
        messages::{InitProducerIdRequest, InitProducerIdResponse, TransactionalId},
        protocol::StrBytes,
    };

    use super::*;
    use crate::kafka::{rig::with_broker, table::Key, wire::oracle};

    #[test]
    fn requests_are_read_and_answers_written() {
        for version in oracle::versions(Key::InitProducerId) {
            let id = TransactionalId(StrBytes::from_static_str("t"));
            let mut theirs = InitProducerIdRequest::default()
                .with_transactional_id(Some(id))
                .with_transaction_timeout_ms(7);
            if version >= 3 {
                theirs = theirs.with_producer_id(9.into()).with_producer_epoch(2);
            }
            let ours = oracle::read(Key::InitProducerId, version, &theirs, Request::read);
            assert_eq!(ours.transactional_id.as_deref(), Some("t"));
            let response = Response { given: Ok(41) };
            let write = |to: &mut Writer| response.write(to);
            let read: InitProducerIdResponse = oracle::written(Key::InitProducerId, version, write);
            assert_eq!(
                (read.error_code, read.producer_id.0, read.producer_epoch),
                (0, 41, 0)
            );
        }
    }

    #[test]
    fn no_id_is_given_twice_and_transactions_are_refused() {
        with_broker(&[], |rig| async move {
            let mut given = HashSet::new();
            let request = InitProducerIdRequest::default().with_transactional_id(None);
            for _ in 0..1100 {
                let answer: InitProducerIdResponse =
                    rig.ask(Key::InitProducerId, 4, &request).await;
                assert_eq!((answer.error_code, answer.producer_epoch), (0, 0));
                assert!(given.insert(answer.producer_id.0));
            }
            // As another process would find it.
            let again = crate::kafka::producers::ProducerIds::default();
            let id = again.next(&rig.broker.meta).await.unwrap();
            assert!(!given.contains(&id) && id >= 2000);
            let id = TransactionalId(StrBytes::from_static_str("t"));
            let request = InitProducerIdRequest::default().with_transactional_id(Some(id));
            let answer: InitProducerIdResponse = rig.ask(Key::InitProducerId, 4, &request).await;
            assert_eq!((answer.error_code, answer.producer_id.0), (53, -1));
        });
    }
}
