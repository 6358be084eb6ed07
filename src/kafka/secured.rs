//! The room where clients have to say who they are, and what each may do then.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use data_encoding::BASE64;
use kafka_protocol::{
    messages::{
        AlterClientQuotasRequest, AlterClientQuotasResponse, AlterUserScramCredentialsRequest,
        AlterUserScramCredentialsResponse, ApiVersionsRequest, ApiVersionsResponse, BrokerId,
        CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse,
        DescribeAclsRequest, DescribeAclsResponse, DescribeClientQuotasRequest,
        DescribeClientQuotasResponse, DescribeUserScramCredentialsRequest,
        DescribeUserScramCredentialsResponse, FetchRequest, FetchResponse, MetadataRequest,
        MetadataResponse, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
        SaslHandshakeResponse, TopicName,
        alter_client_quotas_request::{EntityData, EntryData, OpData},
        alter_user_scram_credentials_request::{ScramCredentialDeletion, ScramCredentialUpsertion},
        create_acls_request::AclCreation,
        delete_acls_request::DeleteAclsFilter,
        fetch_request::{FetchPartition, FetchTopic},
    },
    protocol::StrBytes,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{
    access::{Account, Sasl, Teller},
    broker::Security,
    quota::Flow,
    rig::{Client, Rig, with_broker, with_secured_broker},
    sasl::{Credential, Mechanism, Scram},
    table::Key,
    users::{self, Act, NotDone, Outcome, Rights},
};

/// Longer than anything here takes on a busy machine.
const AT_LAST: Duration = Duration::from_secs(60);

const PASSWORD: &[u8] = b"correct horse";

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn security() -> (Security, Arc<Mutex<Vec<Account>>>) {
    let told: Arc<Mutex<Vec<Account>>> = Arc::default();
    let tell = {
        let told = Arc::clone(&told);
        Teller(Arc::new(move |account| told.lock().unwrap().push(account)))
    };
    let scrams = Scram::ALL.map(Mechanism::Scram);
    let security = Security {
        tls: None,
        sasl: Some(Sasl {
            mechanisms: [Mechanism::Plain].into_iter().chain(scrams).collect(),
        }),
        tell: Some(tell),
    };
    (security, told)
}

/// Has an act done as the admin socket does.
async fn act(rig: &Rig, act: Act) -> Outcome {
    let (acts, asked) = users::channel();
    let answering = users::answer(asked, std::rc::Rc::clone(&rig.broker));
    let (outcome, ()) = tokio::join!(
        async move { acts.ask(act, "uid:0".to_owned()).await },
        answering
    );
    outcome
}

async fn add(rig: &Rig, name: &str, rights: Rights) -> Outcome {
    let new = |scram| Credential::new(scram, PASSWORD).unwrap();
    let add = Act::Add {
        name: name.to_owned(),
        credentials: Scram::ALL.map(new).to_vec(),
        rights,
    };
    act(rig, add).await
}

fn reads(topic: &str) -> Rights {
    Rights {
        read: vec![topic.to_owned()],
        ..Rights::default()
    }
}

async fn handshake(client: &mut Client, version: i16, mechanism: &str) -> SaslHandshakeResponse {
    let request = SaslHandshakeRequest::default().with_mechanism(text(mechanism));
    client.ask(Key::SaslHandshake, version, &request).await
}

async fn authenticate(client: &mut Client, message: &[u8]) -> SaslAuthenticateResponse {
    let bytes = Bytes::copy_from_slice(message);
    let request = SaslAuthenticateRequest::default().with_auth_bytes(bytes);
    client.ask(Key::SaslAuthenticate, 2, &request).await
}

/// Logs in by PLAIN; the error.
async fn log_in(client: &mut Client, user: &str, password: &[u8]) -> i16 {
    assert_eq!(handshake(client, 1, "PLAIN").await.error_code, 0);
    let message = [b"\0", user.as_bytes(), b"\0", password].concat();
    authenticate(client, &message).await.error_code
}

/// The topics that a client sees, with the error of each.
async fn topics(client: &mut Client) -> Vec<String> {
    let request = MetadataRequest::default().with_topics(None);
    let told: MetadataResponse = client.ask(Key::Metadata, 9, &request).await;
    let names = told.topics.iter().filter_map(|topic| topic.name.clone());
    names.map(|name| name.to_string()).collect()
}

/// Asks for the beginning of a topic; the error.
async fn fetch(client: &mut Client, topic: &str) -> i16 {
    let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(TopicName(text(topic)))
        .with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic]);
    let told: FetchResponse = client.ask(Key::Fetch, 4, &request).await;
    told.responses[0].partitions[0].error_code
}

