//! One client connection: request after request, until one side has had enough.

use std::{rc::Rc, time::Duration};

use super::{
    After,
    answer::is_worth_parsing,
    buffer::Buffer,
    deadline::{Stage, Timers},
    head::RequestHead,
    linger, pipeline,
    respond::Failure,
    socket::{Side, Socket, WireError},
    worker::Worker,
};
use crate::{
    client::Peer,
    guard::verdict::{Reason, Refusal},
};

/// Time for a whole request head, from the connection's start or the head's first byte.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// An idle connection gives its memory back after this time, so that busy ones need not ask for it
/// again with every request.
const IDLE_BEFORE_SHRINKING: Duration = Duration::from_secs(1);
/// How long an idle connection is kept once the worker drains.
const IDLE_WHILE_DRAINING: Duration = Duration::from_millis(500);
const HEAD_READ: usize = 8 * 1024;

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) client: Side,
    pub(crate) peer: Peer,
    pub(crate) timers: Timers,
}

/// What came instead of a request.
enum NoRequest {
    /// The end of the connection, or silence.
    Nothing,
    /// Something that is refused.
    Refused(Failure),
}

/// Serves `socket` until its end; `buffer` is what has been read of it already.
pub(crate) async fn serve(worker: Rc<Worker>, socket: Socket, peer: Peer, mut buffer: Buffer) {
    let timers = Timers::of_this_task(&worker.deadlines).await;
    let connection = Connection {
        worker,
        client: Side::new(socket),
        peer,
        timers,
    };
    let mut head = RequestHead::default();
    let mut is_first = true;
    loop {
        let after = match connection.next_head(is_first, &mut head, &mut buffer).await {
            Ok(()) => Box::pin(pipeline::serve(&connection, &head, &mut buffer)).await,
            Err(NoRequest::Refused(failure)) => {
                Box::pin(pipeline::refuse_unread(&connection, failure)).await
            }
            Err(NoRequest::Nothing) => After::Close,
        };
        is_first = false;
        match after {
            After::KeepAlive => {}
            // With bytes unread, closing would be a reset, which overtakes the answer.
            After::Close if buffer.is_empty() && !connection.client.has_unread() => {
                return connection.client.finish_writing().await;
            }
            After::Close | After::Linger => {
                let Connection {
                    worker,
                    client,
                    timers,
                    ..
                } = &connection;
                return linger::until_closed(worker, client, &mut buffer, timers).await;
            }
            After::Break => return connection.client.reset_on_close(),
        }
    }
}

impl Connection {
    /// Reads until `head` holds the next request's head.
    async fn next_head(
        &self,
        is_first: bool,
        head: &mut RequestHead,
        buffer: &mut Buffer,
    ) -> Result<(), NoRequest> {
        if buffer.is_empty() && !is_first {
            self.idle(head, buffer).await?;
        }
        let wait = self.timers.wait(Stage::RequestHead, HEAD_WITHIN);
        let names = &self.worker.shared.settings.names;
        let mut parsed_at = 0;
        loop {
            if is_worth_parsing(buffer, parsed_at) {
                parsed_at = buffer.len();
                match head.parse(buffer.bytes(), names) {
                    Ok(Some(length)) => {
                        buffer.consume(length);
                        return Ok(());
                    }
                    Ok(None) => {}
                    Err(bad) => {
                        head.clear();
                        return Err(NoRequest::Refused(Failure::Refused(Refusal {
                            status: bad.status,
                            reason: Reason::BadRequest,
                            why: bad.why,
                        })));
                    }
                }
            }
            match self.client.fill(buffer, HEAD_READ, &wait).await {
                Ok(0) | Err(WireError::Broken) => return Err(NoRequest::Nothing),
                Ok(_) => {}
                Err(WireError::Late(_)) if buffer.is_empty() => return Err(NoRequest::Nothing),
                Err(WireError::Late(stage)) => {
                    return Err(NoRequest::Refused(Failure::ClientLate(stage)));
                }
            }
        }
    }

    /// Waits for the first bytes of a further request.
    async fn idle(&self, head: &mut RequestHead, buffer: &mut Buffer) -> Result<(), NoRequest> {
        let keep_alive = self.worker.shared.settings.keep_alive;
        let keep = if self.worker.is_draining() {
            IDLE_WHILE_DRAINING
        } else {
            keep_alive
        };
        let wait = self
            .timers
            .wait(Stage::KeepAlive, keep.min(IDLE_BEFORE_SHRINKING));
        let mut left = keep.saturating_sub(IDLE_BEFORE_SHRINKING);
        loop {
            match self.client.fill(buffer, HEAD_READ, &wait).await {
                Ok(0) | Err(WireError::Broken) => return Err(NoRequest::Nothing),
                Ok(_) => return Ok(()),
                // A request that has come in the last moment is still served.
                Err(WireError::Late(_)) if self.client.has_unread() => {
                    wait.restart(IDLE_WHILE_DRAINING);
                }
                Err(WireError::Late(_)) => {
                    let over = left.is_zero() || self.worker.is_draining();
                    if over {
                        return Err(NoRequest::Nothing);
                    }
                    head.release();
                    buffer.shrink(true);
                    wait.restart(left);
                    left = Duration::ZERO;
                }
            }
        }
    }

    /// Writes `bytes` to the client; false when it has gone or takes nothing.
    pub(crate) async fn write(&self, bytes: &[u8]) -> bool {
        let idle = self.worker.shared.settings.upstream.idle_timeout;
        let wait = self.timers.wait(Stage::ResponseWrite, idle);
        self.client
            .write([bytes, b"", b""], &wait, idle)
            .await
            .is_ok()
    }
}
