//! Of the registry on a log: what it answers outlives it, and what another left there is understood.

use tempfile::TempDir;

use super::*;
use crate::{
    base::disk::System,
    log::{Cleanup, Running, Settings, TopicConfig, TopicSettings},
};

struct Stage {
    dir: TempDir,
    log: Arc<Log>,
    running: Option<Running>,
    registry: Registry,
    replayed: Replayed,
}

impl Stage {
    fn new() -> Self {
        Self::on(tempfile::tempdir().unwrap())
    }

    fn on(dir: TempDir) -> Self {
        let (log, running) = open(&dir);
        let (registry, replayed) = Registry::open(&log, &Clock::system()).unwrap();
        Self {
            dir,
            log,
            running: Some(running),
            registry,
            replayed,
        }
    }

    /// Another life on the same directory.
    fn again(mut self) -> Self {
        self.running.take().unwrap().stop(Duration::from_secs(30));
        Self::on(self.dir)
    }
}

fn open(dir: &TempDir) -> (Arc<Log>, Running) {
    let settings = Settings {
        dir: dir.path().to_owned(),
        disk_max: 1 << 30,
        ballast_bytes: 0,
        topics: vec![TopicSettings {
            name: TOPIC.to_owned(),
            partitions: 1,
            config: TopicConfig {
                cleanup: Cleanup::Compact,
                ..TopicConfig::default()
            },
        }],
    };
    let opened = log::open(settings, Arc::new(System), Clock::system()).unwrap();
    let running = log::start(opened.appender, opened.flusher, opened.changer).unwrap();
    (opened.log, running)
}

/// Appends a record as anybody might.
fn put(log: &Log, key: &str, value: Option<&str>) {
    let mut builder = Builder::new();
    let value = value.map(str::as_bytes);
    builder.push(1, Some(key.as_bytes()), value, &[]);
    let (told, done) = std::sync::mpsc::channel();
    let append = Append {
        partition: log.partition(TOPIC, 0).unwrap(),
        batch: builder.finish(Compression::None),
        done: Box::new(move |result| told.send(result.is_ok()).unwrap()),
    };
    log.appends().offer(append).unwrap();
    assert!(done.recv().unwrap());
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

const SUBJECT: &str = "orders-value";

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"Order","fields":[{fields}]}}"#)
}

