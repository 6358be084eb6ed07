//! The listener: a thread and a runtime of its own, so that whatever clients do costs no request.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{IpAddr, TcpListener as StdTcpListener},
    os::unix::net::UnixListener as StdUnixListener,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    runtime::{Builder, LocalOptions},
    sync::watch,
    task::spawn_local,
    time::{interval, sleep},
};

use super::{
    broker::{Broker, Security, Session, Settings},
    connection,
    counters::{Counters, Cut},
    sasl::failures::place,
    tls::Tls,
    topics,
    users::{self, UserActs},
};
use crate::{
    base::clock::Clock,
    log::{CleanerHealth, Log},
};

/// Connections at once, and from one address, or IPv6 network.
const CONNECTIONS_MAX: u64 = 512;
const CONNECTIONS_MAX_PER_ADDRESS: u32 = 256;

/// The same of those that have not logged in, where that is asked for: strangers leave room for who is known.
const STRANGERS_MAX: u32 = 128;
const STRANGERS_MAX_PER_ADDRESS: u32 = 32;

/// How long it leaves its socket alone when the system has no descriptor or memory left.
const AFTER_ACCEPT_ERROR: Duration = Duration::from_millis(50);

/// How much less urgent it is than requests (nice).
const NICENESS: i32 = 5;

/// How long who ends it waits for it.
const END_WITHIN: Duration = Duration::from_secs(5);

/// A bound socket.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(StdTcpListener),
    /// Over a unix socket.
    Unix(StdUnixListener),
}

/// Serves the log to clients until what is returned is dropped. The log's cleaner says whether the clock is
/// believed.
///
/// # Errors
/// When the system gives no thread, or what was decided for clients cannot be read.
pub fn start(
    socket: Socket,
    settings: Settings,
    security: Security,
    log: Arc<Log>,
    clock: (Clock, Arc<CleanerHealth>),
) -> io::Result<Listening> {
    let (users, asked) = users::channel();
    let counters = Arc::new(Counters::default());
    let (end, until_ended) = watch::channel(false);
    let (ready, begun) = sync_channel(1);
    let (told, over) = sync_channel(1);
    let counted = Arc::clone(&counters);
    let thread = std::thread::Builder::new()
        .name("kafka".to_owned())
        .spawn(move || {
            // 0 is the calling thread. Where it is refused the listener runs all the same.
            let _ = rustix::process::setpriority_process(None, NICENESS);
            let began = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default());
            let serving = match began {
                Ok(runtime) => runtime.block_on(serve(
                    socket,
                    (settings, security, asked),
                    (log, clock),
                    counted,
                    until_ended,
                    &ready,
                )),
                Err(error) => Err(error),
            };
            if let Err(error) = serving {
                // Who starts it waits for this; later there is nobody.
                let _ = ready.send(Err(error));
            }
            // Who ended it may have stopped waiting.
            let _ = told.send(());
        })?;
    match begun.recv() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(error),
        Err(_) => return Err(io::Error::other("the thread ended")),
    }
    Ok(Listening {
        counters,
        users,
        end,
        over: Mutex::new(over),
        thread: Some(thread),
    })
}

/// A listener on its thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Listening {
    counters: Arc<Counters>,
    users: UserActs,
    end: watch::Sender<bool>,
    /// In a mutex only so that it may be looked at from anywhere; nobody does.
    over: Mutex<Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Listening {
    /// Who asks it about users, and changes them.
    pub fn users(&self) -> &UserActs {
        &self.users
    }

    /// What it counts.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.end.send_replace(true);
        // A disk that does not answer may keep the thread, but not who ends it.
        let over = self.over.get_mut().unwrap_or_else(PoisonError::into_inner);
        let is_over = over.recv_timeout(END_WITHIN).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| is_over) {
            // A panic in it has been told.
            let _ = thread.join();
        }
    }
}

