//! The drafts' own vectors, and what must not pass.

use ed25519_dalek::{Signer as _, SigningKey};

use super::*;

/// `test-key-ed25519` of RFC 9421 appendix B.1.4.
const PUBLIC: &str = "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs";
const PRIVATE: &str = "n4Ni-HpISpVObnQMW0wOhCKROaIKqKtW_2ZYb2p9KcU";
const KEY_ID: &str = "poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";

const ORIGIN: &str = "https://signature-agent.test";
const CREATED: u64 = 1_735_689_600;

/// draft-meunier-web-bot-auth-architecture-05 appendix A.2.3: the agent is one string.
const STRING_INPUT: &str = r#"sig2=("@authority" "signature-agent");created=1735689600;keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";alg="ed25519";expires=1735693200;nonce="e8N7S2MFd/qrd6T2R3tdfAuuANngKI7LFtKYI/vowzk4lAZYadIX6wW25MwG7DCT9RUKAJ0qVkU0mEeLElW1qg==";tag="web-bot-auth""#;
const STRING_SIGNATURE: &str = "sig2=:jdq0SqOwHdyHr9+r5jw3iYZH6aNGKijYp/EstF4RQTQdi5N5YYKrD+mCT1HA1nZDsi6nJKuHxUi/5Syp3rLWBA==:";

/// The same draft's vector of version 2: the agent is a dictionary. It holds for a century.
const DICTIONARY_INPUT: &str = r#"sig2=("@authority" "signature-agent";key="agent2");created=1735689600;keyid="poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U";alg="ed25519";expires=4889289600;nonce="n9p433xm+NJ3ph3upfBIGmsuwHw387YV7Q/F+6BSpGCVjYCqQw6rznNA8PVVLySrAWsv0hQtFioQb6E1YsauiA==";tag="web-bot-auth""#;
const DICTIONARY_SIGNATURE: &str = "sig2=:RdNFx5Bj6au3YgAMQL/RzmUlZE8QZLIaXGRpw985hWnwPfMxT228NMk6ehRS1PSl4e8PhbNZACSanGdhEwYCCg==:";

fn keys() -> Keys {
    let directory = format!(
        r#"{{"keys":[{{"kty":"RSA","n":"x","e":"AQAB"}},
                     {{"kty":"OKP","crv":"Ed25519","kid":"ignored","x":"{PUBLIC}","use":"sig"}}]}}"#
    );
    let mut keys = Keys::default();
    assert_eq!(keys.add(ORIGIN, &directory), Ok(1));
    keys
}

fn legacy() -> Signed<'static> {
    Signed {
        method: "GET",
        authority: "example.com",
        target: "/path/to/resource",
        agent: Some(r#""https://signature-agent.test""#),
        input: STRING_INPUT,
        signature: STRING_SIGNATURE,
    }
}

/// A request signed here and now, about these components, with these parameters after the usual ones.
fn signed(
    components: &str,
    agent: Option<&str>,
    values: &[&str],
    more: &str,
) -> Result<String, Unproven> {
    let params = format!(
        r#"({components});created={CREATED};expires={};keyid="{KEY_ID}";tag="web-bot-auth"{more}"#,
        CREATED + 600
    );
    let names = components.split(' ').filter(|name| !name.is_empty());
    let mut base: String = names
        .zip(values)
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect();
    base.push_str(&format!("\"@signature-params\": {params}"));
    let secret = BASE64URL_NOPAD.decode(PRIVATE.as_bytes()).unwrap();
    let key = SigningKey::from_bytes(&secret.try_into().unwrap());
    let signature = BASE64.encode(&key.sign(base.as_bytes()).to_bytes());
    let request = Signed {
        method: "POST",
        authority: "Example.com:443",
        target: "/path?a=1&b",
        agent,
        input: &format!("other=();tag=\"x\", sig=\t{params}").replace('\t', ""),
        signature: &format!("other=:AA==:,sig=:{signature}:"),
    };
    keys().signer(&request, CREATED).map(ToOwned::to_owned)
}

#[test]
fn the_older_drafts_vector_is_proven() {
    assert_eq!(keys().signer(&legacy(), CREATED + 1), Ok(ORIGIN));
}

