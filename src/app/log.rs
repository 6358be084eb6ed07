//! The log inside this process: open before the first request is served, closed after the last.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::{StartError, registry};
use crate::{
    admin::log::LogView,
    base::{
        bell::Bell,
        clock::Clock,
        disk::{Disk, System},
    },
    config::{settings, wardent},
    event::{avro, place::Run, privacy::Privacy},
    kafka,
    log::{self, Bounds, Cleaner, CleanerHealth, Ended, Log, OpenError, cleaner::CleanerThread},
    proxy::worker::{LineSink, Outlets},
    registry::Registry,
    sink::{
        builder::{Builder, LogTopic},
        lane::{self, LaneCounts, lane_bytes},
        letters::DeadLetters,
        salt::Salt,
    },
};

/// How long the disk may take to make everything safe at the end.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);
/// How often the salt of hashed addresses is looked at.
const SALT_LOOK: Duration = Duration::from_secs(10);

/// The log at work, and the way of access events into it.
#[derive(Debug)]
pub(super) struct OpenLog {
    log: Arc<Log>,
    /// What was not as it should be.
    found: Vec<String>,
    /// Why what administrators decided is not known for certain, if so.
    undecided: Option<String>,
    clock: Clock,
    /// In a mutex only so that it may be looked at from anywhere; nobody does.
    threads: Mutex<Option<Threads>>,
    builder: Option<JoinHandle<()>>,
    cleaned: Arc<CleanerHealth>,
    bell: Arc<Bell>,
    privacy: AddressPrivacy,
    /// Topics whose values are Avro.
    avro: Vec<wardent::EventTopic>,
    registry: Registry,
    letters: DeadLetters,
}

/// Who does the log's work. The cleaner ends first: what it asks for, the others carry out.
#[derive(Debug)]
struct Threads {
    cleaner: CleanerThread,
    running: log::Running,
}

impl OpenLog {
    /// Opens the log that `document` names, on the machine's own file system if on no other; recovers it,
    /// and starts its threads.
    ///
    /// # Errors
    /// When another process has it, or the directory or what is in it cannot be used.
    pub(super) fn open(
        document: &wardent::Log,
        disk: Option<Arc<dyn Disk>>,
        clock: &Clock,
    ) -> Result<Self, StartError> {
        let privacy = AddressPrivacy::of(document, clock)?;
        let settings = settings::log(document);
        let (bytes_max, ballast_bytes) = (settings.disk_max, settings.ballast_bytes);
        let disk = disk.unwrap_or_else(|| Arc::new(System));
        let opened =
            log::open(settings, disk, clock.clone()).map_err(|error| not_opened(&error))?;
        let mut found: Vec<_> = opened.report.iter().map(ToString::to_string).collect();
        for found in &found {
            tracing::warn!("{found}");
        }
        let log = Arc::clone(&opened.log);
        let running = log::start(opened.appender, opened.flusher, opened.changer)
            .map_err(|error| no_thread(&error))?;
        let undecided = undecided(&log);
        found.extend(undecided.clone());
        let bounds = Bounds {
            bytes_max,
            ballast_bytes,
            spares_foreign: undecided.is_some(),
        };
        let cleaner = Cleaner::new(Arc::clone(&log), bounds);
        let cleaned = Arc::clone(cleaner.health());
        let letters = DeadLetters::of(&log).map_err(StartError::System)?;
        let registry = registry::open(&log, &letters, clock)?;
        let cleaner = cleaner.start().map_err(|error| no_thread(&error))?;
        Ok(Self {
            log,
            found,
            undecided,
            clock: clock.clone(),
            threads: Mutex::new(Some(Threads { cleaner, running })),
            cleaned,
            builder: None,
            bell: Arc::default(),
            privacy,
            avro: document.avro.clone(),
            registry,
            letters,
        })
    }

    /// What events show of addresses.
    pub(super) fn privacy(&self) -> &Privacy {
        &self.privacy.shown
    }

