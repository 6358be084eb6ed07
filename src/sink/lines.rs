//! Event lines on standard output, without a request ever waiting for who reads them.
//!
//! Each worker fills a buffer of its own and hands it over whole, at [`HANDED_OVER_AT`] bytes or
//! with its tick. One thread writes. When it is behind by [`BUFFERS_MAX`] buffers, a worker's next
//! buffer is dropped and its lines are counted.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

/// Bytes at which a worker hands its buffer over without waiting for its tick.
const HANDED_OVER_AT: usize = 32 * 1024;
/// Buffers that may wait for the writer: 8 MiB of lines.
const BUFFERS_MAX: usize = 256;

/// The writing end, from which every worker gets its lane.
#[derive(Debug, Clone)]
pub struct Lines {
    buffers: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    /// Starts the thread that writes to `out` until all lanes are gone.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(out: impl Write + Send + 'static) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (sender, receiver) = sync_channel(BUFFERS_MAX);
        let writer = std::thread::Builder::new()
            .name("lines".to_owned())
            .spawn(move || write_all(&receiver, out))?;
        let lines = Self {
            buffers: sender,
            dropped: Arc::default(),
        };
        Ok((lines, writer))
    }

    /// Lines that were dropped because the writer was behind.
    pub fn dropped(&self) -> u64 {
        // Relaxed: a counter that stands for itself.
        self.dropped.load(Ordering::Relaxed)
    }

    /// A lane for one worker.
    pub fn lane(&self) -> Lane {
        Lane {
            lines: self.clone(),
            buffer: Vec::new(),
            count: 0,
        }
    }
}

fn write_all(buffers: &Receiver<Vec<u8>>, mut out: impl Write) {
    for buffer in buffers {
        // Whoever read the lines may be gone; that must not end the requests.
        let _ = out.write_all(&buffer).and_then(|()| out.flush());
    }
}

/// One worker's lines that have not been handed over.
#[derive(Debug)]
pub struct Lane {
    lines: Lines,
    buffer: Vec<u8>,
    count: u64,
}

impl Lane {
    /// Appends one line, which `write` ends with a line feed.
    pub fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(HANDED_OVER_AT + 4096);
        }
        write(&mut self.buffer);
        self.count += 1;
        if self.buffer.len() >= HANDED_OVER_AT {
            self.hand_over();
        }
    }

    /// Hands over what there is, or counts it as dropped; never waits.
    pub fn hand_over(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let buffer = std::mem::take(&mut self.buffer);
        if self.lines.buffers.try_send(buffer).is_err() {
            // Relaxed: a counter that stands for itself.
            self.lines.dropped.fetch_add(self.count, Ordering::Relaxed);
        }
        self.count = 0;
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.hand_over();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, mpsc};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_arrive_in_order() {
        let out = Shared::default();
        let (lines, writer) = Lines::start(out.clone()).unwrap();
        let mut lane = lines.lane();
        for number in 0..10_000 {
            lane.append(|line| writeln!(line, "{number}").unwrap());
        }
        drop((lane, lines));
        writer.join().unwrap();
        let expected: String = (0..10_000).map(|number| format!("{number}\n")).collect();
        assert_eq!(out.0.lock().unwrap().as_slice(), expected.as_bytes());
    }

    /// A reader that takes nothing until it is told to.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_is_stuck_costs_lines_and_never_a_wait() {
        let (release, held) = mpsc::channel();
        let (lines, writer) = Lines::start(Stuck(held)).unwrap();
        let mut lane = lines.lane();
        let handed_over = BUFFERS_MAX as u64 + 10;
        for _ in 0..handed_over {
            lane.append(|line| line.extend_from_slice(b"x\n"));
            lane.hand_over();
        }
        assert!((8..=10).contains(&lines.dropped()), "{}", lines.dropped());
        drop((release, lane, lines));
        writer.join().unwrap();
    }
}
