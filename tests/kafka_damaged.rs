//! What administrators decided for Kafka's clients rots on the disk: nobody is served by what is left of it, and
//! requests do not notice.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use support::{origin::Origin, time::PATIENCE, wardent::Wardent};
use wardent::base::net::Address;

/// InitProducerId of version 0, without a client id, and the correlation 7: ids are given out by what is kept.
const ASKS_PRODUCER_ID: &[u8] = b"\0\0\0\x10\0\x16\0\0\0\0\0\x07\xff\xff\xff\xff\0\0\xea\x60";

/// The id that a producer is given.
fn producer_id(wardent: &Wardent) -> i64 {
    let Address::Tcp(listener) = wardent.kafka().unwrap() else {
        panic!("not over TCP")
    };
    let mut stream = TcpStream::connect(listener).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(ASKS_PRODUCER_ID).unwrap();
    // Length, correlation, throttle time; an error; an id and its epoch.
    let mut answer = [0; 24];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[12..14], [0, 0], "no error");
    i64::from_be_bytes(answer[14..22].try_into().unwrap())
}

#[test]
fn by_what_is_left_nobody_is_served_until_the_next_start() {
    let origin = Origin::echo();
    let wardent = Wardent::before(&origin);
    assert_eq!(producer_id(&wardent), 0);
    let dir = wardent.end();
    let kept = dir
        .path()
        .join("log/__wardent_metadata-0/00000000000000000000.log");
    let mut bytes = fs::read(&kept).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&kept, bytes).unwrap();

    let wardent = Wardent::again_in(dir);
    assert_eq!(wardent.kafka(), None);
    assert_eq!(wardent.get("/").status, 200);
    assert!(wardent.dir().join("log/quarantine").is_dir());

    let wardent = wardent.again();
    producer_id(&wardent);
}
