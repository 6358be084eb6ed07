//! Puts an edited policy in force, whole or not at all.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::{bans::WARDENT, bots, tls::Certificates};
use crate::{
    admin::{ActResult, Reloads, Switch, Wanted, WantedReload},
    config::{
        self, Loaded, Problem,
        policy::{
            Mode,
            switch::{self, switch},
        },
        settings::{self, Lasting},
        watch::{LOOK, Watch},
    },
    event::audit::{Audit, PolicyStanding, Standing, What},
    owner::BanPolicy,
    proxy::worker::Shared,
    sink::publisher::Auditor,
};

/// Reloads that somebody waits for.
pub(super) type Asked = mpsc::Receiver<WantedReload>;

/// The one writer of the policy snapshot.
#[derive(Debug)]
pub(super) struct Reloading {
    config: PathBuf,
    loaded: Loaded,
    lasting: Lasting,
    generation: u64,
    in_force: InForce,
    reloads: Arc<Reloads>,
    watch: Watch,
}

/// What is in force, and where a reload puts it.
#[derive(Debug)]
pub(super) struct InForce {
    /// What the workers share.
    pub(super) shared: Arc<Shared>,
    /// What the owner of bans goes by.
    pub(super) bans: Arc<ArcSwap<BanPolicy>>,
    /// Where it is accounted for.
    pub(super) auditor: Auditor,
    /// What those who connect are shown.
    pub(super) certificates: Certificates,
}

impl InForce {
    pub(super) fn new(
        shared: &Arc<Shared>,
        bans: Arc<ArcSwap<BanPolicy>>,
        auditor: Auditor,
        certificates: Certificates,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            bans,
            auditor,
            certificates,
        }
    }
}

/// How much is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// The policy alone: its file has changed.
    Policy,
    /// The policy, the keys of the secret, what is known of bots, and certificates: somebody asked.
    PolicyAndKeys,
}

impl Reloading {
    pub(super) fn new(
        config: &Path,
        loaded: Loaded,
        lasting: Lasting,
        in_force: InForce,
        reloads: Arc<Reloads>,
        watch: Watch,
    ) -> Self {
        Self {
            config: config.to_owned(),
            loaded,
            lasting,
            generation: 1,
            in_force,
            reloads,
            watch,
        }
    }