#[test]
fn who_has_not_logged_in_learns_the_versions_and_nothing_else() {
    with_secured_broker(&[("orders", 1)], security().0, async |rig| {
        let mut client = rig.connect();
        let request = ApiVersionsRequest::default();
        let told: ApiVersionsResponse = client.ask(Key::ApiVersions, 0, &request).await;
        assert_eq!(told.error_code, 0);
        client
            .send(Key::Metadata, 9, &MetadataRequest::default())
            .await;
        assert!(client.is_closed().await);
        for (key, version) in [(Key::DescribeAcls, 1), (Key::CreateAcls, 1)] {
            let mut client = rig.connect();
            if key == Key::DescribeAcls {
                let request = DescribeAclsRequest::default();
                client.send(key, version, &request).await;
            } else {
                let request = CreateAclsRequest::default();
                client.send(key, version, &request).await;
            }
            assert!(client.is_closed().await);
        }
        let cuts: Vec<_> = rig.broker.counters.cuts().collect();
        assert!(cuts.contains(&("not_logged_in", 3)), "{cuts:?}");
        assert_eq!(
            rig.broker
                .counters
                .requests()
                .map(|(_, count)| count)
                .sum::<u64>(),
            1
        );
    });
}

#[test]
fn a_long_request_is_not_taken_from_who_has_not_logged_in() {
    with_secured_broker(&[], security().0, async |rig| {
        let mut client = rig.connect();
        client
            .stream
            .write_all(&(64 * 1024 + 1_i32).to_be_bytes())
            .await
            .unwrap();
        assert!(client.is_closed().await);
        let cuts: Vec<_> = rig.broker.counters.cuts().collect();
        assert!(cuts.contains(&("frame_length", 1)), "{cuts:?}");
    });
}

#[test]
fn a_user_logs_in_and_sees_what_it_may_see() {
    with_secured_broker(&[("orders", 1)], security().0, async |rig| {
        add(&rig, "reader", reads("wardent.http.access"))
            .await
            .unwrap();
        let admin = Rights {
            admin: true,
            ..Rights::default()
        };
        add(&rig, "ops", admin).await.unwrap();
        let mut client = rig.connect();
        assert_eq!(log_in(&mut client, "reader", PASSWORD).await, 0);
        assert_eq!(topics(&mut client).await, ["wardent.http.access"]);
        assert_eq!(fetch(&mut client, "wardent.http.access").await, 0);
        for topic in ["orders", "wardent.audit.event", "not-there"] {
            assert_eq!(fetch(&mut client, topic).await, 29, "{topic}");
        }
        let mut client = rig.connect();
        assert_eq!(log_in(&mut client, "ops", PASSWORD).await, 0);
        assert!(topics(&mut client).await.len() >= 5);
        // Once is enough.
        assert_eq!(handshake(&mut client, 1, "PLAIN").await.error_code, 34);
        assert_eq!(authenticate(&mut client, b"").await.error_code, 34);
        assert!(topics(&mut client).await.len() >= 5);
        assert_eq!(rig.broker.counters.logins.get(), 2);
    });
}

