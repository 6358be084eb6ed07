//! What the guard makes of bots, alone and among the other guards.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ed25519_dalek::{Signer as _, SigningKey};

use super::*;
use crate::{
    base::network_set::NetworkSet,
    bots::Networks,
    client::{Claims, Missing, Peer, Protected, Trust, TrustedPeers},
    guard::{
        chain::{Fields, Judgement, Known, judge},
        limit::Limits,
        policy::{Points, Policy, Rules},
        route::{Pattern, Route, Routes},
    },
    limit::{ClockIds, Keeper, Limit, Quota},
    owner::Cause,
    secret::{Keyring, SecretBytes},
};

/// Noon of the day the list below is from.
const TODAY_S: u64 = 1_788_350_400;
const NETWORKS: &str = "[list]\nas-of 2026-09-02\n198.51.100.0/24\n";
const CATALOGUE: &str = "ai-training\tTrainBot\nseo\tRankBot\nunknown\tAskBot\n\
                         search-engine\tListBot\tnetworks=list\n\
                         search-engine\tNameBot\tdns=crawl.example\n\
                         search-engine\tSignBot\tsignature=https://sign.example\n";

const LISTED: &str = "198.51.100.7";
const STRANGER: &str = "203.0.113.7";

const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like \
                      Gecko) Chrome/131.0.0.0 Safari/537.36";
const KEY: &str = "thirty-two-bytes-of-a-secret-key";

fn catalogue(text: &str) -> Arc<Catalogue> {
    Arc::new(Catalogue::parse(text).unwrap())
}

fn bots() -> Bots {
    let (verifier, _) = Verifier::new(Networks::parse(NETWORKS).unwrap());
    Bots::new(catalogue(CATALOGUE), verifier)
}

fn usual() -> Actions {
    Actions::default()
}

