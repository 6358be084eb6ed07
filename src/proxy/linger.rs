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
/// Bytes at most; a client that sends more is cut off, and may lose its answer.
///
/// A client that reads while it sends stops within what the socket buffers hold, some MiB. One that
/// reads only after it has sent all, as many libraries do, sends its whole body: 256 MiB is 25 times
/// the usual bound of a body, so that a file somebody really wanted to send is told "too large". To
/// read and throw it away costs a worker about a tenth of a second.
const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Connections of one worker that may linger at length; what is beyond gets [`HURRIED`].
const AT_LENGTH_MAX: usize = 256;
/// Time for all of it where many linger, or the worker drains.
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
    let began_ms = timers.now_ms();
    let wait = timers.wait(Stage::Linger, IDLE);
    let mut bytes = 0;
    while bytes < BYTES_MAX {
        let total = match hurried || worker.is_draining() {
            true => HURRIED,
            false => TOTAL,
        };
        let gone = Duration::from_millis(timers.now_ms() - began_ms);
        let Some(left) = total.checked_sub(gone).filter(|left| !left.is_zero()) else {
            return;
        };
        wait.restart(left.min(IDLE));
        buffer.consume(buffer.len());
        match client.fill(buffer, READ, &wait).await {
            Ok(0) | Err(_) => return,
            Ok(count) => bytes += count as u64,
        }
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
    let wait = timers.wait(Stage::Linger, IDLE);
    loop {
        match reader.next(client, buffer, &wait).await {
            Ok(Piece::Data(count)) => reader.took(buffer, count),
            Ok(Piece::End) => return true,
            Err(_) => return false,
        }
    }
}
