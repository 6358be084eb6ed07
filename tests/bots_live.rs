//! Group F: bots are kept out, told, limited or verified as the policy says, and people are not.
//!
//! What the DNS says of an address is tested with the verifier: these tests ask nobody's name server.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
};

use support::{
    CLIENT, KEY, get,
    message::{self, Response},
    origin::Origin,
    rig,
    rig::Rig,
    time::{self, eventually},
    wardent::{OPEN_POLICY, Setup, Wardent, open_policy, write_private},
};

const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36";
const GPTBOT: &str = "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)";
const GOOGLEBOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
const STRIPE: &str = "Stripe/1.0 (+https://stripe.com/docs/webhooks)";
const LETS_ENCRYPT: &str =
    "Mozilla/5.0 (compatible; Let's Encrypt validation server; +https://www.letsencrypt.org)";

/// A request of a proven client at `ip`, with these lines and no other of its own.
fn request(target: &str, ip: &str, lines: &[u8]) -> Vec<u8> {
    let head = format!(
        "GET {target} HTTP/1.1\r\nHost: app.test\r\nCF-Connecting-IP: {ip}\r\nX-Wardent-Secret: {KEY}\r\n"
    );
    [head.as_bytes(), lines, b"\r\n"].concat()
}

/// A request to `/a` of the usual client, with this user agent.
fn from_agent(user_agent: impl AsRef<[u8]>) -> Vec<u8> {
    from(CLIENT, user_agent)
}

fn from(ip: &str, user_agent: impl AsRef<[u8]>) -> Vec<u8> {
    request("/a", ip, &agent(user_agent))
}

fn agent(user_agent: impl AsRef<[u8]>) -> Vec<u8> {
    [b"User-Agent: ", user_agent.as_ref(), b"\r\n"].concat()
}

/// [`OPEN_POLICY`] with these actions, and whatever else follows.
fn acting(actions: &str, rest: &str) -> String {
    open_policy(&[&format!("bots: {{{actions}}}")], rest)
}

fn reason(response: &Response) -> Option<&str> {
    response.header("x-wardent-reason")
}

#[test]
fn f01_neither_case_nor_blanks_hide_a_bot() {
    let rig = Rig::new();
    for user_agent in [
        "SQLMap/1.7",
        "sqlMAP/1.7",
        "\tSQLMAP\t1.7",
        "  sqlmap  ",
        "x  sqlmap/1.7#stable",
        "Screaming Frog SEO Spider/20",
        "screaming\tfrog  SEO \t Spider/20",
    ] {
        let sent = from_agent(user_agent);
        rig.refused_politely("F-01", &sent, &[403], "bot");
    }
    rig.passed("F-01 person", &from_agent(CHROME));
}

#[test]
fn f02_no_user_agent_and_an_empty_one_are_the_same_bot() {
    let missing: [&[u8]; 5] = [
        b"",
        b"User-Agent:\r\n",
        b"User-Agent: \r\n",
        b"User-Agent: \t \r\n",
        b"user-agent:\r\n",
    ];
    let passing = Rig::new();
    let routes = "routes:
  - {name: health, match: {path: /healthz}, bots: skip}
  - {name: stripe, match: {path: /webhooks/stripe}, bots: skip}
";
    let blocking = Rig::with(|setup| setup.policy(acting("unknown: block", routes)));
    for lines in missing {
        let shown = message::latin1(lines);
        let id = format!("F-02 {shown:?}");
        passing.passed(&id, &request("/a", CLIENT, lines));
        let sent = request("/a", CLIENT, lines);
        blocking.refused_politely(&id, &sent, &[403], "bot");
        for exempt in ["/healthz", "/webhooks/stripe"] {
            blocking.passed(&id, &request(exempt, CLIENT, lines));
        }
        // Nor by a detour.
        let sent = request("/x/../healthz", CLIENT, lines);
        blocking.refused_politely(&id, &sent, &[400], "bad_request");
    }
}

