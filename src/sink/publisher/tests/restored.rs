//! What a start makes of what is on disk.

use proptest::prelude::*;

use super::*;

/// The same wall clock, and a monotonic one that starts anew.
fn later(house: &House, seconds: u64) -> Clock {
    let clock = Clock::manual(house.clock.unix_ms() + seconds * 1_000);
    clock.advance_ms(1);
    clock
}

fn show(house: &mut House, who: &str) -> Result<Done, NotDone> {
    let asking = house.begin(Act::Show(target(who)));
    house.runtime.block_on(asking).unwrap()
}

fn level_of_next_ban(house: &mut House, who: &str) -> u32 {
    house.violate(who);
    match show(house, who) {
        Ok(Done::Shown(ban)) => ban.level,
        other => panic!("no ban: {other:?}"),
    }
}

#[test]
fn a_ban_goes_on_for_what_is_left_of_it() {
    let mut house = house();
    house.violate("198.51.100.7");
    drop(house.ban("203.0.113.0/24"));
    house.flush();
    let (mut fresh, replayed) = house.after_start(later(&house, 200), 100);
    assert_eq!((replayed.records, replayed.damaged), (2, 0));
    let Ok(Done::Shown(ban)) = show(&mut fresh, "198.51.100.7") else {
        panic!("no ban")
    };
    assert_eq!((ban.level, ban.why.as_str()), (1, "trap"));
    assert!(show(&mut fresh, "203.0.113.9").is_ok());
    fresh.pass(399);
    assert!(show(&mut fresh, "198.51.100.7").is_ok());
    fresh.pass(1);
    assert!(show(&mut fresh, "198.51.100.7").is_err());
    fresh.flush();
    assert_eq!(fresh.paper.field(Topic::Audit, "what"), ["expire"]);
}

#[test]
fn one_that_ended_meanwhile_has_its_level_and_is_told_as_over() {
    let mut house = house();
    house.violate("198.51.100.7");
    house.flush();
    let (mut fresh, _) = house.after_start(later(&house, 3_600), 100);
    assert!(show(&mut fresh, "198.51.100.7").is_err());
    fresh.flush();
    assert_eq!(fresh.paper.field(Topic::Bans, "state"), ["expired"]);
    assert_eq!(
        fresh.paper.field(Topic::Bans, "ended"),
        ["2026-11-21T10:10:00.000Z"]
    );
    assert_eq!(level_of_next_ban(&mut fresh, "198.51.100.7"), 2);
}

#[test]
fn what_was_to_be_forgotten_meanwhile_is_forgotten() {
    let mut house = house();
    house.violate("198.51.100.7");
    house.flush();
    let (mut fresh, _) = house.after_start(later(&house, 2 * 86_400), 100);
    fresh.pass(0);
    fresh.pass(0);
    fresh.flush();
    let last = fresh.paper.records(Topic::Bans).pop().unwrap();
    assert_eq!(last, ("198.51.100.7".to_owned(), serde_json::Value::Null));
    assert_eq!(level_of_next_ban(&mut fresh, "198.51.100.7"), 1);
}

#[test]
fn a_time_of_grace_goes_on() {
    let mut house = house();
    house.violate("198.51.100.7");
    drop(house.unban("198.51.100.7", 600));
    drop(house.unban("203.0.113.0/24", 600));
    house.flush();
    let (mut fresh, _) = house.after_start(later(&house, 300), 100);
    for who in ["198.51.100.7", "203.0.113.9"] {
        fresh.violate(who);
        assert!(show(&mut fresh, who).is_err(), "{who}");
    }
    fresh.pass(301);
    for who in ["198.51.100.7", "203.0.113.9"] {
        assert_eq!(level_of_next_ban(&mut fresh, who), 1, "{who}");
    }
}

#[test]
fn a_clock_that_was_set_back_makes_no_ban_longer() {
    let mut house = house();
    house.violate("198.51.100.7");
    house.flush();
    let clock = Clock::manual(0);
    clock.advance_ms(1);
    let (mut fresh, _) = house.after_start(clock, 100);
    fresh.pass(599);
    assert!(show(&mut fresh, "198.51.100.7").is_ok());
    fresh.pass(1);
    assert!(show(&mut fresh, "198.51.100.7").is_err());
}

