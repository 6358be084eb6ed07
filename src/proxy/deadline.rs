//! Every wait of a worker has a name and an end.
//!
//! A timer of its own for each wait costs more than the rest of a request's bookkeeping, so the
//! waits of a worker stand in one dense list, and a tick every [`TICK`] looks for those that are
//! over and wakes their tasks. A deadline is therefore late by up to one tick, never early.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

/// How often a worker looks for waits that are over.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// What is waited for. The names stand in metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The next request on a connection that has served one.
    KeepAlive,
    /// The rest of a request's head.
    RequestHead,
    /// The next bytes of a request's body.
    RequestBody,
    /// The client's taking of what it asked for.
    ResponseWrite,
    /// A connection to the upstream.
    Connect,
    /// The upstream's taking of the request.
    RequestWrite,
    /// The head of the upstream's answer.
    ResponseHead,
    /// The next bytes of the upstream's body.
    ResponseBody,
    /// The answer for a client that has sent its end.
    ClientEnd,
    /// Anything at all in a tunnel.
    Tunnel,
    /// The end of what a refused client still sends.
    Linger,
}

impl Stage {
    /// All stages, in the order of a request's life.
    pub(crate) const ALL: [Self; 11] = [
        Self::KeepAlive,
        Self::RequestHead,
        Self::RequestBody,
        Self::ResponseWrite,
        Self::Connect,
        Self::RequestWrite,
        Self::ResponseHead,
        Self::ResponseBody,
        Self::ClientEnd,
        Self::Tunnel,
        Self::Linger,
    ];

    /// The stage's name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep_alive",
            Self::RequestHead => "request_head",
            Self::RequestBody => "request_body",
            Self::ResponseWrite => "response_write",
            Self::Connect => "connect",
            Self::RequestWrite => "request_write",
            Self::ResponseHead => "response_head",
            Self::ResponseBody => "response_body",
            Self::ClientEnd => "client_end",
            Self::Tunnel => "tunnel",
            Self::Linger => "linger",
        }
    }
}

/// The waits of one worker that have something to wait for. Written by that worker's tasks and its
/// tick, all on one thread.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
    now_ms: Cell<u64>,
    /// For waits that had begun by then and are enlisted later.
    hastened: RefCell<Vec<Hastened>>,
}

#[derive(Debug)]
struct Slot {
    stage: Stage,
    /// Milliseconds on the worker's clock; [`NEVER`] in a free slot, [`OVER`] once it has passed.
    due_ms: u64,
    waker: Option<Rc<Waker>>,
}

/// One call of [`Deadlines::hasten`].
#[derive(Debug)]
struct Hastened {
    stage: Stage,
    at_ms: u64,
    latest_ms: u64,
}

const NEVER: u64 = u64::MAX;
const OVER: u64 = 0;

impl Deadlines {
    /// The time of the last tick, in milliseconds; coarse, and free of any system call.
    #[inline]
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    /// The moment `after` from now, counted from the next tick so that it is never early: the last
    /// one may be as old as a tick.
    #[inline]
    fn after(&self, after: Duration) -> u64 {
        let after = after.saturating_add(TICK);
        let ms = after.as_secs().saturating_mul(1_000);
        self.now_ms
            .get()
            .saturating_add(ms)
            .saturating_add(after.subsec_millis().into())
            .clamp(OVER + 1, NEVER - 1)
    }

    /// Takes a wait up that ends at `due_ms`; says where.
    fn enlist(&self, stage: Stage, due_ms: u64, waker: &Rc<Waker>) -> usize {
        let slot = Slot {
            stage,
            due_ms,
            waker: Some(Rc::clone(waker)),
        };
        let mut slots = self.slots.borrow_mut();
        if let Some(place) = self.free.borrow_mut().pop()
            && let Some(free) = slots.get_mut(place)
        {
            *free = slot;
            return place;
        }
        slots.push(slot);
        slots.len() - 1
    }

