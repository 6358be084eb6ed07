//! A topic of the log inside this process, as the builder sees it.

use std::sync::Arc;

use super::{Refused, Topic, Written};
use crate::log::{Append, Batch, Log, NotAppended, Partition};

/// A topic of the log.
#[derive(Debug)]
pub struct LogTopic {
    log: Arc<Log>,
    partitions: Vec<Arc<Partition>>,
}

impl LogTopic {
    /// The topic of this name; none where there is no such.
    pub fn named(log: &Arc<Log>, name: &str) -> Option<Self> {
        let partitions: Vec<_> = (0..)
            .map_while(|index| log.partition(name, index))
            .collect();
        let log = Arc::clone(log);
        (!partitions.is_empty()).then_some(Self { log, partitions })
    }
}

impl Topic for LogTopic {
    fn partitions(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    fn offer(&self, partition: u32, batch: Batch, written: Written) -> Result<(), Batch> {
        let Some(partition) = self.partitions.get(partition as usize) else {
            return Err(batch);
        };
        let append = Append {
            partition: Arc::clone(partition),
            batch,
            done: Box::new(move |result| {
                let refused = |NotAppended { batch, reason }| Refused {
                    batch,
                    why: reason.to_string(),
                };
                written(result.map(drop).map_err(refused));
            }),
        };
        let offered = self.log.appends().offer(append);
        offered.map_err(|append| append.batch)
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use super::super::{Builder, Turn};
    use super::*;
    use crate::{
        base::{
            bell::Bell,
            clock::Clock,
            disk::sim::{Fault, Plan, Sim},
        },
        event::place::Run,
        log::{self, Appender, Flush, Flusher, Settings, TopicConfig, TopicSettings, View},
        sink::lane::{self, Lane},
    };

    const TOPIC: &str = "wardent.http.access";
    const DIR: &str = "/log";

    /// A worker, the builder and the log, by turns, on a disk that does what a test says.
    struct Stage {
        disk: Sim,
        clock: Clock,
        lane: Lane,
        builder: Builder,
        log: Arc<Log>,
        appender: Appender,
        flusher: Flusher,
    }

    impl Stage {
        fn new(lane_bytes: usize) -> Self {
            let (disk, clock) = (
                Sim::new(7, Path::new("/")),
                Clock::manual(1_795_255_201_042),
            );
            let flush = Flush::Lazily {
                age: Duration::from_secs(5),
                bytes: 1 << 20,
            };
            let config = TopicConfig {
                segment_bytes: 128 << 10,
                flush,
                is_expendable: true,
                ..TopicConfig::default()
            };
            let topic = TopicSettings {
                name: TOPIC.to_owned(),
                partitions: 2,
                config,
            };
            let settings = Settings {
                dir: DIR.into(),
                disk_max: 1 << 30,
                ballast_bytes: 0,
                topics: vec![topic],
            };
            let opened = log::open(settings, Arc::new(disk.clone()), clock.clone()).unwrap();
            let bell = Arc::<Bell>::default();
            let (lane, drain) = lane::lane(Run::new(1), 0, lane_bytes, &bell);
            let topic = LogTopic::named(&opened.log, TOPIC).unwrap();
            let builder = Builder::new(vec![drain], Box::new(topic), bell, clock.clone());
            Self {
                disk,
                clock,
                lane,
                builder,
                log: opened.log,
                appender: opened.appender,
                flusher: opened.flusher,
            }
        }

        /// Tells an event of a kibibyte that does not compress well.
        fn tell(&mut self) {
            let seq = self.lane.next().seq;
            let noise = |n: u64| (seq * 1_000 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            let noise: String = (0..160).map(|n| format!("{:06x}", noise(n))).collect();
            let value = format!("{{\"seq\":{seq},\"noise\":\"{noise}\"}}");
            let client = format!("198.51.100.{}", seq % 100);
            self.lane
                .tell(seq, Some(client.as_bytes()), value.as_bytes());
        }

        fn turn(&mut self) -> Turn {
            self.clock.advance_ms(5);
            let turn = self.builder.turn();
            self.appender.turn();
            self.flusher.turn();
            turn
        }

        fn settle(&mut self) {
            let turns = (0..100_000).take_while(|_| self.turn() == Turn::Busy);
            assert!(turns.count() < 99_999, "never at rest");
        }

        /// Every number is in the log once, as an event or in a gap.
        #[track_caller]
        fn assert_all_are_told(&self) {
            let mut seqs = Vec::new();
            for partition in self.log.partitions() {
                let mut offset = partition.log_start_offset();
                while offset < partition.high_watermark() {
                    let bytes = partition.read(offset, 1 << 20).unwrap();
                    let (mut rest, mut scratch) = (bytes.as_slice(), Vec::new());
                    while !rest.is_empty() {
                        let (batch, after) = View::read(rest).unwrap();
                        batch.verify().unwrap();
                        for record in batch.records(&mut scratch).unwrap() {
                            let value = record.unwrap().value.unwrap();
                            let value: serde_json::Value = serde_json::from_slice(value).unwrap();
                            let number = |name: &str| value[name].as_u64();
                            let from = number("seq").or(number("from")).unwrap();
                            seqs.extend(from..=number("seq").or(number("to")).unwrap());
                        }
                        offset = batch.last_offset() + 1;
                        rest = after;
                    }
                }
            }
            seqs.sort_unstable();
            let told = self.lane.next().seq - 1;
            assert_eq!(seqs, (1..=told).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_told_can_be_read() {
        let mut stage = Stage::new(256 << 10);
        for _ in 0..500 {
            stage.tell();
            stage.turn();
        }
        stage.settle();
        stage.assert_all_are_told();
        assert_eq!(stage.builder.counts().events(), 500);
    }

    #[test]
    fn a_full_disk_costs_what_has_no_room_in_the_lane_and_heals() {
        let mut stage = Stage::new(64 << 10);
        stage.disk.set_capacity(1 << 20);
        let counts = Arc::clone(stage.builder.counts());
        // Until the disk, the builder's backlog and the lane are full.
        while stage.builder.lanes[0].counts().lost() < 100 {
            stage.tell();
            stage.turn();
            assert!(stage.lane.next().seq < 100_000, "nothing is ever lost");
        }
        let trouble = counts.trouble().unwrap();
        assert!(trouble.contains("no room"), "{trouble}");
        stage.disk.set_capacity(u64::MAX);
        stage.settle();
        stage.tell();
        stage.settle();
        stage.assert_all_are_told();
        assert!(counts.trouble().is_none());
    }

    #[test]
    fn a_disk_that_fails_for_a_while_costs_nothing() {
        for fault in [Fault::Eio, Fault::Enospc, Fault::Short] {
            for at in (0..40).step_by(3) {
                let mut stage = Stage::new(256 << 10);
                for _ in 0..10 {
                    stage.tell();
                    stage.turn();
                }
                let from = stage.disk.operations() + at;
                stage.disk.plan(Some(Plan {
                    from,
                    count: 7,
                    fault,
                }));
                for _ in 0..100 {
                    stage.tell();
                    stage.turn();
                }
                stage.disk.plan(None);
                // What is healed in the background is healed after half a minute at most.
                for _ in 0..350 {
                    stage.clock.advance_ms(100);
                    stage.turn();
                }
                stage.settle();
                stage.assert_all_are_told();
            }
        }
    }
}
