//! How requests and answers are written as bytes: the Kafka protocol's types, in both of its shapes.
//!
//! Since KIP-482 a version of an API is either *flexible* (lengths are varints, and every structure ends with
//! tagged fields) or not (lengths are fixed, and there are no tags). A [`Reader`] and a [`Writer`] know which
//! version they are for, so that the code of an API names its fields once.
//!
//! Bytes come from anybody. Whatever they claim, reading them costs memory by what is really there: a count is
//! never believed before its elements are read, and nothing nests deeper than the code that reads it.

mod reader;
mod writer;

#[cfg(test)]
pub(crate) mod oracle;

pub(crate) use reader::Reader;
pub(crate) use writer::Writer;

use std::fmt;

/// A topic's id, or another Kafka Uuid.
pub(crate) type Uuid = [u8; 16];

/// The version of an API that two sides speak, and how its bytes look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) version: i16,
    pub(crate) is_flexible: bool,
}

/// Why bytes are no request: what could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the request is malformed: {}", self.0)
    }
}

impl std::error::Error for Malformed {}
