//! Passes between the cluster and the proxy: ten times a second, and at once when other nodes' bans came.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use rdkafka::{
    ClientContext,
    config::FromClientConfigAndContext as _,
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext},
};

use super::{
    Ending, Settings, client,
    door::Door,
    nanos,
    others::{News, Wish},
    status::{Doing, Status},
};
use crate::{
    base::clock::Clock,
    event::exchange::{BANS_MAX, BanRecord, Number, Part, Told, USAGE, USAGE_MAX, Usage},
};

/// What this is called where it is told how it goes.
pub(super) const PART: &str = "exchange";

const EVERY: Duration = Duration::from_millis(100);
/// How often the proxy is told how the mirror is.
const REPORT: Duration = Duration::from_secs(1);
/// After an exchange that came to nothing.
const PAUSE: Duration = Duration::from_millis(500);
/// Bytes of bans in one exchange; it may be more by one.
const BANS_BYTES: usize = 1 << 20;

/// Exchanges until the end.
pub(super) fn run(
    settings: &Settings,
    status: &Status,
    clock: &Clock,
    ending: &Ending,
    news: &Receiver<News>,
    wish: &Wish,
) {
    let mut door = match Door::to(settings.socket.clone()) {
        Ok(door) => door,
        Err(failure) => return tracing::error!("{failure}"),
    };
    let mut spent = Spent::default();
    let mut waiting = Waiting::default();
    let mut report_ns = 0;
    while !ending.has_begun() {
        // The proxy's own word comes first: it numbers readings.
        if waiting.next_read.is_some() {
            gather(news, &mut waiting);
        }
        let now_ns = clock.monotonic_ns();
        let mut told = waiting.next();
        if now_ns >= report_ns {
            told.report = Some(status.now().report(clock.unix_ms()));
        }
        told.usage_taken = spent.taken();
        match door.exchange(&told) {
            Ok(answer) => {
                status.set(PART, Doing::Running, clock.unix_ms());
                waiting.heard();
                waiting.next_read = Some(answer.next_read);
                if told.report.is_some() {
                    report_ns = now_ns.saturating_add(nanos(REPORT));
                }
                if answer.wants_bans && !waiting.is_reading {
                    wish.again();
                    waiting.is_reading = true;
                }
                for refused in &answer.refused {
                    let (key, why) = (&refused.key, &refused.why);
                    tracing::warn!(?key, ?why, "a ban of another node is refused");
                }
                if let Some(usage) = answer.usage {
                    spent.take(settings, &usage);
                }
            }
            Err(failure) => {
                status.set(PART, Doing::Waiting(failure.0), clock.unix_ms());
                ending.wait(PAUSE, clock);
            }
        }
        spent.poll();
    }
}

/// Waits until it is time, or a ban comes; takes what there is, as much as one exchange may have.
fn gather(news: &Receiver<News>, waiting: &mut Waiting) {
    if waiting.has_more() {
        return;
    }
    let mut span = EVERY;
    while !waiting.is_full() {
        match news.recv_timeout(span) {
            Ok(what) => {
                // Usage has time until the next tick; bans do not, nor what came together with one.
                if !matches!(what, News::Usage(_)) {
                    span = Duration::ZERO;
                }
                waiting.put(what);
            }
            Err(RecvTimeoutError::Timeout) => return,
            Err(RecvTimeoutError::Disconnected) => {
                // Nothing is shared: only the report goes.
                std::thread::sleep(span);
                return;
            }
        }
    }
}

/// What is to be told, in the order in which it came; kept until it was heard.
#[derive(Debug, Default)]
struct Waiting {
    /// Bans, in exchanges; the first one is being told.
    bans: VecDeque<(Vec<BanRecord>, Option<Part>)>,
    /// Those of the next one, and their bytes.
    gathered: (Vec<BanRecord>, usize),
    usage: Vec<Usage>,
    /// The reading that goes on, and its next part.
    reading: Option<(u64, u64)>,
    /// Whether all bans are being read, or will be soon.
    is_reading: bool,
    /// The number of the next reading, as the proxy last gave it.
    next_read: Option<u64>,
    /// How much usage is in what is being told.
    telling: usize,
}

impl Waiting {
    fn put(&mut self, what: News) {
        match what {
            News::Begins => {
                self.close(false);
                self.reading = self.next_read.map(|read| (read, 0));
                self.is_reading = true;
            }
            News::Ban(ban) => {
                self.gathered.1 += ban.key.len() + ban.value.as_ref().map_or(0, String::len);
                self.gathered.0.push(ban);
            }
            News::Ends => {
                self.close(true);
                self.reading = None;
                self.is_reading = false;
            }
            News::Usage(usage) => self.usage.push(usage),
        }
    }

    /// What was gathered becomes an exchange of its own.
    fn close(&mut self, is_last: bool) {
        let part = self.reading.as_mut().map(|(read, next)| {
            let part = *next;
            *next += 1;
            Part {
                read: *read,
                part,
                last: is_last,
            }
        });
        let (bans, _) = std::mem::take(&mut self.gathered);
        if bans.is_empty() && !is_last {
            // A part that is empty is none; its number goes to the next.
            if let Some((_, next)) = &mut self.reading {
                *next -= 1;
            }
            return;
        }
        self.bans.push_back((bans, part));
    }

