//! A request of a known client allocates nothing on its way through the guards.
#![expect(
    clippy::unwrap_used,
    reason = "a broken fixture should stop the test loudly"
)]

use wardent::guard::bots::People;

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
