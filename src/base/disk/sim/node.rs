//! The bytes of a file: in the page cache, and on the disk.

use std::collections::BTreeMap;

use crate::base::fuzz::Dice;

/// What a disk writes whole or not at all.
pub(super) const SECTOR: usize = 512;

/// The bytes of a file.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    /// What everybody reads.
    pub(super) cache: Vec<u8>,
    /// What a power cut cannot take.
    safe: Vec<u8>,
    /// What was done and is not safe, the oldest first.
    since: Vec<Change>,
    /// How often it is open.
    pub(super) handles: usize,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, written) => {
                let end = offset + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(written);
            }
            Self::SetLen(len) => bytes.resize(*len, 0),
        }
    }
}

impl Node {
    /// One whose bytes are safe.
    pub(super) fn settled(bytes: Vec<u8>) -> Self {
        Self {
            cache: bytes.clone(),
            safe: bytes,
            ..Self::default()
        }
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.change(Change::Write(offset, bytes.to_vec()));
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.change(Change::SetLen(len));
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.cache);
        self.since.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.since.drain(..) {
            change.apply(&mut self.safe);
        }
    }

    /// A sync that fails: the system takes the pages for clean, whatever of them reached the disk.
    pub(super) fn fail_sync(&mut self, dice: &mut Dice) {
        if dice.below(2) == 0 {
            self.safe = self.survivor(dice);
        }
        self.since.clear();
    }

    /// After a power cut: what was made safe, and of the rest nothing, all, the first things done with
    /// the last of them torn, or any sectors of it.
    pub(super) fn survivor(&self, dice: &mut Dice) -> Vec<u8> {
        match dice.below(8) {
            0 => self.safe.clone(),
            1 => self.after_first(self.since.len(), dice),
            2 | 3 => self.after_first(dice.below(self.since.len() + 1), dice),
            _ => self.scattered(dice),
        }
    }

    /// What the first changes made, and the first sectors of the next.
    fn after_first(&self, count: usize, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.safe.clone();
        let (first, rest) = self.since.split_at(count);
        for change in first {
            change.apply(&mut bytes);
        }
        if let Some(Change::Write(offset, written)) = rest.first() {
            let sectors = dice.below(written.len() / SECTOR + 2);
            let end = (offset / SECTOR + sectors) * SECTOR;
            let torn = end.saturating_sub(*offset).min(written.len());
            if torn > 0 {
                Change::Write(*offset, written[..torn].to_vec()).apply(&mut bytes);
            }
        }
        bytes
    }

    /// Each sector as it was at some time since the last sync, and so the length; where the length is
    /// there and the bytes are not, there are zeros.
    fn scattered(&self, dice: &mut Dice) -> Vec<u8> {
        let mut lengths = vec![self.safe.len()];
        let mut versions = BTreeMap::<usize, Vec<[u8; SECTOR]>>::new();
        let mut bytes = self.safe.clone();
        for change in &self.since {
            let before = bytes.len();
            change.apply(&mut bytes);
            lengths.push(bytes.len());
            let (from, to) = match change {
                Change::Write(offset, written) => (*offset, offset + written.len()),
                Change::SetLen(len) => (*len.min(&before), *len.max(&before)),
            };
            for sector in from / SECTOR..to.div_ceil(SECTOR) {
                versions
                    .entry(sector)
                    .or_default()
                    .push(sector_of(&bytes, sector));
            }
        }
        let luck = [20, 50, 80, 95][dice.below(4)];
        let lucky = |dice: &mut Dice| dice.below(100) < luck;
        let len = match lucky(dice) {
            true => bytes.len(),
            false => lengths[dice.below(lengths.len())],
        };
        let mut survivor = self.safe.clone();
        for (sector, versions) in versions {
            let version = match lucky(dice) {
                true => versions.last(),
                false => versions.get(dice.below(versions.len() + 1)),
            };
            if let Some(version) = version {
                Change::Write(sector * SECTOR, version.to_vec()).apply(&mut survivor);
            }
        }
        survivor.resize(len, 0);
        survivor
    }
}

fn sector_of(bytes: &[u8], sector: usize) -> [u8; SECTOR] {
    let mut version = [0; SECTOR];
    let start = (sector * SECTOR).min(bytes.len());
    let end = (start + SECTOR).min(bytes.len());
    version[..end - start].copy_from_slice(&bytes[start..end]);
    version
}
