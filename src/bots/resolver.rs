//! What the DNS is asked for a bot's address, and who asks it.

use std::{future::Future, net::IpAddr, time::Duration};

use hickory_resolver::{
    TokioResolver,
    config::ResolveHosts,
    net::{DnsError, NetError},
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
        let mut builder = TokioResolver::builder_tokio()?;
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
fn none_is_empty(
    answer: Result<hickory_resolver::lookup::Lookup, NetError>,
) -> Result<Vec<RData>, Failed> {
    match answer {
        Ok(found) => Ok(found.answers().iter().map(|r| r.data.clone()).collect()),
        Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Ok(Vec::new()),
        Err(_) => Err(Failed),
    }
}
