//! A request as nginx would hand it on, and whether the application answered it.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use http::Uri;
use socket2::{SockAddr, Socket, Type};

use super::{admin_cli::Ended, cli};
use crate::{
    base::{
        clock::Clock,
        net::{Address, Upstream},
    },
    config::wardent::{Document, EdgeNetworks},
    secret::{Signed, Signer},
};

/// For connecting, and for each wait for bytes.
const WITHIN: Duration = Duration::from_secs(5);
/// Of an answer's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Of an answer's body; what is left is given up.
const BODY_BYTES_MAX: u64 = 1024 * 1024;
const FIELDS_MAX: usize = 128;
/// One of the addresses that Cloudflare publishes, for an `edge` that asks for them.
const CLOUDFLARE: IpAddr = IpAddr::V4(Ipv4Addr::new(173, 245, 48, 1));

/// What the application is asked for, and how a client is named.
#[derive(Debug)]
pub(super) struct Question {
    scheme: String,
    host: String,
    target: String,
    identity: String,
    edge: Option<(String, IpAddr)>,
    secret: Option<(String, Signer)>,
}

impl Question {
    /// For `url`, else for what health checks ask for; none where they do not.
    ///
    /// # Errors
    /// When the address has no host, or the secret's key cannot be read.
    pub(super) fn of(document: &Document, url: Option<&Uri>) -> Result<Option<Self>, Ended> {
        let asked = match url {
            Some(url) => Some(parts(url)?),
            None => document.upstream.health.as_ref().map(|health| {
                let host = match document.upstream.servers.first() {
                    Some(server @ Upstream::HostPort(_)) => server.to_string(),
                    Some(Upstream::Unix(_)) | None => "localhost".to_owned(),
                };
                ("http".to_owned(), host, health.path.as_str().to_owned())
            }),
        };
        let Some((scheme, host, target)) = asked else {
            return Ok(None);
        };
        let name = || document.secret.header.as_str().to_owned();
        let signer = match document.secret.keys.is_empty() {
            true => None,
            false => Some(cli::signer(document, None).map_err(Ended::Config)?),
        };
        let edge = document.client_ip.edge.as_ref().map(|edge| {
            let address = match &edge.networks {
                EdgeNetworks::Cloudflare => CLOUDFLARE,
                EdgeNetworks::Listed(networks) => {
                    networks.first().map_or(CLOUDFLARE, ipnet::IpNet::addr)
                }
            };
            (edge.header.as_str().to_owned(), address)
        });
        Ok(Some(Self {
            scheme,
            host,
            target,
            identity: document.client_ip.header.as_str().to_owned(),
            edge,
            secret: signer.map(|signer| (name(), signer)),
        }))
    }

    /// As a person would write it.
    pub(super) fn shown(&self) -> String {
        format!("{}://{}{}", self.scheme, self.host, self.target)
    }
}

fn parts(url: &Uri) -> Result<(String, String, String), Ended> {
    match (url.scheme_str(), url.authority()) {
        (Some(scheme @ ("http" | "https")), Some(host)) => {
            let target = url.path_and_query().map_or("/", |target| target.as_str());
            Ok((scheme.to_owned(), host.to_string(), target.to_owned()))
        }
        _ => Err(Ended::Failed(
            "--url: write it as https://HOST/PATH".to_owned(),
        )),
    }
}

/// One request to the Wardent at `at`.
#[derive(Debug)]
pub(super) struct Probe<'a> {
    pub(super) at: &'a Address,
    pub(super) question: &'a Question,
    pub(super) clock: &'a Clock,
}

