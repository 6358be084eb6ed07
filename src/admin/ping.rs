//! Tells a monitor elsewhere that all is well, as long as it is: silence is what the monitor calls for.
//!
//! A ping is sent only where the watchdog lately found all well and lately had a canary back, so that it stops
//! with anything that hangs: a worker, the owner of bans, the watchdog itself, and the thread that sends it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::View;
use crate::telemetry::post::{self, Target};

/// How old what the watchdog found may be. It looks once a second.
const FRESH_MS: u64 = 5_000;

/// Pings until the task is dropped.
pub async fn keep_pinging(view: Arc<View>, monitor: Target, interval: Duration) {
    let mut turns = tokio::time::interval(interval);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut is_reached = true;
    loop {
        turns.tick().await;
        if !all_is_well(&view) {
            continue;
        }
        let trouble = match post::get(&monitor).await {
            Ok((status, _)) if status.is_success() => None,
            Ok((status, _)) => Some(format!("it answers {status}")),
            Err(error) => Some(error.to_string()),
        };
        let vitals = &view.vitals;
        let count = match trouble {
            None => &vitals.pings_answered,
            Some(_) => &vitals.pings_failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
        match (&trouble, is_reached) {
            (Some(why), true) => tracing::warn!(to = ?monitor, why, "the monitor is not reached"),
            (None, false) => tracing::info!(to = ?monitor, "the monitor is reached again"),
            (Some(_), false) | (None, true) => {}
        }
        is_reached = trouble.is_none();
    }
}

fn all_is_well(view: &View) -> bool {
    let now_ms = view.shared.clock.monotonic_ns() / 1_000_000;
    let vitals = &view.vitals;
    let moments = [&vitals.well_ms, &vitals.canary_ms];
    let moments = moments.map(|moment| moment.load(Ordering::Relaxed));
    let is_alarmed = vitals.is_alarmed.load(Ordering::Relaxed);
    !is_alarmed && moments.iter().all(|&moment_ms| is_fresh(moment_ms, now_ms))
}

/// Whether something that happened at `moment_ms`, zero for never, is still worth telling.
fn is_fresh(moment_ms: u64, now_ms: u64) -> bool {
    moment_ms != 0 && now_ms.saturating_sub(moment_ms) < FRESH_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_was_or_was_long_ago_is_not_told() {
        assert!(!is_fresh(0, 1_000));
        assert!(is_fresh(1_000, 5_999));
        assert!(!is_fresh(1_000, 6_000));
    }
}
