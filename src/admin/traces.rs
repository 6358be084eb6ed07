//! Sends finished requests to a collector of traces, as spans, in batches.
//!
//! It runs beside the admin listener; a collector that is slow or away costs no request anything. One batch is
//! under way at a time. What the collector cannot take now is offered again a few times; meanwhile the queue
//! fills, and what finds no room there is lost and counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use hyper::body::Bytes;
use rustix::system::uname;
use tokio::sync::watch;

use crate::{
    event::access::Verdict,
    proxy::{
        trace::{Told, Tracer},
        upstream::Upstream,
    },
    telemetry::{
        otlp::{self, Attribute, Kind, Span, Status},
        post::{self, SendError, Target},
    },
};

/// Requests of one batch at most.
const BATCH: usize = 256;
/// How often it is looked whether a batch is full.
const LOOK: Duration = Duration::from_millis(50);
/// So many looks, one second, a request waits for others at most.
const LOOKS_MAX: u32 = 20;
/// How often a batch is offered.
const TRIES: u32 = 4;
/// Before it is offered again; twice as long each time.
const PAUSE: Duration = Duration::from_secs(1);
/// For what is left when the process ends.
const ENDED_WITHIN: Duration = Duration::from_secs(1);

/// What became of spans. Written by the exporter; relaxed, since each number stands for itself.
#[derive(Debug, Default)]
pub struct Exported {
    /// Spans that the collector took.
    pub taken: AtomicU64,
    /// Spans that it did not want.
    pub refused: AtomicU64,
    /// Spans that did not get to it.
    pub unreachable: AtomicU64,
}

/// Carries spans from the workers' queue to the collector.
#[derive(Debug)]
pub struct Exporter {
    tracer: Arc<Tracer>,
    upstream: Arc<Upstream>,
    exported: Arc<Exported>,
    to: Target,
    resource: Vec<Attribute>,
    is_well: bool,
}

/// How one offer of a batch ended.
enum Offer {
    Taken {
        rejected: u64,
    },
    /// It would be refused again.
    Refused(StatusCode),
    /// Perhaps not later.
    Not(String),
}

impl Exporter {
    /// An exporter of what `tracer` is told to the collector at `to`. `upstream` knows the servers' names.
    pub fn new(
        tracer: Arc<Tracer>,
        upstream: Arc<Upstream>,
        exported: Arc<Exported>,
        to: &Target,
    ) -> Self {
        let mut resource = vec![
            Attribute::text("service.name", "wardent"),
            Attribute::text("service.version", env!("CARGO_PKG_VERSION")),
        ];
        let host = uname().nodename().to_string_lossy().into_owned();
        if !host.is_empty() {
            resource.push(Attribute::text("host.name", host));
        }
        Self {
            tracer,
            upstream,
            exported,
            to: to.clone().below(otlp::PATH),
            resource,
            is_well: true,
        }
    }

    /// Exports until the end, and then what is left, for a second.
    pub async fn run(mut self, mut until_ended: watch::Receiver<bool>) {
        tokio::select! {
            () = self.keep_exporting() => {}
            _ = until_ended.wait_for(|ended| *ended) => {}
        }
        let last = async {
            while self.tracer.waiting() > 0 {
                self.export().await;
            }
        };
        let _ = tokio::time::timeout(ENDED_WITHIN, last).await;
    }

