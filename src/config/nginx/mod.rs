//! The nginx before Wardent, as its configuration tells it: which locations lead here, what they say of
//! bodies, headers, pages and time, and what of that works against what Wardent is set up for.

mod parse;
mod traps;

use std::{net::SocketAddr, path::Path};

use self::parse::Directive;
use super::{Loaded, Problem};
use crate::base::{net::Address, units::parse_duration};

/// Where Debian and most others have it.
pub const USUAL: &str = "/etc/nginx/nginx.conf";

/// What an nginx configuration says of the way to Wardent.
#[derive(Debug)]
pub struct Nginx {
    sites: Vec<Site>,
}

/// A server block with locations that lead to Wardent.
#[derive(Debug)]
struct Site {
    locations: Vec<Location>,
    /// The first `server_name`.
    name: Option<String>,
    /// Where it listens: the address as a client on this machine calls it, and whether by TLS.
    listens: Vec<(SocketAddr, bool)>,
}

/// A location and all that holds for it.
#[derive(Debug)]
struct Location {
    /// `=`, `^~`, `~`, `~*` or nothing.
    modifier: String,
    /// A path, a regular expression, or `@name`; empty for the server itself.
    pattern: String,
    /// From the outermost block inwards: what each of them says.
    levels: Vec<Vec<Directive>>,
    /// What it passes requests to Wardent with.
    pass: Option<Directive>,
    own: Directive,
}

/// How this machine reaches a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// Where it listens.
    pub address: SocketAddr,
    /// By which name it is called.
    pub host: String,
    /// Whether it wants TLS.
    pub is_tls: bool,
}

impl Nginx {
    /// Reads a configuration; `wardent` is where Wardent listens.
    ///
    /// # Errors
    /// When a file cannot be read, or nginx would not take it.
    pub fn read(path: &Path, wardent: &[Address]) -> Result<Self, String> {
        let main = parse::read(path)?;
        let http = main.iter().filter(|one| one.name == "http");
        let mut sites = Vec::new();
        for http in http {
            let upstreams: Vec<_> = inner_of(http, "upstream").collect();
            for server in inner_of(http, "server") {
                let mut site = Site {
                    locations: Vec::new(),
                    name: name_of(server),
                    listens: listens_of(server),
                };
                let to_wardent = |pass: &Directive| leads_to(pass.arg(0), &upstreams, wardent);
                let levels = vec![plain(http), plain(server)];
                locations(server, levels, &to_wardent, &mut site.locations);
                if site.locations.iter().any(|one| one.pass.is_some()) {
                    sites.push(site);
                }
            }
        }
        Ok(Self { sites })
    }

    /// Whether any location leads to Wardent.
    pub fn leads_to_wardent(&self) -> bool {
        !self.sites.is_empty()
    }

    /// What works against Wardent as it is set up.
    pub fn warnings(&self, loaded: &Loaded) -> Vec<Problem> {
        let sites = self.sites.iter();
        let mut problems: Vec<_> = sites.flat_map(|site| traps::of(site, loaded)).collect();
        // A snippet that several locations include says it once.
        let mut seen = Vec::new();
        problems.retain(|problem| {
            let key = (problem.file.clone(), problem.line, problem.what.clone());
            let is_new = !seen.contains(&key);
            seen.push(key);
            is_new
        });
        problems
    }

    /// How the sites are reached from this machine, those without TLS first.
    pub fn doors(&self) -> Vec<Door> {
        let doors = self.sites.iter().flat_map(|site| {
            let host = site.name.clone();
            site.listens.iter().map(move |&(address, is_tls)| Door {
                address,
                host: host.clone().unwrap_or_else(|| "localhost".to_owned()),
                is_tls,
            })
        });
        let mut doors: Vec<_> = doors.collect();
        doors.sort_by_key(|door| door.is_tls);
        doors
    }
}

fn inner_of<'a>(block: &'a Directive, name: &'a str) -> impl Iterator<Item = &'a Directive> {
    block.inner().iter().filter(move |one| one.name == name)
}

/// What a block says itself, without its blocks.
fn plain(block: &Directive) -> Vec<Directive> {
    let inner = block.inner().iter();
    inner.filter(|one| one.block.is_none()).cloned().collect()
}

fn locations(
    block: &Directive,
    levels: Vec<Vec<Directive>>,
    to_wardent: &impl Fn(&Directive) -> bool,
    found: &mut Vec<Location>,
) {
    for own in inner_of(block, "location") {
        let (modifier, pattern) = match own.args.as_slice() {
            [pattern] => (String::new(), pattern.clone()),
            [modifier, pattern, ..] => (modifier.clone(), pattern.clone()),
            [] => continue,
        };
        let mut levels = levels.clone();
        levels.push(plain(own));
        // `if` and `limit_except` pass requests on as well.
        let mut blocks = vec![own];
        blocks.extend(inner_of(own, "if").chain(inner_of(own, "limit_except")));
        let mut passes = blocks
            .iter()
            .flat_map(|block| inner_of(block, "proxy_pass"));
        let pass = passes.find(|pass| to_wardent(pass)).cloned();
        found.push(Location {
            modifier,
            pattern,
            levels: levels.clone(),
            pass,
            own: own.clone(),
        });
        locations(own, levels, to_wardent, found);
    }
}