async fn serve(
    socket: Socket,
    (settings, security, asked): (Settings, Security, users::Asked),
    (log, clock): (Arc<Log>, (Clock, Arc<CleanerHealth>)),
    counters: Arc<Counters>,
    mut until_ended: watch::Receiver<bool>,
    ready: &std::sync::mpsc::SyncSender<io::Result<()>>,
) -> io::Result<()> {
    let tls = security.tls.clone();
    let broker = Broker::new(settings, security, log, clock, counters);
    let broker = broker.map_err(io::Error::other)?;
    broker.access.begin().await;
    topics::restore(&broker).await;
    let door = Rc::new(Door {
        broker,
        tls,
        addresses: RefCell::default(),
        strangers: Rc::default(),
    });
    match socket {
        Socket::Tcp(socket) => {
            let socket = TcpListener::from_std(socket)?;
            spawn_local(accept_tcp(Rc::clone(&door), socket));
        }
        Socket::Unix(socket) => {
            let socket = UnixListener::from_std(socket)?;
            spawn_local(accept_unix(Rc::clone(&door), socket));
        }
    }
    spawn_local(users::answer(asked, Rc::clone(&door.broker)));
    // Who starts it waits for this.
    let _ = ready.send(Ok(()));
    let mut beats = interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = until_ended.wait_for(|is_ended| *is_ended) => return Ok(()),
            _ = beats.tick() => {
                let now_ms = door.broker.clock.monotonic_ns() / 1_000_000;
                door.broker.counters.beat_ms.set(now_ms);
            }
        }
    }
}

/// Who may come in.
struct Door {
    broker: Rc<Broker>,
    tls: Option<Tls>,
    /// Connections by where they come from.
    addresses: RefCell<HashMap<IpAddr, u32>>,
    strangers: Rc<Strangers>,
}

/// A connection that was let in; its place is free again when this is dropped.
struct Place {
    door: Rc<Door>,
    address: Option<IpAddr>,
}

impl Door {
    /// Lets a connection in; not where there are as many as there may be.
    fn let_in(self: &Rc<Self>, address: Option<IpAddr>) -> Option<(Place, Option<Stranger>)> {
        let counters = &self.broker.counters;
        let address = address.map(place);
        let mut addresses = self.addresses.borrow_mut();
        let own = address.and_then(|address| addresses.get(&address).copied());
        let is_full = counters.connections.get() >= CONNECTIONS_MAX
            || own.is_some_and(|own| own >= CONNECTIONS_MAX_PER_ADDRESS);
        let stranger = match self.broker.access.asks() {
            true => self.strangers.let_in(address),
            false => Some(None),
        };
        let Some(stranger) = stranger.filter(|_| !is_full) else {
            counters.cut(Cut::TooMany);
            return None;
        };
        if let Some(address) = address {
            *addresses.entry(address).or_default() += 1;
        }
        counters.accepted.add(1);
        counters.connections.set(counters.connections.get() + 1);
        let place = Place {
            door: Rc::clone(self),
            address,
        };
        Some((place, stranger))
    }

    /// Serves a connection in a task of its own; a panic ends that task alone.
    fn serve<S>(self: &Rc<Self>, stream: S, address: Option<IpAddr>)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let Some((place, stranger)) = self.let_in(address) else {
            return;
        };
        spawn_local(async move {
            let broker = Rc::clone(&place.door.broker);
            let session = |is_tls| {
                let session = Session::new(&broker, address, is_tls);
                session.stranger.replace(stranger);
                Rc::new(session)
            };
            match place.door.tls.clone() {
                None => connection::serve(stream, session(false), Rc::clone(&broker)).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => {
                        connection::serve(stream, session(true), Rc::clone(&broker)).await;
                    }
                    Err(why) => {
                        tracing::debug!(peer = ?address, %why, "no TLS");
                        broker.counters.cut(Cut::Tls);
                    }
                },
            }
            drop(place);
        });
    }
}

/// Connections that have not logged in, in all and by where they come from.
#[derive(Debug, Default)]
struct Strangers {
    all: Cell<u32>,
    addresses: RefCell<HashMap<IpAddr, u32>>,
}

