//! One request and its answer, between two sides.
//!
//! Both directions run at once in the client's own task: one future sends the request and then
//! watches for the client's going away, the other awaits the answer and passes it on. Whichever
//! side breaks first ends both, so nothing is left running and nothing is read for nobody.

use std::{cell::Cell, future::pending, pin::pin, rc::Rc, task::Poll, time::Duration};

use super::{
    After,
    answer::{self, AnswerHead, Asked, BadAnswer},
    body::{BodyError, BodyReader, Framing, Piece},
    buffer::Buffer,
    chunked,
    compose::{self, Back, Outward, Towards},
    deadline::{Stage, Timers, Wait},
    head::{RequestHead, Upgrade},
    record::Record,
    respond::Failure,
    socket::{Side, WireError},
    tunnel,
    upstream::{
        Tried,
        pool::{ConnectError, Connection, connect},
    },
    worker::Worker,
};
use crate::guard::{
    policy::Policy,
    verdict::{Reason, Refusal},
};

/// Interim answers (1xx) to one request at most.
const INTERIM_MAX: usize = 32;
/// Bytes that a client may send ahead of its turn before it is no longer read.
const AHEAD_BYTES_MAX: usize = 64 * 1024;
/// How long a client that has sent its end is still taken for waiting.
///
/// The end of what it sends looks the same whether it has closed, as nginx does for a visitor who
/// left, or only its writing half, as `nc -N` does; RFC 9112 section 9.6 leaves both open, and nginx
/// takes both for gone at once. A quick answer still reaches the second kind; a request that nobody
/// waits for is ended soon enough to spare the application work.
const GRACE_AFTER_END: Duration = Duration::from_millis(100);
/// The interim answer that a client waits for before it sends its body (RFC 9110 section 10.1.1).
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const HEAD_READ: usize = 8 * 1024;
/// Encoded chunks that are gathered before they are written.
const GATHERED_BYTES: usize = 64 * 1024;

/// All that an exchange needs to know and does not change.
#[derive(Debug)]
pub(crate) struct Exchange<'a, 'r> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) timers: &'a Timers,
    pub(crate) client: &'a Side,
    pub(crate) head: &'a RequestHead,
    pub(crate) policy: &'a Policy,
    pub(crate) record: &'a Record<'r>,
    /// Whether the answer has said that the client's connection ends with it.
    pub(crate) said_close: Cell<bool>,
}

/// How far the request has got on its way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    UnderWay,
    Whole,
    /// The server takes no more of it; it may have answered before.
    BrokenOff,
}

/// How one try on one connection ended.
enum Try {
    Answered(After),
    /// The connection had been closed before the request reached the server.
    Dead,
    Failed(Failure),
}

/// How passing an answer on ended.
enum Relayed {
    Whole { reusable: bool },
    Switched,
}

impl Exchange<'_, '_> {
    /// Passes the request on and its answer back.
    ///
    /// `reader` takes the body from `held` where that is given, else from `buffer` and the client;
    /// afterwards it tells how much is left. `buffer` is what the client has sent and is not read.
    ///
    /// # Errors
    /// When no answer of the upstream's was passed on whole; what the client has been sent of one,
    /// the record knows.
    pub(crate) async fn run(
        &self,
        reader: &mut BodyReader,
        mut held: Option<&mut Buffer>,
        buffer: &mut Buffer,
    ) -> Result<After, Failure> {
        let shared = &self.worker.shared;
        let Some(_in_flight) = shared.in_flight.take(1, 8) else {
            return Err(Failure::Overloaded("max_in_flight"));
        };
        self.record.asks_upstream();
        let mut tried = Tried::default();
        let mut may_repeat = self.head.is_idempotent() && self.head.framing == Framing::None;
        let mut fresh_only = false;
        loop {
            let now_ms = self.timers.now_ms();
            let Some(place) = shared.upstream.pick(now_ms, &tried) else {
                return Err(if tried.is_empty() {
                    Failure::Unavailable
                } else {
                    Failure::Unreachable
                });
            };
            let connection = match self.connection(place, fresh_only).await {
                Ok(connection) => connection,
                Err(ConnectError::Late) => {
                    shared.upstream.failed(place, now_ms);
                    return Err(Failure::UpstreamLate(Stage::Connect));
                }
                Err(ConnectError::Refused) => {
                    // Nothing has been sent, so any request may be given to another server.
                    shared.upstream.failed(place, now_ms);
                    tried.add(place);
                    continue;
                }
            };
            self.record.connected(place);
            let body = held.as_deref_mut();
            match self.on(place, connection, reader, body, buffer).await {
                Try::Answered(after) => return Ok(after),
                Try::Dead if may_repeat => {
                    may_repeat = false;
                    fresh_only = true;
                    self.worker.metrics.retries.add(1);
                }
                Try::Dead => {
                    return Err(Failure::UpstreamBroken("closed without an answer"));
                }
                Try::Failed(failure) => {
                    if is_the_servers_fault(failure) {
                        shared.upstream.failed(place, now_ms);
                    }
                    return Err(failure);
                }
            }
        }
    }

