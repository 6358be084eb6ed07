//! A schema registry: Confluent's API over the topic `_schemas`, as far as it is served.
//!
//! All there is of it are records of that topic, which are on disk before anything is acknowledged and
//! are read back at the start, so that another registry can take the topic over, or this one another's.
//! Changes are made one after the other. Whoever asks waits for no disk; what is costly to look at is
//! looked at on threads for such things: one at a time for whoever reads, and one for whoever changes something.

mod avro;
mod json;
pub mod level;
mod record;
pub mod refused;
pub mod schema;
mod state;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    sync::{Semaphore, oneshot},
    time::timeout,
};

use self::{
    level::Level,
    record::Record,
    refused::Refused,
    schema::{Kind, Schema},
    state::{Registering, State},
};
use crate::{
    base::clock::Clock,
    log::{self, Append, Builder, Compression, Log, Partition, ReadError, Replay, View},
};

pub use state::{BYTES_MAX, SUBJECTS_MAX, Shown, VERSIONS_MAX, Which};

/// The topic, as Confluent's registry calls it.
pub const TOPIC: &str = "_schemas";

/// Bytes of the log that are read in one go.
const READ_BYTES: usize = 4 << 20;
/// How long a change may take until it is on disk.
const KEPT_WITHIN: Duration = Duration::from_secs(10);
/// How long a schema is compared with those before it.
const COMPARED_WITHIN: Duration = Duration::from_secs(5);
/// How long a look at schemas waits for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(5);
/// Records of `_schemas` that could not be read and are handed on at a start; the rest is counted.
const UNREADABLE_MAX: usize = 1_000;

/// The registry.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What is there. Held for a lookup, and while a record is taken in.
    state: Mutex<State>,
    /// Whose turn it is to change something: held until that is on disk.
    turn: tokio::sync::Mutex<()>,
    /// Whose turn it is to look at schemas, to read.
    reading: Arc<Semaphore>,
    /// Whose turn it is to look at schemas, to change something: no reader is waited for.
    changing: Arc<Semaphore>,
    log: Arc<Log>,
    partition: Arc<Partition>,
    clock: Clock,
}

/// What a start found in the topic.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Records.
    pub records: u64,
    /// Batches that were damaged, and passed over.
    pub damaged: u64,
    /// Records that say nothing that can be read, and were passed over.
    pub unreadable: u64,
    /// The first of these.
    pub letters: Vec<Unreadable>,
}

/// A record that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Its place in the topic.
    pub offset: i64,
    /// Its moment, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Why it could not be read.
    pub why: String,
}

impl Registry {
    /// The registry that the log's topic holds, with Wardent's own schemas.
    ///
    /// # Errors
    /// When the log has no such topic, or the disk fails.
    pub fn open(log: &Arc<Log>, clock: &Clock) -> Result<(Self, Replayed), String> {
        let partition = log
            .partition(TOPIC, 0)
            .ok_or_else(|| format!("the log has no topic {TOPIC}"))?;
        let mut state = State::default();
        let replayed = replay(log, &partition, &mut state)
            .map_err(|error| format!("{TOPIC} cannot be read back: {error}"))?;
        let registry = Self(Arc::new(Inner {
            state: Mutex::new(state),
            turn: tokio::sync::Mutex::default(),
            reading: Arc::new(Semaphore::new(1)),
            changing: Arc::new(Semaphore::new(1)),
            log: Arc::clone(log),
            partition,
            clock: clock.clone(),
        }));
        registry.0.put_own();
        Ok((registry, replayed))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state()
    }

    /// Subjects that begin so; with `deleted`, also those of which all is deleted.
    pub fn subjects(&self, prefix: &str, deleted: bool) -> Vec<String> {
        self.state().subjects(prefix, deleted)
    }

    /// The versions of a subject.
    ///
    /// # Errors
    /// When there is none.
    pub fn versions(&self, subject: &str, deleted: bool) -> Result<Vec<u32>, Refused> {
        self.state().versions(subject, deleted)
    }

    /// A version of a subject.
    ///
    /// # Errors
    /// When there is none.
    pub fn version(&self, subject: &str, which: Which, deleted: bool) -> Result<Shown, Refused> {
        self.state().version(subject, which, deleted)
    }

