//! The schema registry at the start, and the token that its writers need.

use std::{path::Path, sync::Arc};

use super::StartError;
use crate::{
    admin::token::Token,
    base::clock::Clock,
    config::wardent::Document,
    log::Log,
    registry::{self, Registry, Replayed},
    secret,
    sink::letters::{DeadLetters, Letter, Sender, Stage},
};

/// The registry as the log remembers it. What cannot be read of it goes to `letters`.
pub(super) fn open(
    log: &Arc<Log>,
    letters: &DeadLetters,
    clock: &Clock,
) -> Result<Registry, StartError> {
    let (registry, replayed) = Registry::open(log, clock).map_err(StartError::System)?;
    let Replayed {
        records,
        damaged,
        unreadable,
        letters: unread,
    } = replayed;
    if damaged + unreadable > 0 {
        tracing::warn!(
            "not all schemas are back: {records} records read, {damaged} damaged batches and \
             {unreadable} unreadable records passed over"
        );
    }
    let from = Sender {
        connector: "wardent.schemas",
        task: 0,
        stage: Stage::ValueConverter,
        class: "wardent::registry",
        topic: registry::TOPIC,
        partition: 0,
    };
    let unread = unread.into_iter().map(|record| Letter {
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: record.key,
        value: record.value,
        headers: record.headers,
        problem: "wardent.Unreadable".to_owned(),
        message: record.why,
        trace: String::new(),
    });
    letters.put_new(&from, &unread.collect::<Vec<_>>());
    Ok(registry)
}

/// The token that acts over the admin listener need. Where none is configured and none can be kept beside
/// the log, there are no such acts.
pub(super) fn token(document: &Document) -> Result<Option<Token>, StartError> {
    if let Some(from) = &document.admin.token {
        let wrong = |what: String| StartError::Secrets(format!("admin.token: {what}"));
        let token = secret::read(&from.source()).map_err(|error| wrong(error.to_string()))?;
        token
            .long_enough("admin.token")
            .map_err(|bad| wrong(bad.to_string()))?;
        return Ok(Some(Token::from(token)));
    }
    let path = beside(&document.log.dir).join("admin.token");
    match Token::kept_at(&path) {
        Ok(token) => Ok(Some(token)),
        Err(error) => {
            tracing::warn!(
                path = %path.display(),
                %error,
                "no token: acts need the admin socket"
            );
            Ok(None)
        }
    }
}

/// The directory that the log's is in.
fn beside(log_dir: &Path) -> &Path {
    log_dir.parent().unwrap_or(log_dir)
}
