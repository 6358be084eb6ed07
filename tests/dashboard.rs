//! The dashboard: pages that are whole without scripts, acts that only forms of their own session do, and JSON
//! twins of all of them.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{fs, time::Duration};

use serde_json::Value;
use support::{client::RawClient, message::Response, rig::Rig, time::eventually, wardent::Wardent};
use wardent::base::net::Address;

/// All pages that need no name.
const PAGES: [&str; 9] = [
    "/",
    "/clients",
    "/clients?by=path&window=5m",
    "/bans",
    "/policy",
    "/bots",
    "/log",
    "/health",
    "/login",
];

/// Asks the admin listener, with further header lines.
fn ask(wardent: &Wardent, method: &str, target: &str, lines: &str, body: &str) -> Response {
    let length = body.len();
    RawClient::connect(&Address::Tcp(wardent.admin())).ask(format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{lines}\r\n{body}"
    ))
}

fn page(wardent: &Wardent, target: &str, lines: &str) -> String {
    let answer = ask(wardent, "GET", target, lines, "");
    assert_eq!(answer.status, 200, "{target}: {answer:?}");
    String::from_utf8(answer.body).unwrap()
}

fn token(wardent: &Wardent) -> String {
    let text = fs::read_to_string(wardent.dir().join("admin.token")).unwrap();
    text.trim().to_owned()
}

/// What a form carries that a page of this listener sends.
const ORIGIN: &str = "Origin: http://localhost\r\n";

/// A session: the line that names it, and what its forms carry.
struct Session {
    cookie: String,
    form: String,
}

impl Session {
    fn begin(wardent: &Wardent) -> Self {
        let body = format!("token={}&back=/bans", token(wardent));
        let answer = ask(wardent, "POST", "/login", ORIGIN, &body);
        assert_eq!(answer.status, 303, "{answer:?}");
        assert_eq!(answer.header("location"), Some("/bans"));
        let set = answer.header("set-cookie").unwrap();
        assert!(set.contains("; HttpOnly; SameSite=Strict"), "{set}");
        let cookie = format!("Cookie: {}\r\n", set.split(';').next().unwrap());
        let bans = page(wardent, "/bans", &cookie);
        let (_, rest) = bans.split_once("name=\"form\" value=\"").unwrap();
        let form = rest.split('"').next().unwrap().to_owned();
        Self { cookie, form }
    }

    /// Sends a form, and gives the page it leads to.
    fn act(&self, wardent: &Wardent, path: &str, fields: &str) -> String {
        let lines = format!("{ORIGIN}{}", self.cookie);
        let body = format!("form={}&{fields}", self.form);
        let answer = ask(wardent, "POST", path, &lines, &body);
        assert_eq!(answer.status, 303, "{path} {fields}: {answer:?}");
        page(wardent, answer.header("location").unwrap(), &self.cookie)
    }
}

#[test]
fn every_page_is_whole_without_scripts_and_may_load_nothing_from_elsewhere() {
    let rig = Rig::new();
    rig.wardent.get("/");
    for target in PAGES
        .iter()
        .chain(&["/client/198.51.100.7", "/client/203.0.113.0/24"])
    {
        let answer = ask(&rig.wardent, "GET", target, "", "");
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        let policy = answer.header("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "style-src 'self'",
            "script-src 'self'",
            "connect-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let text = String::from_utf8(answer.body).unwrap();
        assert!(text.contains("<h1>"), "{target}: {text}");
        assert!(text.len() < 100 * 1024, "{target}: {} bytes", text.len());
        for other in ["http://", "https://", "style=\"", "<style", "onclick"] {
            let shown = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!shown.contains(other), "{target}: {other} in {shown}");
        }
        for found in text
            .split("href=\"")
            .skip(1)
            .chain(text.split("src=\"").skip(1))
        {
            assert!(found.starts_with(['/', '#']), "{target} leads to {found}");
        }
    }
    for asset in [
        "/static/wardent.css",
        "/static/wardent.js",
        "/static/wardent.svg",
    ] {
        let answer = ask(&rig.wardent, "GET", &format!("{asset}?v=1"), "", "");
        assert_eq!(answer.status, 200, "{asset}");
    }
    for none in [
        "/static/x",
        "/request/00000000000000000000000000",
        "/client/x",
        "/bans?after=x",
    ] {
        let answer = ask(&rig.wardent, "GET", none, "", "");
        assert!((400..500).contains(&answer.status), "{none}: {answer:?}");
    }
}

