//! What the documentation tells a person to write and to type works.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use support::{KEY, P, p_from, rig::Rig, time, wardent::write_private};

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

/// All pages that a person reads.
fn pages() -> Vec<PathBuf> {
    let mut pages = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "nginx/README.md",
        "ops/README.md",
    ]
    .map(PathBuf::from)
    .to_vec();
    for folder in ["docs", "docs/adr"] {
        let files = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        pages.extend(files.filter(|path| path.extension().is_some_and(|ext| ext == "md")));
    }
    pages
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

/// The names that links know a page's headings by.
fn headings(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let headings = text
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' '));
    let name = |heading: &str| {
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let kept: String = heading.chars().filter(kept).collect();
        kept.to_lowercase().replace(' ', "-")
    };
    headings.map(name).collect()
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    for path in pages() {
        let text = fs::read_to_string(&path).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{}: {link}", path.display());
            let is_there = || headings(&target).iter().any(|own| own == heading);
            assert!(
                heading.is_empty() || is_there(),
                "{}: {link}",
                path.display()
            );
        }
    }
}

/// A page, a file or room of `src`, what stands in that, and the words the page tells it with.
// A row, a line.
#[rustfmt::skip]
const TOLD: &[[&str; 4]] = &[
    ["docs/operations", "proxy/connection", "HEAD_WITHIN: Duration = Duration::from_secs(10)", "| 10 s | 408"],
    ["docs/operations", "proxy/linger", "TOTAL: Duration = Duration::from_secs(30)", "30 s in all, 5 s between"],
    ["docs/operations", "proxy/linger", "IDLE: Duration = Duration::from_secs(5)", "30 s in all, 5 s between"],
    ["docs/operations", "proxy/linger", "BYTES_MAX: u64 = 256 * 1024 * 1024", "| 256 MiB; 256 such clients"],
    ["docs/operations", "proxy/linger", "AT_LENGTH_MAX: usize = 256", "256 such clients at length"],
    ["docs/operations", "proxy/linger", "HURRIED: Duration = Duration::from_millis(500)", "the others 500 ms"],
    ["docs/operations", "proxy/listener", "DRAINED_WITHIN: Duration = Duration::from_secs(25)", "| drain | 25 s |"],
    ["docs/operations", "proxy/listener", "ACCEPTING_MAX: Duration = Duration::from_secs(10)", "accepting from them, 10 s at most"],
    ["docs/operations", "proxy/head", "HEAD_BYTES_MAX: usize = 64 * 1024", "| 64 KiB, 100 fields | 431"],
    ["docs/operations", "proxy/head", "FIELDS_MAX: usize = 100", "| 64 KiB, 100 fields | 431"],
    ["docs/operations", "proxy/head", "TARGET_BYTES_MAX: usize = 32 * 1024", "| 32 KiB | 414"],
    ["docs/operations", "proxy/answer", "FIELDS_MAX: usize = 512", "| 64 KiB, 512 fields | 502"],
    ["docs/operations", "proxy/chunked", "TRAILERS_MAX: usize = 64", "16 KiB and 64 fields"],
    ["docs/operations", "proxy/exchange", "INTERIM_MAX: usize = 32", "| 32 | 502"],
    ["docs/operations", "proxy/http2", "STREAMS_MAX: u32 = 128", "| 128 | refused"],
    ["docs/operations", "proxy/http2", "HEADERS_BYTES_MAX: u32 = 96 * 1024", "| 96 KiB | 431"],
    ["docs/operations", "proxy/tunnel", "AFTER_HALF_CLOSE: Duration = Duration::from_secs(5)", "whose one side has ended | 5 s"],
    ["docs/operations", "proxy/worker", "HELD_BYTES_MAX: usize = 64 * 1024 * 1024", "together | 64 MiB | 503"],
    ["docs/operations", "admin/events", "WAITS_MAX: usize = 32", "wait for events | 32 | 503"],
    ["docs/operations", "admin/server", "CONNECTIONS_MAX: usize = 64", "admin socket | 64 each"],
    ["docs/operations", "proxy/upstream/pool", "KEPT_MAX: usize = 256", "for each worker | 256 | closed"],
    ["docs/operations", "proxy/upstream/server", "EJECTION_MS: u64 = 10_000", "3 requests in a row | 10 s"],
    ["docs/operations", "proxy/exchange", "GRACE_AFTER_END: Duration = Duration::from_millis(100)", "(`client_end`) | 100 ms"],
    ["docs/operations", "admin/watchdog", "LOOK: Duration = Duration::from_secs(1)", "once a second"],
    ["docs/operations", "admin/watchdog", "ALARM_AFTER_MS: u64 = 5_000", "| 5 s | the alarm"],
    ["docs/operations", "admin/watchdog", "ABORT_AFTER_MS: u64 = 10_000", "| 10 s | a report"],
    ["docs/operations", "admin/watchdog", "REPORT_WITHIN: Duration = Duration::from_secs(2)", "waited for 2 s at most"],
    ["docs/operations", "limit/sync", "SLOTS: usize = 1 << 18", "by 262,144 clocks"],
    ["docs/operations", "owner/run", "TALLIES_MAX: usize = 100_000", "| 100,000; 16,384 |"],
    ["docs/operations", "owner/facts", "VIOLATIONS_MAX: usize = 16 * 1024", "| 100,000; 16,384 |"],
    ["docs/operations", "owner/act", "WAITING_MAX: usize = 512", "| 512, 16 |"],
    ["docs/operations", "admin", "WAITING_MAX: usize = 16", "| 512, 16 |"],
    ["docs/operations", "bots/verify", "ANSWERS_MAX: usize = 4_096", "| 4,096; 1,024, 32 at once, 5 s each |"],
    ["docs/operations", "bots/verify", "QUESTIONS_MAX: usize = 1_024", "| 4,096; 1,024, 32 at once, 5 s each |"],
    ["docs/operations", "bots/verify", "IN_FLIGHT_MAX: usize = 32", "| 4,096; 1,024, 32 at once, 5 s each |"],
    ["docs/operations", "bots/catalogue", "ENTRIES_MAX: usize = 20_000", "| 20,000 bots, 100,000 networks |"],
    ["docs/operations", "bots/networks", "NETWORKS_MAX: usize = 100_000", "| 20,000 bots, 100,000 networks |"],
    ["docs/operations", "proxy/trace", "WAITING_MAX: usize = 4_096", "for the collector | 4,096 |"],
    ["docs/operations", "telemetry/post", "WITHIN: Duration = Duration::from_secs(5)", "| 5 s each; a batch four times |"],
    ["docs/operations", "admin/traces", "TRIES: u32 = 4", "| 5 s each; a batch four times |"],
    ["docs/operations", "admin/traces", "ENDED_WITHIN: Duration = Duration::from_secs(1)", "spans that wait | 1 s |"],
    ["docs/operations", "admin/ping", "FRESH_MS: u64 = 5_000", "both within the last 5 s"],
    ["docs/operations", "sink/lane", "LANE_BYTES_MIN: usize = 256 << 10", "| 256 KiB to 4 MiB, 16 MiB in all |"],
    ["docs/operations", "sink/lane", "LANE_BYTES_MAX: usize = 4 << 20", "| 256 KiB to 4 MiB, 16 MiB in all |"],
    ["docs/operations", "sink/lane", "ALL_BYTES: usize = 16 << 20", "| 256 KiB to 4 MiB, 16 MiB in all |"],
    ["docs/operations", "sink/builder", "BACKLOG_BYTES_MAX: usize = 8 << 20", "| 8 MiB, 256 under way |"],
    ["docs/operations", "sink/builder", "UNDER_WAY_MAX: usize = 256", "| 8 MiB, 256 under way |"],
    ["docs/operations", "sink/builder", "ENDED_WITHIN: Duration = Duration::from_secs(5)", "| 5 s, 5 s | counted"],
    ["docs/operations", "app/log", "CLOSED_WITHIN: Duration = Duration::from_secs(5)", "| 5 s, 5 s | counted"],
    ["docs/events", "sink/lane", "LANE_BYTES_MAX: usize = 4 << 20", "256 KiB to 4 MiB (16 MiB for all together"],
    ["docs/events", "event/access", "TEXT_BYTES_MAX: usize = 512", "cut after 512"],
    ["docs/events", "sink/letters", "LETTER_BYTES_MAX: usize = 1_000_000", "longer than 1,000,000 bytes"],
    ["docs/registry", "registry/schema", "SCHEMA_BYTES_MAX: usize = 256 << 10", "| 256 KiB, nested 48 deep, 2,000 elements"],
    ["docs/registry", "registry/schema", "DEPTH_MAX: usize = 48", "| 256 KiB, nested 48 deep, 2,000 elements"],
    ["docs/registry", "registry/schema", "WIDTH_MAX: usize = 2_000", "| 256 KiB, nested 48 deep, 2,000 elements"],
    ["docs/registry", "registry/avro", "VARIANTS_MAX: usize = 200", "in Avro | 200 |"],
    ["docs/registry", "registry", "COMPARED_WITHIN: Duration = Duration::from_secs(5)", "with all before | 5 s |"],
    ["docs/registry", "registry/state", "SUBJECTS_MAX: usize = 1_000", "| 1,000, 100, deleted ones among them"],
    ["docs/registry", "registry/state", "VERSIONS_MAX: usize = 100", "| 1,000, 100, deleted ones among them"],
    ["docs/registry", "registry/state", "BYTES_MAX: usize = 32 << 20", "together | 32 MiB |"],
    ["docs/registry", "registry", "KEPT_WITHIN: Duration = Duration::from_secs(10)", "on disk | 10 s |"],
    ["docs/registry", "event/avro", "OWN_ID_MAX: u32 = 99", "The ids 1 to 99 are"],
    ["docs/bans-and-limits", "owner/act", "WITHIN: Duration = Duration::from_secs(10)", "the answer after 10 s"],
    ["docs/bans-and-limits", "sink/publisher", "CHANGES_MAX: usize = 16 * 1024", "| 16,384, or 8 MiB |"],
    ["docs/bans-and-limits", "sink/publisher", "BYTES_MAX: usize = 8 * 1024 * 1024", "| 16,384, or 8 MiB |"],
    ["docs/events", "sink/publisher", "CHANGES_MAX: usize = 16 * 1024", "16,384 changes wait"],
    ["docs/bans-and-limits", "limit/sync", "SLOTS: usize = 1 << 18", "by 262,144 clocks"],
    ["docs/bans-and-limits", "owner/tally", "EVIDENCE_MAX: usize = 16", "the latest 16 violations"],
    ["docs/bans-and-limits", "owner/run", "TALLIES_MAX: usize = 100_000", "counted | 100,000 |"],
    ["docs/bans-and-limits", "owner/facts", "VIOLATIONS_MAX: usize = 16 * 1024", "heard | 16,384 |"],
    ["docs/log", "sink/query/scan", "LATE_MS: i64 = 3_600_000", "more than an hour after it came"],
    ["docs/log", "sink/query/ask", "PAGE_MAX: usize = 1_000", "`limit` (1 to 1,000)"],
    ["docs/log", "admin/events", "ANSWER_WITHIN: Duration = Duration::from_secs(5)", "It takes 5 s at most"],
    ["docs/log", "admin/events", "WAIT_MAX: Duration = Duration::from_secs(20)", "`wait` (20 s at most)"],
    ["docs/log", "admin/reading", "WALKS_MAX: usize = 2", "Two walks over the log are done at once"],
    ["docs/log", "admin/reading", "TURN_WITHIN: Duration = Duration::from_millis(500)", "waits for half a second"],
    ["docs/log", "admin/verify", "PACE: u64 = 128 * 1024 * 1024", "reads 128 MiB a second"],
    ["docs/log", "sink/verify/complete", "END_MS: i64 = 10_000", "Of the last ten seconds of a run"],
    ["ARCHITECTURE", "admin/reading", "WALKS_MAX: usize = 2", "| 2 at once | waits 500 ms, then 503 |"],
    ["ARCHITECTURE", "admin/reading", "NICE: i32 = 10", "nice 10"],
    ["ARCHITECTURE", "limit/table", "SPINS: u32 = 200", "tried again 200 times at most"],
    ["ARCHITECTURE", "limit/sync", "SLOTS: usize = 1 << 18", "| 2^18 slots |"],
    ["ARCHITECTURE", "limit/clients", "SIGHTS_MAX: usize = 16 * 1024", "first sights of clients | workers | owner | 16,384 |"],
    ["ARCHITECTURE", "guard/bots", "PEOPLE: usize = 1024", "| 1,024 hashes |"],
    ["ARCHITECTURE", "bots/signature", "KEYS_MAX: usize = 64", "64 keys an operator"],
];

