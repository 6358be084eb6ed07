//! One worker: a thread, its runtime, and all that its connections share with nobody else.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;

use super::{
    Settings,
    canary::Canary,
    deadline::{Deadlines, Stage, TICK},
    metrics::WorkerMetrics,
    trace::{Dice, Tracer},
    upstream::{Upstream, pool::Pool},
};
use crate::{
    base::{clock::Clock, id::RequestIds},
    event::{
        access::{Access, Format},
        privacy::{AddressText, Privacy},
        time::Stamps,
    },
    guard::{
        bots::{Bots, People},
        chain::Known,
        policy::Policy,
    },
    limit::{
        Clients,
        spending::{Spending, Spendings},
    },
    owner::Facts,
    sink::{
        lane::Lane,
        lines::{self, Lines},
    },
};

/// What all workers share: the policy, the clients, the servers' state, and three bounds.
#[derive(Debug)]
pub struct Shared {
    /// Read once at start.
    pub settings: Settings,
    /// Written by the reload alone.
    pub policy: ArcSwap<Policy>,
    /// What clients have left of their limits, and who is banned.
    pub clients: Arc<Clients>,
    /// What clients spend of limits that count for all nodes, where there are such.
    pub spendings: Option<Arc<Spendings>>,
    /// Where violations are told.
    pub facts: Arc<Facts>,
    /// What is known of bots.
    pub bots: Bots,
    /// What is told to the collector of traces, where there is one.
    pub tracer: Option<Arc<Tracer>>,
    /// By which the watchdog's requests are known.
    pub canary: Canary,
    /// The servers behind.
    pub upstream: Arc<Upstream>,
    /// What events show of addresses.
    pub privacy: Privacy,
    /// The clock of all workers.
    pub clock: Clock,
    /// Client connections that are open; `max_connections` at most.
    pub connections: Bound,
    /// Requests at the upstream; `max_in_flight` at most.
    pub in_flight: Bound,
    /// Bytes of webhook bodies that are held until their signature is known.
    pub held_bytes: Bound,
}

/// Bytes of webhook bodies held at once, by all routes together.
pub const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A number of things that may be held at once. Written by any worker.
#[derive(Debug)]
pub struct Bound {
    held: AtomicUsize,
    max: usize,
}

impl Bound {
    /// Nothing held, `max` at most.
    pub fn new(max: usize) -> Self {
        Self {
            held: AtomicUsize::new(0),
            max,
        }
    }

    /// How many are held.
    pub fn held(&self) -> usize {
        // Relaxed, here and below: the number guards a quantity and no other memory.
        self.held.load(Ordering::Relaxed)
    }

    /// Whether so much is held that some are turned away.
    pub fn is_taken(&self) -> bool {
        self.held() >= self.part(7)
    }

    /// Gives back what was taken and its guard forgotten.
    pub(crate) fn give_back(&self, count: usize) {
        self.held.fetch_sub(count, Ordering::Relaxed);
    }

    /// Takes `count` more, unless that would be more than `share` eighths of the bound.
    pub(crate) fn take(&self, count: usize, share: usize) -> Option<Held<'_>> {
        let held = self.held.fetch_add(count, Ordering::Relaxed);
        let guard = Held { bound: self, count };
        (held.saturating_add(count) <= self.part(share)).then_some(guard)
    }

    /// So many eighths of the bound; what cannot be divided is in each.
    fn part(&self, eighths: usize) -> usize {
        self.max / 8 * eighths + self.max % 8
    }
}

/// A part of a bound; given back when dropped.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    bound: &'a Bound,
    count: usize,
}

impl Held<'_> {
    /// Takes `more` on top; false when the bound does not allow it.
    pub(crate) fn grow(&mut self, more: usize) -> bool {
        match self.bound.take(more, 8) {
            Some(taken) => {
                std::mem::forget(taken);
                self.count += more;
                true
            }
            None => false,
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.bound.give_back(self.count);
    }
}