    /// The schema of an id, as one of its versions.
    ///
    /// # Errors
    /// When there is none.
    pub fn schema(&self, id: u32) -> Result<Shown, Refused> {
        self.state().schema(id)
    }

    /// The highest id there is.
    pub fn last_id(&self) -> u32 {
        self.state().last_id()
    }

    /// The subjects and versions that an id stands for.
    ///
    /// # Errors
    /// When there is no such id.
    pub fn uses(&self, id: u32, deleted: bool) -> Result<Vec<(String, u32)>, Refused> {
        self.state().uses(id, deleted)
    }

    /// The compatibility level of a subject, if it has one of its own; without one, that of all others.
    pub fn own_level(&self, subject: Option<&str>) -> Option<Level> {
        self.state().own_level(subject)
    }

    /// The mode of a subject, if it has one of its own; without one, that of all others.
    pub fn own_mode(&self, subject: Option<&str>) -> Option<String> {
        self.state().own_mode(subject)
    }

    /// The version of a subject that is this schema.
    ///
    /// # Errors
    /// When it is no schema, or none of the subject's.
    pub async fn find(
        &self,
        subject: &str,
        kind: Kind,
        text: String,
        deleted: bool,
    ) -> Result<Shown, Refused> {
        self.state().versions(subject, true)?;
        let reading = move || Schema::read(kind, &text);
        let schema = look(&self.0.reading, reading).await??;
        self.state().find(subject, &schema, deleted)
    }

    /// What keeps a schema from being a version of a subject: of those that its level asks about, or of
    /// one.
    ///
    /// # Errors
    /// When it is no schema, or there is no such subject or version.
    pub async fn objections(
        &self,
        subject: &str,
        which: Option<Which>,
        kind: Kind,
        text: String,
    ) -> Result<Vec<String>, Refused> {
        let (level, against) = {
            let state = self.state();
            let level = state.level(subject);
            let against = match which {
                Some(which) => {
                    let shown = state.version(subject, which, false)?;
                    vec![(shown.version, shown.schema)]
                }
                None => state.against(subject, level),
            };
            (level, against)
        };
        let clock = self.0.clock.clone();
        let reading = move || {
            let schema = Schema::read(kind, &text)?;
            objections(&schema, &against, level, &clock)
        };
        look(&self.0.reading, reading).await?
    }

    /// Makes a schema the next version of a subject, if it is none yet; its id.
    ///
    /// # Errors
    /// When it is no schema, does not get along with those before, is one too many, or is not on disk.
    pub async fn register(&self, subject: &str, kind: Kind, text: String) -> Result<u32, Refused> {
        let reading = move || Schema::read(kind, &text);
        let schema = look(&self.0.changing, reading).await??;
        let (own, subject) = (self.clone(), subject.to_owned());
        self.change(async move {
            let registering = own.state().register(&subject, &schema)?;
            let (value, against, level) = match registering {
                Registering::There(id) => return Ok((id, Vec::new())),
                Registering::New {
                    value,
                    against,
                    level,
                } => (value, against, level),
            };
            let clock = own.0.clock.clone();
            let comparing = move || objections(&schema, &against, level, &clock);
            let wrong = look(&own.0.changing, comparing).await??;
            if !wrong.is_empty() {
                return Err(Refused::new(
                    409,
                    format!(
                        "Schema being registered is incompatible with an earlier schema for subject \"{subject}\", under {}: {}",
                        level.name(),
                        wrong.join("; ")
                    ),
                ));
            }
            Ok((value.id, vec![Record::Version(value)]))
        })
        .await
    }

    /// Deletes a version of a subject; `permanently`, what is left of a deleted one. Its number.
    ///
    /// # Errors
    /// When there is none, it may not be, or is not on disk.
    pub async fn delete_version(
        &self,
        subject: &str,
        which: Which,
        permanently: bool,
    ) -> Result<u32, Refused> {
        let (own, subject) = (self.clone(), subject.to_owned());
        self.change(async move { own.state().delete_version(&subject, which, permanently) })
            .await
    }

