//! The numbers in the OpenMetrics text format. Every label has a fixed set of values.

use std::{fmt, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use super::{Reloads, View, process};
use crate::{
    bots::Category,
    event::access::Verdict,
    guard::verdict::Reason,
    owner::Cause,
    proxy::{
        metrics::{Count, DURATION_BOUNDS_US, WorkerMetrics, stage_names},
        trace::Tracer,
    },
};

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The text of `/metrics`.
///
/// # Errors
/// Never in practice: writing to memory does not fail.
pub fn render(view: &Arc<View>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Numbers(Arc::clone(view))));
    let mut text = String::with_capacity(16 * 1024);
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Numbers(Arc<View>);

impl Numbers {
    /// The sum of one number over all workers.
    fn sum(&self, of: impl Fn(&WorkerMetrics) -> &Count) -> u64 {
        self.0.workers.iter().map(|worker| of(worker).get()).sum()
    }

    /// The sums of a list of numbers over all workers, by place.
    fn sums<'a>(&'a self, of: impl Fn(&'a WorkerMetrics) -> &'a [Count]) -> Vec<u64> {
        let mut sums = Vec::new();
        for worker in &self.0.workers {
            let counts = of(worker);
            sums.resize(counts.len(), 0);
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count.get();
            }
        }
        sums
    }

    fn requests(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        encoder.counters(
            "wardent_http_requests",
            "Finished requests by what became of them",
            "verdict",
            Verdict::ALL
                .iter()
                .map(|verdict| verdict.name())
                .zip(self.sums(|worker| &worker.requests)),
        )?;
        encoder.counters(
            "wardent_http_refusals",
            "Requests that were refused or failed, by reason",
            "reason",
            Reason::ALL
                .iter()
                .map(|reason| reason.name())
                .zip(self.sums(|worker| &worker.refusals)),
        )?;
        encoder.counters(
            "wardent_http_observations",
            "Requests that passed and would have been refused, were their route enforced, by reason",
            "reason",
            Reason::ALL
                .iter()
                .map(|reason| reason.name())
                .zip(self.sums(|worker| &worker.observations)),
        )?;
        encoder.counters(
            "wardent_bots",
            "Requests of bots by category, whatever became of them",
            "category",
            Category::ALL
                .iter()
                .map(|category| category.word())
                .zip(self.sums(|worker| &worker.bots)),
        )?;
        encoder.counters(
            "wardent_http_responses",
            "Answers to clients by class of status",
            "class",
            ["1xx", "2xx", "3xx", "4xx", "5xx"]
                .into_iter()
                .zip(self.sums(|worker| &worker.statuses)),
        )?;
        self.durations(encoder)?;
        self.routes(encoder)?;
        encoder.counter(
            "wardent_http_request_body_bytes",
            "Bytes of request bodies received",
            self.sum(|worker| &worker.body_bytes_in),
        )?;
        encoder.counter(
            "wardent_http_sent_bytes",
            "Bytes sent to clients, heads included",
            self.sum(|worker| &worker.bytes_out),
        )?;
        encoder.counter(
            "wardent_http_tunnels",
            "Switches of protocols, such as WebSocket",
            self.sum(|worker| &worker.tunnels),
        )?;
        encoder.counter(
            "wardent_panics",
            "Requests that failed by a fault in Wardent",
            self.sum(|worker| &worker.panics),
        )
    }

    /// By route, whose names are the operator's.
    fn routes(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        let policy = self.0.shared.policy.load();
        let mut family = encoder.descriptor(
            "wardent_route_requests",
            "Finished requests by the route they took and by what became of them",
            MetricType::Counter,
        )?;
        for rules in policy.all_rules() {
            for (verdict, count) in Verdict::ALL.iter().zip(rules.tally.verdicts()) {
                let labels = [("route", rules.route.as_str()), ("verdict", verdict.name())];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        let mut family = encoder.descriptor(
            "wardent_route_request_seconds",
            "Time that the finished requests of each route took together",
            MetricType::Counter,
        )?;
        for rules in policy.all_rules() {
            let time = Duration::from_micros(rules.tally.duration_us()).as_secs_f64();
            let labels = [("route", rules.route.as_str())];
            ConstCounter::new(time).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "microseconds as seconds for people"
    )]
    fn durations(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        let counts = self.sums(|worker| &worker.durations);
        let bounds = DURATION_BOUNDS_US
            .iter()
            .map(|&us| us as f64 / 1e6)
            .chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
        let mut metric = encoder.descriptor(
            "wardent_http_request_duration_seconds",
            "Time from a request's whole head to the end of its answer",
            MetricType::Histogram,
        )?;
        metric.encode_histogram::<NoLabelSet>(
            self.sum(|worker| &worker.duration_sum_us) as f64 / 1e6,
            counts.iter().sum(),
            &buckets,
            None,
        )
    }

    fn connections(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        encoder.gauge(
            "wardent_connections",
            "Client connections that are open",
            self.sum(|worker| &worker.connections),
        )?;
        encoder.counter(
            "wardent_connections_accepted",
            "Client connections accepted",
            self.sum(|worker| &worker.accepted),
        )?;
        encoder.counter(
            "wardent_connections_turned_away",
            "Client connections closed at once because of max_connections",
            self.sum(|worker| &worker.turned_away),
        )?;
        encoder.counter(
            "wardent_accept_errors",
            "Connections that the system could not hand over",
            self.sum(|worker| &worker.accept_errors),
        )?;
        encoder.gauges(
            "wardent_waiting",
            "Waits under way by what is waited for",
            "stage",
            stage_names().zip(self.sums(|worker| &worker.waiting)),
        )?;
        let shared = &self.0.shared;
        encoder.gauge(
            "wardent_requests_in_flight",
            "Requests at the upstream now",
            shared.in_flight.held() as u64,
        )?;
        encoder.gauge(
            "wardent_webhook_held_bytes",
            "Bytes of webhook bodies held for their signature",
            shared.held_bytes.held() as u64,
        )
    }

    fn upstream(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        encoder.counter(
            "wardent_upstream_connects",
            "Connections made to the upstream, or tried",
            self.sum(|worker| &worker.connects),
        )?;
        encoder.counter(
            "wardent_upstream_reuses",
            "Requests sent on a connection that had served before",
            self.sum(|worker| &worker.reuses),
        )?;
        encoder.counter(
            "wardent_upstream_retries",
            "Requests sent once more because a kept connection was dead",
            self.sum(|worker| &worker.retries),
        )?;
        encoder.gauge(
            "wardent_upstream_idle_connections",
            "Connections to the upstream kept for the next request",
            self.sum(|worker| &worker.idle_upstream),
        )?;
        let shared = &self.0.shared;
        let now_ms = shared.clock.monotonic_ns() / 1_000_000;
        let servers = || shared.upstream.servers().iter();
        encoder.gauges(
            "wardent_upstream_server_in_flight",
            "Requests at each server now",
            "server",
            servers().map(|server| (server.name(), u64::from(server.in_flight()))),
        )?;
        encoder.gauges(
            "wardent_upstream_server_in_rotation",
            "Whether each server is healthy and not ejected",
            "server",
            servers().map(|server| (server.name(), u64::from(server.is_in_rotation(now_ms)))),
        )
    }

    fn clients(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        let clients = &self.0.shared.clients;
        encoder.gauge(
            "wardent_client_cells",
            "Clients whose limits are kept in cells of their own",
            clients.cells(),
        )?;
        encoder.gauge(
            "wardent_client_table_full",
            "Whether limits.clients_max is reached, so that new clients share the cold lane",
            u64::from(clients.is_full()),
        )?;
        encoder.counter(
            "wardent_client_sights_dropped",
            "New clients that were not told to the owner because its queue was full",
            clients.sights_dropped(),
        )?;
        encoder.counter(
            "wardent_client_cells_contended",
            "Looks for a client's cell that the owner's writing outlasted",
            clients.contended(),
        )
    }

    fn bot_lookups(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        let figures = self.0.shared.bots.verifier.figures();
        encoder.counters(
            "wardent_bot_lookups",
            "Questions to the DNS about bots' addresses, by what became of them",
            "result",
            [
                ("asked", figures.asked),
                ("queue_full", figures.queue_full),
                ("answered", figures.answered),
                ("failed", figures.failed),
            ]
            .into_iter(),
        )?;
        encoder.gauge(
            "wardent_bot_addresses",
            "Addresses of bots that the DNS has been asked about and that are remembered",
            figures.remembered,
        )
    }

    fn bans(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        let numbers = &self.0.owner;
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        encoder.gauge("wardent_bans", "Bans in force", get(&numbers.active))?;
        encoder.counters(
            "wardent_ban_changes",
            "Changes of bans by kind; observed ones would have begun, were the policy enforced",
            "change",
            [
                ("began", get(&numbers.began)),
                ("observed", get(&numbers.observed)),
                ("expired", get(&numbers.expired)),
                ("lifted", get(&numbers.lifted)),
                ("refused", get(&numbers.refused)),
            ]
            .into_iter(),
        )?;
        encoder.counters(
            "wardent_violations",
            "Violations of proven clients by cause",
            "cause",
            Cause::ALL
                .iter()
                .map(|cause| cause.name())
                .zip(numbers.violations.iter().map(get)),
        )?;
        encoder.counter(
            "wardent_violations_dropped",
            "Violations that found no room in the owner's queue",
            self.0.shared.facts.dropped(),
        )?;
        encoder.counter(
            "wardent_violations_untallied",
            "Violations of more clients than are tallied at once",
            get(&numbers.untallied),
        )?;
        encoder.seconds(
            "wardent_owner_silent_seconds",
            "Time since the owner of bans last took a turn",
            self.silence(get(&numbers.beat_ms)),
        )?;
        self.publisher(encoder)
    }

    fn publisher(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        let (owner, publisher) = (&self.0.owner, self.0.auditor.numbers());
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        encoder.counter(
            "wardent_ban_changes_deferred",
            "Changes of bans that found no room on their way to the log, and are told again",
            get(&owner.deferred),
        )?;
        encoder.gauge(
            "wardent_ban_changes_untold",
            "Clients and networks whose last change has not found room yet",
            get(&owner.untold),
        )?;
        encoder.counter(
            "wardent_audit_dropped",
            "Acts and reloads that found no room on their way to the log, and are lost to the audit",
            get(&publisher.dropped),
        )?;
        encoder.gauge(
            "wardent_publisher_waiting",
            "Records of bans and of the audit that are not on disk yet",
            get(&publisher.waiting),
        )?;
        encoder.counter(
            "wardent_publisher_written",
            "Records of bans and of the audit that are on disk",
            get(&publisher.written),
        )?;
        encoder.counter(
            "wardent_publisher_failed",
            "Batches of bans and of the audit that the disk did not take, and that are offered again",
            get(&publisher.failed),
        )?;
        encoder.seconds(
            "wardent_publisher_silent_seconds",
            "Time since the publisher of bans last took a turn",
            self.silence(get(&publisher.beat_ms)),
        )
    }

    /// How long ago a turn at `beat_ms` of the monotonic clock was.
    fn silence(&self, beat_ms: u64) -> Duration {
        let now_ms = self.0.shared.clock.monotonic_ns() / 1_000_000;
        Duration::from_millis(now_ms.saturating_sub(beat_ms))
    }

    fn house(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        let view = &self.0;
        let Reloads {
            succeeded,
            failed,
            last_failed,
            last_success_unix_ms,
            told: _,
        } = &*view.reloads;
        encoder.gauge(
            "wardent_policy_generation",
            "Which policy is in force, counted from 1 at the start",
            view.shared.policy.load().generation,
        )?;
        encoder.counters(
            "wardent_policy_reloads",
            "Reloads of the policy by their result",
            "result",
            [
                ("succeeded", succeeded.load(Ordering::Relaxed)),
                ("failed", failed.load(Ordering::Relaxed)),
            ]
            .into_iter(),
        )?;
        encoder.gauge(
            "wardent_policy_reload_failed",
            "Whether the last reload was refused, so that an older policy is in force",
            last_failed.load(Ordering::Relaxed),
        )?;
        encoder.seconds(
            "wardent_policy_loaded_timestamp_seconds",
            "When the policy in force was loaded",
            Duration::from_millis(last_success_unix_ms.load(Ordering::Relaxed)),
        )?;
        encoder.counter(
            "wardent_lines_dropped",
            "Event lines dropped because standard output took none",
            view.lines.as_ref().map_or(0, |lines| lines.dropped()),
        )?;
        self.vitals(encoder)
    }

    fn vitals(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        let view = &self.0;
        let vitals = &view.vitals;
        encoder.counter(
            "wardent_canaries",
            "Requests that the watchdog sent through the real path",
            vitals.canaries.load(Ordering::Relaxed),
        )?;
        encoder.counter(
            "wardent_canaries_lost",
            "Requests of the watchdog that were not answered in time",
            vitals.canaries_lost.load(Ordering::Relaxed),
        )?;
        encoder.seconds(
            "wardent_canary_seconds",
            "What the watchdog's last request took",
            Duration::from_micros(vitals.canary_us.load(Ordering::Relaxed)),
        )?;
        encoder.seconds(
            "wardent_canary_last_success_timestamp_seconds",
            "When a request of the watchdog was last answered; 0 before the first",
            Duration::from_millis(vitals.canary_unix_ms.load(Ordering::Relaxed)),
        )?;
        encoder.gauge(
            "wardent_hang_alarm",
            "Whether something has been silent for more than 5 s",
            u64::from(vitals.is_alarmed.load(Ordering::Relaxed)),
        )?;
        encoder.counter(
            "wardent_hang_alarms",
            "Times that something was silent for more than 5 s",
            vitals.alarms.load(Ordering::Relaxed),
        )?;
        encoder.seconds(
            "wardent_hang_last_timestamp_seconds",
            "When an earlier process left its last report of a hang and ended itself; 0 for never",
            Duration::from_millis(vitals.last_hang_unix_ms.load(Ordering::Relaxed)),
        )?;
        self.told_elsewhere(encoder)?;
        let workers = view.workers.iter();
        let silences = workers.map(|worker| self.silence(worker.beat_ms.get()));
        encoder.seconds(
            "wardent_worker_silent_seconds",
            "Time since the least lively worker last ticked",
            silences.max().unwrap_or_default(),
        )
    }
}

impl Numbers {
    /// What goes to a collector of traces and to a monitor.
    fn told_elsewhere(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        let (exported, vitals) = (&self.0.exported, &self.0.vitals);
        let tracer = self.0.shared.tracer.as_deref();
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        encoder.counter(
            "wardent_otlp_spans",
            "Spans of traces that the collector took",
            get(&exported.taken),
        )?;
        encoder.counters(
            "wardent_otlp_spans_lost",
            "Spans that the collector does not have, by why: no room to wait, it was not reached, or it refused them",
            "reason",
            [
                ("queue_full", tracer.map_or(0, Tracer::lost)),
                ("unreachable", get(&exported.unreachable)),
                ("refused", get(&exported.refused)),
            ]
            .into_iter(),
        )?;
        encoder.gauge(
            "wardent_otlp_waiting_requests",
            "Finished requests whose spans wait to be sent",
            tracer.map_or(0, Tracer::waiting) as u64,
        )?;
        encoder.counters(
            "wardent_pings",
            "Pings to the dead-man monitor, by whether it answered",
            "result",
            [
                ("answered", get(&vitals.pings_answered)),
                ("failed", get(&vitals.pings_failed)),
            ]
            .into_iter(),
        )
    }
}

impl Collector for Numbers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut encoder = Encoder(encoder);
        process::encode(&mut encoder, self.0.started_unix_ms)?;
        self.requests(&mut encoder)?;
        self.connections(&mut encoder)?;
        self.upstream(&mut encoder)?;
        self.clients(&mut encoder)?;
        self.bot_lookups(&mut encoder)?;
        self.bans(&mut encoder)?;
        self.0.log.encode(&mut encoder)?;
        if let Some(cluster) = &self.0.cluster {
            super::cluster::encode(cluster, &self.0.owner.others, &mut encoder)?;
        }
        if let Some(counters) = &self.0.kafka {
            super::kafka::encode(counters, &mut encoder)?;
            super::kafka::encode_lag(&self.0.groups(), &mut encoder)?;
        }
        self.house(&mut encoder)
    }
}

