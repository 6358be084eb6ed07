//! A file that is wrong ends `check` and `run` alike with 78, and one line says where and why.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
};

use support::time::{PATIENCE, holds_within};
use tempfile::TempDir;

/// The first two lines of every `wardent.yaml` here.
const MINIMAL: &str = "listen: 127.0.0.1:8080\nupstream: {servers: 127.0.0.1:8000}\n";

/// Both files, good ones.
fn good_files() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("wardent.yaml"),
        format!("{MINIMAL}log: {{dir: log}}\n"),
    )
    .unwrap();
    fs::write(dir.path().join("policy.yaml"), "mode: observe\n").unwrap();
    dir
}

/// How a command ends, and what it says; nothing that takes these files may go on.
fn end_of(command: &str, dir: &Path) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_wardent"))
        .args([command, "--config"])
        .arg(dir.join("wardent.yaml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    holds_within(PATIENCE, || child.try_wait().unwrap().is_some());
    drop(child.kill());
    let status = child.wait().unwrap();
    let mut said = String::new();
    child.stderr.unwrap().read_to_string(&mut said).unwrap();
    (status.code(), said)
}

/// That both commands refuse what is in `dir`, and say `line` about `file`.
fn assert_refused(id: &str, dir: &Path, file: &str, line: &str) {
    for command in ["check", "run"] {
        let (status, said) = end_of(command, dir);
        assert_eq!(status, Some(78), "{id}: {command}: {said}");
        let expected = format!("{}:{line}\n", dir.join(file).display());
        assert!(said.contains(&expected), "{id}: {command}: {said}");
        assert!(!said.contains("panicked"), "{id}: {command}: {said}");
    }
}

#[test]
fn good_files_can_be_used() {
    let dir = good_files();
    assert_eq!(end_of("check", dir.path()).0, Some(0));
}

#[test]
fn c02_to_c06_in_wardent_yaml() {
    for (id, more, line) in [
        (
            "C-02",
            "limts: {}",
            "3:1: unknown key `limts` (did you mean `limits`?)",
        ),
        (
            "C-04",
            "client_ip: {trusted_peers: [0.0.0.0/0]}",
            "3:29: trusted_peers[0]: 0.0.0.0/0 trusts the whole internet; anybody could forge CF-Connecting-IP",
        ),
        (
            "C-05",
            "client_ip: {trusted_peers: [10.0.0.1/33]}",
            "3:29: trusted_peers[0]: `10.0.0.1/33`: prefix must be 0..32",
        ),
        (
            "C-06",
            "admin: {listen: 127.0.0.1:8080}",
            "3:17: admin.listen 127.0.0.1:8080 is already used by listen",
        ),
    ] {
        let dir = good_files();
        let text = format!("{MINIMAL}{more}\n");
        fs::write(dir.path().join("wardent.yaml"), text).unwrap();
        assert_refused(id, dir.path(), "wardent.yaml", line);
    }
}

#[test]
fn c01_an_unknown_unit() {
    let dir = good_files();
    let policy = dir.path().join("policy.yaml");
    fs::write(policy, "defaults:\n  limit:\n    rate: 10/parsec\n").unwrap();
    let line = "3:11: rate: unknown unit `parsec` (use s, m, h, d)";
    assert_refused("C-01", dir.path(), "policy.yaml", line);
}

#[test]
fn c08_a_loop_to_itself() {
    let dir = good_files();
    let text = "listen: 127.0.0.1:8080\nupstream: {servers: 127.0.0.1:8080}\n";
    fs::write(dir.path().join("wardent.yaml"), text).unwrap();
    let line = "2:21: upstream 127.0.0.1:8080 is this server's own listen address";
    assert_refused("C-08", dir.path(), "wardent.yaml", line);
}

#[test]
fn c10_a_log_directory_that_is_a_file() {
    let dir = good_files();
    let log = dir.path().join("log");
    fs::write(&log, "").unwrap();
    let line = format!(
        "3:12: log.dir: {} is no directory (choose another, or move away what is there)",
        log.display()
    );
    assert_refused("C-10", dir.path(), "wardent.yaml", &line);
}

#[test]
fn c12_a_pattern_that_cannot_be_read() {
    let dir = good_files();
    let text = "routes:\n  - name: php\n    match: {path: /*.php}\n";
    fs::write(dir.path().join("policy.yaml"), text).unwrap();
    let line = "3:19: path: `/*.php` has a `*` inside a segment (it must stand alone, as in `/*/`)";
    assert_refused("C-12", dir.path(), "policy.yaml", line);
}

#[test]
fn c14_what_editors_do_to_files() {
    for (id, bytes, line) in [
        (
            "C-14 tab",
            b"\tmode: observe\n".as_slice(),
            "1:1: tab characters are not allowed for indentation (use spaces)",
        ),
        (
            "C-14 carriage returns",
            b"mode: observe\r\nmode: observe\r\n",
            "2:1: the key `mode` is given twice",
        ),
        (
            "C-14 byte order mark",
            b"\xef\xbb\xbfmode: watch\n",
            "1:7: mode: `watch` is not known (use `enforce` or `observe`)",
        ),
        (
            "C-14 Latin-1",
            b"mode: observe # caf\xe9\n",
            "1:20: this byte is not UTF-8 (save the file as UTF-8)",
        ),
        (
            "C-14 UTF-16",
            b"\xff\xfem\0",
            "1:1: the file is UTF-16 (save it as UTF-8)",
        ),
        ("C-14 empty", b"", "1:1: the file is empty"),
    ] {
        let dir = good_files();
        fs::write(dir.path().join("policy.yaml"), bytes).unwrap();
        assert_refused(id, dir.path(), "policy.yaml", line);
    }
}

#[test]
fn c14_a_file_that_is_far_too_large() {
    let dir = good_files();
    let file = File::create(dir.path().join("policy.yaml")).unwrap();
    file.set_len(100 << 20).unwrap();
    let line = "1:1: the file is larger than 4 MiB";
    assert_refused("C-14 large", dir.path(), "policy.yaml", line);
}
