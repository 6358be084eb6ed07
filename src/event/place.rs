//! Every event has a number, so that a reader can prove that none is missing, or see the hole.
//!
//! One life of the process is a run. In it every worker counts its events: 1, 2, 3 and so on. An event
//! that found no room has taken its number all the same, and a [`Gap`] tells the numbers that were lost.

use std::{fmt, io::Write as _};

use super::time::Stamps;

/// One life of the process: 8 hexadecimal digits, drawn at its start.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Run([u8; 8]);

impl Run {
    /// The run of this number.
    pub fn new(number: u32) -> Self {
        let mut text = [0; 8];
        for (nth, digit) in text.iter_mut().rev().enumerate() {
            let nibble = (number >> (4 * nth)) & 15;
            *digit = b"0123456789abcdef"
                .get(nibble as usize)
                .copied()
                .unwrap_or(b'0');
        }
        Self(text)
    }

    /// The digits.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Run({self})")
    }
}

/// Where an event stands among all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which life of the process.
    pub run: Run,
    /// Which worker.
    pub lane: u32,
    /// Which event of that worker; the first is 1.
    pub seq: u64,
}

impl Place {
    /// What the events of one worker in one run have in common, as text: the key of what belongs to no
    /// client.
    pub fn lane_text(&self) -> String {
        format!("{}-{}", self.run, self.lane)
    }
}

/// Events that were lost, one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first of them.
    pub first: Place,
    /// The number of the last.
    pub last_seq: u64,
    /// When the first arrived, in milliseconds since 1970.
    pub unix_ms: u64,
}

impl Gap {
    /// How many were lost.
    pub fn events(&self) -> u64 {
        self.last_seq - self.first.seq + 1
    }

    /// Appends the gap as JSON.
    pub fn write(&self, stamps: &Stamps, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"event\":\"gap\",\"v\":1,\"time\":\"");
        stamps.write_rfc3339(self.unix_ms, out);
        let (Place { run, lane, seq }, to, events) = (self.first, self.last_seq, self.events());
        // Writing to memory does not fail.
        let _ = write!(
            out,
            "\",\"run\":\"{run}\",\"lane\":{lane},\"from\":{seq},\"to\":{to},\"events\":{events},\
             \"reason\":\"lane_full\"}}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_names_every_number_that_is_missing() {
        let gap = Gap {
            first: Place {
                run: Run::new(0xc0ffee),
                lane: 1,
                seq: 1000,
            },
            last_seq: 1041,
            unix_ms: 1_795_255_201_042,
        };
        let mut out = Vec::new();
        gap.write(&Stamps::default(), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"event\":\"gap\",\"v\":1,\"time\":\"2026-11-21T10:00:01.042Z\",\"run\":\"00c0ffee\",\
             \"lane\":1,\"from\":1000,\"to\":1041,\"events\":42,\"reason\":\"lane_full\"}"
        );
        assert_eq!(gap.first.lane_text(), "00c0ffee-1");
    }
}
