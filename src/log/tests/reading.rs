//! What was appended can be read, by offset and by time.

use super::{super::*, rig::*};

#[test]
fn what_is_appended_is_read_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    for topic in [LAZY, DURABLE] {
        for number in 0..100 {
            let appended = rig.append(topic, batch(number * 3, 3)).unwrap();
            assert_eq!(appended.base_offset, i64::try_from(number * 3).unwrap());
            assert_eq!(appended.last_offset, appended.base_offset + 2);
        }
        let expected: Vec<_> = (0..300)
            .map(|number: i64| (number, number.cast_unsigned()))
            .collect();
        let partition = rig.partition(topic);
        assert_eq!(numbers(&partition, 0), expected);
        assert_eq!(numbers(&partition, 151), expected[151..]);
        assert!(partition.read(300, 1).unwrap().is_empty());
    }
}

#[test]
fn an_offset_that_is_not_there_is_told_with_those_that_are() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    rig.append(LAZY, batch(0, 5)).unwrap();
    for offset in [-1, 6, i64::MAX, i64::MIN] {
        let error = rig.partition(LAZY).read(offset, 1).unwrap_err();
        assert!(
            matches!(error, ReadError::OutOfRange { first: 0, end: 5 }),
            "{error}"
        );
    }
}

#[test]
fn one_batch_is_read_however_few_bytes_are_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    rig.append(LAZY, batch(0, 5)).unwrap();
    rig.append(LAZY, batch(5, 5)).unwrap();
    let bytes = rig.partition(LAZY).read(7, 1).unwrap();
    let (view, rest) = View::read(&bytes).unwrap();
    assert_eq!((view.base_offset(), rest.len()), (5, 0));
}

#[test]
fn a_durable_batch_is_neither_told_nor_shown_before_it_is_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    let outcome = rig.offer(DURABLE, batch(0, 5));
    let partition = rig.partition(DURABLE);
    let watermark = partition.subscribe();
    while rig.appender.turn() {}
    assert_eq!(partition.log_end_offset(), 5);
    assert_eq!(partition.high_watermark(), 0);
    assert!(partition.read(0, 1_000).unwrap().is_empty());
    assert!(outcome.lock().unwrap().is_none());
    rig.flusher.turn();
    assert_eq!(partition.high_watermark(), 5);
    assert!(watermark.has_changed().unwrap());
    assert!(outcome.lock().unwrap().take().unwrap().is_ok());
}

#[test]
fn the_time_from_an_offset_on_is_told_by_headers_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(dir.path());
    for times in [[1_000, 1_005], [900, 2_000]] {
        let mut builder = Builder::new();
        for time in times {
            builder.push(time, None, Some(b"value"), &[]);
        }
        rig.append(LAZY, builder.finish(Compression::Lz4)).unwrap();
    }
    let partition = rig.partition(LAZY);
    let told = || [0, 1, 2, 3, 4].map(|offset| partition.time_from(offset).unwrap());
    let expected = [Some(1_000), Some(1_000), Some(900), Some(900), None];
    assert_eq!(told(), expected);
    assert!(partition.time_from(5).is_err());
    // The records themselves are not looked at.
    let path = dir.path().join(format!("{LAZY}-0/{:020}.log", 0));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[HEADER_BYTES] ^= 0xff;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(told(), expected);
}