    /// Ends the waits of `stage` that have begun after `after` at the latest.
    pub(crate) fn hasten(&self, stage: Stage, after: Duration) {
        let latest_ms = self.after(after);
        for slot in self.slots.borrow_mut().iter_mut() {
            if slot.stage == stage && slot.due_ms != NEVER {
                slot.due_ms = slot.due_ms.min(latest_ms);
            }
        }
        self.hastened.borrow_mut().push(Hastened {
            stage,
            at_ms: self.now_ms(),
            latest_ms,
        });
    }

    /// When a wait of `stage` ends that began at `began_ms` and was to end at `due_ms`.
    fn due_in_haste(&self, stage: Stage, began_ms: u64, due_ms: u64) -> u64 {
        let hastened = self.hastened.borrow();
        hastened
            .iter()
            .filter(|call| call.stage == stage && began_ms <= call.at_ms)
            .fold(due_ms, |due_ms, call| due_ms.min(call.latest_ms))
    }

    /// How many waits there are of each stage, in the order of [`Stage::ALL`].
    pub(crate) fn census(&self) -> [u64; Stage::ALL.len()] {
        let mut counts = [0; Stage::ALL.len()];
        for slot in self
            .slots
            .borrow()
            .iter()
            .filter(|slot| slot.waker.is_some())
        {
            if let Some(count) = counts.get_mut(slot.stage as usize) {
                *count += 1;
            }
        }
        counts
    }

    /// Moves the worker's coarse clock to `now_ms` and wakes every task whose wait is over.
    pub(crate) fn tick(&self, now_ms: u64) {
        self.now_ms.set(now_ms);
        for slot in self.slots.borrow_mut().iter_mut() {
            if slot.due_ms <= now_ms && slot.due_ms != OVER {
                slot.due_ms = OVER;
                if let Some(waker) = &slot.waker {
                    waker.wake_by_ref();
                }
            }
        }
    }
}

/// Starts the waits of one task.
#[derive(Debug, Clone)]
pub(crate) struct Timers {
    deadlines: Rc<Deadlines>,
    waker: Rc<Waker>,
}

impl Timers {
    /// The timers of the task that awaits this. Waits must be polled by that task alone.
    pub(crate) async fn of_this_task(deadlines: &Rc<Deadlines>) -> Self {
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        Self {
            deadlines: Rc::clone(deadlines),
            waker: Rc::new(waker),
        }
    }

    /// Starts a wait that ends `after` from now.
    #[inline]
    pub(crate) fn wait(&self, stage: Stage, after: Duration) -> Wait {
        Wait {
            stage,
            began_ms: Cell::new(self.now_ms()),
            due_ms: Cell::new(self.deadlines.after(after)),
            place: Cell::new(None),
            timers: self.clone(),
        }
    }

    /// The worker's coarse time, in milliseconds.
    #[inline]
    pub(crate) fn now_ms(&self) -> u64 {
        self.deadlines.now_ms()
    }
}

/// One wait; dropping it ends it.
///
/// It is enlisted when it is first found not to be over: most bytes are there when they are asked
/// for, and then there was nothing to wait for.
#[derive(Debug)]
pub(crate) struct Wait {
    timers: Timers,
    stage: Stage,
    began_ms: Cell<u64>,
    /// While it is not enlisted; then its slot knows.
    due_ms: Cell<u64>,
    place: Cell<Option<usize>>,
}

impl Wait {
    /// The stage whose deadline has passed, if it has; if not, the task is woken when it does.
    #[inline]
    pub(crate) fn over(&self) -> Option<Stage> {
        let deadlines = &self.timers.deadlines;
        let Some(place) = self.place.get() else {
            return self.enlist();
        };
        let slots = deadlines.slots.borrow();
        let slot = slots.get(place)?;
        (slot.due_ms == OVER).then_some(self.stage)
    }

    fn enlist(&self) -> Option<Stage> {
        let deadlines = &self.timers.deadlines;
        let due_ms = deadlines.due_in_haste(self.stage, self.began_ms.get(), self.due_ms.get());
        if due_ms <= deadlines.now_ms() {
            return Some(self.stage);
        }
        let place = deadlines.enlist(self.stage, due_ms, &self.timers.waker);
        self.place.set(Some(place));
        None
    }

