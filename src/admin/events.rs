//! `/api/v1/events`: events read back from the log, for whoever may read.

use std::{sync::Arc, time::Duration};

use futures_util::future::select_all;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use tokio::time::{sleep, timeout};

use super::{
    api::{Query, Refused, Reply, say},
    server::Server,
};
use crate::{
    base::{clock::Clock, units::parse_duration},
    log::Partition,
    sink::query::{
        ask::{Ask, Found},
        filter::BadFilter,
        scan::Order,
        tally::Tally,
    },
};

/// How long one answer is looked for; what was not reached then is for the next.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long a question may wait for what is not there yet.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Questions that wait at once, so that the others find connections.
pub(super) const WAITS_MAX: usize = 32;

/// From the first new event to the look at all that have come by then.
const GATHERED_WITHIN: Duration = Duration::from_millis(20);

impl From<BadFilter> for Refused {
    fn from(bad: BadFilter) -> Self {
        Self::senseless(bad.to_string())
    }
}

impl Server {
    /// Finds events; waits for some, if asked to.
    ///
    /// # Errors
    /// When the question cannot be read or makes no sense, or the log cannot be read now.
    pub(super) async fn events(&self, request: Request<Incoming>) -> Reply {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Refused::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "use GET: events are only read here",
            ));
        }
        let known: Vec<&str> = Ask::names().chain(["wait"]).collect();
        let query = Query::read(request.uri().query(), &known)?;
        let clock = &self.view.shared.clock;
        let mut ask = Ask::read(|name| query.get(name), clock.unix_ms())?;
        let wait = query.get("wait").map(|wait| wait_of(wait, ask.order));
        let until_ns = deadline(clock, wait.transpose()?.unwrap_or_default());
        let partitions = ask.partitions(&self.view.log.log.partitions());
        if partitions.is_empty() {
            let words = format!("there is no topic {}", ask.topic.name());
            return Err(Refused::new(StatusCode::NOT_FOUND, words));
        }
        let mut tally = Tally::default();
        let mut place = None;
        loop {
            let mut ends: Vec<_> = partitions.iter().map(|one| one.subscribe()).collect();
            let mut found = self.find(&ask, &partitions, ANSWER_WITHIN).await?;
            tally.add(&found.tally);
            let left_ns = until_ns.saturating_sub(clock.monotonic_ns());
            if left_ns == 0 || !found.events.is_empty() || !found.is_end {
                found.tally = tally;
                return say(StatusCode::OK, &found);
            }
            if place.is_none() {
                let free = self.waits.try_acquire();
                place = Some(free.map_err(|_| {
                    Refused::new(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "enough others wait for events: try again in a moment, or without `wait`",
                    )
                })?);
            }
            ask.go_on(&found)?;
            let changes = ends.iter_mut().map(|end| Box::pin(end.changed()));
            // At the end of its time it looks once more.
            let _ = timeout(Duration::from_nanos(left_ns), select_all(changes)).await;
            sleep(GATHERED_WITHIN).await;
        }
    }

    /// What these partitions have of a question, as far as it is found within this time.
    ///
    /// # Errors
    /// When the log cannot be read now.
    pub(super) async fn find(
        &self,
        ask: &Ask,
        partitions: &[Arc<Partition>],
        within: Duration,
    ) -> Result<Found, Refused> {
        let (ask, partitions) = (ask.clone(), partitions.to_vec());
        let clock = self.view.shared.clock.clone();
        let found = self.walks.walk(move |asked| {
            let until_ns = deadline(&clock, within);
            let mut is_over = || asked.is_gone() || clock.monotonic_ns() >= until_ns;
            ask.answer(&partitions, &mut is_over)
        });
        found.await?.map_err(|error| {
            let words = format!("the log cannot be read: {error}");
            Refused::new(StatusCode::INTERNAL_SERVER_ERROR, words)
        })
    }
}

/// The moment after this much time, in nanoseconds of the monotonic clock.
fn deadline(clock: &Clock, within: Duration) -> u64 {
    let within_ns = u64::try_from(within.as_nanos()).unwrap_or(u64::MAX);
    clock.monotonic_ns().saturating_add(within_ns)
}

impl Ask {
    /// Goes on behind an answer.
    fn go_on(&mut self, found: &Found) -> Result<(), Refused> {
        self.after = found.next.parse().map_err(|_| Refused::confused())?;
        Ok(())
    }
}

fn wait_of(text: &str, order: Order) -> Result<Duration, Refused> {
    let bad = |words: &str| Refused::senseless(format!("`wait`: {words}"));
    if order == Order::Newest {
        return Err(bad("goes with `order=oldest` and `after`"));
    }
    match parse_duration(text) {
        Ok(wait) if wait <= WAIT_MAX => Ok(wait),
        Ok(_) => Err(bad("at most 20s")),
        Err(error) => Err(bad(&error.to_string())),
    }
}
