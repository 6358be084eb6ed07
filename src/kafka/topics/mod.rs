//! Topics of clients: made, grown, configured and deleted, by Kafka's names.
//!
//! The log makes and removes them; how each is kept that somebody configured stands in the metadata
//! (`topic/<name>`), and is told to the log again when the listener starts. What was set for a topic is kept
//! before the topic is made, and forgotten after it is gone: what is left of either by a crash names no topic,
//! and is forgotten at the next start.

pub(crate) mod configs;
#[cfg(test)]
pub(crate) mod rig;

use std::{
    collections::HashMap,
    fmt,
    rc::Rc,
    sync::{Arc, mpsc::sync_channel},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, Semaphore, oneshot},
    task::spawn_local,
    time::{sleep, timeout},
};

use self::configs::{Refused, Set, Shown};
use super::{
    auth::{Operation, Resource, is_kept_as_it_is, is_reserved, is_wardents_alone},
    broker::{Broker, Call},
    error::ErrorCode,
    meta,
};
use crate::log::{
    Change, Log, NotChanged, Topic, TopicConfig, TopicSettings, topic::PARTITIONS_MAX,
    topic::is_name,
};

/// Partitions of a topic that nobody says more of (`num.partitions`).
pub(crate) const PARTITIONS: u32 = 4;

/// How long the records of a topic are kept that nobody says more of.
const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Changes that may wait.
const CHANGES_MAX: usize = 64;

/// How long a request waits for what it asks for: at least, and at the most.
const WAIT_MIN: Duration = Duration::from_secs(5);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Between looks whether groups have room to forget something.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where a topic's configs stand in the metadata.
const KEY: &str = "topic/";

/// How topics are kept, and who changes that.
#[derive(Debug)]
pub(crate) struct Topics {
    /// Of Wardent's own, by name: as its configuration says.
    own: HashMap<String, TopicConfig>,
    /// Of all others, unless somebody configures them.
    default: TopicConfig,
    /// Held from a change's beginning to its end.
    changing: Mutex<()>,
    /// Places for changes that wait for that: they go on where who asked goes away.
    places: Arc<Semaphore>,
}

impl Topics {
    /// What is known before anything was changed.
    pub(crate) fn of(log: &Log) -> Self {
        let topics = log.topics();
        let own = topics.iter().filter(|topic| is_reserved(&topic.name));
        let own = own.map(|topic| (topic.name.clone(), topic.first_config().clone()));
        Self {
            own: own.collect(),
            default: default_of(log),
            changing: Mutex::new(()),
            places: Arc::new(Semaphore::new(CHANGES_MAX)),
        }
    }

    /// How a topic is kept that nobody says more of.
    pub(crate) fn default(&self) -> &TopicConfig {
        &self.default
    }

    fn base(&self, name: &str) -> &TopicConfig {
        self.own.get(name).unwrap_or(&self.default)
    }
}

/// How a topic of the log is kept otherwise than one that nobody says more of: Kafka's configs, by name.
pub fn differing(log: &Log, topic: &Topic) -> Vec<(&'static str, String)> {
    configs::differing(&topic.config(), &default_of(log))
}

/// How topics of clients are kept unless somebody says more.
fn default_of(log: &Log) -> TopicConfig {
    let topics = log.topics();
    let like = topics
        .get(meta::TOPIC)
        .map(|topic| topic.first_config().segment_bytes);
    let default = TopicConfig::default();
    TopicConfig {
        retention: Some(RETENTION),
        segment_bytes: like.unwrap_or(default.segment_bytes),
        ..default
    }
}

/// What was set of the topic's configs, as far as it may be.
pub(crate) fn set_of(broker: &Broker, name: &str) -> Set {
    set_in(name, broker.meta.get(&format!("{KEY}{name}")))
}

/// What was set, as it stands in the metadata.
fn set_in(name: &str, kept: Option<Value>) -> Set {
    let set = kept.and_then(|mut kept| kept.get_mut("config").map(Value::take));
    let set: Option<Set> = set.and_then(|set| serde_json::from_value(set).ok());
    let mut set = set.unwrap_or_default();
    set.0.retain(|config, _| may_be_set(name, config));
    set
}

