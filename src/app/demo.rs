//! `wardent demo`: the whole thing at once, with nothing to prepare and nothing left behind.

use std::{
    convert::Infallible,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    thread,
};

use http::{Request, Response, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;

use super::{Options, Running, StartError, cli, run, start_lines, start_with};
use crate::{
    base::net::Address,
    event::access::Format,
    telemetry::log::{Log, Look},
};

/// Runs until Ctrl-C.
pub(super) fn run(upstream: Option<&str>) -> Result<(), StartError> {
    let system = |error: std::io::Error| StartError::System(format!("demo: {error}"));
    let folder = tempfile::Builder::new()
        .prefix("wardent-demo-")
        .tempdir()
        .map_err(system)?;
    let _log = Log::start("warn", Look::Human);
    let origin = match upstream {
        Some(url) => server_of(url)?,
        None => start_origin().map_err(system)?.to_string(),
    };
    let signals = run::Signals::install()?;
    let config = folder.path().join("wardent.yaml");
    write_files(folder.path(), &origin).map_err(system)?;
    let (lines, writer) = start_lines(Format::Human).map_err(system)?;
    let running = start_with(
        &config,
        Options {
            lines: Some(lines),
            ..Options::default()
        },
    )?;
    cli::tell(&welcome(&running, &origin, folder.path()));
    run::until_ended(running, signals);
    // All lanes are gone, so the writer ends with the last line.
    let _ = writer.join();
    Ok(())
}

/// `http://host:port` or `host:port`, as `upstream.servers` wants it.
fn server_of(url: &str) -> Result<String, StartError> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let server = rest.split('/').next().unwrap_or_default();
    let has_port = server
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match (server.is_empty() || url.starts_with("https://"), has_port) {
        (true, _) => Err(StartError::System(
            "--upstream: use http://HOST:PORT of an application on this machine".to_owned(),
        )),
        (false, true) => Ok(server.to_owned()),
        (false, false) => Ok(format!("{server}:80")),
    }
}

fn write_files(folder: &Path, origin: &str) -> std::io::Result<()> {
    let listen = free_or_any(8080);
    let admin = free_or_any(9901);
    let kafka = free_or_any(9092);
    std::fs::write(
        folder.join("wardent.yaml"),
        format!(
            "listen: [{listen}]\n\
             upstream: {{servers: [{origin:?}]}}\n\
             client_ip: {{missing: peer}}\n\
             admin: {{listen: {admin}, socket: admin.sock}}\n\
             log: {{dir: log, listen: {kafka}}}\n\
             telemetry: {{log: warn}}\n"
        ),
    )?;
    std::fs::write(folder.join("policy.yaml"), POLICY)
}

const POLICY: &str = "\
mode: enforce
defaults:
  limit: {rate: 20/s, burst: 40}
  body: 1MiB
routes:
  - {name: trap, match: {path: [\"/.env\", \"/wp-login.php\"]}, trap: true}
bans: {threshold: 10, window: 60s, duration: 1m}
";

/// The usual port where it is free, so that the commands look familiar; else any.
fn free_or_any(port: u16) -> SocketAddr {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match TcpListener::bind(usual) {
        Ok(_) => usual,
        Err(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    }
}

fn welcome(running: &Running, origin: &str, folder: &Path) -> String {
    let proxy = match running.proxy().first() {
        Some(Address::Tcp(address)) => format!("http://{address}"),
        Some(Address::Unix(_)) | None => String::new(),
    };
    let metrics = running.admin().map_or_else(String::new, |admin| {
        format!(
            "  dashboard  http://{admin}/\n  metrics    http://{admin}/metrics   (health: /livez, /readyz)\n"
        )
    });
    let kafka = match running.kafka() {
        Some(Address::Tcp(address)) => address.to_string(),
        Some(Address::Unix(_)) | None => String::new(),
    };
    let wardent = std::env::current_exe().map_or_else(
        |_| "wardent".to_owned(),
        |program| program.display().to_string(),
    );
    let folder = folder.display();
    format!(
        "
Wardent is serving.

  proxy      {proxy}   in front of {origin}
{metrics}  log        {kafka}   (the Kafka protocol)
  files      {folder}   (the log is there, too; gone when it ends; edit policy.yaml while it runs)

Try, in another terminal:

  # a request as Cloudflare and nginx would hand it on; the origin shows what arrived
  curl -si -H 'CF-Connecting-IP: 198.51.100.7' {proxy}/hello

  # a client that asks too much: its burst passes (200), the rest does not (429), then it is banned (403)
  curl -s -o /dev/null -w '%{{http_code}} ' -H 'CF-Connecting-IP: 198.51.100.8' '{proxy}/[1-80]'

  # who is banned, and why that client is refused
  {wardent} --config {folder}/wardent.yaml bans show 198.51.100.8
  {wardent} --config {folder}/wardent.yaml explain --ip 198.51.100.8 --path /hello

  # what the log has of it: the last requests that were refused, and then each as it comes
  {wardent} --config {folder}/wardent.yaml events tail --verdict refused

  # the same log, read by any Kafka client
  kcat -b {kafka} -t wardent.http.access -C

Ctrl-C ends it. Every request is a line:
"
    )
}

/// Starts the built-in origin, which says what reached it.
fn start_origin() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name("origin".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                    return;
                };
                while let Ok((stream, _)) = listener.accept().await {
                    let serving = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service_fn(answer));
                    // A connection that breaks is the next one's business.
                    tokio::spawn(async move { serving.await.map_err(drop) });
                }
            });
        })?;
    Ok(address)
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut text = format!(
        "Hello from the origin.\n\n{} {}\n",
        request.method(),
        request.uri()
    );
    for (name, value) in request.headers() {
        // Writing to memory does not fail.
        let _ = writeln!(
            text,
            "{name}: {}",
            String::from_utf8_lossy(value.as_bytes())
        );
    }
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    Ok(answer)
}
