//! Who may do what.
//!
//! Without SASL, everybody is `User:ANONYMOUS`: it may read, commit offsets, and do as it likes with topics
//! of its own. With SASL, nobody may do anything without a line that says so. Either way, what Wardent
//! writes is written by Wardent alone.

pub mod acl;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    net::IpAddr,
};

use acl::{ANY, CLUSTER, EVERYBODY};
pub use acl::{Acl, Operation, PatternType, Permission, ResourceType};

/// Whom a connection is from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nobody was asked, or has not said yet.
    Anonymous,
    /// A user who has proven it.
    User(String),
}

impl Principal {
    /// The user's name; Kafka calls whom nobody knows `ANONYMOUS`.
    pub fn name(&self) -> &str {
        match self {
            Self::Anonymous => "ANONYMOUS",
            Self::User(name) => name,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User:{}", self.name())
    }
}

/// What something is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    /// A topic.
    Topic(&'a str),
    /// A consumer group.
    Group(&'a str),
    /// All of it.
    Cluster,
    /// A transactional id.
    TransactionalId(&'a str),
    /// A user.
    User(&'a str),
}

impl Resource<'_> {
    /// What may be done with such a thing at all.
    fn operations(&self) -> &'static [Operation] {
        use Operation::{
            Alter, AlterConfigs, ClusterAction, Create, Delete, Describe, DescribeConfigs,
            IdempotentWrite, Read, Write,
        };
        match self {
            Self::Topic(_) => &[
                Read,
                Write,
                Create,
                Delete,
                Alter,
                Describe,
                DescribeConfigs,
                AlterConfigs,
            ],
            Self::Group(_) => &[Read, Delete, Describe, DescribeConfigs, AlterConfigs],
            Self::Cluster => &[
                Create,
                Alter,
                Describe,
                ClusterAction,
                DescribeConfigs,
                AlterConfigs,
                IdempotentWrite,
            ],
            Self::TransactionalId(_) => &[Write, Describe],
            Self::User(_) => &[Describe],
        }
    }

    fn parts(&self) -> (ResourceType, &str) {
        match self {
            Self::Topic(name) => (ResourceType::Topic, name),
            Self::Group(name) => (ResourceType::Group, name),
            Self::Cluster => (ResourceType::Cluster, CLUSTER),
            Self::TransactionalId(name) => (ResourceType::TransactionalId, name),
            Self::User(name) => (ResourceType::User, name),
        }
    }
}

/// Where what administrators decided is kept: passwords' keys among it.
const METADATA: &str = "__wardent_metadata";

/// Whether only Wardent writes to this topic.
pub fn is_wardents_alone(topic: &str) -> bool {
    topic.starts_with("wardent.") || topic.starts_with("__")
}

/// Whether this topic is not for clients to dispose of.
pub fn is_reserved(topic: &str) -> bool {
    is_wardents_alone(topic) || topic == "_schemas"
}

/// Whether nothing of how this topic is kept may be set by clients.
pub(in crate::kafka) fn is_kept_as_it_is(topic: &str) -> bool {
    topic.starts_with("__") || topic == "_schemas"
}

/// Who may do what, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Authorizer {
    /// Whether clients have to say who they are.
    asks: bool,
    supers: HashSet<String>,
    /// By principal.
    lines: HashMap<String, Vec<Acl>>,
    all: BTreeSet<Acl>,
}

impl Authorizer {
    /// Where nobody is asked who it is.
    pub fn open() -> Self {
        Self::default()
    }

    /// Where users have to prove who they are: `supers` may do everything, others what `acls` say.
    pub fn asking(
        supers: impl IntoIterator<Item = String>,
        acls: impl IntoIterator<Item = Acl>,
    ) -> Self {
        let all: BTreeSet<Acl> = acls.into_iter().collect();
        let mut lines: HashMap<String, Vec<Acl>> = HashMap::new();
        for acl in &all {
            lines
                .entry(acl.principal.clone())
                .or_default()
                .push(acl.clone());
        }
        Self {
            asks: true,
            supers: supers.into_iter().collect(),
            lines,
            all,
        }
    }

