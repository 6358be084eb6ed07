//! The Kafka listener inside this process: bound before anything is served, ended before the log is closed.

use std::{net::SocketAddr, sync::Arc};

use serde_json::Value;

use super::{StartError, log::OpenLog, sockets::KafkaSocket};
use crate::{
    base::{clock::Clock, net::Address},
    config::{settings, wardent, wardent::Document},
    event::audit::{Audit, Standing, What},
    kafka::{
        self, Account, Counters, Listening, Security, Settings, Socket, Teller, tls::Tls,
        users::UserActs,
    },
    sink::publisher::Auditor,
};

/// The listener, where there is one.
#[derive(Debug, Default)]
pub(super) struct Kafka {
    listening: Option<Listening>,
    /// Where it listens.
    pub(super) address: Option<Address>,
}

impl Kafka {
    /// Serves the log to Kafka clients on the socket that was bound for them; nobody, if who may do what is not
    /// known for certain.
    ///
    /// # Errors
    /// When the system gives no thread, or the log cannot be read.
    pub(super) fn start(
        socket: Option<KafkaSocket>,
        document: &Document,
        tls: Option<Tls>,
        auditor: &Auditor,
        log: &OpenLog,
        clock: &Clock,
    ) -> Result<Self, StartError> {
        let Some(KafkaSocket { socket, address }) = socket else {
            return Ok(Self::default());
        };
        if let Some(why) = log.undecided() {
            tracing::error!("Kafka clients are not served until the next start: {why}");
            return Ok(Self::default());
        }
        let settings = advertised(&document.log, &address);
        let security = Security {
            tls,
            sasl: document.log.sasl.as_ref().map(settings::sasl),
            tell: Some(teller(auditor.clone(), clock.clone())),
        };
        let time = (clock.clone(), Arc::clone(log.cleaned()));
        let listening = kafka::start(socket, settings, security, Arc::clone(log.log()), time)
            .map_err(|error| StartError::System(format!("the Kafka listener: {error}")))?;
        Ok(Self {
            listening: Some(listening),
            address: Some(address),
        })
    }

    /// What it counts.
    pub(super) fn counters(&self) -> Option<Arc<Counters>> {
        let listening = self.listening.as_ref()?;
        Some(Arc::clone(listening.counters()))
    }

    /// Who asks it about users, and changes them.
    pub(super) fn users(&self) -> Option<UserActs> {
        let listening = self.listening.as_ref()?;
        Some(listening.users().clone())
    }

    /// Ends it.
    pub(super) fn end(&mut self) {
        self.listening = None;
    }
}

/// What is to be told of changes of users, rights and quotas goes to the audit.
fn teller(auditor: Auditor, clock: Clock) -> Teller {
    Teller(Arc::new(move |account: Account| {
        let standing = |value: Option<Value>| value.map(Standing::Access);
        auditor.tell(Audit {
            target: Some(account.target),
            before: standing(account.before),
            after: standing(account.after),
            ..Audit::new(What::KafkaAccess, account.actor, clock.unix_ms())
        });
    }))
}

/// What clients are told to connect to: what the operator says, or else where it listens.
fn advertised(document: &wardent::Log, address: &Address) -> Settings {
    /// Where a unix socket is reached through something else.
    const USUAL: (&str, u16) = ("127.0.0.1", 9092);
    let (host, port) = match (&document.advertised, address) {
        (Some(stated), _) => (stated.host.clone(), stated.port),
        (None, Address::Tcp(address)) => (address.ip().to_string(), address.port()),
        (None, Address::Unix(_)) => (USUAL.0.to_owned(), USUAL.1),
    };
    Settings { host, port }
}

impl KafkaSocket {
    /// A TCP socket that is bound.
    pub(super) fn tcp(socket: std::net::TcpListener, address: SocketAddr) -> Self {
        Self {
            socket: Socket::Tcp(socket),
            address: Address::Tcp(address),
        }
    }
}