#[test]
fn f02_of_two_user_agents_the_one_that_says_bot_counts() {
    let rig = Rig::new();
    for (first, second) in [
        (GPTBOT, CHROME),
        (CHROME, GPTBOT),
        (GPTBOT, ""),
        ("", GPTBOT),
    ] {
        let lines = [agent(first), agent(second)].concat();
        let sent = request("/a", CLIENT, &lines);
        rig.refused_politely("F-02 two", &sent, &[403], "bot");
    }
    let two = request("/a", CLIENT, &[agent(CHROME), agent(CHROME)].concat());
    rig.passed("F-02 twice", &two);
    let blocking = Rig::with(|setup| setup.policy(acting("unknown: block", "")));
    blocking.refused_politely("F-02 twice, unknown: block", &two, &[403], "bot");
}

#[test]
fn f02_a_user_agent_of_8_kib_is_an_unknown_bot_and_reaches_the_application_whole() {
    let long = format!("{CHROME} {}", "x".repeat(8 * 1_024));
    let rig = Rig::new();
    let (seen, _) = rig.passed("F-02 long", &from_agent(&long));
    assert_eq!(seen.header("user-agent"), Some(long.as_str()));
    let listed = from_agent(format!("{GPTBOT} {long}"));
    rig.refused_politely("F-02 long bot", &listed, &[403], "bot");
    let blocking = Rig::with(|setup| setup.policy(acting("unknown: block", "")));
    blocking.refused_politely("F-02 long", &from_agent(&long), &[403], "bot");
}

#[test]
fn f02_bytes_that_are_no_text_hide_nothing() {
    let rig = Rig::new();
    let sent = from_agent(b"\xff\xfe GPTBot/1.2 \xc0\xaf");
    rig.refused_politely("F-02 bytes", &sent, &[403], "bot");
    let sent = from_agent([CHROME.as_bytes(), b" \xe9\xff"].concat());
    rig.passed("F-02 person's bytes", &sent);
}

/// A search engine that publishes its networks and nothing else, and one whose list nobody has.
const BOTS: &str =
    "search-engine\tGooglebot\tnetworks=google\nsearch-engine\tLostBot\tnetworks=lost\n";

/// [`BOTS`], and the networks as of today.
fn with_googlebot(setup: Setup, network: &str) -> Setup {
    setup
        .file("bots.tsv", BOTS)
        .file("networks.txt", networks(network))
        .top("bots: {catalogue: bots.tsv, networks: networks.txt}")
}

fn networks(network: &str) -> String {
    format!("[google]\nas-of {}\n{network}\n", time::today())
}

#[test]
fn f04_googlebot_is_who_comes_from_its_operators_network() {
    let policy = acting("unknown: block", "");
    let rig = Rig::with(|setup| with_googlebot(setup, "192.0.2.0/24").policy(policy));
    assert_eq!(rig.wardent.ask(from("192.0.2.7", GOOGLEBOT)).status, 200);
    rig.refused_politely("F-04", &from_agent(GOOGLEBOT), &[403], "bot");
    // A person in its network is a person, and whom the networks do not name is unknown.
    assert_eq!(rig.wardent.ask(from("192.0.2.7", CHROME)).status, 200);
    let other = rig.wardent.ask(from("192.0.2.7", "otherbot/1.0"));
    rig::assert_refusal("F-04 other", &other, &[403], "bot");
}

#[test]
fn f04_what_ships_knows_where_googlebot_lives() {
    let origin = Origin::echo();
    let policy = acting("unknown: block", "");
    let wardent = Wardent::setup(&origin).policy(policy).start();
    assert_eq!(wardent.ask(from("66.249.66.1", GOOGLEBOT)).status, 200);
}

#[test]
fn f04_an_address_that_nobody_vouches_for_makes_no_googlebot() {
    let routes = "routes:\n  - {name: open, match: {path: /open}, secret: skip}\n";
    let policy = acting("unknown: block", routes);
    let origin = Origin::echo();
    let wardent = with_googlebot(Wardent::setup(&origin), "192.0.2.0/24")
        .policy(policy)
        .start();
    let hearsay = message::latin1(&request("/open", "192.0.2.7", &agent(GOOGLEBOT)));
    let secret = format!("X-Wardent-Secret: {KEY}\r\n");
    assert_eq!(wardent.ask(&hearsay).status, 200);
    let unproven = wardent.ask(hearsay.replace(&secret, ""));
    rig::assert_refusal("F-04 hearsay", &unproven, &[403], "bot");
}