    /// Whether clients have to say who they are.
    pub fn asks(&self) -> bool {
        self.asks
    }

    /// Every line, in order.
    pub fn acls(&self) -> impl Iterator<Item = &Acl> {
        self.all.iter()
    }

    /// Whether a user may do everything.
    pub fn is_super(&self, who: &Principal) -> bool {
        matches!(who, Principal::User(name) if self.supers.contains(name))
    }

    /// Whether `who`, calling from `host`, may do this; over a unix socket, from nowhere.
    pub fn may(
        &self,
        who: &Principal,
        host: Option<IpAddr>,
        operation: Operation,
        resource: Resource<'_>,
    ) -> bool {
        match (resource, Care::of(operation, resource)) {
            (_, Care::Never) => false,
            (_, Care::Named) => {
                self.asks
                    && (self.is_super(who) || self.is_allowed(who, host, operation, resource, true))
            }
            (_, Care::Usual) if !self.asks => is_free(operation, resource),
            (Resource::Topic(_), Care::Usual) if operation == Operation::Create => {
                // Who may make topics at all, may make this one (KIP-290).
                let anywhere = (operation, Resource::Cluster);
                self.is_super(who)
                    || self.is_allowed(who, host, operation, resource, false)
                    || self.is_allowed(who, host, anywhere.0, anywhere.1, false)
            }
            (_, Care::Usual) => {
                self.is_super(who) || self.is_allowed(who, host, operation, resource, false)
            }
        }
    }

    /// What `who` may do with something, as the bits that Kafka tells it by (KIP-430).
    pub fn bits(&self, who: &Principal, host: Option<IpAddr>, resource: Resource<'_>) -> i32 {
        let operations = resource.operations().iter();
        let allowed = operations.filter(|operation| self.may(who, host, **operation, resource));
        allowed.fold(0, |bits, operation| bits | 1 << operation.code())
    }

    /// Whether there may be anything of this type to which `who` may do this (KIP-679).
    pub fn may_somewhere(
        &self,
        who: &Principal,
        host: Option<IpAddr>,
        operation: Operation,
        resource: ResourceType,
    ) -> bool {
        if !self.asks || self.is_super(who) {
            return true;
        }
        let lines: Vec<_> = self.lines_of(who, host).collect();
        let denies =
            |acl: &&&Acl| acl.permission == Permission::Deny && is_it(acl.operation, operation);
        let allows =
            |acl: &&&Acl| acl.permission == Permission::Allow && implies(acl.operation, operation);
        lines
            .iter()
            .filter(|acl| acl.resource == resource)
            .filter(allows)
            .any(|allowed| {
                !lines
                    .iter()
                    .filter(denies)
                    .any(|denied| denied.covers(allowed))
            })
    }

    fn is_allowed(
        &self,
        who: &Principal,
        host: Option<IpAddr>,
        operation: Operation,
        resource: Resource<'_>,
        by_name: bool,
    ) -> bool {
        let (of_type, name) = resource.parts();
        let mut allowed = false;
        for acl in self
            .lines_of(who, host)
            .filter(|acl| acl.is_about(of_type, name))
        {
            match acl.permission {
                Permission::Deny if is_it(acl.operation, operation) => return false,
                Permission::Deny => {}
                Permission::Allow => {
                    let is_meant = !by_name || is_reserved(&acl.name);
                    allowed |= is_meant && implies(acl.operation, operation);
                }
            }
        }
        allowed
    }

