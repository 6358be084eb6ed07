//! The simulated disk keeps what a disk must, and loses what a disk may.

use super::*;

fn dir() -> PathBuf {
    PathBuf::from("/var/lib")
}

fn path(name: &str) -> PathBuf {
    dir().join(name)
}

fn disk() -> Sim {
    Sim::new(1, &dir())
}

fn made(disk: &Sim, name: &str) -> Box<dyn File> {
    disk.open(&path(name), Open::CreateNew).unwrap()
}

/// What a power cut leaves, over many seeds, in an order.
fn after_cuts<T: Ord>(disk: &Sim, look: impl Fn(&Sim) -> T) -> BTreeSet<T> {
    let seeds = 0..2_000;
    seeds.map(|seed| look(&disk.cut(seed))).collect()
}

impl Sim {
    /// The disk after a power cut, while this one goes on.
    fn cut(&self, seed: u64) -> Self {
        let cut = self.power_cut(seed);
        self.state().is_gone = false;
        cut
    }
}

#[test]
fn it_reads_what_was_written_as_the_systems_own_disk_does() {
    let disk = disk();
    let file = made(&disk, "file");
    file.write_all_at(b"wardent", 3).unwrap();
    let mut bytes = [0; 16];
    assert_eq!(file.read_full_at(&mut bytes, 0).unwrap(), 10);
    assert_eq!(&bytes[..10], b"\0\0\0wardent");
    assert_eq!(file.size().unwrap(), 10);
    file.set_len(4).unwrap();
    assert_eq!(disk.bytes(&path("file")).unwrap(), b"\0\0\0w");
    assert!(disk.open(&path("file"), Open::CreateNew).is_err());
    assert!(disk.open(&path("none"), Open::Write).is_err());
    assert_eq!(disk.names(&dir()).unwrap(), ["file"]);
    disk.rename(&path("file"), &path("other")).unwrap();
    assert_eq!(disk.names(&dir()).unwrap(), ["other"]);
    disk.remove(&path("other")).unwrap();
    // Whoever has it open goes on.
    assert_eq!(file.size().unwrap(), 4);
    assert!(disk.remove(&path("other")).is_err());
}