/// A request, as far as these tests tell requests apart.
#[derive(Debug, Clone)]
struct Request {
    fields: Vec<(&'static str, String)>,
    path: &'static str,
    peer: Peer,
}

impl Fields for Request {
    fn value(&self, name: &[u8], nth: usize) -> Option<&[u8]> {
        let own = |(own, _): &&(&str, String)| own.as_bytes() == name;
        let values = self.fields.iter().filter(own);
        values.map(|(_, value)| value.as_bytes()).nth(nth)
    }
}

impl Request {
    /// From a proxy that is trusted, about a client at `ip`.
    fn of(ip: &str, user_agent: &str) -> Self {
        Self {
            fields: vec![],
            path: "/a",
            peer: Peer::from("127.0.0.1".parse::<IpAddr>().unwrap()),
        }
        .with("user-agent", user_agent)
        .with("client-ip", ip)
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    fn at(mut self, path: &'static str) -> Self {
        self.path = path;
        self
    }

    fn head(&self) -> Head<'_> {
        Head {
            peer: &self.peer,
            method: b"GET",
            target: self.path.as_bytes(),
            path: self.path.as_bytes(),
            host: b"app.test",
            claims: Claims {
                identity: self.claim(b"client-ip"),
                edge: Claim::Absent,
                connecting_ipv6: Claim::Absent,
            },
            secret: self.claim(b"secret"),
            signature: self.claim(b"stripe-signature"),
            user_agent: self.claim(b"user-agent"),
            fields: self,
            content_length: None,
            now_unix_s: TODAY_S,
            now_ns: 1_000_000_000,
        }
    }
}

fn seen_of(request: &Request, actions: &Actions) -> Option<Seen> {
    seen_by(&bots(), request, actions)
}

fn seen_by(bots: &Bots, request: &Request, actions: &Actions) -> Option<Seen> {
    let ip = request.claim(b"client-ip");
    let from = match ip {
        Claim::One(ip) => Some(From {
            ip: str::from_utf8(ip).unwrap().parse().unwrap(),
            is_proven: request.claim(b"secret") == Claim::One(KEY.as_bytes()),
        }),
        Claim::Absent | Claim::Several => None,
    };
    look(bots, &People::default(), actions, &request.head(), from)
}

fn proven(ip: &str, user_agent: &str) -> Request {
    Request::of(ip, user_agent).with("secret", KEY)
}

fn is_refused(seen: Option<Seen>) -> bool {
    seen.unwrap().refusal().is_some()
}

#[test]
fn a_bot_of_a_category_that_is_kept_out_is_refused_and_any_other_passes() {
    for (user_agent, refused) in [
        ("TrainBot", true),
        ("xtrainBOT/2", false),
        ("AskBot/1", false),
    ] {
        let seen = seen_of(&proven(STRANGER, user_agent), &usual()).unwrap();
        assert_eq!(seen.refusal().is_some(), refused, "{user_agent}");
        assert_eq!(seen.standing, None, "{user_agent}");
    }
    let seen = seen_of(&proven(STRANGER, "TrainBot"), &usual()).unwrap();
    let refusal = seen.refusal().unwrap();
    assert_eq!((refusal.reason, refusal.status), (Reason::Bot, 403));
    assert_eq!(seen_of(&proven(STRANGER, CHROME), &usual()), None);
}

#[test]
fn a_bot_that_is_verified_passes_whatever_is_done_with_unknown_ones() {
    for unknown in Action::ALL {
        let actions = usual().with(Category::Unknown, unknown);
        let seen = seen_of(&proven(LISTED, "ListBot"), &actions).unwrap();
        assert_eq!(seen.standing, Some(Standing::Verified));
        assert_eq!(seen.action, Action::Verify);
        assert_eq!(seen.refusal(), None);
    }
}

#[test]
fn an_impostor_is_refused_whatever_is_done_with_unknown_ones() {
    for unknown in Action::ALL {
        let actions = usual().with(Category::Unknown, unknown);
        let seen = seen_of(&proven(STRANGER, "ListBot"), &actions).unwrap();
        assert_eq!(seen.standing, Some(Standing::Impostor));
        assert_eq!(seen.refusal().unwrap().reason, Reason::Bot);
    }
}

#[test]
fn a_bot_that_can_be_told_neither_way_is_an_unknown_one() {
    for unknown in Action::ALL {
        let actions = usual().with(Category::Unknown, unknown);
        for request in [
            proven(STRANGER, "NameBot"),
            proven("10.0.0.7", "ListBot"),
            // Whoever cannot prove its address proves nothing by it.
            Request::of(LISTED, "ListBot"),
        ] {
            let seen = seen_of(&request, &actions).unwrap();
            assert_eq!(seen.standing, Some(Standing::Unknown), "{request:?}");
            assert_eq!(seen.action, unknown, "{request:?}");
            assert_eq!(seen.refusal().is_some(), unknown == Action::Block);
        }
        let nobody = Request {
            fields: vec![("user-agent", "ListBot".to_owned())],
            ..proven(LISTED, "")
        };
        let seen = seen_of(&nobody, &actions).unwrap();
        assert_eq!((seen.standing, seen.action), (None, unknown));
    }
}

#[test]
fn nobody_is_asked_about_a_bot_that_is_not_to_be_verified() {
    let actions = usual().with(Category::SearchEngine, Action::Allow);
    let bots = bots();
    let seen = seen_by(&bots, &proven(STRANGER, "NameBot"), &actions).unwrap();
    assert_eq!((seen.standing, seen.action), (None, Action::Allow));
    assert_eq!(bots.verifier.figures().asked, 0);
}

/// A request that the operator of `SignBot` has signed, for this host.
fn signed(user_agent: &str, host: &str) -> (Bots, Request) {
    let key = SigningKey::from_bytes(&[7; 32]);
    let x = BASE64URL_NOPAD.encode(key.verifying_key().as_bytes());
    let directory = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}]}}"#);
    let mut keys = Keys::default();
    assert_eq!(keys.add("https://sign.example", &directory), Ok(1));
    let bots = bots();
    bots.keys.store(Arc::new(keys));
    // The thumbprint (RFC 7638) of that key.
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    let id = BASE64URL_NOPAD.encode(&<sha2::Sha256 as sha2::Digest>::digest(canonical));
    let params = format!(
        r#"("@authority");created={TODAY_S};expires={};keyid="{id}";tag="web-bot-auth""#,
        TODAY_S + 600
    );
    let base = format!("\"@authority\": {host}\n\"@signature-params\": {params}");
    let signature = BASE64.encode(&key.sign(base.as_bytes()).to_bytes());
    let request = proven(STRANGER, user_agent)
        .with("signature-input", format!("sig={params}"))
        .with("signature", format!("sig=:{signature}:"));
    (bots, request)
}

