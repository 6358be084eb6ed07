//! Where everything stands in a YAML file: a tree of keys and values with their positions.
//!
//! It also refuses what the typed documents could not point at: duplicate keys, tags, merge keys,
//! several documents, and nesting or aliases that would cost more than a configuration can be worth.

use std::rc::Rc;

mod builder;

use super::report::shown;

/// A position: line and column from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A stretch of the file and the path of the key it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) start: Position,
    pub(super) end: Position,
    /// Whether it is the key itself, not its value.
    pub(super) is_key: bool,
}

impl Place {
    /// The path of what this is in.
    pub(super) fn parent(&self) -> &str {
        let end = self.path.rfind(['.', '[']).unwrap_or_default();
        self.path.get(..end).unwrap_or_default()
    }

    /// This place without the name of its key where that may be a secret.
    pub(super) fn discreet(mut self) -> Self {
        if may_hold_secret(&self.path) {
            self.path = self.parent().to_owned();
        }
        self
    }
}

/// Whether what stands at `path` may be a secret somebody wrote down in the wrong place.
pub(super) fn may_hold_secret(path: &str) -> bool {
    let generic = generic(path);
    let mut steps = generic.split('.').map(|step| step.trim_end_matches("[]"));
    let words = [
        "secret", "secrets", "keys", "from", "token", "sasl", "otlp", "ping",
    ];
    steps.any(|step| words.contains(&step))
}

/// Why a file is refused before anybody asks what its keys mean.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) place: Place,
    pub(super) what: String,
}

#[derive(Debug)]
struct Node {
    start: Position,
    end: Position,
    kind: Kind,
    /// Values in it, itself included, aliases followed.
    size: usize,
}

#[derive(Debug)]
enum Kind {
    Scalar { text: String, is_null: bool },
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
}

#[derive(Debug)]
struct Entry {
    key: String,
    start: Position,
    end: Position,
    value: Rc<Node>,
}

/// The tree of one document.
#[derive(Debug)]
pub(super) struct Index {
    root: Rc<Node>,
}

impl Index {
    /// Reads `text`, or says what no typed document could: `Ok(None)` is a file with nothing in it.
    pub(super) fn of(text: &str) -> Result<Option<Self>, Fault> {
        let root = builder::document(text)?;
        let is_empty = |root: &Rc<Node>| match &root.kind {
            Kind::Scalar { is_null, .. } => *is_null,
            Kind::List(_) => false,
            Kind::Map(entries) => entries.is_empty(),
        };
        Ok(root
            .filter(|root| !is_empty(root))
            .map(|root| Self { root }))
    }

    /// The value at `path`, or what comes nearest: the last key on the way that is written.
    pub(super) fn nearest(&self, path: &str) -> Place {
        let mut node = &self.root;
        for step in steps(path) {
            match node.child(step) {
                Some(child) => node = child,
                None => break,
            }
        }
        node.place(path.to_owned())
    }

