//! Each trap in a configuration that is else right, and the shipped files without any.

use std::{fs, path::PathBuf};

use super::*;
use crate::config;

const WARDENT: &str = "\
listen: [127.0.0.1:8080]
upstream: {servers: [127.0.0.1:8000]}
policy: policy.yaml
";

const POLICY: &str = "\
defaults: {secret: skip, body: 1MiB}
routes:
  - name: stripe
    match: {path: /webhooks/stripe, methods: [POST]}
    body: 2MiB
    signature: {scheme: stripe, secrets: [{env: STRIPE_WEBHOOK_SECRET}]}
  - name: upload
    match: {path: /upload/}
    body: 20MiB
";

/// A site that is right: `{http}`, `{server}`, `{root}` and `{hooks}` are where a test adds to it.
const SITE: &str = "\
http {
  {http}
  upstream wardent { server 127.0.0.1:8080; keepalive 64; }
  server {
    listen 127.0.0.1:8443 ssl; listen 8081;
    server_name www.example.com;
    client_max_body_size 21m;
    proxy_read_timeout 90s;
    proxy_set_header Host $host;
    proxy_set_header CF-Connecting-IP $wardent_client_ip;
    {server}
    location ^~ /_pages/ { root /srv; client_max_body_size 0; add_header Retry-After $upstream_http_retry_after always; }
    location @page { root /srv; }
    location / { {root} proxy_pass http://wardent; }
    location /webhooks/ { {hooks} proxy_pass http://wardent; }
    location /static/ { root /srv; }
  }
}
";

struct Told {
    whats: Vec<String>,
    nginx: Nginx,
}

fn told(wardent: &str, changes: &[(&str, &str)]) -> Told {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("wardent.yaml"), wardent).unwrap();
    fs::write(dir.path().join("policy.yaml"), POLICY).unwrap();
    fs::write(dir.path().join("key"), "k".repeat(32)).unwrap();
    let mut site = SITE.to_owned();
    for (old, new) in changes {
        assert!(site.contains(old), "{old}");
        site = site.replace(old, new);
    }
    for hole in ["{http}", "{server}", "{root}", "{hooks}"] {
        site = site.replace(hole, "");
    }
    let path = dir.path().join("nginx.conf");
    fs::write(&path, site).unwrap();
    let loaded = config::load(&dir.path().join("wardent.yaml")).unwrap();
    let nginx = Nginx::read(&path, &loaded.wardent.listen).unwrap();
    let problems = nginx.warnings(&loaded);
    assert!(problems.iter().all(|problem| problem.help.is_some()));
    Told {
        whats: problems.into_iter().map(|problem| problem.what).collect(),
        nginx,
    }
}

#[track_caller]
fn assert_one(changes: &[(&str, &str)], words: &str) {
    assert_one_with(WARDENT, changes, words);
}

