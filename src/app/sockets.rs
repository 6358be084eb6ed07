//! Every socket is bound before the first request is served.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
};

use listenfd::ListenFd;

use super::{StartError, restrict_to_group};
use crate::{
    base::net::Address,
    config::wardent::{Document, Workers},
    kafka,
    proxy::listener::{Listener, bind_tcp},
};

/// The bound sockets of one Wardent.
#[derive(Debug)]
pub(super) struct Sockets {
    workers: usize,
    proxy: Vec<Bound>,
    admin_listener: Option<TcpListener>,
    admin_address: Option<SocketAddr>,
    admin_socket: Option<UnixListener>,
    admin_path: PathBuf,
    kafka: Option<KafkaSocket>,
}

/// The socket of the Kafka protocol, and where it is.
#[derive(Debug)]
pub(super) struct KafkaSocket {
    pub(super) socket: kafka::Socket,
    pub(super) address: Address,
}

#[derive(Debug)]
enum Bound {
    /// Every worker binds a socket of its own to it.
    Tcp {
        first: TcpListener,
        address: SocketAddr,
    },
    PassedTcp {
        socket: TcpListener,
        address: SocketAddr,
    },
    Unix {
        socket: UnixListener,
        path: PathBuf,
        is_passed: bool,
    },
}

impl Sockets {
    /// Binds what `document` names, or takes what systemd passed in place of `listen`.
    pub(super) fn bind(document: &Document, takes_passed: bool) -> Result<Self, StartError> {
        let mut proxy = if takes_passed { passed()? } else { Vec::new() };
        if proxy.is_empty() {
            for address in &document.listen {
                proxy.push(bind_own(address).map_err(|e| failed("listen", address, &e))?);
            }
        }
        let admin_listener = match document.admin.listen {
            Some(address) => {
                Some(bind_alone(address).map_err(|e| failed("admin.listen", &address, &e))?)
            }
            None => None,
        };
        let admin_path = document.admin.socket.clone();
        let admin_socket = bind_unix(&admin_path)
            .map_err(|e| failed("admin.socket", &admin_path.display(), &e))?;
        let kafka = document.log.listen.as_ref();
        let kafka = kafka.map(|address| {
            bind_kafka(address).map_err(|error| failed("log.listen", address, &error))
        });
        Ok(Self {
            workers: count(document.workers),
            proxy,
            kafka: kafka.transpose()?,
            admin_address: admin_listener.as_ref().and_then(|l| l.local_addr().ok()),
            admin_listener,
            admin_socket: Some(admin_socket),
            admin_path,
        })
    }

    pub(super) fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    pub(super) fn take_admin_listener(&mut self) -> Option<TcpListener> {
        self.admin_listener.take()
    }

    pub(super) fn take_kafka(&mut self) -> Option<KafkaSocket> {
        self.kafka.take()
    }

    pub(super) fn take_admin_socket(&mut self) -> Option<UnixListener> {
        self.admin_socket.take()
    }

    pub(super) fn proxy_addresses(&self) -> Vec<Address> {
        let address = |bound: &Bound| match bound {
            Bound::Tcp { address, .. } | Bound::PassedTcp { address, .. } => Address::Tcp(*address),
            Bound::Unix { path, .. } => Address::Unix(path.clone()),
        };
        self.proxy.iter().map(address).collect()
    }

    /// Whether the kernel deals no connection to a worker of its choice: they all take from the same
    /// sockets.
    pub(super) fn are_shared(&self) -> bool {
        let own = |bound: &Bound| matches!(bound, Bound::Tcp { .. });
        !self.proxy.iter().any(own)
    }

    /// The socket files that end with this process.
    pub(super) fn own_unix_paths(&self) -> Vec<PathBuf> {
        let own = self.proxy.iter().filter_map(|bound| match bound {
            Bound::Unix {
                path,
                is_passed: false,
                ..
            } => Some(path.clone()),
            Bound::Unix { .. } | Bound::Tcp { .. } | Bound::PassedTcp { .. } => None,
        });
        let kafka = self.kafka.as_ref().and_then(|kafka| match &kafka.address {
            Address::Unix(path) => Some(path.clone()),
            Address::Tcp(_) => None,
        });
        own.chain([self.admin_path.clone()]).chain(kafka).collect()
    }

