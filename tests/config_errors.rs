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
fn a_token_that_is_not_there_or_too_short() {
    let dir = good_files();
    let text = format!("{MINIMAL}log: {{dir: log}}\nadmin: {{token: {{file: token}}}}\n");
    fs::write(dir.path().join("wardent.yaml"), text).unwrap();
    for (token, words) in [
        (None, "token: cannot be read: No such file"),
        (Some("short\n"), "admin.token: needs at least 32 bytes"),
    ] {
        if let Some(token) = token {
            fs::write(dir.path().join("token"), token).unwrap();
        }
        for command in ["check", "run"] {
            let (status, said) = end_of(command, dir.path());
            assert_eq!(status, Some(78), "{command}: {said}");
            assert!(said.contains(words), "{command}: {said}");
        }
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

/// Files about bots, good ones, and a `wardent.yaml` that names them.
fn good_bots() -> TempDir {
    let dir = good_files();
    let yaml = format!(
        "{MINIMAL}log: {{dir: log}}
bots:
  catalogue: bots.tsv
  networks: networks.txt
  keys: [{{origin: https://a.example, directory: keys.json}}]
"
    );
    let key = "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs";
    let keys = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{key}"}}]}}"#);
    for (name, text) in [
        ("wardent.yaml", yaml.as_str()),
        ("bots.tsv", "# one\nseo\tFooBot\n"),
        ("networks.txt", "[foo]\nas-of 2026-09-02\n198.51.100.0/24\n"),
        ("keys.json", &keys),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

#[test]
fn good_files_about_bots_can_be_used() {
    let dir = good_bots();
    let (status, said) = end_of("check", dir.path());
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn a_wrong_file_about_bots_is_told_with_its_line() {
    let not_utf8 = "2:1: this byte is not UTF-8 (save the file as UTF-8)";
    let rows: [(&str, &[u8], &str); 9] = [
        (
            "bots.tsv",
            b"seo\tFooBot\n\nseo\tBarBot\ttokens=bar\n",
            "3:1: \"tokens\" is no key: use one of token, word, prefix, anywhere, networks, dns, signature",
        ),
        (
            "bots.tsv",
            b"",
            "1:1: no bot at all: an empty catalogue is a mistake",
        ),
        ("bots.tsv", b"seo\tFooBot\n\xff", not_utf8),
        (
            "networks.txt",
            b"[foo]\nas-of 2026-09-02\n0.0.0.0/0\n",
            "3:1: 0.0.0.0/0 is too wide: use /8 or narrower",
        ),
        (
            "networks.txt",
            b"198.51.100.0/24",
            "1:1: \"198.51.100.0/24\" belongs to no list: write `[name]` first",
        ),
        ("networks.txt", b"[foo]\n\xff", not_utf8),
        (
            "keys.json",
            b"{\n\"keys\": }",
            "2:1: no JSON Web Key Set: expected value at line 2 column 9",
        ),
        ("keys.json", b"{\"keys\": []}", "1:1: no Ed25519 key in it"),
        ("keys.json", b"\n\xff", not_utf8),
    ];
    for (file, bytes, line) in rows {
        let dir = good_bots();
        fs::write(dir.path().join(file), bytes).unwrap();
        assert_refused(file, dir.path(), file, line);
    }
}

#[test]
fn all_that_is_wrong_with_files_about_bots_is_told_at_once() {
    let dir = good_bots();
    for file in ["bots.tsv", "networks.txt", "keys.json"] {
        fs::write(dir.path().join(file), "what is this\n").unwrap();
    }
    let (status, said) = end_of("check", dir.path());
    assert_eq!(status, Some(78), "{said}");
    for file in ["bots.tsv", "networks.txt", "keys.json"] {
        assert!(said.contains(&format!("{file}:1:1: ")), "{said}");
    }
    // The line itself is shown, as a compiler would.
    assert!(said.contains("1 | what is this\n"), "{said}");
}

#[test]
fn a_file_about_bots_that_is_missing_endless_or_none_is_told() {
    for file in ["bots.tsv", "networks.txt", "keys.json"] {
        let dir = good_bots();
        let path = dir.path().join(file);
        fs::remove_file(&path).unwrap();
        let missing = "1:1: cannot be read: No such file or directory (os error 2)";
        assert_refused("missing", dir.path(), file, missing);

        let large = File::create(&path).unwrap();
        large.set_len((16 << 20) + 1).unwrap();
        let line = "1:1: the file is larger than 16 MiB";
        assert_refused("large", dir.path(), file, line);

        // Whoever opened the one would wait for ever; the other never ends.
        let irregular = "1:1: cannot be read: not a regular file";
        fs::remove_file(&path).unwrap();
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        assert_refused("pipe", dir.path(), file, irregular);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert_refused("endless", dir.path(), file, irregular);
    }
}
