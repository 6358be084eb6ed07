//! A request of a known client allocates nothing on its way through the guards, and its event nothing on
//! the way to the log.
#![expect(
    clippy::unwrap_used,
    reason = "a broken fixture should stop the test loudly"
)]

use std::sync::Arc;

use wardent::{
    event::{
        access::{Access, Verdict},
        place::Run,
        privacy::Privacy,
        time::Stamps,
    },
    guard::bots::People,
    proxy::worker::Outlets,
    sink::lane,
};

#[path = "../benches/guards/house.rs"]
mod house;

#[test]
fn the_guards_allocate_nothing() {
    let mut house = house::House::new(100);
    house.fill(10, 1_000_000);
    let (people, mut scratch) = (People::default(), Vec::with_capacity(1024));
    let address = house::address(3);
    // The first request of a user agent is read and remembered.
    let mut ask = || {
        house
            .judge(&people, address.as_bytes(), 2_000_000, &mut scratch)
            .verdict
    };
    ask().unwrap();
    let counted = allocation_counter::measure(|| {
        for _ in 0..100 {
            let _ = std::hint::black_box(ask());
        }
    });
    assert_eq!(counted.count_total, 0);
    assert!(ask().is_err(), "the limit has been asked, too");
}

#[test]
fn telling_an_event_allocates_nothing() {
    let (lane, mut drain) = lane::lane(Run::new(7), 0, 64 * 1024, &Arc::default());
    let mut outlets = Outlets::new(Some(lane), None);
    let stamps = Stamps::default();
    let mut tell = || {
        let client = Privacy::Full.of([198, 51, 100, 7].into());
        let place = outlets.lane.as_ref().map(lane::Lane::next);
        let access = Access {
            place,
            arrived_unix_ms: 1_795_255_201_042,
            id: b"01KAJ0000000000000000000AA",
            client: Some(&client),
            is_proven: true,
            peer: Some(&client),
            edge: None,
            method: b"GET",
            host: b"app.test",
            path: b"/\xff\"a/path/with/what/must/be/escaped",
            is_cross_site: false,
            status: 200,
            verdict: Verdict::Passed,
            reason: None,
            is_observed: false,
            why: None,
            rule: None,
            route: "defaults",
            body_bytes_in: 0,
            bytes_out: 1_200,
            total_us: 1_042,
            body_us: None,
            connected_us: Some(20),
            answered_us: Some(1_000),
            upstream: Some("127.0.0.1:8000"),
            user_agent: b"Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
            bot: None,
            country: Some(b"DE"),
            ray: Some(b"8f1c2d3e4f5a6b7c-FRA"),
        };
        outlets.tell(&access, &stamps);
    };
    // The first of a second writes the second's text.
    tell();
    let counted = allocation_counter::measure(|| {
        for _ in 0..100 {
            tell();
        }
    });
    assert_eq!(counted.count_total, 0);
    let told = std::iter::from_fn(|| drain.next(|told| told.value.len()));
    assert_eq!(
        told.count(),
        101 - usize::try_from(drain.counts().lost()).unwrap()
    );
    assert!(drain.counts().lost() < 50);
}