#[test]
fn every_fixed_deadline_and_bound_is_told_as_it_is() {
    for [told, file, constant, words] in TOLD {
        let [alone, with_rooms] = [format!("src/{file}.rs"), format!("src/{file}/mod.rs")];
        let source = page(if Path::new(&alone).exists() {
            &alone
        } else {
            &with_rooms
        });
        assert!(source.contains(constant), "{file}: no longer `{constant}`");
        let told = format!("{told}.md");
        assert!(page(&told).contains(words), "{told}: no `{words}`");
    }
}

#[test]
fn the_page_of_events_tells_every_field_as_its_schema_does() {
    let told = page("docs/events.md");
    for (topic, kind) in [
        ("http.access", "/$defs/access"),
        ("http.access", "/$defs/gap"),
        ("client.ban", ""),
        ("audit.event", ""),
    ] {
        let schema = page(&format!("docs/schemas/wardent.{topic}.v1.json"));
        let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
        let kind = schema.pointer(kind).unwrap();
        let required = kind["required"].as_array().unwrap();
        for (field, rule) in kind["properties"].as_object().unwrap() {
            let is_required = required.iter().any(|name| name == field);
            let there = if is_required { "always" } else { "" };
            let what = rule["description"].as_str().unwrap();
            let row = format!("| `{field}` | {there} | {what} |");
            assert!(told.contains(&row), "docs/events.md: no {row}");
        }
    }
}

