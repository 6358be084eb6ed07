//! What a replay says of requests in the log, whatever stands there and in whatever order.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

use std::{
    fs,
    sync::{Arc, atomic::AtomicBool, mpsc},
    time::Duration,
};

use tempfile::TempDir;
use wardent::{
    base::{
        clock::Clock,
        disk::{Disk, System},
        id::RequestIds,
    },
    bots::{Catalogue, Networks, Verifier},
    config::{self, secrets::Secrets, settings},
    event::{
        access::{self, Access, SeenBot, Verdict},
        place::{Place, Run},
        privacy::{AddressText, Privacy},
        time::Stamps,
    },
    guard::bots::Bots,
    log::{self, Append, Builder, Compression, Partition, Settings, TopicConfig, TopicSettings},
    replay::{Change, Kind, Mind, Plan, Report, replay},
};

/// When the recorded traffic begins.
const BEGIN_MS: u64 = 1_795_255_200_000;

const HOUR_MS: u64 = 3_600_000;

const WHO: &str = "198.51.100.7";
const OTHER: &str = "203.0.113.9";

/// A policy that limits and bans nobody.
const OPEN: &str = "defaults: {limit: {rate: 1000000/s, burst: 1000000}}\n";

/// Requests that were, to be changed before they are written.
#[derive(Debug, Clone)]
struct Was {
    at_ms: u64,
    client: Option<AddressText>,
    is_proven: bool,
    method: &'static str,
    path: String,
    is_cross_site: bool,
    status: u16,
    verdict: Verdict,
    reason: Option<&'static str>,
    why: Option<&'static str>,
    is_observed: bool,
    route: &'static str,
    body_bytes: Option<u64>,
    answered_us: Option<u64>,
    total_us: u64,
    user_agent: &'static str,
    bot: Option<(&'static str, &'static str, Option<&'static str>)>,
    partition: usize,
}

/// A request that was answered with 200, after 1 ms.
fn was(at_ms: u64, client: &str, path: &str) -> Was {
    Was {
        at_ms,
        client: Some(Privacy::Full.of(client.parse().unwrap())),
        is_proven: true,
        method: "GET",
        path: path.to_owned(),
        is_cross_site: false,
        status: 200,
        verdict: Verdict::Passed,
        reason: None,
        why: None,
        is_observed: false,
        route: "defaults",
        body_bytes: None,
        answered_us: Some(1_000),
        total_us: 1_000,
        user_agent: "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
        bot: None,
        partition: 0,
    }
}

impl Was {
    fn refused(self, status: u16, reason: &'static str) -> Self {
        Self {
            status,
            verdict: Verdict::Refused,
            reason: Some(reason),
            why: Some("because"),
            answered_us: None,
            ..self
        }
    }

    fn answered(self, status: u16) -> Self {
        Self { status, ..self }
    }

    fn written(&self, ids: &mut RequestIds, seq: u64) -> (i64, Vec<u8>) {
        let id = ids.next(BEGIN_MS + self.at_ms);
        let peer = Privacy::Full.of("127.0.0.1".parse().unwrap());
        let access = Access {
            place: Some(Place {
                run: Run::new(7),
                lane: 0,
                seq,
            }),
            arrived_unix_ms: BEGIN_MS + self.at_ms,
            id: id.as_bytes(),
            client: self.client.as_ref(),
            is_proven: self.is_proven,
            peer: Some(&peer),
            edge: None,
            method: self.method.as_bytes(),
            host: b"app.test",
            path: self.path.as_bytes(),
            is_cross_site: self.is_cross_site,
            status: self.status,
            verdict: self.verdict,
            reason: self.reason,
            is_observed: self.is_observed,
            why: self.why,
            rule: None,
            route: self.route,
            body_bytes_in: self.body_bytes.unwrap_or(0),
            bytes_out: 100,
            total_us: self.total_us,
            body_us: self.body_bytes.map(|_| 5),
            connected_us: None,
            answered_us: self.answered_us,
            upstream: None,
            user_agent: self.user_agent.as_bytes(),
            bot: self.bot.map(|(name, category, standing)| SeenBot {
                name: name.as_bytes(),
                category,
                standing,
            }),
            country: None,
            ray: None,
        };
        let mut text = Vec::new();
        access.write_json(&Stamps::default(), &mut text);
        (i64::try_from(BEGIN_MS + self.at_ms).unwrap(), text)
    }
}

/// A log of the access topic with two partitions.
struct Log {
    dir: TempDir,
    partitions: Vec<Arc<Partition>>,
}

/// Records of each partition: the moment and the value.
type Records = [Vec<(i64, Vec<u8>)>; 2];

impl Log {
    /// The requests' ids count up in the order in which they came; they are written in the given one.
    fn of(requests: &[Was]) -> Self {
        let mut ids = RequestIds::starting_at(1);
        let mut order: Vec<_> = (0..requests.len()).collect();
        order.sort_by_key(|&nth| requests[nth].at_ms);
        let mut texts = vec![(0, Vec::new()); requests.len()];
        for (seq, nth) in (1..).zip(order) {
            texts[nth] = requests[nth].written(&mut ids, seq);
        }
        let mut records = Records::default();
        for (request, text) in requests.iter().zip(texts) {
            records[request.partition].push(text);
        }
        Self::written(&records)
    }

