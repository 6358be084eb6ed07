//! A broker over a log in a directory of its own, asked in the words of the crate kafka-protocol.

use std::{net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    runtime::{Builder, LocalOptions},
    task::spawn_local,
};

use super::{
    api::{self, Answer},
    broker::{Broker, Call, Security, Session, Settings},
    connection,
    counters::{Counters, Cut},
    frame::{self, Asked},
    table::{self, Key},
};
use crate::{
    base::{clock::Clock, disk::System},
    log::{self, Append, Cleanup, Compression, Flush, Log, Partition, TopicConfig, TopicSettings},
};

/// A broker, its log, and one client's session.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) broker: Rc<Broker>,
    pub(crate) session: Rc<Session>,
    running: Option<log::Running>,
    /// Where the log is, as long as there is a rig.
    dir: Rc<TempDir>,
}

/// Runs a test with a broker whose log has the topics that are always there, and these.
pub(crate) fn with_broker<F: Future<Output = ()>>(
    topics: &[(&str, u32)],
    test: impl FnOnce(Rc<Rig>) -> F,
) {
    with_secured_broker(topics, Security::default(), test);
}

/// The same, with a broker that is secured so.
pub(crate) fn with_secured_broker<F: Future<Output = ()>>(
    topics: &[(&str, u32)],
    security: Security,
    test: impl FnOnce(Rc<Rig>) -> F,
) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        let rig = Rc::new(Rig::secured(topics, security));
        test(Rc::clone(&rig)).await;
    });
}

fn topic(name: &str, partitions: u32, cleanup: Cleanup) -> TopicSettings {
    TopicSettings {
        name: name.to_owned(),
        partitions,
        config: TopicConfig {
            cleanup,
            flush: Flush::EachAppend,
            ..TopicConfig::default()
        },
    }
}

/// A session of a client on this machine.
fn session(broker: &Rc<Broker>) -> Rc<Session> {
    let here = Some(IpAddr::from([127, 0, 0, 1]));
    Rc::new(Session::new(broker, here, true))
}

impl Rig {
    pub(crate) fn new(topics: &[(&str, u32)]) -> Self {
        Self::secured(topics, Security::default())
    }

    fn secured(topics: &[(&str, u32)], security: Security) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let always = [
            ("__consumer_offsets", 4),
            ("__wardent_metadata", 1),
            ("_schemas", 1),
        ];
        let always = always.map(|(name, partitions)| topic(name, partitions, Cleanup::Compact));
        let own = ["wardent.http.access"].map(|name| topic(name, 1, Cleanup::Delete));
        let topics = topics.iter();
        let topics = topics.map(|(name, partitions)| topic(name, *partitions, Cleanup::Delete));
        let settings = log::Settings {
            dir: dir.path().join("log"),
            disk_max: 1 << 30,
            ballast_bytes: 0,
            topics: always.into_iter().chain(own).chain(topics).collect(),
        };
        let clock = Clock::system();
        let opened = log::open(settings, Arc::new(System), clock.clone()).unwrap();
        let log = Arc::clone(&opened.log);
        let running = log::start(opened.appender, opened.flusher, opened.changer).unwrap();
        let settings = Settings {
            host: "127.0.0.1".to_owned(),
            port: 9092,
        };
        let time = (clock, Arc::default());
        let counters = Arc::<Counters>::default();
        let broker = Broker::new(settings, security, log, time, counters).unwrap();
        Self {
            session: session(&broker),
            broker,
            running: Some(running),
            dir: Rc::new(dir),
        }
    }

    /// A broker that begins anew over the same log, as after a restart.
    pub(crate) fn another_broker(&self) -> Self {
        let own = &self.broker;
        let (log, clock) = (Arc::clone(&own.log), own.clock.clone());
        let settings = own.settings.clone();
        let time = (clock, Arc::default());
        let counters = Arc::<Counters>::default();
        let broker = Broker::new(settings, Security::default(), log, time, counters).unwrap();
        Self {
            session: session(&broker),
            broker,
            running: None,
            dir: Rc::clone(&self.dir),
        }
    }

    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.broker.log
    }

    pub(crate) fn partition(&self, topic: &str, index: u32) -> Arc<Partition> {
        self.log().partition(topic, index).unwrap()
    }

    /// Asks, and has the answer read. The session is that of the rig.
    pub(crate) async fn ask<A: Decodable>(
        &self,
        key: Key,
        version: i16,
        request: &impl Encodable,
    ) -> A {
        let answer = self.try_ask(key, version, request).await.unwrap();
        let Some(mut bytes) = answer else {
            panic!("nothing was answered")
        };
        let answer = A::decode(&mut bytes, version).unwrap();
        assert!(bytes.is_empty(), "{} bytes too many", bytes.len());
        answer
    }

    /// Asks; what is answered, behind its header; none where nothing is answered.
    pub(crate) async fn try_ask(
        &self,
        key: Key,
        version: i16,
        request: &impl Encodable,
    ) -> Result<Option<Bytes>, Cut> {
        self.try_answer(framed(key, version, 7, request)).await
    }

    /// Has a request answered that has the correlation 7, as [`Self::try_ask`].
    pub(crate) async fn try_answer(&self, mut framed: Bytes) -> Result<Option<Bytes>, Cut> {
        let header = frame::header(framed.split_off(4))?;
        let Asked::Spoken(row, body) = header.asked else {
            panic!("it is not spoken")
        };
        let (key, version) = (row.key, body.version());
        let call = Call {
            broker: &self.broker,
            session: &self.session,
            version,
        };
        let rooms = &self.broker.rooms;
        let answer = api::answer(row, 7, body, rooms.request(), &call).await;
        // It is sent.
        self.session.answer.replace(rooms.answer());
        let bytes = match answer? {
            Answer::Bytes(bytes) => bytes,
            Answer::Later(later) => later.bytes(&self.broker).await,
            Answer::Nothing => return Ok(None),
        };
        Ok(Some(unframed(
            key,
            version,
            Bytes::from(bytes).split_off(4),
            7,
        )))
    }

    /// A call of the rig's session.
    pub(crate) fn call(&self, version: i16) -> Call<'_> {
        Call {
            broker: &self.broker,
            session: &self.session,
            version,
        }
    }

    /// A connection to the broker.
    pub(crate) fn connect(&self) -> Client {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let session = session(&self.broker);
        spawn_local(connection::serve(theirs, session, Rc::clone(&self.broker)));
        Client {
            stream: ours,
            correlation: 0,
        }
    }

    /// Appends these values as one batch, and returns when they may be read.
    pub(crate) async fn append(&self, topic: &str, index: u32, values: &[&str]) -> i64 {
        let mut builder = log::Builder::new();
        for value in values {
            let now_ms = i64::try_from(self.broker.clock.unix_ms()).unwrap();
            builder.push(now_ms, Some(b"key"), Some(value.as_bytes()), &[]);
        }
        let (tell, told) = tokio::sync::oneshot::channel();
        let append = Append {
            partition: self.partition(topic, index),
            batch: builder.finish(Compression::None),
            done: Box::new(|result| tell.send(result).unwrap()),
        };
        self.log().appends().offer(append).unwrap();
        told.await.unwrap().unwrap().base_offset
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop(Duration::from_secs(10));
        }
    }
}