    /// Deletes a subject; `permanently`, what is left of a deleted one. Its versions.
    ///
    /// # Errors
    /// When there is none, it may not be, or is not on disk.
    pub async fn delete_subject(
        &self,
        subject: &str,
        permanently: bool,
    ) -> Result<Vec<u32>, Refused> {
        let (own, subject) = (self.clone(), subject.to_owned());
        self.change(async move { own.state().delete_subject(&subject, permanently) })
            .await
    }

    /// Sets the level of a subject, or of all that have none; none takes it away.
    ///
    /// # Errors
    /// When it may not be, or is not on disk.
    pub async fn set_level(
        &self,
        subject: Option<&str>,
        level: Option<Level>,
    ) -> Result<(), Refused> {
        let (own, subject) = (self.clone(), subject.map(str::to_owned));
        self.change(async move {
            if level.is_some() {
                own.state().may_set_level(subject.as_deref())?;
            } else if let Some(subject) = &subject {
                own.state().may_write(subject)?;
            }
            Ok(((), vec![Record::Level { subject, level }]))
        })
        .await
    }

    /// Makes a change when its turn has come: what it comes to, and the records that do it.
    ///
    /// It is made to its end, also when nobody waits for it any more.
    async fn change<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<(T, Vec<Record>), Refused>> + Send + 'static,
    ) -> Result<T, Refused> {
        let own = self.clone();
        let changing = tokio::spawn(async move {
            let _turn = own.0.turn.lock().await;
            let (answer, records) = change.await?;
            own.0.keep(records).await?;
            Ok(answer)
        });
        match timeout(KEPT_WITHIN, changing).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Refused::not_kept("wardent is stopping")),
            Err(_) => Err(Refused::too_late()),
        }
    }
}

/// Does `work`, which may take a while, away from whoever answers, and one at a time of those that take `turns`.
///
/// The turn is over when the work is, also when nobody waits for it any more.
async fn look<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refused> {
    let turn = timeout(TURN_WITHIN, Arc::clone(turns).acquire_owned()).await;
    let turn = turn.map_err(|_| Refused::busy())?;
    let turn = turn.map_err(|_| Refused::busy())?;
    let working = move || {
        let _turn = turn;
        work()
    };
    let done = tokio::task::spawn_blocking(working).await;
    done.map_err(|_| Refused::bad_schema("it cannot be understood"))
}

/// What keeps a schema from standing beside these; of the first version that does.
fn objections(
    schema: &Schema,
    against: &[(u32, Arc<Schema>)],
    level: Level,
    clock: &Clock,
) -> Result<Vec<String>, Refused> {
    let begin_ns = clock.monotonic_ns();
    for (version, old) in against {
        let took = Duration::from_nanos(clock.monotonic_ns().saturating_sub(begin_ns));
        if took > COMPARED_WITHIN {
            let words = format!("comparing with all versions takes more than {COMPARED_WITHIN:?}");
            return Err(Refused::too_much(words));
        }
        let wrong = schema.objections(old, level);
        if !wrong.is_empty() {
            let each = wrong.into_iter();
            let each = each.map(|why| format!("version {version}: {why}"));
            return Ok(each.collect());
        }
    }
    Ok(Vec::new())
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held has broken nothing: each record is taken in whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings records onto the disk, and takes them in.
    async fn keep(&self, records: Vec<Record>) -> Result<(), Refused> {
        if records.is_empty() {
            return Ok(());
        }
        let (told, kept) = oneshot::channel();
        self.append(&records, move |result| {
            // Who waited may have gone.
            let _ = told.send(result);
        })?;
        kept.await
            .map_err(|_| Refused::not_kept("wardent is stopping"))?
            .map_err(Refused::not_kept)?;
        let mut state = self.state();
        for record in records {
            state.apply(record).map_err(Refused::not_kept)?;
        }
        Ok(())
    }

    /// Appends records as one batch; `done` hears when it is on disk, or is not going to be.
    fn append(
        &self,
        records: &[Record],
        done: impl FnOnce(Result<(), String>) + Send + 'static,
    ) -> Result<(), Refused> {
        let mut builder = Builder::new();
        let now_ms = i64::try_from(self.clock.unix_ms()).unwrap_or(i64::MAX);
        for record in records {
            let (key, value) = record.write().map_err(Refused::not_kept)?;
            builder.push(now_ms, Some(&key), value.as_deref(), &[]);
        }
        let append = Append {
            partition: Arc::clone(&self.partition),
            batch: builder.finish(Compression::Lz4),
            done: Box::new(move |result| {
                done(result.map(drop).map_err(|not| not.reason.to_string()));
            }),
        };
        let offered = self.log.appends().offer(append);
        offered.map_err(|_| Refused::not_kept("too much waits to be appended already"))
    }

    /// Puts Wardent's own schemas where they are missing. What they mean does not depend on the disk, so
    /// nothing waits for it: the next start does what this one cannot.
    fn put_own(&self) {
        let mut state = self.state();
        for record in state.missing_own() {
            let told = |result: Result<(), String>| {
                if let Err(why) = result {
                    tracing::warn!(why, "a schema of Wardent's own is not on disk");
                }
            };
            if let Err(refused) = self.append(std::slice::from_ref(&record), told) {
                told(Err(refused.message));
            }
            if let Err(why) = state.apply(record) {
                tracing::error!(why, "a schema of Wardent's own is refused");
            }
        }
    }
}

