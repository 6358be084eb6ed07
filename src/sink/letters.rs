//! Dead letters: what a consumer of Wardent's own could not read or deliver, kept for whoever looks.
//!
//! Each goes to the topic `wardent.dead.letter` once, with its own key, value and headers, and behind them
//! those that Kafka Connect tells such records by (KIP-298). Whoever puts one there waits for nothing: a letter
//! that finds no room, or does not get to the disk, is counted as lost.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::log::{Append, Builder, Compression, Headers, Log, Partition, View};

/// The topic.
pub const TOPIC: &str = "wardent.dead.letter";

/// Bytes of a letter's key, value and headers at most: its value is left out where they would be more.
const LETTER_BYTES_MAX: usize = 1_000_000;
/// Bytes of what went wrong at most, of each of its texts.
const WORDS_BYTES_MAX: usize = 4 << 10;
/// Bytes of the topic that are looked through for letters that are there already: the last ones.
const LOOK_BYTES_MAX: u64 = 64 << 20;
/// Bytes of the log that are read in one go.
const READ_BYTES: usize = 4 << 20;
/// Records of one topic that are kept in memory to become letters; the rest of a start's is only counted.
pub const UNREAD_MAX: usize = 1_000;

/// What a consumer was about to do with a record, by Kafka Connect's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Understanding its value.
    ValueConverter,
    /// Handing it on.
    TaskPut,
    /// Writing it to another cluster.
    KafkaProduce,
}

impl Stage {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ValueConverter => "VALUE_CONVERTER",
            Self::TaskPut => "TASK_PUT",
            Self::KafkaProduce => "KAFKA_PRODUCE",
        }
    }
}

/// Who has a letter, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender<'a> {
    /// The consumer: `wardent.bans`.
    pub connector: &'a str,
    /// Which of its tasks.
    pub task: u32,
    /// What it was about to do.
    pub stage: Stage,
    /// What in it does that: a name for whoever reads the source.
    pub class: &'a str,
    /// The topic that the record stands in.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
}

/// A record that could not be read or delivered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Letter {
    /// Its offset.
    pub offset: i64,
    /// Its moment, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers; a name that is no UTF-8 as far as it can be shown, no value as an empty one.
    pub headers: Vec<(String, Vec<u8>)>,
    /// What went wrong, as a name: `wardent.Unreadable`.
    pub problem: String,
    /// The same in a sentence.
    pub message: String,
    /// What it came from, a cause a line; empty where there is no more to say.
    pub trace: String,
}

impl Letter {
    /// A record that cannot be read.
    pub fn unreadable(record: &crate::log::Record<'_>, message: impl Into<String>) -> Self {
        Self {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: owned(record.headers),
            problem: "wardent.Unreadable".to_owned(),
            message: message.into(),
            trace: String::new(),
        }
    }
}

fn tell(told: &Mutex<Option<Kept>>, result: Result<(), String>) {
    let told = told.lock().ok().and_then(|mut told| told.take());
    if let Some(told) = told {
        told(result);
    }
}

fn owned(headers: Headers<'_>) -> Vec<(String, Vec<u8>)> {
    let each = headers.iter().map(|(name, value)| {
        let name = String::from_utf8_lossy(name).into_owned();
        (name, value.unwrap_or_default().to_vec())
    });
    each.collect()
}

/// What is counted. Relaxed, since each number stands for itself.
#[derive(Debug, Default)]
pub struct Counts {
    written: AtomicU64,
    lost: AtomicU64,
}

impl Counts {
    /// Letters that are on disk.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Letters that found no room, or did not get to the disk.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// What became of a letter: it is on disk, or why not.
pub type Kept = Box<dyn FnOnce(Result<(), String>) + Send>;

/// The way to the topic.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    log: Arc<Log>,
    partition: Arc<Partition>,
    counts: Arc<Counts>,
}