#[test]
fn who_fails_is_told_late_and_goes() {
    with_secured_broker(&[], security().0, async |rig| {
        add(&rig, "me", Rights::default()).await.unwrap();
        for (user, password) in [("me", &b"wrong"[..]), ("nobody", PASSWORD)] {
            let mut client = rig.connect();
            let began_ns = rig.broker.clock.monotonic_ns();
            assert_eq!(log_in(&mut client, user, password).await, 58);
            assert!(rig.broker.clock.monotonic_ns() - began_ns >= 1_000_000_000);
            assert!(client.is_closed().await);
        }
        assert_eq!(rig.broker.counters.failed_logins.get(), 2);
        let mut client = rig.connect();
        let refused = handshake(&mut client, 1, "GSSAPI").await;
        assert_eq!(refused.error_code, 33);
        let offered: Vec<_> = refused
            .mechanisms
            .iter()
            .map(|name| name.as_str())
            .collect();
        assert_eq!(offered, ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]);
        assert!(client.is_closed().await);
    });
}

#[test]
fn an_address_that_guesses_is_not_even_looked_at() {
    with_secured_broker(&[], security().0, async |rig| {
        add(&rig, "me", Rights::default()).await.unwrap();
        let here = rig.session.peer.unwrap();
        let now_ns = rig.broker.clock.monotonic_ns();
        for _ in 0..super::sasl::failures::BURST {
            rig.broker.access.failures.borrow_mut().note(here, now_ns);
        }
        let mut client = rig.connect();
        assert_eq!(log_in(&mut client, "me", PASSWORD).await, 58);
        assert!(client.is_closed().await);
    });
}

/// SCRAM as a client speaks it, by another road than the server's: from the password.
async fn scram(client: &mut Client, scram: Scram, user: &str, raw: bool) -> Vec<u8> {
    let mac = |key: &[u8], bytes: &[u8]| scram.mac(key, bytes);
    let first_bare = format!("n={user},r=abc");
    let first = exchange(client, raw, format!("n,,{first_bare}").as_bytes()).await;
    let first = String::from_utf8(first).unwrap();
    let field = |at: usize, name: &str| {
        let part = first.split(',').nth(at).unwrap();
        part.strip_prefix(name).unwrap().to_owned()
    };
    let (nonce, salt, rounds) = (field(0, "r="), field(1, "s="), field(2, "i="));
    let salt = BASE64.decode(salt.as_bytes()).unwrap();
    let credential =
        Credential::of_password(scram, PASSWORD, salt.clone(), rounds.parse().unwrap());
    let unproven = format!("c=biws,r={nonce}");
    let message = format!("{first_bare},{first},{unproven}");
    let salted = scram.salted(PASSWORD, &salt, rounds.parse().unwrap());
    let signature = mac(&credential.stored_key, message.as_bytes());
    let key = mac(&salted, b"Client Key");
    let proof: Vec<u8> = key
        .iter()
        .zip(&signature)
        .map(|(one, other)| one ^ other)
        .collect();
    let last = format!("{unproven},p={}", BASE64.encode(&proof));
    let answer = exchange(client, raw, last.as_bytes()).await;
    let expected = mac(&credential.server_key, message.as_bytes());
    assert_eq!(
        answer,
        format!("v={}", BASE64.encode(&expected)).into_bytes()
    );
    answer
}

async fn exchange(client: &mut Client, raw: bool, message: &[u8]) -> Vec<u8> {
    if !raw {
        let answer = authenticate(client, message).await;
        assert_eq!(answer.error_code, 0, "{answer:?}");
        return answer.auth_bytes.to_vec();
    }
    let length = u32::try_from(message.len()).unwrap();
    client.stream.write_u32(length).await.unwrap();
    client.stream.write_all(message).await.unwrap();
    let length = client.stream.read_u32().await.unwrap();
    let mut answer = vec![0; usize::try_from(length).unwrap()];
    client.stream.read_exact(&mut answer).await.unwrap();
    answer
}

