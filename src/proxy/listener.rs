//! Starts the workers, and takes in connections.

use std::{
    cell::Cell,
    io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    os::unix::net::UnixListener as StdUnixListener,
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::{Builder, LocalOptions},
    sync::watch,
    task::spawn_local,
};

use super::{
    buffer::Buffer,
    connection,
    deadline::TICK,
    http2,
    metrics::{ENDED, WorkerMetrics},
    socket::Socket,
    worker::{Outlets, Shared, Worker},
};
use crate::client::{Peer, fold};

/// Connections that may wait to be accepted: a herd after an outage must find room.
const BACKLOG: i32 = 4096;
/// How long a worker leaves its listener alone when the system has no descriptor or memory left.
const AFTER_ACCEPT_ERROR: Duration = Duration::from_millis(50);
/// How long a drain goes on accepting from a passed socket while old requests are still answered:
/// nobody else accepts from it yet.
const ACCEPTING_MAX: Duration = Duration::from_secs(10);
/// At least so long, so that clients learn from an answer that their connections end.
const ACCEPTING_MIN: Duration = Duration::from_millis(300);

/// A drain that has not ended by then ends all the same, before systemd would end it.
const DRAINED_WITHIN: Duration = Duration::from_secs(25);

/// A bound socket of one worker.
#[derive(Debug)]
pub enum Listener {
    /// A TCP socket; `is_shared` when other workers and the next process accept from it too.
    Tcp {
        /// The socket.
        socket: StdTcpListener,
        /// Whether others accept from it.
        is_shared: bool,
    },
    /// A unix socket, always shared by the workers.
    Unix {
        /// The socket.
        socket: StdUnixListener,
        /// Whether it outlives this process.
        is_passed: bool,
    },
}

/// How far the process has come towards its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It serves.
    Serving,
    /// It answers what has come, says that connections end, and takes no more than it must.
    Draining,
    /// It stops at once.
    Stopping,
}

/// Binds a TCP socket that other workers can bind as well.
///
/// # Errors
/// When the address cannot be had.
pub fn bind_tcp(address: SocketAddr) -> io::Result<StdTcpListener> {
    let socket = RawSocket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A worker's thread, and what it counts.
#[derive(Debug)]
pub struct WorkerThread {
    /// Written by the worker.
    pub metrics: Arc<WorkerMetrics>,
    /// Ends with the worker.
    pub thread: JoinHandle<io::Result<()>>,
}

/// Starts one worker that serves `listeners` until `phase` says otherwise, and tells `outlets` what
/// became of each request.
///
/// # Errors
/// When the system gives no thread.
pub fn start(
    index: usize,
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
    outlets: Outlets,
    phase: watch::Receiver<Phase>,
) -> io::Result<WorkerThread> {
    let metrics = Arc::new(WorkerMetrics::default());
    let counted = Arc::clone(&metrics);
    let mut seed = [0; 16];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    let thread = std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())?;
            runtime.block_on(async {
                let seed = u128::from_ne_bytes(seed);
                let worker = Worker::new(index, shared, counted, outlets, seed);
                work(&Rc::new(worker), listeners, phase).await
            })
        })?;
    Ok(WorkerThread { metrics, thread })
}

