//! A disk that stands still stops no request, softens no ban, is told, and costs nothing once it goes on.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{
    fmt, io,
    path::Path,
    sync::{Arc, Condvar, Mutex},
};

use serde_json::Value;
use support::{
    origin::Origin,
    p_from, records,
    time::{self, PATIENCE},
    wardent::Wardent,
};
use wardent::base::disk::{Disk, File, Open, System};

const ACCESS: &str = "wardent.http.access";
const BANS: &str = "wardent.client.ban";

/// Whether what is to be written or made safe has to wait.
#[derive(Debug, Default)]
struct Gate {
    is_shut: Mutex<bool>,
    opens: Condvar,
}

impl Gate {
    fn set(&self, is_shut: bool) {
        *self.is_shut.lock().unwrap() = is_shut;
        self.opens.notify_all();
    }

    /// Waits until it is open; a test that forgets to open it fails all the same.
    fn pass(&self) {
        let is_shut = self.is_shut.lock().unwrap();
        drop(
            self.opens
                .wait_timeout_while(is_shut, 12 * PATIENCE, |shut| *shut),
        );
    }
}

/// The machine's disk, behind a gate.
#[derive(Debug, Default)]
struct Gated(Arc<Gate>);

#[derive(Debug)]
struct GatedFile(Arc<Gate>, Box<dyn File>);

impl Disk for Gated {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        System.create_dir(dir)
    }
    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        System.names(dir)
    }
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>> {
        let file = System.open(path, how)?;
        Ok(Box::new(GatedFile(Arc::clone(&self.0), file)))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.pass();
        System.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        System.remove(path)
    }
    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        System.remove_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.pass();
        System.sync_dir(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        System.free_bytes(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn fmt::Debug + Send + Sync>> {
        System.lock(path)
    }
}

impl File for GatedFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.read_at(into, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.pass();
        self.1.write_at(bytes, offset)
    }
    fn size(&self) -> io::Result<u64> {
        self.1.size()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.pass();
        self.1.sync_data()
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.1.allocate(len)
    }
    fn forget(&self, offset: u64, len: u64) {
        self.1.forget(offset, len);
    }
}

fn status(wardent: &Wardent, client: &str, target: &str) -> u16 {
    let request = format!("GET {target} HTTP/1.1\r\n{}\r\n", p_from(client));
    wardent.ask(request).status
}

#[test]
fn a_disk_that_stands_still_stops_no_request_and_softens_no_ban() {
    let origin = Origin::echo();
    let gate = Arc::<Gate>::default();
    let policy = "mode: enforce
defaults: {limit: {rate: 1000000/s, burst: 1000000}}
routes: [{name: trap, match: {path: /trap}, trap: true}]
";
    let setup = Wardent::setup(&origin).policy(policy);
    let wardent = setup.disk(Arc::new(Gated(Arc::clone(&gate)))).start();
    assert_eq!(wardent.get("/before").status, 200);
    let log = || -> Value {
        let (status, ready) = wardent.act("GET", "/readyz", "");
        assert_eq!(status, 200, "{ready}");
        ready["log"].clone()
    };
    assert_eq!(log()["state"], "ok");

    gate.set(true);
    for _ in 0..500 {
        assert_eq!(wardent.get("/meanwhile").status, 200);
    }
    assert_eq!(status(&wardent, "198.51.100.66", "/trap"), 403);
    time::eventually("the ban binds, though it is not on disk", || {
        status(&wardent, "198.51.100.66", "/") == 403
    });
    time::eventually("it is told", || log()["state"] == "degraded");
    let (live, _) = wardent.act("GET", "/livez", "");
    assert_eq!(live, 200);
    let wanted = r#"{"target": "198.51.100.67", "for": "1h"}"#;
    let (refused, said) = wardent.act("POST", "/api/v1/bans", wanted);
    assert_eq!(refused, 503, "{said}");
    assert!(
        said["error"].as_str().unwrap().contains("in force"),
        "{said}"
    );
    assert_eq!(status(&wardent, "198.51.100.67", "/"), 403);

    gate.set(false);
    time::eventually("all is well again", || log()["state"] == "ok");
    let ended = wardent.end();
    let dir = ended.path().join("log");
    let banned: Vec<String> = records::of_topic(&dir, BANS)
        .iter()
        .map(|found| found.json()["target"].as_str().unwrap().to_owned())
        .collect();
    assert!(banned.contains(&"198.51.100.66".to_owned()), "{banned:?}");
    assert!(banned.contains(&"198.51.100.67".to_owned()), "{banned:?}");
    let asked = records::of_topic(&dir, ACCESS);
    let meanwhile = asked
        .iter()
        .filter(|found| found.json()["path"] == "/meanwhile");
    assert_eq!(
        meanwhile.count(),
        500,
        "none was lost: the lanes have room for many more"
    );
}