impl DeadLetters {
    /// The log's topic of them.
    ///
    /// # Errors
    /// When it has none.
    pub fn of(log: &Arc<Log>) -> Result<Self, String> {
        let partition = log.partition(TOPIC, 0);
        Ok(Self {
            log: Arc::clone(log),
            partition: partition.ok_or_else(|| format!("the log has no topic {TOPIC}"))?,
            counts: Arc::default(),
        })
    }

    /// What is counted.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Puts a letter there, without waiting. `kept` is called once, from any thread, with what became of it.
    pub fn put(&self, from: &Sender<'_>, letter: &Letter, kept: Kept) {
        let mut builder = Builder::new();
        push(&mut builder, from, letter);
        let counts = Arc::clone(&self.counts);
        let told: Kept = Box::new(move |result| {
            let count = match result {
                Ok(()) => &counts.written,
                Err(_) => &counts.lost,
            };
            count.fetch_add(1, Ordering::Relaxed);
            kept(result);
        });
        // The log calls it, or hands it back with what it does not take.
        let told = Arc::new(Mutex::new(Some(told)));
        let done = Arc::clone(&told);
        let append = Append {
            partition: Arc::clone(&self.partition),
            batch: builder.finish(Compression::Lz4),
            done: Box::new(move |result| {
                tell(
                    &done,
                    result.map(drop).map_err(|not| not.reason.to_string()),
                );
            }),
        };
        if self.log.appends().offer(append).is_err() {
            tell(
                &told,
                Err("too much waits to be appended already".to_owned()),
            );
        }
    }

    /// Puts those letters there that are not there yet, as a start does that meets the same records again.
    pub fn put_new(&self, from: &Sender<'_>, letters: &[Letter]) {
        if letters.is_empty() {
            return;
        }
        let known = self.known(from);
        for letter in letters {
            if !known.contains(&letter.offset) {
                self.put(from, letter, Box::new(|_| {}));
            }
        }
    }

    /// Offsets of the records of this topic and partition that were put there, as far as that is looked at.
    fn known(&self, from: &Sender<'_>) -> HashSet<i64> {
        let mut bytes = 0;
        let segments = self.partition.segments().into_iter().rev();
        let looked_at = segments.take_while(|segment| {
            bytes += segment.bytes;
            bytes <= LOOK_BYTES_MAX
        });
        let start = self.partition.log_start_offset();
        let end = self.partition.high_watermark();
        let mut next = looked_at
            .last()
            .map_or(end, |first| first.base_offset)
            .max(start);
        let (mut known, mut scratch) = (HashSet::new(), Vec::new());
        while next < end {
            // What cannot be read is not known to be there.
            let Ok(batches) = self.partition.read(next, READ_BYTES) else {
                break;
            };
            let (mut rest, before) = (batches.as_slice(), next);
            while let Ok((view, after)) = View::read(rest) {
                rest = after;
                next = view.last_offset() + 1;
                let records = view.records(&mut scratch).into_iter().flatten().flatten();
                known.extend(records.filter_map(|record| origin(record.headers, from)));
            }
            if next <= before {
                break;
            }
        }
        known
    }
}

const TOPIC_HEADER: &str = "__connect.errors.topic";
const PARTITION: &str = "__connect.errors.partition";
const OFFSET: &str = "__connect.errors.offset";
const CONNECTOR: &str = "__connect.errors.connector.name";
/// How long a value is that was left out.
const LEFT_OUT: &str = "wardent.value.bytes";

/// The offset a letter was put there for, where it is one of this topic and partition.
fn origin(headers: Headers<'_>, from: &Sender<'_>) -> Option<i64> {
    // A record that became a letter twice has all of these twice: the last are ours.
    let last = |wanted: &str| {
        let all = headers
            .iter()
            .filter(|(name, _)| *name == wanted.as_bytes());
        let value = all.last().and_then(|(_, value)| value);
        value.and_then(|value| std::str::from_utf8(value).ok())
    };
    let is_it = last(CONNECTOR)? == from.connector
        && last(TOPIC_HEADER)? == from.topic
        && last(PARTITION)?.parse() == Ok(from.partition);
    is_it.then(|| last(OFFSET)?.parse().ok()).flatten()
}