#[test]
fn scram_is_spoken_in_requests_and_without() {
    with_secured_broker(&[("orders", 1)], security().0, async |rig| {
        add(&rig, "me", reads("orders")).await.unwrap();
        for (mechanism, version) in [
            (Scram::Sha256, 0),
            (Scram::Sha256, 1),
            (Scram::Sha512, 0),
            (Scram::Sha512, 1),
        ] {
            let mut client = rig.connect();
            assert_eq!(
                handshake(&mut client, version, mechanism.name())
                    .await
                    .error_code,
                0
            );
            scram(&mut client, mechanism, "me", version == 0).await;
            assert_eq!(topics(&mut client).await, ["orders"]);
        }
    });
}

#[test]
fn whoever_says_nothing_is_not_waited_for() {
    with_secured_broker(&[], security().0, async |rig| {
        let mut client = rig.connect();
        assert!(timeout(AT_LAST, client.is_closed()).await.unwrap());
        let cuts: Vec<_> = rig.broker.counters.cuts().collect();
        assert!(cuts.contains(&("login", 1)), "{cuts:?}");
    });
}

fn creation(topic: &str, operation: i8) -> AclCreation {
    AclCreation::default()
        .with_resource_type(2)
        .with_resource_name(text(topic))
        .with_resource_pattern_type(3)
        .with_principal(text("User:reader"))
        .with_host(text("*"))
        .with_operation(operation)
        .with_permission_type(3)
}

#[test]
fn rights_change_while_connections_stay() {
    let (security, told) = security();
    with_secured_broker(&[("orders", 1)], security, async |rig| {
        let admin = Rights {
            admin: true,
            ..Rights::default()
        };
        add(&rig, "ops", admin).await.unwrap();
        add(&rig, "reader", Rights::default()).await.unwrap();
        let (mut ops, mut reader) = (rig.connect(), rig.connect());
        log_in(&mut ops, "ops", PASSWORD).await;
        log_in(&mut reader, "reader", PASSWORD).await;
        assert!(topics(&mut reader).await.is_empty());
        let create = CreateAclsRequest::default().with_creations(vec![creation("orders", 3)]);
        let made: CreateAclsResponse = reader.ask(Key::CreateAcls, 2, &create).await;
        assert_eq!(made.results[0].error_code, 31);
        let made: CreateAclsResponse = ops.ask(Key::CreateAcls, 3, &create).await;
        assert_eq!(made.results[0].error_code, 0);
        assert_eq!(topics(&mut reader).await, ["orders"]);
        let any = DescribeAclsRequest::default()
            .with_resource_type_filter(1)
            .with_resource_name_filter(None)
            .with_principal_filter(None)
            .with_host_filter(None)
            .with_pattern_type_filter(1)
            .with_operation(1)
            .with_permission_type(1);
        let lines: DescribeAclsResponse = ops.ask(Key::DescribeAcls, 3, &any).await;
        assert_eq!(lines.resources.len(), 1);
        let lines: DescribeAclsResponse = reader.ask(Key::DescribeAcls, 3, &any).await;
        assert_eq!(lines.error_code, 31);
        let filter = DeleteAclsFilter::default()
            .with_resource_type_filter(2)
            .with_pattern_type_filter(2)
            .with_resource_name_filter(Some(text("orders")))
            .with_principal_filter(None)
            .with_host_filter(None)
            .with_operation(1)
            .with_permission_type(1);
        let delete = DeleteAclsRequest::default().with_filters(vec![filter]);
        let gone: DeleteAclsResponse = ops.ask(Key::DeleteAcls, 3, &delete).await;
        assert_eq!(gone.filter_results[0].matching_acls.len(), 1);
        assert!(topics(&mut reader).await.is_empty());
    });
    let told = told.lock().unwrap();
    let told: Vec<_> = told
        .iter()
        .map(|one| (one.actor.as_str(), one.target.as_str()))
        .collect();
    let by_ops = ("User:ops", "User:reader");
    assert_eq!(
        told,
        [
            ("uid:0", "User:ops"),
            ("uid:0", "User:reader"),
            by_ops,
            by_ops
        ]
    );
}

