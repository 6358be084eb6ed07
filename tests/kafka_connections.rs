//! A crowd at the Kafka listener: those beyond the bound are turned away, and requests do not notice.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
};

use support::{
    origin::Origin,
    time::{self, PATIENCE},
    wardent::Wardent,
};
use wardent::base::net::Address;

/// Connections that one address may have.
const FROM_ONE_ADDRESS: usize = 256;

/// ApiVersions of version 0, without a client id, and the correlation 7.
const ASKS_VERSIONS: &[u8] = b"\0\0\0\x0a\0\x12\0\0\0\0\0\x07\xff\xff";

/// Whether the listener answers on this connection; it has ended it if not.
fn is_served(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = [0; 8];
    match stream
        .write_all(ASKS_VERSIONS)
        .and_then(|()| stream.read_exact(&mut answer))
    {
        Ok(()) => answer.ends_with(&[0, 0, 0, 7]),
        Err(error) => {
            let ended = [
                ErrorKind::UnexpectedEof,
                ErrorKind::ConnectionReset,
                ErrorKind::BrokenPipe,
            ];
            assert!(ended.contains(&error.kind()), "{error}");
            false
        }
    }
}

#[test]
fn a_crowd_is_turned_away_and_requests_do_not_notice() {
    let origin = Origin::echo();
    let wardent = Wardent::before(&origin);
    let Address::Tcp(listener) = wardent.kafka().unwrap() else {
        panic!("not over TCP")
    };
    let mut crowd: Vec<_> = (0..FROM_ONE_ADDRESS + 50)
        .map(|_| TcpStream::connect(listener).unwrap())
        .collect();
    let served = crowd
        .iter_mut()
        .filter_map(|stream| is_served(stream).then_some(()))
        .count();
    assert_eq!(served, FROM_ONE_ADDRESS);
    assert_eq!(wardent.get("/").status, 200);
    assert!(wardent.metric("wardent_kafka_connections_cut_total{reason=\"too_many\"}") >= 50.0);
    drop(crowd);
    // Their places are free again.
    time::eventually("there is room again", || {
        is_served(&mut TcpStream::connect(listener).unwrap())
    });
}
