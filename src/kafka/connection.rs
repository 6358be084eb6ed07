//! One connection: a request after the other, each answered before the next is looked at, as brokers do; but
//! what is produced may follow at once upon what is produced, so that a disk that makes safe what was sent
//! before it is waited for once. Answers leave in the order of their requests.
//!
//! Whoever is slow, silent or greedy is cut off, and counted by why. While a request waits for something, the
//! connection is listened to: a client that goes away takes its request with it.

use std::{future::Future, pin::Pin, rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{
    future::LocalBoxFuture,
    stream::{FuturesOrdered, StreamExt as _},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf},
    time::{Sleep, sleep, timeout},
};

use super::{
    api::{self, Answer},
    broker::{Broker, Call, Session},
    counters::Cut,
    frame::{self, Asked, LENGTH_BYTES, LOGIN_BYTES_MAX, REQUEST_BYTES_MAX},
    login::{self, Turn},
    room::{FREE_BYTES, NoRoom, Part},
    table::{self, Key},
};

/// How long nothing may come (Kafka's `connections.max.idle.ms`).
const IDLE_MAX: Duration = Duration::from_secs(600);

/// How long a request may take to come, from its first byte to its last.
const REQUEST_WITHIN: Duration = Duration::from_secs(30);

/// How long who connects has until it has proven who it is, where that is asked for.
const LOGIN_WITHIN: Duration = Duration::from_secs(10);

/// How long nothing of an answer may be taken.
const STILL_MAX: Duration = Duration::from_secs(30);

/// Bytes of an answer that are to be taken in a second, beside that.
const TAKEN_EACH_SECOND: u64 = 32 * 1024;

/// How long it takes to say that a connection is at its end.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// Bytes that are read ahead while a request is answered.
const AHEAD_BYTES: usize = FREE_BYTES;

/// Bytes of a longer request that room is taken for at a time.
const STEP_BYTES: usize = 1024 * 1024;

/// Requests that wait for the log while another is looked at.
const LATER_MAX: usize = 8;

/// An answer, and the room that it takes until it is sent.
type Made = (Vec<u8>, Part);

/// Answers that wait for the log, in the order of their requests.
type Answers = FuturesOrdered<LocalBoxFuture<'static, Result<Made, NoRoom>>>;

/// How a connection ends.
#[derive(Debug)]
enum End {
    /// The client closed it, or it broke.
    Gone,
    /// It is cut off.
    Cut(Cut),
}

impl From<Cut> for End {
    fn from(why: Cut) -> Self {
        Self::Cut(why)
    }
}

impl From<NoRoom> for End {
    fn from(why: NoRoom) -> Self {
        Self::Cut(why.into())
    }
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve<S>(stream: S, session: Rc<Session>, broker: Rc<Broker>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (from, to) = tokio::io::split(stream);
    let mut connection = Connection {
        from,
        to,
        came: BytesMut::new(),
        coming: None,
        session,
        broker,
    };
    let mut later = Answers::new();
    let mut logging_in = Box::pin(sleep(LOGIN_WITHIN));
    loop {
        let is_open = connection.session.login.borrow().is_open();
        let turn = tokio::select! {
            biased;
            turn = connection.turn(&mut later) => turn,
            () = &mut logging_in, if !is_open => Err(Cut::Login.into()),
        };
        match turn {
            Ok(()) => {}
            Err(End::Gone) => return,
            Err(End::Cut(why)) => {
                connection.broker.counters.cut(why);
                let client = connection.session.client_id.take();
                tracing::debug!(peer = ?connection.session.peer, %client, why = why.name(), "cut off");
                // Inside TLS, an end that is not said might be somebody else's doing.
                let _ = timeout(GOODBYE_WITHIN, connection.to.shutdown()).await;
                return;
            }
        }
    }
}

struct Connection<S> {
    from: ReadHalf<S>,
    to: WriteHalf<S>,
    /// What came and was not looked at.
    came: BytesMut,
    /// The request that has begun to come, where it did not come at once.
    coming: Option<Coming>,
    session: Rc<Session>,
    broker: Rc<Broker>,
}

/// A request that is not there whole.
struct Coming {
    /// When it should be.
    late: Pin<Box<Sleep>>,
    /// What it takes so far.
    room: Part,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// One request and its answer.
    async fn turn(&mut self, later: &mut Answers) -> Result<(), End> {
        let (broker, session) = (Rc::clone(&self.broker), Rc::clone(&self.session));
        let (frame, room) = loop {
            tokio::select! {
                biased;
                Some(answer) = later.next() => self.send(&answer?.0).await?,
                request = self.request() => break request?,
            }
        };
        let is_raw = session.login.borrow().is_raw();
        if is_raw {
            return self.raw(&frame).await;
        }
        let header = frame::header(frame).map_err(|_| Cut::Malformed)?;
        if let Some(client_id) = header.client_id {
            *self.session.client_id.borrow_mut() = client_id;
        }
        let is_produce = matches!(&header.asked, Asked::Spoken(row, _) if row.key == Key::Produce);
        if !is_produce || later.len() >= LATER_MAX {
            self.send_all(later).await?;
        }
        let answer = match header.asked {
            Asked::Spoken(row, body) => {
                let is_open = session.login.borrow().is_open();
                if row.asked == table::Asked::LoggedIn && !is_open {
                    return Err(Cut::NotLoggedIn.into());
                }
                broker.counters.requested(row.key);
                let call = Call {
                    broker: &broker,
                    session: &session,
                    version: body.version(),
                };
                let answer = api::answer(row, header.correlation, body, room, &call);
                self.unless_gone(answer).await??
            }
            Asked::Version(Key::ApiVersions, _) => api::unsupported_versions(header.correlation),
            Asked::Version(key, version) => {
                tracing::info!(peer = ?self.session.peer, api = key.name(), version, "a Kafka client asks in a version that is not spoken");
                return Err(Cut::Unsupported.into());
            }
            Asked::Unknown(key, version) => {
                tracing::info!(peer = ?self.session.peer, key, version, "a Kafka client asks for an API that is not spoken");
                return Err(Cut::Unsupported.into());
            }
        };
        let mut taken = session.answer.replace(broker.rooms.answer());
        match answer {
            Answer::Bytes(bytes) => {
                let held = broker.rooms.hold_made(&mut taken, bytes.len());
                self.unless_gone(held).await??;
                self.send(&bytes).await?;
            }
            Answer::Later(answer) => {
                let broker = Rc::clone(&broker);
                later.push_back(Box::pin(async move {
                    let bytes = answer.bytes(&broker).await;
                    broker.rooms.hold_made(&mut taken, bytes.len()).await?;
                    Ok((bytes, taken))
                }));
            }
            Answer::Nothing => {}
        }
        if let Some(why) = session.ending.get() {
            return Err(why.into());
        }
        self.mute(later).await
    }

