//! The owner of bans inside this process, what it remembers, and who brings its decisions onto the disk.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use arc_swap::ArcSwap;

use super::{StartError, log::OpenLog};
use crate::{
    base::clock::Clock,
    cluster::Cluster,
    config::{
        settings,
        wardent::{Document, EventTopic, Shared},
    },
    event::{
        audit::{Audit, What},
        ban,
    },
    limit::{Keeper, spending::Spendings},
    owner::{Acts, BanPolicy, Owner},
    sink::{
        bans::{Encoder, Replayed},
        letters::{Sender, Stage},
        publisher::{Auditor, Publisher},
        shelf::{LogShelf, bring_back},
    },
};

/// The actor of what nobody in particular does.
pub(super) const WARDENT: &str = "wardent";

/// The owner of bans with all that the log remembers, and the ways to it and from it.
#[derive(Debug)]
pub(super) struct Bans {
    pub(super) owner: Owner,
    acts: Acts,
    pub(super) auditor: Auditor,
    publisher: Publisher,
    /// This node's side of the cluster, where there is one.
    pub(super) cluster: Option<Arc<Cluster>>,
    /// What clients spend of limits that count for all nodes, where there are such.
    pub(super) spendings: Option<Arc<Spendings>>,
}

impl Bans {
    /// Brings back what the log remembers, and has the owner's decisions written there.
    pub(super) fn bring_back(
        document: &Document,
        policy: &Arc<ArcSwap<BanPolicy>>,
        log: &OpenLog,
        clock: &Clock,
    ) -> Result<Self, StartError> {
        let shelf = LogShelf::of(log.log()).map_err(StartError::System)?;
        let encoder = Encoder::new(log.privacy().clone())
            .with_codecs(log.codec(EventTopic::Ban), log.codec(EventTopic::Audit));
        let (publisher, changes, auditor) =
            Publisher::new(Box::new(shelf.clone()), encoder, clock.clone());
        let limits = &document.limits;
        let (mut owner, acts) = Owner::new(
            Keeper::new(limits.clients_max.get() as usize),
            limits.bans_max.get() as usize,
            Arc::clone(policy),
            clock.clone(),
            Box::new(changes),
        );
        let spendings = settings::shares(document, Shared::Limits).then(Arc::default);
        let cluster = document.cluster.as_ref().map(|cluster| {
            let shares_bans = cluster.shares(Shared::Bans);
            if shares_bans {
                owner.join(cluster.node.clone());
            }
            let (node, spendings) = (cluster.node.clone(), spendings.clone());
            Arc::new(Cluster::new(node, shares_bans, spendings, clock.clone()))
        });
        for found in log.found() {
            auditor.tell(Audit {
                why: found.clone(),
                ..Audit::new(What::LogRecovered, WARDENT, clock.unix_ms())
            });
        }
        let begin_ns = clock.monotonic_ns();
        let mut restoring = owner.restore();
        let replayed = bring_back(&shelf, document.client_ip.ipv6_prefix, &mut restoring)
            .map_err(|error| StartError::System(format!("bans cannot be read back: {error}")))?;
        let restored = restoring.finish();
        let Replayed {
            records,
            damaged,
            unreadable,
            letters,
        } = replayed;
        let from = Sender {
            connector: "wardent.bans",
            task: 0,
            stage: Stage::ValueConverter,
            class: "wardent::sink::bans",
            topic: ban::TOPIC,
            partition: 0,
        };
        log.letters().put_new(&from, &letters);
        let words = format!(
            "{} bans in force, {} clients and networks remembered, {} left out by `limits.bans_max`; \
             {records} records read, {damaged} damaged batches and {unreadable} unreadable records passed over",
            restored.bans, restored.remembered, restored.left_out
        );
        let is_whole = damaged + unreadable == 0 && restored.left_out == 0;
        let took_ms = (clock.monotonic_ns() - begin_ns) / 1_000_000;
        if is_whole {
            tracing::info!(took_ms, "bans are back: {words}");
        } else {
            tracing::warn!(took_ms, "not all bans are back: {words}");
        }
        if records > 0 || !is_whole {
            auditor.tell(Audit {
                why: words,
                ..Audit::new(What::Restore, WARDENT, clock.unix_ms())
            });
        }
        Ok(Self {
            owner,
            acts,
            auditor,
            publisher,
            cluster,
            spendings,
        })
    }

    /// Starts both threads.
    pub(super) fn start(self, clock: &Clock) -> Result<BanThreads, StartError> {
        let publisher = self.publisher;
        Ok(BanThreads {
            publisher: Thread::start(|ended| publisher.start(ended))?,
            owner: Thread::start(|ended| self.owner.start(ended))?,
            acts: self.acts,
            auditor: self.auditor,
            clock: clock.clone(),
        })
    }
}

/// The threads of the owner and of the publisher. They end when this is dropped: the owner first, so that
/// what it decided last is still written.
#[derive(Debug)]
pub(super) struct BanThreads {
    owner: Thread,
    publisher: Thread,
    acts: Acts,
    auditor: Auditor,
    clock: Clock,
}

impl BanThreads {
    /// The way to the owner.
    pub(super) fn acts(&self) -> Acts {
        self.acts.clone()
    }

    /// The way to the audit.
    pub(super) fn auditor(&self) -> Auditor {
        self.auditor.clone()
    }
}

impl Drop for BanThreads {
    fn drop(&mut self) {
        self.owner.end();
        let unix_ms = self.clock.unix_ms();
        self.auditor.tell(Audit::new(What::Stop, WARDENT, unix_ms));
        self.publisher.end();
    }
}

/// A thread that ends when it is told to.
#[derive(Debug)]
struct Thread {
    ended: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    fn start(
        start: impl FnOnce(Arc<AtomicBool>) -> io::Result<JoinHandle<()>>,
    ) -> Result<Self, StartError> {
        let ended = Arc::<AtomicBool>::default();
        let handle = start(Arc::clone(&ended))
            .map_err(|error| StartError::System(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            ended,
            handle: Some(handle),
        })
    }

    fn end(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(handle) = self.handle.take() {
            // A panic in it has aborted the process.
            let _ = handle.join();
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.end();
    }
}