/// A request with all that stands before it.
pub(crate) fn framed(key: Key, version: i16, correlation: i32, request: &impl Encodable) -> Bytes {
    let is_flexible = table::row(key.code()).unwrap().shape(version).is_flexible;
    let mut body = BytesMut::new();
    body.put_i16(key.code());
    body.put_i16(version);
    body.put_i32(correlation);
    body.put_i16(3);
    body.put_slice(b"rig");
    if is_flexible {
        body.put_u8(0);
    }
    request.encode(&mut body, version).unwrap();
    let mut framed = BytesMut::new();
    framed.put_i32(i32::try_from(body.len()).unwrap());
    framed.put_slice(&body);
    framed.freeze()
}

/// What stands behind the header of an answer.
fn unframed(key: Key, version: i16, mut bytes: Bytes, correlation: i32) -> Bytes {
    assert_eq!(bytes.get_i32(), correlation);
    let is_flexible = table::row(key.code()).unwrap().shape(version).is_flexible;
    if is_flexible && key != Key::ApiVersions {
        assert_eq!(bytes.get_u8(), 0);
    }
    bytes
}

/// A client with a connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: DuplexStream,
    correlation: i32,
}

impl Client {
    /// Sends a request without waiting for its answer; says what its correlation is.
    pub(crate) async fn send(&mut self, key: Key, version: i16, request: &impl Encodable) -> i32 {
        self.correlation += 1;
        let bytes = framed(key, version, self.correlation, request);
        self.stream.write_all(&bytes).await.unwrap();
        self.correlation
    }

    /// The next answer, which must be to that request.
    pub(crate) async fn receive<A: Decodable>(
        &mut self,
        key: Key,
        version: i16,
        correlation: i32,
    ) -> A {
        let length = self.stream.read_i32().await.unwrap();
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut bytes).await.unwrap();
        let mut bytes = unframed(key, version, Bytes::from(bytes), correlation);
        A::decode(&mut bytes, version).unwrap()
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask<A: Decodable>(
        &mut self,
        key: Key,
        version: i16,
        request: &impl Encodable,
    ) -> A {
        let correlation = self.send(key, version, request).await;
        self.receive(key, version, correlation).await
    }

    /// Whether the broker has ended the connection.
    pub(crate) async fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]).await, Ok(0) | Err(_))
    }
}