#[test]
fn what_was_decided_outlives_the_broker() {
    let (security, told) = security();
    with_secured_broker(&[("orders", 1)], security.clone(), async |rig| {
        add(&rig, "reader", reads("orders")).await.unwrap();
        rig.broker.access.begin().await;
        let secret = super::sasl::Users::secret_of_nobody(rig.broker.access.as_ref());
        let meta = super::meta::Meta::load(rig.log(), &rig.broker.clock).unwrap();
        let again = super::access::Access::load(&meta, security.sasl, None);
        again.begin().await;
        assert_eq!(super::sasl::Users::secret_of_nobody(&again), secret);
        assert_eq!(again.users().into_iter().collect::<Vec<_>>(), ["reader"]);
        assert!(
            again
                .credentials("reader")
                .iter()
                .all(|one| one.is_of(PASSWORD))
        );
        assert_eq!(again.authorizer().acls().count(), 1);
    });
    let told = told.lock().unwrap();
    let after = told[0].after.as_ref().unwrap().to_string();
    assert_eq!(
        after,
        "{\"admin\":false,\"mechanisms\":[\"SCRAM-SHA-256\",\"SCRAM-SHA-512\"],\
         \"rights\":[\"allow read topic orders\"]}"
    );
    assert_eq!(told[0].before, None);
}

#[test]
fn users_are_changed_by_operators() {
    with_secured_broker(&[], security().0, async |rig| {
        add(&rig, "me", reads("orders")).await.unwrap();
        let again = add(&rig, "me", Rights::default()).await;
        assert_eq!(again, Err(NotDone::Exists("me".to_owned())));
        for name in ["", "a/b", "User:x", "*", " a", "a\n"] {
            let senseless = add(&rig, name, Rights::default()).await;
            assert!(matches!(senseless, Err(NotDone::Senseless(_))), "{name:?}");
        }
        let other = Credential::new(Scram::Sha256, b"battery staple").unwrap();
        let change = Act::Password {
            name: "me".to_owned(),
            credentials: vec![other],
        };
        let listed = act(&rig, change).await.unwrap();
        // The old password must not go on by the other mechanism.
        assert_eq!(listed.users[0].mechanisms, ["SCRAM-SHA-256"]);
        let mut client = rig.connect();
        assert_eq!(log_in(&mut client, "me", PASSWORD).await, 58);
        let mut client = rig.connect();
        assert_eq!(log_in(&mut client, "me", b"battery staple").await, 0);
        let remove = |name: &str| Act::Remove {
            name: name.to_owned(),
        };
        let was = act(&rig, remove("me")).await.unwrap();
        assert_eq!(was.users[0].rights, ["allow read topic orders"]);
        assert!(act(&rig, Act::List).await.unwrap().users.is_empty());
        assert_eq!(rig.broker.access.count_of_lines(), 0);
        let gone = act(&rig, remove("me")).await;
        assert_eq!(gone, Err(NotDone::Unknown("me".to_owned())));
    });
}