#[test]
fn who_logs_in_bans_and_unbans_with_grace_and_the_audit_says_who() {
    let rig = Rig::new();
    let wardent = &rig.wardent;
    let session = Session::begin(wardent);
    let said = session.act(
        wardent,
        "/act/ban",
        "target=203.0.113.9&for=1h&why=a+%3Cb%3Etest&back=/bans",
    );
    assert!(said.contains("203.0.113.9 is banned until"), "{said}");
    assert!(said.contains("a &lt;b&gt;test"), "{said}");
    assert!(!said.contains("<b>test"), "{said}");
    let bans = wardent.bans();
    assert_eq!((bans.len(), &bans[0]["by"]), (1, &Value::from("token")));
    let client = page(wardent, "/client/203.0.113.9", &session.cookie);
    assert!(client.contains("/act/unban"), "{client}");
    // What was said is said once.
    assert!(!page(wardent, "/bans", &session.cookie).contains("is banned until"));
    let said = session.act(
        wardent,
        "/act/unban",
        "target=203.0.113.9&grace=10m&back=/client/203.0.113.9",
    );
    assert!(said.contains("is not banned any more"), "{said}");
    assert!(wardent.bans().is_empty());
    let wide = session.act(wardent, "/act/ban", "target=0.0.0.0/0&for=1h&back=/bans");
    assert!(
        wide.contains("role=\"alert\"") && wide.contains("force"),
        "{wide}"
    );
    let own = session.act(wardent, "/act/ban", "target=127.0.0.1&for=1h&back=/bans");
    assert!(own.contains("it is loopback"), "{own}");
    assert!(wardent.bans().is_empty());
    let (_, audit) = wardent.act("GET", "/api/v1/events?topic=audit&client=203.0.113.9", "");
    let told: Vec<_> = audit["events"].as_array().unwrap().iter().collect();
    assert_eq!(told.len(), 2, "{audit}");
    assert!(
        told.iter().all(|event| event["actor"] == "token"),
        "{audit}"
    );
}

#[test]
fn a_form_that_is_not_of_its_session_and_its_page_does_nothing() {
    let rig = Rig::new();
    let wardent = &rig.wardent;
    let session = Session::begin(wardent);
    let Session { cookie, form } = &session;
    let wanted = "target=203.0.113.9&for=1h&back=/bans";
    let with = format!("form={form}&{wanted}");
    let other = Session::begin(wardent);
    for (what, lines, body, status) in [
        ("no origin", cookie.clone(), with.clone(), 403),
        (
            "another's origin",
            format!("Origin: http://evil.test\r\n{cookie}"),
            with.clone(),
            403,
        ),
        (
            "a null origin",
            format!("Origin: null\r\n{cookie}"),
            with.clone(),
            403,
        ),
        (
            "another port",
            format!("Origin: http://localhost:1\r\n{cookie}"),
            with.clone(),
            403,
        ),
        ("no session", ORIGIN.to_owned(), with.clone(), 303),
        (
            "no secret",
            format!("{ORIGIN}{cookie}"),
            wanted.to_owned(),
            403,
        ),
        (
            "another session's secret",
            format!("{ORIGIN}{cookie}"),
            format!("form={}&{wanted}", other.form),
            403,
        ),
    ] {
        let answer = ask(wardent, "POST", "/act/ban", &lines, &body);
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        if status == 303 {
            assert_eq!(answer.header("location"), Some("/login?back=/bans"));
        }
    }
    // A cookie does nothing for the API, where no form is asked for.
    let json = r#"{"target": "203.0.113.9", "for": "1h"}"#;
    let answer = ask(
        wardent,
        "POST",
        "/api/v1/bans",
        &format!("{ORIGIN}{cookie}"),
        json,
    );
    assert_eq!(answer.status, 401, "{answer:?}");
    assert!(wardent.bans().is_empty());
    let lines = format!("{ORIGIN}{cookie}");
    let out = ask(
        wardent,
        "POST",
        "/act/logout",
        &lines,
        &format!("form={form}"),
    );
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert!(page(wardent, "/bans", cookie).contains("Log in"));
    let answer = ask(wardent, "POST", "/act/ban", &lines, &with);
    assert_eq!(answer.header("location"), Some("/login?back=/bans"));
    assert!(wardent.bans().is_empty());
}

