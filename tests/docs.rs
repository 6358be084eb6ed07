//! What the documentation tells a person to write and to type works.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use support::{KEY, wardent::write_private};

/// All blocks of a language in a page.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let parts = page.split("```").skip(1).step_by(2);
    parts
        .filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'))
        .collect()
}

fn page(path: &str) -> String {
    fs::read_to_string(path).unwrap()
}

/// The two files of the README, with all they name, in a directory of their own.
fn written(dir: &Path) {
    let home = dir.to_str().unwrap();
    let readme = page("README.md");
    let [wardent, policy] = blocks(&readme, "yaml")[..] else {
        panic!("the README shows two files")
    };
    let listen = "listen: [127.0.0.1:0]\n";
    let whole = format!("{listen}{wardent}").replace("/etc/wardent", home);
    fs::write(dir.join("wardent.yaml"), whole).unwrap();
    fs::write(
        dir.join("policy.yaml"),
        policy.replace("/etc/wardent", home),
    )
    .unwrap();
    write_private(&dir.join("secret"), KEY.as_bytes());
    write_private(&dir.join("stripe"), b"whsec_test");
}

fn wardent(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wardent"))
        .args(arguments)
        .arg("--config")
        .arg(dir.join("wardent.yaml"))
        .output()
        .unwrap()
}

#[test]
fn the_files_of_the_readme_can_be_used() {
    let dir = support::wardent::work_dir();
    written(dir.path());
    let checked = wardent(dir.path(), &["check"]);
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn the_signing_commands_of_all_pages_sign() {
    let dir = support::wardent::work_dir();
    written(dir.path());
    let mut signed = 0;
    for path in ["README.md", "docs/secret.md"] {
        let page = page(path);
        let commands = page.split("wardent secret sign").skip(1);
        for command in commands.filter_map(|rest| rest.split(['\n', ')']).next()) {
            let command = command.replace('\'', "");
            let words = ["secret", "sign"]
                .into_iter()
                .chain(command.split_whitespace());
            let output = wardent(dir.path(), &words.collect::<Vec<_>>());
            let value = String::from_utf8(output.stdout.clone()).unwrap();
            assert!(value.starts_with("v1=2026-11."), "{path}: {output:?}");
            signed += 1;
        }
    }
    assert!(signed >= 2, "the pages show {signed} commands");
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut pages = vec![
        "README.md".into(),
        "ARCHITECTURE.md".into(),
        "nginx/README.md".into(),
    ];
    for folder in ["docs", "docs/adr"] {
        let files = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        pages.extend(files.filter(|path| path.extension().is_some_and(|ext| ext == "md")));
    }
    for path in pages {
        let text = fs::read_to_string(&path).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if !link.contains("://") && !link.starts_with('#') {
                let target = path.parent().unwrap().join(link);
                assert!(target.exists(), "{}: {link}", path.display());
            }
        }
    }
}

#[test]
fn every_fixed_deadline_and_bound_is_told_as_it_is() {
    let told = page("docs/operations.md");
    // What stands in the source, and the words it is told with.
    for (file, constant, words) in [
        (
            "connection",
            "HEAD_WITHIN: Duration = Duration::from_secs(10)",
            "| 10 s | 408",
        ),
        (
            "linger",
            "TOTAL: Duration = Duration::from_secs(30)",
            "30 s in all, 5 s between",
        ),
        (
            "linger",
            "IDLE: Duration = Duration::from_secs(5)",
            "30 s in all, 5 s between",
        ),
        (
            "linger",
            "BYTES_MAX: u64 = 256 * 1024 * 1024",
            "| 256 MiB; 256 such clients",
        ),
        (
            "linger",
            "AT_LENGTH_MAX: usize = 256",
            "256 such clients at length",
        ),
        (
            "linger",
            "HURRIED: Duration = Duration::from_millis(500)",
            "the others 500 ms",
        ),
        (
            "listener",
            "DRAINED_WITHIN: Duration = Duration::from_secs(25)",
            "| drain | 25 s |",
        ),
        (
            "listener",
            "ACCEPTING_MAX: Duration = Duration::from_secs(10)",
            "accepting from them, 10 s at most",
        ),
        (
            "head",
            "HEAD_BYTES_MAX: usize = 64 * 1024",
            "| 64 KiB, 100 fields | 431",
        ),
        (
            "head",
            "FIELDS_MAX: usize = 100",
            "| 64 KiB, 100 fields | 431",
        ),
        (
            "head",
            "TARGET_BYTES_MAX: usize = 32 * 1024",
            "| 32 KiB | 414",
        ),
        (
            "answer",
            "FIELDS_MAX: usize = 512",
            "| 64 KiB, 512 fields | 502",
        ),
        (
            "chunked",
            "TRAILERS_MAX: usize = 64",
            "16 KiB and 64 fields",
        ),
        ("exchange", "INTERIM_MAX: usize = 32", "| 32 | 502"),
        ("http2", "STREAMS_MAX: u32 = 128", "| 128 | refused"),
        (
            "http2",
            "HEADERS_BYTES_MAX: u32 = 96 * 1024",
            "| 96 KiB | 431",
        ),
        (
            "tunnel",
            "AFTER_HALF_CLOSE: Duration = Duration::from_secs(5)",
            "whose one side has ended | 5 s",
        ),
        (
            "worker",
            "HELD_BYTES_MAX: usize = 64 * 1024 * 1024",
            "together | 64 MiB | 503",
        ),
        (
            "upstream/pool",
            "KEPT_MAX: usize = 256",
            "for each worker | 256 | closed",
        ),
        (
            "upstream/server",
            "EJECTION_MS: u64 = 10_000",
            "3 requests in a row | 10 s",
        ),
    ] {
        let source = page(&format!("src/proxy/{file}.rs"));
        assert!(source.contains(constant), "{file}: no longer `{constant}`");
        assert!(told.contains(words), "docs/operations.md: no `{words}`");
    }
}
