//! One finished request, as one JSON object: the record in the log and the line on standard output.
//!
//! The field names are public and stable; `docs/schemas/wardent.http.access.v1.json` describes each.
//! Query strings, cookies and secrets never stand in it; what a client wrote is escaped and cut.

use std::io::Write as _;

use super::{place::Place, privacy::AddressText, time::Stamps};

/// The topic of these records.
pub const TOPIC: &str = "wardent.http.access";

/// Bytes of a client's text at most, before escaping.
const TEXT_BYTES_MAX: usize = 512;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The upstream answered it.
    Passed,
    /// Wardent answered it.
    Refused,
    /// Wardent or the upstream failed it.
    Failed,
    /// The client went away before the end.
    Aborted,
}

impl Verdict {
    /// All verdicts.
    pub const ALL: [Self; 4] = [Self::Passed, Self::Refused, Self::Failed, Self::Aborted];

    /// The verdict's public name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }
}

/// How lines on standard output are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For a person at a terminal.
    Human,
}

/// A finished request.
#[derive(Debug)]
pub struct Access<'a> {
    /// Where it stands among all events, where they are counted.
    pub place: Option<Place>,
    /// When it arrived, in milliseconds since 1970.
    pub arrived_unix_ms: u64,
    /// The id of the decision.
    pub id: &'a [u8],
    /// The client, where known.
    pub client: Option<&'a AddressText>,
    /// Whether the client's identity is beyond doubt.
    pub is_proven: bool,
    /// The other end of the socket; none for a unix socket.
    pub peer: Option<&'a AddressText>,
    /// The hop before the peer, where the peer named it and was asked for it.
    pub edge: Option<&'a AddressText>,
    /// The method, as it came.
    pub method: &'a [u8],
    /// The host, as it came.
    pub host: &'a [u8],
    /// The target without its query.
    pub path: &'a [u8],
    /// Whether a browser said that another site made it send this.
    pub is_cross_site: bool,
    /// The status the client was answered with; zero for none.
    pub status: u16,
    /// What became of it.
    pub verdict: Verdict,
    /// Why it was refused, or failed.
    pub reason: Option<&'static str>,
    /// Whether that is only what would have been: the route observes, and the request has passed.
    pub is_observed: bool,
    /// The exact cause, in words.
    pub why: Option<&'static str>,
    /// The name of the limit that refused it, where one did.
    pub rule: Option<&'a str>,
    /// The route's name.
    pub route: &'a str,
    /// Bytes of body from the client.
    pub body_bytes_in: u64,
    /// Bytes on the wire to the client.
    pub bytes_out: u64,
    /// From the head's arrival to the answer's end, in microseconds.
    pub total_us: u64,
    /// Until its body had come whole, in microseconds from the head's arrival; none where it has none.
    pub body_us: Option<u64>,
    /// Until there was a connection to the upstream, likewise.
    pub connected_us: Option<u64>,
    /// Until the head of the upstream's answer, likewise.
    pub answered_us: Option<u64>,
    /// The server that was asked.
    pub upstream: Option<&'a str>,
    /// The client's own word for what it is.
    pub user_agent: &'a [u8],
    /// What it was taken for, where that is no person.
    pub bot: Option<SeenBot<'a>>,
    /// Where Cloudflare places the client: two letters or digits (`CF-IPCountry`).
    pub country: Option<&'a [u8]>,
    /// Cloudflare's own id of the request (`CF-Ray`): letters, digits and dashes.
    pub ray: Option<&'a [u8]>,
}

/// A bot, as events tell it.
#[derive(Debug, Clone, Copy)]
pub struct SeenBot<'a> {
    /// What it is called; the client's own word where it is not listed.
    pub name: &'a [u8],
    /// What it is for.
    pub category: &'static str,
    /// Whether it is who it says, where that was asked.
    pub standing: Option<&'static str>,
}

/// What stands before the text of a field.
macro_rules! text {
    ($name:literal) => {
        concat!(",\"", $name, "\":\"")
    };
}

