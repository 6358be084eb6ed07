//! The application behind Wardent: records every byte, answers from a script.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener},
    os::unix::net::UnixListener,
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use wardent::base::net::Address;

use super::{
    message::{self, Fields, Request, RequestHead, Wire},
    stream::{self, Ending, Stream},
    time::{self, Gate, PATIENCE},
};

/// What an origin does with one connection.
type Script = dyn Fn(&mut Conn) -> io::Result<()> + Send + Sync;

/// A recording server; dropping it closes everything.
#[derive(Debug)]
pub(crate) struct Origin {
    address: Address,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    ledger: Mutex<Vec<Record>>,
    changed: Condvar,
    stopping: AtomicBool,
}

/// What came over one connection.
#[derive(Debug, Clone, Default)]
struct Record {
    bytes: Vec<u8>,
    ending: Option<Ending>,
    /// The script has come to its end.
    done: bool,
}

impl Record {
    fn end(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
    }
}

/// How much of each connection had come at some moment.
#[derive(Debug, Clone)]
pub(crate) struct Mark(Vec<usize>);

impl Shared {
    fn note(&self, connection: usize, change: impl FnOnce(&mut Record)) {
        change(&mut self.ledger.lock().unwrap()[connection]);
        self.changed.notify_all();
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener) => Ok(Stream::Unix(listener.accept()?.0)),
        }
    }
}

impl Origin {
    /// Answers every request with 200, its nonce, and its own head as the body.
    pub(crate) fn echo() -> Self {
        Self::answering(echo)
    }

    /// Answers every request with the bytes the function makes, on connections it keeps alive.
    pub(crate) fn answering(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::scripted(move |conn| conn.serve(&answer))
    }

    /// Echoes every request, but `/hold` only when the gate is open.
    pub(crate) fn holding(gate: &Arc<Gate>) -> Self {
        let door = Arc::clone(gate);
        Self::answering(move |request| {
            if request.head.target == "/hold" {
                door.wait();
            }
            echo(request)
        })
    }

    /// Runs the script on every connection.
    pub(crate) fn scripted(
        script: impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    /// Runs the script on every connection of a listener the test has made.
    pub(crate) fn on(
        listener: TcpListener,
        script: impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let address = Address::Tcp(listener.local_addr().unwrap());
        Self::run(address, Listener::Tcp(listener), Arc::new(script))
    }

    /// Runs the script on every connection of a unix socket.
    pub(crate) fn unix(
        path: &Path,
        script: impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let address = Address::Unix(path.to_owned());
        Self::run(address, Listener::Unix(listener), Arc::new(script))
    }

    fn run(address: Address, listener: Listener, script: Arc<Script>) -> Self {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        thread::spawn(move || {
            while let Ok(stream) = listener.accept() {
                if own.stopping.load(Ordering::Acquire) {
                    return;
                }
                let shared = Arc::clone(&own);
                let script = Arc::clone(&script);
                let connection = {
                    let mut ledger = shared.ledger.lock().unwrap();
                    ledger.push(Record::default());
                    ledger.len() - 1
                };
                shared.changed.notify_all();
                thread::spawn(move || Conn::play(stream, connection, &shared, &*script));
            }
        });
        Self { address, shared }
    }

    /// Where it listens, as `upstream.servers` names it.
    pub(crate) fn server(&self) -> String {
        match &self.address {
            Address::Tcp(address) => address.to_string(),
            Address::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// How many connections have been opened.
    pub(crate) fn connections(&self) -> usize {
        self.shared.ledger.lock().unwrap().len()
    }

    /// How far the record has come.
    pub(crate) fn mark(&self) -> Mark {
        let ledger = self.shared.ledger.lock().unwrap();
        Mark(ledger.iter().map(|record| record.bytes.len()).collect())
    }

    /// How many bytes have come since.
    pub(crate) fn bytes_since(&self, mark: &Mark) -> usize {
        let ledger = self.shared.ledger.lock().unwrap();
        let all: usize = ledger.iter().map(|record| record.bytes.len()).sum();
        all - mark.0.iter().sum::<usize>()
    }

    /// How many bytes have come at all.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes_since(&Mark(Vec::new()))
    }

    /// All that came over one connection.
    pub(crate) fn wire(&self, connection: usize) -> Vec<u8> {
        self.shared.ledger.lock().unwrap()[connection].bytes.clone()
    }

    /// Every request whose head has come, connection by connection.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests_since(&Mark(Vec::new()))
    }

    /// Every request that began after the mark.
    pub(crate) fn requests_since(&self, mark: &Mark) -> Vec<Request> {
        let ledger = self.shared.ledger.lock().unwrap().clone();
        let mut all = Vec::new();
        for (connection, record) in ledger.iter().enumerate() {
            let from = mark.0.get(connection).copied().unwrap_or_default();
            for mut request in message::requests_in(&record.bytes).requests {
                request.connection = connection;
                if request.start >= from {
                    all.push(request);
                }
            }
        }
        all
    }

    /// The first thing sent to it that is no strict HTTP.
    pub(crate) fn fault(&self) -> Option<String> {
        let ledger = self.shared.ledger.lock().unwrap().clone();
        ledger
            .iter()
            .find_map(|record| message::requests_in(&record.bytes).fault)
    }

    /// Waits until so many requests have come whole, and gives all.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Request> {
        self.wait(&format!("{count} whole requests at the origin"), || {
            let requests = self.requests();
            let whole = requests.iter().filter(|request| request.complete).count();
            (whole >= count).then_some(requests)
        })
    }