#[test]
fn what_was_answered_is_there_after_a_start() {
    let stage = Stage::new();
    let first = record(r#"{"name":"a","type":"long"}"#);
    let second = record(r#"{"name":"a","type":"long"},{"name":"b","type":"long","default":0}"#);
    let bad = record(r#"{"name":"a","type":"long"},{"name":"c","type":"long"}"#);
    run(async {
        let registry = &stage.registry;
        let id = registry.register(SUBJECT, Kind::Avro, first.clone()).await;
        assert_eq!(id, Ok(100));
        let refused = registry
            .register(SUBJECT, Kind::Avro, bad)
            .await
            .unwrap_err();
        assert_eq!((refused.code, refused.status()), (409, 409));
        let id = registry.register(SUBJECT, Kind::Avro, second.clone()).await;
        assert_eq!(id, Ok(101));
        let id = registry
            .register("shapes-value", Kind::Json, "{}".to_owned())
            .await;
        assert_eq!(id, Ok(102));
        let level = Some(Level::FullTransitive);
        registry.set_level(Some(SUBJECT), level).await.unwrap();
        registry.set_level(None, Some(Level::None)).await.unwrap();
        let deleted = registry.delete_version(SUBJECT, Which::Latest, false).await;
        assert_eq!(deleted, Ok(2));
        let deleted = registry.delete_subject("shapes-value", false).await;
        assert_eq!(deleted, Ok(vec![1]));
    });
    let stage = stage.again();
    let registry = &stage.registry;
    assert_eq!((stage.replayed.unreadable, stage.replayed.damaged), (0, 0));
    assert_eq!(registry.versions(SUBJECT, false), Ok(vec![1]));
    assert_eq!(registry.versions(SUBJECT, true), Ok(vec![1, 2]));
    assert_eq!(registry.schema(101).unwrap().schema.text(), second);
    assert_eq!(
        registry.own_level(Some(SUBJECT)),
        Some(Level::FullTransitive)
    );
    assert_eq!(registry.own_level(None), Some(Level::None));
    let there = registry.subjects("", false);
    assert_eq!(there.len(), 4, "{there:?}");
    let shown = registry.version("wardent.http.access-value", Which::Latest, false);
    assert_eq!(shown.unwrap().id, 1);
    // Own schemas are put once.
    let end = |stage: &Stage| stage.log.partition(TOPIC, 0).unwrap().high_watermark();
    let before = end(&stage);
    assert_eq!(end(&stage.again()), before);
}

#[test]
fn what_another_registry_left_is_understood_and_the_rest_told_once_each() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (log, running) = open(&dir);
        put(&log, r#"{"keytype":"NOOP","magic":0}"#, None);
        put(
            &log,
            r#"{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}"#,
            Some(
                r#"{"subject":"s","version":1,"id":412,"md5":"x","schema":"\"string\"","deleted":false}"#,
            ),
        );
        put(
            &log,
            r#"{"keytype":"SCHEMA","subject":"p","version":1,"magic":1}"#,
            Some(
                r#"{"subject":"p","version":1,"id":413,"schemaType":"PROTOBUF","schema":"message A {}","deleted":false}"#,
            ),
        );
        put(
            &log,
            r#"{"keytype":"CONFIG","subject":null,"magic":0}"#,
            Some(r#"{"compatibilityLevel":"FORWARD","more":1}"#),
        );
        put(&log, "no JSON", Some("x"));
        put(
            &log,
            r#"{"keytype":"SCHEMA","subject":"t","version":1,"magic":1}"#,
            Some(r#"{"subject":"t","version":1,"id":2,"schema":"\"string\"","deleted":false}"#),
        );
        running.stop(Duration::from_secs(30));
    }
    let stage = Stage::on(dir);
    let registry = &stage.registry;
    assert_eq!((stage.replayed.records, stage.replayed.unreadable), (6, 2));
    let letters: Vec<_> = stage
        .replayed
        .letters
        .iter()
        .map(|letter| letter.offset)
        .collect();
    assert_eq!(letters, [4, 5]);
    assert_eq!(
        stage.replayed.letters[0].key.as_deref(),
        Some(&b"no JSON"[..])
    );
    assert_eq!(registry.own_level(None), Some(Level::Forward));
    let shown = registry.schema(413).unwrap().as_json();
    assert_eq!(shown["schemaType"], "PROTOBUF");
    run(async {
        let id = registry
            .register("s", Kind::Avro, "\"string\"".to_owned())
            .await;
        assert_eq!(id, Ok(412));
        let id = registry
            .register("u", Kind::Avro, "\"long\"".to_owned())
            .await;
        assert_eq!(id, Ok(414));
        registry
            .delete_version("s", Which::Number(1), false)
            .await
            .unwrap();
    });
    // What the other said besides is still said.
    let partition = stage.log.partition(TOPIC, 0).unwrap();
    let bytes = partition
        .read(partition.high_watermark() - 1, 1 << 20)
        .unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains(r#""deleted":true,"md5":"x""#), "{text}");
}

#[test]
fn a_change_that_nobody_waits_for_is_made_all_the_same() {
    let stage = Stage::new();
    run(async {
        let text = "\"long\"".to_owned();
        let begun = stage.registry.register(SUBJECT, Kind::Avro, text);
        // The client goes away at the first chance.
        let gone = timeout(Duration::ZERO, begun).await;
        let is_there = || stage.registry.versions(SUBJECT, false).is_ok();
        if gone.is_err() {
            let next = stage
                .registry
                .register(SUBJECT, Kind::Avro, "\"long\"".to_owned());
            assert_eq!(next.await, Ok(100));
        }
        assert!(is_there());
    });
    let stage = stage.again();
    assert_eq!(stage.registry.versions(SUBJECT, false), Ok(vec![1]));
}

#[test]
fn changes_at_once_are_made_one_after_the_other() {
    let stage = Stage::new();
    let ids = run(async {
        let each = (0..20).map(|n| {
            let registry = stage.registry.clone();
            let subject = format!("s{n}");
            let text = format!(r#"{{"type":"fixed","name":"F","size":{}}}"#, n % 10 + 1);
            tokio::spawn(async move { registry.register(&subject, Kind::Avro, text).await })
        });
        let mut ids = Vec::new();
        for one in each.collect::<Vec<_>>() {
            ids.push(one.await.unwrap().unwrap());
        }
        ids
    });
    let mut different = ids.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different, (100..110).collect::<Vec<_>>());
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(*id, ids[n % 10]);
    }
}

#[test]
fn a_turn_lasts_as_long_as_the_work_whoever_waits_for_it() {
    run(async {
        let turns = Arc::new(Semaphore::new(1));
        let (tell, begun) = oneshot::channel();
        let (end, until_ended) = std::sync::mpsc::channel::<()>();
        let own = Arc::clone(&turns);
        let looking = tokio::spawn(async move {
            let work = move || {
                tell.send(()).unwrap();
                until_ended.recv().unwrap();
            };
            look(&own, work).await
        });
        begun.await.unwrap();
        looking.abort();
        assert!(looking.await.unwrap_err().is_cancelled());
        assert_eq!(turns.available_permits(), 0);
        end.send(()).unwrap();
        let next = timeout(Duration::from_secs(30), turns.acquire()).await;
        drop(next.unwrap().unwrap());
    });
}

#[test]
fn who_changes_something_waits_for_no_reader() {
    let stage = Stage::new();
    let registry = &stage.registry;
    run(async {
        let schema = || record(r#"{"name":"a","type":"long"}"#);
        let reader = registry.0.reading.acquire().await.unwrap();
        let id = registry.register(SUBJECT, Kind::Avro, schema()).await;
        assert_eq!(id, Ok(100));
        tokio::time::pause();
        let busy = registry.find(SUBJECT, Kind::Avro, schema(), false).await;
        assert_eq!(busy.unwrap_err().code, 50_003);
        tokio::time::resume();
        drop(reader);
        let found = registry.find(SUBJECT, Kind::Avro, schema(), false).await;
        assert_eq!(found.unwrap().id, 100);
    });
}
