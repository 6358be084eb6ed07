//! Whether the files of `log.tls` and `admin.tls` can be used, found out by reading them as a start does.

use super::{report::Problem, settings, wardent, yaml::Source};
use crate::kafka::tls::Tls;

/// Reads the certificates and their keys, and says what is wrong with them.
///
/// What this user may not read is a warning: whoever checks a configuration need not be the user that serves
/// with it.
pub(super) fn look_at(document: &wardent::Document, source: &Source<'_>) -> Vec<Problem> {
    let all = [
        ("log.tls", &document.log.tls),
        ("admin.tls", &document.admin.tls),
    ];
    let given = all
        .iter()
        .filter_map(|(key, tls)| tls.as_ref().map(|tls| (key, tls)));
    let wrong = given.filter_map(|(of, tls)| {
        let wrong = Tls::open(&settings::tls(tls)).err()?;
        let key = match wrong.is_key {
            true => format!("{of}.key"),
            false => format!("{of}.cert"),
        };
        let what = format!("{key}: {wrong}");
        Some(match wrong.is_denied {
            true => source.warning(&source.index().nearest(&key), what),
            false => source.error(&key, what),
        })
    });
    wrong.collect()
}