    async fn connection(&self, place: usize, fresh: bool) -> Result<Connection, ConnectError> {
        if !fresh && let Some(kept) = self.worker.pool.take(place) {
            self.worker.metrics.reuses.add(1);
            return Ok(kept);
        }
        self.worker.metrics.connects.add(1);
        let shared = &self.worker.shared;
        let Some(server) = shared.upstream.servers().get(place) else {
            return Err(ConnectError::Refused);
        };
        let within = shared.settings.upstream.connect_timeout;
        connect(server.target(), self.timers, within).await
    }

    /// One try, on one connection.
    async fn on(
        &self,
        place: usize,
        mut connection: Connection,
        reader: &mut BodyReader,
        held: Option<&mut Buffer>,
        buffer: &mut Buffer,
    ) -> Try {
        let shared = &self.worker.shared;
        let _entered = shared.upstream.servers().get(place).map(|s| s.enter());
        let used = connection.used;
        let received_before = connection.side.received();
        let sent = Cell::new(Sending::UnderWay);
        let answering = self.timers.wait(
            Stage::ResponseHead,
            shared.settings.upstream.response_timeout,
        );
        let relayed = {
            let Connection {
                side: upstream,
                buffer: answer_buffer,
                ..
            } = &mut connection;
            let upstream = &*upstream;
            let mut asking = pin!(self.ask(upstream, reader, held, buffer, &sent, &answering));
            let mut relaying = pin!(self.relay(upstream, answer_buffer, &sent, &answering));
            std::future::poll_fn(|cx| {
                if let Poll::Ready(failure) = asking.as_mut().poll(cx) {
                    return Poll::Ready(Err(failure));
                }
                relaying.as_mut().poll(cx)
            })
            .await
        };
        self.record.received(reader.taken());
        match relayed {
            Ok(Relayed::Switched) => {
                self.record.passed();
                self.worker.metrics.tunnels.add(1);
                tunnel::run(
                    self.worker,
                    (self.client, buffer),
                    (&connection.side, &mut connection.buffer),
                    self.timers,
                )
                .await;
                Try::Answered(After::Close)
            }
            Ok(Relayed::Whole { reusable }) => {
                self.record.passed();
                if let Some(server) = shared.upstream.servers().get(place) {
                    server.note_success();
                }
                let whole = sent.get() == Sending::Whole && reader.has_ended();
                if reusable && whole && connection.buffer.is_empty() {
                    self.worker
                        .pool
                        .give_back(place, connection, self.timers.now_ms());
                }
                Try::Answered(if whole { self.after() } else { After::Linger })
            }
            Err(Failure::UpstreamBroken(_))
                if used && connection.side.received() == received_before =>
            {
                Try::Dead
            }
            Err(failure) => Try::Failed(failure),
        }
    }

    fn after(&self) -> After {
        match (self.said_close.get(), self.head.closes()) {
            (false, _) => After::KeepAlive,
            (true, true) => After::Close,
            // The client has not asked for it, so another request may be on its way.
            (true, false) => After::Linger,
        }
    }

    /// Sends the request, then watches for the client's going away. Ends only in failure.
    async fn ask(
        &self,
        upstream: &Side,
        reader: &mut BodyReader,
        held: Option<&mut Buffer>,
        buffer: &mut Buffer,
        sent: &Cell<Sending>,
        answering: &Wait,
    ) -> Failure {
        let settings = &self.worker.shared.settings;
        let is_awaited = held.is_none() && !reader.has_ended() && buffer.is_empty();
        if self.head.expects_continue && is_awaited && !self.say(CONTINUE).await {
            return Failure::ClientGone;
        }
        let mut out = self.worker.buffer();
        let client = self.record.client.get();
        let Some(client) = client.as_ref() else {
            return Failure::Internal;
        };
        compose::request(
            self.head,
            &Towards {
                client,
                id: &self.record.id,
                signer: settings
                    .names
                    .upstream_secret
                    .as_deref()
                    .zip(self.policy.signer.as_ref()),
                tag: self.record.tag(),
                now_unix_s: self.record.arrived_unix_ms() / 1_000,
                trace: self.record.trace(),
            },
            &mut out,
        );
        let outward = match self.head.framing {
            Framing::Chunked => Outward::Chunked,
            Framing::None | Framing::Length(_) | Framing::UntilClose => Outward::AsIs,
        };
        let copy = Copy {
            timers: self.timers,
            from: self.client,
            to: upstream,
            outward,
            stages: (Stage::RequestBody, Stage::RequestWrite),
            idle: settings.upstream.idle_timeout,
        };
        let copied = match held {
            Some(held) => copy.run(reader, held, &mut out).await,
            None => copy.run(reader, buffer, &mut out).await,
        };
        self.worker.give_back(out);
        sent.set(match copied {
            Ok(()) => {
                self.record.body_ended();
                Sending::Whole
            }
            Err(CopyError::From(error)) => return client_failure(error),
            // The server may have answered before it stopped reading: what it said counts.
            Err(CopyError::To(WireError::Broken)) => Sending::BrokenOff,
            Err(CopyError::To(WireError::Late(stage))) => return Failure::UpstreamLate(stage),
        });
        answering.restart(settings.upstream.response_timeout);
        self.client_gone(buffer).await;
        Failure::ClientGone
    }