/// What the connections of one thread share.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Its place among the workers.
    pub(crate) nth: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) deadlines: Rc<Deadlines>,
    pub(crate) pool: Pool,
    pub(crate) stamps: Stamps,
    people: People,
    spending: Option<Spending>,
    pub(crate) ids: RefCell<RequestIds>,
    pub(super) dice: Dice,
    pub(crate) outlets: RefCell<Outlets>,
    /// What the wall clock was ahead of the monotonic one at the last tick, in milliseconds.
    unix_ahead_ms: Cell<u64>,
    /// Output buffers between two uses.
    spare: RefCell<Vec<Vec<u8>>>,
    /// Client connections of this worker.
    pub(crate) open: Cell<usize>,
    /// Refused clients whose rest is being read.
    pub(crate) lingering: Cell<usize>,
    draining: Cell<bool>,
    /// Requests under way: begun before the drain, and since.
    under_way: [Cell<usize>; 2],
}

/// Where one worker's events go.
#[derive(Debug)]
pub struct Outlets {
    /// To the log.
    pub lane: Option<Lane>,
    /// To standard output, and how they are written there.
    pub lines: Option<(lines::Lane, Format)>,
    /// The event that is being told.
    event: Vec<u8>,
}

impl Outlets {
    /// No event has been told yet.
    pub fn new(lane: Option<Lane>, lines: Option<&LineSink>) -> Self {
        Self {
            lane,
            lines: lines.map(|sink| (sink.lines.lane(), sink.format)),
            event: Vec::with_capacity(2048),
        }
    }

    /// Whether anybody wants to hear of an event.
    pub(crate) fn is_open(&self) -> bool {
        self.lane.is_some() || self.lines.is_some()
    }

    /// Tells a finished request, written once for all that read JSON.
    pub fn tell(&mut self, access: &Access<'_>, stamps: &Stamps) {
        self.event.clear();
        let is_for_people = matches!(self.lines, Some((_, Format::Human)));
        if self.lane.is_some() || !is_for_people {
            access.write_json(stamps, &mut self.event);
        }
        if let Some(lane) = &mut self.lane {
            let key = access.client.or(access.peer).map(AddressText::as_bytes);
            lane.tell(access.arrived_unix_ms, key, &self.event);
        }
        if let Some((lines, format)) = &mut self.lines {
            lines.append(|line| {
                match format {
                    Format::Json => line.extend_from_slice(&self.event),
                    Format::Human => access.write_human(stamps, line),
                }
                line.push(b'\n');
            });
        }
    }

    /// Hands over what waits for a moment such as this.
    fn tick(&mut self) {
        if let Some(lane) = &mut self.lane {
            lane.tell_gap();
        }
        if let Some((lines, _)) = &mut self.lines {
            lines.hand_over();
        }
    }
}

/// How lines are written, and to whom they go.
#[derive(Debug, Clone)]
pub struct LineSink {
    /// Where lines go.
    pub lines: Lines,
    /// What they look like.
    pub format: Format,
}

impl Worker {
    pub(crate) fn new(
        nth: usize,
        shared: Arc<Shared>,
        metrics: Arc<WorkerMetrics>,
        outlets: Outlets,
        seed: u128,
    ) -> Self {
        let worker = Self {
            nth,
            pool: Pool::new(&shared.upstream, shared.settings.upstream.pool_idle),
            metrics,
            deadlines: Rc::default(),
            stamps: Stamps::default(),
            people: People::default(),
            spending: shared.spendings.as_ref().map(|all| all.join()),
            shared,
            ids: RefCell::new(RequestIds::starting_at(seed)),
            dice: Dice::default(),
            outlets: RefCell::new(outlets),
            unix_ahead_ms: Cell::new(0),
            spare: RefCell::default(),
            open: Cell::new(0),
            lingering: Cell::new(0),
            draining: Cell::new(false),
            under_way: Default::default(),
        };
        worker.tick();
        worker
    }

    /// Housekeeping, every [`TICK`]: deadlines, idle connections, lines, and the sign of life.
    pub(crate) fn tick(&self) {
        let now_ns = self.shared.clock.monotonic_ns();
        let now_ms = now_ns / 1_000_000;
        self.unix_ahead_ms
            .set(self.shared.clock.unix_ms().saturating_sub(now_ms));
        self.deadlines.tick(now_ms);
        self.pool.reap(now_ms);
        self.outlets.borrow_mut().tick();
        if let Some(spending) = &self.spending {
            spending.tick(now_ns);
        }
        let metrics = &self.metrics;
        metrics.connections.set(self.open.get() as u64);
        metrics.idle_upstream.set(self.pool.kept() as u64);
        for (shown, count) in metrics.waiting.iter().zip(self.deadlines.census()) {
            shown.set(count);
        }
        metrics.beat_ms.set(now_ms);
    }