    async fn keep_exporting(&mut self) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Looks at which something waited.
        let mut waited = 0;
        loop {
            looks.tick().await;
            let waiting = self.tracer.waiting();
            waited += u32::from(waiting > 0);
            if waiting >= BATCH || waited >= LOOKS_MAX {
                self.export().await;
                self.export_full().await;
                waited = 0;
            }
        }
    }

    /// As long as there are full batches, one after the other: looks do not say how many there may be.
    async fn export_full(&mut self) {
        while self.tracer.waiting() >= BATCH {
            self.export().await;
        }
    }

    /// One batch, offered until it is taken or given up.
    async fn export(&mut self) {
        let told = (0..BATCH).map_while(|_| self.tracer.take());
        let spans: Vec<Span> = told.flat_map(|told| self.spans(&told)).collect();
        let count = spans.len() as u64;
        let Ok(body) = otlp::body(&self.resource, &spans).map(Bytes::from) else {
            return;
        };
        drop(spans);
        let mut pause = PAUSE;
        for nth in 1..=TRIES {
            match self.offer(body.clone()).await {
                Offer::Taken { rejected } => {
                    let rejected = rejected.min(count);
                    add(&self.exported.taken, count - rejected);
                    add(&self.exported.refused, rejected);
                    self.note(None);
                    return;
                }
                Offer::Refused(status) => {
                    add(&self.exported.refused, count);
                    self.note(Some(&format!("it answers {status}")));
                    return;
                }
                Offer::Not(why) => self.note(Some(&why)),
            }
            if nth < TRIES {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
        add(&self.exported.unreachable, count);
    }

    async fn offer(&self, body: Bytes) -> Offer {
        match post::json(&self.to, body).await {
            Ok((status, answer)) if status.is_success() => Offer::Taken {
                rejected: otlp::rejected(&answer),
            },
            // What the protocol says may be tried again.
            Ok((status, _)) if matches!(status.as_u16(), 429 | 502 | 503 | 504) => {
                Offer::Not(format!("it answers {status}"))
            }
            Ok((status, _)) => Offer::Refused(status),
            Err(error @ (SendError::Late | SendError::Unreachable(_) | SendError::Broken(_))) => {
                Offer::Not(error.to_string())
            }
        }
    }

    /// Says once that the collector takes nothing, and once that it does again.
    fn note(&mut self, trouble: Option<&str>) {
        match (trouble, self.is_well) {
            (Some(why), true) => {
                tracing::warn!(to = ?self.to, why, "the collector takes no traces");
            }
            (None, false) => tracing::info!(to = ?self.to, "the collector takes traces again"),
            (Some(_), false) | (None, true) => {}
        }
        self.is_well = trouble.is_none();
    }

    /// The spans of one request: itself, the guards, and what the upstream was asked, in its stages.
    fn spans(&self, told: &Told) -> Vec<Span> {
        let trace = &told.trace;
        let method = known_method(&told.method);
        let name = match told.route.as_str() {
            "" => method.to_owned(),
            route => format!("{method} {route}"),
        };
        let (began_ns, ended_ns) = (told.began_ns, told.ended_ns);
        let ids = (trace.server_span, trace.parent_span);
        let mut request = span(told, ids, name, Kind::Server, (began_ns, ended_ns));
        request.attributes = attributes(told, method);
        if told.status >= 500 || told.verdict == Verdict::Failed {
            request.status = Status::error(told.said.map(|(_, why)| why));
        }
        let guards = (began_ns, trace.judged_ns);
        let mut spans = vec![request, stage(told, 1, trace.server_span, "guards", guards)];
        if trace.asked_ns != 0 {
            spans.push(self.upstream_span(told, method));
            let parent = trace.upstream.span_id;
            let connected_ns = told.connected_ns.unwrap_or(ended_ns);
            let connect = (trace.asked_ns, connected_ns);
            spans.push(stage(told, 2, parent, "connect", connect));
            if told.connected_ns.is_some() {
                let head = (connected_ns, told.answered_ns.unwrap_or(ended_ns));
                spans.push(stage(told, 3, parent, "response head", head));
            }
            if let Some(answered_ns) = told.answered_ns {
                let body = (answered_ns, ended_ns);
                spans.push(stage(told, 4, parent, "response body", body));
            }
        }
        spans
    }

    fn upstream_span(&self, told: &Told, method: &str) -> Span {
        let trace = &told.trace;
        let ids = (trace.upstream.span_id, trace.server_span);
        let times = (trace.asked_ns, told.ended_ns);
        let mut upstream = span(told, ids, "upstream".to_owned(), Kind::Client, times);
        let method = Attribute::text("http.request.method", method);
        upstream.attributes.push(method);
        let server = told.server.and_then(|nth| self.upstream.servers().get(nth));
        if let Some(server) = server {
            let address = Attribute::text("server.address", server.name());
            upstream.attributes.push(address);
        }
        if told.verdict == Verdict::Failed {
            upstream.status = Status::error(told.said.map(|(_, why)| why));
        }
        upstream
    }
}

/// A span of `told`: its own id and its parent's, from and to a moment of the monotonic clock.
fn span(
    told: &Told,
    (own, parent): (u64, u64),
    name: String,
    kind: Kind,
    (from_ns, to_ns): (u64, u64),
) -> Span {
    let at = |ns: u64| told.unix_ahead_ns.saturating_add(ns);
    Span {
        trace_id: told.trace.upstream.trace_id,
        span_id: own,
        parent_span_id: parent,
        name,
        kind,
        start_time_unix_nano: at(from_ns),
        end_time_unix_nano: at(to_ns),
        attributes: Vec::new(),
        status: Status::default(),
    }
}

/// The `nth` part of a request, to which nobody else refers: its id follows from the request's own.
fn stage(told: &Told, nth: u32, parent: u64, name: &str, times: (u64, u64)) -> Span {
    let own = told.trace.server_span.rotate_left(8 * nth) ^ u64::from(nth);
    span(told, (own, parent), name.to_owned(), Kind::Internal, times)
}

/// What is told of a request, by OpenTelemetry's names where it has them.
fn attributes(told: &Told, method: &str) -> Vec<Attribute> {
    let mut all = vec![
        Attribute::text("http.request.method", method),
        Attribute::text("url.scheme", "http"),
        Attribute::text("url.path", told.path.as_str()),
        Attribute::text("server.address", told.host.as_str()),
        Attribute::number("http.request.body.size", told.body_bytes_in),
        Attribute::number("http.response.size", told.bytes_out),
        Attribute::text(
            "wardent.request_id",
            String::from_utf8_lossy(told.id.as_bytes()),
        ),
        Attribute::text("wardent.verdict", told.verdict.name()),
    ];
    if method == OTHER {
        all.push(Attribute::text(
            "http.request.method_original",
            told.method.as_str(),
        ));
    }
    if told.status != 0 {
        all.push(Attribute::number(
            "http.response.status_code",
            told.status.into(),
        ));
    }
    let texts = [
        ("client.address", told.client.as_deref().unwrap_or_default()),
        ("user_agent.original", &told.user_agent),
        ("wardent.route", &told.route),
    ];
    let given = texts.into_iter().filter(|(_, text)| !text.is_empty());
    all.extend(given.map(|(key, text)| Attribute::text(key, text)));
    if let Some((reason, why)) = told.said {
        all.push(Attribute::text("wardent.reason", reason));
        all.push(Attribute::text("wardent.why", why));
        all.push(Attribute::truth("wardent.observed", told.is_observed));
        if told.status >= 500 {
            all.push(Attribute::text("error.type", reason));
        }
    }
    all
}

/// What methods are called that are not of HTTP's own, so that no client can choose a span's name.
const OTHER: &str = "_OTHER";

fn known_method(method: &str) -> &str {
    const KNOWN: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    ];
    if KNOWN.contains(&method) {
        method
    } else {
        OTHER
    }
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::{
        base::id::RequestIds, proxy::trace::Trace, telemetry::trace_context::TraceContext,
    };

    fn told() -> Box<Told> {
        let upstream = TraceContext {
            trace_id: 1,
            span_id: 2,
            flags: 1,
        };
        Box::new(Told {
            trace: Trace {
                upstream,
                server_span: 3,
                parent_span: 0,
                judged_ns: 2,
                asked_ns: 0,
            },
            unix_ahead_ns: 0,
            began_ns: 1,
            connected_ns: None,
            answered_ns: None,
            ended_ns: 3,
            id: RequestIds::starting_at(0).next(0),
            method: "GET".to_owned(),
            host: String::new(),
            path: "/".to_owned(),
            user_agent: String::new(),
            client: None,
            route: String::new(),
            server: None,
            status: 200,
            verdict: Verdict::Passed,
            said: None,
            is_observed: false,
            body_bytes_in: 0,
            bytes_out: 0,
        })
    }

    /// Takes whatever comes, one request a connection.
    async fn take_all(collector: TcpListener) {
        while let Ok((mut stream, _)) = collector.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).unwrap();
            let length = length.split("\r\n").next().unwrap().parse().unwrap();
            stream.read_exact(&mut vec![0; length]).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
            stream.write_all(answer).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_look_sends_all_full_batches_and_leaves_the_rest_to_the_next() {
        let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = collector.local_addr().unwrap();
        tokio::spawn(take_all(collector));
        let tracer = Arc::new(Tracer::new(1_000_000));
        (0..5 * BATCH + 7).for_each(|_| tracer.tell(told()));
        let to = Target::of(&format!("http://{address}").parse().unwrap()).unwrap();
        let exported = Arc::<Exported>::default();
        let upstream = Arc::new(Upstream::new(Vec::new()));
        let mut exporter = Exporter::new(Arc::clone(&tracer), upstream, Arc::clone(&exported), &to);
        exporter.export_full().await;
        assert_eq!(tracer.waiting(), 7);
        // Each request is one span, and one more for the guards.
        let taken = exported.taken.load(Ordering::Relaxed);
        assert_eq!(taken, 2 * 5 * BATCH as u64);
    }
}
