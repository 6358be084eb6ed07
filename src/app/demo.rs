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
    secret::generate,
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
    let key = generate().map_err(|error| StartError::System(format!("demo: {error}")))?;
    write_files(folder.path(), &origin, &key).map_err(system)?;
    let (lines, writer) = start_lines(Format::Human).map_err(system)?;
    let running = start_with(
        &config,
        Options {
            lines: Some(lines),
            takes_passed_sockets: false,
            aborts_when_hung: false,
        },
    )?;
    cli::tell(&welcome(&running, &origin, folder.path()));
    run::announce(&running);
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

fn write_files(folder: &Path, origin: &str, key: &str) -> std::io::Result<()> {
    let listen = free_or_any(8080);
    let admin = free_or_any(9901);
    std::fs::write(
        folder.join("wardent.yaml"),
        format!(
            "listen: [{listen}]\n\
             upstream: {{servers: [{origin:?}]}}\n\
             client_ip: {{missing: peer}}\n\
             secret: {{keys: [{{id: demo, from: {{file: secret}}}}]}}\n\
             admin: {{listen: {admin}, socket: admin.sock}}\n\
             log: {{dir: log, listen: null}}\n\
             telemetry: {{log: warn}}\n"
        ),
    )?;
    std::fs::write(folder.join("secret"), format!("{key}\n"))?;
    std::fs::write(
        folder.join("policy.yaml"),
        "defaults: {secret: skip, body: 1MiB}\n\
         routes:\n\
         \x20 - {name: private, match: {path: /private/}, secret: require}\n",
    )
}

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
    let mut text = String::from("\nWardent is serving.\n\n");
    let mut line = |words: String| {
        // Writing to memory does not fail.
        let _ = writeln!(text, "{words}");
    };
    line(format!("  proxy    {proxy}   in front of {origin}"));
    if let Some(admin) = running.admin() {
        line(format!(
            "  metrics  http://{admin}/metrics   (health: /livez, /readyz)"
        ));
    }
    line(format!(
        "  files    {}   (gone when it ends; edit policy.yaml while it runs)\n",
        folder.display()
    ));
    line("Try, in another terminal:\n".to_owned());
    line(
        "  # a request as Cloudflare and nginx would hand it on; the origin shows what arrived"
            .to_owned(),
    );
    line(format!(
        "  curl -si -H 'CF-Connecting-IP: 198.51.100.7' {proxy}/hello\n"
    ));
    line("  # a route that lets only requests with the secret through: 403, and why".to_owned());
    line(format!("  curl -si {proxy}/private/\n"));
    line(
        "  # a body over the bound of 1 MiB: refused by its head alone, and the answer arrives"
            .to_owned(),
    );
    line(format!(
        "  head -c 5000000 /dev/zero | curl -si --data-binary @- {proxy}/upload\n"
    ));
    line("Ctrl-C ends it. Every request is a line:".to_owned());
    text
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
