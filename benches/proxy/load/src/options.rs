//! The command line.

use std::{net::SocketAddr, str::FromStr};

use crate::Fallible;

/// What to send, where, and whose CPU time to read.
pub(crate) struct Options {
    /// The proxy under test; none to serve as origin only.
    pub(crate) target: Option<SocketAddr>,
    /// Where the proxy forwards to.
    pub(crate) origin: SocketAddr,
    pub(crate) connections: usize,
    /// Requests that are measured.
    pub(crate) requests: usize,
    /// Requests before them.
    pub(crate) warmup: usize,
    /// Bytes of every answer's body.
    pub(crate) answer: usize,
    /// Bytes of every request's body: 0 for GET, more for POST.
    pub(crate) post: usize,
    /// Distinct values of `CF-Connecting-IP`, at most a million.
    pub(crate) addresses: usize,
    /// Value of `X-Wardent-Secret`; none for no such header.
    pub(crate) secret: Option<String>,
    /// Processes of the proxy.
    pub(crate) pids: Vec<u32>,
}

impl Options {
    /// Reads `--name value` pairs.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Fallible<Self> {
        let mut options = Self {
            target: None,
            origin: SocketAddr::from(([127, 0, 0, 1], 9000)),
            connections: 64,
            requests: 50_000,
            warmup: 5_000,
            answer: 1024,
            post: 0,
            addresses: 100_000,
            secret: None,
            pids: Vec::new(),
        };
        while let Some(name) = words.next() {
            let text = words.next().ok_or(format!("{name} needs a value"))?;
            match name.as_str() {
                "--target" => options.target = Some(value(&name, &text)?),
                "--origin" => options.origin = value(&name, &text)?,
                "--connections" => options.connections = value(&name, &text)?,
                "--requests" => options.requests = value(&name, &text)?,
                "--warmup" => options.warmup = value(&name, &text)?,
                "--answer" => options.answer = value(&name, &text)?,
                "--post" => options.post = value(&name, &text)?,
                "--addresses" => options.addresses = value(&name, &text)?,
                "--secret" => options.secret = Some(text),
                "--pids" => {
                    let pids = text.split(',').map(|pid| value(&name, pid));
                    options.pids = pids.collect::<Fallible<_>>()?;
                }
                _ => return Err(format!("{name} is not an option: see src/options.rs").into()),
            }
        }
        Ok(options)
    }
}

fn value<T: FromStr>(name: &str, text: &str) -> Fallible<T> {
    let wrong = |_| format!("{name} cannot be {text:?}").into();
    text.parse().map_err(wrong)
}
