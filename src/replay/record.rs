//! One request as its event tells it: what the guards need to judge it again, and what became of it.

use std::net::{IpAddr, Ipv6Addr};

use super::Fate;
use crate::{
    base::id::RequestId,
    bots::{Category, Standing},
    client::Peer,
    event::{
        access::Verdict,
        flat::{self, Value},
    },
    guard::{
        bots::Told,
        chain::{DETOUR, SEVERAL_SECRETS},
        verdict::Reason,
    },
};

/// Bytes of a client's text that an event keeps: one of this length may have been longer.
const TEXT_BYTES_MAX: usize = 512;

/// What one record of the access topic is.
#[derive(Debug)]
pub enum Line {
    /// A request.
    Request(Box<Recorded>),
    /// A mark for so many that were lost.
    Gap(u64),
    /// Nothing that can be read.
    Unreadable,
}

/// Whose request it was, as far as the event shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Nobody's in particular.
    Nobody,
    /// The client's at this address.
    Whole(IpAddr),
    /// The client's whose hash the event tells; the address is one that stands for that hash alone.
    Hashed(IpAddr),
    /// Somebody's of a network, so that it is not known whose.
    Truncated,
}

/// A request that was.
#[derive(Debug)]
pub struct Recorded {
    /// When it came, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The id of the decision.
    pub id: RequestId,
    /// Whose it was.
    pub client: Shown,
    /// Whether that was beyond doubt.
    pub is_proven: bool,
    /// The other end of the socket.
    pub peer: Peer,
    /// Whether a browser said that another site made it send this.
    pub is_cross_site: bool,
    /// What became of it.
    pub then: Fate,
    /// The status the client was answered with; zero for none.
    pub status: u16,
    /// Whether the application answered, and did not complain: with a status below 400.
    pub is_served: bool,
    /// Until the application answered, in microseconds; none where it did not.
    pub answered_us: Option<u64>,
    /// Until its end.
    pub total_us: u64,
    /// The length of its body, where all of that has come.
    pub body_bytes: Option<u64>,
    /// Whether the guards were asked about it at all.
    pub was_judged: bool,
    /// Whether it is refused by any policy: what was wrong came after its head.
    pub is_broken: bool,
    /// Whether it held more than one secret.
    pub has_several_secrets: bool,
    /// Whether a text of it may have been longer than the event keeps.
    pub is_cut: bool,
    bot: Option<(Category, Option<Standing>)>,
    /// Method, client, edge, path, user agent and the bot's name, one after the other.
    texts: Box<[u8]>,
    ends: [u16; TEXTS],
}

const TEXTS: usize = 6;
const METHOD: usize = 0;
const CLIENT: usize = 1;
const EDGE: usize = 2;
const PATH: usize = 3;
const USER_AGENT: usize = 4;
const BOT: usize = 5;

impl Recorded {
    fn text(&self, nth: usize) -> &[u8] {
        let end = |nth: usize| self.ends.get(nth).map_or(0, |&end| usize::from(end));
        let begin = nth.checked_sub(1).map_or(0, end);
        self.texts.get(begin..end(nth)).unwrap_or_default()
    }

    /// The method.
    pub fn method(&self) -> &[u8] {
        self.text(METHOD)
    }

    /// The client's address as a header would name it, or the one that stands for its hash.
    pub fn client_text(&self) -> &[u8] {
        self.text(CLIENT)
    }

    /// The address of the hop before the peer, where it is told.
    pub fn edge_text(&self) -> &[u8] {
        self.text(EDGE)
    }

    /// The target without its query.
    pub fn path(&self) -> &[u8] {
        self.text(PATH)
    }

    /// The user agent; empty for none.
    pub fn user_agent(&self) -> &[u8] {
        self.text(USER_AGENT)
    }

    /// The bot that it was taken for.
    pub fn bot(&self) -> Option<Told<'_>> {
        let (category, standing) = self.bot?;
        Some(Told {
            name: str::from_utf8(self.text(BOT)).ok()?,
            category,
            standing,
        })
    }
}

/// What an event says that is looked at once only.
#[derive(Default)]
struct Said<'a> {
    is_access: bool,
    is_gap: bool,
    gap_events: u64,
    id: &'a [u8],
    client: Option<&'a [u8]>,
    peer: Option<&'a [u8]>,
    edge: &'a [u8],
    is_proven: bool,
    is_cross_site: bool,
    method: Option<Value<'a>>,
    path: Option<Value<'a>>,
    user_agent: Option<Value<'a>>,
    bot: Option<Value<'a>>,
    bot_category: Option<&'a [u8]>,
    bot_standing: Option<&'a [u8]>,
    status: u64,
    verdict: &'a [u8],
    reason: Option<&'a [u8]>,
    why: &'a [u8],
    is_observed: bool,
    has_route: bool,
    run: &'a [u8],
    body_bytes: u64,
    has_body: bool,
    total_us: u64,
    answered_us: Option<u64>,
}

