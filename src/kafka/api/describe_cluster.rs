//! DescribeCluster (key 60): who there is: this one broker (KIP-700, KIP-919).

use super::super::{
    auth::Resource,
    broker::{Call, NODE_ID},
    error::ErrorCode,
    wire::{Malformed, Reader, Writer},
};

/// What is told of rights where nobody asked.
const NOT_ASKED: i32 = i32::MIN;

/// Whose addresses are asked for, as Kafka numbers them.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

#[derive(Debug)]
pub(super) struct Request {
    with_rights: bool,
    endpoints: i8,
}

impl Request {
    pub(super) fn read(from: &mut Reader) -> Result<Self, Malformed> {
        let with_rights = from.bool()?;
        let endpoints = match from.version() {
            1.. => from.i8()?,
            _ => BROKERS,
        };
        from.tags()?;
        Ok(Self {
            with_rights,
            endpoints,
        })
    }
}

/// This broker.
#[derive(Debug)]
pub(super) struct Response {
    error: ErrorCode,
    cluster_id: String,
    host: String,
    port: u16,
    rights: i32,
}

impl Response {
    pub(super) fn write(&self, to: &mut Writer) {
        // Throttle time.
        to.i32(0);
        to.i16(self.error.code());
        let is_refused = self.error != ErrorCode::None;
        to.nullable_string(is_refused.then_some("brokers answer here"));
        if to.version() >= 1 {
            to.i8(BROKERS);
        }
        to.string(&self.cluster_id);
        // Controller.
        to.i32(NODE_ID);
        let brokers: &[()] = if is_refused { &[] } else { &[()] };
        to.array(brokers, |to, ()| {
            to.i32(NODE_ID);
            to.string(&self.host);
            to.i32(self.port.into());
            // No rack.
            to.nullable_string(None);
            to.tags();
        });
        to.i32(self.rights);
        to.tags();
    }
}

#[expect(clippy::unused_async, reason = "as all APIs are")]
pub(super) async fn answer(request: Request, call: &Call<'_>) -> Response {
    let settings = &call.broker.settings;
    Response {
        error: match request.endpoints {
            BROKERS => ErrorCode::None,
            CONTROLLERS => ErrorCode::MismatchedEndpointType,
            _ => ErrorCode::UnsupportedEndpointType,
        },
        cluster_id: call.broker.log.meta().cluster_id.clone(),
        host: settings.host.clone(),
        port: settings.port,
        rights: match request.with_rights {
            true => call.bits(Resource::Cluster),
            false => NOT_ASKED,
        },
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};

    use super::*;
    use crate::kafka::{
        table::Key,
        topics::rig::{Rig, run},
        wire::oracle,
    };

    #[test]
    fn requests_are_read() {
        for version in oracle::versions(Key::DescribeCluster) {
            let theirs = DescribeClusterRequest::default()
                .with_include_cluster_authorized_operations(true)
                .with_endpoint_type(if version >= 1 { 2 } else { 1 });
            let ours = oracle::read(Key::DescribeCluster, version, &theirs, Request::read);
            assert!(ours.with_rights);
            assert_eq!(ours.endpoints, if version >= 1 { 2 } else { 1 });
        }
    }

    #[test]
    fn the_one_broker_is_told_to_who_asks_for_brokers() {
        run(|rig: Rig| async move {
            for version in oracle::versions(Key::DescribeCluster) {
                for (endpoints, code) in [(1, 0), (2, 114), (3, 115)] {
                    let request = Request {
                        with_rights: endpoints == 1,
                        endpoints,
                    };
                    let told = answer(request, &rig.call(version)).await;
                    let write = |to: &mut Writer| told.write(to);
                    let read: DescribeClusterResponse =
                        oracle::written(Key::DescribeCluster, version, write);
                    assert_eq!(read.error_code, code);
                    assert_eq!(read.cluster_id.as_str(), rig.log().meta().cluster_id);
                    assert_eq!(read.controller_id.0, 1);
                    let addresses: Vec<_> = read.brokers.iter().map(|one| one.port).collect();
                    assert_eq!(addresses, [9092][..usize::from(code == 0)]);
                    let has_rights = read.cluster_authorized_operations != NOT_ASKED;
                    assert_eq!(has_rights, endpoints == 1);
                }
            }
        });
    }
}