    fn written(records: &Records) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(System);
        let settings = Settings {
            dir: dir.path().to_owned(),
            disk_max: 1 << 30,
            ballast_bytes: 0,
            topics: vec![TopicSettings {
                name: access::TOPIC.to_owned(),
                partitions: 2,
                config: TopicConfig::default(),
            }],
        };
        let opened = log::open(settings, Arc::clone(&disk), Clock::system()).unwrap();
        let running = log::start(opened.appender, opened.flusher, opened.changer).unwrap();
        for (partition, records) in opened.log.partitions().iter().zip(records) {
            for batch in records.chunks(7) {
                let mut builder = Builder::new();
                for (unix_ms, text) in batch {
                    builder.push(*unix_ms, Some(b"key"), Some(text), &[]);
                }
                let (told, done) = mpsc::channel();
                let append = Append {
                    partition: Arc::clone(partition),
                    batch: builder.finish(Compression::Lz4),
                    done: Box::new(move |result| told.send(result.is_ok()).unwrap()),
                };
                opened.log.appends().offer(append).map_err(drop).unwrap();
                assert!(done.recv().unwrap());
            }
        }
        running.stop(Duration::from_secs(60));
        let partitions = log::open_to_read(dir.path(), &disk).unwrap();
        Self { dir, partitions }
    }

    fn replay(&self, current: &str, candidate: &str) -> Report {
        self.replay_until(2 * HOUR_MS, current, candidate)
    }

    fn replay_until(&self, until_ms: u64, current: &str, candidate: &str) -> Report {
        self.replay_unless(&AtomicBool::new(false), until_ms, current, candidate)
    }

    fn replay_unless(
        &self,
        is_over: &AtomicBool,
        until_ms: u64,
        current: &str,
        candidate: &str,
    ) -> Report {
        let (verifier, _) = Verifier::new(Networks::shipped());
        let plan = Plan {
            partitions: &self.partitions,
            since_ms: BEGIN_MS,
            until_ms: BEGIN_MS + until_ms,
            of: None,
            bots: &Bots::new(Catalogue::shipped(), verifier),
            is_over,
        };
        replay(&plan, self.mind(current), self.mind(candidate), &mut |_| {}).unwrap()
    }

    fn mind(&self, policy: &str) -> Mind {
        let home = tempfile::tempdir_in(self.dir.path()).unwrap();
        fs::write(home.path().join("policy.yaml"), policy).unwrap();
        let wardent = "listen: [127.0.0.1:0]\nupstream: {servers: [127.0.0.1:1]}\npolicy: policy.yaml\n\
             secret: {keys: [{id: k1, from: {file: is-not-there}}]}\nlog: {dir: log}\n";
        let config = home.path().join("wardent.yaml");
        fs::write(&config, wardent).unwrap();
        let loaded = config::load(&config).unwrap();
        let mut lasting = settings::Lasting {
            secrets: Secrets::stand_ins().unwrap(),
            ..settings::Lasting::default()
        };
        let built = settings::policy(&loaded, &mut lasting, 1).unwrap();
        Mind {
            policy: built.policy,
            bans: built.bans,
            clients_max: 1_000,
            bans_max: 1_000,
        }
    }
}

/// What is told of one reason: happened, with the policy in force, with the candidate.
fn total(report: &Report, outcome: &str, reason: &str) -> [u64; 3] {
    let found = report
        .totals
        .iter()
        .find(|total| (total.outcome, total.reason.unwrap_or("")) == (outcome, reason));
    found.map_or([0; 3], |total| {
        [total.happened, total.current, total.candidate]
    })
}

fn only_change(report: &Report) -> &Change {
    let [change] = &report.changes[..] else {
        panic!("{:#?}", report.changes)
    };
    change
}

/// Ten requests of one client within a second, and one of another's.
fn ten_and_one() -> Vec<Was> {
    let mut requests: Vec<_> = (0..10).map(|nth| was(nth * 100, WHO, "/a")).collect();
    requests.push(was(500, OTHER, "/a"));
    requests
}

