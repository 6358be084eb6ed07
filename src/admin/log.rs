//! How the log is, and how events get into it: numbers for metrics, words for health.

use std::{fmt, sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::metrics::Encoder;
use crate::{
    log::{CleanerHealth, Log, health::Appending},
    owner::Trouble,
    registry::Registry,
    sink::{builder, lane::LaneCounts, letters},
};

/// The log and the way to it, as the admin side sees them.
#[derive(Debug, Clone)]
pub struct LogView {
    /// The log itself.
    pub log: Arc<Log>,
    /// What each worker has told.
    pub lanes: Vec<Arc<LaneCounts>>,
    /// What has become of that.
    pub builder: Arc<builder::Counts>,
    /// What was deleted and compacted.
    pub cleaner: Arc<CleanerHealth>,
    /// What schemas there are.
    pub registry: Registry,
    /// What could not be read or delivered.
    pub letters: Arc<letters::Counts>,
}

/// A thread of the log's that has taken no turn for so long is taken for stuck; it would each second.
const STUCK_AFTER_MS: u64 = 5_000;
/// The cleaner's, which reads much and is in no hurry.
const CLEANER_STUCK_AFTER_MS: u64 = 60_000;

impl LogView {
    /// Whether all is well, and what is not, in words for the operator, at `now_ms` of the monotonic
    /// clock. A log that is sick keeps no request from being answered.
    pub fn detail(&self, now_ms: u64, of_bans: &Trouble) -> Value {
        let reasons = self.reasons(now_ms, of_bans);
        let state = if reasons.is_empty() { "ok" } else { "degraded" };
        json!({"state": state, "reasons": reasons})
    }

    pub(super) fn reasons(&self, now_ms: u64, of_bans: &Trouble) -> Vec<String> {
        let health = self.log.health();
        let mut reasons = Vec::new();
        for (beat_ms, bound_ms, silent) in [
            (
                self.builder.beat_ms(),
                STUCK_AFTER_MS,
                "batches of events are not built",
            ),
            (
                health.appender_beat_ms.get(),
                STUCK_AFTER_MS,
                "the disk takes no appends",
            ),
            (
                health.flusher_beat_ms.get(),
                STUCK_AFTER_MS,
                "the disk makes nothing safe",
            ),
            (
                self.cleaner.beat_ms.get(),
                CLEANER_STUCK_AFTER_MS,
                "nothing is deleted or compacted",
            ),
        ] {
            let silent_ms = now_ms.saturating_sub(beat_ms);
            if silent_ms >= bound_ms {
                reasons.push(format!("{silent}, for {} s now", silent_ms / 1_000));
            }
        }
        if let Some(why) = of_bans.words() {
            reasons.push(format!("bans and the audit wait: {why}"));
        }
        if let Some(why) = self.builder.trouble() {
            reasons.push(format!("access events wait: {why}"));
        }
        if health.is_full.get() {
            reasons.push("the disk is full".to_owned());
        }
        if !health.has_ballast.get() {
            reasons.push("the room kept for bans is used or not there".to_owned());
        }
        if self.cleaner.is_removed.get() {
            reasons.push(
                "files of the log were removed: what is written to them is lost; start anew"
                    .to_owned(),
            );
        }
        if self.cleaner.is_suspended.get() {
            reasons.push(
                "the clock was set: nothing goes for its age until it is believed".to_owned(),
            );
        }
        match self.cleaner.halted.get() {
            0 => {}
            count => reasons.push(format!(
                "partitions that cannot be compacted for now: {count}"
            )),
        }
        match health.offline.get() {
            0 => {}
            count => reasons.push(format!("partitions that the disk failed: {count}")),
        }
        reasons
    }

    pub(super) fn encode(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        self.events(encoder)?;
        self.appends(encoder)?;
        self.disk(encoder)?;
        kept(&self.cleaner, encoder)
    }

    /// Events that are not in the log, since the start.
    pub(super) fn events_lost(&self) -> u64 {
        self.sum(LaneCounts::lost) + self.builder.given_up()
    }

    fn sum(&self, of: impl Fn(&LaneCounts) -> u64) -> u64 {
        self.lanes.iter().map(|lane| of(lane)).sum()
    }

    fn events(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        let builder = &self.builder;
        encoder.counter(
            "wardent_events",
            "Finished requests that were numbered as events, those that were lost among them",
            self.sum(LaneCounts::numbered),
        )?;
        encoder.counters(
            "wardent_events_lost",
            "Events that are not in the log, by why: no room in a worker's lane, or not written when the process ended",
            "reason",
            [
                ("lane_full", self.sum(LaneCounts::lost)),
                ("stopped", builder.given_up()),
            ]
            .into_iter(),
        )?;
        encoder.counter(
            "wardent_events_gaps",
            "Marks in the log that tell which events were lost",
            self.sum(LaneCounts::gaps),
        )?;
        encoder.counter(
            "wardent_events_written",
            "Records written to wardent.http.access, gaps among them",
            builder.events(),
        )?;
        encoder.counter(
            "wardent_events_batches",
            "Batches written to wardent.http.access",
            builder.batches(),
        )?;
        encoder.counter(
            "wardent_events_bytes",
            "Bytes written to wardent.http.access, as stored",
            builder.bytes(),
        )?;
        encoder.counter(
            "wardent_events_retries",
            "Batches that could not be written and were kept to be offered again",
            builder.refusals(),
        )?;
        encoder.gauge(
            "wardent_events_backlog_bytes",
            "Bytes of batches that wait to be written",
            builder.backlog_bytes(),
        )?;
        encoder.counters(
            "wardent_dead_letters",
            "Records that a consumer of Wardent's own could not read or deliver: put to wardent.dead.letter, or lost",
            "outcome",
            [
                ("written", self.letters.written()),
                ("lost", self.letters.lost()),
            ]
            .into_iter(),
        )
    }

    fn appends(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        let health = self.log.health();
        let of = |number: fn(&Appending) -> u64| {
            [
                ("durable", number(&health.durable)),
                ("lazy", number(&health.lazy)),
            ]
            .into_iter()
        };
        encoder.counters(
            "wardent_log_batches",
            "Batches appended to the log, by when they are acknowledged: on disk (durable), or in the page cache (lazy)",
            "flush",
            of(|appending| appending.batches.get()),
        )?;
        encoder.counters(
            "wardent_log_records",
            "Records appended to the log, by when they are acknowledged",
            "flush",
            of(|appending| appending.records.get()),
        )?;
        encoder.counters(
            "wardent_log_appended_bytes",
            "Bytes appended to the log, as stored, by when they are acknowledged",
            "flush",
            of(|appending| appending.bytes.get()),
        )?;
        encoder.counters(
            "wardent_log_append_errors",
            "Batches that could not be appended to the log, by when they would have been acknowledged",
            "flush",
            of(|appending| appending.errors.get()),
        )
    }

    fn disk(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        let health = self.log.health();
        encoder.counter(
            "wardent_log_syncs",
            "Calls that make what was appended safe (fdatasync)",
            health.syncs.get(),
        )?;
        encoder.counter(
            "wardent_log_sync_errors",
            "Calls of fdatasync that failed, after which a partition is offline until it is healed",
            health.sync_errors.get(),
        )?;
        encoder.seconds(
            "wardent_log_sync_last_seconds",
            "What the last fdatasync took",
            Duration::from_nanos(health.sync_last_ns.get()),
        )?;
        encoder.seconds(
            "wardent_log_sync_max_seconds",
            "What the longest fdatasync since the start took",
            Duration::from_nanos(health.sync_max_ns.get()),
        )?;
        encoder.gauge(
            "wardent_log_offline_partitions",
            "Partitions that take no appends because the disk failed them",
            health.offline.get(),
        )?;
        encoder.counter(
            "wardent_log_healed_partitions",
            "Partitions that were offline and are not any more",
            health.healed.get(),
        )?;
        encoder.counter(
            "wardent_log_checkpoint_errors",
            "Checkpoints that could not be written; they are tried again",
            health.checkpoint_errors.get(),
        )?;
        encoder.gauge(
            "wardent_log_disk_full",
            "Whether the last write to the log found no room",
            u64::from(health.is_full.get()),
        )?;
        encoder.gauge(
            "wardent_log_ballast",
            "Whether the room that is kept for bans is there",
            u64::from(health.has_ballast.get()),
        )?;
        let sizes = self.log.partitions();
        encoder.gauge(
            "wardent_log_bytes",
            "Bytes of all topics on disk",
            sizes.iter().map(|partition| partition.size_bytes()).sum(),
        )
    }
}

/// What the log's keeping comes to: what went, and what was compacted.
fn kept(cleaner: &CleanerHealth, encoder: &mut Encoder<'_>) -> fmt::Result {
    let why = [
        ("age", &cleaner.too_old),
        ("size", &cleaner.too_large),
        ("disk_max", &cleaner.over_cap),
    ];
    encoder.counters(
        "wardent_log_deleted_segments",
        "Segments that were deleted, by why: their age, their topic's size, or log.disk_max",
        "reason",
        why.iter()
            .map(|(why, deleted)| (*why, deleted.segments.get())),
    )?;
    encoder.counters(
        "wardent_log_deleted_bytes",
        "Bytes of the segments that were deleted, by why",
        "reason",
        why.iter().map(|(why, deleted)| (*why, deleted.bytes.get())),
    )?;
    encoder.counter(
        "wardent_log_deletion_errors",
        "Deletions that were not carried out; they are tried again",
        cleaner.deletion_errors.get(),
    )?;
    encoder.gauge(
        "wardent_log_over_disk_max_bytes",
        "Bytes above log.disk_max, with nothing left that may go",
        cleaner.bytes_over.get(),
    )?;
    encoder.gauge(
        "wardent_log_files_removed",
        "Whether somebody removed files of the log, so that what is written to them is lost",
        u64::from(cleaner.is_removed.get()),
    )?;
    encoder.gauge(
        "wardent_log_retention_suspended",
        "Whether nothing goes for its age, because the clock was set and is not believed yet",
        u64::from(cleaner.is_suspended.get()),
    )?;
    encoder.counter(
        "wardent_log_compactions",
        "Passes of compaction that came to their end",
        cleaner.passes.get(),
    )?;
    encoder.counter(
        "wardent_log_compaction_errors",
        "Passes of compaction that broke off: the disk failed, or a batch is damaged",
        cleaner.pass_errors.get(),
    )?;
    encoder.counter(
        "wardent_log_compacted_bytes",
        "Bytes that compaction freed",
        cleaner.compacted_bytes.get(),
    )?;
    encoder.seconds(
        "wardent_log_compaction_last_seconds",
        "What the last pass of compaction took, pauses included",
        Duration::from_millis(cleaner.last_pass_ms.get()),
    )
}
