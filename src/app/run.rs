//! `wardent run`: the process around the app, its signals and its systemd manners.

use std::{path::Path, process::ExitCode, thread::JoinHandle};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Options, Running, StartError, cli, start_lines, start_with};
use crate::{
    config,
    event::access::Format,
    telemetry::log::{Log, Look},
};

/// Runs until a signal ends it.
pub(super) fn run(config: &Path, look: Option<Look>) -> ExitCode {
    match serve(config, look) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::start_failed(&error),
    }
}

fn serve(config: &Path, look: Option<Look>) -> Result<(), StartError> {
    refuse_huge_pages();
    let level = config::load(config)?.wardent.telemetry.log;
    let log_look = look.unwrap_or_else(|| Look::fitting(&std::io::stderr()));
    let _log = Log::start(level.word(), log_look);
    raise_descriptor_limit();
    let signals = Signals::install()?;
    let format = match look.unwrap_or_else(|| Look::fitting(&std::io::stdout())) {
        Look::Json => Format::Json,
        Look::Human => Format::Human,
    };
    let writes_lines = matches!(level.word(), "info" | "debug" | "trace");
    let (lines, writer) = match writes_lines.then(|| start_lines(format)).transpose() {
        Ok(started) => started.unzip(),
        Err(error) => {
            return Err(StartError::System(format!(
                "cannot start a thread: {error}"
            )));
        }
    };
    let running = start_with(
        config,
        Options {
            lines,
            takes_passed_sockets: true,
            aborts_when_hung: true,
            ..Options::default()
        },
    )?;
    announce(&running);
    until_ended(running, signals);
    finish_lines(writer);
    Ok(())
}

/// Lines that were handed over are written before the process ends.
fn finish_lines(writer: Option<JoinHandle<()>>) {
    if let Some(writer) = writer {
        // All lanes are gone, so it ends with the last line.
        let _ = writer.join();
    }
}

/// Tells the log and systemd that requests are served.
pub(super) fn announce(running: &Running) {
    for note in &running.notes {
        tracing::warn!("{note}");
    }
    for address in running.proxy() {
        tracing::info!(%address, "serving");
    }
    if let Some(address) = running.admin() {
        tracing::info!(%address, "admin listener");
    }
    notify(&[NotifyState::Ready]);
}

/// Tells systemd that all is well, as `WatchdogSec` asks for.
pub(super) fn tell_watchdog() {
    notify(&[NotifyState::Watchdog]);
}

pub(super) fn notify(states: &[NotifyState<'_>]) {
    // Without systemd there is nobody to notify.
    let _ = sd_notify::notify(states);
}

/// Tells systemd that a reload begins; `READY=1` tells that it has ended, whatever came of it.
///
/// With `Type=notify-reload`, the time is how systemd knows that this answers its own SIGHUP
/// (systemd.service(5)).
fn notify_reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, now]);
    }
}

/// The signals that a process lives by. Installed before anything is served: one that comes earlier
/// must not kill.
pub(super) struct Signals {
    runtime: tokio::runtime::Runtime,
    ends: [Signal; 2],
    hangup: Signal,
}

impl Signals {
    pub(super) fn install() -> Result<Self, StartError> {
        let failed = |error| StartError::System(format!("cannot watch for signals: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let entered = runtime.enter();
        let ends = [
            signal(SignalKind::terminate()).map_err(failed)?,
            signal(SignalKind::interrupt()).map_err(failed)?,
        ];
        let hangup = signal(SignalKind::hangup()).map_err(failed)?;
        drop(entered);
        Ok(Self {
            runtime,
            ends,
            hangup,
        })
    }
}

#[cfg(feature = "cluster")]
impl Signals {
    /// Waits for `span`. True at SIGTERM and SIGINT; a SIGHUP has nothing to do here.
    pub(super) fn ended_within(&mut self, span: std::time::Duration) -> bool {
        let ends = &mut self.ends;
        self.runtime.block_on(async {
            let waiting = tokio::time::timeout(span, any(ends));
            waiting.await.is_ok()
        })
    }
}

/// Serves until SIGTERM or SIGINT, then drains; a second one ends it at once. SIGHUP reloads.
pub(super) fn until_ended(running: Running, signals: Signals) {
    let Signals {
        runtime,
        mut ends,
        mut hangup,
    } = signals;
    runtime.block_on(async {
        loop {
            tokio::select! {
                () = any(&mut ends) => break,
                _ = hangup.recv() => {
                    notify_reloading();
                    tokio::select! {
                        // What came of it has been told to the log.
                        _ = running.reloader.reload("signal") => notify(&[NotifyState::Ready]),
                        // A disk that keeps the files from being read must not keep it from ending.
                        () = any(&mut ends) => break,
                    }
                }
            }
        }
        tracing::info!("draining");
        notify(&[NotifyState::Stopping]);
        running.drain();
        let phase = running.phase.clone();
        let drained = tokio::task::spawn_blocking(move || running.wait());
        tokio::select! {
            _ = drained => {}
            () = any(&mut ends) => {
                tracing::warn!("stopping at once");
                phase.send_replace(crate::proxy::listener::Phase::Stopping);
            }
        }
    });
}

async fn any(signals: &mut [Signal; 2]) {
    let [one, other] = signals;
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// Memory comes in the usual small pages: a huge one for each of many small needs would double what
/// an idle process and ten thousand idle connections hold, and makes no request measurably cheaper.
fn refuse_huge_pages() {
    // A kernel without huge pages gives none anyway.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Takes as many descriptors as the system allows; connections need one or two each.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if limit.current != limit.maximum && setrlimit(Resource::Nofile, raised).is_err() {
        tracing::warn!(?limit, "cannot raise the limit of open files");
    }
}