#[test]
fn a_stricter_limit_is_told_with_whom_it_would_have_cost_what() {
    let candidate = "defaults: {limit: {rate: 1/h, burst: 4}}\n";
    let report = Log::of(&ten_and_one()).replay(OPEN, candidate);
    assert_eq!(
        (report.requests, report.clients, report.complete),
        (11, 2, true)
    );
    assert_eq!(total(&report, "passed", ""), [11, 11, 5]);
    assert_eq!(total(&report, "refused", "rate_limited"), [0, 0, 6]);
    let change = only_change(&report);
    assert_eq!(
        (change.change, change.reason),
        (Kind::Refused, "rate_limited")
    );
    assert_eq!(
        (change.route.as_str(), change.requests, change.clients),
        ("defaults", 6, 1)
    );
    assert_eq!((change.served, change.served_otherwise), (6, 4));
    assert_eq!(change.first, "2026-11-21T10:00:00.400Z");
    assert_eq!(change.last, "2026-11-21T10:00:00.900Z");
    let [example] = &change.examples[..] else {
        panic!("{change:#?}")
    };
    assert_eq!(example.client.as_deref(), Some(WHO));
    assert_eq!((example.path.as_str(), example.status), ("/a", 200));
    let [client] = &report.most_concerned[..] else {
        panic!("{:#?}", report.most_concerned)
    };
    assert_eq!(
        (client.requests, client.served, client.refused),
        (10, 10, 6)
    );
    assert_eq!((client.refused_served, client.let_in), (6, 0));
}

#[test]
fn the_same_policy_changes_nothing_and_the_other_way_round_lets_in() {
    let strict = "defaults: {limit: {rate: 1/h, burst: 4}}\n";
    let log = Log::of(&ten_and_one());
    let same = log.replay(strict, strict);
    assert!(same.changes.is_empty() && same.most_concerned.is_empty());
    assert_eq!(total(&same, "refused", "rate_limited"), [0, 6, 6]);
    let back = log.replay(strict, OPEN);
    let change = only_change(&back);
    assert_eq!(
        (change.change, change.reason, change.requests),
        (Kind::LetIn, "rate_limited", 6)
    );
}

#[test]
fn what_is_only_observed_refuses_nobody_and_is_told_as_that() {
    let observe = "mode: observe\ndefaults: {limit: {rate: 1/h, burst: 4}}\nbans: {threshold: 3}\n";
    let enforce = observe.replace("observe", "enforce");
    let log = Log::of(&ten_and_one());
    let report = log.replay(OPEN, observe);
    assert_eq!(total(&report, "passed", ""), [11, 11, 5]);
    assert_eq!(total(&report, "observed", "rate_limited"), [0, 0, 6]);
    let change = only_change(&report);
    assert_eq!((change.change, change.requests), (Kind::Observed, 6));
    // What would be banned passes, too: it binds nobody.
    assert_eq!(report.newly_banned, 1);
    assert!(!report.newly_banned_first[0].enforced);
    let report = log.replay(observe, &enforce);
    assert_eq!(total(&report, "observed", "rate_limited"), [0, 6, 0]);
    assert_eq!(total(&report, "refused", "rate_limited"), [0, 0, 3]);
    assert_eq!(total(&report, "refused", "banned"), [0, 0, 3]);
}

#[test]
fn a_ban_is_told_with_who_and_since_when_and_ends_in_its_time() {
    let candidate = "defaults: {limit: {rate: 1000/s, burst: 1000}}\n\
         routes: [{name: trap, match: {path: /.env}, trap: true}]\nbans: {duration: 10m}\n";
    let mut requests = vec![was(0, WHO, "/a"), was(1_000, WHO, "/.env")];
    requests.extend((1..=12).map(|minute| was(1_000 + minute * 60_000, WHO, "/a")));
    let report = Log::of(&requests).replay(OPEN, candidate);
    // The moment of its end is still its own.
    assert_eq!(total(&report, "refused", "banned"), [0, 0, 10]);
    assert_eq!(total(&report, "refused", "trap"), [0, 0, 1]);
    assert_eq!((report.bans_current, report.bans_candidate), (0, 1));
    assert_eq!((report.newly_banned, report.no_longer_banned), (1, 0));
    let ban = &report.newly_banned_first[0];
    assert_eq!(
        (ban.client.as_str(), ban.why.as_str(), ban.enforced),
        (WHO, "trap", true)
    );
    assert_eq!(ban.since, "2026-11-21T10:00:01.000Z");
    assert_eq!(ban.until, "2026-11-21T10:10:01.000Z");
    assert_eq!((ban.served, ban.requests.len()), (14, 1));
}

