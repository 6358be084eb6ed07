//! Addresses and networks as an operator writes them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net};

/// Where a socket listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP address and port.
    Tcp(SocketAddr),
    /// A unix socket's path.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = AddressError;

    /// Parses `127.0.0.1:80`, `[::1]:80`, `localhost:80` or `unix:/path`. Port 0 lets the system pick.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = unix_path(text)? {
            return Ok(Self::Unix(path));
        }
        let HostPort { host, port } = HostPort::parse(text)?;
        match host.parse::<IpAddr>() {
            Ok(ip) => Ok(Self::Tcp(SocketAddr::new(ip, port))),
            Err(_) if host == "localhost" => {
                Ok(Self::Tcp(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)))
            }
            Err(_) => Err(AddressError::NotAnIp { host }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where a connection goes to; names are resolved elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// A host, by name or address, and a port.
    HostPort(HostPort),
    /// A unix socket's path.
    Unix(PathBuf),
}

impl FromStr for Upstream {
    type Err = AddressError;

    /// Parses `127.0.0.1:8000`, `[::1]:8000`, `app.internal:8000` or `unix:/path`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        match unix_path(text)? {
            Some(path) => Ok(Self::Unix(path)),
            None => text.parse().map(Self::HostPort),
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostPort(host_port) => host_port.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A host, by name or address, and the port to reach it at; the port is never 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A lower-case name, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// The address, where the host is one, or the loopback that `localhost` means.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.host.as_str() {
            "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
            host => host.parse().ok(),
        }
    }

    fn parse(text: &str) -> Result<Self, AddressError> {
        // First of all: no other error may repeat a password.
        if text.contains('@') {
            return Err(AddressError::UserInfo);
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return Err(AddressError::Url {
                scheme: scheme.to_owned(),
                rest: rest.trim_end_matches('/').to_owned(),
            });
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        // `+80` would parse, but nobody writes a port so.
        let digits = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        let bad_port = || AddressError::BadPort {
            port: port.to_owned(),
        };
        let port = digits.and_then(|digits| digits.parse().ok());
        let port = port.ok_or_else(bad_port)?;
        let host = host.to_ascii_lowercase();
        if let Some(inner) = host.strip_prefix('[') {
            let ip = inner.strip_suffix(']').map(str::parse);
            return match ip {
                Some(Ok(IpAddr::V6(ip))) => Ok(Self {
                    host: ip.to_string(),
                    port,
                }),
                Some(Ok(IpAddr::V4(_)) | Err(_)) | None => Err(AddressError::NotAHost { host }),
            };
        }
        match host.as_str() {
            "" => Err(AddressError::NoHost { port }),
            host if host.contains(':') => Err(AddressError::Bare {
                host: host.to_owned(),
                port,
            }),
            name if is_host(name) => Ok(Self { host, port }),
            _ => Err(AddressError::NotAHost { host }),
        }
    }
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match Self::parse(text)? {
            Self { port: 0, .. } => Err(AddressError::PortZero),
            host_port => Ok(host_port),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// A name by RFC 1123 (underscores as Docker allows them), or an IPv4 address: all digits and
/// dots is an address or nothing.
fn is_host(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let numeric = host
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    match numeric {
        true => host.parse::<Ipv4Addr>().is_ok(),
        false => host.len() <= 253 && host.split('.').all(is_label),
    }
}

fn unix_path(text: &str) -> Result<Option<PathBuf>, AddressError> {
    let Some(path) = text.strip_prefix("unix:") else {
        return Ok(None);
    };
    match path.len() {
        0 => Err(AddressError::NoPath),
        // sockaddr_un holds 108 bytes, one of them the closing NUL (unix(7)).
        1..=107 if !path.contains('\0') => Ok(Some(PathBuf::from(path))),
        _ => Err(AddressError::BadPath),
    }
}

/// Why an address was refused; the text says what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressError {
    /// No colon, so no port.
    NoPort,
    /// Not a number of 16 bits.
    BadPort {
        /// What stood where the port belongs.
        port: String,
    },
    /// Port 0 where something must be reached.
    PortZero,
    /// A port alone.
    NoHost {
        /// The port.
        port: u16,
    },
    /// An IPv6 address without its brackets.
    Bare {
        /// What stood before the last colon.
        host: String,
        /// What stood after it.
        port: u16,
    },
    /// Neither a name nor an address.
    NotAHost {
        /// The host as it was written.
        host: String,
    },
    /// A name where only an address will do.
    NotAnIp {
        /// The name.
        host: String,
    },
    /// A whole URL.
    Url {
        /// What stands before `://`.
        scheme: String,
        /// What stands behind it.
        rest: String,
    },
    /// A user, perhaps with a password, before the host.
    UserInfo,
    /// `unix:` and nothing else.
    NoPath,
    /// A path the system cannot bind.
    BadPath,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPort => write!(f, "the port is missing (use host:port or unix:/path)"),
            Self::BadPort { port } => write!(f, "`{port}` is not a port (use 1 to 65535)"),
            Self::PortZero => write!(f, "port 0 cannot be reached (use 1 to 65535)"),
            Self::NoHost { port } => write!(
                f,
                "the host is missing (use 127.0.0.1:{port}, or 0.0.0.0:{port} for every IPv4 address)"
            ),
            Self::Bare { host, port } => {
                write!(
                    f,
                    "an IPv6 address stands in brackets (use [{host}]:{port})"
                )
            }
            Self::NotAHost { host } => write!(f, "`{host}` is neither a host name nor an address"),
            Self::NotAnIp { host } => write!(
                f,
                "`{host}` is a name (use the IP address of this machine, such as 127.0.0.1)"
            ),
            Self::Url { scheme, rest } => {
                write!(
                    f,
                    "an address has no `{scheme}://` (use `{rest}`, with its port)"
                )
            }
            Self::UserInfo => {
                write!(f, "an address has no user and no password (use host:port)")
            }
            Self::NoPath => write!(f, "the path is missing (use unix:/path)"),
            Self::BadPath => write!(f, "a unix socket's path has at most 107 bytes and no NUL"),
        }
    }
}

