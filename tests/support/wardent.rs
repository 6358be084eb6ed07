//! Starts a Wardent in this process, with files of its own.

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use tempfile::TempDir;
use wardent::{
    app::{self, Options, Running},
    base::{disk::Disk, net::Address},
};

use super::{KEY, client::RawClient, get, message::Response, origin::Origin, process::Process};

/// A policy that limits and bans nobody, so that a test meets only what it asks for.
pub(crate) const OPEN_POLICY: &str = "mode: enforce
bans: {threshold: 1000000}
defaults:
  limit: {rate: 1000000/s, burst: 1000000}
";

/// [`OPEN_POLICY`] with more defaults (whole lines) and whatever else follows.
pub(crate) fn open_policy(defaults: &[&str], rest: &str) -> String {
    let defaults: String = defaults.iter().map(|line| format!("  {line}\n")).collect();
    format!("{OPEN_POLICY}{defaults}{rest}")
}

/// What a Wardent is started with.
#[derive(Debug)]
pub(crate) struct Setup {
    dir: TempDir,
    listen: String,
    servers: Vec<String>,
    top: Vec<String>,
    log_dir: Option<PathBuf>,
    log: String,
    admin: String,
    upstream: Vec<String>,
    client_ip: Vec<String>,
    trusted_peers: String,
    secret: Vec<String>,
    policy: String,
    workers: usize,
    disk: Option<Arc<dyn Disk>>,
}

/// A Wardent that serves; dropping it stops it.
#[derive(Debug)]
pub(crate) struct Wardent {
    running: Option<Running>,
    addresses: Vec<Address>,
    dir: TempDir,
}

/// A directory named after the test that asks for it.
pub(crate) fn work_dir() -> TempDir {
    let thread = thread::current();
    let name = thread.name().unwrap_or("test");
    // A unix socket's path has room for 108 bytes.
    let name: String = name
        .rsplit("::")
        .next()
        .unwrap_or_default()
        .chars()
        .take(40)
        .collect();
    tempfile::Builder::new()
        .prefix(&format!("wt-{name}-"))
        .tempdir()
        .unwrap()
}

impl Setup {
    /// In front of these servers, as `upstream.servers` names them.
    pub(crate) fn before(servers: &[String]) -> Self {
        let setup = Self {
            dir: work_dir(),
            listen: "127.0.0.1:0".to_owned(),
            servers: servers.to_vec(),
            top: Vec::new(),
            log_dir: None,
            log: String::new(),
            admin: String::new(),
            upstream: Vec::new(),
            client_ip: Vec::new(),
            trusted_peers: "127.0.0.1/32, unix".to_owned(),
            secret: vec!["keys: [{id: k1, from: {file: k1.key}}]".to_owned()],
            policy: OPEN_POLICY.to_owned(),
            workers: 1,
            disk: None,
        };
        setup.file("k1.key", KEY)
    }

    /// Adds a line at the top level of `wardent.yaml`.
    pub(crate) fn top(mut self, line: &str) -> Self {
        self.top.push(line.to_owned());
        self
    }

    /// Adds to what stands under `log`, in one line.
    pub(crate) fn log(mut self, more: &str) -> Self {
        self.log += &format!(", {more}");
        self
    }

    /// Adds to what stands under `admin`, in one line.
    pub(crate) fn admin(mut self, more: &str) -> Self {
        self.admin += &format!(", {more}");
        self
    }

    /// Puts the log somewhere else than in the work directory.
    pub(crate) fn log_dir(mut self, dir: &Path) -> Self {
        self.log_dir = Some(dir.to_owned());
        self
    }

    /// Adds a line under `upstream`.
    pub(crate) fn upstream(mut self, line: &str) -> Self {
        self.upstream.push(line.to_owned());
        self
    }

    /// Adds a line under `client_ip`.
    pub(crate) fn client_ip(mut self, line: &str) -> Self {
        self.client_ip.push(line.to_owned());
        self
    }

    /// Replaces the peers that may say who the client is.
    pub(crate) fn trusted_peers(mut self, list: &str) -> Self {
        list.clone_into(&mut self.trusted_peers);
        self
    }

    /// Replaces everything under `secret`; nothing means no secret at all.
    pub(crate) fn secret(mut self, lines: &[&str]) -> Self {
        self.secret = lines.iter().map(|&line| line.to_owned()).collect();
        self
    }

    /// Replaces the policy.
    pub(crate) fn policy(mut self, text: impl Into<String>) -> Self {
        self.policy = text.into();
        self
    }

