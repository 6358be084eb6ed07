//! What administrators decided, as records of `__wardent_metadata`: topics' configurations, users, rights,
//! quotas, and which producer ids were given.
//!
//! A key is a text that begins with what it is of (`topic/orders`), a value is a JSON object; null forgets
//! the key. The last record of a key counts, and the topic is compacted. One writer, this one: changes are
//! made one after the other, and in force when they are on disk.

use std::{
    cell::RefCell, collections::BTreeMap, fmt, path::PathBuf, rc::Rc, sync::Arc, time::Duration,
};

use serde_json::Value;
use tokio::{
    sync::{Mutex, oneshot},
    task::spawn_local,
    time::timeout,
};

use crate::{
    base::clock::Clock,
    log::{
        Append, Batch, Builder, Compression, Log, NotAppended, Partition, ReadError, Replay, View,
    },
};

/// The topic.
pub(crate) const TOPIC: &str = "__wardent_metadata";

/// How long a change may take until it is on disk.
const KEPT_WITHIN: Duration = Duration::from_secs(10);

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Why a change is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotKept {
    /// The log did not take it.
    Refused(String),
    /// It is not on disk yet; it is in force as soon as it is.
    Late,
}

impl fmt::Display for NotKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => f.write_str(why),
            Self::Late => f.write_str("the disk did not answer in time"),
        }
    }
}

impl std::error::Error for NotKept {}

/// What is decided: keys, and what of them; null forgets the key.
pub(crate) type Changes = Vec<(String, Option<Value>)>;

/// What was decided, by key.
pub(super) type Entries = BTreeMap<String, Value>;

/// All that administrators decided.
#[derive(Debug, Clone)]
pub(crate) struct Meta(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    partition: Arc<Partition>,
    log: Arc<Log>,
    clock: Clock,
    entries: RefCell<Entries>,
    /// Held from a change's beginning until it is on disk.
    changing: Mutex<()>,
}

impl Meta {
    /// Reads what was decided until now.
    ///
    /// # Errors
    /// As [`read`].
    pub(crate) fn load(log: &Arc<Log>, clock: &Clock) -> Result<Self, Unread> {
        let partition = log.partition(TOPIC, 0).ok_or(Unread::Missing)?;
        let entries = RefCell::new(read(log)?);
        Ok(Self(Rc::new(Inner {
            partition,
            log: Arc::clone(log),
            clock: clock.clone(),
            entries,
            changing: Mutex::new(()),
        })))
    }

    /// What was decided of this.
    pub(crate) fn get(&self, key: &str) -> Option<Value> {
        self.0.entries.borrow().get(key).cloned()
    }

    /// All keys that begin so, and what was decided of them.
    pub(crate) fn with_prefix(&self, prefix: &str) -> Vec<(String, Value)> {
        let entries = self.0.entries.borrow();
        let from = entries.range(prefix.to_owned()..);
        from.take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Decides this; without a value, forgets it. Returns when it is on disk and in force. It goes on where
    /// who asked goes away.
    ///
    /// # Errors
    /// When it is not kept, or not yet.
    pub(crate) async fn put(&self, key: &str, value: Option<Value>) -> Result<(), NotKept> {
        self.put_all(vec![(key.to_owned(), value)]).await
    }

    /// As [`Self::put`], all in one: either all of them are kept or none.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub(crate) async fn put_all(&self, changes: Changes) -> Result<(), NotKept> {
        self.put_all_around(changes, |apply| apply()).await
    }

    /// As [`Self::put_all`]. When they are on disk `around` is called, also where who asked has gone away, and
    /// puts them in force by calling what it is given: what goes with a change is done with it.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub(crate) async fn put_all_around(
        &self,
        changes: Changes,
        around: impl FnOnce(&mut dyn FnMut()) + 'static,
    ) -> Result<(), NotKept> {
        let own = Rc::clone(&self.0);
        let change = spawn_local(async move { own.change(changes, around).await });
        match timeout(KEPT_WITHIN, change).await {
            Ok(Ok(kept)) => kept,
            Ok(Err(_)) => Err(NotKept::Refused("the log is being closed".to_owned())),
            Err(_) => Err(NotKept::Late),
        }
    }
}

impl Inner {
    async fn change(
        &self,
        mut changes: Changes,
        around: impl FnOnce(&mut dyn FnMut()),
    ) -> Result<(), NotKept> {
        let _changing = self.changing.lock().await;
        let refused = |why: &dyn fmt::Display| NotKept::Refused(why.to_string());
        let batch = self.batch(&changes);
        let (tell, told) = oneshot::channel();
        let append = Append {
            partition: Arc::clone(&self.partition),
            batch,
            done: Box::new(move |result: Result<_, NotAppended>| {
                // Who asked waits for as long as this lives.
                let _ = tell.send(result.map(drop));
            }),
        };
        if self.log.appends().offer(append).is_err() {
            return Err(refused(&"too much waits for the disk"));
        }
        match told.await {
            Ok(Ok(())) => {
                around(&mut || self.apply(std::mem::take(&mut changes)));
                Ok(())
            }
            Ok(Err(not)) => Err(refused(&not.reason)),
            Err(_) => Err(refused(&"the log is being closed")),
        }
    }

