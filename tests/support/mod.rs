//! The stage the promises are played on: a Wardent in this process, an origin that records every
//! byte, and a client that sends exactly what it is told.
//!
//! Everything here waits with a deadline, uses a port the system picks and a directory of its own,
//! so all tests may run at once.
#![expect(dead_code, reason = "every test file uses its own part of the stage")]

pub(crate) mod admin;
pub(crate) mod client;
pub(crate) mod h2;
pub(crate) mod message;
pub(crate) mod metrics;
pub(crate) mod origin;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod records;
pub(crate) mod rig;
pub(crate) mod schema;
pub(crate) mod sign;
pub(crate) mod stream;
pub(crate) mod time;
pub(crate) mod wardent;

/// The key that lets the good client in: 32 bytes.
pub(crate) const KEY: &str = "k1secret-thirty-two-bytes-long-0";

/// A second key, for rotation: 32 bytes.
pub(crate) const KEY_2: &str = "k2secret-thirty-two-bytes-long-0";

/// The address the good client comes from, as Cloudflare tells it.
pub(crate) const CLIENT: &str = "198.51.100.7";

/// `{P}` of the case catalogue: what every good request carries.
pub(crate) const P: &str = "Host: app.test\r\nUser-Agent: wtest/1\r\nCF-Connecting-IP: 198.51.100.7\r\nX-Wardent-Secret: k1secret-thirty-two-bytes-long-0\r\n";

/// `{P}` without its Host.
pub(crate) const P_NOHOST: &str = "User-Agent: wtest/1\r\nCF-Connecting-IP: 198.51.100.7\r\nX-Wardent-Secret: k1secret-thirty-two-bytes-long-0\r\n";

/// `{P}` without the client's address.
pub(crate) const P_NOIP: &str = "Host: app.test\r\nUser-Agent: wtest/1\r\nX-Wardent-Secret: k1secret-thirty-two-bytes-long-0\r\n";

/// `{P}` without the secret.
pub(crate) const P_NOSECRET: &str =
    "Host: app.test\r\nUser-Agent: wtest/1\r\nCF-Connecting-IP: 198.51.100.7\r\n";

/// `{P}` for a client with another address.
pub(crate) fn p_from(client_ip: &str) -> String {
    P.replace(CLIENT, client_ip)
}

/// The bytes of a case: `{P}`, `{P-nohost}`, `{P-noip}` and `{P-nosecret}` stand for their headers.
pub(crate) fn expand(template: &[u8]) -> Vec<u8> {
    let words = [
        (&b"{P}"[..], P),
        (b"{P-nohost}", P_NOHOST),
        (b"{P-noip}", P_NOIP),
        (b"{P-nosecret}", P_NOSECRET),
    ];
    let mut out = Vec::with_capacity(template.len() + P.len());
    let mut rest = template;
    while !rest.is_empty() {
        if let Some((word, meaning)) = words.iter().find(|(word, _)| rest.starts_with(word)) {
            out.extend_from_slice(meaning.as_bytes());
            rest = &rest[word.len()..];
        } else {
            out.push(rest[0]);
            rest = &rest[1..];
        }
    }
    out
}

/// A good GET without a body.
pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\n{P}\r\n")
}

/// A good GET with a nonce the origin's answer must repeat.
pub(crate) fn get_nonce(target: &str, nonce: &str) -> String {
    format!("GET {target} HTTP/1.1\r\n{P}X-Nonce: {nonce}\r\n\r\n")
}

/// A good POST with its length declared.
pub(crate) fn post(target: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {target} HTTP/1.1\r\n{P}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A body as chunks of the sizes given, the last size repeated until nothing is left.
pub(crate) fn chunked(body: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = body;
    let mut turn = 0;
    while !rest.is_empty() {
        let size = sizes[turn.min(sizes.len() - 1)].min(rest.len());
        out.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        out.extend_from_slice(&rest[..size]);
        out.extend_from_slice(b"\r\n");
        rest = &rest[size..];
        turn += 1;
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

/// Bytes that look like nothing in particular and differ at every place.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut random = random::Random::seeded(u64::try_from(len).unwrap());
    (0..len).map(|_| random.byte()).collect()
}