impl<'a> Said<'a> {
    fn take(&mut self, name: &'a [u8], value: Value<'a>) -> Option<()> {
        let text = || value.own_text();
        match name {
            b"event" => {
                self.is_access = text()? == b"access";
                self.is_gap = text()? == b"gap";
            }
            b"events" => self.gap_events = value.number()?,
            b"id" => self.id = text()?,
            b"run" => self.run = text()?,
            b"client" => self.client = Some(text()?),
            b"proven" => self.is_proven = value == Value::Plain(b"true"),
            b"peer" => self.peer = Some(text()?),
            b"edge" => self.edge = text()?,
            b"method" => self.method = Some(value),
            b"path" => self.path = Some(value),
            b"cross_site" => self.is_cross_site = value == Value::Plain(b"true"),
            b"status" => self.status = value.number()?,
            b"verdict" => self.verdict = text()?,
            b"reason" => self.reason = Some(text()?),
            b"enforced" => self.is_observed = value == Value::Plain(b"false"),
            b"why" => self.why = text()?,
            b"route" => self.has_route = !text()?.is_empty(),
            b"body_bytes_in" => self.body_bytes = value.number()?,
            b"body_us" => self.has_body = true,
            b"total_us" => self.total_us = value.number()?,
            b"answered_us" => self.answered_us = Some(value.number()?),
            b"user_agent" => self.user_agent = Some(value),
            b"bot" => self.bot = Some(value),
            b"bot_category" => self.bot_category = Some(text()?),
            b"bot_standing" => self.bot_standing = Some(text()?),
            _ => {}
        }
        Some(())
    }
}

/// Reads one record, which came at `unix_ms`. `scratch` is memory for its texts. The run that the event is
/// of is told to `run`.
pub(super) fn read(
    event: &[u8],
    unix_ms: u64,
    scratch: &mut Vec<u8>,
    run: &mut dyn FnMut(&[u8]),
) -> Line {
    let mut said = Said::default();
    if flat::read(event, |name, value| said.take(name, value)).is_none() {
        return Line::Unreadable;
    }
    if said.is_gap {
        return Line::Gap(said.gap_events);
    }
    if !said.is_access {
        return Line::Unreadable;
    }
    run(said.run);
    recorded(&said, unix_ms, scratch).map_or(Line::Unreadable, |recorded| {
        Line::Request(Box::new(recorded))
    })
}

fn recorded(said: &Said<'_>, unix_ms: u64, texts: &mut Vec<u8>) -> Option<Recorded> {
    let verdict = Verdict::ALL
        .into_iter()
        .find(|verdict| verdict.name().as_bytes() == said.verdict)?;
    let reason = match said.reason {
        Some(name) => Some(
            Reason::ALL
                .into_iter()
                .find(|reason| reason.name().as_bytes() == name)?,
        ),
        None => None,
    };
    let then = match (verdict, reason) {
        (Verdict::Refused, Some(reason)) => Fate::Refused(reason),
        (Verdict::Passed | Verdict::Failed | Verdict::Aborted, Some(reason))
            if said.is_observed =>
        {
            Fate::WouldBeRefused(reason)
        }
        (Verdict::Refused, None) => return None,
        (Verdict::Passed | Verdict::Failed | Verdict::Aborted, _) => Fate::Passes,
    };
    let client = said.client.map_or(Some(Shown::Nobody), shown)?;
    let peer = match said.peer.map(shown) {
        None => Peer::Unix,
        Some(Some(Shown::Whole(ip) | Shown::Hashed(ip))) => Peer::from(ip),
        // A stranger's own address, which is its client's, too.
        Some(Some(Shown::Truncated | Shown::Nobody) | None) => Peer::Unix,
    };
    let bot = match (said.bot, said.bot_category) {
        (Some(_), Some(category)) => {
            let category = Category::from_word(str::from_utf8(category).ok()?)?;
            Some((category, said.bot_standing.and_then(standing)))
        }
        _ => None,
    };
    let (ends, is_cut) = write_texts(said, client, texts)?;
    let status = u16::try_from(said.status).ok()?;
    Some(Recorded {
        unix_ms,
        id: RequestId::read(said.id)?,
        client,
        is_proven: said.is_proven,
        peer,
        is_cross_site: said.is_cross_site,
        then,
        status,
        is_served: verdict == Verdict::Passed && said.answered_us.is_some() && status < 400,
        answered_us: said.answered_us,
        total_us: said.total_us,
        body_bytes: said.has_body.then_some(said.body_bytes),
        was_judged: said.has_route,
        is_broken: then == Fate::Refused(Reason::BadRequest) && said.why != DETOUR.as_bytes(),
        has_several_secrets: said.why == SEVERAL_SECRETS.as_bytes(),
        is_cut,
        bot,
        texts: texts.as_slice().into(),
        ends,
    })
}

