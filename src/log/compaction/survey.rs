//! The first look at what is to be compacted: it reads everything, and changes nothing.
//!
//! It checks every checksum, so that damage stops a pass before anything was rewritten, and learns what must
//! be known before the first record may go: each key's last offset, each producer's last batch, and where
//! the records begin that cannot be judged.

use std::collections::HashMap;

use super::{
    keys::{KeyName, LastOffsets},
    walk::Chunk,
};
use crate::log::{
    batch::{Damage, View},
    codec::Compression,
};

/// Producers whose last batch is remembered, at some 20 bytes each. The empty batches of more of them stay.
const PRODUCERS_MAX: usize = 100_000;

/// What a survey found.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Below it, each key's last offset was found by an earlier pass and the others are gone.
    first_dirty: i64,
    pub(super) keys: LastOffsets,
    /// The base offset of each producer's last batch.
    producers: HashMap<i64, i64>,
    /// The first batch that cannot be judged, because its compression is unknown here.
    pub(super) first_unread: Option<i64>,
    /// The first batch whose keys had no room.
    cut: Option<i64>,
    scratch: Vec<u8>,
}

impl Survey {
    pub(super) fn new(first_dirty: i64, keys_max: usize) -> Self {
        Self {
            first_dirty,
            keys: LastOffsets::new(keys_max),
            ..Self::default()
        }
    }

    /// Takes in some batches. Says where one is damaged, and how.
    pub(super) fn take(&mut self, chunk: &Chunk<'_>) -> Result<(), (u64, Damage)> {
        let mut rest = chunk.bytes;
        while !rest.is_empty() && self.cut.is_none() {
            let position = chunk.position + (chunk.bytes.len() - rest.len()) as u64;
            let at = |damage| (position, damage);
            let (view, after) = View::read(rest).map_err(at)?;
            view.verify().map_err(at)?;
            self.take_batch(&view).map_err(at)?;
            rest = after;
        }
        Ok(())
    }

    fn take_batch(&mut self, view: &View<'_>) -> Result<(), Damage> {
        let is_read = is_read(view);
        let is_dirty = view.last_offset() >= self.first_dirty;
        if is_dirty && is_read && !view.is_control() {
            if !self.keys.has_room_for(view.count() as usize) {
                self.cut = Some(view.base_offset());
                return Ok(());
            }
            for record in view.records(&mut self.scratch)? {
                let record = record?;
                if let Some(key) = record.key {
                    self.keys.see(KeyName::of(key), record.offset);
                }
            }
        }
        if !is_read {
            self.first_unread.get_or_insert(view.base_offset());
        }
        let is_known = self.producers.contains_key(&view.producer_id());
        if view.producer_id() >= 0 && (is_known || self.producers.len() < PRODUCERS_MAX) {
            self.producers
                .insert(view.producer_id(), view.base_offset());
        }
        Ok(())
    }

    /// The first offset that this pass does not judge, where the keys of all did not fit.
    pub(super) fn cut(&self) -> Option<i64> {
        self.cut
    }

    /// Whether this batch must stay even when none of its records does: it holds its producer's last number,
    /// without which a batch that is sent again would not be known for one.
    pub(super) fn is_producers_last(&self, view: &View<'_>) -> bool {
        let producer = view.producer_id();
        match self.producers.get(&producer) {
            Some(last) => *last == view.base_offset(),
            None => producer >= 0,
        }
    }
}

/// Whether the records can be looked at: a later Kafka may have stored them with a compression of its own.
pub(super) fn is_read(view: &View<'_>) -> bool {
    Compression::of(view.codec()).is_some()
}