/// Runs what a page shows behind `$`, with a `wardent` that knows its configuration.
fn shell(command: &str, dir: &Path, appended: &str) -> String {
    let output = Command::new("sh")
        .args([
            "-c",
            &format!("wardent() {{ \"$0\" \"$@\" {appended}; }}\n{command}"),
        ])
        .arg(env!("CARGO_BIN_EXE_wardent"))
        .current_dir(dir)
        .output()
        .unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn every_command_of_the_pages_is_one() {
    let dir = support::wardent::work_dir();
    fs::write(dir.path().join("bans.jsonl"), "").unwrap();
    let mut found = 0;
    for path in pages() {
        let text = fs::read_to_string(&path).unwrap();
        let lines = blocks(&text, "sh").into_iter().flat_map(str::lines);
        for line in lines.filter(|line| line.starts_with("wardent ")) {
            let command = line.split(" > ").next().unwrap();
            let help = shell(command, dir.path(), "--help");
            assert!(help.contains("Usage: wardent"), "{path:?}: {line}: {help}");
            found += 1;
        }
    }
    assert!(found >= 6, "the pages show {found} commands");
}

#[test]
fn the_page_of_the_command_line_has_every_command() {
    let dir = support::wardent::work_dir();
    let help = shell("wardent --help", dir.path(), "");
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let (commands, _) = commands.split_once("\nOptions:").unwrap();
    let words = commands.lines().filter_map(|line| {
        let name = line.strip_prefix("  ")?;
        name.starts_with(|c: char| c.is_ascii_lowercase())
            .then(|| name.split_whitespace().next().unwrap())
    });
    let told = page("docs/command-line.md");
    let mut count = 0;
    for word in words.filter(|word| *word != "help") {
        assert!(
            told.contains(&format!("| `wardent {word}` |")),
            "no `wardent {word}`"
        );
        count += 1;
    }
    assert!(count >= 15, "{help}");
    for shell_name in ["bash", "zsh", "fish"] {
        let script = shell(&format!("wardent completions {shell_name}"), dir.path(), "");
        assert!(script.contains("doctor"), "{shell_name}");
    }
    shell("wardent man .", dir.path(), "");
    let page = fs::read_to_string(dir.path().join("wardent-bans-list.1")).unwrap();
    assert!(page.contains("wardent bans list"), "{page}");
}

/// A line as two runs have it in common: without times, ids and the width of columns.
fn shape(line: &str) -> String {
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    let is_time = |word: &str| word.contains('T') && word.trim_end_matches(',').ends_with('Z');
    let is_id = |word: &str| word.len() == 26 && word.bytes().all(|b| b.is_ascii_alphanumeric());
    let is_span = |word: &str| {
        let word = word.trim_end_matches([',', ';']);
        word.strip_suffix(['d', 'h', 'm', 's'])
            .is_some_and(is_number)
    };
    let words: Vec<_> = line.split_whitespace().collect();
    let next = words.iter().skip(1).chain([&""]);
    let shapes = words.iter().zip(next).filter_map(|(&word, &next)| {
        let in_seconds = is_number(word) && next == "s";
        if is_span(word) || is_time(word) || is_id(word) || in_seconds {
            return None;
        }
        Some(if word.starts_with("uid:") {
            "uid"
        } else {
            word
        })
    });
    shapes.collect::<Vec<_>>().join(" ")
}

/// A line without its numbers.
fn without_numbers(line: &str) -> String {
    line.replace(|c: char| c.is_ascii_digit(), "")
}

/// Plays the sessions of a page one after another, and holds what is said against what it shows.
fn play(rig: &Rig, text: &str) {
    let mut played = 0;
    for session in blocks(text, "console") {
        for part in session.split("$ ").filter(|part| !part.trim().is_empty()) {
            let (command, shown) = part.split_once('\n').unwrap();
            let said = shell(command, rig.wardent.dir(), "--config wardent.yaml");
            let shapes = |text: &str| text.trim().lines().map(shape).collect::<Vec<_>>();
            assert_eq!(shapes(&said), shapes(shown), "$ {command}\n{said}");
            played += 1;
        }
    }
    assert!(played > 0);
}

/// A Wardent with the policy that the page shows first; the application refuses each login.
fn with_policy_of(text: &str) -> Rig {
    let policy = blocks(text, "yaml")[0].to_owned();
    let origin = support::origin::Origin::answering(|request| {
        let is_login = request.head.target.starts_with("/accounts/login/");
        let status = if is_login {
            "401 Unauthorized"
        } else {
            "200 OK"
        };
        support::origin::answer(status, "", b"")
    });
    Rig::around(origin, |setup| setup.policy(policy))
}

#[test]
fn limits_and_bans_are_as_their_page_shows_them() {
    let text = page("docs/bans-and-limits.md");
    let rig = with_policy_of(&text);
    let login = format!("POST /accounts/login/ HTTP/1.1\r\n{P}Content-Length: 0\r\n\r\n");
    for _ in 0..5 {
        assert_eq!(rig.wardent.ask(&login).status, 401);
    }
    let refused = rig.wardent.ask(&login);
    let head = support::message::latin1(&refused.head.raw);
    for line in blocks(&text, "http")[0].lines() {
        let is_there = head
            .lines()
            .any(|own| without_numbers(own) == without_numbers(line));
        assert!(is_there, "no `{line}` in {head}");
    }
    let trap = format!("GET /.env HTTP/1.1\r\n{}\r\n", p_from("203.0.113.9"));
    assert_eq!(rig.wardent.ask(&trap).status, 403);
    time::eventually("it is banned", || {
        rig.wardent.ask(&trap).header("x-wardent-reason") == Some("banned")
    });
    play(&rig, &text);
}

#[test]
fn bots_are_treated_as_their_page_shows_it() {
    const BOT: &str = "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)";
    let text = page("docs/bots.md");
    let rig = with_policy_of(&text);
    for client in ["198.51.100.1", "198.51.100.2"] {
        let fields = p_from(client).replace("wtest/1", BOT);
        let sent = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        assert_eq!(rig.wardent.ask(sent).status, 200);
    }
    play(&rig, &text);
}

#[test]
fn a_policy_is_tried_as_its_page_shows_it() {
    let text = page("docs/replay.md");
    let rig = with_policy_of(&text);
    fs::write(rig.wardent.dir().join("new.yaml"), blocks(&text, "yaml")[1]).unwrap();
    for (client, count, line) in [
        ("198.51.100.7", 5, "POST /accounts/login/"),
        ("198.51.100.7", 1, "GET /"),
        ("203.0.113.9", 4, "GET /search"),
        ("203.0.113.9", 1, "GET /"),
    ] {
        for _ in 0..count {
            let fields = p_from(client);
            rig.wardent.ask(format!(
                "{line} HTTP/1.1\r\n{fields}Content-Length: 0\r\n\r\n"
            ));
        }
    }
    time::eventually("all of it is in the log", || {
        let said = shell(
            "wardent replay --policy new.yaml --output json",
            rig.wardent.dir(),
            "--config wardent.yaml",
        );
        said.contains("\"requests\":11,")
    });
    play(&rig, &text);
}

/// The metrics as a table: name as a query has it, labels, what it says. Of what has no sample yet the labels
/// are those that `told` says.
fn metrics_table(scraped: &str, told: &str) -> String {
    let mut labels = BTreeMap::<&str, Vec<String>>::new();
    for sample in scraped.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = sample.split_once(['{', ' ']).unwrap();
        let names = rest.split("=\"").map(|part| part.rsplit([',', ' ']).next());
        let mut names: Vec<_> = names.map(|name| format!("`{}`", name.unwrap())).collect();
        names.pop();
        labels.entry(name).or_insert(names);
    }
    let mut table = String::new();
    let mut help = "";
    for line in scraped.lines() {
        if let Some(told) = line.strip_prefix("# HELP ") {
            help = told.split_once(' ').unwrap().1;
        }
        let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|told| told.split_once(' '))
        else {
            continue;
        };
        let sample = match kind {
            "histogram" => format!("{name}_bucket"),
            _ => name.to_owned(),
        };
        let labels = match labels.get(sample.as_str()) {
            Some(labels) => labels.join(", "),
            None => {
                let line = told.split_once(&format!("| `{sample}` | "));
                let labels = line.map(|(_, line)| line.split(" |").next().unwrap());
                labels.unwrap_or_default().to_owned()
            }
        };
        writeln!(table, "| `{sample}` | {labels} | {help} |").unwrap();
    }
    table
}

#[test]
fn every_metric_is_told_as_it_is() {
    let scraped = support::metrics::of_a_node();
    // Without this bucket, `histogram_quantile` has no answer.
    assert!(scraped.contains("_bucket{le=\"+Inf\"}"), "{scraped}");
    let told = page("docs/metrics.md");
    let table = metrics_table(&scraped, &told);
    assert!(told.contains(&table), "docs/metrics.md: not this:\n{table}");
    for path in pages() {
        let text = fs::read_to_string(&path).unwrap();
        let is_metric = |word: &&str| word.starts_with("wardent_") && *word != "wardent_middleware";
        for name in text.split('`').filter(is_metric) {
            // Of a family without samples the type is told all the same.
            let family = format!("# TYPE {name} ");
            let tells = |line: &str| line.starts_with(name) || line.starts_with(&family);
            let is_there = scraped.lines().any(tells);
            assert!(is_there, "{path:?}: there is no {name}");
        }
    }
}