/// Whether clients may set this config of a topic. Of Wardent's own it is how long, and how much of it, is kept:
/// another cleanup would lose what stands in them, and shorter messages keep Wardent from writing.
fn may_be_set(topic: &str, config: &str) -> bool {
    !is_reserved(topic)
        || !is_kept_as_it_is(topic) && matches!(config, "retention.ms" | "retention.bytes")
}

/// All configs of a topic for which this was set.
pub(crate) fn shown(broker: &Broker, name: &str, set: &Set) -> Vec<Shown> {
    let topics = &broker.topics;
    set.shown(topics.base(name), &topics.default)
}

/// Whether who asks may make a topic of that name. Wardent's own are made by Wardent alone.
pub(crate) fn may_create(call: &Call<'_>, name: &str) -> bool {
    if is_reserved(name) {
        return !is_wardents_alone(name) && call.may(Operation::Create, Resource::Topic(name));
    }
    call.may(Operation::Create, Resource::Cluster)
        || call.may(Operation::Create, Resource::Topic(name))
}

/// Tells a log that was just opened how its topics are kept, before anything of them is deleted or compacted,
/// whether or not anybody listens. Waits until that is so.
///
/// # Errors
/// When what was decided cannot be read, is damaged, or a topic cannot be kept so.
pub fn restore_kept(log: &Arc<Log>) -> Result<(), Unkept> {
    let topics = Topics::of(log);
    let kept = meta::read(log)?;
    let from = kept.range(KEY.to_owned()..);
    for (key, value) in from.take_while(|(key, _)| key.starts_with(KEY)) {
        let name = key.strip_prefix(KEY).unwrap_or_default();
        let Some(topic) = log.topics().get(name).cloned() else {
            // The listener forgets it.
            continue;
        };
        let config = set_in(name, Some(value.clone())).applied_to(topics.base(name));
        if config == *topic.config() {
            continue;
        }
        let name = name.to_owned();
        let (tell, told) = sync_channel(1);
        let change = Change::Configure { name, config };
        // Who waited may have gone.
        let done = Box::new(move |result| drop(tell.send(result)));
        let not = match log.change(change, done) {
            Ok(()) => match told.recv_timeout(WAIT_MAX) {
                Ok(changed) => changed.err(),
                Err(_) => Some(NotChanged::Stopping),
            },
            Err(_) => Some(NotChanged::Stopping),
        };
        if let Some(not) = not {
            return Err(Unkept::Topic(topic.name.clone(), not));
        }
    }
    Ok(())
}

/// Why topics are not kept as it was decided.
#[derive(Debug)]
pub enum Unkept {
    /// What was decided is not known for certain: somebody has to look.
    Damaged(String),
    /// It cannot be read.
    Unread(String),
    /// A topic cannot be kept so.
    Topic(String, NotChanged),
}

impl From<meta::Unread> for Unkept {
    fn from(unread: meta::Unread) -> Self {
        match unread {
            meta::Unread::Damaged(_) => Self::Damaged(unread.to_string()),
            meta::Unread::Missing | meta::Unread::Disk(_) => Self::Unread(unread.to_string()),
        }
    }
}

impl fmt::Display for Unkept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(what) | Self::Unread(what) => f.write_str(what),
            Self::Topic(name, not) => {
                write!(
                    f,
                    "the topic {name} is not kept as it was configured: {not}"
                )
            }
        }
    }
}

impl std::error::Error for Unkept {}

/// Tells the log again how topics are kept, and forgets what was set for topics that are no more.
pub(crate) async fn restore(broker: &Rc<Broker>) {
    for (key, _) in broker.meta.with_prefix(KEY) {
        let name = key.strip_prefix(KEY).unwrap_or_default();
        if broker.log.topics().get(name).is_none()
            && let Err(error) = broker.meta.put(&key, None).await
        {
            tracing::warn!("what was set for the topic {name:?} is not forgotten: {error}");
        }
    }
    for topic in broker.log.topics().iter() {
        let config = set_of(broker, &topic.name).applied_to(broker.topics.base(&topic.name));
        if config == *topic.config() {
            continue;
        }
        let name = topic.name.clone();
        if let Err(refused) = changed(broker, Change::Configure { name, config }).await {
            let (name, why) = (&topic.name, refused.why);
            tracing::warn!("the topic {name} is not kept as it was configured: {why}");
        }
    }
}

