//! The servers behind: which of them is asked next, and who is out of rotation.
//!
//! The state of a server is shared by all workers and the health checker, as atomics; the
//! connections to it are each worker's own ([`pool`]).

pub mod health;
pub(crate) mod pool;
mod server;

pub use server::{Server, Target};

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// All servers of one upstream, in the order of `upstream.servers`.
#[derive(Debug)]
pub struct Upstream {
    servers: Vec<Arc<Server>>,
    /// Where the next search among equally loaded servers begins.
    turn: AtomicUsize,
}

impl Upstream {
    /// An upstream of `servers`, all of them in rotation.
    pub fn new(servers: Vec<Server>) -> Self {
        Self {
            servers: servers.into_iter().map(Arc::new).collect(),
            turn: AtomicUsize::new(0),
        }
    }

    /// The servers, in the order of the configuration.
    pub fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }

    /// The least loaded server in rotation that is not among `tried`, by its place; ties go round.
    pub(crate) fn pick(&self, now_ms: u64, tried: &Tried) -> Option<usize> {
        if self.servers.len() == 1 {
            // The only server is never out of rotation: asking it cannot be worse than not asking.
            return (!tried.contains(0)).then_some(0);
        }
        // Relaxed: only spreads the load; no other memory depends on it.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.servers.len();
        (0..count)
            .map(|step| turn.wrapping_add(step) % count)
            .filter(|&place| !tried.contains(place))
            .filter_map(|place| Some((place, self.servers.get(place)?)))
            .filter(|(_, server)| server.is_in_rotation(now_ms))
            .min_by_key(|(_, server)| server.in_flight())
            .map(|(place, _)| place)
    }

    /// Takes note that a server failed a request, and ejects it for a while after several failures
    /// in a row, unless no other server would be left.
    pub(crate) fn failed(&self, place: usize, now_ms: u64) {
        let Some(server) = self.servers.get(place) else {
            return;
        };
        let another_is_left = self
            .servers
            .iter()
            .enumerate()
            .any(|(other, server)| other != place && server.is_in_rotation(now_ms));
        server.note_failure(now_ms, another_is_left);
    }
}

/// The places of servers that one request has tried in vain.
#[derive(Debug, Default)]
pub(crate) struct Tried(Vec<usize>);

impl Tried {
    pub(crate) fn add(&mut self, place: usize) {
        self.0.push(place);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contains(&self, place: usize) -> bool {
        self.0.contains(&place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(count: u16) -> Upstream {
        let server = |port| Server::new(Target::Tcp(([127, 0, 0, 1], port).into()));
        Upstream::new((1..=count).map(server).collect())
    }

    #[test]
    fn the_least_loaded_server_is_asked() {
        let upstream = upstream(3);
        let _first = upstream.servers()[0].enter();
        let _third = upstream.servers()[2].enter();
        for _ in 0..10 {
            assert_eq!(upstream.pick(0, &Tried::default()), Some(1));
        }
    }

    #[test]
    fn equally_loaded_servers_take_turns() {
        let upstream = upstream(3);
        let mut asked: Vec<_> = (0..3)
            .filter_map(|_| upstream.pick(0, &Tried::default()))
            .collect();
        asked.sort_unstable();
        assert_eq!(asked, [0, 1, 2]);
    }

    #[test]
    fn a_failing_server_is_left_alone_for_a_while_but_never_the_last_one() {
        let upstream = upstream(2);
        for place in [0, 1] {
            for _ in 0..10 {
                upstream.failed(place, 1_000);
            }
        }
        assert_eq!(upstream.pick(1_001, &Tried::default()), Some(1));
        let mut later: Vec<_> = (0..2)
            .filter_map(|_| upstream.pick(60_000, &Tried::default()))
            .collect();
        later.sort_unstable();
        assert_eq!(later, [0, 1]);
    }

    #[test]
    fn the_only_server_stays() {
        let upstream = upstream(1);
        upstream.servers()[0].set_healthy(false);
        upstream.failed(0, 5);
        assert_eq!(upstream.pick(6, &Tried::default()), Some(0));
    }

    #[test]
    fn nobody_is_asked_when_all_are_unhealthy() {
        let upstream = upstream(2);
        upstream.servers().iter().for_each(|s| s.set_healthy(false));
        assert_eq!(upstream.pick(0, &Tried::default()), None);
    }
}