    /// What values of a topic are turned into; none where they are JSON.
    pub(super) fn codec(&self, topic: wardent::EventTopic) -> Option<&'static avro::Codec> {
        let is_avro = self.avro.contains(&topic);
        is_avro.then(|| avro::of_topic(topic.word())).flatten()
    }

    /// Where what cannot be read goes.
    pub(super) fn letters(&self) -> &DeadLetters {
        &self.letters
    }

    /// The log.
    pub(super) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Why what administrators decided is not known for certain, if so. Nobody must be served by it.
    pub(super) fn undecided(&self) -> Option<&str> {
        self.undecided.as_deref()
    }

    /// What its cleaner counts.
    pub(super) fn cleaned(&self) -> &Arc<CleanerHealth> {
        &self.cleaned
    }

    /// What was not as it should be when it was opened.
    pub(super) fn found(&self) -> &[String] {
        &self.found
    }

    /// Where the events of so many workers go: a lane for each, with the builder at the other ends, and
    /// `lines`.
    ///
    /// # Errors
    /// When there is no randomness, or no thread.
    pub(super) fn outlets(
        &mut self,
        workers: usize,
        lines: Option<&LineSink>,
    ) -> Result<(Vec<Outlets>, LogView), StartError> {
        let mut number = [0; 4];
        getrandom::fill(&mut number)
            .map_err(|error| StartError::System(format!("no randomness: {error}")))?;
        let run = Run::new(u32::from_ne_bytes(number));
        let lane = |number| lane::lane(run, number, lane_bytes(workers), &self.bell);
        let (lanes, drains): (Vec<_>, Vec<_>) = (0..).take(workers).map(lane).unzip();
        let counts = drains.iter().map(|drain| Arc::clone(drain.counts()));
        let counts: Vec<Arc<LaneCounts>> = counts.collect();
        let topic = LogTopic::named(self.log(), settings::ACCESS)
            .ok_or_else(|| StartError::System(format!("the log has no {}", settings::ACCESS)))?;
        let bell = Arc::clone(&self.bell);
        let builder = Builder::new(drains, Box::new(topic), bell, self.clock.clone())
            .with_codec(self.codec(wardent::EventTopic::Access));
        let view = LogView {
            log: Arc::clone(&self.log),
            lanes: counts,
            builder: Arc::clone(builder.counts()),
            cleaner: Arc::clone(&self.cleaned),
            registry: self.registry.clone(),
            letters: Arc::clone(self.letters.counts()),
        };
        self.builder = Some(builder.start().map_err(|error| no_thread(&error))?);
        let outlets = lanes.into_iter();
        let outlets = outlets.map(|lane| Outlets::new(Some(lane), lines));
        Ok((outlets.collect(), view))
    }

    /// Writes what the workers have told, which have ended, makes everything safe, and lets go of the log.
    pub(super) fn close(&mut self) {
        if let Some(builder) = self.builder.take() {
            self.bell.wake();
            // A panic in it has aborted the process.
            let _ = builder.join();
        }
        let threads = self
            .threads
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let ended = threads.take().map(|Threads { cleaner, running }| {
            drop(cleaner);
            running.stop(CLOSED_WITHIN)
        });
        match ended {
            None | Some(Ended::Clean) => {}
            Some(Ended::Unclean) => {
                tracing::error!(
                    "the log could not be made safe; it is recovered at the next start"
                );
            }
            Some(Ended::OutOfTime) => tracing::error!(
                "the log's disk did not answer within {CLOSED_WITHIN:?}; the log is recovered at the next start"
            ),
        }
    }
}

impl Drop for OpenLog {
    fn drop(&mut self) {
        self.close();
    }
}

fn not_opened(error: &OpenError) -> StartError {
    match error {
        OpenError::Locked { .. } => StartError::Locked(error.to_string()),
        OpenError::Io { .. } => StartError::System(format!(
            "{error} (`log.dir` must be a directory of the user that serves, on a disk that is well)"
        )),
        OpenError::Newer { .. } | OpenError::Wrong { .. } => StartError::System(error.to_string()),
    }
}

/// Has topics kept as it was decided; or tells why what was decided is not known for certain. What is left of it
/// counts then.
fn undecided(log: &Arc<Log>) -> Option<String> {
    let unkept = kafka::restore_kept(log).err()?;
    if let Err(again) = kafka::restore_kept(log) {
        tracing::warn!("{again}");
    }
    Some(unkept.to_string())
}

fn no_thread(error: &std::io::Error) -> StartError {
    StartError::System(format!("cannot start a thread: {error}"))
}

/// What events show of addresses, and who sees to it that the salt changes with the day.
#[derive(Debug)]
struct AddressPrivacy {
    shown: Privacy,
    _salt: Option<SaltThread>,
}

impl AddressPrivacy {
    /// As `document` says; a salt is kept beside the log.
    ///
    /// # Errors
    /// When the salt's file cannot be used.
    fn of(document: &wardent::Log, clock: &Clock) -> Result<Self, StartError> {
        let shown = match document.ip_privacy {
            wardent::IpPrivacy::Full => Privacy::Full,
            wardent::IpPrivacy::Truncate => Privacy::Truncate,
            wardent::IpPrivacy::Hash => return Self::hashed(&document.dir, clock),
        };
        Ok(Self { shown, _salt: None })
    }

    fn hashed(log_dir: &Path, clock: &Clock) -> Result<Self, StartError> {
        const FILE: &str = "ip-privacy.salt";
        let path = log_dir.parent().unwrap_or(log_dir).join(FILE);
        let salt = Salt::open(&path, clock.clone()).map_err(|error| {
            let path = path.display();
            StartError::System(format!("log.ip_privacy: hash: the salt {path}: {error}"))
        })?;
        Ok(Self {
            shown: Privacy::Hash(Arc::clone(salt.salted())),
            _salt: Some(SaltThread::start(salt).map_err(|error| no_thread(&error))?),
        })
    }
}

/// Looks at the salt now and then; it ends when this is dropped.
#[derive(Debug)]
struct SaltThread {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl SaltThread {
    fn start(mut salt: Salt) -> std::io::Result<Self> {
        let ended = Arc::<AtomicBool>::default();
        let until = Arc::clone(&ended);
        let look = move || {
            // Relaxed: the thread is woken after it is set, and looks again either way.
            while !until.load(Ordering::Relaxed) {
                if let Err(error) = salt.turn() {
                    tracing::warn!(%error, "the salt of hashed addresses cannot be kept");
                }
                std::thread::park_timeout(SALT_LOOK);
            }
        };
        let named = std::thread::Builder::new().name("salt".to_owned());
        Ok(Self {
            ended,
            thread: named.spawn(look)?,
        })
    }
}

impl Drop for SaltThread {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // It is not waited for: a disk that does not answer may keep it.
        self.thread.thread().unpark();
    }
}
