//! What the DNS is asked for a bot's address, and who asks it.

use std::{future::Future, net::IpAddr, time::Duration};

use hickory_resolver::{
    ResolverBuilder, TokioResolver,
    config::ResolveHosts,
    lookup::Lookup,
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData, RecordType},
};

/// Nobody answered, or with a failure: nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed;

/// Asks the DNS. "There is none" is an answer, and an empty one.
pub trait Resolve {
    /// The names the reverse lookup gives.
    fn names(&self, ip: IpAddr) -> impl Future<Output = Result<Vec<String>, Failed>> + Send;

    /// The addresses of a name, of the family of `like`.
    fn addresses(
        &self,
        name: &str,
        like: IpAddr,
    ) -> impl Future<Output = Result<Vec<IpAddr>, Failed>> + Send;
}

/// How long one server is waited for, and how often it is asked.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// The servers of `/etc/resolv.conf`, asked without its search domains and without `/etc/hosts`.
#[derive(Debug)]
pub struct SystemResolver(TokioResolver);

impl SystemResolver {
    /// Reads `/etc/resolv.conf`.
    ///
    /// # Errors
    /// When it is not there or cannot be used.
    pub fn new() -> Result<Self, NetError> {
        Self::build(TokioResolver::builder_tokio()?)
    }

    fn build(mut builder: ResolverBuilder<TokioRuntimeProvider>) -> Result<Self, NetError> {
        let options = builder.options_mut();
        options.timeout = SERVER_TIMEOUT;
        options.attempts = ATTEMPTS;
        options.use_hosts_file = ResolveHosts::Never;
        // The verifier remembers for itself.
        options.cache_size = 0;
        builder.build().map(Self)
    }
}

impl Resolve for SystemResolver {
    async fn names(&self, ip: IpAddr) -> Result<Vec<String>, Failed> {
        let found = none_is_empty(self.0.reverse_lookup(ip).await)?;
        let name = |data| {
            let RData::PTR(pointer) = data else {
                return None;
            };
            Some(pointer.0.to_ascii())
        };
        Ok(found.into_iter().filter_map(name).collect())
    }

    async fn addresses(&self, name: &str, like: IpAddr) -> Result<Vec<IpAddr>, Failed> {
        let Ok(mut name) = Name::from_ascii(name) else {
            return Ok(Vec::new());
        };
        name.set_fqdn(true);
        let kind = match like {
            IpAddr::V4(_) => RecordType::A,
            IpAddr::V6(_) => RecordType::AAAA,
        };
        let found = none_is_empty(self.0.lookup(name, kind).await)?;
        let addresses = found.into_iter().filter_map(|data| data.ip_addr());
        Ok(addresses.collect())
    }
}

