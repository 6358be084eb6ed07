//! What all connections share, on the listener's thread; and what one call may look at.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Semaphore, task::yield_now};

use super::{
    access::{Access, Sasl, Teller},
    auth::{Operation, Principal, Resource, ResourceType},
    counters::{Counters, Cut},
    group::{self, Groups},
    listener::Stranger,
    login,
    meta::{Meta, Unread},
    producers::ProducerIds,
    quota::Flow,
    room::{Part, Rooms},
    tls::Tls,
    topics::Topics,
};
use crate::{
    base::clock::Clock,
    log::{CleanerHealth, Log},
};

/// The one broker's id; the log's `node.id` as well.
pub(crate) const NODE_ID: i32 = 1;

/// How the listener is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The host that clients are told to connect to.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// How the listener is kept, and who is told.
#[derive(Debug, Clone, Default)]
pub struct Security {
    /// Inside what its connections are, if not in the open.
    pub tls: Option<Tls>,
    /// How clients prove who they are, if they have to.
    pub sasl: Option<Sasl>,
    /// Where changes of users, rights and quotas are accounted for.
    pub tell: Option<Teller>,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) settings: Settings,
    pub(crate) log: Arc<Log>,
    pub(crate) clock: Clock,
    pub(crate) counters: Arc<Counters>,
    pub(crate) meta: Meta,
    /// Users, their rights and quotas.
    pub(crate) access: Rc<Access>,
    pub(crate) topics: Topics,
    pub(crate) groups: Groups,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) rooms: Rooms,
    /// Who does what takes the processor for long.
    turn: Semaphore,
}

impl Broker {
    /// A broker of that log, with what was decided for it; `cleaner` says whether the clock is believed. On
    /// the listener's runtime.
    ///
    /// # Errors
    /// When what was decided cannot be read.
    pub(crate) fn new(
        settings: Settings,
        security: Security,
        log: Arc<Log>,
        (clock, cleaner): (Clock, Arc<CleanerHealth>),
        counters: Arc<Counters>,
    ) -> Result<Rc<Self>, Unread> {
        let meta = Meta::load(&log, &clock)?;
        let access = Rc::new(Access::load(&meta, security.sasl, security.tell));
        let topics = Topics::of(&log);
        let groups = group::start(&log, &clock, cleaner, &counters);
        Ok(Rc::new(Self {
            settings,
            log,
            clock,
            counters,
            meta,
            access,
            topics,
            groups,
            producer_ids: ProducerIds::default(),
            rooms: Rooms::default(),
            turn: Semaphore::new(1),
        }))
    }
}

impl Broker {
    /// Does something that may take some milliseconds of the listener's one thread: one such at a time, and
    /// everybody else is served before the next.
    pub(crate) async fn in_turn<T>(&self, work: impl FnOnce() -> T) -> T {
        // It is never closed.
        let _turn = self.turn.acquire().await;
        let done = work();
        yield_now().await;
        done
    }
}

/// One connection, as calls see it.
#[derive(Debug)]
pub(crate) struct Session {
    /// Who it is.
    pub(crate) principal: RefCell<Principal>,
    /// Where it comes from; none over a unix socket.
    pub(crate) peer: Option<IpAddr>,
    /// What it last called itself.
    pub(crate) client_id: RefCell<String>,
    /// Whether it is inside TLS.
    pub(crate) is_tls: bool,
    /// How far it is from being known.
    pub(crate) login: RefCell<login::State>,
    /// Why it ends after the answer that is being made, if it does.
    pub(crate) ending: Cell<Option<Cut>>,
    /// For how long it is not heard after the answer that is being made.
    pub(crate) muted: Cell<Duration>,
    /// Its place among those that are not known, until it has logged in.
    pub(crate) stranger: RefCell<Option<Stranger>>,
    /// What the answer that is being made takes until it is sent.
    pub(crate) answer: RefCell<Part>,
}

impl Session {
    /// Nobody yet; where the broker asks, it has to say who it is.
    pub(crate) fn new(broker: &Broker, peer: Option<IpAddr>, is_tls: bool) -> Self {
        let login = match broker.access.asks() {
            true => login::State::Waiting,
            false => login::State::NotAsked,
        };
        Self {
            is_tls,
            login: RefCell::new(login),
            ending: Cell::default(),
            principal: RefCell::new(Principal::Anonymous),
            peer,
            client_id: RefCell::default(),
            muted: Cell::default(),
            stranger: RefCell::default(),
            answer: RefCell::new(broker.rooms.answer()),
        }
    }

    /// Has the answer that is being made take so many bytes more; says whether there is room.
    pub(crate) fn holds(&self, more: usize) -> bool {
        let mut answer = self.answer.borrow_mut();
        let bytes = answer.bytes().saturating_add(more);
        answer.try_hold(bytes)
    }
}

/// One request that is being answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) broker: &'a Rc<Broker>,
    pub(crate) session: &'a Rc<Session>,
    /// The version that is spoken.
    pub(crate) version: i16,
}

impl Call<'_> {
    /// Whether who asks may do this with that.
    pub(crate) fn may(&self, operation: Operation, resource: Resource<'_>) -> bool {
        let who = self.session.principal.borrow();
        let authorizer = self.broker.access.authorizer();
        authorizer.may(&who, self.session.peer, operation, resource)
    }

    /// What who asks may do with that, as the bits that Kafka tells it by.
    pub(crate) fn bits(&self, resource: Resource<'_>) -> i32 {
        let who = self.session.principal.borrow();
        let authorizer = self.broker.access.authorizer();
        authorizer.bits(&who, self.session.peer, resource)
    }

    /// Whether there may be anything of this type with which who asks may do this.
    pub(crate) fn may_somewhere(&self, operation: Operation, resource: ResourceType) -> bool {
        let who = self.session.principal.borrow();
        let authorizer = self.broker.access.authorizer();
        authorizer.may_somewhere(&who, self.session.peer, operation, resource)
    }

    /// Who asks, for the audit.
    pub(crate) fn actor(&self) -> String {
        self.session.principal.borrow().to_string()
    }

    /// Counts bytes that are sent or fetched, and says for how many milliseconds the answer tells that the
    /// connection is not heard; it is not heard for so long when the answer was sent (KIP-219).
    pub(crate) fn throttle(&self, flow: Flow, bytes: usize) -> i32 {
        let (broker, session) = (self.broker, self.session);
        let who = session.principal.borrow();
        let client_id = session.client_id.borrow();
        let now_ns = broker.clock.monotonic_ns();
        let mut quotas = broker.access.quotas.borrow_mut();
        let muted = quotas.charge(flow, who.name(), &client_id, bytes, now_ns);
        let muted_ms = u32::try_from(muted.as_millis()).unwrap_or(u32::MAX);
        if muted_ms == 0 {
            return 0;
        }
        session.muted.set(session.muted.get().max(muted));
        broker.counters.throttled_ms.add(muted_ms.into());
        i32::try_from(muted_ms).unwrap_or(i32::MAX)
    }
}