#[test]
fn of_more_bans_than_there_is_room_for_the_latest_come_back() {
    let mut house = house();
    for nth in 0..10 {
        house.violate(&format!("203.0.113.{nth}"));
        house.pass(1);
    }
    house.flush();
    let (mut fresh, _) = house.after_start(later(&house, 0), 4);
    for nth in 0..10 {
        let who = format!("203.0.113.{nth}");
        assert_eq!(show(&mut fresh, &who).is_ok(), nth >= 6, "{who}");
    }
}

#[test]
fn a_damaged_batch_costs_what_is_in_it_and_nothing_else() {
    let mut house = house();
    for nth in 0..3 {
        house.violate(&format!("203.0.113.{nth}"));
        house.flush();
    }
    let mut second = 0;
    {
        let mut taken = house.paper.0.lock().unwrap();
        let kept = std::mem::take(&mut taken.kept);
        taken.kept = kept
            .into_iter()
            .filter(|(topic, _)| *topic == Topic::Bans)
            .collect();
        second += taken.kept[0].1.bytes().len();
    }
    let mut bytes = house.paper.bans();
    bytes[second + 70] ^= 1;
    let mut fresh = house_at(later(&house, 0), 100);
    let mut replayed = Replayed::default();
    let mut restoring = fresh.owner.restore();
    replay(&bytes, 64, &mut Vec::new(), &mut restoring, &mut replayed);
    assert_eq!(restoring.finish().bans, 2);
    assert_eq!((replayed.records, replayed.damaged), (2, 1));
    assert!(show(&mut fresh, "203.0.113.1").is_err());
    assert!(show(&mut fresh, "203.0.113.2").is_ok());
}

#[derive(Debug, Clone)]
enum Step {
    Violate(u8),
    Observe(u8),
    Ban(u8, bool),
    Unban(u8, bool, bool),
    Pass(u32),
    Write,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0_u8..6;
    prop_oneof![
        4 => who.clone().prop_map(Step::Violate),
        1 => who.clone().prop_map(Step::Observe),
        2 => (who.clone(), any::<bool>()).prop_map(|(who, net)| Step::Ban(who, net)),
        2 => (who, any::<bool>(), any::<bool>())
            .prop_map(|(who, net, grace)| Step::Unban(who, net, grace)),
        3 => prop_oneof![0_u32..2_000, 80_000_u32..100_000].prop_map(Step::Pass),
        1 => Just(Step::Write),
    ]
}

fn name(who: u8, is_network: bool) -> String {
    match is_network {
        true => format!("10.0.{who}.0/24"),
        false => format!("10.0.{}.{who}", who % 2),
    }
}

/// What an owner remembers of everybody there may be.
fn memories(owner: &Owner) -> Vec<Option<Memory>> {
    let everybody = (0..6).flat_map(|who| [name(who, false), name(who, true)]);
    everybody.map(|who| owner.memory(&target(&who))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_start_remembers_what_was_remembered(steps in prop::collection::vec(step(), 1..60)) {
        let mut house = house();
        house.clock.advance_ms(1);
        for step in steps {
            match step {
                Step::Violate(who) => house.violate(&name(who, false)),
                Step::Observe(who) => house.violate_as(&name(who, false), false),
                Step::Ban(who, net) => drop(house.ban(&name(who, net))),
                Step::Unban(who, net, has_grace) => {
                    drop(house.unban(&name(who, net), if has_grace { 500 } else { 0 }));
                }
                Step::Pass(seconds) => house.pass(seconds.into()),
                Step::Write => house.flush(),
            }
        }
        house.flush();
        let (fresh, replayed) = house.after_start(later(&house, 0), 100);
        prop_assert_eq!((replayed.damaged, replayed.unreadable), (0, 0));
        prop_assert_eq!(memories(&fresh.owner), memories(&house.owner));
    }
}
