//! Whatever comes in is understood in one way: by Wardent however it is cut, by hyper, and by
//! whoever reads what Wardent makes of it.

mod hyper;
mod samples;

use std::net::{IpAddr, Ipv4Addr};

use super::{
    answer::{self, Asked},
    body::{BodyReader, Framing, Piece},
    buffer::Buffer,
    chunked::{self, Decoder, Found},
    compose::{self, Back, Outward, Towards},
    head::RequestHead,
    names::ConfiguredNames,
};
use crate::{
    base::{
        fuzz::{Dice, Outcome, campaign, hash},
        id::RequestIds,
    },
    client::{Client, ClientKey, Who},
    event::time::Stamps,
};

/// Names in lower case, values as they came, in the order of names.
type Fields = Vec<(String, Vec<u8>)>;

/// A request as somebody read it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Seen {
    method: Vec<u8>,
    target: Vec<u8>,
    fields: Fields,
    /// `None` where the body has not come to its end.
    body: Option<Vec<u8>>,
    trailers: Fields,
}

fn names() -> ConfiguredNames {
    ConfiguredNames {
        client_ip: "cf-connecting-ip".to_owned(),
        secret: "x-wardent-secret".to_owned(),
        ..ConfiguredNames::default()
    }
}

fn sorted(fields: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Fields {
    let mut fields: Fields = fields
        .map(|(name, value)| (String::from_utf8(name).unwrap().to_ascii_lowercase(), value))
        .collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

fn section(trailers: &[u8]) -> Fields {
    let mut fields = Vec::new();
    let each = |name: &[u8], value: &[u8]| fields.push((name.to_vec(), value.to_vec()));
    chunked::fields_of(trailers, each).unwrap();
    sorted(fields.into_iter())
}

/// What Wardent's connection makes of `input`, which comes in pieces of `piece` bytes.
struct Read {
    seen: Vec<Seen>,
    /// What it would send to the upstream for each whole request.
    passed_on: Vec<Vec<u8>>,
    refused: bool,
    /// The last request ends the connection, or leaves HTTP/1.1.
    last: bool,
}

fn read(input: &[u8], piece: usize) -> Read {
    let mut pieces = input.chunks(piece);
    let mut buffer = Buffer::default();
    let mut head = RequestHead::default();
    let mut read = Read {
        seen: Vec::new(),
        passed_on: Vec::new(),
        refused: false,
        last: false,
    };
    let mut parsed_at = 0;
    while !read.last {
        let whole = if answer::is_worth_parsing(&buffer, parsed_at) {
            parsed_at = buffer.len();
            match head.parse(buffer.bytes(), &names()) {
                Ok(whole) => whole,
                Err(_) => {
                    read.refused = true;
                    break;
                }
            }
        } else {
            None
        };
        let Some(length) = whole else {
            let Some(more) = pieces.next() else { break };
            buffer.room(more.len()).extend_from_slice(more);
            continue;
        };
        buffer.consume(length);
        parsed_at = 0;
        let mut seen = Seen {
            method: head.method().to_vec(),
            target: head.target().to_vec(),
            fields: sorted(
                head.fields()
                    .map(|(name, value, _)| (name.to_vec(), value.to_vec())),
            ),
            ..Seen::default()
        };
        let mut out = composed(&head, input);
        let chunked = head.framing == Framing::Chunked;
        let mut reader = BodyReader::new(head.framing, u64::MAX);
        let outward = if chunked {
            Outward::Chunked
        } else {
            Outward::AsIs
        };
        let (body, ended) = copy(&mut reader, &mut buffer, &mut pieces, outward, &mut out);
        match ended {
            Ok(true) => {
                seen.body = Some(body);
                seen.trailers = section(reader.trailers());
                read.passed_on.push(out);
            }
            Ok(false) => read.last = true,
            Err(()) => (read.refused, read.last) = (true, true),
        }
        let leaves = head.values(super::names::Name::Upgrade).next().is_some();
        read.last |= head.closes() || leaves;
        read.seen.push(seen);
    }
    read
}

/// As the exchange copies: the body, and whether it ended.
fn copy<'a>(
    reader: &mut BodyReader,
    buffer: &mut Buffer,
    pieces: &mut impl Iterator<Item = &'a [u8]>,
    outward: Outward,
    out: &mut Vec<u8>,
) -> (Vec<u8>, Result<bool, ()>) {
    let mut body = Vec::new();
    loop {
        match reader.find(buffer) {
            Ok(Some(Piece::Data(count))) => {
                body.extend_from_slice(buffer.front(count));
                if outward == Outward::Chunked {
                    chunked::write_size(count, out);
                }
                out.extend_from_slice(buffer.front(count));
                if outward == Outward::Chunked {
                    out.extend_from_slice(b"\r\n");
                }
                reader.took(buffer, count);
            }
            Ok(Some(Piece::End)) => {
                if outward == Outward::Chunked {
                    compose::end_of_chunks(reader.trailers(), out);
                }
                return (body, Ok(true));
            }
            Ok(None) => match pieces.next() {
                Some(more) => buffer.room(more.len()).extend_from_slice(more),
                None => return (body, Ok(false)),
            },
            Err(_) => return (body, Err(())),
        }
    }
}

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

/// The head towards the upstream, of a client that `input` decides on.
fn composed(head: &RequestHead, input: &[u8]) -> Vec<u8> {
    let client = Client {
        who: Who::Known {
            ip: CLIENT,
            key: ClientKey::new(CLIENT, 64),
        },
        peer_trusted: is_trusted(input),
        edge_matched: false,
        by_header: true,
    };
    let mut out = Vec::new();
    let towards = Towards {
        client: &client,
        id: &RequestIds::starting_at(1).next(1),
        signer: None,
        tag: None,
        now_unix_s: 1,
        trace: None,
    };
    compose::request(head, &towards, &mut out);
    out
}

fn is_trusted(input: &[u8]) -> bool {
    input.len().is_multiple_of(2)
}

fn told_apart(seen: &[Seen]) -> u64 {
    let shapes: Vec<_> = seen
        .iter()
        .map(|seen| {
            let names: Vec<_> = seen.fields.iter().map(|(name, _)| name).collect();
            let length = seen.body.as_ref().map(|body| body.len().checked_ilog2());
            (&seen.method, names, length, seen.trailers.len())
        })
        .collect();
    hash(&shapes)
}

/// The first request that two readers of the same bytes do not see in the same way.
fn first_difference(ours: &[Seen], theirs: &[Seen]) -> Option<String> {
    let mut pairs = ours.iter().zip(theirs);
    pairs.find_map(|(ours, theirs)| {
        // Where we wait for the rest of a body, nobody may have found its end.
        let same = Seen {
            trailers: Fields::new(),
            ..ours.clone()
        } == Seen {
            trailers: Fields::new(),
            ..theirs.clone()
        };
        (!same).then(|| format!("{ours:?}\n  is to hyper {theirs:?}"))
    })
}

fn requests_have_one_meaning(runtime: &tokio::runtime::Runtime, input: &[u8]) -> Outcome {
    let whole = read(input, input.len().max(1));
    let mut dice = Dice::of(input);
    for piece in [1, 1 + dice.below(16), 1 + dice.below(256)] {
        let cut = read(input, piece);
        if cut.seen != whole.seen {
            return Err(format!(
                "in pieces of {piece}: {:?}\n  not {:?}",
                cut.seen, whole.seen
            ));
        }
    }
    let theirs = hyper::requests(runtime, input);
    if let Some(wrong) = first_difference(&whole.seen, &theirs) {
        return Err(wrong);
    }
    if !whole.refused && !whole.last && theirs.len() > whole.seen.len() {
        return Err(format!("hyper finds more: {:?}", theirs.last()));
    }
    for (seen, passed_on) in whole.seen.iter().zip(&whole.passed_on) {
        passes_on_one_meaning(runtime, input, seen, passed_on)?;
    }
    Ok(if whole.passed_on.is_empty() {
        0
    } else {
        told_apart(&whole.seen)
    })
}

/// What goes to the upstream is one request and then the next, to us and to hyper.
fn passes_on_one_meaning(
    runtime: &tokio::runtime::Runtime,
    input: &[u8],
    seen: &Seen,
    passed_on: &[u8],
) -> Result<(), String> {
    const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: next.test\r\n\r\n";
    let wire = [passed_on, NEXT].concat();
    let shown = || wire.escape_ascii().to_string();
    let ours = read(&wire, wire.len());
    let has_upgrade = ours.last && ours.seen.len() == 1;
    let [again, rest @ ..] = &*ours.seen else {
        return Err(format!("we would refuse what we pass on: {}", shown()));
    };
    let followed = matches!(rest, [next] if next.target == b"/next");
    if !followed && !has_upgrade {
        return Err(format!("the next request is lost behind {}", shown()));
    }
    let is_same =
        again.method == seen.method && again.target == seen.target && again.body == seen.body;
    if !is_same {
        return Err(format!("{seen:?}\n  was passed on as {again:?}"));
    }
    let theirs = hyper::requests(runtime, &wire);
    if let Some(wrong) = first_difference(&ours.seen, &theirs) {
        return Err(wrong);
    }
    if !has_upgrade && theirs.len() > ours.seen.len() {
        return Err(format!("hyper finds more in {}", shown()));
    }
    says_what_it_must(seen, again, is_trusted(input))
}

fn values(seen: &Seen, name: &str) -> Vec<Vec<u8>> {
    let fields = seen.fields.iter();
    fields
        .filter(|(own, _)| own == name)
        .map(|(_, value)| value.clone())
        .collect()
}

/// Fields towards the upstream, by rules written down a second time.
fn says_what_it_must(seen: &Seen, passed_on: &Seen, trusted: bool) -> Result<(), String> {
    let framings = [
        values(passed_on, "content-length"),
        values(passed_on, "transfer-encoding"),
    ];
    if framings.concat().len() > 1 {
        return Err(format!("two framings: {framings:?}"));
    }
    let ip = CLIENT.to_string().into_bytes();
    for (name, value) in [("x-forwarded-for", &ip), ("x-real-ip", &ip)] {
        if values(passed_on, name) != [value.clone()] {
            return Err(format!("{name}: {:?}", values(passed_on, name)));
        }
    }
    for name in [
        "host",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-request-id",
    ] {
        if values(passed_on, name).len() != 1 {
            return Err(format!("{name}: {:?}", values(passed_on, name)));
        }
    }
    let dropped: Vec<Vec<u8>> = values(seen, "connection")
        .iter()
        .flat_map(|value| value.split(|&byte| byte == b','))
        .map(|token| token.trim_ascii().to_ascii_lowercase())
        .collect();
    let forwarded: Vec<_> = seen.fields.iter().map(|(name, _)| name).collect();
    for name in forwarded {
        let passed = values(passed_on, name);
        let expected = match name.as_str() {
            // Wardent's own, judged above or added to.
            "x-forwarded-for" | "x-real-ip" | "host" | "x-forwarded-proto" | "x-forwarded-host"
            | "x-request-id" | "via" => continue,
            // They may stay for an upgrade, or as `TE: trailers`.
            "connection" | "upgrade" | "te" => continue,
            "keep-alive"
            | "proxy-connection"
            | "proxy-authorization"
            | "http2-settings"
            | "expect"
            | "forwarded"
            | "true-client-ip"
            | "fastly-client-ip"
            | "x-client-ip"
            | "x-cluster-client-ip"
            | "proxy" => Vec::new(),
            name if name.starts_with("x-wardent-") => Vec::new(),
            name if name.starts_with("cf-") || name.starts_with("x-forwarded-") => {
                if trusted {
                    values(seen, name)
                } else {
                    Vec::new()
                }
            }
            "content-length"
            | "transfer-encoding"
            | "date"
            | "user-agent"
            | "sec-websocket-key"
            | "sec-websocket-version"
            | "stripe-signature" => values(seen, name),
            name if dropped.iter().any(|token| token == name.as_bytes()) => Vec::new(),
            name => values(seen, name),
        };
        if passed != expected {
            return Err(format!("{name}: {expected:?} became {passed:?}"));
        }
    }
    adds_only_its_own(seen, passed_on)
}

fn adds_only_its_own(seen: &Seen, passed_on: &Seen) -> Result<(), String> {
    let known = |name: &String| seen.fields.iter().any(|(own, _)| own == name);
    let added = passed_on.fields.iter().map(|(name, _)| name).find(|name| {
        let own = [
            "x-forwarded-for",
            "x-real-ip",
            "x-forwarded-proto",
            "x-forwarded-host",
            "x-request-id",
            "via",
            "connection",
        ];
        !known(name) && !own.contains(&name.as_str())
    });
    added.map_or(Ok(()), |name| Err(format!("`{name}` is of our making")))
}

#[test]
fn campaign_requests() {
    let runtime = hyper::runtime();
    campaign("requests", samples::REQUESTS, samples::WORDS, |input| {
        requests_have_one_meaning(&runtime, input)
    });
}

/// What the client gets for an answer of the upstream's, and its body where that is whole.
type Passed = (Vec<u8>, u16, Option<Vec<u8>>);

fn passed_back(input: &[u8], piece: usize, asked: Asked) -> Option<Passed> {
    let mut pieces = input.chunks(piece);
    let mut buffer = Buffer::default();
    let mut out = Vec::new();
    let mut parsed_at = 0;
    let id = RequestIds::starting_at(1).next(1);
    let stamps = Stamps::default();
    loop {
        let mut composed = Vec::new();
        let found = if answer::is_worth_parsing(&buffer, parsed_at) {
            parsed_at = buffer.len();
            let back = Back {
                id: &id,
                stamps: &stamps,
                now_unix_ms: 1,
                limits: None,
                to_http_1_0: false,
                closes: false,
            };
            let came = buffer.bytes();
            let found = answer::with_fields(came, |response, length| {
                let head = answer::judge(response, length, asked)?;
                let outward = compose::answer(&head, came, response, &back, &mut composed);
                Ok((head, outward))
            });
            found.ok()?
        } else {
            None
        };
        let Some((head, outward)) = found else {
            let more = pieces.next()?;
            buffer.room(more.len()).extend_from_slice(more);
            continue;
        };
        buffer.consume(head.length);
        parsed_at = 0;
        if head.status < 200 {
            continue;
        }
        out.extend_from_slice(&composed);
        let mut reader = BodyReader::new(head.framing, u64::MAX);
        let (body, ended) = copy(&mut reader, &mut buffer, &mut pieces, outward, &mut out);
        let whole = match ended {
            Ok(true) => Some(body),
            Ok(false) if head.framing == Framing::UntilClose => {
                compose::end_of_chunks(b"", &mut out);
                Some(body)
            }
            Ok(false) | Err(()) => None,
        };
        return Some((out, head.status, whole));
    }
}

fn answers_have_one_meaning(runtime: &tokio::runtime::Runtime, input: &[u8]) -> Outcome {
    let mut dice = Dice::of(input);
    let method = if dice.below(4) == 0 { "HEAD" } else { "GET" };
    let asked = Asked {
        head: method == "HEAD",
        upgrade: false,
    };
    let whole = passed_back(input, input.len().max(1), asked);
    let cut = passed_back(input, 1 + dice.below(32), asked);
    let told = |passed: &Option<Passed>| {
        passed
            .as_ref()
            .map(|(_, status, body)| (*status, body.clone()))
    };
    if told(&cut) != told(&whole) {
        return Err(format!("cut: {:?}\n  not {:?}", told(&cut), told(&whole)));
    }
    let Some((out, status, body)) = whole else {
        return Ok(0);
    };
    let Some((their_status, fields, their_body)) = hyper::answer(runtime, method, &out) else {
        return Err(format!("hyper cannot read {}", out.escape_ascii()));
    };
    if (their_status, &their_body) != (status, &body) {
        return Err(format!(
            "{status} {body:?}\n  reached the client as {their_status} {their_body:?} in {}",
            out.escape_ascii()
        ));
    }
    let own = |name: &str| name.starts_with("x-wardent-");
    if let Some((name, _)) = fields.iter().find(|(name, _)| own(name)) {
        return Err(format!("`{name}` reached the client"));
    }
    // What hyper makes of the original must be the same, where both can read it.
    if let Some((their_status, _, Some(their_body))) = hyper::answer(runtime, method, input)
        && let Some(body) = &body
        && (their_status, &their_body) != (status, body)
    {
        return Err(format!(
            "{status} {body:?}\n  is to hyper {their_status} {their_body:?}"
        ));
    }
    let names: Vec<_> = fields.iter().map(|(name, _)| name).collect();
    Ok(hash(&(
        status,
        names,
        body.map(|body| body.len().checked_ilog2()),
    )))
}

#[test]
fn campaign_answers() {
    let runtime = hyper::runtime();
    campaign("answers", samples::ANSWERS, samples::WORDS, |input| {
        answers_have_one_meaning(&runtime, input)
    });
}

/// Body, trailers, and where the coding ends.
type Decoded = (Vec<u8>, Vec<u8>, usize);

fn decoded(input: &[u8], piece: usize) -> Option<Decoded> {
    let mut decoder = Decoder::default();
    let mut buffer = Buffer::default();
    let mut body = Vec::new();
    let mut came = 0;
    for more in input.chunks(piece) {
        buffer.room(more.len()).extend_from_slice(more);
        came += more.len();
        loop {
            match decoder.find(&mut buffer).ok()? {
                Found::Data(count) => {
                    body.extend_from_slice(buffer.front(count));
                    buffer.consume(count);
                    decoder.took(count);
                }
                Found::NeedMore => break,
                Found::End => {
                    return Some((body, decoder.trailers().to_vec(), came - buffer.len()));
                }
            }
        }
    }
    None
}

fn chunks_have_one_meaning(runtime: &tokio::runtime::Runtime, input: &[u8]) -> Outcome {
    let whole = decoded(input, input.len().max(1));
    let mut dice = Dice::of(input);
    for piece in [1, 1 + dice.below(8), 1 + dice.below(64)] {
        let cut = decoded(input, piece);
        if cut != whole {
            return Err(format!("in pieces of {piece}: {cut:?}\n  not {whole:?}"));
        }
    }
    let Some((body, trailers, _)) = whole else {
        return Ok(0);
    };
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let theirs = hyper::requests(runtime, &[head, input].concat());
    let their_body = theirs.into_iter().next().and_then(|seen| seen.body);
    if their_body.as_ref() != Some(&body) {
        return Err(format!("{body:?}\n  is to hyper {their_body:?}"));
    }
    let mut again = Vec::new();
    for chunk in body.chunks(1 + dice.below(16)) {
        chunked::write_size(chunk.len(), &mut again);
        again.extend_from_slice(chunk);
        again.extend_from_slice(b"\r\n");
    }
    compose::end_of_chunks(&trailers, &mut again);
    match decoded(&again, again.len()) {
        Some((same, _, end)) if same == body && end == again.len() => {}
        other => return Err(format!("{body:?}\n  became {other:?}")),
    }
    Ok(hash(&(body.len(), trailers.len())))
}

#[test]
fn campaign_chunked_bodies() {
    let runtime = hyper::runtime();
    let (samples, words) = (samples::CHUNKED, samples::CHUNKED_WORDS);
    campaign("chunked bodies", samples, words, |input| {
        chunks_have_one_meaning(&runtime, input)
    });
}