    /// Hears nothing of who is over its quota, for as long as it is told.
    async fn mute(&mut self, later: &mut Answers) -> Result<(), End> {
        let muted = self.session.muted.take();
        if !muted.is_zero() {
            self.send_all(later).await?;
            self.unless_gone(sleep(muted)).await?;
        }
        Ok(())
    }

    /// Sends the answers that wait, each as soon as it is there.
    async fn send_all(&mut self, later: &mut Answers) -> Result<(), End> {
        while let Some(answer) = self.unless_gone(later.next()).await? {
            self.send(&answer?.0).await?;
        }
        Ok(())
    }

    /// A message of SASL that stands in no request, and its answer, likewise.
    async fn raw(&mut self, message: &[u8]) -> Result<(), End> {
        let (broker, session) = (Rc::clone(&self.broker), Rc::clone(&self.session));
        let call = Call {
            broker: &broker,
            session: &session,
            version: 0,
        };
        match self.unless_gone(login::turn(&call, message)).await? {
            Turn::Answer(answer) => {
                let mut bytes = vec![0; LENGTH_BYTES];
                bytes.extend_from_slice(&answer);
                frame::end(&mut bytes);
                self.send(&bytes).await
            }
            // There is no way to say why.
            Turn::Refused | Turn::Illegal => Err(Cut::Login.into()),
        }
    }

    /// The next request, and the room that it takes. What of it has come stays where this is given up.
    async fn request(&mut self) -> Result<(Bytes, Part), End> {
        if self.came.is_empty() {
            let more = read_more(&mut self.from, &mut self.came, AHEAD_BYTES);
            timeout(IDLE_MAX, more).await.map_err(|_| Cut::Idle)??;
        }
        loop {
            let whole = match self.came.first_chunk::<LENGTH_BYTES>() {
                None => None,
                Some(prefix) => {
                    let length = self.length_of(*prefix).ok_or(Cut::FrameLength)?;
                    Some(LENGTH_BYTES + length)
                }
            };
            if let Some(whole) = whole.filter(|whole| self.came.len() >= *whole) {
                return Ok(self.taken(whole));
            }
            let coming = self.coming.get_or_insert_with(|| Coming {
                late: Box::pin(sleep(REQUEST_WITHIN)),
                room: self.broker.rooms.request(),
            });
            let part = read_part(&mut self.from, &mut self.came, &mut coming.room, whole);
            tokio::select! {
                biased;
                part = part => part?,
                () = &mut coming.late => return Err(Cut::SlowRequest.into()),
            }
        }
    }

    /// The first bytes of what came, as a request.
    fn taken(&mut self, whole: usize) -> (Bytes, Part) {
        self.broker.counters.bytes_in.add(whole as u64);
        let mut room = match self.coming.take() {
            Some(coming) => coming.room,
            None => self.broker.rooms.request(),
        };
        room.shrink_to(whole);
        let mut frame = self.came.split_to(whole);
        if whole > AHEAD_BYTES {
            // Else the memory of a long request would be used again, and never given back.
            self.came = BytesMut::from(&*self.came);
        }
        // What others see of it is their own.
        (frame.split_off(LENGTH_BYTES).freeze(), room)
    }