/// The topic of that name; made now where it is not there. Who asks may make it.
///
/// # Errors
/// When it cannot be made.
pub(crate) async fn ensure(broker: &Rc<Broker>, name: &str) -> Result<Arc<Topic>, Refused> {
    let new = New {
        name: name.to_owned(),
        partitions: PARTITIONS,
        set: Set::default(),
    };
    match create(broker, new, WAIT_MIN).await {
        Err(refused) if refused.code == ErrorCode::TopicAlreadyExists => {
            let topic = broker.log.topics().get(name).cloned();
            topic.ok_or(refused)
        }
        result => result,
    }
}

/// A topic that is to be made.
#[derive(Debug, Clone)]
pub(crate) struct New {
    pub(crate) name: String,
    pub(crate) partitions: u32,
    pub(crate) set: Set,
}

/// Whether a topic can be made, as far as that is known before.
///
/// # Errors
/// When it cannot.
pub(crate) fn check(broker: &Broker, new: &New) -> Result<(), Refused> {
    let name = &new.name;
    let invalid = |why: String| Err(Refused::new(ErrorCode::InvalidTopicException, why));
    if !is_name(name) {
        return invalid("a topic's name has 1 to 249 letters, digits, `.`, `_` and `-`".to_owned());
    }
    let topics = broker.log.topics();
    if topics.get(name).is_some() {
        let why = format!("Topic '{name}' already exists.");
        return Err(Refused::new(ErrorCode::TopicAlreadyExists, why));
    }
    // As Kafka does: metrics of both would have one name.
    let folded = |name: &str| name.replace('.', "_");
    let own = folded(name);
    if let Some(other) = topics.iter().find(|other| folded(&other.name) == own) {
        return invalid(format!(
            "Topic '{name}' collides with existing topic: {}",
            other.name
        ));
    }
    if !(1..=PARTITIONS_MAX).contains(&new.partitions) {
        let why = format!("a topic has 1 to {PARTITIONS_MAX} partitions");
        return Err(Refused::new(ErrorCode::InvalidPartitions, why));
    }
    Ok(())
}

/// Makes a topic. It is made also where who asked goes away.
///
/// # Errors
/// When it cannot be made, or not in time.
pub(crate) async fn create(
    broker: &Rc<Broker>,
    new: New,
    within: Duration,
) -> Result<Arc<Topic>, Refused> {
    let own = Rc::clone(broker);
    waited(broker, within, async move {
        let _changing = own.topics.changing.lock().await;
        check(&own, &new)?;
        let New {
            name,
            partitions,
            set,
        } = new;
        keep(&own, &name, &set).await?;
        let config = set.applied_to(own.topics.base(&name));
        let change = Change::Create(TopicSettings {
            name: name.clone(),
            partitions,
            config,
        });
        let made = changed(&own, change).await;
        if made.is_err() {
            // Nobody goes by it, and the next start forgets it.
            let _ = keep(&own, &name, &Set::default()).await;
        }
        made
    })
    .await
}

/// Deletes a topic.
///
/// # Errors
/// When it cannot be deleted, or not in time.
pub(crate) async fn delete(
    broker: &Rc<Broker>,
    name: String,
    within: Duration,
) -> Result<Arc<Topic>, Refused> {
    let own = Rc::clone(broker);
    waited(broker, within, async move {
        let _changing = own.topics.changing.lock().await;
        let change = Change::Delete { name: name.clone() };
        let deleted = changed(&own, change).await?;
        forget_offsets(&own, &name).await;
        // Where it fails, the next start does it, or who makes another topic of that name.
        if let Err(refused) = keep(&own, &name, &Set::default()).await {
            tracing::warn!("what was set for {name} is not forgotten: {}", refused.why);
        }
        Ok(deleted)
    })
    .await
}

/// Has groups forget how far they are in a topic that was deleted, before there can be another of its name.
async fn forget_offsets(broker: &Broker, name: &str) {
    let forgotten = async {
        while !broker.groups.forget_topic(name).await {
            sleep(LOOK_EVERY).await;
        }
    };
    if timeout(WAIT_MIN, forgotten).await.is_err() {
        tracing::warn!("what groups committed of {name} is not forgotten before the next start");
    }
}

/// Gives a topic more partitions.
///
/// # Errors
/// When it cannot have so many, or not in time.
pub(crate) async fn grow(
    broker: &Rc<Broker>,
    name: String,
    partitions: u32,
    within: Duration,
) -> Result<Arc<Topic>, Refused> {
    let own = Rc::clone(broker);
    waited(broker, within, async move {
        let _changing = own.topics.changing.lock().await;
        changed(&own, Change::Grow { name, partitions }).await
    })
    .await
}