#[test]
fn a_signed_request_is_its_signers_whatever_the_user_agent_says() {
    for user_agent in [CHROME, "TrainBot", "SignBot"] {
        let (bots, request) = signed(user_agent, "app.test");
        let seen = seen_by(&bots, &request, &usual()).unwrap();
        assert_eq!(seen.name.as_bytes(), b"SignBot");
        assert_eq!(seen.standing, Some(Standing::Verified));
        assert!(!is_refused(Some(seen)));
        // Proven and unwanted is unwanted.
        let kept_out = usual().with(Category::SearchEngine, Action::Block);
        assert!(is_refused(seen_by(&bots, &request, &kept_out)));
    }
}

#[test]
fn a_wrong_signature_changes_nothing() {
    let (bots, request) = signed(CHROME, "other.test");
    assert_eq!(seen_by(&bots, &request, &usual()), None);
    let (bots, request) = signed("TrainBot", "other.test");
    assert!(is_refused(seen_by(&bots, &request, &usual())));
    let (bots, request) = signed(CHROME, "app.test");
    let twice = request.with("signature", "sig=:AA==:");
    assert_eq!(seen_by(&bots, &twice, &usual()), None);
}

#[test]
fn a_person_is_remembered_until_the_catalogue_is_another() {
    let (bots, people) = (bots(), People::default());
    let request = proven(STRANGER, CHROME);
    let look = |request: &Request| look(&bots, &people, &usual(), &request.head(), None);
    for _ in 0..3 {
        assert_eq!(look(&request), None);
    }
    let remembered = || people.slots.iter().filter(|slot| slot.get() != 0).count();
    assert_eq!(remembered(), 1);
    bots.replace_catalogue(catalogue("seo\tChrome\n"));
    assert!(is_refused(look(&request)));
    bots.replace_catalogue(catalogue(CATALOGUE));
    assert_eq!(look(&request), None);
    // A bot is never remembered as a person.
    let before = remembered();
    for _ in 0..3 {
        assert!(is_refused(look(&proven(STRANGER, "TrainBot"))));
    }
    assert_eq!(remembered(), before);
}

#[test]
fn however_many_people_come_no_bot_is_taken_for_one_of_them() {
    let (bots, people) = (bots(), People::default());
    for n in 0..20 * PEOPLE {
        let person = proven(STRANGER, &format!("{CHROME} Person/{n}"));
        let bot = proven(STRANGER, &format!("{CHROME} TrainBot/{n}"));
        let look = |request: &Request| look(&bots, &people, &usual(), &request.head(), None);
        assert_eq!(look(&person), None, "{n}");
        assert!(is_refused(look(&bot)), "{n}");
    }
}

#[test]
fn no_user_agent_an_empty_one_and_one_of_blanks_are_the_same_unknown_bot() {
    let blocks = usual().with(Category::Unknown, Action::Block);
    let absent = Request {
        fields: vec![],
        ..proven(STRANGER, "")
    };
    let missing = seen_of(&absent, &blocks).unwrap();
    assert_eq!(missing.name.as_bytes(), b"no user agent");
    for blanks in ["", " ", "\t \t"] {
        assert_eq!(seen_of(&proven(STRANGER, blanks), &blocks), Some(missing));
    }
}