    /// The lines about `who`, as far as they hold for `host`.
    fn lines_of(&self, who: &Principal, host: Option<IpAddr>) -> impl Iterator<Item = &Acl> {
        let host = host.map(|host| host.to_canonical());
        let own = self.lines.get(&who.to_string());
        let everybodys = self.lines.get(EVERYBODY);
        let lines = own.into_iter().chain(everybodys).flatten();
        lines.filter(move |acl| acl.host == ANY || acl.host.parse().ok() == host && host.is_some())
    }
}

/// How carefully something is permitted.
enum Care {
    /// By no line at all.
    Never,
    /// By a line that names it, or begins as reserved names do: `*` does not mean it.
    Named,
    /// As anything else.
    Usual,
}

impl Care {
    fn of(operation: Operation, resource: Resource<'_>) -> Self {
        use Operation as O;
        match resource {
            Resource::Topic(topic) => Self::of_topic(operation, topic),
            // Users and what they may do are nobody's to change who need not say who he is.
            Resource::Cluster if operation == O::Alter => Self::Named,
            Resource::Cluster
            | Resource::Group(_)
            | Resource::TransactionalId(_)
            | Resource::User(_) => Self::Usual,
        }
    }

    fn of_topic(operation: Operation, topic: &str) -> Self {
        use Operation as O;
        match operation {
            O::Write | O::Create | O::All if is_wardents_alone(topic) => Self::Never,
            // Without these, nothing is known of users and groups any more.
            O::Delete | O::Alter if topic.starts_with("__") => Self::Never,
            // Kept otherwise, they would lose what they are for.
            O::AlterConfigs if is_kept_as_it_is(topic) => Self::Never,
            O::Read if topic == METADATA => Self::Named,
            O::Write | O::Create | O::Delete | O::Alter | O::AlterConfigs if is_reserved(topic) => {
                Self::Named
            }
            O::All
            | O::Read
            | O::Write
            | O::Create
            | O::Delete
            | O::Alter
            | O::Describe
            | O::ClusterAction
            | O::DescribeConfigs
            | O::AlterConfigs
            | O::IdempotentWrite => Self::Usual,
        }
    }
}

/// What everybody may do where nobody is asked who it is.
fn is_free(operation: Operation, resource: Resource<'_>) -> bool {
    match resource {
        Resource::Topic(_) | Resource::Group(_) => true,
        Resource::Cluster => matches!(
            operation,
            Operation::Create
                | Operation::Describe
                | Operation::DescribeConfigs
                | Operation::IdempotentWrite
        ),
        Resource::TransactionalId(_) | Resource::User(_) => false,
    }
}

/// Whether a line about `said` is about `asked`.
fn is_it(said: Operation, asked: Operation) -> bool {
    said == asked || said == Operation::All
}

/// Whether who may do `said` may do `asked`.
fn implies(said: Operation, asked: Operation) -> bool {
    use Operation::{Alter, AlterConfigs, Delete, Describe, DescribeConfigs, Read, Write};
    let describes = asked == Describe && matches!(said, Read | Write | Delete | Alter);
    let describes_configs = asked == DescribeConfigs && said == AlterConfigs;
    is_it(said, asked) || describes || describes_configs
}

#[cfg(test)]
mod tests {
    use super::{
        Operation::{Alter, AlterConfigs, Create, Delete, Describe, DescribeConfigs, Read, Write},
        Resource::{Cluster, Group, Topic},
        *,
    };
    use acl::tests::acl;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn me() -> Principal {
        Principal::User("me".to_owned())
    }

    fn asking(lines: &[&str]) -> Authorizer {
        Authorizer::asking(["root".to_owned()], lines.iter().map(|line| acl(line)))
    }

    /// What `me` may do with a topic.
    fn with(lines: &[&str], topic: &str) -> Vec<Operation> {
        let authorizer = asking(lines);
        let may = |operation: &Operation| authorizer.may(&me(), HERE, *operation, Topic(topic));
        Operation::ALL.iter().copied().filter(may).collect()
    }