/// Writes families. A name that ends in its unit is told with it.
pub(super) struct Encoder<'a>(DescriptorEncoder<'a>);

impl<'a> Encoder<'a> {
    pub(super) fn counters<'n>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'n str, u64)>,
    ) -> fmt::Result {
        let values = values.map(|(value, count)| (value, ConstCounter::new(count)));
        self.family(MetricType::Counter, name, help, label, values)
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, count: u64) -> fmt::Result {
        let metric = self.descriptor(name, help, MetricType::Counter)?;
        ConstCounter::new(count).encode(metric)
    }

    /// A time that only grows, in seconds.
    pub(super) fn seconds_counter(
        &mut self,
        name: &str,
        help: &str,
        time: Duration,
    ) -> fmt::Result {
        let metric = self.descriptor(name, help, MetricType::Counter)?;
        ConstCounter::new(time.as_secs_f64()).encode(metric)
    }

    pub(super) fn gauges<'n>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'n str, u64)>,
    ) -> fmt::Result {
        let values = values.map(|(value, number)| (value, gauge(number)));
        self.family(MetricType::Gauge, name, help, label, values)
    }

    /// Times in seconds, by one label.
    pub(super) fn seconds_by<'n>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'n str, f64)>,
    ) -> fmt::Result {
        let values = values.map(|(value, seconds)| (value, ConstGauge::new(seconds)));
        self.family(MetricType::Gauge, name, help, label, values)
    }

    fn family<'n>(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'n str, impl EncodeMetric)>,
    ) -> fmt::Result {
        let mut family = self.descriptor(name, help, kind)?;
        for (value, metric) in values {
            metric.encode(family.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }

    /// A family of gauges with two labels.
    pub(super) fn pairs<'n>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; 2],
        values: impl Iterator<Item = ([&'n str; 2], f64)>,
    ) -> fmt::Result {
        let mut family = self.descriptor(name, help, MetricType::Gauge)?;
        for (of, number) in values {
            let ([first, second], [one, other]) = (labels, of);
            let told = [(first, one), (second, other)];
            ConstGauge::new(number).encode(family.encode_family(&told)?)?;
        }
        Ok(())
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, number: u64) -> fmt::Result {
        let metric = self.descriptor(name, help, MetricType::Gauge)?;
        gauge(number).encode(metric)
    }

    /// A time, or a moment since 1970, in seconds.
    pub(super) fn seconds(&mut self, name: &str, help: &str, time: Duration) -> fmt::Result {
        let metric = self.descriptor(name, help, MetricType::Gauge)?;
        ConstGauge::new(time.as_secs_f64()).encode(metric)
    }

    pub(super) fn descriptor<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        static SECONDS: Unit = Unit::Seconds;
        static BYTES: Unit = Unit::Bytes;
        let (bare, unit) = match (name.strip_suffix("_seconds"), name.strip_suffix("_bytes")) {
            (Some(bare), _) => (bare, Some(&SECONDS)),
            (None, Some(bare)) => (bare, Some(&BYTES)),
            (None, None) => (name, None),
        };
        self.0.encode_descriptor(bare, help, unit, kind)
    }
}

fn gauge(number: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(number).unwrap_or(i64::MAX))
}