#[test]
fn the_newer_drafts_vector_is_proven_and_refused_for_its_century() {
    let request = Signed {
        agent: Some(r#"agent2="https://signature-agent.test""#),
        input: DICTIONARY_INPUT,
        signature: DICTIONARY_SIGNATURE,
        ..legacy()
    };
    let keys = keys();
    let input = fields::web_bot_auth(request.input).unwrap();
    let key = &keys.0[input.key_id];
    assert_eq!(verify(key, &input, &request), Ok(()));
    assert_eq!(keys.signer(&request, CREATED + 1), Err(Unproven::Expired));
}

#[test]
fn every_part_of_a_request_that_signers_use_can_be_covered() {
    let agent = r#""https://signature-agent.test""#;
    let proven = signed(
        r#""@method" "@authority" "@path" "@query" "signature-agent""#,
        Some(agent),
        &["POST", "example.com", "/path", "?a=1&b", agent],
        "",
    );
    assert_eq!(proven.as_deref(), Ok(ORIGIN));
    // A key alone says whose it is.
    let bare = signed(
        r#""@authority""#,
        None,
        &["example.com"],
        ";alg=\"ed25519\"",
    );
    assert_eq!(bare.as_deref(), Ok(ORIGIN));
}

#[test]
fn a_dictionary_may_name_several_agents_and_the_covered_one_counts() {
    let agents = r#"a="https://elsewhere.test", b="https://signature-agent.test";x=1"#;
    let covered = |key: &str, value: &str| {
        let components = format!(r#""@authority" "signature-agent";key="{key}""#);
        signed(&components, Some(agents), &["example.com", value], "")
    };
    let own = covered("b", r#""https://signature-agent.test";x=1"#);
    assert_eq!(own.as_deref(), Ok(ORIGIN));
    let other = covered("a", r#""https://elsewhere.test""#);
    assert_eq!(other, Err(Unproven::OtherAgent));
    assert_eq!(covered("c", ""), Err(Unproven::Unreadable));
}

#[test]
fn nothing_else_of_the_request_may_have_changed() {
    let other_host = Signed {
        authority: "other.example",
        ..legacy()
    };
    let other_agent = Signed {
        agent: Some(r#""https://chatgpt.com""#),
        ..legacy()
    };
    let other_signature = Signed {
        signature: DICTIONARY_SIGNATURE,
        ..legacy()
    };
    let keys = keys();
    let signer = |request| keys.signer(&request, CREATED + 1);
    assert_eq!(signer(other_host), Err(Unproven::Wrong));
    assert_eq!(signer(other_agent), Err(Unproven::OtherAgent));
    assert_eq!(signer(other_signature), Err(Unproven::Wrong));
}

#[test]
fn a_signature_holds_from_its_first_to_its_last_second() {
    let keys = keys();
    let at = |unix_s| keys.signer(&legacy(), unix_s);
    assert_eq!(at(CREATED - AHEAD_MAX_S), Ok(ORIGIN));
    assert_eq!(at(CREATED - AHEAD_MAX_S - 1), Err(Unproven::Expired));
    assert_eq!(at(CREATED + 3_599), Ok(ORIGIN));
    assert_eq!(at(CREATED + 3_600), Err(Unproven::Expired));
}

#[test]
fn what_must_be_covered_is() {
    let agent = r#""https://signature-agent.test""#;
    assert_eq!(
        signed(r#""@path""#, None, &["/path"], ""),
        Err(Unproven::Uncovered)
    );
    assert_eq!(
        signed(r#""@authority""#, Some(agent), &["example.com"], ""),
        Err(Unproven::Uncovered)
    );
    assert_eq!(
        signed(r#""@authority" "cookie""#, None, &["example.com", ""], ""),
        Err(Unproven::Uncovered)
    );
    assert_eq!(
        signed(r#""@authority";key="x""#, None, &["example.com"], ""),
        Err(Unproven::Uncovered)
    );
}

#[test]
fn what_cannot_be_read_proves_nothing() {
    let keys = keys();
    for input in [
        "",
        "sig",
        "sig=",
        "sig=(",
        r#"sig=("@authority")"#,
        r#"sig=("@authority");tag="web-bot-auth""#,
        r#"sig=("@authority" "@authority");created=1;expires=2;keyid="x";tag="web-bot-auth""#,
        r#"sig=("@authority";req);created=1;expires=2;keyid="x";tag="web-bot-auth""#,
        r#"sig=("@authority");created=1;expires=2;keyid="x";alg="rsa";tag="web-bot-auth""#,
        r#"sig=("@authority");created=-1;expires=2;keyid="x";tag="web-bot-auth""#,
        r#"sig=("@auth\"ority");created=1;expires=2;keyid="x";tag="web-bot-auth""#,
        r#"sig=("@authority");created=1;expires=2;keyid="x";tag="something-else""#,
        &format!("{STRING_INPUT}{}", " ".repeat(FIELD_MAX)),
    ] {
        let request = Signed { input, ..legacy() };
        let found = keys.signer(&request, CREATED + 1);
        assert_eq!(found, Err(Unproven::Unreadable), "{input}");
    }
    for signature in [
        "",
        "sig2=",
        "sig2=:!:",
        "sig2=:AAAA:",
        "sig3=:AAAA:",
        "sig2=\"x\"",
    ] {
        let request = Signed {
            signature,
            ..legacy()
        };
        let found = keys.signer(&request, CREATED + 1);
        assert_eq!(found, Err(Unproven::Unreadable), "{signature}");
    }
}

#[test]
fn a_key_nobody_configured_is_unknown() {
    let found = Keys::default().signer(&legacy(), CREATED + 1).map(|_| ());
    assert_eq!(found, Err(Unproven::UnknownKey));
}

#[test]
fn a_directory_that_cannot_be_used_says_why() {
    let mut keys = Keys::default();
    let mut add = |origin: &str, directory: &str| keys.add(origin, directory).unwrap_err();
    let fine = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{PUBLIC}"}}]}}"#);
    for origin in [
        "",
        "http://a.test",
        "https://",
        "https://a.test/",
        "https://a b",
    ] {
        assert_eq!(add(origin, &fine), KeysError::Origin(origin.to_owned()));
    }
    assert!(matches!(add(ORIGIN, "{}"), KeysError::Json(1, _)));
    assert_eq!(add(ORIGIN, r#"{"keys":[]}"#), KeysError::NoKey);
    let bad = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AAAA"}]}"#;
    assert_eq!(add(ORIGIN, bad), KeysError::BadKey("AAAA".to_owned()));
    assert!(keys.is_empty());
}

proptest::proptest! {
    #[test]
    fn any_fields_are_read_without_harm(input: String, signature: String, agent: Option<String>) {
        let request = Signed {
            agent: agent.as_deref(),
            input: &input,
            signature: &signature,
            ..legacy()
        };
        proptest::prop_assert!(keys().signer(&request, CREATED).is_err());
    }
}