    /// Sets how many workers there are.
    pub(crate) fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Puts the log on another disk.
    pub(crate) fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = Some(disk);
        self
    }

    /// Listens on a unix socket in the work directory.
    pub(crate) fn unix_listener(mut self) -> Self {
        self.listen = format!("unix:{}", self.dir.path().join("proxy.sock").display());
        self
    }

    /// Puts a file that only its owner may read beside the configuration.
    pub(crate) fn file(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        write_private(&self.dir.path().join(name), bytes.as_ref());
        self
    }

    /// The directory everything lies in.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The text of `wardent.yaml`.
    pub(crate) fn yaml(&self) -> String {
        let dir = self.dir.path().display();
        let block = |name: &str, lines: &[String]| -> String {
            let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
            format!("{name}:\n{lines}")
        };
        let servers = format!("servers: [{}]", self.servers.join(", "));
        let trusted = format!("trusted_peers: [{}]", self.trusted_peers);
        let mut text = format!("listen: [\"{}\"]\nworkers: {}\n", self.listen, self.workers);
        text += &block("upstream", &[vec![servers], self.upstream.clone()].concat());
        text += &block(
            "client_ip",
            &[vec![trusted], self.client_ip.clone()].concat(),
        );
        if !self.secret.is_empty() {
            text += &block("secret", &self.secret);
        }
        text += "policy: policy.yaml\n";
        let log_dir = self.log_dir.clone();
        let log_dir = log_dir.unwrap_or_else(|| self.dir.path().join("log"));
        let more = &self.log;
        text += &format!("log: {{dir: {log_dir:?}, listen: \"127.0.0.1:0\"{more}}}\n");
        let more = &self.admin;
        text += &format!("admin: {{listen: 127.0.0.1:0, socket: \"{dir}/admin.sock\"{more}}}\n");
        for line in &self.top {
            text += line;
            text += "\n";
        }
        text
    }

    /// Writes `wardent.yaml` and `policy.yaml`, and gives the path of the first.
    pub(crate) fn write(&self) -> PathBuf {
        let config = self.dir.path().join("wardent.yaml");
        fs::write(&config, self.yaml()).unwrap();
        fs::write(self.dir.path().join("policy.yaml"), &self.policy).unwrap();
        config
    }

    /// Starts it.
    pub(crate) fn start(self) -> Wardent {
        self.try_start()
            .unwrap_or_else(|error| panic!("Wardent did not start: {error}"))
    }

    /// Starts it, or gives the operator's report.
    pub(crate) fn try_start(self) -> Result<Wardent, String> {
        let config = self.write();
        let options = Options {
            disk: self.disk,
            ..Options::default()
        };
        Wardent::in_dir(&config, self.dir, options)
    }

    /// Starts it as a process of its own, on a unix socket.
    pub(crate) fn spawn(self) -> Process {
        let setup = self.unix_listener();
        let config = setup.write();
        Process::start(&config, setup.dir)
    }

    /// Starts it as a process of its own, through a shell command that ends in `exec "$@"`.
    pub(crate) fn spawn_through(self, shell: &str) -> Process {
        let setup = self.unix_listener();
        let config = setup.write();
        Process::start_through(&config, setup.dir, Some(shell))
    }
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).unwrap().write_all(bytes).unwrap();
}

impl Wardent {
    fn in_dir(config: &Path, dir: TempDir, options: Options) -> Result<Self, String> {
        let running = app::start_with(config, options).map_err(|error| error.to_string())?;
        let addresses = running.proxy().to_vec();
        assert!(!addresses.is_empty(), "Wardent listens nowhere");
        Ok(Self {
            running: Some(running),
            addresses,
            dir,
        })
    }

    /// One in front of an origin, with nothing special.
    pub(crate) fn before(origin: &Origin) -> Self {
        Self::setup(origin).start()
    }

    /// What one in front of an origin is started with.
    pub(crate) fn setup(origin: &Origin) -> Setup {
        Setup::before(&[origin.server()])
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &Address {
        &self.addresses[0]
    }

    /// The directory of its files.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The address of its admin listener.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.running().admin().unwrap()
    }

    /// Where Kafka's clients connect, if they are served.
    pub(crate) fn kafka(&self) -> Option<Address> {
        self.running().kafka().cloned()
    }

    /// A connection from a trusted peer.
    pub(crate) fn client(&self) -> RawClient {
        RawClient::connect(self.address())
    }

    /// A connection from a peer nobody trusts.
    pub(crate) fn stranger(&self) -> RawClient {
        RawClient::connect_from(self.address(), "127.0.0.2")
    }

    /// Asks once, on a connection of its own.
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Response {
        self.client().ask(request)
    }

    /// Gets a path, on a connection of its own.
    pub(crate) fn get(&self, target: &str) -> Response {
        self.ask(get(target))
    }

    /// Replaces the policy file in one piece.
    pub(crate) fn write_policy(&self, text: &str) {
        let fresh = self.dir().join("policy.yaml.new");
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, self.dir().join("policy.yaml")).unwrap();
    }

    /// Reloads, and gives the report of a refusal.
    pub(crate) fn reload(&self) -> Result<(), String> {
        self.running().reload()
    }

    /// Begins to drain.
    pub(crate) fn drain(&self) {
        self.running().drain();
    }

    /// Waits until the drain has ended.
    pub(crate) fn wait(mut self) {
        self.running.take().unwrap().wait();
    }

    /// Ends, and starts again with the same files.
    pub(crate) fn again(self) -> Self {
        Self::again_in(self.end())
    }

    /// Starts again with the files that are there.
    pub(crate) fn again_in(dir: TempDir) -> Self {
        let config = dir.path().join("wardent.yaml");
        Self::in_dir(&config, dir, Options::default()).unwrap()
    }

    /// Drains, waits for the end of that, and leaves the files.
    pub(crate) fn end(mut self) -> TempDir {
        self.drain();
        self.running.take().unwrap().wait();
        self.dir
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }
}