#[test]
fn of_several_user_agents_the_one_that_says_bot_is_believed() {
    let seen = |first: &str, second: &str| {
        let request = proven(STRANGER, first).with("user-agent", second);
        let seen = seen_of(&request, &usual()).unwrap();
        String::from_utf8(seen.name.as_bytes().to_vec()).unwrap()
    };
    for [first, second] in [
        ["TrainBot", CHROME],
        ["TrainBot", ""],
        ["TrainBot", "otherbot"],
    ] {
        assert_eq!(seen(first, second), "TrainBot");
        assert_eq!(seen(second, first), "TrainBot");
    }
    assert_eq!(seen(CHROME, CHROME), "several user agents");
    assert_eq!(seen(CHROME, "otherbot"), "otherbot");
}

#[test]
fn a_certificate_authority_reads_the_answer_to_its_challenge_whatever_it_is() {
    const CHALLENGE: &str =
        "/.well-known/acme-challenge/evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
    for action in [Action::Block, Action::Limit] {
        let actions = Actions::all(action);
        let seen = seen_of(&proven(STRANGER, "TrainBot").at(CHALLENGE), &actions).unwrap();
        assert_eq!((seen.action, seen.refusal()), (Action::Allow, None));
        for elsewhere in [
            "/a",
            "/.well-known/acme-challenge/../../a",
            "/.well-known/acme-challenge/a/b",
            "/.well-known/acme-challenge/%2e%2e/a",
        ] {
            let seen = seen_of(&proven(STRANGER, "TrainBot").at(elsewhere), &actions);
            assert_eq!(seen.unwrap().action, action, "{elsewhere}");
        }
    }
    let seen = seen_of(&proven(STRANGER, "ListBot").at(CHALLENGE), &usual()).unwrap();
    assert_eq!(seen.standing, Some(Standing::Impostor));
    assert_eq!(seen.refusal(), None);
}

/// Reads an item of RFC 9651 that is a string with parameters: the string, and what follows it.
fn item(text: &[u8]) -> (Vec<u8>, String) {
    let mut string = Vec::new();
    let mut bytes = text.strip_prefix(b"\"").unwrap().iter();
    loop {
        match bytes.next().unwrap() {
            b'"' => break,
            b'\\' => {
                let escaped = bytes.next().unwrap();
                assert!(matches!(escaped, b'"' | b'\\'), "{text:?}");
                string.push(*escaped);
            }
            byte => {
                assert!(matches!(byte, b' '..=b'~'), "{text:?}");
                string.push(*byte);
            }
        }
    }
    (string, String::from_utf8(bytes.copied().collect()).unwrap())
}

proptest::proptest! {
    #[test]
    fn the_tag_is_one_string_whatever_the_name_is(name: Vec<u8>, is_verified: bool) {
        let seen = Seen {
            name: Excerpt::of(&name),
            category: Category::AiTraining,
            standing: is_verified.then_some(Standing::Verified),
            action: Action::Tag,
            is_listed: false,
        };
        let mut out = Vec::new();
        seen.write_tag(&mut out);
        let (string, rest) = item(&out);
        let readable = |byte: &u8| if matches!(byte, b' '..=b'~') { *byte } else { b'?' };
        let expected: Vec<_> = name.iter().take(64).map(readable).collect();
        proptest::prop_assert_eq!(string, expected);
        let verified = if is_verified { ";verified" } else { "" };
        proptest::prop_assert_eq!(rest, format!(";category=ai-training{verified}"));
    }
}