fn push(builder: &mut Builder, from: &Sender<'_>, letter: &Letter) {
    let numbers = [
        from.partition.to_string(),
        letter.offset.to_string(),
        from.task.to_string(),
        letter.value.as_ref().map_or(0, Vec::len).to_string(),
    ];
    let [partition, offset, task, value_bytes] = &numbers;
    let own = [
        (TOPIC_HEADER, from.topic),
        (PARTITION, partition),
        (OFFSET, offset),
        (CONNECTOR, from.connector),
        ("__connect.errors.task.id", task),
        ("__connect.errors.stage", from.stage.name()),
        ("__connect.errors.class.name", from.class),
        ("__connect.errors.exception.class.name", &letter.problem),
        ("__connect.errors.exception.message", cut(&letter.message)),
        ("__connect.errors.exception.stacktrace", cut(&letter.trace)),
    ];
    let original = letter.headers.iter();
    let mut headers: Vec<(&str, &[u8])> = original
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    headers.extend(own.map(|(name, value)| (name, value.as_bytes())));
    let (mut key, mut value) = (letter.key.as_deref(), letter.value.as_deref());
    let of_headers: usize = headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    let bytes = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
    if of_headers + bytes(key) + bytes(value) > LETTER_BYTES_MAX {
        value = None;
        headers.push((LEFT_OUT, value_bytes.as_bytes()));
    }
    if of_headers + bytes(key) > LETTER_BYTES_MAX {
        key = None;
        headers.drain(..letter.headers.len());
    }
    builder.push(letter.timestamp_ms, key, value, &headers);
}