/// Whether `http://name` or `http://address` is where Wardent listens.
fn leads_to(target: &str, upstreams: &[&Directive], wardent: &[Address]) -> bool {
    let Some(rest) = target.strip_prefix("http://") else {
        return false;
    };
    if let Some(path) = rest.strip_prefix("unix:") {
        return is_wardent(
            &format!("unix:{}", path.split(':').next().unwrap_or(path)),
            wardent,
        );
    }
    let name = rest.split('/').next().unwrap_or(rest);
    let mut named = upstreams.iter().filter(|one| one.arg(0) == name).peekable();
    match named.peek() {
        Some(_) => named
            .flat_map(|upstream| inner_of(upstream, "server"))
            .any(|server| is_wardent(server.arg(0), wardent)),
        None => is_wardent(name, wardent),
    }
}

fn is_wardent(text: &str, wardent: &[Address]) -> bool {
    let text = match text.contains(':') {
        true => text.to_owned(),
        // nginx's own default.
        false => format!("{text}:80"),
    };
    let Ok(address) = text.parse::<Address>() else {
        return false;
    };
    wardent.iter().any(|own| match (own, &address) {
        (Address::Tcp(own), Address::Tcp(named)) => {
            own.port() == named.port() && (own.ip() == named.ip() || own.ip().is_unspecified())
        }
        (Address::Unix(own), Address::Unix(named)) => own == named,
        _ => false,
    })
}

fn name_of(server: &Directive) -> Option<String> {
    let names = inner_of(server, "server_name").flat_map(|one| &one.args);
    let mut plain = names.filter(|name| {
        !name.is_empty()
            && *name != "_"
            && !name.starts_with(['.', '~', '*'])
            && !name.ends_with('*')
    });
    plain.next().cloned()
}

/// Where a server listens, as a client on this machine calls it.
fn listens_of(server: &Directive) -> Vec<(SocketAddr, bool)> {
    let listens = inner_of(server, "listen").filter_map(|listen| {
        let text = listen.arg(0).replace('*', "0.0.0.0");
        let address = match text.parse::<u16>() {
            Ok(port) => SocketAddr::from(([127, 0, 0, 1], port)),
            Err(_) => {
                let with_port = match text.rsplit_once(':') {
                    Some((_, port)) if port.parse::<u16>().is_ok() => text,
                    _ => format!("{text}:80"),
                };
                with_port.replace("localhost", "127.0.0.1").parse().ok()?
            }
        };
        let is_tls = listen.args.iter().any(|arg| arg == "ssl");
        Some((reachable(address), is_tls))
    });
    listens.collect()
}

fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip().is_unspecified() {
        true if address.is_ipv4() => SocketAddr::from(([127, 0, 0, 1], address.port())),
        true => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], address.port())),
        false => address,
    }
}

impl Location {
    /// The directive of this name that holds here: the innermost.
    fn said(&self, name: &str) -> Option<&Directive> {
        let levels = self.levels.iter().rev();
        levels
            .flat_map(|level| level.iter().rev())
            .find(|one| one.name == name)
    }

    /// All directives of this name that hold here: those of the innermost block that has any.
    fn all_said(&self, name: &str) -> Vec<&Directive> {
        let of = |level: &'_ Vec<Directive>| level.iter().any(|one| one.name == name);
        let level = self.levels.iter().rev().find(|level| of(level));
        let level = level.into_iter().flatten();
        level.filter(|one| one.name == name).collect()
    }

    fn is_on(&self, name: &str) -> bool {
        self.said(name).is_some_and(|one| one.arg(0) == "on")
    }

    /// The header that it sends to Wardent, where it sets it; names are compared as HTTP does.
    fn header(&self, name: &str) -> Option<&Directive> {
        let set = self.all_said("proxy_set_header");
        set.into_iter()
            .rfind(|one| one.arg(0).eq_ignore_ascii_case(name))
    }

    /// Bytes of a body at most; none for no bound. nginx's own default is 1 MiB.
    fn body_max(&self) -> Option<u64> {
        let said = self.said("client_max_body_size");
        let bytes = said.map_or(Some(1 << 20), |one| size(one.arg(0)));
        bytes.filter(|&bytes| bytes > 0)
    }

    /// How it is called in words.
    fn title(&self) -> String {
        match self.modifier.as_str() {
            "" => format!("location {}", self.pattern),
            modifier => format!("location {modifier} {}", self.pattern),
        }
    }
}

/// `10m`, `8k`, `1g` or bytes.
fn size(text: &str) -> Option<u64> {
    let (digits, factor) = match text.to_ascii_lowercase().chars().last()? {
        'k' => (text.get(..text.len() - 1)?, 1 << 10),
        'm' => (text.get(..text.len() - 1)?, 1 << 20),
        'g' => (text.get(..text.len() - 1)?, 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// `60`, `60s`, `1m` and `500ms`, as nginx writes time; of several parts, the first.
fn time(text: &str) -> Option<std::time::Duration> {
    match text.parse::<u64>() {
        Ok(seconds) => Some(std::time::Duration::from_secs(seconds)),
        Err(_) => parse_duration(text).ok(),
    }
}

#[cfg(test)]
mod tests;