#[test]
fn what_is_synced_survives_and_what_is_not_may_not() {
    let disk = disk();
    let file = made(&disk, "file");
    file.write_all_at(b"safe", 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(&dir()).unwrap();
    file.write_all_at(b", or not", 4).unwrap();
    let left = after_cuts(&disk, |disk| disk.bytes(&path("file")).unwrap());
    assert!(left.iter().all(|bytes| bytes.starts_with(b"safe")));
    let seen: Vec<&[u8]> = left.iter().map(Vec::as_slice).collect();
    assert_eq!(
        seen,
        [&b"safe"[..], b"safe\0\0\0\0\0\0\0\0", b"safe, or not"]
    );
}

#[test]
fn sectors_are_lost_each_for_itself_and_whole() {
    let disk = disk();
    let file = made(&disk, "file");
    disk.sync_dir(&dir()).unwrap();
    file.write_all_at(&[1; 4 * node::SECTOR], 0).unwrap();
    let left = after_cuts(&disk, |disk| {
        let bytes = disk.bytes(&path("file")).unwrap();
        let sectors = bytes.chunks(node::SECTOR);
        let kept = sectors.map(|sector| {
            assert!(sector.iter().all(|byte| *byte == sector[0]));
            sector[0]
        });
        kept.collect::<Vec<_>>()
    });
    for pattern in [
        &[][..],
        &[1, 0, 1, 1],
        &[0, 0, 0, 1],
        &[1, 1],
        &[1, 1, 1, 1],
    ] {
        assert!(left.contains(pattern), "{pattern:?}");
    }
}

#[test]
fn a_name_is_safe_only_when_its_directory_is_synced() {
    let disk = disk();
    let file = made(&disk, "file");
    file.write_all_at(b"bytes", 0).unwrap();
    file.sync_data().unwrap();
    let names = |disk: &Sim| disk.paths().len();
    assert_eq!(after_cuts(&disk, names), BTreeSet::from([0, 1]));
    disk.sync_dir(&dir()).unwrap();
    assert_eq!(after_cuts(&disk, names), BTreeSet::from([1]));
    disk.create_dir(&path("deep")).unwrap();
    let deep = disk.open(&path("deep/file"), Open::Create).unwrap();
    deep.sync_data().unwrap();
    disk.sync_dir(&path("deep")).unwrap();
    assert_eq!(after_cuts(&disk, names), BTreeSet::from([1, 2]));
    disk.sync_dir(&dir()).unwrap();
    assert_eq!(after_cuts(&disk, names), BTreeSet::from([2]));
}

#[test]
fn a_renamed_file_has_the_old_name_or_the_new_one() {
    let disk = disk();
    disk.put(&path("a"), b"old");
    disk.put(&path("new"), b"new");
    disk.rename(&path("new"), &path("a")).unwrap();
    disk.rename(&path("a"), &path("b")).unwrap();
    let left = after_cuts(&disk, |disk| {
        let of = |name| {
            disk.bytes(&path(name))
                .map(|bytes| String::from_utf8(bytes).unwrap())
        };
        (of("new"), of("a"), of("b"))
    });
    let some = |text: &str| Some(text.to_owned());
    let possible = [
        (some("new"), some("old"), None),
        (None, some("new"), None),
        (None, None, some("new")),
    ];
    assert_eq!(left, BTreeSet::from(possible));
}

#[test]
fn a_sync_that_failed_has_lost_the_bytes_and_the_next_proves_nothing() {
    let lost = (0..40).filter(|seed| {
        let disk = Sim::new(*seed, &dir());
        let file = made(&disk, "file");
        disk.sync_dir(&dir()).unwrap();
        file.write_all_at(b"bytes", 0).unwrap();
        let from = disk.operations();
        disk.plan(Some(Plan {
            from,
            count: 1,
            fault: Fault::Eio,
        }));
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
        assert_eq!(disk.bytes(&path("file")).unwrap(), b"bytes");
        disk.power_cut(*seed).bytes(&path("file")).unwrap() != b"bytes"
    });
    assert!((10..40).contains(&lost.count()));
}

#[test]
fn a_full_disk_takes_what_fits_and_has_room_when_a_file_is_gone_and_closed() {
    let disk = disk();
    disk.set_capacity(1000);
    let ballast = made(&disk, "ballast");
    ballast.allocate(900).unwrap();
    let file = made(&disk, "file");
    assert_eq!(file.write_at(&[1; 300], 0).unwrap(), 100);
    let error = file.write_at(&[1; 200], 100).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.write_at(&[2; 50], 0).unwrap(), 50);
    disk.remove(&path("ballast")).unwrap();
    assert_eq!(disk.free_bytes(&dir()).unwrap(), 0);
    drop(ballast);
    assert_eq!(disk.free_bytes(&dir()).unwrap(), 900);
    file.write_all_at(&[1; 200], 100).unwrap();
}

#[test]
fn planned_faults_come_when_they_are_planned() {
    let disk = disk();
    let file = made(&disk, "file");
    let try_with = |fault| {
        let from = disk.operations();
        disk.plan(Some(Plan {
            from,
            count: 1,
            fault,
        }));
        file.write_at(b"1234", 0).map_err(|error| error.kind())
    };
    assert!(try_with(Fault::Eio).is_err());
    assert_eq!(try_with(Fault::Enospc), Err(io::ErrorKind::StorageFull));
    assert_eq!(try_with(Fault::Eintr), Err(io::ErrorKind::Interrupted));
    assert_eq!(try_with(Fault::Eagain), Err(io::ErrorKind::WouldBlock));
    assert_eq!(try_with(Fault::Short), Ok(2));
    assert_eq!(file.write_at(b"1234", 0).unwrap(), 4);
}

#[test]
fn a_machine_that_stopped_holds_no_lock_and_cannot_write() {
    let disk = disk();
    let file = made(&disk, "file");
    let lock = disk.lock(&path(".lock")).unwrap();
    let again = disk.lock(&path(".lock")).unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::WouldBlock);
    let next = disk.kill();
    next.lock(&path(".lock")).unwrap();
    file.write_at(b"late", 0).unwrap_err();
    assert_eq!(next.bytes(&path("file")).unwrap(), b"");
    drop(lock);
}

#[test]
fn a_killed_process_loses_nothing_until_the_power_is_cut() {
    let disk = disk();
    made(&disk, "file").write_all_at(b"bytes", 0).unwrap();
    let next = disk.kill();
    assert_eq!(next.bytes(&path("file")).unwrap(), b"bytes");
    let left = after_cuts(&next, |disk| disk.bytes(&path("file")));
    assert!(left.contains(&None) && left.contains(&Some(b"bytes".to_vec())));
}