    /// Writes an interim answer to the client; false when it has gone.
    async fn say(&self, interim: &[u8]) -> bool {
        let idle = self.worker.shared.settings.upstream.idle_timeout;
        let wait = self.timers.wait(Stage::ResponseWrite, idle);
        let written = self.client.write([interim, b"", b""], &wait, idle).await;
        written.is_ok()
    }

    /// Ends when the client has gone; what it sends meanwhile is its next request. The answer's
    /// deadlines bound it.
    async fn client_gone(&self, buffer: &mut Buffer) {
        while buffer.len() < AHEAD_BYTES_MAX {
            match self.client.fill_at_leisure(buffer, HEAD_READ).await {
                Ok(0) => {
                    let grace = self.timers.wait(Stage::ClientEnd, GRACE_AFTER_END);
                    return grace.passed().await;
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
        pending::<()>().await;
    }

    /// Awaits the answer and passes it on.
    async fn relay(
        &self,
        upstream: &Side,
        buffer: &mut Buffer,
        sent: &Cell<Sending>,
        answering: &Wait,
    ) -> Result<Relayed, Failure> {
        let mut out = self.worker.buffer();
        let (head, outward) = self
            .answer_head(upstream, buffer, sent, answering, &mut out)
            .await?;
        self.record
            .answered(head.status, outward != Outward::UntilClose);
        let settings = &self.worker.shared.settings;
        let mut reader = BodyReader::new(head.framing, u64::MAX);
        let copied = Copy {
            timers: self.timers,
            from: upstream,
            to: self.client,
            outward,
            stages: (Stage::ResponseBody, Stage::ResponseWrite),
            idle: settings.upstream.idle_timeout,
        }
        .run(&mut reader, buffer, &mut out)
        .await;
        self.worker.give_back(out);
        match copied {
            Ok(()) if head.status == 101 => Ok(Relayed::Switched),
            Ok(()) => Ok(Relayed::Whole {
                reusable: head.keeps_alive,
            }),
            Err(CopyError::From(error)) => Err(upstream_failure(error)),
            Err(CopyError::To(WireError::Broken)) => Err(Failure::ClientGone),
            Err(CopyError::To(WireError::Late(stage))) => Err(Failure::ClientLate(stage)),
        }
    }

    /// The head of the final answer; interim ones are passed on as they come.
    async fn answer_head(
        &self,
        upstream: &Side,
        buffer: &mut Buffer,
        sent: &Cell<Sending>,
        answering: &Wait,
        out: &mut Vec<u8>,
    ) -> Result<(AnswerHead, Outward), Failure> {
        let asked = Asked {
            head: self.head.is_head(),
            upgrade: self.head.upgrade == Upgrade::Yes,
        };
        let settings = &self.worker.shared.settings.upstream;
        let mut interim = 0;
        let mut parsed_at = 0;
        loop {
            if answer::is_worth_parsing(buffer, parsed_at) {
                parsed_at = buffer.len();
                let came = buffer.bytes();
                let composed = answer::with_fields(came, |response, length| {
                    let head = answer::judge(response, length, asked)?;
                    self.said_close.set(self.closes_after(&head, sent));
                    let outward = compose::answer(&head, came, response, &self.back(), out);
                    Ok((head, outward))
                });
                let composed = composed.map_err(|BadAnswer(why)| Failure::UpstreamBroken(why))?;
                if let Some((head, outward)) = composed {
                    buffer.consume(head.length);
                    parsed_at = 0;
                    if head.status >= 200 || head.status == 101 {
                        return Ok((head, outward));
                    }
                    interim += 1;
                    if interim > INTERIM_MAX {
                        return Err(Failure::UpstreamBroken("too many interim answers"));
                    }
                    // `100` is Wardent's own to say, and HTTP/1.0 knows no interim answers.
                    let passes = head.status != 100 && !self.head.is_http_1_0;
                    if passes && !self.say(out).await {
                        return Err(Failure::ClientGone);
                    }
                    out.clear();
                    continue;
                }
            }
            match upstream.fill(buffer, HEAD_READ, answering).await {
                Ok(0) | Err(WireError::Broken) => {
                    return Err(Failure::UpstreamBroken("closed without an answer"));
                }
                Ok(_) => {}
                // The request is still on its way, and that has a deadline of its own.
                Err(WireError::Late(_)) if sent.get() == Sending::UnderWay => {
                    answering.restart(settings.response_timeout);
                }
                Err(WireError::Late(stage)) => return Err(Failure::UpstreamLate(stage)),
            }
        }
    }

    /// Whether the client's connection ends with this answer.
    fn closes_after(&self, answer: &AnswerHead, sent: &Cell<Sending>) -> bool {
        let only_the_end_ends_it = self.head.is_http_1_0
            && matches!(answer.framing, Framing::Chunked | Framing::UntilClose);
        self.head.closes()
            || self.worker.is_draining()
            || sent.get() != Sending::Whole
            || only_the_end_ends_it
    }

    fn back(&self) -> Back<'_> {
        Back {
            id: &self.record.id,
            stamps: &self.worker.stamps,
            now_unix_ms: self.record.arrived_unix_ms(),
            limits: self.record.limits(),
            to_http_1_0: self.head.is_http_1_0,
            closes: self.said_close.get(),
        }
    }
}

fn is_the_servers_fault(failure: Failure) -> bool {
    matches!(
        failure,
        Failure::UpstreamBroken(_) | Failure::UpstreamLate(_) | Failure::Unreachable
    )
}

pub(crate) fn client_failure(error: BodyError) -> Failure {
    match error {
        BodyError::TooLarge => Failure::Refused(Refusal::new(
            Reason::BodyTooLarge,
            "the body went over the route's bound",
        )),
        BodyError::BadChunk(why) => Failure::BadBody(why),
        BodyError::Incomplete => Failure::ClientGone,
        BodyError::Late(stage) => Failure::ClientLate(stage),
    }
}

fn upstream_failure(error: BodyError) -> Failure {
    match error {
        BodyError::TooLarge => Failure::UpstreamBroken("an endless body"),
        BodyError::BadChunk(why) => Failure::UpstreamBroken(why),
        BodyError::Incomplete => Failure::UpstreamBroken("closed before the body's end"),
        BodyError::Late(stage) => Failure::UpstreamLate(stage),
    }
}

/// One message's body on its way from one side to the other.
struct Copy<'a> {
    timers: &'a Timers,
    from: &'a Side,
    to: &'a Side,
    outward: Outward,
    /// What reading and writing are called while they wait.
    stages: (Stage, Stage),
    idle: Duration,
}

enum CopyError {
    From(BodyError),
    To(WireError),
}

impl From<BodyError> for CopyError {
    fn from(error: BodyError) -> Self {
        Self::From(error)
    }
}

impl Copy<'_> {
    /// Writes `out`, which holds the message's head, and then the body as it comes: what is there
    /// is never held back for what is not.
    async fn run(
        &self,
        reader: &mut BodyReader,
        buffer: &mut Buffer,
        out: &mut Vec<u8>,
    ) -> Result<(), CopyError> {
        let writing = self.timers.wait(self.stages.1, self.idle);
        let reading = self.timers.wait(self.stages.0, self.idle);
        loop {
            match reader.find(buffer)? {
                Some(Piece::Data(count)) if self.outward == Outward::Chunked => {
                    chunked::write_size(count, out);
                    out.extend_from_slice(buffer.front(count));
                    out.extend_from_slice(b"\r\n");
                    reader.took(buffer, count);
                    if out.len() >= GATHERED_BYTES {
                        self.write(out, b"", &writing).await?;
                    }
                }
                Some(Piece::Data(count)) => {
                    self.write(out, buffer.front(count), &writing).await?;
                    reader.took(buffer, count);
                }
                Some(Piece::End) => {
                    if self.outward == Outward::Chunked {
                        compose::end_of_chunks(reader.trailers(), out);
                    }
                    return self.write(out, b"", &writing).await;
                }
                None => {
                    self.write(out, b"", &writing).await?;
                    reading.restart(self.idle);
                    reader.fill(self.from, buffer, &reading).await?;
                }
            }
        }
    }

    async fn write(&self, out: &mut Vec<u8>, body: &[u8], wait: &Wait) -> Result<(), CopyError> {
        if out.is_empty() && body.is_empty() {
            return Ok(());
        }
        wait.restart(self.idle);
        self.to
            .write([out, body, b""], wait, self.idle)
            .await
            .map_err(CopyError::To)?;
        out.clear();
        Ok(())
    }
}