impl std::error::Error for AddressError {}

/// Parses a network such as `10.0.0.0/8`; a bare address is the network of itself alone.
///
/// IPv4 in IPv6 clothes (`::ffff:192.0.2.0/120`) becomes the IPv4 network, as clients do.
///
/// # Errors
/// When it is no address, the prefix is out of range, or bits are set behind it.
pub fn parse_network(text: &str) -> Result<IpNet, NetworkError> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let ip: IpAddr = address.parse().map_err(|_| NetworkError::NotAnIp {
        text: address.to_owned(),
    })?;
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    let out_of_range = || NetworkError::Prefix {
        network: text.to_owned(),
        longest,
    };
    let prefix = match prefix {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map_err(|_| out_of_range())?
        }
        Some(_) => return Err(out_of_range()),
        None => longest,
    };
    let network = IpNet::new(ip, prefix).map_err(|_| out_of_range())?;
    if network.network() != ip {
        return Err(NetworkError::HostBits {
            network: text.to_owned(),
            meant: network.trunc(),
        });
    }
    Ok(folded(network))
}

/// The IPv4 network inside an IPv6 one, where there is one; any other as it is.
///
/// `::ffff:0:0/96` is where IPv6 keeps IPv4 (RFC 4291 section 2.5.5.2).
pub fn folded(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else {
        return network;
    };
    let v4 = v6.addr().to_ipv4_mapped();
    let v4 = v4.zip(v6.prefix_len().checked_sub(96));
    let v4 = v4.and_then(|(ip, prefix)| Ipv4Net::new(ip, prefix).ok());
    v4.map_or(network, IpNet::V4)
}

/// Why a network was refused; the text says what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkError {
    /// No address before the slash.
    NotAnIp {
        /// What stood there.
        text: String,
    },
    /// More bits than the address has, or no number.
    Prefix {
        /// The network as it was written.
        network: String,
        /// The most bits it can have.
        longest: u8,
    },
    /// An address inside the network where its first one belongs.
    HostBits {
        /// The network as it was written.
        network: String,
        /// The network it lies in.
        meant: IpNet,
    },
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnIp { text } => {
                write!(
                    f,
                    "`{text}` is not an IP address (use a network such as 10.0.0.0/8)"
                )
            }
            Self::Prefix { network, longest } => {
                write!(f, "`{network}`: prefix must be 0..{longest}")
            }
            Self::HostBits { network, meant } => write!(
                f,
                "`{network}` has bits set behind its prefix (use {meant} for the network, {}/{} for the one address)",
                network.split('/').next().unwrap_or_default(),
                meant.max_prefix_len(),
            ),
        }
    }
}