impl Strangers {
    /// Counts one in; none where there are as many as there may be.
    fn let_in(self: &Rc<Self>, address: Option<IpAddr>) -> Option<Option<Stranger>> {
        let mut addresses = self.addresses.borrow_mut();
        let own = address.and_then(|address| addresses.get(&address).copied());
        let is_full = self.all.get() >= STRANGERS_MAX
            || own.is_some_and(|own| own >= STRANGERS_MAX_PER_ADDRESS);
        if is_full {
            return None;
        }
        self.all.set(self.all.get() + 1);
        if let Some(address) = address {
            *addresses.entry(address).or_default() += 1;
        }
        Some(Some(Stranger {
            of: Rc::clone(self),
            address,
        }))
    }
}

/// One of them, until this is dropped: when it has logged in, or ends.
#[derive(Debug)]
pub(crate) struct Stranger {
    of: Rc<Strangers>,
    address: Option<IpAddr>,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.of.all.set(self.of.all.get().saturating_sub(1));
        if let Some(address) = self.address {
            count_out(&mut self.of.addresses.borrow_mut(), address);
        }
    }
}

/// Counts one of that address out.
fn count_out(addresses: &mut HashMap<IpAddr, u32>, address: IpAddr) {
    if let Some(own) = addresses.get_mut(&address) {
        *own -= 1;
        if *own == 0 {
            addresses.remove(&address);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let connections = &self.door.broker.counters.connections;
        connections.set(connections.get().saturating_sub(1));
        if let Some(address) = self.address {
            count_out(&mut self.door.addresses.borrow_mut(), address);
        }
    }
}

async fn accept_tcp(door: Rc<Door>, socket: TcpListener) {
    loop {
        match socket.accept().await {
            Ok((stream, from)) => {
                // Answers are written whole; where it cannot be set they come a little later.
                let _ = stream.set_nodelay(true);
                door.serve(stream, Some(from.ip()));
            }
            Err(error) => rest(&error).await,
        }
    }
}

async fn accept_unix(door: Rc<Door>, socket: UnixListener) {
    loop {
        match socket.accept().await {
            Ok((stream, _)) => door.serve(stream, None),
            Err(error) => rest(&error).await,
        }
    }
}

async fn rest(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a Kafka client");
    sleep(AFTER_ACCEPT_ERROR).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::{
        access::Sasl,
        rig::with_secured_broker,
        sasl::{Mechanism, Scram},
    };

    fn door(broker: &Rc<Broker>) -> Rc<Door> {
        Rc::new(Door {
            broker: Rc::clone(broker),
            tls: None,
            addresses: RefCell::default(),
            strangers: Rc::default(),
        })
    }

    /// An address of that IPv6 network.
    fn of(network: u16, host: u16) -> Option<IpAddr> {
        Some(IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, host]))
    }

    #[test]
    fn an_ipv6_network_has_no_more_places_than_an_address() {
        with_secured_broker(&[], Security::default(), async |rig| {
            let door = door(&rig.broker);
            let places: Vec<_> = (0..512)
                .filter_map(|host| door.let_in(of(1, host)))
                .collect();
            assert_eq!(places.len(), 256);
            assert!(door.let_in(of(2, 0)).is_some());
        });
    }

    #[test]
    fn strangers_leave_room_for_who_is_known() {
        let sasl = Sasl {
            mechanisms: vec![Mechanism::Scram(Scram::Sha512)],
        };
        let security = Security {
            sasl: Some(sasl),
            ..Security::default()
        };
        with_secured_broker(&[], security, async |rig| {
            let door = door(&rig.broker);
            let all = (0..8 * 64).map(|number| of(number / 64, number));
            let mut places: Vec<_> = all.filter_map(|address| door.let_in(address)).collect();
            assert_eq!(places.len(), 128);
            assert_eq!(door.addresses.borrow().len(), 4);
            assert!(door.let_in(of(9, 0)).is_none());
            // One logs in: its place stays, and another may come.
            drop(places[0].1.take());
            assert!(door.let_in(of(9, 0)).is_some());
            drop(places);
            assert_eq!(
                (door.strangers.all.get(), door.addresses.borrow().len()),
                (0, 0)
            );
            assert!(door.strangers.addresses.borrow().is_empty());
        });
    }
}