    /// Waits until so many request heads have come, and gives all.
    pub(crate) fn wait_for_heads(&self, count: usize) -> Vec<Request> {
        self.wait(&format!("{count} heads at the origin"), || {
            let requests = self.requests();
            (requests.len() >= count).then_some(requests)
        })
    }

    /// Waits for the one request there must be, whole.
    pub(crate) fn only_request(&self) -> Request {
        let mut requests = self.wait_for(1);
        assert_eq!(requests.len(), 1, "requests at the origin: {requests:?}");
        requests.remove(0)
    }

    /// Waits until Wardent has ended a connection, and says how.
    pub(crate) fn wait_ending(&self, connection: usize) -> Ending {
        self.wait(&format!("the end of connection {connection}"), || {
            let ledger = self.shared.ledger.lock().unwrap();
            ledger.get(connection).and_then(|record| record.ending)
        })
    }

    /// Whether Wardent has ended a connection.
    pub(crate) fn has_ended(&self, connection: usize) -> bool {
        self.shared.ledger.lock().unwrap()[connection]
            .ending
            .is_some()
    }

    /// Waits until so many connections have been opened.
    pub(crate) fn wait_connections(&self, count: usize) {
        time::eventually(&format!("{count} connections at the origin"), || {
            self.connections() >= count
        });
    }

    fn wait<T>(&self, what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
        let deadline = time::now() + PATIENCE;
        loop {
            if let Some(value) = ready() {
                return value;
            }
            let now = time::now();
            assert!(
                now < deadline,
                "not within {PATIENCE:?}: {what}; the origin saw {:?}",
                self.requests()
            );
            let pause = (deadline - now).min(Duration::from_millis(20));
            let ledger = self.shared.ledger.lock().unwrap();
            drop(self.shared.changed.wait_timeout(ledger, pause).unwrap());
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        // The acceptor sits in `accept`; one last connection wakes it.
        drop(Stream::connect(&self.address, None));
    }
}

/// One connection, as its script sees it.
#[derive(Debug)]
pub(crate) struct Conn {
    wire: Wire<Recording>,
    connection: usize,
    abrupt: bool,
}

#[derive(Debug)]
struct Recording {
    stream: Stream,
    connection: usize,
    shared: Arc<Shared>,
    patience: Duration,
}

impl Read for Recording {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let deadline = time::now() + self.patience;
        loop {
            if self.shared.stopping.load(Ordering::Acquire) {
                return Ok(0);
            }
            let outcome = self.stream.read(buffer);
            match outcome {
                Ok(0) => self
                    .shared
                    .note(self.connection, |record| record.end(Ending::Fin)),
                Ok(len) => self.shared.note(self.connection, |record| {
                    record.bytes.extend_from_slice(&buffer[..len]);
                }),
                Err(ref error) if stream::is_timeout(error) => {
                    let stopping = self.shared.stopping.load(Ordering::Acquire);
                    if stopping || time::now() >= deadline {
                        return outcome;
                    }
                    continue;
                }
                Err(_) => self
                    .shared
                    .note(self.connection, |record| record.end(Ending::Reset)),
            }
            return outcome;
        }
    }
}

