//! Topics of a broker whose log runs, for tests of APIs.

use std::{rc::Rc, sync::Arc, time::Duration};

use super::{
    super::{
        broker::{Broker, Call},
        error::ErrorCode,
        rig,
    },
    configs::Set,
};
use crate::log::{Change, Log, Topic, TopicConfig};

/// A broker.
pub(crate) struct Rig(Rc<rig::Rig>);

/// Runs a test with a broker that has the topics that are always there.
pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce(Rig) -> F) {
    rig::with_broker(&[("wardent.audit.event", 1)], |rig| test(Rig(rig)));
}

impl Rig {
    pub(crate) fn log(&self) -> &Arc<Log> {
        self.0.log()
    }

    pub(crate) fn broker(&self) -> &Rc<Broker> {
        &self.0.broker
    }

    /// A call of anybody.
    pub(crate) fn call(&self, version: i16) -> Call<'_> {
        Call {
            broker: &self.0.broker,
            session: &self.0.session,
            version,
        }
    }

    /// Makes a topic.
    pub(crate) async fn made(&self, name: &str) -> Arc<Topic> {
        super::ensure(self.broker(), name).await.unwrap()
    }

    /// Appends so many records to the topic's first partition.
    pub(crate) async fn append(&self, topic: &str, count: usize) {
        self.0.append(topic, 0, &vec!["value"; count]).await;
    }

    /// Has the log forget how a topic is kept, and the broker begin anew.
    pub(crate) async fn begin_anew(&self, name: &str) {
        self.forgotten(name).await;
        super::restore(self.broker()).await;
    }

    /// Has the log forget how a topic is kept.
    async fn forgotten(&self, name: &str) {
        let (tell, told) = tokio::sync::oneshot::channel();
        let change = Change::Configure {
            name: name.to_owned(),
            config: TopicConfig::default(),
        };
        let done = Box::new(|result: Result<_, _>| tell.send(result.is_ok()).unwrap());
        self.log().change(change, done).unwrap();
        assert!(told.await.unwrap());
    }
}

#[test]
fn a_topic_is_made_once_however_many_want_it() {
    run(|rig: Rig| async move {
        let broker = rig.broker();
        let (one, other) = tokio::join!(
            super::ensure(broker, "orders"),
            super::ensure(broker, "orders")
        );
        let (one, other) = (one.unwrap(), other.unwrap());
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(one.partitions(), super::PARTITIONS);
        let config = one.config();
        assert_eq!(config.retention, Some(Duration::from_hours(168)));
        assert!(config.flush.is_durable());
    });
}

#[test]
fn a_topic_that_is_made_though_nobody_waits_is_made() {
    run(|rig: Rig| async move {
        let broker = rig.broker();
        let mut making = Box::pin(super::ensure(broker, "orders"));
        assert!(futures_util::poll!(&mut making).is_pending());
        drop(making);
        rig.made("another").await;
        assert!(rig.log().topics().get("orders").is_some());
    });
}

#[test]
fn what_was_set_for_a_topic_goes_with_it() {
    run(|rig: Rig| async move {
        let broker = rig.broker();
        let mut set = Set::default();
        set.set("retention.ms", Some("5")).unwrap();
        let new = super::New {
            name: "orders".to_owned(),
            partitions: 1,
            set: set.clone(),
        };
        super::create(broker, new, Duration::ZERO).await.unwrap();
        assert_eq!(super::set_of(broker, "orders"), set);
        let name = "orders".to_owned();
        super::delete(broker, name, Duration::ZERO).await.unwrap();
        assert_eq!(super::set_of(broker, "orders"), Set::default());
        let again = rig.made("orders").await;
        assert_eq!(again.config().retention, Some(Duration::from_hours(168)));
        // Left by who stopped half-way.
        let left = serde_json::json!({ "config": { "retention.ms": "5" } });
        broker.meta.put("topic/nobody", Some(left)).await.unwrap();
        rig.begin_anew("orders").await;
        assert_eq!(broker.meta.get("topic/nobody"), None);
        let again = again.config();
        assert_eq!(again.retention, Some(Duration::from_hours(168)));
    });
}

#[test]
fn of_wardents_own_topics_only_how_long_they_are_kept_is_set() {
    run(|rig: Rig| async move {
        let configure = |name: &'static str, config: &'static str, value: &'static str| {
            let edit = move |mut set: Set, _: &TopicConfig| {
                set.set(config, Some(value))?;
                Ok(set)
            };
            let rig = &rig;
            async move { super::configure(rig.broker(), name, false, edit).await }
        };
        let own = "wardent.http.access";
        configure(own, "retention.ms", "60000").await.unwrap();
        for (name, config, value) in [
            (own, "cleanup.policy", "compact"),
            (own, "max.message.bytes", "1"),
            ("__consumer_offsets", "cleanup.policy", "delete"),
            ("__wardent_metadata", "retention.ms", "1"),
            ("_schemas", "retention.ms", "1"),
        ] {
            let refused = configure(name, config, value).await.unwrap_err();
            assert_eq!(refused.code, ErrorCode::PolicyViolation, "{name} {config}");
        }
        // What was kept before it was refused is gone by no more.
        let kept = serde_json::json!({"config": {"cleanup.policy": "delete"}});
        let key = "topic/__consumer_offsets";
        rig.broker().meta.put(key, Some(kept)).await.unwrap();
        assert_eq!(
            super::set_of(rig.broker(), "__consumer_offsets"),
            Set::default()
        );
        let topic = rig.log().topics().get(own).cloned().unwrap();
        assert_eq!(topic.config().retention, Some(Duration::from_mins(1)));
    });
}

#[test]
fn how_topics_are_kept_is_restored_though_nobody_listens() {
    run(|rig: Rig| async move {
        let (broker, log) = (rig.broker(), rig.log());
        let set = |name: &'static str, value: &'static str| {
            let mut set = Set::default();
            set.set(name, Some(value)).unwrap();
            set
        };
        let new = super::New {
            name: "orders".to_owned(),
            partitions: 1,
            set: set("cleanup.policy", "compact"),
        };
        let orders = super::create(broker, new, Duration::ZERO).await.unwrap();
        let audit = "wardent.audit.event";
        let kept = serde_json::json!({ "config": set("retention.ms", "5") });
        let key = format!("topic/{audit}");
        broker.meta.put(&key, Some(kept)).await.unwrap();
        rig.forgotten("orders").await;
        assert_eq!(orders.config().cleanup, crate::log::Cleanup::Delete);

        super::restore_kept(log).unwrap();
        assert_eq!(orders.config().cleanup, crate::log::Cleanup::Compact);
        let audit = log.topics().get(audit).unwrap().clone();
        assert_eq!(audit.config().retention, Some(Duration::from_millis(5)));
        // What a topic is without what was set, is not taken from what was.
        let base = super::Topics::of(log).base(&audit.name).clone();
        assert_eq!((base.retention, &base), (None, audit.first_config()));
    });
}