/// Changes what is set for a topic: `edit` makes of what is set what shall be.
///
/// # Errors
/// When there is no such topic, it cannot be so, or it is not kept.
pub(crate) async fn configure(
    broker: &Rc<Broker>,
    name: &str,
    is_tried_only: bool,
    edit: impl FnOnce(Set, &TopicConfig) -> Result<Set, Refused> + 'static,
) -> Result<(), Refused> {
    let (own, name) = (Rc::clone(broker), name.to_owned());
    waited(broker, WAIT_MAX, async move {
        let _changing = own.topics.changing.lock().await;
        let topic = own.log.topics().get(&name).cloned();
        let topic = topic.ok_or_else(|| of_log(&NotChanged::Unknown))?;
        let base = own.topics.base(&name);
        let set = edit(set_of(&own, &name), base)?;
        if let Some(config) = set.0.keys().find(|config| !may_be_set(&name, config)) {
            let why = format!("{config} of {name} is Wardent's own to set");
            return Err(Refused::new(ErrorCode::PolicyViolation, why));
        }
        if is_tried_only {
            return Ok(topic);
        }
        keep(&own, &name, &set).await?;
        let config = set.applied_to(base);
        changed(&own, Change::Configure { name, config }).await
    })
    .await
    .map(drop)
}

/// Keeps what is set for a topic.
async fn keep(broker: &Broker, name: &str, set: &Set) -> Result<(), Refused> {
    let key = format!("{KEY}{name}");
    let value = (!set.0.is_empty()).then(|| json!({ "config": set }));
    if broker.meta.get(&key) == value {
        return Ok(());
    }
    let kept = broker.meta.put(&key, value).await;
    kept.map_err(|not| Refused::new(ErrorCode::KafkaStorageError, not.to_string()))
}

/// How long is waited for who would wait so long. Clients that would not wait at all want to know all the same.
pub(crate) fn within(stated: Duration) -> Duration {
    stated.clamp(WAIT_MIN, WAIT_MAX)
}

/// What comes of something within that time. It goes on where that is not enough.
async fn waited(
    broker: &Broker,
    within: Duration,
    what: impl Future<Output = Result<Arc<Topic>, Refused>> + 'static,
) -> Result<Arc<Topic>, Refused> {
    let Ok(place) = Arc::clone(&broker.topics.places).try_acquire_owned() else {
        let why = "too many changes of topics wait";
        return Err(Refused::new(ErrorCode::ThrottlingQuotaExceeded, why));
    };
    let what = spawn_local(async move {
        let _place = place;
        what.await
    });
    match timeout(self::within(within), what).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(of_log(&NotChanged::Stopping)),
        Err(_) => Err(Refused::new(
            ErrorCode::RequestTimedOut,
            "it is not done yet, and goes on",
        )),
    }
}

/// Has the log change something.
async fn changed(broker: &Broker, change: Change) -> Result<Arc<Topic>, Refused> {
    let (tell, told) = oneshot::channel();
    let done = Box::new(move |result| {
        // Who asked waits for as long as this lives.
        let _ = tell.send(result);
    });
    if broker.log.change(change, done).is_err() {
        let why = "too many changes of topics wait";
        return Err(Refused::new(ErrorCode::ThrottlingQuotaExceeded, why));
    }
    match told.await {
        Ok(result) => result.map_err(|not| of_log(&not)),
        Err(_) => Err(of_log(&NotChanged::Stopping)),
    }
}

fn of_log(not: &NotChanged) -> Refused {
    let code = match not {
        NotChanged::Exists => ErrorCode::TopicAlreadyExists,
        NotChanged::Unknown => ErrorCode::UnknownTopicOrPartition,
        NotChanged::Name => ErrorCode::InvalidTopicException,
        NotChanged::Partitions => ErrorCode::InvalidPartitions,
        NotChanged::TooMany => ErrorCode::PolicyViolation,
        NotChanged::Io(error) => {
            let why = format!("the log's disk failed: {error}");
            return Refused::new(ErrorCode::KafkaStorageError, why);
        }
        NotChanged::Stopping => ErrorCode::NotController,
    };
    Refused::new(code, not.to_string())
}
