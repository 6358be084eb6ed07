//! Wardent as a process of its own, where signals, descriptors and memory are the question.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use wardent::base::net::Address;

use super::{
    client::RawClient,
    get,
    time::{self, PATIENCE},
};

/// A running `wardent run`; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    address: Address,
    dir: TempDir,
}

impl Process {
    /// Starts the binary and waits until it serves.
    pub(crate) fn start(config: &Path, dir: TempDir) -> Self {
        Self::start_through(config, dir, None)
    }

    /// Starts the binary through a shell command that ends in `exec "$@"`.
    ///
    /// Its standard output and error are pipes nobody reads until it is gone.
    pub(crate) fn start_through(config: &Path, dir: TempDir, shell: Option<&str>) -> Self {
        let binary = env!("CARGO_BIN_EXE_wardent");
        let mut command = if let Some(script) = shell {
            let mut command = Command::new("sh");
            command.args(["-c", script, "sh", binary]);
            command
        } else {
            Command::new(binary)
        };
        command.arg("run").arg("--config").arg(config);
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Self {
            child: command.spawn().unwrap(),
            address: Address::Unix(dir.path().join("proxy.sock")),
            dir,
        };
        process.wait_until_it_serves();
        process
    }

    fn wait_until_it_serves(&mut self) {
        let mut gone = None;
        let ready = time::holds_within(PATIENCE, || {
            gone = self.child.try_wait().unwrap();
            gone.is_some() || RawClient::try_connect(&self.address).is_ok()
        });
        if gone.is_some() || !ready {
            panic!("wardent run ({gone:?}): {}", self.said());
        }
    }

    /// What it printed; it is killed for that if it still runs.
    pub(crate) fn said(&mut self) -> String {
        drop(self.child.kill());
        drop(self.child.wait());
        let mut text = String::new();
        if let Some(mut out) = self.child.stdout.take() {
            drop(out.read_to_string(&mut text));
        }
        if let Some(mut err) = self.child.stderr.take() {
            drop(err.read_to_string(&mut text));
        }
        text
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// The directory of its files.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A connection to it.
    pub(crate) fn client(&self) -> RawClient {
        RawClient::connect(&self.address)
    }

    /// Whether it still serves a good request.
    pub(crate) fn assert_alive(&self) {
        assert_eq!(self.client().ask(get("/alive")).status, 200);
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it is gone.
    pub(crate) fn wait_exit(&mut self, patience: Duration) -> Option<ExitStatus> {
        let mut status = None;
        time::holds_within(patience, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status
    }

    /// How many descriptors it holds.
    pub(crate) fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        fs::read_dir(path).unwrap().count()
    }

    /// How many threads it runs.
    pub(crate) fn threads(&self) -> usize {
        self.status("Threads")
    }

    /// Its resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> usize {
        self.status("VmRSS")
    }

    fn status(&self, name: &str) -> usize {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// The processor time it has used, in clock ticks (10 ms).
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, after) = text.rsplit_once(')').unwrap();
        let ticks = after.split_whitespace().skip(11).take(2);
        ticks.map(|number| number.parse::<u64>().unwrap()).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
