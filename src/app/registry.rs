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

/// The token that acts over the admin listener need, where one is configured.
///
/// # Errors
/// When it cannot be read, or is too short.
pub(super) fn token(document: &Document) -> Result<Option<Token>, StartError> {
    let Some(from) = &document.admin.token else {
        return Ok(None);
    };
    let wrong = |what: String| StartError::Secrets(format!("admin.token: {what}"));
    let token = secret::read(&from.source()).map_err(|error| wrong(error.to_string()))?;
    token
        .long_enough("admin.token")
        .map_err(|bad| wrong(bad.to_string()))?;
    Ok(Some(Token::from(token)))
}

/// The one that is kept beside the log, and made at the first start. Where it cannot be, there are no such acts.
pub(super) fn own_token(log_dir: &Path) -> Option<Token> {
    let path = beside(log_dir).join("admin.token");
    let kept = Token::kept_at(&path);
    kept.inspect_err(|error| {
        tracing::warn!(
            path = %path.display(),
            %error,
            "no token: acts need the admin socket"
        );
    })
    .ok()
}

/// The directory that the log's is in.
fn beside(log_dir: &Path) -> &Path {
    log_dir.parent().unwrap_or(log_dir)
}
