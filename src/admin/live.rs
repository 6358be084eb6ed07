//! `/api/v1/live`: how it goes, once a second, as server-sent events (WHATWG HTML section 9.2).
//!
//! What is sent is made when its turn has come, so nothing piles up for who reads slowly, and it ends with the
//! connection.

use std::{convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use futures_util::stream;
use http::{Request, Response, StatusCode, header};
use http_body_util::{Either, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    api::{Answer, Query, Refused, Reply},
    now::only_reading,
    server::Server,
};

/// Who may listen at once: more would leave no connections for others.
pub(super) const LISTENERS_MAX: usize = 24;

/// Events of one answer; then a browser asks again by itself. Below the bound of a connection.
const BEATS: usize = 50;

/// From one event to the next.
const BEAT: Duration = Duration::from_secs(1);

type Frames = dyn futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send;

/// A body that goes on.
pub(super) type Stream = StreamBody<Pin<Box<Frames>>>;

/// Places for listeners.
#[derive(Debug)]
pub(super) struct Listeners(Arc<Semaphore>);

impl Default for Listeners {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LISTENERS_MAX)))
    }
}

/// Makes what a beat tells; nothing where there is nothing to tell.
pub(super) trait Teller: Send + 'static {
    /// The events of this beat, as they go over the wire.
    fn tell(&mut self) -> impl Future<Output = String> + Send;
}

impl Listeners {
    /// An answer that goes on with what `teller` tells.
    ///
    /// # Errors
    /// When enough others listen.
    pub(super) fn answer(&self, teller: impl Teller) -> Reply {
        let place = Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            let words = "enough others listen: close a page, or ask again later";
            Refused::new(StatusCode::SERVICE_UNAVAILABLE, words)
        })?;
        let body = StreamBody::new(frames(teller, place));
        let mut answer: Answer = Response::new(Either::Right(body));
        let headers = answer.headers_mut();
        for (name, value) in [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            headers.insert(name, header::HeaderValue::from_static(value));
        }
        Ok(answer)
    }
}

fn frames<T: Teller>(teller: T, place: OwnedSemaphorePermit) -> Pin<Box<Frames>> {
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let begin = (teller, beats, BEATS, place);
    Box::pin(stream::unfold(begin, |state| async move {
        let (mut teller, mut beats, left, place): (T, Interval, usize, _) = state;
        let left = left.checked_sub(1)?;
        beats.tick().await;
        let mut text = teller.tell().await;
        if left + 1 == BEATS {
            text.insert_str(0, "retry: 1000\n\n");
        }
        // A comment keeps what stands between from ending a silent connection.
        if text.is_empty() {
            text.push_str(":\n\n");
        }
        let frame = Frame::data(Bytes::from(text));
        Some((Ok(frame), (teller, beats, left, place)))
    }))
}

/// One event: its name, and its data line by line.
pub(super) fn event(name: &str, id: &str, data: &str, out: &mut String) {
    for (field, text) in [("event", name), ("id", id)] {
        if !text.is_empty() {
            out.push_str(&format!("{field}: {text}\n"));
        }
    }
    for line in data.split(['\n', '\r']) {
        out.push_str("data: ");
        out.push_str(line);
        out.push('\n');
    }
    out.push('\n');
}

/// Tells programs how it goes.
struct HowItGoes(Server);

impl Teller for HowItGoes {
    async fn tell(&mut self) -> String {
        let mut out = String::new();
        // What has only numbers and words can always be written.
        let json = serde_json::to_string(&self.0.now().await).unwrap_or_default();
        event("now", "", &json, &mut out);
        out
    }
}

impl Server {
    /// Goes on telling how it goes.
    ///
    /// # Errors
    /// By any method but GET, and when enough others listen.
    pub(super) fn live(&self, request: &Request<Incoming>) -> Reply {
        only_reading(request)?;
        Query::read(request.uri().query(), &[])?;
        self.dash.listeners.answer(HowItGoes(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_data_can_begin_an_event_of_its_own() {
        let mut out = String::new();
        event("part", "a", "x\nevent: evil\r\rdata: y", &mut out);
        assert_eq!(
            out,
            "event: part\nid: a\ndata: x\ndata: event: evil\ndata: \ndata: data: y\n\n"
        );
    }

    #[test]
    fn more_listeners_than_there_is_room_for_are_told_so() {
        struct Nothing;
        impl Teller for Nothing {
            async fn tell(&mut self) -> String {
                String::new()
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let _entered = runtime.enter();
        let listeners = Listeners::default();
        let mut answers: Vec<_> = (0..LISTENERS_MAX)
            .map(|_| listeners.answer(Nothing).unwrap())
            .collect();
        let refused = listeners.answer(Nothing).err().unwrap();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        answers.pop();
        assert!(listeners.answer(Nothing).is_ok());
    }
}
