//! A log on a simulated disk, driven step by step, and left in every way a log can be left.

use std::{
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::model::{Answer, Answers, Class, Lane, Left, Stored, Wrong, id_of, stored};
use crate::{
    base::{
        clock::Clock,
        disk::{Disk, sim::Sim},
        fuzz::Dice,
    },
    log::{
        Append, Appender, Builder, Changer, Cleaned, Cleanup, Command, Compression, Flush, Flusher,
        Found, Log, Opened, Partition, Settings, TopicConfig, TopicSettings, View, open,
    },
};

pub(super) const DIR: &str = "/var/lib/wardent/log";

/// Where each lane is.
const LANES: [(&str, u32, Class); 4] = [
    ("ban", 0, Class::Compacted),
    ("audit", 0, Class::Durable),
    ("access", 0, Class::Lazy),
    ("access", 1, Class::Lazy),
];

const KEYS: usize = 12;
const BEGAN_MS: u64 = 1_700_000_000_000;

/// Turns within which whatever was wrong is over, once nothing is wrong with the disk any more.
const TURNS_MAX: usize = 100;

pub(super) struct World {
    pub(super) disk: Sim,
    pub(super) clock: Clock,
    pub(super) dice: Dice,
    pub(super) lanes: Vec<Lane>,
    running: Option<Running>,
    answers: Answers,
    builder: Builder,
    segment_bytes: u64,
    /// Whether the log was opened, and what was found not told.
    is_report_lost: bool,
    /// Whether no compaction waits for the appender.
    is_compacted: Arc<AtomicBool>,
    /// The last things done, to be shown when something is wrong.
    told: Vec<String>,
}

struct Running {
    log: Arc<Log>,
    appender: Appender,
    flusher: Flusher,
    changer: Changer,
}

/// The settings of a log with the lanes' topics.
pub(super) fn settings(segment_bytes: u64) -> Settings {
    let config = |class: Class| TopicConfig {
        cleanup: match class {
            Class::Compacted => Cleanup::Compact,
            Class::Durable | Class::Lazy => Cleanup::Delete,
        },
        segment_bytes,
        segment_age: Duration::from_secs(20),
        flush: match class {
            Class::Lazy => Flush::Lazily {
                age: Duration::from_secs(5),
                bytes: 4000,
            },
            Class::Durable | Class::Compacted => Flush::EachAppend,
        },
        max_batch_bytes: 100_000,
        is_expendable: class == Class::Lazy,
        is_reserved: true,
        ..TopicConfig::default()
    };
    let topic = |name: &str, partitions, class| TopicSettings {
        name: name.to_owned(),
        partitions,
        config: config(class),
    };
    Settings {
        dir: DIR.into(),
        disk_max: 1 << 30,
        ballast_bytes: 10_000,
        topics: vec![
            topic("ban", 1, Class::Compacted),
            topic("audit", 1, Class::Durable),
            topic("access", 2, Class::Lazy),
        ],
    }
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let dir = Path::new(DIR).parent().unwrap();
        Self {
            disk: Sim::new(seed, dir),
            clock: Clock::manual(BEGAN_MS),
            dice: Dice::seeded(seed),
            // Below and above what lies between two entries of an index.
            segment_bytes: [3000, 15_000][usize::try_from(seed % 2).unwrap()],
            lanes: LANES.map(|(_, _, class)| Lane::new(class)).into(),
            running: None,
            answers: Answers::default(),
            builder: Builder::new(),
            is_report_lost: false,
            is_compacted: Arc::new(AtomicBool::new(true)),
            told: Vec::new(),
        }
    }

    fn tell(&mut self, what: impl Into<String>) {
        self.told.push(what.into());
    }

    /// What was done, the last of it.
    pub(super) fn story(&self) -> String {
        let from = self.told.len().saturating_sub(400);
        self.told[from..].join("\n")
    }

    fn partition(&self, lane: usize) -> Arc<Partition> {
        let (topic, index, _) = LANES[lane];
        let log = &self.running.as_ref().unwrap().log;
        log.partition(topic, index).unwrap()
    }

    /// Opens the log, and checks what is in it.
    ///
    /// `Ok(false)` where it could not be opened because of the disk, or the machine stopped meanwhile.
    pub(super) fn open(&mut self, left: Left) -> Result<bool, Wrong> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let opened = open(settings(self.segment_bytes), disk, self.clock.clone());
        let Opened {
            log,
            appender,
            flusher,
            changer,
            report,
            was_clean,
        } = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.tell(format!("open failed: {error}"));
                self.is_report_lost = true;
                return Ok(false);
            }
        };
        if self.disk.is_gone() {
            self.is_report_lost = true;
            return Ok(false);
        }
        self.disk.stop_after(None);
        self.disk.watch(true);
        // Whatever happened then, the log says that it is whole.
        let left = if was_clean { Left::Closed } else { left };
        self.tell(format!("opened, clean {was_clean}, found {report:?}"));
        self.running = Some(Running {
            log,
            appender,
            flusher,
            changer,
        });
        for (lane, at) in LANES.iter().enumerate() {
            let found = self.read(lane)?;
            let name = self.partition(lane).name();
            let taken: Vec<_> = report.iter().filter(|one| is_hole_in(one, &name)).collect();
            let may_have_holes = self.is_report_lost || !taken.is_empty();
            let missing: Vec<i64> = taken.into_iter().flat_map(missing).collect();
            let high_watermark = self.partition(lane).high_watermark();
            let lane = &mut self.lanes[lane];
            let may_be_cut = left == Left::PowerCut && lane.class == Class::Lazy;
            if high_watermark < lane.shown && !may_be_cut {
                let shown = lane.shown;
                return Err(format!(
                    "{at:?} ends at {high_watermark}, {shown} was shown"
                ));
            }
            lane.shown = high_watermark;
            lane.begin(!was_clean, &missing);
            if report.iter().any(|one| has_no_room_for_epoch(one, &name)) {
                lane.epoch_is_not_kept();
            }
            lane.reopened(&found, left, may_have_holes)
                .map_err(|wrong| format!("{at:?}: {wrong}"))?;
        }
        self.is_report_lost = false;
        self.disk.watch(false);
        self.look();
        Ok(true)
    }

    /// Everything that a reader of the lane finds.
    fn read(&self, lane: usize) -> Result<Vec<Stored>, Wrong> {
        let partition = self.partition(lane);
        let end = partition.high_watermark();
        let mut next = partition.log_start_offset();
        let mut found = Vec::new();
        while next < end {
            let bytes = partition
                .read(next, 2000)
                .map_err(|error| format!("{:?} at {next}: {error:?}", LANES[lane]))?;
            if bytes.is_empty() {
                break;
            }
            let last = last_offset(&bytes);
            if last < next {
                return Err(format!("{:?} at {next}: read up to {last}", LANES[lane]));
            }
            found.extend(stored(&bytes)?);
            next = last + 1;
        }
        let start = partition.log_start_offset();
        found.retain(|one| one.offset >= start);
        Ok(found)
    }

    /// Checks what readers find, while the log is open.
    pub(super) fn check(&mut self) -> Result<(), Wrong> {
        self.disk.watch(true);
        for lane in 0..LANES.len() {
            let found = self.read(lane)?;
            let high_watermark = self.partition(lane).high_watermark();
            let lane = &mut self.lanes[lane];
            lane.check(&found)
                .and_then(|()| lane.check_read(&found, high_watermark))
                .map_err(|wrong| format!("{:?}: {wrong}", lane.class))?;
        }
        self.disk.watch(false);
        Ok(())
    }

    /// Takes what the log says of itself, as long as the machine runs.
    fn look(&mut self) {
        if self.disk.is_gone() {
            return;
        }
        for lane in 0..LANES.len() {
            let partition = self.partition(lane);
            let lane = &mut self.lanes[lane];
            lane.flushed = partition.flushed_offset();
            lane.shown = lane.shown.max(partition.high_watermark());
        }
    }

    fn settle(&mut self) -> Result<(), Wrong> {
        let answers = std::mem::take(&mut *self.answers.lock().unwrap());
        for (lane, number, answer) in answers {
            self.lanes[lane].answered(number, answer)?;
        }
        self.look();
        Ok(())
    }

    /// Offers a batch, and returns its number.
    pub(super) fn offer(&mut self, lane: usize) -> Result<usize, Wrong> {
        let count = 1 + self.dice.below(4);
        let keys = (0..count).map(|_| u32::try_from(self.dice.below(KEYS)).unwrap());
        let keys = keys.collect();
        let padding = match self.dice.below(8) {
            0 => 700,
            _ => self.dice.below(150),
        };
        let now_ms = i64::try_from(self.clock.unix_ms()).unwrap();
        let (number, batch) = self.lanes[lane].offer(&mut self.builder, keys, padding, now_ms);
        let (answers, disk) = (Arc::clone(&self.answers), self.disk.clone());
        let append = Append {
            partition: self.partition(lane),
            batch,
            done: Box::new(move |result| {
                if !disk.is_gone() {
                    let answer = match result {
                        Ok(appended) => Answer::At(appended.base_offset),
                        Err(_) => Answer::Refused,
                    };
                    answers.lock().unwrap().push((lane, number, answer));
                }
            }),
        };
        let log = &self.running.as_ref().unwrap().log;
        if log.appends().offer(append).is_err() {
            self.lanes[lane].answered(number, Answer::Refused)?;
        }
        Ok(number)
    }

    pub(super) fn turn_appender(&mut self) -> Result<(), Wrong> {
        self.running.as_mut().unwrap().appender.turn();
        self.settle()
    }

    pub(super) fn turn_flusher(&mut self) -> Result<(), Wrong> {
        self.running.as_mut().unwrap().flusher.turn();
        self.settle()
    }

    fn command(&mut self, command: Command) {
        let log = &self.running.as_ref().unwrap().log;
        // One too many is not carried out.
        let _ = log.ask(command, Box::new(|_| ()));
    }

    fn delete_some(&mut self, lane: usize) {
        let partition = self.partition(lane);
        let segments = partition.segments();
        let closed = segments.iter().filter(|segment| !segment.is_active);
        let Some(offset) = closed.map(|segment| segment.end_offset).next() else {
            return;
        };
        self.tell(format!("delete {:?} below {offset}", LANES[lane]));
        let known = &mut self.lanes[lane].deleted_below;
        *known = offset.max(*known);
        self.command(Command::DeleteBelow(partition, offset));
    }

    /// Has a segment looked into, in which nothing is wrong.
    fn mend(&mut self, lane: usize) {
        let partition = self.partition(lane);
        let segments = partition.segments();
        let base_offset = segments[self.dice.below(segments.len())].base_offset;
        self.tell(format!("mend {base_offset} of {:?}", LANES[lane]));
        self.command(Command::Mend(partition, base_offset));
    }

    /// Compacts the first closed segments into one.
    fn compact(&mut self, lane: usize) -> Result<(), Wrong> {
        let partition = self.partition(lane);
        let segments = partition.segments();
        let closed = segments.iter().take_while(|segment| !segment.is_active);
        let run: Vec<_> = closed.take(1 + self.dice.below(3)).collect();
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(());
        };
        // One at a time, as a cleaner does it.
        let is_over = self.is_compacted.load(Ordering::Relaxed);
        if last.end_offset > partition.high_watermark() || !is_over {
            return Ok(());
        }
        let run: Vec<i64> = run.iter().map(|segment| segment.base_offset).collect();
        self.tell(format!("compact {:?} {run:?}", LANES[lane]));
        let Ok(mut cleaned) = Cleaned::begin(&partition, &self.disk, first.base_offset) else {
            return Ok(());
        };
        let mut next = first.base_offset;
        let known = &self.lanes[lane];
        while next < last.end_offset {
            let Ok(bytes) = partition.read(next, 1) else {
                return Ok(());
            };
            let Ok((view, _)) = View::read(&bytes) else {
                break;
            };
            next = view.last_offset() + 1;
            let batch = self
                .builder
                .rewrite(&view, None, Compression::Lz4, |record| {
                    !known.is_superseded(id_of(record.value.unwrap()))
                });
            if cleaned.write(batch.unwrap().bytes()).is_err() {
                return Ok(());
            }
        }
        if let Ok(cleaned) = cleaned.finish() {
            let is_over = Arc::clone(&self.is_compacted);
            is_over.store(false, Ordering::Relaxed);
            let command = Command::Replace(partition, run, Box::new(cleaned));
            let log = &self.running.as_ref().unwrap().log;
            let done = Box::new(move |_| is_over.store(true, Ordering::Relaxed));
            if log.ask(command, done).is_err() {
                self.is_compacted.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Checks that everything that was ever offered is in the log.
    pub(super) fn all_is_there(&self) -> Result<(), Wrong> {
        for (lane, at) in LANES.iter().enumerate() {
            let (found, offered) = (self.read(lane)?.len(), self.lanes[lane].offered_records());
            if found != offered {
                return Err(format!("{at:?} has {found} of {offered} records"));
            }
        }
        Ok(())
    }

    /// One thing that happens to a log.
    pub(super) fn step(&mut self) -> Result<(), Wrong> {
        let lane = self.dice.below(LANES.len());
        match self.dice.below(100) {
            0..40 => {
                let number = self.offer(lane)?;
                self.tell(format!("offer {number} to {:?}", LANES[lane]));
            }
            40..68 => {
                self.tell("appender");
                self.turn_appender()?;
            }
            68..84 => {
                self.tell("flusher");
                self.turn_flusher()?;
            }
            84..91 => {
                let ms = self.dice.below(6000) as u64;
                self.tell(format!("clock {ms}"));
                self.clock.advance_ms(ms);
            }
            91 => {
                let ms = self.dice.below(1_000_000_000) as u64;
                self.tell("the wall clock is set");
                self.clock.set_unix_ms(BEGAN_MS + ms);
            }
            92 | 93 => self.command(Command::Roll(self.partition(lane))),
            94 => self.delete_some(lane),
            95 | 96 => self.compact(0)?,
            97 => self.mend(lane),
            _ => {
                let is_sound = self.disk.is_gone();
                if !is_sound {
                    self.check()?;
                }
            }
        }
        Ok(())
    }

    /// Closes the log in good order. Says whether it was.
    pub(super) fn close(&mut self) -> Result<bool, Wrong> {
        self.tell("close");
        let running = self.running.as_mut().unwrap();
        running.changer.finish();
        running.appender.finish();
        let is_safe = running.flusher.finish();
        self.settle()?;
        self.running = None;
        Ok(is_safe && !self.disk.is_gone())
    }

    /// The process or the machine stops, and is started again.
    pub(super) fn stop(&mut self, left: Left) {
        self.tell(format!("stop, {left:?}"));
        self.disk = match left {
            Left::Closed | Left::PowerCut => self.disk.power_cut(self.dice.next()),
            Left::Killed => self.disk.kill(),
        };
        self.running = None;
        self.is_compacted = Arc::new(AtomicBool::new(true));
        self.answers.lock().unwrap().clear();
    }

    /// With nothing wrong any more, everything is answered, and every partition takes appends.
    pub(super) fn recover(&mut self) -> Result<(), Wrong> {
        self.tell("recover");
        let mut waits = [true; LANES.len()];
        for _ in 0..TURNS_MAX {
            for _ in 0..3 {
                self.turn_appender()?;
                self.turn_flusher()?;
            }
            self.clock.advance_ms(500);
            for (lane, waits) in waits.iter_mut().enumerate().filter(|(_, waits)| **waits) {
                let number = self.offer(lane)?;
                for _ in 0..3 {
                    self.turn_appender()?;
                    self.turn_flusher()?;
                }
                *waits = !self.lanes[lane].is_accepted(number);
            }
            let unanswered: usize = self.lanes.iter().map(Lane::unanswered).sum();
            if unanswered == 0 && !waits.contains(&true) {
                return self.check();
            }
        }
        Err(format!("appends are not answered, or not taken: {waits:?}"))
    }
}

/// Whether the epoch that the partition `name` was opened with found no room on the disk.
fn has_no_room_for_epoch(found: &Found, name: &str) -> bool {
    let Found::Checkpoint { path, what } = found else {
        return false;
    };
    path.parent().is_some_and(|dir| dir.ends_with(name)) && what.contains("no room")
}

/// Whether recovery told that it took something out of this partition, or that something is gone.
fn is_hole_in(found: &Found, partition: &str) -> bool {
    let (Found::Quarantined { path, .. } | Found::Missing { dir: path, .. }) = found else {
        return false;
    };
    path.iter().any(|part| part == partition)
}

/// The offsets that are told to be gone, as far as they are told.
fn missing(found: &Found) -> Range<i64> {
    if let Found::Missing { from, until, .. } = found {
        return *from..*until;
    }
    0..0
}

fn last_offset(bytes: &[u8]) -> i64 {
    let mut last = -1;
    let mut rest = bytes;
    while let Ok((view, after)) = View::read(rest) {
        last = view.last_offset();
        rest = after;
    }
    last
}
