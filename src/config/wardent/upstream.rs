//! `upstream`: the application, and how long it may take.

use std::{num::NonZeroU32, time::Duration};

use serde::Deserialize;

use crate::{
    base::net::Upstream,
    config::{
        report::shown,
        words::{self, FromWord, one},
    },
};

/// The application behind Wardent.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct UpstreamSection {
    /// Its servers; several are balanced. Never empty.
    #[serde(deserialize_with = "words::words")]
    pub servers: Vec<Upstream>,
    /// What is asked of each server, where it is asked at all.
    #[serde(default)]
    pub health: Option<Health>,
    /// How long connecting may take.
    #[serde(default = "connect_timeout", deserialize_with = "one")]
    pub connect_timeout: Duration,
    /// How long the response head may take.
    #[serde(default = "minute", deserialize_with = "one")]
    pub response_timeout: Duration,
    /// How long a body may be silent.
    #[serde(default = "minute", deserialize_with = "one")]
    pub idle_timeout: Duration,
    /// How long an idle pooled connection is used again.
    #[serde(default = "pool_idle", deserialize_with = "one")]
    pub pool_idle: Duration,
    /// How long an upgraded connection may be silent.
    #[serde(default = "tunnel_idle", deserialize_with = "one")]
    pub tunnel_idle: Duration,
    /// How many requests may be on their way at once; more are refused.
    #[serde(default = "in_flight", deserialize_with = "one")]
    pub max_in_flight: NonZeroU32,
}

/// An active health check.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping")]
pub struct Health {
    /// What is asked for.
    #[serde(deserialize_with = "one")]
    pub path: HealthPath,
    /// How often.
    #[serde(default = "health_interval", deserialize_with = "one")]
    pub interval: Duration,
}

/// A request target in origin form, as it goes onto the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthPath(String);

impl HealthPath {
    /// The target.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromWord for HealthPath {
    const EXPECTED: &'static str = "a path such as /healthz";

    fn from_word(word: &str) -> Result<Self, String> {
        let is_target = word
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#');
        match word.starts_with('/') && is_target {
            true => Ok(Self(word.to_owned())),
            false => Err(format!(
                "`{}` is not a path to ask for (use one such as /healthz, percent-encoded)",
                shown(word)
            )),
        }
    }
}

fn in_flight() -> NonZeroU32 {
    const IN_FLIGHT: NonZeroU32 = NonZeroU32::new(1_024).unwrap();
    IN_FLIGHT
}

fn connect_timeout() -> Duration {
    Duration::from_secs(2)
}

fn minute() -> Duration {
    Duration::from_secs(60)
}

/// Below gunicorn's keep-alive of 2 s, so that it is Wardent who closes.
fn pool_idle() -> Duration {
    Duration::from_secs(1)
}

fn tunnel_idle() -> Duration {
    Duration::from_secs(3_600)
}

fn health_interval() -> Duration {
    Duration::from_secs(2)
}
