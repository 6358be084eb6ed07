//! Ids for idempotent producers, none of them given twice (KIP-98).
//!
//! A block of ids is set aside before the first of them is given: what is left of it when the process ends is
//! given to nobody.

use std::ops::Range;

use serde_json::json;
use tokio::sync::Mutex;

use super::meta::{Meta, NotKept};

/// Under which it is kept how far ids are set aside.
const KEY: &str = "producer-ids";

/// Ids that are set aside at once.
const BLOCK: i64 = 1000;

/// Gives ids.
#[derive(Debug, Default)]
pub(crate) struct ProducerIds {
    /// What is left of the block that was set aside last.
    left: Mutex<Range<i64>>,
}

impl ProducerIds {
    /// An id that nobody has had.
    ///
    /// # Errors
    /// When none could be set aside.
    pub(crate) async fn next(&self, meta: &Meta) -> Result<i64, NotKept> {
        let mut left = self.left.lock().await;
        if left.is_empty() {
            let kept = meta.get(KEY);
            let kept = kept.as_ref().and_then(|kept| kept.get("next")?.as_i64());
            let first = kept.unwrap_or(0).max(left.end);
            let end = first
                .checked_add(BLOCK)
                .ok_or_else(|| NotKept::Refused("there are no more producer ids".to_owned()))?;
            meta.put(KEY, Some(json!({ "next": end }))).await?;
            *left = first..end;
        }
        let own = left.start;
        left.start += 1;
        Ok(own)
    }
}