async fn work(
    worker: &Rc<Worker>,
    listeners: Vec<Listener>,
    mut phase: watch::Receiver<Phase>,
) -> io::Result<()> {
    let (accepting, may_accept) = watch::channel(true);
    let mut passed = false;
    for listener in listeners {
        let worker = Rc::clone(worker);
        let mut may_accept = may_accept.clone();
        match listener {
            Listener::Tcp { socket, is_shared } => {
                passed |= is_shared;
                let listener = TcpListener::from_std(socket)?;
                spawn_local(async move {
                    let door = Door {
                        worker,
                        is_own: !is_shared,
                    };
                    door.accept_tcp(&listener, &mut may_accept).await;
                });
            }
            Listener::Unix { socket, is_passed } => {
                passed |= is_passed;
                let listener = UnixListener::from_std(socket)?;
                spawn_local(async move {
                    let door = Door {
                        worker,
                        is_own: !is_passed,
                    };
                    door.accept_unix(&listener, &mut may_accept).await;
                });
            }
        }
    }
    let ticking = spawn_local({
        let worker = Rc::clone(worker);
        async move { worker.keep_ticking().await }
    });
    // The sender lives as long as the process; its end is a stop.
    let _ = phase.wait_for(|phase| *phase != Phase::Serving).await;
    worker.drain();
    let drained = async {
        if passed {
            let old_requests_end = async {
                tokio::time::sleep(ACCEPTING_MIN).await;
                while worker.has_old_requests() {
                    tokio::time::sleep(TICK).await;
                }
            };
            let _ = tokio::time::timeout(ACCEPTING_MAX, old_requests_end).await;
        }
        accepting.send_replace(false);
        // One tick, so that what was accepted last has been counted.
        tokio::time::sleep(TICK).await;
        while worker.open.get() > 0 {
            tokio::time::sleep(TICK).await;
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(DRAINED_WITHIN, drained) => {}
        _ = phase.wait_for(|phase| *phase == Phase::Stopping) => {}
    }
    ticking.abort();
    worker.tick();
    // Others may drain for longer than a hang lasts before it is one.
    worker.metrics.beat_ms.set(ENDED);
    Ok(())
}

/// One listener of one worker.
struct Door {
    worker: Rc<Worker>,
    /// No other process accepts from it, so what waits in its backlog must be served here.
    is_own: bool,
}

impl Door {
    async fn accept_tcp(&self, listener: &TcpListener, may_accept: &mut watch::Receiver<bool>) {
        let ended = Cell::new(false);
        while !ended.get() {
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                _ = may_accept.wait_for(|may| !may) => { ended.set(true); break }
            };
            self.take_tcp(accepted).await;
        }
        while self.is_own
            && let Some(accepted) = now(listener.accept()).await
        {
            self.take_tcp(accepted).await;
        }
    }

    async fn take_tcp(&self, accepted: io::Result<(tokio::net::TcpStream, SocketAddr)>) {
        match accepted {
            Ok((stream, address)) => {
                // Without it, the last piece of an answer would wait for an acknowledgement.
                let _ = stream.set_nodelay(true);
                self.admit(Socket::Tcp(stream), Peer::Ip(fold(address.ip())));
            }
            Err(error) => self.failed(&error).await,
        }
    }

    async fn accept_unix(&self, listener: &UnixListener, may_accept: &mut watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                _ = may_accept.wait_for(|may| !may) => break,
            };
            match accepted {
                Ok((stream, _)) => self.admit(Socket::Unix(stream), Peer::Unix),
                Err(error) => self.failed(&error).await,
            }
        }
        while self.is_own
            && let Some(Ok((stream, _))) = now(listener.accept()).await
        {
            self.admit(Socket::Unix(stream), Peer::Unix);
        }
    }

    async fn failed(&self, error: &io::Error) {
        let errors = &self.worker.metrics.accept_errors;
        // Twenty failures a second at most, and one line for them.
        if errors.get().is_multiple_of(20) {
            tracing::warn!(%error, "cannot accept connections");
        }
        errors.add(1);
        tokio::time::sleep(AFTER_ACCEPT_ERROR).await;
    }

    /// Serves a connection in a task of its own, unless there are too many. Strangers are turned
    /// away first, so that they cannot crowd out the trusted peer in front.
    fn admit(&self, socket: Socket, peer: Peer) {
        let shared = &self.worker.shared;
        let trusted = shared.policy.load().trust.trusted.trusts(&peer);
        let worker = Rc::clone(&self.worker);
        worker.metrics.accepted.add(1);
        let Some(open) = Open::begin(&worker, if trusted { 8 } else { 7 }) else {
            worker.metrics.turned_away.add(1);
            return;
        };
        spawn_local(async move {
            let _open = open;
            if worker.shared.settings.http2 {
                http2::serve_either(worker, socket, peer).await;
            } else {
                connection::serve(worker, socket, peer, Buffer::default()).await;
            }
        });
    }
}

/// What `accepting` gives without waiting.
async fn now<T>(accepting: impl Future<Output = T>) -> Option<T> {
    use futures_util::FutureExt as _;
    accepting.now_or_never()
}

/// An open connection, counted while it lasts.
struct Open {
    worker: Rc<Worker>,
}

impl Open {
    fn begin(worker: &Rc<Worker>, share: usize) -> Option<Self> {
        let taken = worker.shared.connections.take(1, share)?;
        // Given back by hand in `drop`: the guard borrows what the task owns.
        std::mem::forget(taken);
        worker.open.set(worker.open.get() + 1);
        Some(Self {
            worker: Rc::clone(worker),
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.shared.connections.give_back(1);
        self.worker.open.set(self.worker.open.get() - 1);
    }
}