impl Probe<'_> {
    /// The status of the application's answer to the `nth` request.
    ///
    /// # Errors
    /// When nobody answers, Wardent answers in the application's place, or the application says that it
    /// is broken.
    pub(super) fn send(&self, nth: u64) -> Result<u16, String> {
        let told = |error: io::Error| format!("{}: {error}", self.at);
        let mut socket = self.connected().map_err(told)?;
        socket.write_all(&self.request(nth)).map_err(told)?;
        let head = read_head(&mut socket).map_err(told)?;
        // The answer's end: whoever hangs up before it is counted as a client that did.
        let _ = io::copy(&mut socket.take(BODY_BYTES_MAX), &mut io::sink());
        match head {
            Head {
                reason: Some(reason),
                status,
            } => Err(format!("Wardent answered {status}, reason {reason}")),
            Head { status, .. } if status >= 500 => {
                Err(format!("the application answered {status}"))
            }
            Head { status, .. } => Ok(status),
        }
    }

    fn connected(&self) -> io::Result<Socket> {
        let to = match self.at {
            Address::Tcp(address) => SockAddr::from(*address),
            Address::Unix(path) => SockAddr::unix(path)?,
        };
        let socket = Socket::new(to.domain(), Type::STREAM, None)?;
        socket.connect_timeout(&to, WITHIN)?;
        socket.set_read_timeout(Some(WITHIN))?;
        socket.set_write_timeout(Some(WITHIN))?;
        Ok(socket)
    }

    fn request(&self, nth: u64) -> Vec<u8> {
        let Question {
            scheme,
            host,
            target,
            identity,
            edge,
            secret,
        } = self.question;
        let last = u8::try_from(nth % 256).unwrap_or_default();
        let ip = Ipv4Addr::new(192, 0, 2, last);
        let mut request = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\n{identity}: {ip}\r\nX-Forwarded-Proto: {scheme}\r\n\
             User-Agent: Mozilla/5.0 (wardent soak)\r\nConnection: close\r\n"
        )
        .into_bytes();
        if let Some((name, address)) = edge {
            request.extend_from_slice(format!("{name}: {address}\r\n").as_bytes());
        }
        if let Some((name, signer)) = secret {
            let signed = Signed {
                method: b"GET",
                host: host.as_bytes(),
                target: target.as_bytes(),
                client_ip: Some(ip.into()),
            };
            request.extend_from_slice(format!("{name}: ").as_bytes());
            signer.write(&signed, self.clock.unix_ms() / 1_000, &mut request);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        request
    }
}

/// What an answer's head says.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Why Wardent answered itself.
    reason: Option<String>,
}

/// Reads the first head that is no interim one.
fn read_head(from: &mut impl io::Read) -> io::Result<Head> {
    let broken = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut answer = httparse::Response::new(&mut fields);
        match answer
            .parse(&bytes)
            .map_err(|error| broken(&error.to_string()))?
        {
            httparse::Status::Complete(length) => {
                let status = answer.code.unwrap_or_default();
                if (100..200).contains(&status) {
                    bytes.drain(..length);
                    continue;
                }
                let is_reason = |field: &&httparse::Header<'_>| {
                    field.name.eq_ignore_ascii_case("x-wardent-reason")
                };
                let reason = answer.headers.iter().find(is_reason);
                let reason = reason.map(|field| String::from_utf8_lossy(field.value).into_owned());
                return Ok(Head { status, reason });
            }
            httparse::Status::Partial if bytes.len() > HEAD_BYTES_MAX => {
                return Err(broken("the answer's head has no end"));
            }
            httparse::Status::Partial => {}
        }
        match from.read(&mut part)? {
            0 => return Err(broken("the connection ended without an answer")),
            count => bytes.extend_from_slice(part.get(..count).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Head, String> {
        read_head(&mut text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_interim_answer_is_passed_over() {
        let said =
            head("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(
            said,
            Ok(Head {
                status: 204,
                reason: None
            })
        );
    }

    #[test]
    fn an_answer_of_wardents_own_has_a_reason() {
        let said =
            head("HTTP/1.1 502 Bad Gateway\r\nX-Wardent-Reason: upstream_unreachable\r\n\r\n");
        assert_eq!(
            said.unwrap().reason.as_deref(),
            Some("upstream_unreachable")
        );
    }

    #[test]
    fn half_an_answer_is_none() {
        assert!(head("HTTP/1.1 200 OK\r\nContent-").is_err());
        assert!(head("").is_err());
    }

    #[test]
    fn an_address_without_a_host_is_refused() {
        for url in ["/about/", "ftp://example.org/", "example.org"] {
            assert!(parts(&url.parse().unwrap()).is_err(), "{url}");
        }
        let (scheme, host, target) = parts(&"https://example.org".parse().unwrap()).ok().unwrap();
        assert_eq!((&*scheme, &*host, &*target), ("https", "example.org", "/"));
    }
}
