//! Switches a route between observe and enforce, by an edit of the file that leaves all else as it stands.
//!
//! The new text is read before it is written: it must mean what the old one meant, but for this one mode. An
//! editor that has the file open is not overtaken: what is on disk must be what is in force.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, fchown},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::{Document, Mode, read};
use crate::config::{index::Position, text_of, wardent, yaml};

/// A text, and where it says something new.
#[derive(Debug, PartialEq, Eq)]
struct Edited {
    text: String,
    line: usize,
}

/// What is to be switched.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The route; none for all that say nothing themselves.
    pub route: Option<&'a str>,
    /// To what.
    pub mode: Mode,
}

/// Edits the policy at `path`, whose text in force has this hash, and says which line was written.
///
/// # Errors
/// When there is no such route, the file is not the one in force, or cannot be written: then with the line to
/// write by hand.
pub fn switch(
    path: &Path,
    sha256: &str,
    wardent: &wardent::Document,
    wanted: Wanted<'_>,
) -> Result<String, String> {
    // The file itself, where a link leads to it: the link is somebody's own.
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = path.display();
    let text = text_of(&real, yaml::FILE_MAX).map_err(|report| report.to_string())?;
    let hash = HEXLOWER.encode(&Sha256::digest(text.as_bytes()));
    if hash != sha256 {
        return Err(format!(
            "{name}: it was edited, and what it says is not in force: mend it or reload it first"
        ));
    }
    let base = path.parent().unwrap_or(Path::new(""));
    let edited = edited(&text, base, wardent, wanted).map_err(|why| format!("{name}: {why}"))?;
    let mode = wanted.mode.word();
    let line = edited.line;
    replace(&real, &text, &edited.text).map_err(|error| {
        format!("{name}: cannot be written ({error}): write `mode: {mode}` in line {line} by hand")
    })?;
    let whose = wanted
        .route
        .unwrap_or("all routes without a mode of their own");
    Ok(format!("{whose}: {mode} ({name}, line {line})"))
}

/// The text that says what is wanted, and otherwise what it said.
fn edited(
    text: &str,
    base: &Path,
    wardent: &wardent::Document,
    wanted: Wanted<'_>,
) -> Result<Edited, String> {
    let (document, source) =
        read(text, "policy", base, wardent).map_err(|report| report.to_string())?;
    let key = match wanted.route {
        None => String::new(),
        Some(route) => {
            let all = document.routes.iter();
            let nth = all.clone().position(|own| own.name.as_str() == route);
            let nth = nth.ok_or_else(|| format!("there is no route `{route}`"))?;
            format!("routes[{nth}].")
        }
    };
    let index = source.index();
    let mode_key = format!("{key}mode");
    let mode = wanted.mode.word();
    let candidates: Vec<(usize, usize, String)> = if index.scalar(&mode_key).is_some() {
        let place = index.nearest(&mode_key);
        let span = offset(text, place.start).zip(offset(text, place.end));
        let (from, to) = span.unwrap_or_default();
        vec![(from, to, mode.to_owned())]
    } else if key.is_empty() {
        let from = offset(text, index.nearest("").start).unwrap_or_default();
        vec![(from, from, format!("mode: {mode}\n"))]
    } else {
        let name = index.nearest(&format!("{key}name"));
        let keys = index.written("routes[].name");
        let own = keys.iter().find(|place| place.path == name.path);
        let column = own.map_or(1, |place| place.start.column);
        let indent = " ".repeat(column - 1);
        let end = offset(text, name.end).unwrap_or_default();
        let rest = text.get(end..).unwrap_or_default();
        let line_end = end + rest.find(['\r', '\n']).unwrap_or(rest.len());
        let line_break = if text.contains("\r\n") { "\r\n" } else { "\n" };
        vec![
            (
                line_end,
                line_end,
                format!("{line_break}{indent}mode: {mode}"),
            ),
            (end, end, format!(", mode: {mode}")),
        ]
    };
    let meant = with_mode(document, wanted);
    for (from, to, new) in candidates {
        let (Some(before), Some(after)) = (text.get(..from), text.get(to..)) else {
            continue;
        };
        let line = before.matches('\n').count() + 1 + usize::from(new.starts_with(['\r', '\n']));
        let text = format!("{before}{new}{after}");
        let means_that =
            read(&text, "policy", base, wardent).is_ok_and(|(document, _)| document == meant);
        if means_that {
            return Ok(Edited { text, line });
        }
    }
    let line = index.nearest(&mode_key).start.line;
    Err(format!(
        "it is written so that it is better changed by hand: write `mode: {mode}` near line {line}"
    ))
}

/// What the document says once it is switched.
fn with_mode(mut document: Document, wanted: Wanted<'_>) -> Document {
    match wanted.route {
        None => document.mode = wanted.mode,
        Some(route) => {
            let mut all = document.routes.iter_mut();
            if let Some(own) = all.find(|own| own.name.as_str() == route) {
                own.mode = Some(wanted.mode);
            }
        }
    }
    document
}

