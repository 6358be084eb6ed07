//! The whole of a replay: one thread reads and puts in order, another judges and counts.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
    thread,
};

use ipnet::IpNet;

use super::{
    engine::{Engine, Mind},
    reader::{Reader, Reading},
    record::{Recorded, Shown},
    report::{Report, Tally},
};
use crate::{
    guard::bots::Bots,
    log::{Partition, ReadError},
};

/// Deliveries of the reader that wait.
const WAITING_MAX: usize = 4;

/// What is to be replayed.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The partitions of the access topic.
    pub partitions: &'a [Arc<Partition>],
    /// From when on, in milliseconds since 1970.
    pub since_ms: u64,
    /// Until before when, likewise.
    pub until_ms: u64,
    /// Whose requests are told; all are judged.
    pub of: Option<IpNet>,
    /// What is known of bots.
    pub bots: &'a Bots,
    /// Set by whoever wants it to end early.
    pub is_over: &'a AtomicBool,
}

/// How far it is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// What was read so far.
    pub reading: Reading,
    /// Requests that were judged.
    pub judged: u64,
    /// When the last of them came, in milliseconds since 1970.
    pub unix_ms: u64,
}

/// Has both policies judge all requests of the plan. `tell` hears now and then how far it is.
///
/// # Errors
/// When the log cannot be read.
pub fn replay(
    plan: &Plan<'_>,
    current: Mind,
    candidate: Mind,
    tell: &mut dyn FnMut(Progress),
) -> Result<Report, ReadError> {
    let mut reader = Reader::new(plan.partitions, plan.since_ms, plan.until_ms)?;
    let mut current = Engine::new(current, plan.since_ms);
    let mut candidate = Engine::new(candidate, plan.since_ms);
    let (deliver, delivered) = sync_channel(WAITING_MAX);
    thread::scope(move |scope| {
        scope.spawn(move || {
            loop {
                let next = reader.next();
                let is_last = !matches!(next, Ok(Some(_)));
                // Who judges may have been told to end.
                if deliver.send((next, reader.reading())).is_err() || is_last {
                    return;
                }
            }
        });
        let policies = (Arc::clone(current.policy()), Arc::clone(candidate.policy()));
        let mut tally = Tally::default();
        let mut judged = 0;
        while let Ok((next, reading)) = delivered.recv() {
            tally.reading = reading;
            let Some(requests) = next? else {
                return Ok(tally.report(true));
            };
            let last_ms = requests.last().map_or(0, |last| last.unix_ms);
            for request in &requests {
                let as_now = current.judge(&policies.0, plan.bots, request);
                let as_then = candidate.judge(&policies.1, plan.bots, request);
                if plan.of.is_none_or(|of| is_of(request, of)) {
                    tally.add(request, &as_now, &as_then);
                }
            }
            tally.bans(current.began(), candidate.began(), plan.of);
            judged += requests.len() as u64;
            tell(Progress {
                reading,
                judged,
                unix_ms: last_ms,
            });
            if plan.is_over.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(tally.report(false))
    })
}

fn is_of(request: &Recorded, of: IpNet) -> bool {
    match request.client {
        Shown::Whole(ip) => of.contains(&IpNet::from(IpAddr::to_canonical(&ip))),
        Shown::Nobody | Shown::Hashed(_) | Shown::Truncated => false,
    }
}