    fn is_full(&self) -> bool {
        let (bans, bytes) = &self.gathered;
        bans.len() >= BANS_MAX
            || *bytes >= BANS_BYTES
            || self.usage.len() >= USAGE_MAX
            || self.has_more()
    }

    fn has_more(&self) -> bool {
        !self.bans.is_empty()
    }

    /// What is told next; the same again until it was heard.
    fn next(&mut self) -> Told {
        if self.bans.is_empty() {
            self.close(false);
        }
        let (bans, bans_read) = self.bans.front().cloned().unwrap_or_default();
        let usage: Vec<_> = self.usage.iter().take(USAGE_MAX).cloned().collect();
        self.telling = usage.len();
        Told {
            bans,
            bans_read,
            usage,
            ..Told::default()
        }
    }

    /// What was told has been heard.
    fn heard(&mut self) {
        self.bans.pop_front();
        self.usage.drain(..self.telling);
        self.telling = 0;
    }
}

/// The own usage on its way to the cluster: one batch at a time.
#[derive(Default)]
struct Spent {
    producer: Option<BaseProducer<Way>>,
    under_way: Option<Number>,
    taken: Option<Number>,
}

/// What became of the batch that was sent last.
#[derive(Debug, Default)]
struct Way(Mutex<Option<bool>>);

impl ClientContext for Way {}

impl ProducerContext for Way {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Ok(mut way) = self.0.lock() {
            *way = Some(result.is_ok());
        }
    }
}

impl Spent {
    /// Sends a batch, unless one is under way: the proxy gives it again then.
    fn take(&mut self, settings: &Settings, usage: &Usage) {
        if self.under_way.is_some() || self.taken == Some(usage.number) {
            return;
        }
        let Ok(value) = serde_json::to_vec(usage) else {
            return;
        };
        if self.producer.is_none() {
            let config = client::telling_usage(settings);
            self.producer = BaseProducer::from_config_and_context(&config, Way::default()).ok();
        }
        let Some(producer) = &self.producer else {
            return;
        };
        let record = BaseRecord::to(USAGE)
            .key(settings.node.as_str())
            .payload(value.as_slice());
        if producer.send(record).is_ok() {
            self.under_way = Some(usage.number);
        }
    }

    fn poll(&mut self) {
        let Some(producer) = &self.producer else {
            return;
        };
        producer.poll(Duration::ZERO);
        let way = producer.client().context().0.lock();
        if let Some(has_arrived) = way.ok().and_then(|mut way| way.take()) {
            let number = self.under_way.take();
            if has_arrived {
                self.taken = number;
            }
        }
    }

    /// The last batch that is on the cluster.
    fn taken(&self) -> Option<Number> {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ban(number: usize) -> News {
        News::Ban(BanRecord {
            key: format!("198.51.100.{number}|web-2"),
            value: Some("{}".to_owned()),
        })
    }

    fn numbered(next_read: u64) -> Waiting {
        Waiting {
            next_read: Some(next_read),
            ..Waiting::default()
        }
    }

    fn told(waiting: &mut Waiting) -> Vec<(usize, Option<Part>)> {
        let mut told = Vec::new();
        loop {
            let next = waiting.next();
            if next.bans.is_empty() && next.bans_read.is_none() {
                return told;
            }
            told.push((next.bans.len(), next.bans_read));
            waiting.heard();
        }
    }

    #[test]
    fn a_reading_is_told_in_parts_that_are_counted() {
        let mut waiting = numbered(7);
        waiting.put(News::Begins);
        waiting.put(ban(1));
        waiting.put(ban(2));
        let part = |part, last| {
            Some(Part {
                read: 7,
                part,
                last,
            })
        };
        assert_eq!(told(&mut waiting), [(2, part(0, false))]);
        waiting.put(ban(3));
        waiting.put(News::Ends);
        waiting.put(ban(4));
        assert_eq!(told(&mut waiting), [(1, part(1, true)), (1, None)]);
    }

    #[test]
    fn a_reading_that_finds_nothing_is_told_too() {
        let mut waiting = numbered(1);
        waiting.put(News::Begins);
        waiting.put(News::Ends);
        let part = Part {
            read: 1,
            part: 0,
            last: true,
        };
        assert_eq!(told(&mut waiting), [(0, Some(part))]);
    }

    #[test]
    fn what_was_not_heard_is_told_again_as_it_was() {
        let mut waiting = numbered(1);
        waiting.put(News::Begins);
        waiting.put(ban(1));
        let first = waiting.next();
        waiting.put(ban(2));
        assert_eq!(waiting.next(), first);
        waiting.heard();
        assert_eq!(waiting.next().bans_read.map(|part| part.part), Some(1));
    }

    #[test]
    fn a_reading_that_begins_anew_has_another_number() {
        let mut waiting = numbered(1);
        waiting.put(News::Begins);
        waiting.put(ban(1));
        waiting.next_read = Some(2);
        waiting.put(News::Begins);
        waiting.put(News::Ends);
        let reads: Vec<_> = told(&mut waiting)
            .into_iter()
            .filter_map(|(_, part)| part.map(|part| (part.read, part.part, part.last)))
            .collect();
        assert_eq!(reads, [(1, 0, false), (2, 0, true)]);
    }
}
