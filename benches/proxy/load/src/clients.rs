//! The clients: each sends its next request when the answer to the last is whole.

use std::{fmt, net::TcpStream, os::fd::OwnedFd, time::Instant};

use memchr::memmem;
use rustix::event::epoll::EventFlags;

use crate::{
    Fallible,
    connection::{Connection, content_length},
    cpu::Usage,
    options::Options,
};

/// What nginx behind Cloudflare passes on of a browser's request.
const HEAD: &str = "Host: www.example.org\r
X-Forwarded-For: 198.51.100.7, 203.0.113.9\r
X-Forwarded-Proto: https\r
X-Real-IP: 203.0.113.9\r
CF-Connecting-IP: 101.100.100.100\r
CF-Ray: 8d1f0c2b7a9e4f10-FRA\r
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r
Accept-Language: en-US,en;q=0.5\r
Accept-Encoding: gzip, br\r
Cookie: csrftoken=AbCdEfGhIjKlMnOpQrStUvWxYz012345; sessionid=5t1x0v8k3j9h2g7f6d5s4a3q2w1e0r9t\r
Referer: https://www.example.org/catalog/\r
";

pub(crate) struct Clients<'a> {
    options: &'a Options,
    clients: Vec<Client>,
    started: usize,
    answered: usize,
    /// Read when the last request of the warm-up is answered.
    before: Option<Usage>,
    latencies_ns: Vec<u64>,
}

struct Client {
    connection: Connection,
    request: Vec<u8>,
    request_sent: bool,
    started_at: Instant,
}

impl<'a> Clients<'a> {
    /// Opens the connections: none without a target.
    pub(crate) fn connect(options: &'a Options, epoll: &OwnedFd) -> Fallible<Self> {
        let mut clients = Vec::new();
        if let Some(target) = options.target {
            for token in 0..options.connections {
                let stream = TcpStream::connect(target)
                    .map_err(|error| format!("proxy {target}: {error}"))?;
                clients.push(Client {
                    connection: Connection::register(stream, epoll, token as u64)?,
                    request: request(options),
                    request_sent: false,
                    started_at: Instant::now(),
                });
            }
        }
        Ok(Self {
            options,
            clients,
            started: 0,
            answered: 0,
            before: None,
            latencies_ns: Vec::with_capacity(options.requests),
        })
    }

    /// Sends the first request on every connection.
    pub(crate) fn start(&mut self) -> Fallible<()> {
        if self.options.warmup == 0 {
            self.before = Some(Usage::read(&self.options.pids)?);
        }
        (0..self.clients.len()).try_for_each(|index| self.send_next(index))
    }

    /// Whether every request is answered; never without a target.
    pub(crate) fn done(&self) -> bool {
        self.options.target.is_some() && self.answered == self.total()
    }

    pub(crate) fn ready(
        &mut self,
        index: usize,
        flags: EventFlags,
        scratch: &mut [u8],
    ) -> Fallible<()> {
        let client = &mut self.clients[index];
        if !client.request_sent {
            client.request_sent = client.connection.send(&client.request)?;
        }
        let wanted = self.options.answer;
        let body_length = |head: &[u8]| answer_length(head, wanted);
        let received = client.connection.receive(flags, scratch, body_length)?;
        if received.completed > 0 {
            self.record(index)?;
            self.send_next(index)?;
        }
        if received.closed && !self.done() {
            return Err(format!("the proxy closed a connection, {self}").into());
        }
        Ok(())
    }

    /// The figures, as one JSON object.
    pub(crate) fn report(mut self) -> Fallible<String> {
        let after = Usage::read(&self.options.pids)?;
        let before = self.before.ok_or("nothing was measured")?;
        self.latencies_ns.sort_unstable();
        let latencies_ns = &self.latencies_ns;
        let quantile_us = |percent: usize| {
            let rank = latencies_ns.len() * percent / 100;
            latencies_ns.get(rank).map_or(0.0, |ns| *ns as f64 / 1e3)
        };
        let requests = latencies_ns.len();
        let seconds = (after.at - before.at).as_secs_f64();
        let proxy_s = after.proxy.saturating_sub(before.proxy).as_secs_f64();
        let load_s = after.load.saturating_sub(before.load).as_secs_f64();
        Ok(format!(
            r#"{{"requests": {requests}, "seconds": {seconds:.4}, "rps": {:.0}, "cpu_us": {:.3}, "p50_us": {:.1}, "p99_us": {:.1}, "proxy_busy": {:.3}, "load_busy": {:.3}}}"#,
            requests as f64 / seconds,
            proxy_s * 1e6 / requests as f64,
            quantile_us(50),
            quantile_us(99),
            proxy_s / seconds,
            load_s / seconds,
        ))
    }

    fn total(&self) -> usize {
        self.options.warmup + self.options.requests
    }

    fn record(&mut self, index: usize) -> Fallible<()> {
        self.answered += 1;
        if self.before.is_some() {
            let elapsed = self.clients[index].started_at.elapsed();
            self.latencies_ns.push(elapsed.as_nanos() as u64);
        } else if self.answered == self.options.warmup {
            self.before = Some(Usage::read(&self.options.pids)?);
        }
        Ok(())
    }

    fn send_next(&mut self, index: usize) -> Fallible<()> {
        if self.started == self.total() {
            return Ok(());
        }
        let client = &mut self.clients[index];
        write_address(&mut client.request, self.started, self.options.addresses);
        client.started_at = Instant::now();
        client.request_sent = client.connection.send(&client.request)?;
        self.started += 1;
        Ok(())
    }
}

impl fmt::Display for Clients<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} of {} requests answered",
            self.answered,
            self.total()
        )
    }
}

fn request(options: &Options) -> Vec<u8> {
    let mut request = match options.post {
        0 => format!("GET /catalog/items/4711/?page=3&sort=price HTTP/1.1\r\n{HEAD}"),
        bytes => format!(
            "POST /api/orders/?dry_run=1 HTTP/1.1\r\n{HEAD}Content-Type: application/json\r\nContent-Length: {bytes}\r\n"
        ),
    };
    if let Some(secret) = &options.secret {
        request += &format!("X-Wardent-Secret: {secret}\r\n");
    }
    request += "\r\n";
    let mut request = request.into_bytes();
    request.extend((b'a'..=b'z').cycle().take(options.post));
    request
}

/// Writes the address of request `number` over the last one: 101.1ab.1cd.1ef, always as long.
///
/// The step is prime to the usual counts, so neighbours in time are no neighbours in the proxy's table.
fn write_address(request: &mut [u8], number: usize, addresses: usize) {
    const STEP: usize = 7919;
    const NAME: &[u8] = b"CF-Connecting-IP: 101.";
    let Some(octets) = memmem::find(request, NAME).map(|at| at + NAME.len()) else {
        return;
    };
    let mut digits = number * STEP % addresses;
    for place in [10, 9, 6, 5, 2, 1] {
        request[octets + place] = b'0' + (digits % 10) as u8;
        digits /= 10;
    }
}

fn answer_length(head: &[u8], wanted: usize) -> Fallible<usize> {
    if !head.starts_with(b"HTTP/1.1 200 ") {
        return Err(format!("the proxy answered {:?}", String::from_utf8_lossy(head)).into());
    }
    match content_length(head)? {
        length if length == wanted => Ok(length),
        length => Err(format!("an answer of {length} bytes instead of {wanted}").into()),
    }
}
