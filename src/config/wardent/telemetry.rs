//! `telemetry`: what the process says of itself, and to whom.

use std::time::Duration;

use serde::Deserialize;

use crate::{
    config::{
        report::shown,
        words::{FromWord, one, optional, vocabulary},
    },
    telemetry::post::Target,
};

/// Traces, signs of life and the process's own log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping")]
pub struct Telemetry {
    /// The collector traces go to.
    #[serde(deserialize_with = "optional")]
    pub otlp: Option<PlainUrl>,
    /// How many of the traces that begin here are recorded.
    #[serde(deserialize_with = "one")]
    pub sample: Share,
    /// The monitor that is told that all is well.
    pub ping: Option<Ping>,
    /// How much the process says.
    #[serde(deserialize_with = "one")]
    pub log: LogLevel,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            otlp: None,
            sample: Share::ALL,
            ping: None,
            log: LogLevel::Info,
        }
    }
}

/// A monitor that raises the alarm when it no longer hears that all is well.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping {url: …, interval: 1m}")]
pub struct Ping {
    /// What is asked for.
    #[serde(deserialize_with = "one")]
    pub url: PlainUrl,
    /// How often.
    #[serde(default = "ping_interval", deserialize_with = "one")]
    pub interval: Duration,
}

fn ping_interval() -> Duration {
    Duration::from_secs(60)
}

/// The `http://` address of a collector or a monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainUrl(Target);

impl PlainUrl {
    /// What it means.
    pub fn target(&self) -> &Target {
        &self.0
    }
}

impl FromWord for PlainUrl {
    const EXPECTED: &'static str = "an address such as http://127.0.0.1:4318";

    // The address is not repeated: a password may stand in it.
    fn from_word(word: &str) -> Result<Self, String> {
        let uri = word.parse::<http::Uri>().ok();
        if uri.as_ref().and_then(http::Uri::scheme_str) == Some("https") {
            return Err(format!(
                "must be {}: TLS is not spoken here (put a collector or a relay on this host)",
                Self::EXPECTED
            ));
        }
        let target = uri.as_ref().and_then(Target::of);
        target
            .map(Self)
            .ok_or_else(|| format!("must be {}", Self::EXPECTED))
    }
}

/// A part of a whole, exact to a millionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    millionths: u32,
}

impl Share {
    /// The whole.
    pub const ALL: Self = Self {
        millionths: 1_000_000,
    };

    /// In millionths.
    pub fn millionths(self) -> u32 {
        self.millionths
    }
}

impl FromWord for Share {
    const EXPECTED: &'static str = "a number from 0 to 1, such as 0.1";

    fn from_word(word: &str) -> Result<Self, String> {
        let wrong = || format!("`{}` is not {}", shown(word), Self::EXPECTED);
        let (whole, part) = word.split_once('.').unwrap_or((word, "0"));
        let is_part = (1..=6).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        if !is_part || !matches!(whole, "0" | "1") {
            return Err(wrong());
        }
        let part: u32 = format!("{part:0<6}").parse().map_err(|_| wrong())?;
        match (whole, part) {
            ("0", millionths) => Ok(Self { millionths }),
            ("1", 0) => Ok(Self::ALL),
            _ => Err(wrong()),
        }
    }
}

vocabulary! {
    /// How much the process says about itself.
    LogLevel {
        /// What an operator must act on.
        Error = "error",
        /// And what an operator should look at.
        Warn = "warn",
        /// And what happens.
        Info = "info",
        /// And why.
        Debug = "debug",
        /// And every step.
        Trace = "trace",
    }
}
