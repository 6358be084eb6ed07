//! Signatures as the other side makes them.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// HMAC-SHA256 in lower-case hex.
pub(crate) fn hmac_hex(key: &str, message: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(message);
    let mut hex = String::new();
    for byte in mac.finalize().into_bytes() {
        write!(hex, "{byte:02x}").unwrap();
    }
    hex
}

/// What a signed secret header speaks of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signed<'a> {
    pub(crate) id: &'a str,
    pub(crate) key: &'a str,
    pub(crate) seconds: i64,
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    pub(crate) target: &'a str,
    pub(crate) client_ip: &'a str,
}

impl Signed<'_> {
    /// The HMAC alone.
    pub(crate) fn hex(&self) -> String {
        let Self {
            key,
            seconds,
            method,
            host,
            target,
            client_ip,
            ..
        } = self;
        let message = format!("v1\n{seconds}\n{method}\n{host}\n{target}\n{client_ip}");
        hmac_hex(key, message.as_bytes())
    }

    /// `v1=<key id>.<unix seconds>.<hex>`.
    pub(crate) fn value(&self) -> String {
        format!("v1={}.{}.{}", self.id, self.seconds, self.hex())
    }
}

/// The `v1` of a Stripe signature over a body at a time.
pub(crate) fn stripe_v1(secret: &str, seconds: i64, body: &[u8]) -> String {
    let payload = [format!("{seconds}.").as_bytes(), body].concat();
    hmac_hex(secret, &payload)
}

/// A whole `Stripe-Signature` value.
pub(crate) fn stripe(secret: &str, seconds: i64, body: &[u8]) -> String {
    let v1 = stripe_v1(secret, seconds, body);
    format!("t={seconds},v1={v1}")
}
