//! The life of one request: judged by its head, its webhook signature proven, passed on, answered.

use std::{cell::Cell, panic::AssertUnwindSafe, rc::Rc};

use futures_util::FutureExt as _;

use super::{
    After,
    body::{BodyReader, Framing},
    buffer::Buffer,
    connection::Connection,
    deadline::Stage,
    exchange::Exchange,
    head::RequestHead,
    linger::{self, SMALL_REST_BYTES},
    names::Name,
    record::{Begun, Record},
    respond::{self, Failure},
    webhook,
};
use crate::{
    client::{Claim, Claims, Peer},
    guard::{
        chain::{self, Judgement},
        policy::Policy,
        verdict::Reason,
    },
    owner::Cause,
};

/// Answers one request, whatever becomes of it, and says what its connection does next.
pub(crate) async fn serve(
    connection: &Connection,
    head: &RequestHead,
    buffer: &mut Buffer,
) -> After {
    // One snapshot decides the whole request.
    let policy = connection.worker.shared.policy.load_full();
    let record = Record::begin(
        &connection.worker,
        &connection.client,
        &connection.peer,
        head,
    );
    // A fault in one request is answered with 500 and ends no other; here and below.
    let judging = AssertUnwindSafe(|| judge(connection, &policy, head, &record));
    let Ok(judgement) = std::panic::catch_unwind(judging) else {
        let mut unread = BodyReader::new(head.framing, 0);
        let fault = Failure::Internal;
        return fail(connection, head, &record, fault, &mut unread, buffer).await;
    };
    if connection.worker.shared.canary.is(head) {
        return turn_round(connection, &record).await;
    }
    record.judged(&judgement);
    record.traced();
    if let Some(cause) = judgement.violation {
        record.blame(cause, policy.points.of(cause));
    }
    let mut reader = BodyReader::new(head.framing, judgement.rules.body_bytes_max);
    let passed = match judgement.verdict {
        Ok(()) => {
            let passing = pass_on(
                connection,
                &policy,
                &judgement,
                head,
                &record,
                &mut reader,
                buffer,
            );
            AssertUnwindSafe(passing)
                .catch_unwind()
                .await
                .unwrap_or(Err(Failure::Internal))
        }
        Err(refusal) => Err(Failure::Refused(refusal)),
    };
    match passed {
        Ok(after) => after,
        Err(failure) => {
            record.received(reader.taken());
            if judgement.verdict.is_ok() && is_too_large(failure) {
                let cause = Cause::BodyTooLarge;
                record.blame(cause, policy.points.of(cause));
            }
            fail(connection, head, &record, failure, &mut reader, buffer).await
        }
    }
}

/// Answers a canary where the upstream would be asked.
async fn turn_round(connection: &Connection, record: &Record<'_>) -> After {
    record.is_no_traffic();
    let mut out = connection.worker.buffer();
    respond::to_canary(record, &connection.worker.stamps, &mut out);
    if connection.write(&out).await {
        let now_ns = connection.worker.shared.clock.monotonic_ns();
        connection.worker.metrics.canary_ms.set(now_ns / 1_000_000);
    }
    connection.worker.give_back(out);
    After::Close
}

/// Whether the body went over its bound as it came; a declared length, the guards have judged.
fn is_too_large(failure: Failure) -> bool {
    matches!(failure, Failure::Refused(refusal) if refusal.reason == Reason::BodyTooLarge)
}

/// Answers what is no request, and ends its connection.
pub(crate) async fn refuse_unread(connection: &Connection, failure: Failure) -> After {
    let head = RequestHead::default();
    let record = Record::begin(
        &connection.worker,
        &connection.client,
        &connection.peer,
        &head,
    );
    record.failed(failure);
    write_answer(connection, &record, failure, true).await;
    After::Linger
}

fn judge<'p>(
    connection: &Connection,
    policy: &'p Policy,
    head: &RequestHead,
    record: &Record<'_>,
) -> Judgement<'p> {
    let now_unix_s = record.arrived_unix_ms() / 1_000;
    let asked = asked(head, &connection.peer, now_unix_s, record.began_ns());
    let mut scratch = connection.worker.buffer();
    let judgement = chain::judge(policy, connection.worker.known(), &asked, &mut scratch);
    connection.worker.give_back(scratch);
    judgement
}

