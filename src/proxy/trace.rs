//! Which requests are told to a collector of traces, and what of them.
//!
//! A trusted peer's `traceparent` is believed: its trace is continued, and recorded if it says so. For
//! everybody else a new trace begins, of which a part is recorded. What the upstream is sent, the
//! configuration decides once: without a collector, the client's fields pass as they came.
//!
//! A recorded request costs its worker two looks at the clock, and one copy of what is told into a queue that
//! never waits; a request of a trace that is not recorded, a few random bytes.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicU64, Ordering},
};

use crossbeam_queue::ArrayQueue;

use crate::{
    base::id::RequestId,
    event::access::Verdict,
    telemetry::trace_context::{SAMPLED, TraceContext},
};

/// Finished requests that wait for the exporter. More are lost and counted: traces may cost memory, up to here,
/// and never a request.
pub const WAITING_MAX: usize = 4_096;
/// Bytes of each text that a client wrote. With the rest, a request that waits holds 2 KiB at most.
const TEXT_MAX: usize = 512;

/// What is told to the collector, by all workers. Read by the exporter.
#[derive(Debug)]
pub struct Tracer {
    /// Of a new trace's lowest 32 bits: those below are recorded.
    recorded_below: u64,
    told: ArrayQueue<Box<Told>>,
    lost: AtomicU64,
}

/// The way of one request through a trace.
#[derive(Debug, Clone, Copy)]
pub struct Trace {
    /// The trace, and the span that asks the upstream.
    pub upstream: TraceContext,
    /// The span of the request itself.
    pub server_span: u64,
    /// The span of whoever sent it; zero for none.
    pub parent_span: u64,
    /// When the guards were done, on the monotonic clock.
    pub judged_ns: u64,
    /// When an upstream was asked for, on the monotonic clock; zero if it never was.
    pub asked_ns: u64,
}

/// A finished request.
#[derive(Debug)]
pub struct Told {
    /// Its way.
    pub trace: Trace,
    /// What the monotonic clock's moments need to be nanoseconds since 1970.
    pub unix_ahead_ns: u64,
    /// When it arrived, on the monotonic clock, as all moments.
    pub began_ns: u64,
    /// When a connection to an upstream was there.
    pub connected_ns: Option<u64>,
    /// When the head of the answer was there.
    pub answered_ns: Option<u64>,
    /// When it was over.
    pub ended_ns: u64,
    /// Its id.
    pub id: RequestId,
    /// Its method.
    pub method: String,
    /// Its host.
    pub host: String,
    /// Its path.
    pub path: String,
    /// Its user agent.
    pub user_agent: String,
    /// Its client, as much as events show.
    pub client: Option<String>,
    /// The route's name; empty if none was found.
    pub route: String,
    /// The server that was asked, by its place.
    pub server: Option<usize>,
    /// The answer's status; zero for none.
    pub status: u16,
    /// What became of it.
    pub verdict: Verdict,
    /// Why it was refused or failed, or would have been: the reason's name, and more words.
    pub said: Option<(&'static str, &'static str)>,
    /// Whether it would have been refused, were its route enforced.
    pub is_observed: bool,
    /// Bytes of its body.
    pub body_bytes_in: u64,
    /// Bytes of its answer.
    pub bytes_out: u64,
}

impl Told {
    /// A client's text, as much of it as is told.
    pub(super) fn text(bytes: &[u8]) -> String {
        let bytes = bytes.get(..TEXT_MAX).unwrap_or(bytes);
        String::from_utf8_lossy(bytes).into_owned()
    }
}

impl Tracer {
    /// Records so many millionths of the traces that begin here.
    pub fn new(millionths: u32) -> Self {
        Self {
            recorded_below: (u64::from(millionths) << 32) / 1_000_000,
            told: ArrayQueue::new(WAITING_MAX),
            lost: AtomicU64::new(0),
        }
    }