#[test]
fn a_tag_cannot_be_ended_from_inside() {
    let seen = Seen {
        name: Excerpt::of(b"a\";verified\r\nX: \\\xff"),
        category: Category::Seo,
        standing: Some(Standing::Unknown),
        action: Action::Tag,
        is_listed: true,
    };
    let mut out = Vec::new();
    seen.write_tag(&mut out);
    assert_eq!(
        str::from_utf8(&out),
        Ok(r#""a\";verified??X: \\?";category=seo"#)
    );
}

#[test]
fn a_listed_bot_is_limited_by_its_name_and_others_by_their_category() {
    let key = |user_agent: &str| {
        let limited = Actions::all(Action::Limit);
        let seen = seen_of(&proven(STRANGER, user_agent), &limited);
        seen.unwrap().herd().unwrap()
    };
    assert_eq!(key("TrainBot/1"), key("x TRAINBOT"));
    assert_ne!(key("TrainBot"), key("RankBot"));
    assert_eq!(key("firstbot/1"), key("secondbot/1"));
    assert_ne!(key("firstbot/1"), key("AskBot"));
    let discard = "100::/64".parse::<ipnet::Ipv6Net>().unwrap();
    for user_agent in ["TrainBot", "firstbot"] {
        match key(user_agent).address() {
            IpAddr::V6(address) => assert!(discard.contains(&address)),
            IpAddr::V4(_) => panic!("no client's address"),
        }
    }
}

/// All guards around this one, with one route `/free` that skips bots.
struct Chain {
    policy: Policy,
    keeper: Keeper,
    bots: Bots,
    people: People,
}

impl Chain {
    fn new(actions: Actions, burst: u32) -> Self {
        let mut clocks = ClockIds::default();
        let mut rules = |name: &str, bots| Rules {
            route: name.to_owned(),
            tally: Arc::default(),
            needs_secret: false,
            is_exempt: false,
            enforces: true,
            bots,
            is_trap: false,
            limits: Limits::new(
                name,
                vec![Limit {
                    quota: Quota::new("1/h".parse().unwrap(), burst),
                    clock: clocks.clock(name, 0).unwrap(),
                }],
            ),
            penalize: vec![],
            body_bytes_max: 1_000,
            signature: None,
        };
        let free = Route {
            patterns: vec![Pattern::parse("/free").unwrap()],
            methods: None,
            value: rules("free", None),
        };
        let key = SecretBytes::from(KEY.as_bytes().to_vec());
        Self {
            policy: Policy {
                generation: 1,
                trust: Trust {
                    header: "client-ip".to_owned(),
                    trusted: TrustedPeers {
                        networks: vec!["127.0.0.1/32".parse().unwrap()],
                        unix: false,
                    },
                    edge: None,
                    missing: Missing::Peer,
                    ipv6_prefix: 64,
                },
                keyring: Keyring::new(vec![("k1".to_owned(), key)]).unwrap(),
                signer: None,
                denied: NetworkSet::default(),
                protected: Protected::default(),
                points: Points {
                    rate_limited: 1,
                    bot: 2,
                    body_too_large: 1,
                    trap: 10,
                },
                routes: Routes::from(vec![free]),
                defaults: rules("defaults", Some(actions)),
            },
            keeper: Keeper::new(100),
            bots: bots(),
            people: People::default(),
        }
    }

    fn judge(&self, request: &Request) -> Judgement<'_> {
        let known = Known {
            clients: self.keeper.clients(),
            bots: &self.bots,
            people: &self.people,
            spending: None,
        };
        judge(&self.policy, known, &request.head(), &mut Vec::new())
    }
}

fn reason(judgement: &Judgement<'_>) -> Option<Reason> {
    judgement.verdict.err().map(|refusal| refusal.reason)
}

