//! What all connections share, on the listener's thread; and what one call may look at.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::sync::Semaphore;

use super::{
    auth::{Authorizer, Operation, Principal, Resource},
    counters::Counters,
    meta::Meta,
};
use crate::{
    base::clock::Clock,
    log::{Log, ReadError},
};

/// The one broker's id; the log's `node.id` as well.
pub(crate) const NODE_ID: i32 = 1;

/// Bytes of requests in progress, all connections together.
const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of records in answers that are not yet sent, all connections together.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How the listener is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The host that clients are told to connect to.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) settings: Settings,
    pub(crate) log: Arc<Log>,
    pub(crate) clock: Clock,
    pub(crate) counters: Arc<Counters>,
    pub(crate) meta: Meta,
    pub(crate) authorizer: Authorizer,
    /// Room for requests, and for records in answers, in bytes.
    pub(crate) request_room: Semaphore,
    pub(crate) answer_room: Semaphore,
}

impl Broker {
    /// A broker of that log, with what was decided for it.
    ///
    /// # Errors
    /// When what was decided cannot be read.
    pub(crate) fn new(
        settings: Settings,
        log: Arc<Log>,
        clock: Clock,
        counters: Arc<Counters>,
    ) -> Result<Rc<Self>, ReadError> {
        let meta = Meta::load(&log, &clock)?;
        Ok(Rc::new(Self {
            settings,
            log,
            clock,
            counters,
            meta,
            authorizer: Authorizer::default(),
            request_room: Semaphore::new(REQUEST_BYTES_MAX),
            answer_room: Semaphore::new(ANSWER_BYTES_MAX),
        }))
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
    /// For how long it is not heard after the answer that is being made.
    pub(crate) muted: Cell<Duration>,
}

impl Session {
    /// Nobody yet.
    pub(crate) fn new(peer: Option<IpAddr>) -> Self {
        Self {
            principal: RefCell::new(Principal::Anonymous),
            peer,
            client_id: RefCell::default(),
            muted: Cell::default(),
        }
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
        self.broker.authorizer.allows(&who, operation, resource)
    }

    /// What who asks may do with that, as the bits that Kafka tells it by.
    pub(crate) fn bits(&self, resource: Resource<'_>) -> i32 {
        let who = self.session.principal.borrow();
        self.broker.authorizer.bits(&who, resource)
    }
}
