//! Whether the files of `log.tls` can be used, found out by reading them as a start does.

use super::{report::Problem, settings, wardent, yaml::Source};
use crate::kafka::tls::{Files, Tls};

/// Reads the certificate and its key; none when both can be used.
///
/// What this user may not read is a warning: whoever checks a configuration need not be the user that serves
/// with it.
pub(super) fn look_at(log: &wardent::Log, source: &Source<'_>) -> Option<Problem> {
    let files: Files = settings::tls(log.tls.as_ref()?);
    let wrong = Tls::open(&files).err()?;
    let key = match wrong.is_key {
        true => "log.tls.key",
        false => "log.tls.cert",
    };
    let what = format!("{key}: {wrong}");
    match wrong.is_denied {
        true => Some(source.warning(&source.index().nearest(key), what)),
        false => Some(source.error(key, what)),
    }
}
