//! Is this a bot that is kept out?
//!
//! A bot is known by its operator's signature, or by its user agent; what is done with it is its
//! category's [`Action`]. Fails open: who cannot be told apart from a person passes as one, and whose
//! word can be neither borne out nor refuted now is a bot of the category `unknown`.

use std::{
    cell::Cell,
    hash::{BuildHasher as _, DefaultHasher, Hash as _, Hasher as _},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use arc_swap::ArcSwap;
use foldhash::quality::RandomState;

use super::{chain::Head, path, verdict::Reason, verdict::Refusal};
use crate::{
    bots::{
        Action, Actions, Bot, Catalogue, Category, Standing, Verifier, always_passes,
        signature::{Keys, Signed},
    },
    client::{Claim, ClientKey},
    owner::Excerpt,
};

/// What is known of bots, by all workers. Replaced by a reload, a part at a time.
#[derive(Debug)]
pub struct Bots {
    edition: ArcSwap<Edition>,
    /// Whether an address is theirs.
    pub verifier: Verifier,
    /// Whether a signature is theirs.
    pub keys: ArcSwap<Keys>,
}

/// A catalogue, and the how-manieth it is.
#[derive(Debug)]
struct Edition {
    nth: u64,
    catalogue: Arc<Catalogue>,
}

impl Bots {
    /// The bots of this catalogue, with no keys.
    pub fn new(catalogue: Arc<Catalogue>, verifier: Verifier) -> Self {
        Self {
            edition: ArcSwap::from_pointee(Edition { nth: 1, catalogue }),
            verifier,
            keys: ArcSwap::default(),
        }
    }

    /// The catalogue in force.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.edition.load().catalogue)
    }

    /// Puts another catalogue in force.
    pub fn replace_catalogue(&self, catalogue: Arc<Catalogue>) {
        let nth = self.edition.load().nth + 1;
        self.edition.store(Arc::new(Edition { nth, catalogue }));
    }
}

/// User agents that one worker has lately taken for people's, so that it need not read them again.
///
/// One is remembered by a hash whose seed nobody outside knows, and with the catalogue that was asked.
#[derive(Debug)]
pub struct People {
    seed: RandomState,
    slots: Box<[Cell<u64>]>,
}

/// User agents that one worker remembers: 8 KiB of them.
const PEOPLE: usize = 1024;

impl Default for People {
    fn default() -> Self {
        Self {
            seed: RandomState::default(),
            slots: (0..PEOPLE).map(|_| Cell::new(0)).collect(),
        }
    }
}

impl People {
    /// Where a user agent is remembered, and as what.
    #[expect(
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        reason = "the index is reduced to the array's length"
    )]
    fn place(&self, edition: u64, user_agent: &[u8]) -> (&Cell<u64>, u64) {
        let hash = self.seed.hash_one((edition, user_agent)).max(1);
        (&self.slots[hash as usize % PEOPLE], hash)
    }
}

/// A bot, as far as it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// What it is called; the client's own word where it is not listed.
    pub name: Excerpt,
    /// What it is for.
    pub category: Category,
    /// What its word is worth, where that was asked.
    pub standing: Option<Standing>,
    /// What is done with it.
    pub action: Action,
    /// Whether the catalogue lists it.
    pub is_listed: bool,
}

impl Seen {
    /// What its limits are kept under where it is limited as one client, from however many addresses
    /// it comes; none where it is not.
    ///
    /// An address that no client can have, of the discard prefix 100::/64 (RFC 6666). Who is not
    /// listed chooses its own name, and counts with all others of its category.
    pub fn herd(&self) -> Option<ClientKey> {
        if self.action != Action::Limit {
            return None;
        }
        let name = if self.is_listed {
            self.name.as_bytes()
        } else {
            self.category.word().as_bytes()
        };
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let address = Ipv6Addr::from_bits(0x100 << 112 | u128::from(hasher.finish()));
        Some(ClientKey::new(address.into(), 128))
    }

    /// Appends what the application is told: the name as a structured field (RFC 9651), with the
    /// category, and whether the name is proven.
    pub fn write_tag(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        for &byte in self.name.as_bytes() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                b' '..=b'~' => out.push(byte),
                _ => out.push(b'?'),
            }
        }
        out.extend_from_slice(b"\";category=");
        out.extend_from_slice(self.category.word().as_bytes());
        if self.standing == Some(Standing::Verified) {
            out.extend_from_slice(b";verified");
        }
    }

    /// Whether it may be refused for being this bot, now or when it has asked too often.
    fn may_be_refused(&self) -> bool {
        self.action == Action::Limit || self.refusal().is_some()
    }

    /// Why it is refused, if it is.
    pub fn refusal(&self) -> Option<Refusal> {
        let why = match (self.action, self.standing) {
            (Action::Block, _) => "a bot of a category that is kept out",
            (Action::Verify, Some(Standing::Impostor)) => "an impostor: not whose bot it says",
            (Action::Allow | Action::Tag | Action::Limit | Action::Verify, _) => return None,
        };
        Some(Refusal::new(Reason::Bot, why))
    }
}

/// Where a request is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct From {
    /// The client's address.
    pub ip: IpAddr,
    /// Whether it is more than hearsay.
    pub is_proven: bool,
}