#[test]
fn no_token_but_the_right_one_opens_a_session() {
    let rig = Rig::new();
    let token = token(&rig.wardent);
    for (lines, body, status) in [
        (ORIGIN, "token=".to_owned(), 401),
        (ORIGIN, "token=x".to_owned(), 401),
        (ORIGIN, format!("token={token}0"), 401),
        ("", format!("token={token}"), 403),
        (
            "Origin: http://evil.test\r\n",
            format!("token={token}"),
            403,
        ),
    ] {
        let answer = ask(&rig.wardent, "POST", "/login", lines, &body);
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert!(answer.header("set-cookie").is_none(), "{answer:?}");
    }
    let elsewhere = ask(
        &rig.wardent,
        "POST",
        "/login",
        ORIGIN,
        &format!("token={token}&back=//evil.test"),
    );
    assert_eq!(elsewhere.header("location"), Some("/"));
    let rebound = RawClient::connect(&Address::Tcp(rig.wardent.admin()))
        .ask("GET / HTTP/1.1\r\nHost: rebind.evil.test:9901\r\n\r\n");
    assert_eq!(rebound.status, 421);
}

#[test]
fn what_a_client_wrote_stays_text_on_every_page() {
    let hostile = "<img src=x onerror=alert(1)>";
    let rig = Rig::new();
    let answer = rig.wardent.ask(format!(
        "GET /a%3Cscript%3E HTTP/1.1\r\nHost: h\r\nX-Wardent-Secret: {}\r\nCF-Connecting-IP: 198.51.100.7\r\nUser-Agent: {hostile}\r\n\r\n",
        support::KEY
    ));
    let id = answer.header("x-request-id").unwrap().to_owned();
    let shows = |target: &str| {
        let text = page(&rig.wardent, target, "");
        assert!(!text.contains("<img"), "{text}");
        assert!(!text.contains("<script>"), "{text}");
        text.contains("&lt;img src=x onerror=alert(1)&gt;")
    };
    eventually("the event is in the log", || {
        let answer = ask(&rig.wardent, "GET", &format!("/request/{id}"), "", "");
        answer.status == 200
    });
    assert!(shows(&format!("/request/{id}")));
    assert!(shows("/client/198.51.100.7"));
    let found = ask(&rig.wardent, "GET", "/find?q=%3Cscript%3E", "", "");
    assert_eq!(found.header("location"), Some("/request/%3Cscript%3E"));
    let lost = ask(&rig.wardent, "GET", "/request/%3Cscript%3E", "", "");
    assert!(!String::from_utf8(lost.body).unwrap().contains("<script>"));
}

const ROUTES: &str =
    "# kept\nmode: observe # for now\nroutes:\n  - name: shop\n    match: {path: /shop/} # kept\n";

