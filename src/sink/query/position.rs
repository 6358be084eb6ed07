//! A place between the events of some partitions, from which reading goes on either way.

use std::{collections::BTreeMap, fmt, str::FromStr};

/// For each partition the offset of the first event that lies behind this place.
///
/// Read oldest first, the events at these offsets and after come next; read newest first, those
/// before them. As text: `0-1042.1-977`, partition and offset each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position(BTreeMap<u32, i64>);

/// Partitions of one position at most.
const PARTITIONS_MAX: usize = 1_024;

impl Position {
    /// The offset in a partition; none where it says nothing of that partition.
    pub fn offset(&self, partition: u32) -> Option<i64> {
        self.0.get(&partition).copied()
    }

    /// Moves it within one partition.
    pub fn set(&mut self, partition: u32, offset: i64) {
        self.0.insert(partition, offset);
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (partition, offset)) in self.0.iter().enumerate() {
            let dot = if index == 0 { "" } else { "." };
            write!(f, "{dot}{partition}-{offset}")?;
        }
        Ok(())
    }
}

/// A text that is no position: it was not given by an earlier answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPosition;

impl fmt::Display for BadPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("give `next` of an earlier answer, as it stands there")
    }
}

impl std::error::Error for BadPosition {}

impl FromStr for Position {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Self, BadPosition> {
        let mut position = Self::default();
        for part in text.split('.').filter(|part| !part.is_empty()) {
            let (partition, offset) = part.split_once('-').ok_or(BadPosition)?;
            let is_plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
            if !(is_plain(partition) && is_plain(offset)) || position.0.len() == PARTITIONS_MAX {
                return Err(BadPosition);
            }
            let partition = partition.parse().map_err(|_| BadPosition)?;
            let offset = offset.parse().map_err(|_| BadPosition)?;
            if position.0.insert(partition, offset).is_some() {
                return Err(BadPosition);
            }
        }
        Ok(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        let mut position = Position::default();
        assert_eq!("".parse(), Ok(position.clone()));
        position.set(1, 977);
        position.set(0, i64::MAX);
        assert_eq!(position.to_string(), "0-9223372036854775807.1-977");
        assert_eq!(position.to_string().parse(), Ok(position));
    }

    #[test]
    fn what_no_answer_gave_is_refused() {
        for text in [
            "x",
            "0",
            "0-",
            "-1",
            "0--1",
            "0-1.0-2",
            "0-9223372036854775808",
            "4294967296-0",
        ] {
            assert_eq!(text.parse::<Position>(), Err(BadPosition), "{text}");
        }
        let many: String = (0..=PARTITIONS_MAX)
            .map(|index| format!("{index}-0."))
            .collect();
        assert_eq!(many.parse::<Position>(), Err(BadPosition));
    }
}
