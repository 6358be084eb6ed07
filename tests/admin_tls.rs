//! The admin listener speaks TLS where it has a certificate, shows a renewed one after a reload, and waits for
//! nobody who does not shake hands.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken fixture should stop the test loudly"
)]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    sync::Arc,
};

use support::{rig::Rig, time::PATIENCE};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};

const TLS: &str = "tls: {cert: admin.crt, key: admin.key}";

/// Makes a certificate that speaks for itself, and its key.
fn make_certificate(dir: &Path, name: &str) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
        .args(["-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-subj", "/CN=wardent", "-addext"])
        .arg(format!("subjectAltName=DNS:{name}"))
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(dir.join("admin.key"))
        .arg("-out")
        .arg(dir.join("admin.crt"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

fn rig() -> Rig {
    Rig::with(|setup| {
        make_certificate(setup.dir(), "one.test");
        setup.admin(TLS)
    })
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Whom a client takes for `name`: who has the certificate that is in the file now.
fn believing(dir: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let own = CertificateDer::from_pem_file(dir.join("admin.crt")).unwrap();
    roots.add(own).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    Arc::new(config.with_no_client_auth())
}

/// What is answered over TLS to a question, or why nothing is.
fn ask(config: &Arc<ClientConfig>, rig: &Rig, name: &'static str) -> Result<String, String> {
    let name = ServerName::try_from(name).unwrap();
    let client = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut stream = StreamOwned::new(client, connect(rig.wardent.admin()));
    let request = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let sent = stream.write_all(request.as_bytes());
    sent.map_err(|error| error.to_string())?;
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    read.map_err(|error| error.to_string())?;
    Ok(answer)
}

#[test]
fn with_a_certificate_nothing_is_said_in_the_open() {
    let rig = rig();
    let answer = ask(&believing(rig.wardent.dir()), &rig, "one.test").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let mut open = connect(rig.wardent.admin());
    open.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    // It may end in a reset: what was sent has not been read.
    let _ = open.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(!answer.contains("HTTP/"), "{answer}");
}

#[test]
fn a_reload_renews_the_certificate() {
    let rig = rig();
    let dir = rig.wardent.dir();
    let before = believing(dir);
    make_certificate(dir, "two.test");
    let reloaded = rig.wardent.command(&["reload"], "");
    assert_eq!(reloaded.status, 0, "{reloaded:?}");
    assert!(ask(&before, &rig, "one.test").is_err());
    let after = believing(dir);
    ask(&after, &rig, "two.test").unwrap();
    std::fs::write(dir.join("admin.crt"), "nothing").unwrap();
    let refused = rig.wardent.command(&["reload"], "");
    assert!(
        format!("{}{}", refused.out, refused.err).contains("admin.tls.cert"),
        "{refused:?}"
    );
    ask(&after, &rig, "two.test").unwrap();
}

#[test]
fn who_does_not_shake_hands_keeps_nobody_waiting() {
    let rig = rig();
    let silent: Vec<_> = (0..16).map(|_| connect(rig.wardent.admin())).collect();
    ask(&believing(rig.wardent.dir()), &rig, "one.test").unwrap();
    drop(silent);
}