/// Puts the texts into `texts`, and gives their ends, and whether one may have been longer.
fn write_texts(
    said: &Said<'_>,
    client: Shown,
    texts: &mut Vec<u8>,
) -> Option<([u16; TEXTS], bool)> {
    texts.clear();
    let mut ends = [0; TEXTS];
    let mut is_cut = false;
    for (nth, end) in ends.iter_mut().enumerate() {
        let begin = texts.len();
        let is_text = match nth {
            METHOD => said.method?.append_to(texts),
            PATH => said.path?.append_to(texts),
            USER_AGENT => said.user_agent?.append_to(texts),
            BOT => said.bot.is_none_or(|bot| bot.append_to(texts)),
            EDGE => {
                texts.extend_from_slice(said.edge);
                true
            }
            _ => {
                match (client, said.client) {
                    (Shown::Hashed(ip), _) => texts.extend_from_slice(ip.to_string().as_bytes()),
                    (_, Some(text)) => texts.extend_from_slice(text),
                    (_, None) => {}
                }
                true
            }
        };
        if !is_text {
            return None;
        }
        is_cut |= matches!(nth, PATH | USER_AGENT) && texts.len() - begin >= TEXT_BYTES_MAX;
        *end = u16::try_from(texts.len()).ok()?;
    }
    Some((ends, is_cut))
}

fn standing(name: &[u8]) -> Option<Standing> {
    let all = [Standing::Verified, Standing::Impostor, Standing::Unknown];
    all.into_iter()
        .find(|standing| standing.name().as_bytes() == name)
}

/// Whom a text of [`Privacy`](crate::event::privacy::Privacy) stands for; none where it is no such text.
fn shown(text: &[u8]) -> Option<Shown> {
    let text = str::from_utf8(text).ok()?;
    if let Some(digits) = text.strip_prefix("h:") {
        let hash = u64::from_str_radix(digits, 16).ok()?;
        return Some(Shown::Hashed(stand_in(hash)));
    }
    if text.contains('/') {
        return Some(Shown::Truncated);
    }
    text.parse().ok().map(Shown::Whole)
}

/// An address for a hash: of 4000::/3, which nobody has (IANA's registry of IPv6 addresses), another
/// network of 64 bits for nearly every hash, and the whole hash at its end.
fn stand_in(hash: u64) -> IpAddr {
    let network = 0x4 << 60 | hash >> 4;
    Ipv6Addr::from_bits(u128::from(network) << 64 | u128::from(hash)).into()
}