/// Takes in what a partition holds, from its beginning to the end that it has now.
///
/// # Errors
/// When the disk fails.
fn replay(log: &Log, partition: &Arc<Partition>, state: &mut State) -> Result<Replayed, ReadError> {
    let mut replayed = Replayed::default();
    let mut scratch = Vec::new();
    let mut schemas = Replay::of(Arc::clone(partition));
    while let Some(batches) = schemas.batches(log, READ_BYTES)? {
        take_in(&batches, state, &mut scratch, &mut replayed);
    }
    replayed.damaged += schemas.damaged();
    Ok(replayed)
}

fn take_in(mut batches: &[u8], state: &mut State, scratch: &mut Vec<u8>, replayed: &mut Replayed) {
    while let Ok((view, rest)) = View::read(batches) {
        batches = rest;
        let records = view.verify().and_then(|()| view.records(scratch));
        let Ok(records) = records else {
            replayed.damaged += 1;
            continue;
        };
        for record in records {
            let Ok(record) = record else {
                replayed.damaged += 1;
                break;
            };
            replayed.records += 1;
            let read = Record::read(record.key, record.value);
            if let Err(why) = read.and_then(|read| state.apply(read)) {
                replayed.unreadable += 1;
                if replayed.letters.len() < UNREADABLE_MAX {
                    replayed.letters.push(Unreadable {
                        offset: record.offset,
                        timestamp_ms: record.timestamp_ms,
                        key: record.key.map(<[u8]>::to_vec),
                        value: record.value.map(<[u8]>::to_vec),
                        headers: headers_of(&record),
                        why,
                    });
                }
            }
        }
    }
}

fn headers_of(record: &log::Record<'_>) -> Vec<(String, Vec<u8>)> {
    let each = record.headers.iter().map(|(name, value)| {
        let name = String::from_utf8_lossy(name).into_owned();
        (name, value.unwrap_or_default().to_vec())
    });
    each.collect()
}

/// A version as Confluent's API shows it.
impl Shown {
    /// What is left out where it says nothing: the type where it is Avro, references where there are none.
    pub fn as_json(&self) -> Value {
        let mut shown = serde_json::json!({
            "subject": self.subject,
            "version": self.version,
            "id": self.id,
            "schema": self.schema.text(),
        });
        self.add_rest(&mut shown);
        shown
    }

    /// The schema alone, likewise.
    pub fn schema_as_json(&self) -> Value {
        let mut shown = serde_json::json!({"schema": self.schema.text()});
        self.add_rest(&mut shown);
        shown
    }

    fn add_rest(&self, shown: &mut Value) {
        let Value::Object(shown) = shown else { return };
        if self.schema.kind() != Kind::Avro {
            shown.insert("schemaType".to_owned(), self.schema.kind().name().into());
        }
        if let Some(references) = &self.references {
            shown.insert("references".to_owned(), references.clone());
        }
    }
}

#[cfg(test)]
mod tests;