#[test]
fn the_applications_answers_count_when_they_came_and_not_for_another_sites_doing() {
    let candidate = "defaults: {limit: {rate: 1000/s, burst: 1000}}\n\
         routes: [{name: login, match: {path: /login}, penalize: {\"401\": 1}}]\nbans: {threshold: 3}\n";
    let login = |at_ms| Was {
        answered_us: Some(500_000),
        total_us: 500_000,
        ..was(at_ms, WHO, "/login").answered(401)
    };
    // Five at once: each was on its way before the third was answered.
    let mut requests: Vec<_> = (0..5).map(|nth| login(nth * 10)).collect();
    requests.push(login(600));
    requests.extend((0..5).map(|nth| Was {
        client: Some(Privacy::Full.of(OTHER.parse().unwrap())),
        is_cross_site: true,
        ..login(nth * 1_000)
    }));
    let report = Log::of(&requests).replay(OPEN, candidate);
    assert_eq!(total(&report, "refused", "banned"), [0, 0, 1]);
    assert_eq!(report.newly_banned, 1);
    assert_eq!(
        report.newly_banned_first[0].since,
        "2026-11-21T10:00:00.520Z"
    );
    assert_eq!(report.newly_banned_first[0].client, WHO);
}

#[test]
fn the_order_of_the_log_is_not_the_order_of_arrival() {
    let candidate = "defaults: {limit: {rate: 30/m, burst: 3}}\nbans: {threshold: 20}\n";
    // A fifth of them took up to eight seconds, and stand in the log where they ended.
    let mut requests: Vec<_> = (0..1_000_u64)
        .map(|nth| Was {
            total_us: match nth % 5 {
                0 => nth * 7_919 % 8_000 * 1_000,
                _ => 1_000,
            },
            ..was(nth * 50, &format!("198.51.100.{}", nth * 31 % 7), "/a")
        })
        .collect();
    let in_order = Log::of(&requests).replay(OPEN, candidate);
    assert!(total(&in_order, "refused", "rate_limited")[2] > 100);
    assert!(total(&in_order, "refused", "banned")[2] > 10);
    requests.sort_by_key(|request| request.at_ms + request.total_us / 1_000);
    for (nth, request) in requests.iter_mut().enumerate() {
        request.partition = nth * 7 / 3 % 2;
    }
    let as_written = Log::of(&requests).replay(OPEN, candidate);
    assert_eq!(as_written.read.late, 0);
    assert_eq!(as_written, in_order);
}

