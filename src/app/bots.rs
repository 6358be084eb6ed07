//! What this process knows of bots: what ships, or the files that take its place.

use std::{fs, path::Path, sync::Arc};

use super::StartError;
use crate::{
    base::clock::Clock,
    bots::{
        Catalogue, Networks, Verifier, resolver::SystemResolver, signature::Keys, verify::Questions,
    },
    config::wardent,
    guard::bots::Bots,
};

/// What the files say, or what ships where there is none.
#[derive(Debug)]
pub(super) struct Files {
    catalogue: Arc<Catalogue>,
    networks: Networks,
    keys: Keys,
}

impl Files {
    pub(super) fn read(settings: &wardent::Bots) -> Result<Self, String> {
        let catalogue = match &settings.catalogue {
            None => Catalogue::shipped(),
            Some(file) => Arc::new(parsed(file, Catalogue::parse)?),
        };
        let networks = match &settings.networks {
            None => Networks::shipped(),
            Some(file) => parsed(file, Networks::parse)?,
        };
        let mut keys = Keys::default();
        for own in &settings.keys {
            parsed(&own.directory, |text| keys.add(own.origin.as_str(), text))?;
        }
        Ok(Self {
            catalogue,
            networks,
            keys,
        })
    }
}

fn parsed<T, E: std::fmt::Display>(
    file: &Path,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    parse(&text).map_err(|error| format!("{}: {error}", file.display()))
}

/// What is known at start, and the questions that will be put to the DNS.
pub(super) fn begin(settings: &wardent::Bots) -> Result<(Bots, Questions), StartError> {
    let files = Files::read(settings).map_err(StartError::Secrets)?;
    let (verifier, questions) = Verifier::new(files.networks);
    let bots = Bots::new(files.catalogue, verifier);
    bots.keys.store(Arc::new(files.keys));
    Ok((bots, questions))
}

/// Puts files in force that were read again. Says so where the networks are too different from those
/// in force, which then stay.
pub(super) fn replace(bots: &Bots, files: Files) -> Option<String> {
    bots.replace_catalogue(files.catalogue);
    bots.keys.store(Arc::new(files.keys));
    let jump = bots.verifier.replace_networks(files.networks).err()?;
    Some(format!("bots.networks: the old ones stay in force: {jump}"))
}

/// Puts questions to the DNS until the process ends. Without a resolver nothing can be proved by
/// name, and no bot is an impostor for it.
pub(super) async fn answer(questions: Questions, clock: Clock) {
    match SystemResolver::new() {
        Ok(resolver) => questions.answer(resolver, clock).await,
        Err(error) => {
            tracing::warn!(%error, "no resolver: bots are verified by their networks alone");
        }
    }
}