    /// For each worker, its end of every socket. Nothing else holds them afterwards: an end that
    /// stays open beyond its workers would take connections in that nobody serves.
    pub(super) fn take_listeners_of_workers(&mut self) -> Result<Vec<Vec<Listener>>, StartError> {
        let mut workers: Vec<Vec<Listener>> = (0..self.workers).map(|_| Vec::new()).collect();
        for bound in std::mem::take(&mut self.proxy) {
            for (index, listeners) in workers.iter_mut().enumerate() {
                listeners.push(bound.of_worker(index).map_err(|error| {
                    StartError::System(format!("cannot share a listener with a worker: {error}"))
                })?);
            }
        }
        Ok(workers)
    }
}

impl Bound {
    fn of_worker(&self, index: usize) -> io::Result<Listener> {
        Ok(match self {
            Self::Tcp { first, .. } if index == 0 => Listener::Tcp {
                socket: first.try_clone()?,
                is_shared: false,
            },
            Self::Tcp { address, .. } => Listener::Tcp {
                socket: bind_tcp(*address)?,
                is_shared: false,
            },
            Self::PassedTcp { socket, .. } => Listener::Tcp {
                socket: socket.try_clone()?,
                is_shared: true,
            },
            Self::Unix {
                socket, is_passed, ..
            } => Listener::Unix {
                socket: socket.try_clone()?,
                is_passed: *is_passed,
            },
        })
    }
}

fn count(workers: Workers) -> usize {
    match workers {
        Workers::Auto => std::thread::available_parallelism().map_or(1, usize::from),
        Workers::Count(count) => count.get() as usize,
    }
}

/// The sockets that systemd passed (sd_listen_fds(3)), none where it passed none.
fn passed() -> Result<Vec<Bound>, StartError> {
    let failed = |error: io::Error| StartError::System(format!("a passed socket: {error}"));
    let mut descriptors = ListenFd::from_env();
    let mut bounds = Vec::new();
    for index in 0..descriptors.len() {
        if let Ok(Some(socket)) = descriptors.take_tcp_listener(index) {
            socket.set_nonblocking(true).map_err(failed)?;
            let address = socket.local_addr().map_err(failed)?;
            bounds.push(Bound::PassedTcp { socket, address });
        } else if let Some(socket) = descriptors.take_unix_listener(index).map_err(failed)? {
            socket.set_nonblocking(true).map_err(failed)?;
            let address = socket.local_addr().map_err(failed)?;
            let path = address
                .as_pathname()
                .map(Path::to_owned)
                .unwrap_or_default();
            bounds.push(Bound::Unix {
                socket,
                path,
                is_passed: true,
            });
        }
    }
    Ok(bounds)
}

fn bind_own(address: &Address) -> io::Result<Bound> {
    match address {
        Address::Tcp(address) => {
            // Sockets that share a port would let two Wardents share one unnoticed.
            let port_is_free = bind_alone(*address)?;
            let address = port_is_free.local_addr()?;
            drop(port_is_free);
            let first = bind_tcp(address)?;
            Ok(Bound::Tcp { first, address })
        }
        Address::Unix(path) => Ok(Bound::Unix {
            socket: bind_unix(path)?,
            path: path.clone(),
            is_passed: false,
        }),
    }
}

fn bind_kafka(address: &Address) -> io::Result<KafkaSocket> {
    match address {
        Address::Tcp(address) => {
            let socket = bind_alone(*address)?;
            let address = socket.local_addr()?;
            Ok(KafkaSocket::tcp(socket, address))
        }
        Address::Unix(path) => Ok(KafkaSocket {
            socket: kafka::Socket::Unix(bind_unix(path)?),
            address: Address::Unix(path.clone()),
        }),
    }
}

fn bind_alone(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Binds a unix socket, in place of one that nobody serves any more.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if path.exists() {
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another process serves it",
            ));
        }
        std::fs::remove_file(path)?;
    }
    let socket = UnixListener::bind(path)?;
    restrict_to_group(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn failed(key: &str, what: &dyn std::fmt::Display, error: &io::Error) -> StartError {
    let kind = error.kind();
    let advice = if kind == io::ErrorKind::AddrInUse {
        "stop what uses it, or choose another"
    } else if kind == io::ErrorKind::PermissionDenied {
        "choose one that this user may use"
    } else if kind == io::ErrorKind::AddrNotAvailable {
        "choose an address of this machine"
    } else {
        "choose another"
    };
    StartError::System(format!("{key} {what}: {error}; {advice}"))
}