/// What stands before the number of a field.
macro_rules! number {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

impl Access<'_> {
    /// Appends the event as JSON.
    pub fn write_json(&self, stamps: &Stamps, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"event\":\"access\",\"v\":1,\"time\":\"");
        stamps.write_rfc3339(self.arrived_unix_ms, out);
        out.extend_from_slice(b"\",\"id\":\"");
        out.extend_from_slice(self.id);
        out.push(b'"');
        self.write_who(out);
        self.write_what(out);
        self.write_how(out);
        out.push(b'}');
    }

    fn write_who(&self, out: &mut Vec<u8>) {
        if let Some(Place { run, lane, seq }) = self.place {
            own_text_field(text!("run"), run.as_bytes(), out);
            number_field(number!("lane"), lane.into(), out);
            number_field(number!("seq"), seq, out);
        }
        if let Some(client) = self.client {
            out.extend_from_slice(b",\"client\":\"");
            out.extend_from_slice(client.as_bytes());
            out.extend_from_slice(if self.is_proven {
                b"\",\"proven\":true"
            } else {
                b"\",\"proven\":false"
            });
        }
        if let Some(peer) = self.peer {
            own_text_field(text!("peer"), peer.as_bytes(), out);
        }
        if let Some(edge) = self.edge {
            own_text_field(text!("edge"), edge.as_bytes(), out);
        }
    }

    fn write_what(&self, out: &mut Vec<u8>) {
        text_field(text!("method"), self.method, out);
        text_field(text!("host"), self.host, out);
        text_field(text!("path"), self.path, out);
        if self.is_cross_site {
            out.extend_from_slice(b",\"cross_site\":true");
        }
        number_field(number!("status"), u64::from(self.status), out);
        own_text_field(text!("verdict"), self.verdict.name().as_bytes(), out);
        if let Some(reason) = self.reason {
            own_text_field(text!("reason"), reason.as_bytes(), out);
            if self.is_observed {
                out.extend_from_slice(b",\"enforced\":false");
            }
        }
        if let Some(why) = self.why {
            text_field(text!("why"), why.as_bytes(), out);
        }
        if let Some(rule) = self.rule {
            text_field(text!("rule"), rule.as_bytes(), out);
        }
        text_field(text!("route"), self.route.as_bytes(), out);
    }

    fn write_how(&self, out: &mut Vec<u8>) {
        number_field(number!("body_bytes_in"), self.body_bytes_in, out);
        number_field(number!("bytes_out"), self.bytes_out, out);
        number_field(number!("total_us"), self.total_us, out);
        if let Some(body_us) = self.body_us {
            number_field(number!("body_us"), body_us, out);
        }
        if let Some(connected_us) = self.connected_us {
            number_field(number!("connected_us"), connected_us, out);
        }
        if let Some(answered_us) = self.answered_us {
            number_field(number!("answered_us"), answered_us, out);
        }
        if let Some(upstream) = self.upstream {
            text_field(text!("upstream"), upstream.as_bytes(), out);
        }
        text_field(text!("user_agent"), self.user_agent, out);
        if let Some(bot) = &self.bot {
            text_field(text!("bot"), bot.name, out);
            own_text_field(text!("bot_category"), bot.category.as_bytes(), out);
            if let Some(standing) = bot.standing {
                own_text_field(text!("bot_standing"), standing.as_bytes(), out);
            }
        }
        if let Some(country) = self.country {
            own_text_field(text!("country"), country, out);
        }
        if let Some(ray) = self.ray {
            own_text_field(text!("ray"), ray, out);
        }
    }

    /// Appends the event for a person at a terminal.
    pub fn write_human(&self, stamps: &Stamps, out: &mut Vec<u8>) {
        stamps.write_rfc3339(self.arrived_unix_ms, out);
        out.push(b' ');
        match self.client {
            Some(client) => out.extend_from_slice(client.as_bytes()),
            None => out.push(b'-'),
        }
        out.push(b' ');
        escape(self.method, out);
        out.push(b' ');
        escape(self.host, out);
        escape(self.path, out);
        // Writing to memory does not fail.
        let _ = write!(out, " {} {}", self.status, self.verdict.name());
        if let Some(reason) = self.reason {
            let only = if self.is_observed {
                "only observed: "
            } else {
                ""
            };
            let _ = write!(out, " ({only}{reason}: {})", self.why.unwrap_or("-"));
        }
        let _ = write!(
            out,
            " {}.{:03} ms ",
            self.total_us / 1_000,
            self.total_us % 1_000
        );
        out.extend_from_slice(self.id);
    }
}

/// Appends a field. `begin` is all that stands before the text.
fn text_field(begin: &'static str, text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(begin.as_bytes());
    escape(text, out);
    out.push(b'"');
}

/// For a text in which nothing needs escaping.
fn own_text_field(begin: &'static str, text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(begin.as_bytes());
    out.extend_from_slice(text);
    out.push(b'"');
}

/// Appends a field. `begin` is all that stands before the number.
fn number_field(begin: &'static str, number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(begin.as_bytes());
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends `text` so that it may stand in a JSON string and on a terminal.
///
/// Bytes that are not printable ASCII become `\u00XX`, one by one: what cannot be shown is not
/// guessed at.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    let text = text.get(..TEXT_BYTES_MAX).unwrap_or(text);
    // Without an early end, which the compiler turns into vector instructions.
    let special = |byte: u8| (byte.wrapping_sub(0x20) > 0x5e) | (byte == b'"') | (byte == b'\\');
    if !text.iter().fold(false, |any, &byte| any | special(byte)) {
        out.extend_from_slice(text);
        return;
    }
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0x20..=0x7e => out.push(*byte),
            _ => {
                // Writing to memory does not fail.
                let _ = write!(out, "\\u00{byte:02x}");
            }
        }
    }
}

#[cfg(test)]
mod tests;