/// Looks at who sent a request; none where it may be a person.
pub fn look(
    bots: &Bots,
    people: &People,
    actions: &Actions,
    head: &Head<'_>,
    from: Option<From>,
) -> Option<Seen> {
    let edition = bots.edition.load();
    let catalogue = &edition.catalogue;
    let keys = bots.keys.load();
    let signed = (!keys.is_empty())
        .then(|| signer(&keys, head))
        .flatten()
        .and_then(|origin| catalogue.signed_by(&origin));
    let seen = match signed {
        Some(bot) => seen(&bot, Some(Standing::Verified), actions),
        None => {
            let bot = named(&edition, people, head)?;
            seen(&bot, asked(bots, &bot, actions, head, from), actions)
        }
    };
    Some(spared(seen, head))
}

/// A bot, as the record of an earlier request tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told<'a> {
    /// What it is called.
    pub name: &'a str,
    /// What it is for.
    pub category: Category,
    /// What its word was worth, where that was asked.
    pub standing: Option<Standing>,
}

/// As [`look`], at who sent a request of which a record is left: its signature is not in it, nor what
/// the DNS said then.
pub fn look_again(
    bots: &Bots,
    actions: &Actions,
    head: &Head<'_>,
    from: Option<From>,
    told: Told<'_>,
) -> Seen {
    let edition = bots.edition.load();
    let bot = Bot {
        name: told.name,
        category: told.category,
        entry: edition.catalogue.named(told.name),
    };
    let standing = told
        .standing
        .or_else(|| asked(bots, &bot, actions, head, from));
    spared(seen(&bot, standing, actions), head)
}

/// Whoever blocks a certificate authority's questions loses the certificate.
fn spared(mut seen: Seen, head: &Head<'_>) -> Seen {
    if seen.may_be_refused() && is_challenge(head.path) {
        seen.action = Action::Allow;
    }
    seen
}

/// What a bot's word is worth, where that is to be asked.
fn asked(
    bots: &Bots,
    bot: &Bot<'_>,
    actions: &Actions,
    head: &Head<'_>,
    from: Option<From>,
) -> Option<Standing> {
    let from = from.filter(|_| actions.of(bot.category) == Action::Verify)?;
    Some(standing(&bots.verifier, bot, from, head))
}

/// The bot that the user agent names; none where it may be a person's.
fn named<'a>(edition: &'a Edition, people: &People, head: &'a Head<'_>) -> Option<Bot<'a>> {
    let catalogue = &edition.catalogue;
    let user_agent = match head.user_agent {
        Claim::One(user_agent) => user_agent,
        Claim::Absent => b"",
        Claim::Several => return Some(named_by_several(catalogue, head)),
    };
    let (slot, hash) = people.place(edition.nth, user_agent);
    if slot.get() == hash {
        return None;
    }
    let bot = catalogue.classify(user_agent);
    if bot.is_none() {
        slot.set(hash);
    }
    bot
}

/// The bot that one of several user agents names, a listed one before others. No browser sends two.
fn named_by_several<'a>(catalogue: &'a Catalogue, head: &'a Head<'_>) -> Bot<'a> {
    let each = (0..).map_while(|nth| head.fields.value(b"user-agent", nth));
    let bots = each.filter_map(|user_agent| catalogue.classify(user_agent));
    bots.min_by_key(|bot| bot.entry.is_none()).unwrap_or(Bot {
        name: "several user agents",
        category: Category::Unknown,
        entry: None,
    })
}

/// What a bot's word is worth. An address that is hearsay bears nobody out.
fn standing(verifier: &Verifier, bot: &Bot<'_>, from: From, head: &Head<'_>) -> Standing {
    let unix_ms = head.now_unix_s.saturating_mul(1_000);
    match verifier.look(from.ip, bot, head.now_ns, unix_ms) {
        Standing::Verified if !from.is_proven => Standing::Unknown,
        standing @ (Standing::Verified | Standing::Impostor | Standing::Unknown) => standing,
    }
}

fn seen(bot: &Bot<'_>, standing: Option<Standing>, actions: &Actions) -> Seen {
    let own = actions.of(bot.category);
    let action = match (own, standing) {
        // Nothing is proven either way: as if nobody knew it.
        (Action::Verify, None | Some(Standing::Unknown)) => actions.of(Category::Unknown),
        _ => own,
    };
    Seen {
        name: Excerpt::of(bot.name.as_bytes()),
        category: bot.category,
        standing,
        action,
        is_listed: bot.entry.is_some(),
    }
}

fn is_challenge(raw: &[u8]) -> bool {
    let mut scratch = Vec::new();
    let meaning = path::normalise(raw, &mut scratch).ok();
    let text = meaning.and_then(|meaning| str::from_utf8(meaning.path).ok());
    text.is_some_and(always_passes)
}

/// The origin that signed the request, if anybody did whose key is known.
fn signer(keys: &Keys, head: &Head<'_>) -> Option<Box<str>> {
    let one = |name: &str| match head.fields.claim(name.as_bytes()) {
        Claim::One(value) => Some(str::from_utf8(value)),
        Claim::Absent | Claim::Several => None,
    };
    let signed = Signed {
        input: one("signature-input")?.ok()?,
        signature: one("signature")?.ok()?,
        agent: one("signature-agent").transpose().ok()?,
        method: str::from_utf8(head.method).ok()?,
        authority: str::from_utf8(head.host).ok()?,
        target: str::from_utf8(head.target).ok()?,
    };
    let origin = keys.signer(&signed, head.now_unix_s).ok()?;
    Some(origin.into())
}

#[cfg(test)]
mod tests;