    /// How long the next request is; none where it cannot be one.
    fn length_of(&self, prefix: [u8; LENGTH_BYTES]) -> Option<usize> {
        let login = self.session.login.borrow();
        match (login.is_open(), login.is_raw()) {
            (true, _) => frame::length_of(prefix, REQUEST_BYTES_MAX),
            (false, false) => frame::length_of(prefix, LOGIN_BYTES_MAX),
            (false, true) => {
                let length = usize::try_from(i32::from_be_bytes(prefix)).ok()?;
                (length <= LOGIN_BYTES_MAX).then_some(length)
            }
        }
    }

    /// Waits for something, unless the client goes away.
    async fn unless_gone<T>(&mut self, work: impl Future<Output = T>) -> Result<T, End> {
        tokio::pin!(work);
        loop {
            let has_room = self.came.len() < AHEAD_BYTES;
            let ahead = AHEAD_BYTES.saturating_sub(self.came.len());
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                more = read_more(&mut self.from, &mut self.came, ahead), if has_room => more?,
            }
        }
    }

    /// Sends an answer. Who takes nothing of it for long, or little of it for very long, is cut off.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        let length = bytes.len() as u64;
        self.broker.counters.bytes_out.add(length);
        let within = STILL_MAX + Duration::from_secs(length / TAKEN_EACH_SECOND);
        let sent = timeout(within, self.send_on(bytes)).await;
        sent.map_err(|_| Cut::SlowAnswer)?
    }

    async fn send_on(&mut self, mut bytes: &[u8]) -> Result<(), End> {
        while !bytes.is_empty() {
            let sent = timeout(STILL_MAX, self.to.write(bytes))
                .await
                .map_err(|_| Cut::SlowAnswer)??;
            bytes = match bytes.get(sent..) {
                Some(left) if sent > 0 => left,
                _ => return Err(End::Gone),
            };
        }
        timeout(STILL_MAX, self.to.flush())
            .await
            .map_err(|_| Cut::SlowAnswer)??;
        Ok(())
    }
}

/// Reads another part of a request, as soon as there is room for it: of one that is so long in all, where that is
/// known. Nothing is lost where it is given up.
async fn read_part(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut BytesMut,
    room: &mut Part,
    whole: Option<usize>,
) -> Result<(), End> {
    let Some(whole) = whole else {
        return read_more(from, to, AHEAD_BYTES).await;
    };
    let mut has = room.bytes().max(AHEAD_BYTES);
    while to.len() >= has {
        has += STEP_BYTES;
        room.hold(has).await?;
    }
    // No more than there is room for, and nothing of what follows a long request.
    let wanted = whole.min(has).saturating_sub(to.len());
    read_more(from, to, wanted).await
}

/// Reads what has come, `bytes_max` at the most. Nothing is lost where it is given up.
async fn read_more(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut BytesMut,
    bytes_max: usize,
) -> Result<(), End> {
    /// What a small request needs.
    const AT_FIRST: usize = 4 * 1024;
    if to.capacity() - to.len() < AT_FIRST {
        to.reserve(AT_FIRST.max(to.len()).min(bytes_max.max(1)));
    }
    let mut limited = from.take(bytes_max as u64);
    match limited.read_buf(to).await? {
        0 => Err(End::Gone),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::{
        io::DuplexStream,
        task::{spawn_local, yield_now},
    };

    use super::*;
    use crate::kafka::rig::{Rig, with_broker};

    fn connection(rig: &Rig) -> (DuplexStream, Connection<DuplexStream>) {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (from, to) = tokio::io::split(theirs);
        let connection = Connection {
            from,
            to,
            came: BytesMut::new(),
            coming: None,
            session: Rc::new(Session::new(&rig.broker, None, false)),
            broker: Rc::clone(&rig.broker),
        };
        (ours, connection)
    }

    fn sends(mut client: DuplexStream, lengths: &'static [i32]) {
        spawn_local(async move {
            for length in lengths {
                client.write_i32(*length).await.unwrap();
                let bytes = vec![b'x'; usize::try_from(*length).unwrap()];
                client.write_all(&bytes).await.unwrap();
            }
            std::future::pending::<()>().await;
        });
    }

    #[test]
    fn a_request_that_is_given_up_at_any_moment_goes_on_where_it_was() {
        with_broker(&[], async |rig| {
            let (client, mut connection) = connection(&rig);
            sends(client, &[4_000_000, 100]);
            for length in [4_000_000, 100] {
                let (frame, room) = loop {
                    // As when an earlier answer is there to be sent.
                    match connection.request().now_or_never() {
                        Some(request) => break request.unwrap(),
                        None => yield_now().await,
                    }
                };
                assert_eq!(frame.len(), length);
                assert_eq!(
                    room.bytes(),
                    if length > AHEAD_BYTES { length + 4 } else { 0 }
                );
            }
        });
    }

    #[test]
    fn a_long_request_leaves_nothing_behind() {
        with_broker(&[], async |rig| {
            let (client, mut connection) = connection(&rig);
            sends(client, &[8_000_000, 100, 100_000, 100]);
            for _ in 0..4 {
                drop(connection.request().await.unwrap());
                let kept = connection.came.capacity();
                assert!(kept <= 2 * AHEAD_BYTES, "{kept} bytes");
            }
        });
    }
}
