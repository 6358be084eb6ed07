//! The whole of a replay: one thread reads and puts in order, one judges by the policy in force, one by the
//! candidate, and counts.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use ipnet::IpNet;

use super::{
    engine::{self, Ban, Engine, Mind},
    reader::{Reader, Reading, Requests},
    record::{Recorded, Shown},
    report::{Report, Tally},
};
use crate::{
    guard::{bots::Bots, policy::Policy},
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
    let reader = Reader::new(plan.partitions, plan.since_ms, plan.until_ms)?;
    let current = Engine::new(current, plan.since_ms);
    let mut candidate = Engine::new(candidate, plan.since_ms);
    let policies = [&current, &candidate].map(|engine| Arc::clone(engine.policy()));
    let [policy_now, policy_then] = &policies;
    let (deliver, delivered) = sync_channel(WAITING_MAX);
    let (pass_on, passed_on) = sync_channel(WAITING_MAX);
    thread::scope(move |scope| {
        scope.spawn(move || read(reader, &deliver));
        scope.spawn(move || judge(current, policy_now, plan.bots, &delivered, &pass_on));
        let mut tally = Tally::default();
        let mut judged = 0;
        while let Ok(delivery) = passed_on.recv() {
            let Judged {
                requests,
                reading,
                by_current,
                bans,
            } = delivery?;
            tally.reading = reading;
            for (request, as_now) in requests.iter().zip(&by_current) {
                let as_then = candidate.judge(policy_then, plan.bots, request);
                if plan.of.is_none_or(|of| is_of(request, of)) {
                    tally.add(request, as_now, &as_then);
                }
            }
            tally.bans(bans.into_iter(), candidate.began(), plan.of);
            judged += requests.len() as u64;
            tell(Progress {
                reading,
                judged,
                unix_ms: requests.last().map_or(plan.until_ms, |last| last.unix_ms),
            });
            if requests.is_empty() {
                return Ok(tally.report(true));
            }
            if plan.is_over.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(tally.report(false))
    })
}

/// Requests in their order, and what was read up to there. None of them: there are no more.
struct Delivery {
    requests: Requests,
    reading: Reading,
}

/// The same, with what the policy in force says of each.
struct Judged<'p> {
    requests: Requests,
    reading: Reading,
    by_current: Vec<engine::Judged<'p>>,
    bans: Vec<Ban>,
}

/// Reads to the end, or until nobody takes it any more.
fn read(mut reader: Reader, deliver: &SyncSender<Result<Delivery, ReadError>>) {
    loop {
        let next = reader.next();
        let is_last = !matches!(next, Ok(Some(_)));
        let delivery = next.map(|requests| Delivery {
            requests: requests.unwrap_or_default(),
            reading: reader.reading(),
        });
        if deliver.send(delivery).is_err() || is_last {
            return;
        }
    }
}

/// Has the policy in force judge what is delivered, and passes it on.
fn judge<'p>(
    mut current: Engine,
    policy: &'p Policy,
    bots: &Bots,
    delivered: &Receiver<Result<Delivery, ReadError>>,
    pass_on: &SyncSender<Result<Judged<'p>, ReadError>>,
) {
    while let Ok(delivery) = delivered.recv() {
        let judged = delivery.map(|Delivery { requests, reading }| Judged {
            by_current: requests
                .iter()
                .map(|request| current.judge(policy, bots, request))
                .collect(),
            bans: current.began().collect(),
            requests,
            reading,
        });
        // Who goes on may have been told to end.
        if pass_on.send(judged).is_err() {
            return;
        }
    }
}

fn is_of(request: &Recorded, of: IpNet) -> bool {
    match request.client {
        Shown::Whole(ip) => of.contains(&IpNet::from(IpAddr::to_canonical(&ip))),
        Shown::Nobody | Shown::Hashed(_) | Shown::Truncated => false,
    }
}