/// The records of an answer; none where the DNS says that there are none.
fn none_is_empty(answer: Result<Lookup, NetError>) -> Result<Vec<RData>, Failed> {
    match answer {
        Ok(found) => Ok(found.answers().iter().map(|r| r.data.clone()).collect()),
        Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Ok(Vec::new()),
        Err(_) => Err(Failed),
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use tokio::net::UdpSocket;

    use super::*;

    const A: u16 = 1;
    const PTR: u16 = 12;
    const AAAA: u16 = 28;

    const NO_ERROR: u8 = 0;
    const SERVER_FAILURE: u8 = 2;
    const NO_SUCH_NAME: u8 = 3;

    /// What the server below says to a question: a response code and the data of each record.
    type Zone = fn(name: &str, kind: u16) -> (u8, Vec<Vec<u8>>);

    /// A resolver that asks a name server on this machine, which knows this zone.
    async fn asking(zone: Zone) -> SystemResolver {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut query).await {
                let answer = answer(&query[..length], zone);
                socket.send_to(&answer, client).await.unwrap();
            }
        });
        let mut connection = ConnectionConfig::udp();
        connection.port = server.port();
        let mut named = NameServerConfig::udp(server.ip());
        named.connections = vec![connection];
        let config = ResolverConfig::from_parts(None, vec![], vec![named]);
        let provider = TokioRuntimeProvider::default();
        SystemResolver::build(TokioResolver::builder_with_config(config, provider)).unwrap()
    }

    /// The message that answers `query` (RFC 1035 section 4).
    fn answer(query: &[u8], zone: Zone) -> Vec<u8> {
        let labels = query[12..].iter().position(|&byte| byte == 0).unwrap();
        let question = &query[12..12 + labels + 5];
        let (mut name, mut rest) = (String::new(), &question[..labels]);
        while let [length, label @ ..] = rest {
            let (label, next) = label.split_at(usize::from(*length));
            name += &format!("{}.", str::from_utf8(label).unwrap().to_ascii_lowercase());
            rest = next;
        }
        let kind = u16::from_be_bytes([question[labels + 1], question[labels + 2]]);
        let (code, records) = zone(&name, kind);
        let mut message = vec![query[0], query[1], 0x81, 0x80 | code, 0, 1, 0];
        message.extend([u8::try_from(records.len()).unwrap(), 0, 0, 0, 0]);
        message.extend(question);
        for data in records {
            // The name of the question, of its kind, for a minute.
            message.extend([0xc0, 12, 0, u8::try_from(kind).unwrap(), 0, 1, 0, 0, 0, 60]);
            message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            message.extend(data);
        }
        message
    }

    fn name(labels: &[&str]) -> Vec<u8> {
        let mut written: Vec<u8> = labels
            .iter()
            .flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat())
            .collect();
        written.push(0);
        written
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn crawlers(asked: &str, kind: u16) -> (u8, Vec<Vec<u8>>) {
        match (asked, kind) {
            ("7.100.51.198.in-addr.arpa.", PTR) => {
                (NO_ERROR, vec![name(&["host-7", "crawl", "example"])])
            }
            ("host-7.crawl.example.", A) => (NO_ERROR, vec![vec![198, 51, 100, 7]]),
            ("host-7.crawl.example.", AAAA) => (
                NO_ERROR,
                vec![[&[0x20, 0x01, 0x0d, 0xb8][..], &[0; 12]].concat()],
            ),
            ("nothing.crawl.example.", _) => (NO_ERROR, vec![]),
            ("broken.crawl.example.", _) => (SERVER_FAILURE, vec![]),
            _ => (NO_SUCH_NAME, vec![]),
        }
    }

    #[tokio::test]
    async fn a_name_and_its_addresses_are_found() {
        let dns = asking(crawlers).await;
        let names = dns.names(ip("198.51.100.7")).await;
        assert_eq!(names, Ok(vec!["host-7.crawl.example.".to_owned()]));
        let addresses = dns.addresses("host-7.crawl.example", ip("192.0.2.1")).await;
        assert_eq!(addresses, Ok(vec![ip("198.51.100.7")]));
        let addresses = dns.addresses("host-7.crawl.example.", ip("::1")).await;
        assert_eq!(addresses, Ok(vec![ip("2001:db8::")]));
    }

    #[tokio::test]
    async fn that_there_is_none_is_an_answer() {
        let dns = asking(crawlers).await;
        assert_eq!(dns.names(ip("203.0.113.7")).await, Ok(vec![]));
        assert_eq!(dns.names(ip("2001:db8::7")).await, Ok(vec![]));
        for name in ["nobody.example.", "nothing.crawl.example.", "..no name"] {
            let addresses = dns.addresses(name, ip("192.0.2.1")).await;
            assert_eq!(addresses, Ok(vec![]), "{name}");
        }
    }

    #[tokio::test]
    async fn a_failure_is_none() {
        let dns = asking(crawlers).await;
        let addresses = dns.addresses("broken.crawl.example.", ip("192.0.2.1"));
        assert_eq!(addresses.await, Err(Failed));
    }
}
