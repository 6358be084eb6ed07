//! Keeps the house standing: imports point down, every file says what it is for, nothing grows
//! beyond what one can read.
#![expect(
    clippy::unwrap_used,
    reason = "a broken fixture should stop the test loudly"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The longest a source file may be.
const LINES_MAX: usize = 700;

/// The longest a decision may be: one page.
const ADR_LINES_MAX: usize = 60;

/// Each paragraph of `mod` lines in `lib.rs` is one floor; the first is the ground.
fn floors() -> BTreeMap<String, usize> {
    let lib = fs::read_to_string("src/lib.rs").unwrap();
    let paragraphs = lib.split("\n\n").filter(|text| text.contains("mod "));
    let rooms = paragraphs.enumerate().flat_map(|(floor, text)| {
        let lines = text.lines().filter(|line| !line.starts_with("//"));
        let names = lines.filter_map(|line| line.split_once("mod "));
        names.map(move |(_, name)| (name.trim_end_matches(';').to_owned(), floor))
    });
    rooms.collect()
}

/// All files under a directory with this extension, in a steady order; none if it is not there.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let all = paths.into_iter().flat_map(|path| {
        if path.is_dir() {
            files(&path, extension)
        } else {
            vec![path]
        }
    });
    all.filter(|path| path.extension().is_some_and(|own| own == extension))
        .collect()
}

fn rust_files(dir: &str) -> Vec<PathBuf> {
    files(Path::new(dir), "rs")
}

/// The source without its line comments.
fn code_of(source: &str) -> String {
    let lines = source
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The rooms named after `crate::`, also inside a group such as `crate::{a, b::{c, d}}`.
fn imported_rooms(source: &str) -> Vec<String> {
    code_of(source)
        .split("crate::")
        .skip(1)
        .flat_map(first_names)
        .collect()
}

fn first_names(path: &str) -> Vec<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let Some(group) = path.strip_prefix('{') else {
        return vec![path.chars().take_while(|&c| is_name(c)).collect()];
    };
    let mut depth = 1;
    let mut top_level = String::new();
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ if depth == 1 => top_level.push(c),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    let names = top_level
        .split(',')
        .map(|item| item.trim().chars().take_while(|&c| is_name(c)));
    names.map(Iterator::collect).collect()
}

/// The room a file under `src/` belongs to.
fn room_of(file: &Path) -> String {
    let part = file.iter().nth(1).unwrap().to_str().unwrap();
    part.trim_end_matches(".rs").to_owned()
}

#[test]
fn imports_only_point_down() {
    let floors = floors();
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        let room = room_of(&file);
        let Some(own) = floors.get(&room) else {
            continue;
        };
        for target in imported_rooms(&fs::read_to_string(&file).unwrap()) {
            match floors.get(&target) {
                Some(floor) if target != room && floor >= own => {
                    wrong.push(format!(
                        "{}: {room} ({own}) imports {target} ({floor})",
                        file.display()
                    ));
                }
                _ => {}
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports that point up or sideways:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_room_stands_on_a_floor() {
    let floors = floors();
    let homeless: Vec<_> = rust_files("src")
        .into_iter()
        .filter(|file| {
            let room = room_of(file);
            !floors.contains_key(&room) && !matches!(room.as_str(), "lib" | "main" | "bin")
        })
        .collect();
    assert!(
        homeless.is_empty(),
        "in no paragraph of lib.rs: {homeless:?}"
    );
}

#[test]
fn every_file_says_what_it_is_for() {
    let all = [
        rust_files("src"),
        rust_files("tests"),
        rust_files("benches"),
    ]
    .concat();
    let silent: Vec<_> = all
        .into_iter()
        .filter(|file| !file.iter().any(|part| part == "target"))
        .filter(|file| !fs::read_to_string(file).unwrap().starts_with("//! "))
        .collect();
    assert!(
        silent.is_empty(),
        "files without a `//!` header: {silent:?}"
    );
}

fn longer_than(max: usize, paths: Vec<PathBuf>) -> Vec<String> {
    let counted = paths.into_iter().map(|path| {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        (path, lines)
    });
    counted
        .filter(|(_, lines)| *lines > max)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect()
}

#[test]
fn no_source_file_is_longer_than_one_can_read() {
    let long = longer_than(LINES_MAX, rust_files("src"));
    assert!(long.is_empty(), "more than {LINES_MAX}: {long:#?}");
}

#[test]
fn a_decision_fits_one_page() {
    let long = longer_than(ADR_LINES_MAX, files(Path::new("docs/adr"), "md"));
    assert!(long.is_empty(), "more than {ADR_LINES_MAX}: {long:#?}");
}

#[test]
fn one_file_names_the_yaml_crate() {
    let naming: Vec<_> = rust_files("src")
        .into_iter()
        .filter(|file| code_of(&fs::read_to_string(file).unwrap()).contains("serde_yaml"))
        .collect();
    assert!(naming.len() <= 1, "`serde_yaml` is named in {naming:?}");
}

#[test]
fn of_proc_only_the_own_process_is_read() {
    let wrong: Vec<_> = rust_files("src")
        .into_iter()
        .filter(|file| {
            let source = fs::read_to_string(file).unwrap();
            let code = code_of(&source);
            let mut paths = code
                .split("\"/proc/")
                .skip(1)
                .chain(code.split("\"/sys/").skip(1));
            paths.any(|path| !path.starts_with("self/"))
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "the unit hides the rest (`ProcSubset=pid`): {wrong:?}"
    );
}

#[test]
fn the_tidy_reader_sees_groups_aliases_and_calls() {
    let source =
        "use crate::{limit::gcra, proxy as p};\n// crate::app\nfn f() { crate::admin::g() }";
    assert_eq!(imported_rooms(source), ["limit", "proxy", "admin"]);
}