    /// Tells the audit by which policy it serves from now on; then reloads when the policy's file has
    /// changed, and when somebody asks.
    pub(super) async fn run(mut self, mut asked: Asked) {
        let unix_ms = self.in_force.shared.clock.unix_ms();
        self.in_force.auditor.tell(Audit {
            after: Some(Standing::Policy(self.standing())),
            ..Audit::new(What::Start, WARDENT, unix_ms)
        });
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {
                    let now_ms = self.in_force.shared.clock.monotonic_ns() / 1_000_000;
                    if self.watch.has_settled(&self.loaded.wardent.policy, now_ms) {
                        // What went wrong has been told; nobody waits for it here.
                        let _ = self.reload(Scope::Policy, &["file".to_owned()], None);
                    }
                }
                Some(first) = asked.recv() => {
                    // Whoever asks while it is being done, gets the same answer.
                    let mut waiting = vec![first];
                    while let Ok(more) = asked.try_recv() {
                        waiting.push(more);
                    }
                    self.answer(waiting);
                }
            }
        }
    }

    /// Does what is wanted: each switch by itself, one reload for all that ask for one.
    fn answer(&mut self, waiting: Vec<WantedReload>) {
        let (mut actors, mut answers) = (Vec::new(), Vec::new());
        for wanted in waiting {
            match wanted.wanted {
                Wanted::Reload => {
                    actors.push(wanted.actor);
                    answers.push(wanted.answer);
                }
                Wanted::Switch(route) => {
                    let result = self.switch(&route, wanted.actor);
                    // Who asked may have gone.
                    let _ = wanted.answer.send(result);
                }
            }
        }
        if actors.is_empty() {
            return;
        }
        let result = self.reload(Scope::PolicyAndKeys, &actors, None);
        for answer in answers {
            let _ = answer.send(result.clone());
        }
    }

    /// Writes a mode into the policy's file, and puts that in force.
    fn switch(&mut self, wanted: &Switch, actor: String) -> ActResult {
        let wardent = &self.loaded.wardent;
        let mode = match wanted.enforces {
            true => Mode::Enforce,
            false => Mode::Observe,
        };
        let route = wanted.route.as_deref();
        let wanted = switch::Wanted { route, mode };
        let done = switch(&wardent.policy, &self.loaded.policy_sha256, wardent, wanted)?;
        // This edit is read now, and not once more when it is seen.
        self.watch = Watch::new(&wardent.policy);
        self.reload(Scope::Policy, &[actor], Some(&done))
    }

    /// Reloads, and tells the audit who wanted it, what was `done` to the file, and what came of it.
    fn reload(&mut self, scope: Scope, actors: &[String], done: Option<&str>) -> ActResult {
        let before = self.standing();
        let told = |words| match done {
            Some(done) => format!("{done}; {words}"),
            None => words,
        };
        let result = self.try_reload(scope).map(told).map_err(told);
        let (what, after) = match &result {
            Ok(_) => (What::Reload, self.standing()),
            Err(_) => (What::ReloadRefused, before.clone()),
        };
        for actor in actors {
            let unix_ms = self.in_force.shared.clock.unix_ms();
            self.in_force.auditor.tell(Audit {
                before: Some(Standing::Policy(before.clone())),
                after: Some(Standing::Policy(after.clone())),
                why: match &result {
                    Ok(words) | Err(words) => words.trim_end().to_owned(),
                },
                ..Audit::new(what, actor, unix_ms)
            });
        }
        result
    }

    /// Which policy is in force.
    fn standing(&self) -> PolicyStanding {
        PolicyStanding {
            policy: self.generation,
            sha256: self.loaded.policy_sha256.clone(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    fn try_reload(&mut self, scope: Scope) -> ActResult {
        let result = self.load(scope).and_then(|(loaded, mut notes)| {
            let bots = match scope {
                Scope::Policy => None,
                Scope::PolicyAndKeys => {
                    let files = bots::Files::read(&loaded.wardent.bots);
                    Some(files.map_err(|report| report.to_string())?)
                }
            };
            let built = settings::policy(&loaded, &mut self.lasting, self.generation + 1)?;
            notes.extend(built.notes);
            Ok((loaded, built.policy, built.bans, bots, notes))
        });
        match result {
            Ok((loaded, policy, bans, bots, mut notes)) => {
                self.generation += 1;
                let known = &self.in_force.shared.bots;
                notes.extend(bots.and_then(|files| bots::replace(known, files)));
                if scope == Scope::PolicyAndKeys {
                    notes.extend(self.in_force.certificates.renew());
                }
                self.loaded = loaded;
                self.in_force.shared.policy.store(Arc::new(policy));
                self.in_force.bans.store(Arc::new(bans));
                self.reloads.succeeded(self.in_force.shared.clock.unix_ms());
                self.reloads.noted(notes.clone());
                tracing::info!(generation = self.generation, "policy loaded");
                for note in &notes {
                    tracing::warn!("{note}");
                }
                let mut words = format!("policy {} is in force\n", self.generation);
                notes
                    .iter()
                    .for_each(|note| words.push_str(&format!("{note}\n")));
                Ok(words)
            }
            Err(report) => {
                self.reloads.failed(&report);
                tracing::error!(
                    generation = self.generation,
                    "policy refused, the old one stays in force: {report}"
                );
                Err(format!(
                    "{report}\npolicy {} stays in force\n",
                    self.generation
                ))
            }
        }
    }

    fn load(&self, scope: Scope) -> Result<(Loaded, Vec<String>), String> {
        let words = |notes: &[Problem]| notes.iter().map(ToString::to_string).collect::<Vec<_>>();
        match scope {
            Scope::Policy => {
                let wardent = self.loaded.wardent.clone();
                let read = config::load_policy(&wardent.policy, &wardent)
                    .map_err(|report| report.to_string())?;
                let told = words(&read.notes);
                let loaded = Loaded {
                    wardent,
                    policy: read.policy,
                    policy_sha256: read.sha256,
                    notes: read.notes,
                };
                Ok((loaded, told))
            }
            Scope::PolicyAndKeys => {
                let mut fresh = config::load(&self.config).map_err(|report| report.to_string())?;
                let mut told = words(&fresh.notes);
                // Only these may change while it runs; the rest was read once at start.
                let mut wardent = self.loaded.wardent.clone();
                wardent.secret.keys.clone_from(&fresh.wardent.secret.keys);
                wardent.bots.clone_from(&fresh.wardent.bots);
                if wardent != fresh.wardent {
                    told.push(format!(
                        "{}: changed beyond `secret.keys` and `bots`: that takes a restart",
                        self.config.display()
                    ));
                }
                fresh.wardent = wardent;
                Ok((fresh, told))
            }
        }
    }
}