    #[test]
    fn nobody_may_do_anything_without_a_line() {
        assert_eq!(with(&[], "orders"), []);
        assert_eq!(with(&["you allow all topic literal *"], "orders"), []);
        assert!(!asking(&[]).may(&me(), HERE, Describe, Cluster));
    }

    #[test]
    fn a_reader_reads_just_that() {
        let reader = ["me allow read topic literal wardent.http.access"];
        assert_eq!(with(&reader, "wardent.http.access"), [Read, Describe]);
        assert_eq!(with(&reader, "wardent.client.ban"), []);
        assert_eq!(with(&reader, "wardent.http.access.2"), []);
    }

    #[test]
    fn what_implies_what_is_as_in_kafka() {
        for (said, meant) in [
            ("read", vec![Read, Describe]),
            ("write", vec![Write, Describe]),
            ("delete", vec![Delete, Describe]),
            ("alter", vec![Alter, Describe]),
            ("create", vec![Create]),
            ("describe", vec![Describe]),
            ("alter-configs", vec![DescribeConfigs, AlterConfigs]),
            ("describe-configs", vec![DescribeConfigs]),
            ("all", Operation::ALL.to_vec()),
        ] {
            let line = format!("me allow {said} topic prefixed ord");
            assert_eq!(with(&[&line], "orders"), meant, "{said}");
        }
    }

    #[test]
    fn a_denial_beats_what_is_allowed_and_implies_nothing() {
        let allow = "me allow all topic literal *";
        let few = with(&[allow, "me deny read topic prefixed ord"], "orders");
        assert!(!few.contains(&Read) && few.contains(&Describe) && few.contains(&Write));
        assert_eq!(
            with(&[allow, "* deny all topic literal orders"], "orders"),
            []
        );
        assert!(with(&[allow, "you deny all topic literal orders"], "orders").contains(&Read));
    }

    #[test]
    fn a_line_holds_for_its_host() {
        let authorizer = asking(&["me allow read topic literal a 192.0.2.1"]);
        let may = |host: &str| authorizer.may(&me(), host.parse().ok(), Read, Topic("a"));
        assert!(may("192.0.2.1") && may("::ffff:192.0.2.1"));
        assert!(!may("192.0.2.2") && !may("2001:db8::1") && !may("over a unix socket"));
    }

    #[test]
    fn everybodys_lines_are_for_whom_nobody_knows_too() {
        let authorizer = asking(&[
            "* allow read topic literal a",
            "ANONYMOUS allow read topic literal b",
        ]);
        assert!(authorizer.may(&Principal::Anonymous, HERE, Read, Topic("a")));
        assert!(authorizer.may(&Principal::Anonymous, HERE, Read, Topic("b")));
        assert!(!authorizer.may(&me(), HERE, Read, Topic("b")));
    }

    #[test]
    fn what_wardent_writes_is_written_by_nobody_else() {
        let all = asking(&[
            "me allow all topic literal *",
            "me allow write topic literal wardent.client.ban",
        ]);
        let root = Principal::User("root".to_owned());
        for topic in ["wardent.client.ban", "__consumer_offsets", METADATA] {
            for who in [&me(), &root, &Principal::Anonymous] {
                for operation in [Write, Create] {
                    assert!(
                        !all.may(who, HERE, operation, Topic(topic)),
                        "{who} {operation:?}"
                    );
                    assert!(!Authorizer::open().may(who, HERE, operation, Topic(topic)));
                }
            }
        }
        assert!(all.may(&root, HERE, Delete, Topic("wardent.client.ban")));
        assert!(!all.may(&root, HERE, Delete, Topic("__consumer_offsets")));
        assert!(all.may(&root, HERE, AlterConfigs, Topic("wardent.client.ban")));
        for topic in ["__consumer_offsets", METADATA, "_schemas"] {
            assert!(!all.may(&root, HERE, AlterConfigs, Topic(topic)), "{topic}");
            assert!(!all.may(&me(), HERE, AlterConfigs, Topic(topic)), "{topic}");
        }
    }