#[test]
fn stripe_and_lets_encrypt_pass() {
    let rig = Rig::new();
    rig.passed("Stripe", &from_agent(STRIPE));
    rig.passed("Let's Encrypt", &from_agent(LETS_ENCRYPT));
    let policy = acting("unknown: block, security-scanner: block", "");
    let blocking = Rig::with(|setup| setup.policy(policy));
    let challenge = "/.well-known/acme-challenge/evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
    let sent = request(challenge, CLIENT, &agent(LETS_ENCRYPT));
    blocking.passed("Let's Encrypt, kept out", &sent);
    let sent = from_agent(LETS_ENCRYPT);
    blocking.refused_politely("Let's Encrypt elsewhere", &sent, &[403], "bot");
    let sent = request(
        &format!("{challenge}/../../../a"),
        CLIENT,
        &agent(LETS_ENCRYPT),
    );
    blocking.refused_politely("a detour", &sent, &[403], "bot");
}

#[test]
fn a_bot_that_goes_on_is_banned_and_an_unproven_one_never() {
    let policy = "mode: enforce
bans: {threshold: 10, window: 60s, duration: 10m}
defaults:
  limit: {rate: 1000000/s, burst: 1000000}
routes:
  - {name: open, match: {path: /open}, secret: skip}
";
    let origin = Origin::echo();
    let wardent = Wardent::setup(&origin).policy(policy).start();
    let hearsay = message::latin1(&request("/open", "203.0.113.9", &agent(GPTBOT)));
    let hearsay = hearsay.replace(&format!("X-Wardent-Secret: {KEY}\r\n"), "");
    for _ in 0..20 {
        assert_eq!(reason(&wardent.ask(&hearsay)), Some("bot"));
    }
    // A bot is worth two points.
    for _ in 0..4 {
        assert_eq!(reason(&wardent.ask(from_agent(GPTBOT))), Some("bot"));
    }
    assert_eq!(wardent.ask(from_agent(CHROME)).status, 200);
    assert_eq!(reason(&wardent.ask(from_agent(GPTBOT))), Some("bot"));
    eventually("the bot's client is banned", || {
        reason(&wardent.ask(from_agent(CHROME))) == Some("banned")
    });
    // What was told before has been heard by now.
    let other = wardent.ask(from("203.0.113.9", CHROME));
    assert_eq!(other.status, 200);
}

#[test]
fn where_it_is_only_observed_a_bot_passes() {
    let policy = OPEN_POLICY.replace("mode: enforce", "mode: observe");
    let rig = Rig::with(|setup| setup.policy(policy));
    rig.passed("observed", &from_agent(GPTBOT));
    let metrics = metrics(&rig.wardent);
    assert!(
        metrics.contains("wardent_bots_total{category=\"ai-training\"} 1\n"),
        "{metrics}"
    );
}

/// What the admin listener says of the metrics.
fn metrics(wardent: &Wardent) -> String {
    let host = wardent.admin();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(time::PATIENCE)).unwrap();
    let ask = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

#[test]
fn a_tag_reaches_the_application_and_only_wardent_writes_it() {
    let origin = Origin::echo();
    let actions = "ai-training: tag, search-engine: tag, unknown: tag";
    let policy = acting(actions, "");
    let wardent = Wardent::setup(&origin).policy(policy).start();
    const FORGED: &str = "X-Wardent-Bot: \"GPTBot\";category=seo;verified\r\nx-wardent-bot: \"a\"\r\nConnection: x-wardent-bot\r\n";
    let rows: [(&[u8], Option<&str>); 5] = [
        (GPTBOT.as_bytes(), Some("\"GPTBot\";category=ai-training")),
        (
            GOOGLEBOT.as_bytes(),
            Some("\"Googlebot\";category=search-engine"),
        ),
        (b"", Some("\"no user agent\";category=unknown")),
        (
            b"\";verified \xff zibble\"bot",
            Some("\"bot\";category=unknown"),
        ),
        (CHROME.as_bytes(), None),
    ];
    for (user_agent, tag) in rows {
        let lines = [&agent(user_agent), FORGED.as_bytes()].concat();
        let mark = origin.mark();
        let response = wardent.ask(request("/a", CLIENT, &lines));
        assert_eq!(response.status, 200, "{tag:?}");
        let seen = &origin.requests_since(&mark)[0];
        assert_eq!(seen.header("x-wardent-bot"), tag);
    }
}