#[test]
fn kafkas_tools_set_passwords_that_they_have_salted() {
    with_secured_broker(&[], security().0, async |rig| {
        let admin = Rights {
            admin: true,
            ..Rights::default()
        };
        add(&rig, "ops", admin).await.unwrap();
        let mut ops = rig.connect();
        log_in(&mut ops, "ops", PASSWORD).await;
        let set = |name: &str, iterations: i32| {
            let salted = Scram::Sha256.salted(b"a password", b"salt", iterations.unsigned_abs());
            ScramCredentialUpsertion::default()
                .with_name(text(name))
                .with_mechanism(1)
                .with_iterations(iterations)
                .with_salt(Bytes::from_static(b"salt"))
                .with_salted_password(Bytes::copy_from_slice(&salted))
        };
        let missing = ScramCredentialDeletion::default()
            .with_name(text("ghost"))
            .with_mechanism(1);
        let wanted = [set("new", 4_096), set("weak", 4_095), set("a/b", 4_096)];
        let request = AlterUserScramCredentialsRequest::default()
            .with_upsertions(wanted.to_vec())
            .with_deletions(vec![missing]);
        let key = Key::AlterUserScramCredentials;
        let told: AlterUserScramCredentialsResponse = ops.ask(key, 0, &request).await;
        let mut told: Vec<_> = told
            .results
            .iter()
            .map(|one| (one.user.as_str(), one.error_code))
            .collect();
        told.sort_unstable();
        assert_eq!(told, [("a/b", 93), ("ghost", 91), ("new", 0), ("weak", 93)]);
        let mut new = rig.connect();
        assert_eq!(log_in(&mut new, "new", b"a password").await, 0);
        let request = DescribeUserScramCredentialsRequest::default().with_users(None);
        let key = Key::DescribeUserScramCredentials;
        let told: DescribeUserScramCredentialsResponse = ops.ask(key, 0, &request).await;
        let users: Vec<_> = told.results.iter().map(|one| one.user.as_str()).collect();
        assert_eq!(users, ["new", "ops"]);
        let told: DescribeUserScramCredentialsResponse = new.ask(key, 0, &request).await;
        assert_eq!(told.error_code, 31);
    });
}

#[test]
fn quotas_hold_from_when_they_are_set() {
    with_secured_broker(&[], security().0, async |rig| {
        let admin = Rights {
            admin: true,
            ..Rights::default()
        };
        add(&rig, "ops", admin).await.unwrap();
        let mut ops = rig.connect();
        log_in(&mut ops, "ops", PASSWORD).await;
        let user = EntityData::default()
            .with_entity_type(text("user"))
            .with_entity_name(Some(text("ANONYMOUS")));
        let set = |key: &str| OpData::default().with_key(text(key)).with_value(1_000.0);
        let entry = |key| {
            EntryData::default()
                .with_entity(vec![user.clone()])
                .with_ops(vec![set(key)])
        };
        let entries = vec![entry("consumer_byte_rate"), entry("request_percentage")];
        let request = AlterClientQuotasRequest::default().with_entries(entries);
        let told: AlterClientQuotasResponse = ops.ask(Key::AlterClientQuotas, 1, &request).await;
        let told: Vec<_> = told.entries.iter().map(|one| one.error_code).collect();
        assert_eq!(told, [0, 42]);
        let call = rig.call(4);
        assert_eq!(call.throttle(Flow::Fetch, 1_000), 0);
        let throttled_ms = call.throttle(Flow::Fetch, 1_000);
        assert!((1..=1_000).contains(&throttled_ms), "{throttled_ms}");
        let muted = rig.session.muted.take();
        assert_eq!(i32::try_from(muted.as_millis()).unwrap(), throttled_ms);
        assert_eq!(call.throttle(Flow::Produce, 1_000_000), 0);
        let request = DescribeClientQuotasRequest::default();
        let told: DescribeClientQuotasResponse =
            ops.ask(Key::DescribeClientQuotas, 1, &request).await;
        let entry = &told.entries.unwrap()[0];
        assert_eq!(entry.values[0].value, 1_000.0);
    });
}

#[test]
fn without_sasl_nobody_changes_what_others_may_do() {
    with_broker(&[], async |rig| {
        let mut client = rig.connect();
        assert_eq!(handshake(&mut client, 1, "PLAIN").await.error_code, 34);
        let create = CreateAclsRequest::default().with_creations(vec![creation("orders", 3)]);
        let made: CreateAclsResponse = client.ask(Key::CreateAcls, 2, &create).await;
        assert_eq!(made.results[0].error_code, 54);
        let set = ScramCredentialUpsertion::default()
            .with_name(text("me"))
            .with_mechanism(1);
        let request = AlterUserScramCredentialsRequest::default().with_upsertions(vec![set]);
        let told: AlterUserScramCredentialsResponse = client
            .ask(Key::AlterUserScramCredentials, 0, &request)
            .await;
        assert_eq!(told.results[0].error_code, 31);
        let user = EntityData::default().with_entity_type(text("user"));
        let op = OpData::default()
            .with_key(text("consumer_byte_rate"))
            .with_value(1.0);
        let entry = EntryData::default()
            .with_entity(vec![user])
            .with_ops(vec![op]);
        let request = AlterClientQuotasRequest::default().with_entries(vec![entry]);
        let told: AlterClientQuotasResponse = client.ask(Key::AlterClientQuotas, 1, &request).await;
        assert_eq!(told.entries[0].error_code, 31);
    });
}