    /// Waits until the deadline has passed.
    pub(crate) async fn passed(&self) {
        poll_fn(|_| match self.over() {
            Some(_) => Poll::Ready(()),
            None => Poll::Pending,
        })
        .await;
    }

    /// Starts the wait anew: it ends `after` from now.
    #[inline]
    pub(crate) fn restart(&self, after: Duration) {
        let deadlines = &self.timers.deadlines;
        let due_ms = deadlines.after(after);
        let Some(place) = self.place.get() else {
            self.began_ms.set(deadlines.now_ms());
            return self.due_ms.set(due_ms);
        };
        if let Some(slot) = deadlines.slots.borrow_mut().get_mut(place) {
            slot.due_ms = due_ms;
        }
    }
}

impl Drop for Wait {
    #[inline]
    fn drop(&mut self) {
        let Some(place) = self.place.get() else {
            return;
        };
        let deadlines = &self.timers.deadlines;
        if let Some(slot) = deadlines.slots.borrow_mut().get_mut(place) {
            slot.due_ms = NEVER;
            slot.waker = None;
        }
        deadlines.free.borrow_mut().push(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timers() -> Timers {
        Timers {
            deadlines: Rc::default(),
            waker: Rc::new(Waker::noop().clone()),
        }
    }

    const WHILE: Duration = Duration::from_millis(100);

    #[test]
    fn a_wait_is_over_at_its_deadline_and_not_before() {
        let timers = timers();
        let wait = timers.wait(Stage::Connect, WHILE);
        assert!(wait.over().is_none());
        // It may have begun just before the tick at 50, so at 149 it is not yet as old.
        timers.deadlines.tick(149);
        assert!(wait.over().is_none());
        timers.deadlines.tick(150);
        assert_eq!(wait.over(), Some(Stage::Connect));
    }

    #[test]
    fn a_wait_is_as_long_when_it_is_looked_at_late() {
        let timers = timers();
        let wait = timers.wait(Stage::Connect, WHILE);
        timers.deadlines.tick(150);
        assert_eq!(wait.over(), Some(Stage::Connect));
        wait.restart(WHILE);
        timers.deadlines.tick(299);
        assert!(wait.over().is_none());
        timers.deadlines.tick(300);
        assert_eq!(wait.over(), Some(Stage::Connect));
    }

    #[test]
    fn a_dropped_wait_leaves_its_place_to_the_next() {
        let timers = timers();
        for _ in 0..1_000 {
            assert!(timers.wait(Stage::Tunnel, TICK).over().is_none());
        }
        assert_eq!(timers.deadlines.slots.borrow().len(), 1);
        timers.deadlines.tick(u64::MAX - 2);
        let last = timers.wait(Stage::Tunnel, Duration::MAX);
        assert!(last.over().is_none());
    }

    #[test]
    fn what_is_never_waited_for_takes_no_place() {
        let timers = timers();
        let wait = timers.wait(Stage::Tunnel, WHILE);
        wait.restart(TICK);
        drop(wait);
        assert!(timers.deadlines.slots.borrow().is_empty());
    }

    #[test]
    fn haste_ends_what_had_begun_looked_at_or_not() {
        let timers = timers();
        timers.deadlines.tick(1);
        let (seen, unseen) = (
            timers.wait(Stage::Tunnel, Duration::MAX),
            timers.wait(Stage::Tunnel, Duration::MAX),
        );
        let other = timers.wait(Stage::KeepAlive, Duration::MAX);
        assert!(seen.over().is_none());
        timers.deadlines.hasten(Stage::Tunnel, WHILE);
        assert!(unseen.over().is_none());
        timers.deadlines.tick(50);
        let later = timers.wait(Stage::Tunnel, Duration::MAX);
        timers.deadlines.tick(151);
        assert_eq!(seen.over(), Some(Stage::Tunnel));
        assert_eq!(unseen.over(), Some(Stage::Tunnel));
        assert!(later.over().is_none());
        assert!(other.over().is_none());
    }
}