impl Conn {
    fn play(stream: Stream, connection: usize, shared: &Arc<Shared>, script: &Script) {
        if stream
            .set_deadlines(Duration::from_millis(25), PATIENCE)
            .is_err()
        {
            return;
        }
        let recording = Recording {
            stream,
            connection,
            shared: Arc::clone(shared),
            patience: Duration::from_secs(60),
        };
        let mut conn = Self {
            wire: Wire::new(recording),
            connection,
            abrupt: false,
        };
        // A script that fails has met an end of its peer, which the record tells.
        drop(script(&mut conn));
        if !conn.abrupt {
            drop(conn.half_close());
            drop(conn.wait_for_close());
        }
        drop(conn);
        shared.note(connection, |record| record.done = true);
    }

    /// Which connection this is, counted from 0.
    pub(crate) fn number(&self) -> usize {
        self.connection
    }

    /// Reads a whole request.
    pub(crate) fn request(&mut self) -> io::Result<Request> {
        self.wire.request()
    }

    /// Reads a head.
    pub(crate) fn head(&mut self) -> io::Result<RequestHead> {
        self.wire.request_head()
    }

    /// Reads the body that a head announces, with its trailers.
    pub(crate) fn body(&mut self, head: &RequestHead) -> io::Result<(Vec<u8>, Fields)> {
        let mut body = Vec::new();
        let framing = message::request_framing(head)?;
        let trailers = self.wire.body(framing, &mut body)?;
        Ok((body, trailers))
    }

    /// Reads exactly so many bytes.
    pub(crate) fn exact(&mut self, len: usize) -> io::Result<Vec<u8>> {
        self.wire.exact(len)
    }

    /// Reads whatever comes next.
    pub(crate) fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.wire.pending().is_empty() {
            self.wire.fill()?;
        }
        let len = self.wire.pending().len();
        self.wire.exact(len)
    }

    /// Reads chunk data until so many bytes have come.
    pub(crate) fn chunk_bytes(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let chunk = self.wire.chunk()?;
            if chunk.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Writes bytes.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.source.stream.write_all(bytes.as_ref())
    }

    /// Answers requests until the peer has no more.
    pub(crate) fn serve(&mut self, answer: &dyn Fn(&Request) -> Vec<u8>) -> io::Result<()> {
        loop {
            let request = self.request()?;
            self.write(answer(&request))?;
            if request.head.fields.lists("connection", "close") {
                return Ok(());
            }
        }
    }

    /// Says that it will send no more.
    pub(crate) fn half_close(&mut self) -> io::Result<()> {
        self.wire.source.stream.shutdown(Shutdown::Write)
    }

    /// Closes at once, whatever is unread.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.abrupt = true;
        self.wire.source.stream.shutdown(Shutdown::Both)
    }

    /// Closes with a reset when the script ends.
    pub(crate) fn reset(&mut self) -> io::Result<()> {
        self.abrupt = true;
        self.wire.source.stream.reset_on_close();
        Ok(())
    }

    /// Reads until the peer ends the connection.
    pub(crate) fn wait_for_close(&mut self) -> io::Result<()> {
        self.wire.rest().map(drop)
    }

    /// Reads on for so long, as a server that is busy and takes what comes.
    pub(crate) fn listen_for(&mut self, time: Duration) {
        let patience = std::mem::replace(&mut self.wire.source.patience, time);
        drop(self.wire.fill());
        self.wire.source.patience = patience;
    }
}

/// The default answer: 200, the request's nonce, its head as the body.
pub(crate) fn echo(request: &Request) -> Vec<u8> {
    let body = if request.head.method == "HEAD" {
        &[][..]
    } else {
        &request.head.raw
    };
    let nonce = request.header("x-nonce").unwrap_or("none");
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Nonce: {nonce}\r\nContent-Length: {}\r\n\r\n",
        request.head.raw.len()
    );
    [head.as_bytes(), body].concat()
}

/// An answer of the origin with a body of known length.
pub(crate) fn answer(status: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\n{lines}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
