//! Which header fields mean something to a proxy.

/// A field's meaning to Wardent. Everything else is [`Name::Other`] and passes as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Other,
    Connection,
    /// Names one hop only, and is of no use to the next (RFC 9110 section 7.6.1).
    HopByHop,
    ContentLength,
    Date,
    Expect,
    Host,
    /// Says who the client is, to those that believe it: `CF-*`, `X-Forwarded-*`, `Forwarded`, …
    Identity,
    /// Likewise: `CF-IPCountry`.
    Country,
    /// Likewise: `CF-Ray`.
    Ray,
    ForwardedHost,
    ForwardedProto,
    /// Identity that Wardent sets itself, or that nobody may claim.
    OwnIdentity,
    Te,
    TransferEncoding,
    Upgrade,
    UserAgent,
    SecWebSocketKey,
    SecWebSocketVersion,
    StripeSignature,
    /// `traceparent` and `tracestate` (W3C Trace Context).
    TraceParent,
    TraceState,
    /// The names that the configuration gives, which no `Connection` field can take away.
    ClientIp,
    Edge,
    ConnectingIpv6,
    Secret,
    /// `X-Request-ID` and `X-Wardent-*`: Wardent's own.
    Wardent,
}

/// The header names that the configuration gives, in any case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfiguredNames {
    /// `client_ip.header`.
    pub client_ip: String,
    /// `client_ip.edge.header`.
    pub edge: Option<String>,
    /// `secret.header`.
    pub secret: String,
    /// `secret.upstream.header`.
    pub upstream_secret: Option<String>,
}

impl ConfiguredNames {
    /// What a request's field named `name` means.
    #[inline]
    pub(crate) fn of_request(&self, name: &[u8]) -> Name {
        if is(name, &self.client_ip) {
            return Name::ClientIp;
        }
        if is(name, &self.secret) {
            return Name::Secret;
        }
        if let Some(edge) = &self.edge
            && is(name, edge)
        {
            return Name::Edge;
        }
        if let Some(own) = &self.upstream_secret
            && is(name, own)
        {
            return Name::Wardent;
        }
        well_known(name)
    }
}

#[inline]
fn is(name: &[u8], known: &str) -> bool {
    name.eq_ignore_ascii_case(known.as_bytes())
}

/// What a field named `name` means, whoever sent it.
#[inline]
pub(crate) fn well_known(name: &[u8]) -> Name {
    // By the first letter and then by length: most names of a request are told apart by these alone.
    let Some(first) = name.first() else {
        return Name::Other;
    };
    match first.to_ascii_lowercase() {
        b'c' => well_known_c(name),
        b'd' if is(name, "date") => Name::Date,
        b'e' if is(name, "expect") => Name::Expect,
        b'f' if is(name, "forwarded") => Name::OwnIdentity,
        b'f' if is(name, "fastly-client-ip") => Name::OwnIdentity,
        b'h' if is(name, "host") => Name::Host,
        b'h' if is(name, "http2-settings") => Name::HopByHop,
        b'k' if is(name, "keep-alive") => Name::HopByHop,
        // A CGI variable `HTTP_PROXY` would come of it (httpoxy).
        b'p' if is(name, "proxy") => Name::OwnIdentity,
        b'p' if is(name, "proxy-connection") => Name::HopByHop,
        b'p' if is(name, "proxy-authorization") => Name::HopByHop,
        b's' if is(name, "stripe-signature") => Name::StripeSignature,
        b's' if is(name, "sec-websocket-key") => Name::SecWebSocketKey,
        b's' if is(name, "sec-websocket-version") => Name::SecWebSocketVersion,
        b't' if is(name, "te") => Name::Te,
        b't' if is(name, "transfer-encoding") => Name::TransferEncoding,
        b't' if is(name, "true-client-ip") => Name::OwnIdentity,
        b't' if is(name, "traceparent") => Name::TraceParent,
        b't' if is(name, "tracestate") => Name::TraceState,
        b'u' if is(name, "upgrade") => Name::Upgrade,
        b'u' if is(name, "user-agent") => Name::UserAgent,
        b'x' => well_known_x(name),
        _ => Name::Other,
    }
}

fn well_known_c(name: &[u8]) -> Name {
    match name.len() {
        6 if is(name, "cf-ray") => Name::Ray,
        10 if is(name, "connection") => Name::Connection,
        12 if is(name, "cf-ipcountry") => Name::Country,
        14 if is(name, "content-length") => Name::ContentLength,
        18 if is(name, "cf-connecting-ipv6") => Name::ConnectingIpv6,
        _ if starts_with(name, "cf-") => Name::Identity,
        _ => Name::Other,
    }
}

fn well_known_x(name: &[u8]) -> Name {
    match name.len() {
        9 if is(name, "x-real-ip") => Name::OwnIdentity,
        11 if is(name, "x-client-ip") => Name::OwnIdentity,
        12 if is(name, "x-request-id") => Name::Wardent,
        15 if is(name, "x-forwarded-for") => Name::OwnIdentity,
        16 if is(name, "x-forwarded-host") => Name::ForwardedHost,
        17 if is(name, "x-forwarded-proto") => Name::ForwardedProto,
        19 if is(name, "x-cluster-client-ip") => Name::OwnIdentity,
        _ if starts_with(name, "x-wardent-") => Name::Wardent,
        _ if starts_with(name, "x-forwarded-") => Name::Identity,
        _ => Name::Other,
    }
}

fn starts_with(name: &[u8], prefix: &str) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| is(start, prefix))
}

/// The tokens of a comma-separated field value, trimmed (RFC 9110 section 5.6.1).
pub(crate) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        assert_eq!(well_known(b"TRANSFER-encoding"), Name::TransferEncoding);
        assert_eq!(well_known(b"X-Wardent-Reason"), Name::Wardent);
        assert_eq!(well_known(b"Cf-Ray"), Name::Ray);
        assert_eq!(well_known(b"CF-IPCountry"), Name::Country);
        assert_eq!(well_known(b"cf-visitor"), Name::Identity);
        assert_eq!(well_known(b"x-forwarded-port"), Name::Identity);
        assert_eq!(well_known(b"accept"), Name::Other);
    }

    #[test]
    fn a_configured_name_comes_before_a_well_known_one() {
        let names = ConfiguredNames {
            client_ip: "x-real-ip".to_owned(),
            secret: "x-wardent-secret".to_owned(),
            ..ConfiguredNames::default()
        };
        assert_eq!(names.of_request(b"X-Real-IP"), Name::ClientIp);
        assert_eq!(names.of_request(b"X-Wardent-Secret"), Name::Secret);
    }
}
