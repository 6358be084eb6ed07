//! Requests become spans with the right parents, for whom they may, and no collector costs a request anything.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use support::{
    P, get,
    origin::{Origin, answer},
    rig::Rig,
    time::eventually,
    wardent::Setup,
};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn collector() -> Origin {
    Origin::answering(|_| answer("200 OK", "Content-Type: application/json\r\n", b"{}"))
}

fn told_to(collector: &Origin) -> impl Fn(Setup) -> Setup {
    let line = format!("telemetry: {{otlp: 'http://{}/'}}", collector.server());
    move |setup| setup.top(&line)
}

/// A span as the collector got it.
#[derive(Debug, Clone)]
struct Span(Value);

impl Span {
    fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    /// An attribute's value, as text.
    fn attribute(&self, key: &str) -> String {
        let all = self.0["attributes"].as_array().unwrap();
        let found = all.iter().find(|attribute| attribute["key"] == key);
        let value = found.map_or(&Value::Null, |attribute| &attribute["value"]);
        let texts = ["stringValue", "intValue"].map(|kind| value[kind].as_str());
        texts.into_iter().flatten().collect()
    }

    fn nanos(&self, key: &str) -> u64 {
        self.text(key).parse().unwrap()
    }
}

/// All spans that have come, each batch checked for what goes for all.
fn spans(collector: &Origin) -> Vec<Span> {
    let mut spans = Vec::new();
    for request in collector.requests() {
        assert_eq!(request.head.target, "/v1/traces");
        assert_eq!(request.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let resource = &body["resourceSpans"][0];
        assert_eq!(
            resource["resource"]["attributes"][0]["value"]["stringValue"],
            "wardent"
        );
        let attributes = resource["resource"]["attributes"].as_array().unwrap();
        let host = attributes.iter().find(|one| one["key"] == "host.name");
        let host = host.and_then(|host| host["value"]["stringValue"].as_str());
        let own = rustix::system::uname();
        assert_eq!(host, own.nodename().to_str().ok());
        let batch = resource["scopeSpans"][0]["spans"].as_array().unwrap();
        spans.extend(batch.iter().cloned().map(Span));
    }
    spans
}

/// The spans of one request, by name, once `count` have come.
fn one_request(collector: &Origin, count: usize) -> BTreeMap<String, Span> {
    eventually("the spans have come", || spans(collector).len() >= count);
    let spans = spans(collector);
    assert_eq!(spans.len(), count, "{spans:#?}");
    let named = spans
        .into_iter()
        .map(|span| (span.text("name").to_owned(), span));
    named.collect()
}

#[test]
fn a_trusted_peers_trace_goes_on_through_every_stage_to_the_upstream() {
    let collector = collector();
    let rig = Rig::with(told_to(&collector));
    let sent = format!(
        "GET /shop?card=1 HTTP/1.1\r\n{P}traceparent: {PARENT}\r\ntracestate: a=1\r\n\
         Tracestate: b=2\r\n\r\n"
    );
    assert_eq!(rig.wardent.ask(sent).status, 200);
    let passed = rig.origin.only_request();
    let named = one_request(&collector, 6);
    let request = &named["GET defaults"];
    let upstream = &named["upstream"];
    for span in named.values() {
        assert_eq!(span.text("traceId"), TRACE);
        assert!(
            span.nanos("startTimeUnixNano") <= span.nanos("endTimeUnixNano"),
            "{span:?}"
        );
        assert!(span.nanos("startTimeUnixNano") >= request.nanos("startTimeUnixNano"));
        assert!(span.nanos("endTimeUnixNano") <= request.nanos("endTimeUnixNano"));
    }
    let ids: BTreeSet<_> = named.values().map(|span| span.text("spanId")).collect();
    assert_eq!(ids.len(), 6, "ids are their own");
    assert_eq!(request.text("parentSpanId"), "00f067aa0ba902b7");
    for (name, parent) in [
        ("guards", request),
        ("upstream", request),
        ("connect", upstream),
        ("response head", upstream),
        ("response body", upstream),
    ] {
        assert_eq!(
            named[name].text("parentSpanId"),
            parent.text("spanId"),
            "{name}"
        );
    }
    assert_eq!(
        (&request.0["kind"], &upstream.0["kind"]),
        (&2.into(), &3.into())
    );
    let header = format!("00-{TRACE}-{}-01", upstream.text("spanId"));
    assert_eq!(passed.header("traceparent"), Some(header.as_str()));
    assert_eq!(passed.head.fields.all("tracestate"), ["a=1", "b=2"]);
    assert_eq!(request.attribute("http.response.status_code"), "200");
    assert_eq!(request.attribute("client.address"), support::CLIENT);
    // What comes after the question mark may be anybody's secret.
    assert_eq!(request.attribute("url.path"), "/shop");
    let id = passed.header("x-request-id").unwrap();
    assert_eq!(request.attribute("wardent.request_id"), id);
}

#[test]
fn strangers_begin_a_trace_of_their_own() {
    let collector = collector();
    let rig = Rig::with(|setup| told_to(&collector)(setup).secret(&[]));
    let fields = format!("traceparent: {PARENT}\r\ntracestate: a=1\r\n");
    let sent = format!("GET / HTTP/1.1\r\nHost: app.test\r\nUser-Agent: wtest/1\r\n{fields}\r\n");
    assert_eq!(rig.wardent.stranger().ask(sent).status, 200);
    let passed = rig.origin.only_request();
    let named = one_request(&collector, 6);
    let request = &named["GET defaults"];
    assert_ne!(request.text("traceId"), TRACE);
    assert_eq!(request.text("parentSpanId"), "");
    let trace = request.text("traceId");
    let header = format!("00-{trace}-{}-01", named["upstream"].text("spanId"));
    assert_eq!(passed.head.fields.all("traceparent"), [header.as_str()]);
    assert!(!passed.head.fields.has("tracestate"));
}

#[test]
fn what_is_no_trace_or_is_said_twice_is_nobodys() {
    let collector = collector();
    let rig = Rig::with(told_to(&collector));
    for fields in [
        "traceparent: 00-nonsense\r\n".to_owned(),
        format!("traceparent: {PARENT}\r\ntraceparent: {PARENT}\r\n"),
        String::new(),
    ] {
        let sent = format!("GET / HTTP/1.1\r\n{P}{fields}\r\n");
        assert_eq!(rig.wardent.ask(sent).status, 200);
    }
    let traces = rig.origin.wait_for(3).into_iter().map(|passed| {
        let all = passed.head.fields.all("traceparent");
        assert_eq!(all.len(), 1);
        all[0][3..35].to_owned()
    });
    let traces: BTreeSet<_> = traces.collect();
    assert_eq!(traces.len(), 3);
    assert!(!traces.contains(TRACE));
}

#[test]
fn a_trace_that_is_not_recorded_is_left_as_it_is() {
    let collector = collector();
    let rig = Rig::with(told_to(&collector));
    let unsampled = PARENT.replace("-01", "-00");
    let fields = format!("traceparent: {unsampled}\r\ntracestate: a=1\r\n");
    let sent = format!("GET /unseen HTTP/1.1\r\n{P}{fields}\r\n");
    assert_eq!(rig.wardent.ask(sent).status, 200);
    let passed = rig.origin.only_request();
    assert_eq!(passed.header("traceparent"), Some(unsampled.as_str()));
    assert_eq!(passed.header("tracestate"), Some("a=1"));
    // Its spans would have come before these.
    assert_eq!(rig.wardent.get("/seen").status, 200);
    let named = one_request(&collector, 6);
    assert_eq!(named["GET defaults"].attribute("url.path"), "/seen");
}

#[test]
fn a_share_of_zero_records_nothing_and_says_so_to_the_upstream() {
    let collector = collector();
    let line = format!(
        "telemetry: {{otlp: 'http://{}', sample: 0}}",
        collector.server()
    );
    let rig = Rig::with(|setup| setup.top(&line));
    assert_eq!(rig.wardent.get("/").status, 200);
    let passed = rig.origin.only_request();
    assert!(passed.header("traceparent").unwrap().ends_with("-00"));
    assert!(rig.wardent.metric("wardent_otlp_waiting_requests").abs() < 0.5);
}

#[test]
fn without_a_collector_traces_pass_as_they_came_and_none_is_made() {
    let rig = Rig::new();
    assert_eq!(rig.wardent.get("/").status, 200);
    let sent = format!("GET / HTTP/1.1\r\n{P}traceparent: whatever\r\ntracestate: a=1\r\n\r\n");
    assert_eq!(rig.wardent.ask(sent).status, 200);
    let [first, second] = &rig.origin.wait_for(2)[..] else {
        panic!("two requests")
    };
    assert!(!first.head.fields.has("traceparent"));
    assert_eq!(second.header("traceparent"), Some("whatever"));
    assert_eq!(second.header("tracestate"), Some("a=1"));
}

#[test]
fn a_refusal_is_told_with_its_reason_and_asks_no_upstream() {
    let collector = collector();
    let rig = Rig::with(told_to(&collector));
    let sent = get("/").replace(support::KEY, support::KEY_2);
    assert_eq!(rig.wardent.ask(sent).status, 403);
    let named = one_request(&collector, 2);
    let request = &named["GET defaults"];
    assert_eq!(request.attribute("wardent.reason"), "bad_secret");
    assert_eq!(request.attribute("wardent.verdict"), "refused");
    assert_eq!(named["guards"].text("parentSpanId"), request.text("spanId"));
}

/// Four thousand wait at most, whatever the collector does; nobody else notices.
fn costs_no_request(rig: &Rig) {
    const MORE_THAN_WAIT: usize = 4_096 + 1_024;
    let mut client = rig.wardent.client();
    for _ in 0..MORE_THAN_WAIT {
        assert_eq!(client.ask(get("/")).status, 200);
    }
    let metric = |name: &str| rig.wardent.metric(name);
    assert!(metric("wardent_otlp_waiting_requests") <= 4_096.0);
    assert!(metric("wardent_otlp_spans_lost_total{reason=\"queue_full\"}") >= 6.0);
    assert!(metric("wardent_otlp_spans_total").abs() < 0.5);
}

#[test]
fn a_collector_that_answers_nothing_costs_no_request() {
    let collector = Origin::scripted(|connection| {
        connection.request()?;
        connection.wait_for_close()
    });
    costs_no_request(&Rig::with(told_to(&collector)));
}

#[test]
fn a_collector_that_is_not_there_costs_no_request() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let line = format!(
        "telemetry: {{otlp: 'http://{}'}}",
        nobody.local_addr().unwrap()
    );
    drop(nobody);
    costs_no_request(&Rig::with(|setup| setup.top(&line)));
}

#[test]
fn what_a_collector_refuses_is_counted() {
    let collector = Origin::answering(|_| answer("400 Bad Request", "", b""));
    let rig = Rig::with(told_to(&collector));
    assert_eq!(rig.wardent.get("/").status, 200);
    eventually("the spans are counted", || {
        rig.wardent
            .metric("wardent_otlp_spans_lost_total{reason=\"refused\"}")
            >= 6.0
    });
}

#[test]
fn what_waits_at_the_end_is_sent() {
    let collector = collector();
    let rig = Rig::with(told_to(&collector));
    assert_eq!(rig.wardent.get("/last").status, 200);
    drop(rig.wardent.end());
    assert_eq!(spans(&collector).len(), 6);
}