#[test]
fn a_bot_is_blamed_only_where_it_is_proven_who_it_is() {
    let chain = Chain::new(usual(), 1);
    let judgement = chain.judge(&proven(STRANGER, "TrainBot"));
    assert_eq!(reason(&judgement), Some(Reason::Bot));
    assert_eq!(judgement.violation, Some(Cause::Bot));
    assert!(judgement.may_be_blamed);
    let judgement = chain.judge(&Request::of(STRANGER, "TrainBot"));
    assert_eq!(reason(&judgement), Some(Reason::Bot));
    assert!(!judgement.may_be_blamed);
    // It has charged nothing: what it was refused for needs no count.
    assert_eq!(reason(&chain.judge(&proven(STRANGER, CHROME))), None);
}

#[test]
fn whoever_is_allowed_may_be_a_bot() {
    let mut chain = Chain::new(usual(), 1);
    chain.policy.protected.allowed = ["203.0.113.0/24".parse().unwrap()].into_iter().collect();
    let judgement = chain.judge(&proven(STRANGER, "TrainBot"));
    assert_eq!((reason(&judgement), judgement.bot), (None, None));
    // But not on its own word.
    let judgement = chain.judge(&Request::of(STRANGER, "TrainBot"));
    assert_eq!(reason(&judgement), Some(Reason::Bot));
}

#[test]
fn where_bots_are_skipped_nobody_looks() {
    let chain = Chain::new(usual(), 10);
    let judgement = chain.judge(&proven(STRANGER, "TrainBot").at("/free"));
    assert_eq!((reason(&judgement), judgement.bot), (None, None));
}

#[test]
fn where_a_route_observes_a_bot_passes_and_is_told() {
    let mut chain = Chain::new(usual(), 1);
    chain.policy.defaults.enforces = false;
    for _ in 0..3 {
        let judgement = chain.judge(&proven(STRANGER, "TrainBot"));
        assert_eq!(reason(&judgement), None);
        assert_eq!(judgement.observed.unwrap().reason, Reason::Bot);
        assert_eq!(judgement.violation, Some(Cause::Bot));
        // The limits, which it is over by now, are not asked.
        assert_eq!(judgement.spent, None);
    }
}

#[test]
fn a_bot_that_is_limited_is_one_client_from_wherever_it_comes_and_nobody_is_blamed() {
    let chain = Chain::new(Actions::all(Action::Limit), 3);
    let nobody = Request {
        fields: vec![("user-agent", "TrainBot".to_owned())],
        ..proven(LISTED, "")
    };
    for ip in [LISTED, STRANGER, LISTED] {
        assert_eq!(reason(&chain.judge(&proven(ip, "TrainBot"))), None, "{ip}");
    }
    let judgement = chain.judge(&proven("192.0.2.1", "TrainBot"));
    assert_eq!(reason(&judgement), Some(Reason::RateLimited));
    assert_eq!(judgement.violation, None);
    // Who is nobody uses up nothing that is proven to be the bot's.
    for _ in 0..3 {
        assert_eq!(reason(&chain.judge(&nobody)), None);
    }
    let judgement = chain.judge(&nobody);
    assert_eq!(reason(&judgement), Some(Reason::RateLimited));
    assert_eq!(judgement.violation, None);
    // Another bot, and people at the same addresses, have their own.
    for user_agent in ["RankBot", CHROME] {
        let judgement = chain.judge(&proven(STRANGER, user_agent));
        assert_eq!(reason(&judgement), None, "{user_agent}");
    }
}

#[test]
fn a_bot_that_is_tagged_or_verified_is_limited_as_the_client_it_is() {
    let chain = Chain::new(usual().with(Category::Seo, Action::Tag), 1);
    for (user_agent, ip) in [("RankBot", STRANGER), ("ListBot", LISTED)] {
        let judgement = chain.judge(&proven(ip, user_agent));
        assert_eq!(reason(&judgement), None, "{user_agent}");
        assert_eq!(judgement.payer(), judgement.client.unwrap().key());
        let again = chain.judge(&proven(ip, CHROME));
        assert_eq!(reason(&again), Some(Reason::RateLimited), "{user_agent}");
    }
}