/// The beginning of a text, up to a whole character.
fn cut(text: &str) -> &str {
    let end = text.floor_char_boundary(WORDS_BYTES_MAX);
    text.get(..end).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;
    use crate::{
        base::{clock::Clock, disk::System},
        log::{self, Running, Settings, TopicConfig, TopicSettings},
    };

    const FROM: Sender<'_> = Sender {
        connector: "wardent.bans",
        task: 0,
        stage: Stage::ValueConverter,
        class: "wardent::sink::bans",
        topic: "wardent.client.ban",
        partition: 0,
    };

    struct Stand {
        _dir: tempfile::TempDir,
        letters: DeadLetters,
        running: Option<Running>,
    }

    impl Stand {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let settings = Settings {
                dir: dir.path().to_owned(),
                disk_max: 1 << 30,
                ballast_bytes: 0,
                topics: vec![TopicSettings {
                    name: TOPIC.to_owned(),
                    partitions: 1,
                    config: TopicConfig::default(),
                }],
            };
            let opened = log::open(settings, Arc::new(System), Clock::system()).unwrap();
            let running = log::start(opened.appender, opened.flusher, opened.changer).unwrap();
            Self {
                letters: DeadLetters::of(&opened.log).unwrap(),
                running: Some(running),
                _dir: dir,
            }
        }

        fn put(&self, letter: &Letter) -> Result<(), String> {
            let (told, kept) = mpsc::channel();
            let kept_there = Box::new(move |result| told.send(result).unwrap());
            self.letters.put(&FROM, letter, kept_there);
            kept.recv().unwrap()
        }

        /// Key, value and headers of all letters.
        fn all(&self) -> Vec<Letter> {
            let bytes = self.letters.partition.read(0, 64 << 20).unwrap_or_default();
            let (mut rest, mut scratch, mut found) = (bytes.as_slice(), Vec::new(), Vec::new());
            while let Ok((view, after)) = View::read(rest) {
                rest = after;
                let records = view.records(&mut scratch).unwrap();
                found.extend(records.map(|record| Letter::unreadable(&record.unwrap(), "")));
            }
            found
        }
    }

    fn letter(offset: i64) -> Letter {
        Letter {
            offset,
            timestamp_ms: 7,
            key: Some(b"key".to_vec()),
            value: Some(b"value".to_vec()),
            headers: vec![("own".to_owned(), b"h".to_vec())],
            problem: "wardent.Unreadable".to_owned(),
            message: "é".repeat(WORDS_BYTES_MAX),
            trace: String::new(),
        }
    }

    #[test]
    fn a_letter_is_the_record_and_what_went_wrong() {
        let stand = Stand::new();
        assert_eq!(stand.put(&letter(42)), Ok(()));
        let [found] = &stand.all()[..] else {
            panic!("not one");
        };
        assert_eq!(found.key.as_deref(), Some(&b"key"[..]));
        assert_eq!(found.value.as_deref(), Some(&b"value"[..]));
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        let shown: Vec<_> = found
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), text(value)))
            .collect();
        let expected = [
            ("own", "h"),
            ("__connect.errors.topic", "wardent.client.ban"),
            ("__connect.errors.partition", "0"),
            ("__connect.errors.offset", "42"),
            ("__connect.errors.connector.name", "wardent.bans"),
            ("__connect.errors.task.id", "0"),
            ("__connect.errors.stage", "VALUE_CONVERTER"),
            ("__connect.errors.class.name", "wardent::sink::bans"),
            (
                "__connect.errors.exception.class.name",
                "wardent.Unreadable",
            ),
            (
                "__connect.errors.exception.message",
                &"é".repeat(WORDS_BYTES_MAX / 2),
            ),
            ("__connect.errors.exception.stacktrace", ""),
        ];
        assert_eq!(
            shown,
            expected.map(|(name, value)| (name, value.to_owned()))
        );
        assert_eq!(
            (stand.letters.counts.written(), stand.letters.counts.lost()),
            (1, 0)
        );
    }

    #[test]
    fn what_is_too_long_goes_without_its_value() {
        let stand = Stand::new();
        let mut long = letter(1);
        long.value = Some(vec![7; LETTER_BYTES_MAX]);
        assert_eq!(stand.put(&long), Ok(()));
        long.headers = vec![("big".to_owned(), vec![7; LETTER_BYTES_MAX])];
        assert_eq!(stand.put(&long), Ok(()));
        let all = stand.all();
        let left_out = (LEFT_OUT.to_owned(), b"1000000".to_vec());
        let is_without =
            |found: &Letter| found.value.is_none() && found.headers.contains(&left_out);
        assert!(all.iter().all(is_without));
        assert_eq!(all[0].key.as_deref(), Some(&b"key"[..]));
        assert_eq!((&all[1].key, all[1].headers.len()), (&None, 11));
    }

    #[test]
    fn the_same_record_goes_there_once() {
        let stand = Stand::new();
        let wait = |count| {
            let mut end = stand.letters.partition.subscribe();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let waited = async {
                tokio::time::timeout(Duration::from_secs(30), end.wait_for(|end| *end >= count))
                    .await
                    .map(|end| *end.unwrap())
            };
            assert_eq!(runtime.unwrap().block_on(waited), Ok(count));
        };
        stand.letters.put_new(&FROM, &[letter(1), letter(2)]);
        wait(2);
        stand
            .letters
            .put_new(&FROM, &[letter(1), letter(2), letter(3)]);
        wait(3);
        // The same offset of another topic is another record.
        let other = Sender {
            topic: "_schemas",
            connector: "wardent.schemas",
            ..FROM
        };
        stand.letters.put_new(&other, &[letter(1)]);
        wait(4);
    }

    #[test]
    fn what_does_not_get_there_is_counted() {
        let mut stand = Stand::new();
        stand.running.take().unwrap().stop(Duration::from_secs(30));
        assert!(stand.put(&letter(1)).is_err());
        assert_eq!(
            (stand.letters.counts.written(), stand.letters.counts.lost()),
            (0, 1)
        );
    }
}