#[test]
fn a_bot_that_is_limited_is_one_client_from_however_many_addresses() {
    let policy = "mode: enforce
bans: {threshold: 1}
defaults:
  limit: {rate: 1/h, burst: 3}
  bots: {seo: limit}
";
    let origin = Origin::echo();
    let wardent = Wardent::setup(&origin).policy(policy).start();
    let bot = "AhrefsBot/7.0; +http://ahrefs.com/robot/";
    for ip in ["198.51.100.1", "198.51.100.2", "2001:db8::3"] {
        assert_eq!(wardent.ask(from(ip, bot)).status, 200, "{ip}");
    }
    for ip in ["198.51.100.1", "198.51.100.4", "2001:db8::5"] {
        let refused = wardent.ask(from(ip, bot));
        rig::assert_refusal(ip, &refused, &[429], "rate_limited");
    }
    // A person at any of these addresses has a limit of its own, and another bot one of its own.
    assert_eq!(wardent.ask(from("198.51.100.4", CHROME)).status, 200);
    assert_eq!(
        wardent.ask(from("198.51.100.4", "SemrushBot/7")).status,
        200
    );
    let said = explain(&wardent, "/a", &["--ip", "192.0.2.1", "--user-agent", bot]);
    assert!(said.contains("limit defaults: 0 of 3 left"), "{said}");
}

/// What `wardent explain` says of a request to this path.
fn explain(wardent: &Wardent, path: &str, arguments: &[&str]) -> String {
    let done = Command::new(env!("CARGO_BIN_EXE_wardent"))
        .args(["explain", "--path", path, "--config"])
        .arg(wardent.dir().join("wardent.yaml"))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}{complaint}");
    said
}

#[test]
fn explain_tells_the_bot() {
    let rig = Rig::with(|setup| with_googlebot(setup, "192.0.2.0/24"));
    let asked = |ip: &str, user_agent: &str| {
        explain(
            &rig.wardent,
            "/a",
            &["--ip", ip, "--user-agent", user_agent],
        )
    };
    for (ip, user_agent, expected) in [
        (
            "192.0.2.7",
            GOOGLEBOT,
            "Googlebot, search-engine: verify, verified",
        ),
        (
            CLIENT,
            GOOGLEBOT,
            "Googlebot, search-engine: verify, an impostor",
        ),
        (
            CLIENT,
            "LostBot/1",
            "LostBot, search-engine: verify, not provable now; here: allow",
        ),
        (CLIENT, "somegpt crawler", "somegpt, ai-training: block"),
        (CLIENT, CHROME, "may be a person"),
    ] {
        let said = asked(ip, user_agent);
        assert!(said.contains(expected), "{ip} {user_agent}: {said}");
    }
    let challenge = "/.well-known/acme-challenge/a";
    let arguments = ["--ip", CLIENT, "--user-agent", GOOGLEBOT];
    let said = explain(&rig.wardent, challenge, &arguments);
    let expected = "verify, an impostor; here: allow";
    assert!(said.contains(expected), "{said}");
    assert!(said.starts_with("passed on to the application"), "{said}");
    let said = asked(CLIENT, GOOGLEBOT);
    assert!(
        said.starts_with("refused with 403 bot: an impostor"),
        "{said}"
    );
    assert!(
        said.contains("held against the client: 2 points for bot"),
        "{said}"
    );
}

