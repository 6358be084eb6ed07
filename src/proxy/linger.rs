//! The end of a connection whose client may still be sending.
//!
//! Closing a socket with unread bytes resets it, and a reset overtakes the answer: the client, or
//! nginx, sees a broken connection instead of a 413. So the answer is followed by a half-close, and
//! what still comes is read and thrown away, within bounds of time and bytes.

use std::time::Duration;

use super::{
    body::{BodyReader, Piece},
    buffer::Buffer,
    deadline::{Stage, Timers},
    socket::Side,
    worker::Worker,
};

/// Time for all of it.
const TOTAL: Duration = Duration::from_secs(30);
/// Time between two reads.
const IDLE: Duration = Duration::from_secs(5);
/// Bytes at most: nginx pushes all of a body that it has buffered before it looks for an answer.
const BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Connections of one worker that may linger at length; what is beyond gets [`HURRIED`].
const AT_LENGTH_MAX: usize = 256;
const HURRIED: Duration = Duration::from_millis(500);
/// A rest of a body that is read so that the connection can be kept.
pub(crate) const SMALL_REST_BYTES: u64 = 256 * 1024;
const READ: usize = 64 * 1024;

/// Counts a lingering connection while it lasts.
struct Lingering<'a>(&'a Worker);

impl<'a> Lingering<'a> {
    fn begin(worker: &'a Worker) -> Self {
        worker.lingering.set(worker.lingering.get() + 1);
        Self(worker)
    }
}

impl Drop for Lingering<'_> {
    fn drop(&mut self) {
        self.0.lingering.set(self.0.lingering.get() - 1);
    }
}

/// Half-closes, and reads until the client closes too, or a bound is met.
pub(crate) async fn until_closed(
    worker: &Worker,
    client: &Side,
    buffer: &mut Buffer,
    timers: &Timers,
) {
    client.finish_writing().await;
    let _lingering = Lingering::begin(worker);
    let hurried = worker.lingering.get() > AT_LENGTH_MAX;
    let total = timers.wait(Stage::Linger, if hurried { HURRIED } else { TOTAL });
    let idle = timers.wait(Stage::Linger, if hurried { HURRIED } else { IDLE });
    let mut bytes = 0;
    while bytes < BYTES_MAX && total.over().is_none() {
        buffer.consume(buffer.len());
        match client.fill(buffer, READ, &idle).await {
            Ok(0) | Err(_) => return,
            Ok(count) => bytes += count as u64,
        }
        idle.restart(IDLE);
    }
}

/// Reads the small rest of a refused body, so that the connection can serve another request.
/// Says whether that succeeded.
pub(crate) async fn skip_rest(
    worker: &Worker,
    client: &Side,
    buffer: &mut Buffer,
    reader: &mut BodyReader,
    timers: &Timers,
) -> bool {
    let _lingering = Lingering::begin(worker);
    if worker.lingering.get() > AT_LENGTH_MAX {
        return false;
    }
    let total = timers.wait(Stage::Linger, IDLE);
    while total.over().is_none() {
        match reader.next(client, buffer, &total).await {
            Ok(Piece::Data(count)) => reader.took(buffer, count),
            Ok(Piece::End) => return true,
            Err(_) => return false,
        }
    }
    false
}