#[test]
fn guesses_that_come_at_once_are_counted_as_those_that_do_not() {
    with_secured_broker(&[], security().0, async |rig| {
        add(&rig, "me", Rights::default()).await.unwrap();
        // One more is free, in the next seconds.
        let here = std::net::IpAddr::from([127, 0, 0, 1]);
        for _ in 1..super::sasl::failures::BURST {
            let now_ns = rig.broker.clock.monotonic_ns();
            rig.broker.access.failures.borrow_mut().note(here, now_ns);
        }
        let mut clients = Vec::new();
        for _ in 0..3 {
            let mut client = rig.connect();
            assert_eq!(handshake(&mut client, 1, "PLAIN").await.error_code, 0);
            clients.push(client);
        }
        let guess = |password: &[u8]| {
            let message = [b"\0me\0", password].concat();
            SaslAuthenticateRequest::default().with_auth_bytes(message.into())
        };
        let mut asked = Vec::new();
        for (nth, client) in clients.iter_mut().enumerate() {
            let is_last = nth == 2;
            let request = guess(if is_last { PASSWORD } else { b"wrong" });
            asked.push(client.send(Key::SaslAuthenticate, 2, &request).await);
        }
        for (mut client, correlation) in clients.into_iter().zip(asked) {
            let told: SaslAuthenticateResponse =
                client.receive(Key::SaslAuthenticate, 2, correlation).await;
            assert_eq!(told.error_code, 58);
        }
    });
}

#[test]
fn who_knows_its_password_logs_in_as_often_as_it_likes() {
    with_secured_broker(&[], security().0, async |rig| {
        add(&rig, "me", Rights::default()).await.unwrap();
        for _ in 0..15 {
            assert_eq!(log_in(&mut rig.connect(), "me", PASSWORD).await, 0);
        }
    });
}

#[test]
fn who_is_removed_comes_back_as_nobody() {
    with_secured_broker(&[], security().0, async |rig| {
        let admin = Rights {
            admin: true,
            ..Rights::default()
        };
        add(&rig, "ops", admin.clone()).await.unwrap();
        add(&rig, "gone", admin).await.unwrap();
        let mut ops = rig.connect();
        log_in(&mut ops, "ops", PASSWORD).await;
        let access = &rig.broker.access;
        for (mechanism, is_admin) in [(1, true), (2, false)] {
            let deletion = ScramCredentialDeletion::default()
                .with_name(text("gone"))
                .with_mechanism(mechanism);
            let request =
                AlterUserScramCredentialsRequest::default().with_deletions(vec![deletion]);
            let told: AlterUserScramCredentialsResponse =
                ops.ask(Key::AlterUserScramCredentials, 0, &request).await;
            assert_eq!(told.results[0].error_code, 0);
            assert_eq!(access.is_admin("gone"), is_admin);
        }
        assert!(!access.users().contains("gone"));
        add(&rig, "gone", Rights::default()).await.unwrap();
        // What an older version left is a user, to be removed before there is another of its name.
        let left = vec![("admin/left".to_owned(), Some(serde_json::json!({})))];
        access
            .change("test", &["User:left".to_owned()].into(), left)
            .await
            .unwrap();
        let added = add(&rig, "left", Rights::default()).await;
        assert_eq!(added, Err(NotDone::Exists("left".to_owned())));
        let remove = Act::Remove {
            name: "left".to_owned(),
        };
        act(&rig, remove).await.unwrap();
        assert!(!access.is_admin("left"));
    });
}