/// What the guards see of a head.
pub(super) fn asked<'a>(
    head: &'a RequestHead,
    peer: &'a Peer,
    now_unix_s: u64,
    now_ns: u64,
) -> chain::Head<'a> {
    let claim = |name| Claim::of(head.values(name));
    chain::Head {
        peer,
        method: head.method(),
        target: head.target(),
        path: head.path(),
        host: head.host(),
        claims: Claims {
            identity: claim(Name::ClientIp),
            edge: claim(Name::Edge),
            connecting_ipv6: claim(Name::ConnectingIpv6),
        },
        secret: claim(Name::Secret),
        signature: claim(Name::StripeSignature),
        user_agent: head.claimed_user_agent(),
        fields: head,
        content_length: match head.framing {
            Framing::Length(length) => Some(length),
            Framing::None | Framing::Chunked | Framing::UntilClose => None,
        },
        now_unix_s,
        now_ns,
    }
}

async fn pass_on(
    connection: &Connection,
    policy: &Policy,
    judgement: &Judgement<'_>,
    head: &RequestHead,
    record: &Record<'_>,
    reader: &mut BodyReader,
    buffer: &mut Buffer,
) -> Result<After, Failure> {
    let exchange = Exchange {
        worker: &connection.worker,
        timers: &connection.timers,
        client: &connection.client,
        head,
        policy,
        record,
        said_close: Cell::new(false),
    };
    let Some(scheme) = &judgement.rules.signature else {
        return exchange.run(reader, None, buffer).await;
    };
    let (_held, mut body) =
        webhook::prove(connection, head, record, scheme, reader, buffer).await?;
    let length = body.len() as u64;
    let mut proven = BodyReader::new(Framing::Length(length), length);
    let after = exchange.run(&mut proven, Some(&mut body), buffer).await;
    record.received(reader.taken());
    after
}

/// Answers a request that came to no good end, and decides what its connection is still good for.
async fn fail(
    connection: &Connection,
    head: &RequestHead,
    record: &Record<'_>,
    failure: Failure,
    reader: &mut BodyReader,
    buffer: &mut Buffer,
) -> After {
    record.failed(failure);
    let takes_nothing = matches!(
        failure,
        Failure::ClientGone | Failure::ClientLate(Stage::ResponseWrite)
    );
    if takes_nothing {
        return After::Break;
    }
    match record.begun() {
        Begun::Nothing => {}
        // Its length or its missing last chunk tells that it is not whole, and all of it that there
        // is arrives, which before a reset it may not.
        Begun::WithItsEndKnown => return After::Linger,
        Begun::UntilClose => return After::Break,
    }
    let worker = &connection.worker;
    let rest_is_small = reader.has_ended()
        || (!head.expects_continue && reader.left().is_some_and(|left| left <= SMALL_REST_BYTES));
    let can_be_kept = rest_is_small
        && !head.closes()
        && !worker.is_draining()
        && matches!(
            failure,
            Failure::Refused(_)
                | Failure::Unreachable
                | Failure::Unavailable
                | Failure::Overloaded(_)
                | Failure::UpstreamLate(_)
                | Failure::UpstreamBroken(_)
        );
    if !write_answer(connection, record, failure, !can_be_kept).await {
        return After::Break;
    }
    if !can_be_kept {
        return After::Linger;
    }
    let skipped = reader.has_ended()
        || linger::skip_rest(
            worker,
            &connection.client,
            buffer,
            reader,
            &connection.timers,
        )
        .await;
    if skipped {
        After::KeepAlive
    } else {
        After::Linger
    }
}

/// Writes the raw answer to `failure`; false when there is nobody to read it.
async fn write_answer(
    connection: &Connection,
    record: &Record<'_>,
    failure: Failure,
    closes: bool,
) -> bool {
    let Some(refusal) = failure.refusal() else {
        return false;
    };
    let worker: &Rc<_> = &connection.worker;
    let mut out = worker.buffer();
    respond::raw(&refusal, record, &worker.stamps, closes, &mut out);
    let written = connection.write(&out).await;
    worker.give_back(out);
    written
}