    /// The text written at `path`.
    pub(super) fn scalar(&self, path: &str) -> Option<&str> {
        let mut node = &self.root;
        for step in steps(path) {
            node = node.child(step)?;
        }
        match &node.kind {
            Kind::Scalar { text, .. } => Some(text),
            Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// The keys that are written under `pattern`, in which `[]` stands for every item of a list.
    pub(super) fn written(&self, pattern: &str) -> Vec<Place> {
        let mut found = Vec::new();
        self.root.walk("", &mut |path, entry, _| {
            if let Some(entry) = entry.filter(|_| generic(path) == pattern) {
                found.push(entry.place(path.to_owned()));
            }
        });
        found
    }

    /// The keys and items that are written without a value.
    pub(super) fn nulls(&self) -> Vec<Place> {
        let mut found = Vec::new();
        self.root.walk("", &mut |path, entry, node| {
            if let Kind::Scalar { is_null: true, .. } = node.kind {
                let place = entry.map(|entry| entry.place(path.to_owned()));
                found.push(place.unwrap_or_else(|| node.place(path.to_owned())));
            }
        });
        found
    }

    /// The outermost value, or else the key, that begins at `position`; the other way round for `keys_first`.
    pub(super) fn at(&self, position: Position, keys_first: bool) -> Option<Place> {
        let (mut key, mut value) = (None, None);
        self.root.walk("", &mut |path, entry, node| {
            let entry = entry.filter(|entry| entry.start == position);
            if let (Some(entry), None) = (entry, &key) {
                key = Some(entry.place(path.to_owned()));
            }
            if node.start == position && value.is_none() {
                value = Some(node.place(path.to_owned()));
            }
        });
        if keys_first {
            key.or(value)
        } else {
            value.or(key)
        }
    }
}

/// `routes[3].limit` as `routes[].limit`.
pub(super) fn generic(path: &str) -> String {
    let mut inside = false;
    let keep = |c: &char| {
        inside = *c == '[' || (inside && *c != ']');
        !inside || *c == '['
    };
    path.chars().filter(keep).collect()
}

fn steps(path: &str) -> impl Iterator<Item = &str> {
    path.split(['.', '[', ']']).filter(|step| !step.is_empty())
}

/// What a walk calls: the path, the entry if it is a key's, and the value.
type Visit<'a> = dyn FnMut(&str, Option<&Entry>, &Node) + 'a;

impl Node {
    fn child(&self, step: &str) -> Option<&Rc<Node>> {
        match &self.kind {
            Kind::Scalar { .. } => None,
            Kind::List(items) => items.get(step.parse::<usize>().ok()?),
            Kind::Map(entries) => {
                let entry = entries.iter().find(|entry| entry.key == step);
                entry.map(|entry| &entry.value)
            }
        }
    }

    fn place(&self, path: String) -> Place {
        Place {
            path,
            start: self.start,
            end: self.end,
            is_key: false,
        }
    }

    /// Visits what is inside, outermost first. The depth is bounded by [`DEPTH_MAX`] and aliases.
    fn walk(&self, path: &str, visit: &mut Visit<'_>) {
        if path.is_empty() {
            visit("", None, self);
        }
        match &self.kind {
            Kind::Scalar { .. } => {}
            Kind::List(items) => {
                for (nth, item) in items.iter().enumerate() {
                    let path = format!("{path}[{nth}]");
                    visit(&path, None, item);
                    item.walk(&path, visit);
                }
            }
            Kind::Map(entries) => {
                for entry in entries {
                    let path = joined(path, &entry.key);
                    visit(&path, Some(entry), &entry.value);
                    entry.value.walk(&path, visit);
                }
            }
        }
    }
}

impl Entry {
    fn place(&self, path: String) -> Place {
        Place {
            path,
            start: self.start,
            end: self.end,
            is_key: true,
        }
    }
}

/// `path` with one more key behind it.
pub(super) fn joined(path: &str, key: &str) -> String {
    match path {
        "" => shown(key),
        path => format!("{path}.{}", shown(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        let Fault { place, what } = Index::of(text).unwrap_err();
        format!("{}:{}: {what}", place.start.line, place.start.column)
    }

    #[test]
    fn every_value_is_found_by_its_path_and_by_its_position() {
        let index = Index::of("a: 1\nb:\n  - c: x\n    d: [y, zz]\n")
            .unwrap()
            .unwrap();
        let place = index.nearest("b[0].d[1]");
        assert_eq!(
            place.start,
            Position {
                line: 4,
                column: 12
            }
        );
        assert_eq!(
            place.end,
            Position {
                line: 4,
                column: 14
            }
        );
        assert_eq!(index.at(place.start, false), Some(place));
        assert_eq!(
            index.nearest("b[0].d[7].e").start.column,
            8,
            "the nearest written value"
        );
        assert_eq!(index.scalar("b[0].c"), Some("x"));
        let written = index.written("b[].d");
        assert_eq!(written.len(), 1);
        assert_eq!(written[0].path, "b[0].d");
        assert_eq!(written[0].start, Position { line: 4, column: 5 });
    }

    #[test]
    fn what_has_no_value_is_found() {
        let index = Index::of("a:\nb: ~\nc: ''\nd: [null]\n").unwrap().unwrap();
        let paths: Vec<_> = index.nulls().into_iter().map(|place| place.path).collect();
        assert_eq!(paths, ["a", "b", "d[0]"]);
    }

    #[test]
    fn nothing_is_nothing() {
        for text in ["", "# only this\n", "---\n", "~", "{}"] {
            assert!(Index::of(text).unwrap().is_none(), "{text:?}");
        }
    }

    #[test]
    fn duplicate_keys_are_refused_at_every_level() {
        assert_eq!(fault("a: 1\na: 2"), "2:1: the key `a` is given twice");
        assert_eq!(fault("a: {b: 1, b: 2}"), "1:11: the key `b` is given twice");
        assert_eq!(
            fault("a: {'401': 1, 401: 2}"),
            "1:15: the key `401` is given twice"
        );
    }

    #[test]
    fn what_yaml_can_and_a_configuration_need_not_is_refused() {
        assert_eq!(
            fault("a: 1\n---\nb: 1"),
            "2:1: a second document begins here (use one a file)"
        );
        assert_eq!(
            fault("a: !x 1"),
            "1:4: tags (`!name`) are not read (leave it out)"
        );
        assert_eq!(fault("? [a]\n: b"), "1:3: a key must be plain text");
        assert_eq!(
            fault("a: &a [*a]"),
            "1:8: an alias inside of what it stands for"
        );
        assert_eq!(
            fault("a: &a {b: 1}\nc:\n  <<: *a"),
            "3:3: merge keys (`<<`) are not read (write the keys out)"
        );
    }

    #[test]
    fn aliases_are_followed_until_they_explode() {
        let index = Index::of("a: &a [x]\nb: *a\n").unwrap().unwrap();
        assert_eq!(index.scalar("b[0]"), Some("x"));
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x]\n");
        for n in 1..20 {
            let before = format!("*a{}", n - 1);
            bomb += &format!("a{n}: &a{n} [{}]\n", [before.as_str(); 8].join(", "));
        }
        assert!(fault(&bomb).ends_with("the aliases stand for more than 10000 values"));
    }

    #[test]
    fn deep_nesting_is_refused_at_once() {
        let block: String = (0..2_000)
            .map(|n| format!("{}a:\n", " ".repeat(n)))
            .collect();
        assert!(fault(&block).contains("nested deeper than 32 levels"));
        let deep = "[".repeat(4 << 20);
        assert!(
            fault(&deep).contains("nested deeper than 32 levels"),
            "{}",
            fault(&deep)
        );
    }
}