#[test]
fn a_reload_puts_another_catalogue_in_force_whole_or_not_at_all() {
    let rig = Rig::with(|setup| with_googlebot(setup, "192.0.2.0/24"));
    let wardent = &rig.wardent;
    let put = |name: &str, text: &str| write_private(&wardent.dir().join(name), text.as_bytes());
    let is_kept_out = |ip: &str, user_agent: &str| wardent.ask(from(ip, user_agent)).status == 403;
    for _ in 0..2 {
        assert!(!is_kept_out(CLIENT, "Zibble/1.0"));
    }
    put(
        "bots.tsv",
        "seo\tZibble\nsearch-engine\tGooglebot\tnetworks=google\n",
    );
    assert_eq!(wardent.reload(), Ok(()));
    assert!(is_kept_out(CLIENT, "Zibble/1.0"));
    assert!(!is_kept_out(CLIENT, CHROME));

    // The networks are right, the catalogue is not: neither comes into force.
    put("bots.tsv", "seo\tOther\nseos\tZibble\n");
    put("networks.txt", &networks("203.0.113.0/24"));
    let complaint = wardent.reload().unwrap_err();
    let path = wardent.dir().join("bots.tsv");
    let expected = format!("{}:2:1: \"seos\" is no category", path.display());
    assert!(complaint.contains(&expected), "{complaint}");
    assert!(is_kept_out(CLIENT, "Zibble/1.0"));
    assert!(is_kept_out("203.0.113.7", GOOGLEBOT));
    assert!(!is_kept_out("192.0.2.7", GOOGLEBOT));

    fs::remove_file(&path).unwrap();
    let complaint = wardent.reload().unwrap_err();
    assert!(
        complaint.contains("bots.tsv:1:1: cannot be read"),
        "{complaint}"
    );
    assert!(is_kept_out(CLIENT, "Zibble/1.0"));

    put("bots.tsv", "search-engine\tGooglebot\tnetworks=google\n");
    assert_eq!(wardent.reload(), Ok(()));
    assert!(!is_kept_out(CLIENT, "Zibble/1.0"));
    assert!(!is_kept_out("203.0.113.7", GOOGLEBOT));
    assert!(is_kept_out("192.0.2.7", GOOGLEBOT));
}

#[test]
fn a_list_of_networks_that_shrinks_beyond_belief_stays() {
    let five = "192.0.2.1\n192.0.2.2\n192.0.2.3\n192.0.2.4\n192.0.2.5";
    let rig = Rig::with(|setup| with_googlebot(setup, five));
    let path = rig.wardent.dir().join("networks.txt");
    write_private(&path, networks("203.0.113.0/24").as_bytes());
    assert_eq!(rig.wardent.reload(), Ok(()));
    assert_eq!(rig.wardent.ask(from("192.0.2.5", GOOGLEBOT)).status, 200);
    let other = rig.wardent.ask(from("203.0.113.7", GOOGLEBOT));
    rig::assert_refusal("shrunk", &other, &[403], "bot");
}

#[test]
fn f07_a_trap_is_one_however_its_path_is_written() {
    let policy = open_policy(
        &[],
        "routes:\n  - {name: trap, match: {path: [/wp-login.php, /wp-login.php/]}, trap: true}\n",
    );
    let rig = Rig::with(|setup| setup.policy(policy));
    for target in [
        "/wp-login.php",
        "/wp-login.php/",
        "/%77p-login.php",
        "//wp-login.php",
        "/wp-login.php?x",
        "/x/../wp-login.php",
    ] {
        let sent = get(target);
        rig.refused_politely("F-07", sent.as_bytes(), &[403], "trap");
    }
    rig.passed("F-07 other", get("/wp-login.php5").as_bytes());
}

#[test]
fn f08_the_method_is_that_of_the_request_line() {
    let routes = "routes:\n  - {name: no, match: {path: /a, methods: [DELETE]}, trap: true}\n";
    let rig = Rig::with(|setup| setup.policy(open_policy(&[], routes)));
    let overriding =
        "X-HTTP-Method-Override: DELETE\r\nX-Method-Override: DELETE\r\nX-HTTP-Method: DELETE\r\n";
    for method in ["PROPFIND", "POST", "GET", "delete"] {
        let sent = format!("{method} /a HTTP/1.1\r\n{{P}}{overriding}\r\n");
        let (seen, _) = rig.passed("F-08", sent.as_bytes());
        assert_eq!(seen.head.method, method);
        assert_eq!(seen.header("x-http-method-override"), Some("DELETE"));
    }
    let sent = "DELETE /a HTTP/1.1\r\n{P}X-HTTP-Method-Override: GET\r\n\r\n";
    rig.refused_politely("F-08 itself", sent.as_bytes(), &[403], "trap");
    for method in ["TRACE", "CONNECT"] {
        let sent = format!("{method} /a HTTP/1.1\r\n{{P}}\r\n");
        rig.refused("F-08", sent.as_bytes(), &[405], "bad_request");
    }
}