#[track_caller]
fn assert_one_with(wardent: &str, changes: &[(&str, &str)], words: &str) {
    let told = told(wardent, changes);
    assert!(
        told.whats.iter().any(|what| what.contains(words)),
        "{words}: {:#?}",
        told.whats
    );
    let others = told.whats.iter().filter(|what| !what.contains(words));
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn what_is_right_is_not_spoken_of_and_its_doors_are_known() {
    let told = told(WARDENT, &[]);
    assert_eq!(told.whats, Vec::<String>::new());
    let door = |address: &str, is_tls| Door {
        address: address.parse().unwrap(),
        host: "www.example.com".to_owned(),
        is_tls,
    };
    let expected = [door("127.0.0.1:8081", false), door("127.0.0.1:8443", true)];
    assert_eq!(told.nginx.doors(), expected);
}

#[test]
fn an_nginx_before_somebody_else_is_not_ours() {
    let told = told(
        WARDENT,
        &[("server 127.0.0.1:8080", "server 127.0.0.1:8000")],
    );
    assert!(!told.nginx.leads_to_wardent());
    assert_eq!(told.whats, Vec::<String>::new());
}

#[test]
fn bodies_are_bounded_by_wardent_first() {
    let lower = [("client_max_body_size 21m;", "client_max_body_size 20m;")];
    assert_one(
        &lower,
        "nginx refuses bodies over 20 MiB, before Wardent's own bound of 20 MiB (`upload`)",
    );
    let unsaid = [("client_max_body_size 21m;", "")];
    let told = told(WARDENT, &unsaid);
    assert_eq!(told.whats.len(), 2, "{:#?}", told.whats);
    assert!(
        told.whats[1].contains("bound of 2 MiB (`stripe`)"),
        "{:#?}",
        told.whats
    );
    let own = [("{hooks}", "client_max_body_size 1m;")];
    assert_one(
        &own,
        "over 1 MiB, before Wardent's own bound of 2 MiB (`stripe`)",
    );
}

#[test]
fn limits_are_wardents_first() {
    let zone = |rate: &str| {
        let zone = format!("limit_req_zone $binary_remote_addr zone=one:10m rate={rate};");
        told(
            WARDENT,
            &[("{http}", &zone), ("{root}", "limit_req zone=one burst=5;")],
        )
        .whats
    };
    assert_eq!(zone("20r/s"), Vec::<String>::new());
    for rate in ["19r/s", "60r/m"] {
        let whats = zone(rate);
        assert!(whats[0].contains("below Wardent's 20/s"), "{whats:?}");
    }
}

#[test]
fn errors_never_become_successes_for_webhooks() {
    let words = "an error becomes a success for the webhooks of `stripe`";
    // Even without interception: nginx's own 502.
    assert_one(
        &[("{server}", "error_page 502 504 =200 /_pages/502.html;")],
        words,
    );
    assert_one(&[("{server}", "error_page 502 = /_pages/502.html;")], words);
    let off = [
        ("{server}", "error_page 502 =200 /_pages/502.html;"),
        ("{hooks}", "error_page 599 /;"),
    ];
    assert_eq!(told(WARDENT, &off).whats, Vec::<String>::new());
}

#[test]
fn answers_to_webhooks_are_not_replaced() {
    let pages = "proxy_intercept_errors on; error_page 403 429 /_pages/x.html;";
    assert_one(
        &[("{hooks}", pages)],
        "replaces the answers to the webhooks of `stripe`",
    );
    assert_eq!(
        told(WARDENT, &[("{root}", pages)]).whats,
        Vec::<String>::new()
    );
}

#[test]
fn pages_keep_what_they_must() {
    let on = |page: &str| format!("proxy_intercept_errors on; error_page {page};");
    assert_one(&[("{root}", &on("413 @page"))], "`@page` keeps the method");
    let size = [
        ("client_max_body_size 0; add", "add"),
        ("{root}", &on("413 /_pages/413.html")),
    ];
    assert_one(&size, "looks at the body's size again");
    let lost = [
        (
            "add_header Retry-After $upstream_http_retry_after always;",
            "",
        ),
        ("{root}", &on("429 /_pages/429.html")),
    ];
    assert_one(&lost, "the page of 429 loses `Retry-After`");
}

#[test]
fn the_secret_is_not_nginxs_to_add_or_to_take() {
    let keys = format!("{WARDENT}secret: {{keys: [{{id: a, from: {{file: key}}}}]}}\n");
    let set = |value: &str| format!("proxy_set_header X-Wardent-Secret {value};");
    assert_one_with(
        &keys,
        &[("{server}", &set("aaaaaaaa"))],
        "adds `x-wardent-secret` to everybody's",
    );
    assert_one_with(
        &keys,
        &[("{server}", &set("\"\""))],
        "takes `x-wardent-secret` away",
    );
    let passed = set("$http_x_wardent_secret");
    assert_eq!(
        told(&keys, &[("{server}", &passed)]).whats,
        Vec::<String>::new()
    );
}

#[test]
fn the_client_is_who_the_cdn_says() {
    let mine = "proxy_set_header CF-Connecting-IP $wardent_client_ip;";
    let set = |value: &str| format!("proxy_set_header CF-Connecting-IP {value};");
    for (value, words) in [
        ("\"\"", "takes `cf-connecting-ip` away"),
        ("$remote_addr", "is the hop before nginx"),
        ("$proxy_add_x_forwarded_for", "may write"),
        (
            "$http_cf_connecting_ip",
            "a stranger may call itself anybody",
        ),
    ] {
        assert_one(&[(mine, &set(value))], words);
    }
    assert_one(&[(mine, "")], "a stranger may call itself anybody");
    let guarded = [(mine, ""), ("{server}", "ssl_verify_client on;")];
    assert_eq!(told(WARDENT, &guarded).whats, Vec::<String>::new());
    let off = [(mine, ""), ("{server}", "proxy_pass_request_headers off;")];
    assert_one(&off, "`cf-connecting-ip` does not get to Wardent");
}

#[test]
fn realip_is_not_mistaken_for_the_connection() {
    let edge =
        format!("{WARDENT}client_ip: {{edge: {{header: x-real-ip, networks: cloudflare}}}}\n");
    assert_one_with(&edge, &[], "is the client's own word here");
    let set = |value: &str| format!("proxy_set_header X-Real-IP {value};");
    let right = set("$realip_remote_addr");
    assert_eq!(
        told(&edge, &[("{server}", &right)]).whats,
        Vec::<String>::new()
    );
    let replaced = [
        ("{server}", set("$remote_addr")),
        ("{http}", "real_ip_header CF-Connecting-IP;".to_owned()),
    ];
    let replaced = replaced
        .each_ref()
        .map(|(hole, text)| (*hole, text.as_str()));
    assert_one_with(&edge, &replaced, "realip has replaced $remote_addr");
    let all = [("{http}", "set_real_ip_from 0.0.0.0/0;")];
    assert_one(&all, "realip believes everybody");
}

#[test]
fn targets_names_and_patience_are_wardents() {
    assert_one(
        &[("http://wardent;", "http://wardent/;")],
        "a path behind `proxy_pass`",
    );
    let own = [(
        "{hooks}",
        "proxy_set_header CF-Connecting-IP $wardent_client_ip;",
    )];
    assert_one(&own, "location /webhooks/: no `Host` is set");
    assert_one(
        &[("proxy_read_timeout 90s;", "")],
        "nginx waits 60 s for an answer, Wardent 60 s",
    );
}

#[test]
fn the_shipped_files_have_no_traps() {
    let dir = tempfile::tempdir().unwrap();
    let shipped = PathBuf::from("nginx");
    for folder in ["", "snippets"] {
        let to = dir.path().join("wardent").join(folder);
        fs::create_dir_all(&to).unwrap();
        for file in fs::read_dir(shipped.join(folder)).unwrap() {
            let file = file.unwrap().path();
            if file.is_file() {
                fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
            }
        }
    }
    fs::write(dir.path().join("wardent.yaml"), WARDENT).unwrap();
    let policy = POLICY.replace("20MiB", "10MiB");
    fs::write(dir.path().join("policy.yaml"), policy).unwrap();
    let loaded = config::load(&dir.path().join("wardent.yaml")).unwrap();
    for site in ["site.conf", "site-buffered.conf"] {
        let text = format!("http {{ include wardent/wardent.conf; include wardent/{site}; }}");
        let path = dir.path().join("nginx.conf");
        fs::write(&path, text).unwrap();
        let nginx = Nginx::read(&path, &loaded.wardent.listen).unwrap();
        assert!(nginx.leads_to_wardent());
        let told: Vec<_> = nginx
            .warnings(&loaded)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(told.is_empty(), "{site}: {told:#?}");
    }
}
