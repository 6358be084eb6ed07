//! What this process knows of bots: what ships, or the files that take its place.

use std::{fmt, path::Path, sync::Arc};

use crate::{
    base::clock::Clock,
    bots::{
        Catalogue, Networks, Verifier, resolver::SystemResolver, signature::Keys, verify::Questions,
    },
    config::{self, Problem, Report, wardent},
    guard::bots::Bots,
};

/// What the files say, or what ships where there is none.
#[derive(Debug)]
pub(super) struct Files {
    catalogue: Arc<Catalogue>,
    networks: Networks,
    keys: Keys,
}

/// The most bytes of one of them: several times what the largest that is allowed needs.
const FILE_MAX: usize = 16 << 20;

impl Files {
    /// Reads what the settings name.
    ///
    /// # Errors
    /// When a file cannot be read or is wrong; what is wrong in all of them is told at once.
    pub(super) fn read(settings: &wardent::Bots) -> Result<Self, Report> {
        let catalogue = match &settings.catalogue {
            None => Ok(Catalogue::shipped()),
            Some(file) => catalogue(file),
        };
        let networks = match &settings.networks {
            None => Ok(Networks::shipped()),
            Some(file) => parsed(file, Networks::parse, |error| (error.line, error.fault)),
        };
        let mut keys = Keys::default();
        let mut problems = Vec::new();
        for own in &settings.keys {
            let add = |text: &str| keys.add(own.origin.as_str(), text);
            let added = parsed(&own.directory, add, |error| (error.line(), error));
            problems.extend(added.err().into_iter().flat_map(|report| report.problems));
        }
        match (catalogue, networks) {
            (Ok(catalogue), Ok(networks)) if problems.is_empty() => Ok(Self {
                catalogue,
                networks,
                keys,
            }),
            (catalogue, networks) => {
                let reports = catalogue.err().into_iter().chain(networks.err());
                let lists = reports.flat_map(|report| report.problems);
                let problems = lists.chain(problems).collect();
                Err(Report { problems })
            }
        }
    }
}

/// Reads a catalogue that takes the place of the one inside the binary.
///
/// # Errors
/// When the file cannot be read or is wrong.
pub(super) fn catalogue(file: &Path) -> Result<Arc<Catalogue>, Report> {
    let read = parsed(file, Catalogue::parse, |error| (error.line, error.fault));
    read.map(Arc::new)
}

fn parsed<T, E, W: fmt::Display>(
    file: &Path,
    parse: impl FnOnce(&str) -> Result<T, E>,
    line_and_fault: impl FnOnce(E) -> (usize, W),
) -> Result<T, Report> {
    let text = config::text_of(file, FILE_MAX)?;
    parse(&text).map_err(|error| {
        let (line, fault) = line_and_fault(error);
        Problem::in_line(file, &text, line, &fault).into()
    })
}

/// What is known at start, and the questions that will be put to the DNS.
///
/// # Errors
/// As [`Files::read`].
pub(super) fn begin(settings: &wardent::Bots) -> Result<(Bots, Questions), Report> {
    let files = Files::read(settings)?;
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