#[test]
fn who_took_too_long_is_judged_late_and_told() {
    let long = Was {
        total_us: 3_000_000_000,
        ..was(1_000, WHO, "/a")
    };
    // What compresses badly, so that one read is a small part of it.
    let noise = |nth: u64| {
        let numbers = (1..26).map(|part| (nth * 26 + part).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let noise: String = numbers.map(|number| format!("{number:016x}")).collect();
        format!("/{noise}")
    };
    let mut requests: Vec<_> = (0..5_000)
        .map(|nth| was(nth * 1_000, WHO, &noise(nth)))
        .collect();
    requests.push(long);
    let report = Log::of(&requests).replay(OPEN, OPEN);
    assert_eq!((report.requests, report.read.late), (5_001, 1));
    assert_eq!(total(&report, "passed", ""), [5_001; 3]);
}

#[test]
fn what_is_no_event_is_counted_and_passed_over() {
    let at = |ms: u64| i64::try_from(BEGIN_MS + ms).unwrap();
    let mut ids = RequestIds::starting_at(1);
    let good = |ids: &mut RequestIds, ms| was(ms, WHO, "/a").written(ids, 1);
    let gap = r#"{"event":"gap","v":1,"time":"2026-11-21T10:00:00.001Z","run":"00000007","lane":0,"from":2,"to":8,"events":7,"reason":"lane_full"}"#;
    let mut records = Records::default();
    records[0] = vec![
        good(&mut ids, 0),
        (at(1), b"{\"event\":\"access\"".to_vec()),
        (at(1), b"\xff\xfe\x00".to_vec()),
        (at(1), b"".to_vec()),
        (at(1), b"{\"event\":\"audit\",\"v\":1}".to_vec()),
        (at(1), gap.as_bytes().to_vec()),
        (at(1), vec![b'{'; 100_000]),
        // A clock that was wrong: neither is wanted.
        (0, b"{}".to_vec()),
        (i64::MAX, b"{}".to_vec()),
        (-5, b"{}".to_vec()),
        good(&mut ids, 5),
    ];
    records[1] = vec![good(&mut ids, 3)];
    let report = Log::written(&records).replay(OPEN, OPEN);
    assert_eq!(report.requests, 3);
    assert_eq!((report.read.unreadable, report.read.lost), (5, 7));
    assert!(report.complete);
}

#[test]
fn what_the_record_does_not_tell_stays_as_it_was_and_is_counted() {
    let at = |ms| was(ms, WHO, "/a");
    let requests = [
        Was {
            is_proven: false,
            ..at(0).refused(403, "bad_secret")
        },
        at(1).refused(403, "bad_signature"),
        at(2).refused(413, "body_too_large"),
        at(3).refused(400, "bad_client_ip"),
        Was {
            route: "",
            client: None,
            ..at(4).refused(400, "bad_request")
        },
        // A body that broke off, after its head had passed.
        at(5).refused(400, "bad_request"),
        at(6).refused(403, "banned"),
        Was {
            body_bytes: Some(2_000),
            ..at(7)
        },
        Was {
            client: Some(Privacy::Truncate.of(WHO.parse().unwrap())),
            ..at(8).refused(429, "rate_limited")
        },
    ];
    let signed = "defaults: {limit: {rate: 1000/s, burst: 1000}, body: 1KiB}\n\
         routes: [{name: a, match: {path: /a}, signature: {scheme: stripe, secrets: [{file: none}]}}]\n";
    let report = Log::of(&requests).replay(OPEN, signed);
    for (reason, counts) in [
        ("bad_secret", [1, 1, 1]),
        // Where nothing asks for one, it passes.
        ("bad_signature", [1, 0, 1]),
        ("body_too_large", [1, 1, 2]),
        ("bad_client_ip", [1, 1, 1]),
        ("bad_request", [2, 2, 2]),
        ("banned", [1, 0, 0]),
        ("rate_limited", [1, 1, 1]),
    ] {
        assert_eq!(total(&report, "refused", reason), counts, "{reason}");
    }
    let unknown = report.unknown;
    assert_eq!((unknown.earlier_ban, unknown.length), (1, 1));
    assert_eq!((unknown.answer, unknown.secret), (1, 0));
    assert_eq!(report.read.truncated, 1);
    assert!(unknown.signature > 0);
}

#[test]
fn bots_are_who_they_were_found_to_be() {
    let bot = |at_ms, name, category, standing| Was {
        bot: Some((name, category, standing)),
        ..was(at_ms, WHO, "/a")
    };
    let requests = [
        bot(0, "Googlebot", "search-engine", Some("verified")),
        bot(1, "Googlebot", "search-engine", Some("impostor")),
        // It has signed: its user agent is a browser's.
        bot(2, "ChatGPT agent", "ai-assistant", Some("verified")),
        // No bot was looked for then; its word is there.
        Was {
            user_agent: "Mozilla/5.0 (compatible; GPTBot/1.2; +https://openai.com/gptbot)",
            ..was(3, WHO, "/a")
        },
        was(4, WHO, "/a"),
    ];
    let log = Log::of(&requests);
    let limit = "limit: {rate: 1000/s, burst: 1000}";
    let skipping = format!("defaults: {{bots: skip, {limit}}}\n");
    let report = log.replay(&skipping, &format!("defaults: {{{limit}}}\n"));
    assert_eq!(total(&report, "refused", "bot"), [0, 0, 3]);
    let allowing =
        format!("defaults: {{bots: {{ai-assistant: allow, ai-training: allow}}, {limit}}}\n");
    let report = log.replay(&skipping, &allowing);
    assert_eq!(total(&report, "refused", "bot"), [0, 0, 1]);
}

#[test]
fn a_replay_of_part_of_the_time_knows_no_more() {
    let log = Log::of(&ten_and_one());
    let report = log.replay_until(500, OPEN, OPEN);
    assert_eq!((report.requests, report.clients), (5, 1));
    assert_eq!(report.last.as_deref(), Some("2026-11-21T10:00:00.400Z"));
    let nothing = log.replay_until(0, OPEN, OPEN);
    assert_eq!((nothing.requests, nothing.first), (0, None));
}

#[test]
fn who_ends_it_early_gets_what_was_replayed_until_then() {
    let requests: Vec<_> = (0..20_000).map(|nth| was(nth, WHO, "/a")).collect();
    let log = Log::of(&requests);
    let report = log.replay_unless(&AtomicBool::new(true), HOUR_MS, OPEN, OPEN);
    assert!(!report.complete);
    assert!(
        report.requests > 0 && report.requests < 20_000,
        "{}",
        report.requests
    );
}
