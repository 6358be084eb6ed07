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

/// The waits of one worker. Written by that worker's tasks and its tick, all on one thread.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
    now_ms: Cell<u64>,
}

#[derive(Debug)]
struct Slot {
    stage: Stage,
    /// Milliseconds on the worker's clock; [`NEVER`] in a free slot, [`OVER`] once it has passed.
    due_ms: u64,
    waker: Option<Rc<Waker>>,
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
    pub(crate) fn after(&self, after: Duration) -> u64 {
        let ms = u64::try_from(after.saturating_add(TICK).as_millis()).unwrap_or(NEVER - 1);
        self.now_ms
            .get()
            .saturating_add(ms)
            .clamp(OVER + 1, NEVER - 1)
    }

    /// Starts a wait that ends at `due_ms`; it is over when the guard is dropped.
    #[inline]
    fn wait(self: &Rc<Self>, stage: Stage, due_ms: u64, waker: &Rc<Waker>) -> Wait {
        let slot = Slot {
            stage,
            due_ms,
            waker: Some(Rc::clone(waker)),
        };
        let mut slots = self.slots.borrow_mut();
        let index = match self.free.borrow_mut().pop() {
            Some(index) => {
                if let Some(free) = slots.get_mut(index) {
                    *free = slot;
                }
                index
            }
            None => {
                slots.push(slot);
                slots.len() - 1
            }
        };
        Wait {
            deadlines: Rc::clone(self),
            stage,
            index,
        }
    }

    /// Ends the waits of `stage` after `after` at the latest.
    pub(crate) fn hasten(&self, stage: Stage, after: Duration) {
        let latest_ms = self.after(after);
        for slot in self.slots.borrow_mut().iter_mut() {
            if slot.stage == stage && slot.due_ms != NEVER {
                slot.due_ms = slot.due_ms.min(latest_ms);
            }
        }
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
        self.deadlines
            .wait(stage, self.deadlines.after(after), &self.waker)
    }

    /// The worker's coarse time, in milliseconds.
    #[inline]
    pub(crate) fn now_ms(&self) -> u64 {
        self.deadlines.now_ms()
    }
}

/// One wait; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Wait {
    deadlines: Rc<Deadlines>,
    stage: Stage,
    index: usize,
}

impl Wait {
    /// The stage whose deadline has passed, if it has.
    #[inline]
    pub(crate) fn over(&self) -> Option<Stage> {
        let slots = self.deadlines.slots.borrow();
        let slot = slots.get(self.index)?;
        (slot.due_ms == OVER).then_some(self.stage)
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
        let due_ms = self.deadlines.after(after);
        if let Some(slot) = self.deadlines.slots.borrow_mut().get_mut(self.index) {
            slot.due_ms = due_ms;
        }
    }
}

impl Drop for Wait {
    #[inline]
    fn drop(&mut self) {
        if let Some(slot) = self.deadlines.slots.borrow_mut().get_mut(self.index) {
            slot.due_ms = NEVER;
            slot.waker = None;
        }
        self.deadlines.free.borrow_mut().push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_over_at_its_deadline_and_not_before() {
        let deadlines = Rc::new(Deadlines::default());
        let wait = deadlines.wait(
            Stage::Connect,
            deadlines.after(Duration::from_millis(100)),
            &Rc::new(Waker::noop().clone()),
        );
        // It began between two ticks, as late as just before the second.
        deadlines.tick(149);
        assert!(wait.over().is_none());
        deadlines.tick(150);
        assert_eq!(wait.over(), Some(Stage::Connect));
    }

    #[test]
    fn a_dropped_wait_leaves_its_place_to_the_next() {
        let deadlines = Rc::new(Deadlines::default());
        let waker = Rc::new(Waker::noop().clone());
        for _ in 0..1_000 {
            drop(deadlines.wait(Stage::Tunnel, deadlines.after(TICK), &waker));
        }
        assert_eq!(deadlines.slots.borrow().len(), 1);
        deadlines.tick(u64::MAX - 2);
        let last = deadlines.wait(Stage::Tunnel, NEVER - 1, &waker);
        assert!(last.over().is_none());
    }
}