    #[test]
    fn reserved_topics_are_disposed_of_by_those_only_whom_a_line_names() {
        assert!(!with(&["me allow all topic literal *"], "_schemas").contains(&Write));
        assert!(!with(&["me allow all topic prefixed _"], "_schemas").contains(&Delete));
        assert!(with(&["me allow write topic literal _schemas"], "_schemas").contains(&Write));
        let configs = with(
            &["me allow alter-configs topic prefixed wardent.http"],
            "wardent.http.access",
        );
        assert_eq!(configs, [DescribeConfigs, AlterConfigs]);
        let wide = with(
            &["me allow alter-configs topic literal *"],
            "wardent.http.access",
        );
        assert_eq!(wide, [DescribeConfigs]);
        let denied = [
            "me allow write topic literal _schemas",
            "me deny write topic literal *",
        ];
        assert!(!with(&denied, "_schemas").contains(&Write));
    }

    #[test]
    fn keys_of_passwords_are_not_read_by_the_way() {
        assert!(!with(&["me allow all topic literal *"], METADATA).contains(&Read));
        assert!(!Authorizer::open().may(&Principal::Anonymous, HERE, Read, Topic(METADATA)));
        assert!(
            with(
                &[&format!("me allow read topic literal {METADATA}")],
                METADATA
            )
            .contains(&Read)
        );
    }

    #[test]
    fn without_sasl_everybody_has_topics_of_his_own() {
        let open = Authorizer::open();
        let may = |operation, resource| open.may(&Principal::Anonymous, HERE, operation, resource);
        for operation in [Read, Write, Create, Delete, Alter, Describe, AlterConfigs] {
            assert!(may(operation, Topic("orders")), "{operation:?}");
            let reads = matches!(operation, Read | Describe);
            for topic in ["wardent.http.access", "_schemas"] {
                assert_eq!(
                    may(operation, Topic(topic)),
                    reads,
                    "{operation:?} of {topic}"
                );
            }
        }
        assert!(may(Read, Group("g")) && may(Delete, Group("g")));
        assert!(may(Describe, Cluster) && may(Operation::IdempotentWrite, Cluster));
        assert!(!may(Alter, Cluster) && !may(AlterConfigs, Cluster));
    }

    #[test]
    fn who_may_make_topics_anywhere_makes_none_of_wardents() {
        let maker = ["me allow create cluster literal kafka-cluster"];
        assert_eq!(with(&maker, "orders"), [Create]);
        assert_eq!(with(&maker, "wardent.x"), []);
        assert_eq!(with(&maker, "_schemas"), []);
    }

    #[test]
    fn bits_are_kafkas() {
        let open = Authorizer::open();
        let bits = |resource| open.bits(&Principal::Anonymous, HERE, resource);
        // Read, Describe, DescribeConfigs.
        let reads = 1 << 3 | 1 << 8 | 1 << 10;
        assert_eq!(bits(Topic("wardent.audit.event")), reads);
        assert_eq!(bits(Topic("mine")), 0b1101_1111_1000);
    }

    #[test]
    fn something_to_write_to_is_enough_for_a_producer_id() {
        let somewhere =
            |lines: &[&str]| asking(lines).may_somewhere(&me(), HERE, Write, ResourceType::Topic);
        assert!(somewhere(&["me allow write topic literal a"]));
        assert!(somewhere(&[
            "me allow all topic prefixed a",
            "me deny write topic literal ab"
        ]));
        assert!(!somewhere(&["me allow read topic literal a"]));
        assert!(!somewhere(&[
            "me allow write topic literal a",
            "* deny write topic literal *"
        ]));
        assert!(!somewhere(&[
            "me allow write topic prefixed ab",
            "me deny all topic prefixed a"
        ]));
        assert!(!somewhere(&["me allow write group literal a"]));
    }
}
