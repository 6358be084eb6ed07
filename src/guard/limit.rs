//! May this client ask once more? And what an answer says of it.
//!
//! The fields are those of draft-ietf-httpapi-ratelimit-headers-11, as structured fields (RFC 9651);
//! `Retry-After` is RFC 9110 section 10.2.3.

use crate::limit::{Limit, Spent, seconds};

/// The limits of a route, and their names in answers.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    limits: Vec<Limit>,
    /// What the limits are told under, to other nodes with the how-manieth it is.
    name: String,
    /// Whether one of them counts the requests of all nodes.
    has_shared: bool,
    names: Vec<String>,
    /// The value of `RateLimit-Policy`.
    policy: String,
}

impl Limits {
    /// Limits that are told under `name`, the further ones under `name-2`, `name-3` and so on.
    pub fn new(name: &str, limits: Vec<Limit>) -> Self {
        let names: Vec<_> = (1..=limits.len())
            .map(|nth| match nth {
                1 => name.to_owned(),
                _ => format!("{name}-{nth}"),
            })
            .collect();
        let told = names.iter().zip(&limits).map(|(name, limit)| {
            let window = seconds(limit.quota.window()).max(1);
            format!("\"{name}\";q={};w={window}", limit.quota.burst())
        });
        Self {
            policy: told.collect::<Vec<_>>().join(", "),
            name: name.to_owned(),
            has_shared: limits.iter().any(|limit| limit.quota.is_shared()),
            names,
            limits,
        }
    }

    /// The limits, for the table of clients.
    pub fn as_slice(&self) -> &[Limit] {
        &self.limits
    }

    /// Whether one of them counts the requests of all nodes.
    #[inline]
    pub fn has_shared(&self) -> bool {
        self.has_shared
    }

    /// The limits that count the requests of all nodes, as these call them: `login/1`.
    pub fn shared(&self) -> impl Iterator<Item = (String, &Limit)> {
        let limits = (1..).zip(&self.limits);
        let shared = limits.filter(|(_, limit)| limit.quota.is_shared());
        shared.map(|(nth, limit)| (format!("{}/{nth}", self.name), limit))
    }

    /// Each limit and the name it is told under.
    pub fn named(&self) -> impl Iterator<Item = (&str, &Limit)> {
        self.names.iter().map(String::as_str).zip(&self.limits)
    }

    /// The name of the limit that a request met.
    pub fn name_of(&self, spent: &Spent) -> Option<&str> {
        self.names.get(spent.tightest).map(String::as_str)
    }

    /// Appends the fields that tell the client where it stands: `r` requests are left at once, and
    /// after `t` seconds all are again.
    pub fn write_fields(&self, spent: &Spent, out: &mut Vec<u8>) {
        let Some(name) = self.name_of(spent) else {
            return;
        };
        let mut number = itoa::Buffer::new();
        out.extend_from_slice(b"RateLimit: \"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\";r=");
        out.extend_from_slice(number.format(spent.remaining).as_bytes());
        out.extend_from_slice(b";t=");
        out.extend_from_slice(number.format(seconds(spent.full_in)).as_bytes());
        out.extend_from_slice(b"\r\nRateLimit-Policy: ");
        out.extend_from_slice(self.policy.as_bytes());
        out.extend_from_slice(b"\r\n");
        if !spent.admitted {
            out.extend_from_slice(b"Retry-After: ");
            let wait = seconds(spent.wait).max(1);
            out.extend_from_slice(number.format(wait).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::ClientKey,
        limit::{ClockIds, Keeper, Quota},
    };

    #[test]
    fn the_fields_are_those_of_the_draft() {
        let mut ids = ClockIds::default();
        let mut limit = |nth, rate: &str, burst| Limit {
            quota: Quota::new(rate.parse().unwrap(), burst),
            clock: ids.clock("api", nth).unwrap(),
        };
        let limits = Limits::new("api", vec![limit(0, "20/s", 40), limit(1, "1000/h", 100)]);
        let keeper = Keeper::new(10);
        let client = ClientKey::new([198, 51, 100, 7].into(), 64);
        let mut fields = String::new();
        for _ in 0..41 {
            let spent = keeper
                .clients()
                .spend(keeper.clients().see(client), limits.as_slice(), 5);
            let mut out = Vec::new();
            limits.write_fields(&spent.unwrap(), &mut out);
            let first = fields.is_empty();
            fields = String::from_utf8(out).unwrap();
            if first {
                assert_eq!(
                    fields,
                    "RateLimit: \"api\";r=39;t=1\r\n\
                     RateLimit-Policy: \"api\";q=40;w=2, \"api-2\";q=100;w=360\r\n"
                );
            }
        }
        assert!(
            fields.starts_with("RateLimit: \"api\";r=0;t=2\r\n"),
            "{fields}"
        );
        assert!(fields.ends_with("\r\nRetry-After: 1\r\n"), "{fields}");
    }
}
