//! Starts what is told to others: traces to a collector, signs of life to a monitor.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle};

use crate::{
    admin::{View, ping, traces::Exporter},
    config::wardent::Telemetry,
    proxy::trace::Tracer,
    telemetry::post::Target,
};

/// What workers tell of requests, where a collector is configured.
pub(super) fn tracer(telemetry: &Telemetry) -> Option<Arc<Tracer>> {
    telemetry.otlp.as_ref()?;
    Some(Arc::new(Tracer::new(telemetry.sample.millionths())))
}

/// What is to run beside the admin listener.
pub(super) struct Told {
    exporter: Option<Exporter>,
    ping: Option<(Target, Duration)>,
    view: Arc<View>,
}

impl Told {
    pub(super) fn of(telemetry: &Telemetry, view: &Arc<View>) -> Self {
        let tracer = view.shared.tracer.as_ref().zip(telemetry.otlp.as_ref());
        let exporter = tracer.map(|(tracer, collector)| {
            let upstream = Arc::clone(&view.shared.upstream);
            let exported = Arc::clone(&view.exported);
            Exporter::new(Arc::clone(tracer), upstream, exported, collector.target())
        });
        let ping = telemetry.ping.as_ref();
        Self {
            exporter,
            ping: ping.map(|ping| (ping.url.target().clone(), ping.interval)),
            view: Arc::clone(view),
        }
    }

    /// Starts it in the runtime that it is called in; the exporter ends by itself.
    pub(super) fn start(self, until_ended: &watch::Receiver<bool>) -> Option<JoinHandle<()>> {
        if let Some((monitor, interval)) = self.ping {
            tokio::spawn(ping::keep_pinging(self.view, monitor, interval));
        }
        let exporter = self.exporter?;
        Some(tokio::spawn(exporter.run(until_ended.clone())))
    }
}
