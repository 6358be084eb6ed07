//! What nodes call the limits that count for all of them.

use std::collections::HashMap;

use crate::{
    guard::policy::Policy,
    limit::{Clock, Limit},
};

/// The limits of one policy that count the requests of all nodes, by clock and by name.
#[derive(Debug, Default)]
pub(super) struct Names {
    generation: u64,
    by_clock: HashMap<Clock, (String, Limit)>,
    by_name: HashMap<String, Limit>,
}

impl Names {
    /// Those of this policy.
    pub(super) fn renew(&mut self, policy: &Policy) {
        if self.generation == policy.generation {
            return;
        }
        let shared = policy.all_rules().flat_map(|rules| rules.limits.shared());
        *self = Self::of_limits(shared.map(|(name, limit)| (name, *limit)));
        self.generation = policy.generation;
    }

    /// Those of no policy in particular.
    pub(super) fn of_limits(limits: impl Iterator<Item = (String, Limit)>) -> Self {
        let by_name: HashMap<_, _> = limits.collect();
        let by_clock = by_name.iter();
        let by_clock = by_clock.map(|(name, limit)| (limit.clock, (name.clone(), *limit)));
        Self {
            generation: 0,
            by_clock: by_clock.collect(),
            by_name,
        }
    }

    pub(super) fn of(&self, clock: Clock) -> Option<&Limit> {
        self.by_clock.get(&clock).map(|(_, limit)| limit)
    }

    pub(super) fn name(&self, clock: Clock) -> Option<&str> {
        self.by_clock.get(&clock).map(|(name, _)| name.as_str())
    }

    pub(super) fn limit(&self, name: &str) -> Option<&Limit> {
        self.by_name.get(name)
    }
}
