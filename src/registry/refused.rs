//! What the registry does not do, with Confluent's codes for it.

use std::fmt;

/// Why something was not done. The first three digits of its code are the HTTP status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Confluent's code.
    pub code: u32,
    /// What is wrong, and where it helps, what would be right.
    pub message: String,
}

impl Refused {
    pub(super) fn new(code: u32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(super) fn no_subject(subject: &str) -> Self {
        Self::new(40_401, format!("Subject '{subject}' not found."))
    }

    pub(super) fn no_version(version: impl fmt::Display) -> Self {
        Self::new(40_402, format!("Version {version} not found."))
    }

    pub(super) fn no_schema() -> Self {
        Self::new(40_403, "Schema not found")
    }

    pub(super) fn bad_schema(why: impl fmt::Display) -> Self {
        Self::new(42_201, format!("Invalid schema: {why}"))
    }

    pub(super) fn not_permitted(why: impl Into<String>) -> Self {
        Self::new(42_205, why)
    }

    /// What is asked for is more than is kept or looked at.
    pub(super) fn too_much(why: impl Into<String>) -> Self {
        Self::new(42_209, why)
    }

    pub(super) fn not_kept(why: impl fmt::Display) -> Self {
        Self::new(50_001, format!("not on disk: {why}"))
    }

    pub(super) fn too_late() -> Self {
        Self::new(
            50_002,
            "not on disk yet: it is done as soon as the disk takes it",
        )
    }

    /// Too many ask at once.
    pub(super) fn busy() -> Self {
        Self::new(
            50_003,
            "other schemas are being looked at, and nothing was done: try again",
        )
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        let mut code = self.code;
        while code >= 1_000 {
            code /= 10;
        }
        u16::try_from(code).unwrap_or(500)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for Refused {}