    fn batch(&self, changes: &[(String, Option<Value>)]) -> Batch {
        let now_ms = i64::try_from(self.clock.unix_ms()).unwrap_or(i64::MAX);
        let mut builder = Builder::new();
        for (key, value) in changes {
            let value = value.as_ref().map(ToString::to_string);
            let value = value.as_ref().map(String::as_bytes);
            builder.push(now_ms, Some(key.as_bytes()), value, &[]);
        }
        builder.finish(Compression::Lz4)
    }

    fn apply(&self, changes: Changes) {
        let mut entries = self.entries.borrow_mut();
        for (key, value) in changes {
            match value {
                Some(value) => entries.insert(key, value),
                None => entries.remove(&key),
            };
        }
    }
}

/// Reads all that was decided. What is no entry is passed over.
///
/// # Errors
/// When it cannot be read, or some of it was damaged: that is put aside then, and is not there the next time.
pub(super) fn read(log: &Arc<Log>) -> Result<Entries, Unread> {
    let partition = log.partition(TOPIC, 0).ok_or(Unread::Missing)?;
    let mut entries = Entries::new();
    let mut scratch = Vec::new();
    let mut damaged = 0_u64;
    let mut decided = Replay::of(partition);
    while let Some(batches) = decided.batches(log, CHUNK_BYTES)? {
        let mut rest = batches.as_slice();
        while let Ok((view, next)) = View::read(rest) {
            rest = next;
            let Ok(records) = view.records(&mut scratch) else {
                damaged += 1;
                continue;
            };
            for record in records {
                let Ok(record) = record else {
                    damaged += 1;
                    break;
                };
                let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
                let Some(key) = key else { continue };
                let value = record
                    .value
                    .and_then(|value| serde_json::from_slice(value).ok());
                match value {
                    Some(value) => entries.insert(key.to_owned(), value),
                    None => entries.remove(key),
                };
            }
        }
    }
    match damaged + decided.damaged() {
        0 => Ok(entries),
        _ => Err(Unread::Damaged(log.dir().join("quarantine"))),
    }
}

/// Why what was decided is not gone by.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The log has no such topic.
    Missing,
    /// Some of it is damaged. What was in it is not known: rights that were taken may be there again, ids be
    /// given twice. It is in this directory now.
    Damaged(PathBuf),
    /// The disk failed.
    Disk(ReadError),
}

impl From<ReadError> for Unread {
    fn from(error: ReadError) -> Self {
        Self::Disk(error)
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "the log has no topic {TOPIC}"),
            Self::Damaged(aside) => write!(
                f,
                "{TOPIC} is damaged on the disk: topics' configurations, users, rights, quotas or producer ids may \
                 be lost. What is left of them was put aside in {}; restart Wardent to go on without, and see \
                 what is to be decided anew, or put a backup of the log in its place",
                aside.display()
            ),
            Self::Disk(error) => write!(f, "{TOPIC} cannot be read: {error}"),
        }
    }
}

impl std::error::Error for Unread {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kafka::rig::with_broker;

    #[test]
    fn what_rotted_of_what_was_decided_is_told_once_and_costs_nothing_else() {
        // In the version of its format, its length, and its records.
        for at in [16, 11, 70] {
            with_broker(&[], async |rig| {
                let (log, meta) = (rig.log(), &rig.broker.meta);
                for key in ["user/a", "user/b", "user/c"] {
                    meta.put(key, Some(json!({ "of": key }))).await.unwrap();
                }
                assert_eq!(read(log).unwrap().len(), 3);
                let file = log.dir().join(format!("{TOPIC}-0/{:020}.log", 0));
                let mut bytes = std::fs::read(&file).unwrap();
                let (_, rest) = View::read(&bytes).unwrap();
                let second = bytes.len() - rest.len();
                bytes[second + at] ^= 0x15;
                std::fs::write(&file, &bytes).unwrap();
                let told = read(log).unwrap_err().to_string();
                assert!(told.contains("quarantine"), "{told}");
                let left = read(log).unwrap();
                let keys: Vec<_> = left.keys().map(String::as_str).collect();
                assert_eq!(keys, ["user/a", "user/c"], "{at}");
                let quarantine = std::fs::read_dir(log.dir().join("quarantine"));
                assert_eq!(quarantine.unwrap().count(), 1);
            });
        }
    }
}
