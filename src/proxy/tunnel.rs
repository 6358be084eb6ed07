//! After a switch of protocols: bytes both ways, until both sides have ended or nothing moves.

use std::{cell::Cell, pin::pin, task::Poll, time::Duration};

use futures_util::future::join;

use super::{
    buffer::Buffer,
    deadline::{Stage, Timers, Wait},
    socket::{Side, WireError},
    worker::Worker,
};

const READ: usize = 16 * 1024;
/// How long one direction may stay open after the other has ended.
const AFTER_HALF_CLOSE: Duration = Duration::from_secs(5);

/// One direction of a tunnel.
struct Way<'a> {
    from: &'a Side,
    to: &'a Side,
    /// How long this direction may be silent.
    silence: &'a Wait,
    /// The other direction's.
    other_silence: &'a Wait,
    half_closed: &'a Cell<bool>,
}

/// Carries bytes between `client` and `upstream`; what their buffers hold goes first.
pub(crate) async fn run(
    worker: &Worker,
    client: (&Side, &mut Buffer),
    upstream: (&Side, &mut Buffer),
    timers: &Timers,
) {
    let idle = worker.shared.settings.upstream.tunnel_idle;
    let (client, client_buffer) = client;
    let (upstream, upstream_buffer) = upstream;
    let from_client = timers.wait(Stage::Tunnel, idle);
    let from_upstream = timers.wait(Stage::Tunnel, idle);
    let half_closed = Cell::new(false);
    let to_upstream = Way {
        from: client,
        to: upstream,
        silence: &from_client,
        other_silence: &from_upstream,
        half_closed: &half_closed,
    };
    let to_client = Way {
        from: upstream,
        to: client,
        silence: &from_upstream,
        other_silence: &from_client,
        half_closed: &half_closed,
    };
    let broken = Cell::new(false);
    let mut both = pin!(join(
        async {
            let outcome = to_upstream.carry(worker, client_buffer, timers).await;
            broken.set(broken.get() | outcome.is_err());
        },
        async {
            let outcome = to_client.carry(worker, upstream_buffer, timers).await;
            broken.set(broken.get() | outcome.is_err());
        },
    ));
    std::future::poll_fn(|cx| {
        let ended = both.as_mut().poll(cx).is_ready();
        if ended || broken.get() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

impl Way<'_> {
    /// Carries until the end of the stream; an error means that the other way is over too.
    async fn carry(
        &self,
        worker: &Worker,
        buffer: &mut Buffer,
        timers: &Timers,
    ) -> Result<(), WireError> {
        let idle = worker.shared.settings.upstream.tunnel_idle;
        let writing = timers.wait(Stage::Tunnel, idle);
        loop {
            writing.restart(idle);
            self.to
                .write([buffer.bytes(), b"", b""], &writing, idle)
                .await?;
            buffer.consume(buffer.len());
            match self.from.fill(buffer, READ, self.silence).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(error),
            }
            if !self.half_closed.get() && !worker.is_draining() {
                // Bytes one way are life both ways.
                self.silence.restart(idle);
                self.other_silence.restart(idle);
            }
        }
        self.half_closed.set(true);
        self.other_silence.restart(AFTER_HALF_CLOSE);
        self.to.finish_writing().await;
        Ok(())
    }
}