impl std::error::Error for NetworkError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_addresses_are_read_and_written_alike() {
        for text in [
            "127.0.0.1:80",
            "[::1]:80",
            "0.0.0.0:0",
            "unix:/run/w.sock",
            "unix:w.sock",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let localhost: Address = "localhost:80".parse().unwrap();
        assert_eq!(localhost.to_string(), "127.0.0.1:80");
    }

    #[test]
    fn upstreams_may_be_names() {
        for text in [
            "127.0.0.1:8000",
            "[::1]:8000",
            "app.internal:8000",
            "my_app:1",
            "unix:/a",
        ] {
            assert_eq!(text.parse::<Upstream>().unwrap().to_string(), text);
        }
        let upper: HostPort = "App:80".parse().unwrap();
        assert_eq!(upper.host, "app");
    }

    #[test]
    fn a_refused_address_says_what_would_be_right() {
        for (text, says) in [
            ("", "the port is missing (use host:port or unix:/path)"),
            ("8080", "the port is missing (use host:port or unix:/path)"),
            (
                ":8080",
                "the host is missing (use 127.0.0.1:8080, or 0.0.0.0:8080 for every IPv4 address)",
            ),
            ("a:65536", "`65536` is not a port (use 1 to 65535)"),
            ("a:+80", "`+80` is not a port (use 1 to 65535)"),
            ("a:", "`` is not a port (use 1 to 65535)"),
            ("a:0", "port 0 cannot be reached (use 1 to 65535)"),
            (
                "::1:80",
                "an IPv6 address stands in brackets (use [::1]:80)",
            ),
            ("[::1:80", "`[::1` is neither a host name nor an address"),
            (
                "256.1.1.1:80",
                "`256.1.1.1` is neither a host name nor an address",
            ),
            ("a b:80", "`a b` is neither a host name nor an address"),
            (
                "http://127.0.0.1:8000/",
                "an address has no `http://` (use `127.0.0.1:8000`, with its port)",
            ),
            (
                "http://u:hunter2@127.0.0.1:8000",
                "an address has no user and no password (use host:port)",
            ),
            ("unix:", "the path is missing (use unix:/path)"),
        ] {
            assert_eq!(
                text.parse::<Upstream>().unwrap_err().to_string(),
                says,
                "{text}"
            );
        }
        assert_eq!(
            "example.com:80".parse::<Address>().unwrap_err().to_string(),
            "`example.com` is a name (use the IP address of this machine, such as 127.0.0.1)"
        );
        let long = format!("unix:/{}", "a".repeat(107));
        assert_eq!(long.parse::<Address>(), Err(AddressError::BadPath));
    }

    #[test]
    fn a_bare_address_is_a_network_of_one() {
        assert_eq!(
            parse_network("192.0.2.1").unwrap().to_string(),
            "192.0.2.1/32"
        );
        assert_eq!(parse_network("::1").unwrap().to_string(), "::1/128");
    }

    #[test]
    fn ipv4_in_ipv6_clothes_is_ipv4() {
        assert_eq!(
            parse_network("::ffff:192.0.2.0/120").unwrap().to_string(),
            "192.0.2.0/24"
        );
        assert_eq!(parse_network("::/0").unwrap().to_string(), "::/0");
    }

    #[test]
    fn a_refused_network_says_what_would_be_right() {
        for (text, says) in [
            ("10.0.0.1/33", "`10.0.0.1/33`: prefix must be 0..32"),
            ("10.0.0.1/-1", "`10.0.0.1/-1`: prefix must be 0..32"),
            ("10.0.0.1/", "`10.0.0.1/`: prefix must be 0..32"),
            ("::1/129", "`::1/129`: prefix must be 0..128"),
            ("::1/999999", "`::1/999999`: prefix must be 0..128"),
            (
                "10.0.0.1/8",
                "`10.0.0.1/8` has bits set behind its prefix (use 10.0.0.0/8 for the network, 10.0.0.1/32 for the one address)",
            ),
            (
                "010.0.0.1",
                "`010.0.0.1` is not an IP address (use a network such as 10.0.0.0/8)",
            ),
            (
                "fe80::1%eth0",
                "`fe80::1%eth0` is not an IP address (use a network such as 10.0.0.0/8)",
            ),
        ] {
            assert_eq!(parse_network(text).unwrap_err().to_string(), says, "{text}");
        }
    }
}