/// What an event says of the client at this address: the hash that it stands for, or none.
pub(super) fn hash_of(ip: IpAddr) -> Option<String> {
    let IpAddr::V6(v6) = ip else { return None };
    let low = u64::try_from(v6.to_bits() & u128::from(u64::MAX)).ok()?;
    (stand_in(low) == ip).then(|| format!("h:{low:016x}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{
        access::{Access, SeenBot},
        place::{Gap, Place, Run},
        privacy::{AddressText, Privacy, SALT_BYTES, Salted},
        time::Stamps,
    };

    const ID: &[u8] = b"01KAJ0000000000000000000AA";

    fn access<'a>(client: &'a AddressText, path: &'a [u8], user_agent: &'a [u8]) -> Access<'a> {
        Access {
            place: Some(Place {
                run: Run::new(7),
                lane: 0,
                seq: 1,
            }),
            arrived_unix_ms: 5,
            id: ID,
            client: Some(client),
            is_proven: true,
            peer: None,
            edge: None,
            method: b"GET",
            host: b"a.test",
            path,
            is_cross_site: true,
            status: 401,
            verdict: Verdict::Passed,
            reason: Some("rate_limited"),
            is_observed: true,
            why: Some("over the limit"),
            rule: Some("login"),
            route: "login",
            body_bytes_in: 12,
            bytes_out: 1,
            total_us: 9_000,
            body_us: Some(1),
            connected_us: Some(2),
            answered_us: Some(3_000),
            upstream: Some("a"),
            user_agent,
            bot: Some(SeenBot {
                name: b"GPTBot",
                category: "ai-training",
                standing: Some("verified"),
            }),
            country: None,
            ray: None,
        }
    }

    fn again(event: &[u8]) -> Line {
        read(event, 5, &mut Vec::new(), &mut |_| {})
    }

    fn written(access: &Access<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        access.write_json(&Stamps::default(), &mut out);
        out
    }

    fn request(access: &Access<'_>) -> Box<Recorded> {
        match again(&written(access)) {
            Line::Request(request) => request,
            other @ (Line::Gap(_) | Line::Unreadable) => panic!("{other:?}"),
        }
    }

    fn whole(text: &str) -> AddressText {
        Privacy::Full.of(text.parse().unwrap())
    }

    #[test]
    fn what_is_written_is_read_back() {
        let client = whole("2001:db8::7");
        let request = request(&access(&client, b"/a\"\\\xff", b"agent \x1b"));
        assert_eq!(request.method(), b"GET");
        assert_eq!(request.path(), b"/a\"\\\xff");
        assert_eq!(request.user_agent(), b"agent \x1b");
        assert_eq!(request.client_text(), b"2001:db8::7");
        assert_eq!(request.client, Shown::Whole("2001:db8::7".parse().unwrap()));
        assert_eq!(request.then, Fate::WouldBeRefused(Reason::RateLimited));
        assert_eq!((request.status, request.is_served), (401, false));
        assert_eq!(
            (request.answered_us, request.total_us),
            (Some(3_000), 9_000)
        );
        assert_eq!(request.body_bytes, Some(12));
        assert!(request.is_cross_site && request.was_judged && !request.is_cut);
        let told = Told {
            name: "GPTBot",
            category: Category::AiTraining,
            standing: Some(Standing::Verified),
        };
        assert_eq!(request.bot(), Some(told));
    }

    #[test]
    fn a_hash_is_another_client_and_told_as_it_was() {
        let salted = Salted::with(&[1; SALT_BYTES]);
        let privacy = Privacy::Hash(std::sync::Arc::new(salted));
        let client = privacy.of("198.51.100.7".parse().unwrap());
        let request = request(&access(&client, b"/", b""));
        let Shown::Hashed(ip) = request.client else {
            panic!("{request:?}")
        };
        assert_eq!(hash_of(ip), Some(client.to_string()));
        assert_eq!(hash_of("4001:db8::7".parse().unwrap()), None);
        assert_eq!(request.client_text(), ip.to_string().as_bytes());
    }

    #[test]
    fn of_a_network_nobody_knows_whose_it_is() {
        let client = Privacy::Truncate.of("198.51.100.7".parse().unwrap());
        assert_eq!(
            request(&access(&client, b"/", b"")).client,
            Shown::Truncated
        );
    }

    #[test]
    fn a_text_that_may_have_been_longer_is_known() {
        let client = whole("198.51.100.7");
        assert!(request(&access(&client, &[b'a'; 600], b"")).is_cut);
        assert!(!request(&access(&client, &[b'a'; 511], b"")).is_cut);
    }

    #[test]
    fn a_gap_is_told_with_what_it_stands_for() {
        let gap = Gap {
            first: Place {
                run: Run::new(7),
                lane: 1,
                seq: 10,
            },
            last_seq: 51,
            unix_ms: 5,
        };
        let mut out = Vec::new();
        gap.write(&Stamps::default(), &mut out);
        assert!(matches!(again(&out), Line::Gap(42)));
    }

    #[test]
    fn what_is_no_event_is_unreadable() {
        let client = whole("198.51.100.7");
        let event = String::from_utf8(written(&access(&client, b"/", b""))).unwrap();
        for (from, to) in [
            ("\"passed\"", "\"flown\""),
            ("\"rate_limited\"", "\"tired\""),
            ("\"198.51.100.7\"", "\"me\""),
            ("\"ai-training\"", "\"ai-cooking\""),
            ("401", "70000"),
            ("401", "-1"),
            ("\"01KAJ0000000000000000000AA\"", "\"01\""),
            ("\"access\"", "\"audit\""),
            ("\"path\":\"/\",", ""),
            ("\"method\":\"GET\"", "\"method\":[1]"),
        ] {
            let broken = event.replace(from, to);
            assert_ne!(broken, event, "{from}");
            assert!(
                matches!(again(broken.as_bytes()), Line::Unreadable),
                "{broken}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_record_breaks_the_reader(bytes: Vec<u8>, at: usize, with: u8) {
            again(&bytes);
            let client = whole("198.51.100.7");
            let mut event = written(&access(&client, &bytes, &bytes));
            let at = at % event.len();
            event[at] = with;
            again(&event);
            again(&event[..at]);
        }

        #[test]
        fn texts_read_back_whatever_they_are(path: Vec<u8>, agent: Vec<u8>) {
            let client = whole("198.51.100.7");
            let request = request(&access(&client, &path, &agent));
            prop_assert_eq!(request.path(), &path[..path.len().min(TEXT_BYTES_MAX)]);
            prop_assert_eq!(request.user_agent(), &agent[..agent.len().min(TEXT_BYTES_MAX)]);
        }
    }
}