/// The byte at a position; none where the text has none.
fn offset(text: &str, at: Position) -> Option<usize> {
    let mut before = 0;
    let mut lines = text.split_inclusive('\n');
    for _ in 1..at.line {
        before += lines.next()?.len();
    }
    let line = lines.next().unwrap_or_default();
    let mut chars = line.char_indices().map(|(byte, _)| byte);
    let within = chars.nth(at.column - 1).unwrap_or(line.len());
    Some(before + within)
}

/// Writes `new` beside the file and renames it over, if the file is still `old`.
fn replace(path: &Path, old: &str, new: &str) -> io::Result<()> {
    let folder = path.parent().map_or_else(PathBuf::new, Path::to_owned);
    let mut fresh = tempfile::Builder::new()
        .prefix(".policy-")
        .suffix(".new")
        .tempfile_in(folder)?;
    fresh.write_all(new.as_bytes())?;
    let data = fs::metadata(path)?;
    fresh.as_file().set_permissions(data.permissions())?;
    // Only root may give a file away; it stays readable for whoever could read it by its group otherwise.
    let _ = fchown(fresh.as_file(), Some(data.uid()), Some(data.gid()));
    fresh.as_file().sync_all()?;
    if fs::read(path)? != old.as_bytes() {
        return Err(io::Error::other("somebody has changed it in this moment"));
    }
    fresh.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wardent() -> wardent::Document {
        let text = "listen: [127.0.0.1:0]\nupstream: {servers: [127.0.0.1:1]}\n";
        wardent::read(text, "wardent.yaml", Path::new(""))
            .unwrap()
            .0
    }

    fn to(route: Option<&str>, mode: Mode) -> Wanted<'_> {
        Wanted { route, mode }
    }

    fn after(text: &str, wanted: Wanted<'_>) -> Result<(String, usize), String> {
        let edited = edited(text, Path::new(""), &wardent(), wanted)?;
        Ok((edited.text, edited.line))
    }

    const POLICY: &str = "# who may\nmode: observe   # for now\nroutes:\n  - name: login # of people\n    match: {path: /login/}   # here\n\n  - {name: trap, match: {path: /x}, trap: true}\n  - name: shop\n    mode: \"observe\"\n    match: {path: /shop/}\n";

    #[test]
    fn a_mode_that_is_written_is_replaced_and_nothing_else() {
        let (text, line) = after(POLICY, to(None, Mode::Enforce)).unwrap();
        assert_eq!(
            text,
            POLICY.replace("mode: observe   #", "mode: enforce   #")
        );
        assert_eq!(line, 2);
        let (text, line) = after(POLICY, to(Some("shop"), Mode::Enforce)).unwrap();
        assert_eq!(text, POLICY.replace("\"observe\"", "enforce"));
        assert_eq!(line, 9);
    }

    #[test]
    fn a_mode_that_is_missing_is_put_below_the_name() {
        let (text, line) = after(POLICY, to(Some("login"), Mode::Enforce)).unwrap();
        let expected = POLICY.replace("# of people\n", "# of people\n    mode: enforce\n");
        assert_eq!((text, line), (expected, 5));
        let (text, line) = after(POLICY, to(Some("trap"), Mode::Observe)).unwrap();
        let expected = POLICY.replace("{name: trap,", "{name: trap, mode: observe,");
        assert_eq!((text, line), (expected, 7));
        let bare = "# none\nbans: {threshold: 5}\n";
        let (text, _) = after(bare, to(None, Mode::Observe)).unwrap();
        assert_eq!(text, "# none\nmode: observe\nbans: {threshold: 5}\n");
    }

    #[test]
    fn what_cannot_be_switched_is_said() {
        let no_such = after(POLICY, to(Some("none"), Mode::Observe)).unwrap_err();
        assert_eq!(no_such, "there is no route `none`");
        // The alias would switch both.
        let shared = "routes:\n  - {name: a, match: {path: /a}, mode: &m observe}\n  - {name: b, match: {path: /b}, mode: *m}\n";
        let by_hand = after(shared, to(Some("a"), Mode::Enforce)).unwrap_err();
        assert!(by_hand.contains("by hand"), "{by_hand}");
    }

    #[test]
    fn the_file_is_replaced_as_a_whole_with_its_mode_and_only_if_it_is_the_one_in_force() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real.yaml");
        let path = dir.path().join("policy.yaml");
        fs::write(&real, POLICY).unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&real, &path).unwrap();
        let hash = HEXLOWER.encode(&Sha256::digest(POLICY.as_bytes()));
        let wanted = to(None, Mode::Enforce);
        let said = switch(&path, &hash, &wardent(), wanted).unwrap();
        assert!(said.ends_with("policy.yaml, line 2)"), "{said}");
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        assert_eq!(
            fs::metadata(&real).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert!(
            fs::read_to_string(&real)
                .unwrap()
                .contains("mode: enforce   #")
        );
        let edited = switch(&path, &hash, &wardent(), wanted).unwrap_err();
        assert!(edited.contains("it was edited"), "{edited}");
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            2,
            "nothing is left beside"
        );
    }
}