    /// Ticks until the task is dropped.
    pub(crate) async fn keep_ticking(&self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tick();
        }
    }

    /// Milliseconds since 1970, of a moment on the monotonic clock.
    pub(crate) fn unix_ms(&self, monotonic_ns: u64) -> u64 {
        self.unix_ahead_ms
            .get()
            .saturating_add(monotonic_ns / 1_000_000)
    }

    /// What a moment on the monotonic clock needs to be nanoseconds since 1970.
    pub(crate) fn unix_ahead_ns(&self) -> u64 {
        self.unix_ahead_ms.get().saturating_mul(1_000_000)
    }

    /// What the guards know beside the policy.
    pub(crate) fn known(&self) -> Known<'_> {
        Known {
            clients: &self.shared.clients,
            bots: &self.shared.bots,
            people: &self.people,
            spending: self.spending.as_ref(),
        }
    }

    /// An empty buffer for output.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        self.spare
            .borrow_mut()
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(2048))
    }

    /// Takes a buffer back for the next use.
    pub(crate) fn give_back(&self, mut buffer: Vec<u8>) {
        const KEPT: usize = 64;
        const KEPT_BYTES: usize = 16 * 1024;
        let mut spare = self.spare.borrow_mut();
        if spare.len() < KEPT && buffer.capacity() <= KEPT_BYTES {
            buffer.clear();
            spare.push(buffer);
        }
    }

    /// From now on every answer says that its connection closes, and idle ones are closed soon.
    pub(crate) fn drain(&self) {
        /// An idle connection is closed when its client had this long to send one more request.
        const IDLE: Duration = Duration::from_secs(1);
        /// A connection that has not spoken, or not to the end of a head, may have so much longer.
        const HEAD: Duration = Duration::from_secs(3);
        /// Tunnels know nothing of drains; their clients are used to reconnecting.
        const TUNNEL: Duration = Duration::from_secs(5);
        /// A refused client has had its answer.
        const LINGER: Duration = Duration::from_millis(500);
        self.draining.set(true);
        self.deadlines.hasten(Stage::KeepAlive, IDLE);
        self.deadlines.hasten(Stage::RequestHead, HEAD);
        self.deadlines.hasten(Stage::Tunnel, TUNNEL);
        self.deadlines.hasten(Stage::Linger, LINGER);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether a request is under way that had begun before the drain.
    pub(crate) fn has_old_requests(&self) -> bool {
        let [old, _] = &self.under_way;
        old.get() > 0
    }

    /// Counts a request in, until the guard is dropped.
    pub(crate) fn request_begins(self: &Rc<Self>) -> UnderWay {
        let since_drain = usize::from(self.draining.get());
        let under_way = UnderWay {
            worker: Rc::clone(self),
            since_drain,
        };
        under_way.change(|count| count + 1);
        under_way
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct UnderWay {
    worker: Rc<Worker>,
    since_drain: usize,
}

impl UnderWay {
    fn change(&self, by: impl FnOnce(usize) -> usize) {
        if let Some(count) = self.worker.under_way.get(self.since_drain) {
            count.set(by(count.get()));
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.change(|count| count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_taken_when_some_are_turned_away() {
        for (max, held) in [(7, 7), (10, 9), (800, 700)] {
            let bound = Bound::new(max);
            let few = bound.take(held - 1, 8).unwrap();
            assert!(!bound.is_taken(), "{} of {max}", held - 1);
            let last = bound.take(1, 7).unwrap();
            assert!(bound.is_taken(), "{held} of {max}");
            assert!(bound.take(1, 7).is_none());
            drop((few, last));
        }
    }

    #[test]
    fn a_bound_is_never_exceeded_and_given_back() {
        let bound = Bound::new(10);
        let eight = bound.take(8, 8).unwrap();
        assert!(bound.take(3, 8).is_none());
        let mut two = bound.take(1, 8).unwrap();
        assert!(two.grow(1));
        assert!(!two.grow(1));
        drop((eight, two));
        assert_eq!(bound.held(), 0);
    }
}
