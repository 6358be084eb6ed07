//! A policy of the usual size, and a table of clients to ask it about.

use std::{fs, net::Ipv4Addr, sync::Arc};

use wardent::{
    bots::{Catalogue, Networks, Verifier},
    client::{Claim, Claims, Peer},
    config::{self, settings},
    guard::{
        bots::{Bots, People},
        chain::{self, Fields, Head, Judgement, Known},
        policy::Policy,
    },
    limit::{Clients, Keeper},
};

const WARDENT: &str = "\
listen: [127.0.0.1:8080]
upstream: {servers: [127.0.0.1:8000]}
secret: {keys: [{id: bench, from: {file: secret}}]}
policy: policy.yaml
log: {dir: log}
";

const SECRET: &str = "bench-secret-of-thirty-two-bytes";

const POLICY: &str = include_str!("../proxy/conf/policy.yaml");

const USER_AGENT: &[u8] = b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 \
    (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36";

/// What a worker has, without its sockets.
pub(crate) struct House {
    policy: Policy,
    bots: Bots,
    clients: Arc<Clients>,
    /// The one writer of the table.
    pub(crate) keeper: Keeper,
}

/// No other fields than those that have a place of their own.
#[derive(Debug)]
struct NoFields;

impl Fields for NoFields {
    fn value(&self, _: &[u8], _: usize) -> Option<&[u8]> {
        None
    }
}

impl House {
    /// With room for so many clients.
    pub(crate) fn new(clients_max: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        file("secret", SECRET);
        file("policy.yaml", POLICY);
        let loaded = config::load(&file("wardent.yaml", WARDENT)).unwrap();
        let built = settings::policy(&loaded, &mut settings::Lasting::default(), 1).unwrap();
        let (verifier, _) = Verifier::new(Networks::shipped());
        let keeper = Keeper::new(clients_max);
        Self {
            policy: built.policy,
            bots: Bots::new(Catalogue::shipped(), verifier),
            clients: Arc::clone(keeper.clients()),
            keeper,
        }
    }

    /// Makes cells for clients `0..count`, which have asked once at `now_ns`.
    pub(crate) fn fill(&mut self, count: u32, now_ns: u64) {
        let people = People::default();
        let mut scratch = Vec::new();
        for n in 0..count {
            self.judge(&people, address(n).as_bytes(), now_ns, &mut scratch);
            if n % 1024 == 0 {
                self.keeper.take_sights(now_ns);
            }
        }
        while self.keeper.take_sights(now_ns) > 0 {}
    }

    /// All guards about one GET of the client at this address.
    pub(crate) fn judge(
        &self,
        people: &People,
        address: &[u8],
        now_ns: u64,
        scratch: &mut Vec<u8>,
    ) -> Judgement<'_> {
        let known = Known {
            clients: &self.clients,
            bots: &self.bots,
            people,
            spending: None,
        };
        let head = Head {
            peer: &Peer::Ip(Ipv4Addr::LOCALHOST.into()),
            method: b"GET",
            target: b"/shop/products/42?size=xl",
            path: b"/shop/products/42",
            host: b"shop.example",
            claims: Claims {
                identity: Claim::One(address),
                edge: Claim::Absent,
                connecting_ipv6: Claim::Absent,
            },
            secret: Claim::One(SECRET.as_bytes()),
            signature: Claim::Absent,
            user_agent: Claim::One(USER_AGENT),
            fields: &NoFields,
            content_length: None,
            now_unix_s: 1_790_000_000,
            now_ns,
        };
        chain::judge(&self.policy, known, &head, scratch)
    }
}

/// The address of the `n`th client.
pub(crate) fn ip(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x1400_0000 + n)
}

/// The same, as a header says it.
pub(crate) fn address(n: u32) -> String {
    ip(n).to_string()
}