    /// The way of a request that says `said`, if it may. None where a trace that is not recorded goes on: its
    /// fields pass as they came.
    pub(super) fn begin(&self, said: Option<TraceContext>, dice: &Dice) -> Option<Trace> {
        if said.is_some_and(|context| !context.is_sampled()) {
            return None;
        }
        let trace_id = match said {
            Some(context) => context.trace_id,
            None => u128::from(dice.roll()) << 64 | u128::from(dice.roll()),
        };
        let is_recorded = || (trace_id & u128::from(u32::MAX)) < u128::from(self.recorded_below);
        let flags = match said {
            Some(context) => context.flags,
            None => u8::from(is_recorded()) * SAMPLED,
        };
        Some(Trace {
            upstream: TraceContext {
                trace_id,
                span_id: dice.roll(),
                flags,
            },
            server_span: dice.roll(),
            parent_span: said.map_or(0, |context| context.span_id),
            judged_ns: 0,
            asked_ns: 0,
        })
    }

    /// Tells a finished request, or counts its spans as lost.
    pub(crate) fn tell(&self, told: Box<Told>) {
        if let Err(told) = self.told.push(told) {
            self.lost.fetch_add(told.spans(), Ordering::Relaxed);
        }
    }

    /// The next that nobody has taken yet.
    pub fn take(&self) -> Option<Box<Told>> {
        self.told.pop()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.told.len()
    }

    /// Spans that found no room.
    pub fn lost(&self) -> u64 {
        // Relaxed: the number stands for itself.
        self.lost.load(Ordering::Relaxed)
    }
}

impl Trace {
    /// Whether it continues what a peer began.
    pub(super) fn continues(&self) -> bool {
        self.parent_span != 0
    }
}

impl Told {
    /// How many spans it is: its own, that of the guards, that of the upstream and its parts.
    pub fn spans(&self) -> u64 {
        match (self.trace.asked_ns, self.connected_ns, self.answered_ns) {
            (0, _, _) => 2,
            (_, None, _) => 4,
            (_, Some(_), None) => 5,
            (_, Some(_), Some(_)) => 6,
        }
    }
}

/// Random numbers of one worker, from the system's randomness in larger pieces.
#[derive(Debug)]
pub(super) struct Dice(RefCell<Vec<u64>>);

impl Default for Dice {
    fn default() -> Self {
        Self(RefCell::new(Vec::with_capacity(Self::HELD)))
    }
}

impl Dice {
    const HELD: usize = 128;

    /// A number that is not zero.
    fn roll(&self) -> u64 {
        let mut held = self.0.borrow_mut();
        if held.is_empty() {
            let mut bytes = [0; Self::HELD * 8];
            // A system that has no randomness after its start does not exist; then all are 1.
            let _ = getrandom::fill(&mut bytes);
            let (eights, _) = bytes.as_chunks();
            held.extend(eights.iter().map(|eight| u64::from_ne_bytes(*eight)));
        }
        held.pop().unwrap_or(1).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: TraceContext = TraceContext {
        trace_id: 7,
        span_id: 9,
        flags: SAMPLED,
    };

    #[test]
    fn a_believed_trace_goes_on() {
        let trace = Tracer::new(0).begin(Some(SAID), &Dice::default()).unwrap();
        assert_eq!((trace.upstream.trace_id, trace.parent_span), (7, 9));
        assert!(trace.upstream.is_sampled() && trace.continues());
        assert_ne!(trace.upstream.span_id, trace.server_span);
    }

    #[test]
    fn a_trace_that_nobody_records_is_left_alone() {
        let said = TraceContext { flags: 0, ..SAID };
        assert!(
            Tracer::new(1_000_000)
                .begin(Some(said), &Dice::default())
                .is_none()
        );
    }

    #[test]
    fn of_new_traces_the_share_is_recorded() {
        let dice = Dice::default();
        for (millionths, at_least, at_most) in [
            (0, 0, 0),
            (250_000, 2_200, 2_800),
            (1_000_000, 10_000, 10_000),
        ] {
            let tracer = Tracer::new(millionths);
            let traces = (0..10_000).filter_map(|_| tracer.begin(None, &dice));
            let recorded = traces.filter(|trace| trace.upstream.is_sampled()).count();
            assert!(
                (at_least..=at_most).contains(&recorded),
                "{millionths}: {recorded}"
            );
        }
    }
}
