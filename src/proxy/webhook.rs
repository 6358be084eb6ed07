//! Webhooks whose signature is checked: the body is read first, and passed on only when it is
//! proven, byte for byte.

use super::{
    body::{BodyReader, Piece},
    buffer::Buffer,
    connection::Connection,
    deadline::Stage,
    exchange,
    head::RequestHead,
    names::Name,
    record::Record,
    respond::Failure,
    worker::Held,
};
use crate::guard::{
    signature::Stripe,
    verdict::{Reason, Refusal},
};

/// Reads the whole body, within the route's bound and the bound of all held bodies together, and
/// proves its signature.
///
/// # Errors
/// When the body is too large or broken, too much is held already, or the signature is not valid.
pub(crate) async fn prove<'a>(
    connection: &'a Connection,
    head: &RequestHead,
    record: &Record<'_>,
    scheme: &Stripe,
    reader: &mut BodyReader,
    buffer: &mut Buffer,
) -> Result<(Held<'a>, Buffer), Failure> {
    let shared = &connection.worker.shared;
    let forged = |why| Failure::Refused(Refusal::new(Reason::BadSignature, why));
    // What the head alone disproves costs no memory.
    let claimed = scheme
        .claimed(
            head.values(Name::StripeSignature).next(),
            record.arrived_unix_ms() / 1_000,
        )
        .map_err(|bad| forged(bad.why()))?;
    let too_much = Failure::Overloaded("webhook bodies");
    let mut held = shared.held_bytes.take(0, 8).ok_or(too_much)?;
    if head.expects_continue && buffer.is_empty() && !connection.write(exchange::CONTINUE).await {
        return Err(Failure::ClientGone);
    }
    // One deadline for the whole body: what trickles would hold memory that others need.
    let within = shared.settings.upstream.idle_timeout;
    let wait = connection.timers.wait(Stage::RequestBody, within);
    let mut body = Buffer::default();
    loop {
        let piece = reader.next(&connection.client, buffer, &wait).await;
        match piece.map_err(exchange::client_failure)? {
            Piece::Data(count) => {
                if !held.grow(count) {
                    return Err(too_much);
                }
                body.room(count).extend_from_slice(buffer.front(count));
                reader.took(buffer, count);
            }
            Piece::End => break,
        }
    }
    record.body_ended();
    scheme
        .check(&claimed, &[body.bytes()])
        .map_err(|bad| forged(bad.why()))?;
    Ok((held, body))
}