#[test]
fn a_route_is_switched_by_an_edit_of_the_file_that_keeps_all_else() {
    let rig = Rig::with(|setup| setup.policy(ROUTES));
    let wardent = &rig.wardent;
    let session = Session::begin(wardent);
    assert!(page(wardent, "/policy", "").contains("nothing is enforced yet"));
    let said = session.act(wardent, "/act/mode", "route=shop&mode=enforce&back=/policy");
    assert!(
        said.contains("shop: enforce") && said.contains("policy 2 is in force"),
        "{said}"
    );
    let file = || fs::read_to_string(wardent.dir().join("policy.yaml")).unwrap();
    assert_eq!(
        file(),
        ROUTES.replace("- name: shop\n", "- name: shop\n    mode: enforce\n")
    );
    let token = token(wardent);
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let all = ask(
        wardent,
        "POST",
        "/api/v1/policy/mode",
        &bearer,
        r#"{"mode": "enforce"}"#,
    );
    assert_eq!(all.status, 200, "{all:?}");
    assert!(file().contains("mode: enforce # for now"), "{}", file());
    let (_, policy) = wardent.ask_listener("GET", "/api/v1/policy", "");
    let routes = policy["routes"].as_array().unwrap();
    assert!(
        routes.iter().all(|route| route["mode"] == "enforce"),
        "{policy}"
    );
    assert_eq!(policy["policy"], 3);
    let open = ask(
        wardent,
        "POST",
        "/api/v1/policy/mode",
        "",
        r#"{"mode": "observe"}"#,
    );
    assert_eq!(open.status, 401);
    let none = ask(
        wardent,
        "POST",
        "/api/v1/policy/mode",
        &bearer,
        r#"{"route": "x", "mode": "observe"}"#,
    );
    assert_eq!(none.status, 409, "{none:?}");
    eventually("the audit tells both", || {
        let (_, audit) = wardent.act("GET", "/api/v1/events?topic=audit&limit=2", "");
        let why = |nth: usize| {
            audit["events"][nth]["why"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        why(0).starts_with("all routes without a mode of their own: enforce")
            && why(1).starts_with("shop: enforce")
            && audit["events"][0]["actor"] == "token"
            && audit["events"][1]["actor"] == "token"
    });
}

#[test]
fn a_refused_file_is_told_with_its_line() {
    let rig = Rig::with(|setup| setup.policy(ROUTES));
    rig.wardent
        .write_policy("mode: observe\nroutes: [{nam: x}]\n");
    eventually("the refusal is told", || {
        let (_, policy) = rig.wardent.ask_listener("GET", "/api/v1/policy", "");
        policy["refused"]
            .as_str()
            .is_some_and(|why| why.contains("policy.yaml:2:"))
    });
    let shown = page(&rig.wardent, "/policy", "");
    assert!(
        shown.contains("The file was refused") && shown.contains("policy.yaml:2:"),
        "{shown}"
    );
    assert!(page(&rig.wardent, "/", "").contains("the policy file was refused"));
}

#[test]
fn parts_that_change_come_as_events_and_programs_are_told_as_json() {
    let rig = Rig::new();
    let wardent = &rig.wardent;
    let mut live = RawClient::connect(&Address::Tcp(wardent.admin()));
    live.patience(Duration::from_secs(20));
    live.send("GET /live?page=/bans HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = live.response_head();
    assert_eq!(head.status, 200);
    let mut heard = String::new();
    let mut hear = |wanted: &str| {
        while !heard.contains(wanted) {
            heard.push_str(&String::from_utf8(live.chunk().unwrap()).unwrap());
        }
    };
    hear("event: part\nid: list\n");
    hear("Nobody is banned.");
    wardent.ban("203.0.113.9");
    hear("/client/203.0.113.9");
    let mut json = RawClient::connect(&Address::Tcp(wardent.admin()));
    json.patience(Duration::from_secs(20));
    json.send("GET /api/v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(json.response_head().status, 200);
    let first = String::from_utf8(json.chunk().unwrap()).unwrap();
    let (_, data) = first.split_once("data: ").unwrap();
    let now: Value = serde_json::from_str(data.trim()).unwrap();
    assert_eq!(now["bans_active"], 1, "{now}");
}

#[test]
fn what_passed_and_what_was_refused_lately_is_told() {
    let rig = Rig::new();
    let told = || rig.wardent.ask_listener("GET", "/api/v1/now", "").1;
    // Before the first look there is nothing to compare with.
    eventually("there was a look", || {
        told()["ten_seconds"]["seconds"].as_f64().unwrap() > 0.0
    });
    for _ in 0..5 {
        assert_eq!(rig.wardent.get("/").status, 200);
    }
    assert_eq!(
        rig.wardent.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n").status,
        403
    );
    eventually("they are counted", || {
        let quarter = &told()["quarter"];
        quarter["verdicts"]["passed"] == 5 && quarter["refused"]["bad_secret"] == 1
    });
    let now = told();
    assert_eq!(now["warnings"], Value::Array(Vec::new()), "{now}");
    assert!(now["quarter"]["p99_ms"].as_f64().unwrap() > 0.0, "{now}");
}
