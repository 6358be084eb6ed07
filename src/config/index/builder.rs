//! Builds the tree from the parser's events, and refuses what no document of ours needs.

use std::{collections::HashSet, rc::Rc};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use crate::config::report::shown;

use super::{Entry, Fault, Kind, Node, Place, Position, may_hold_secret};

/// Deeper than any document of ours by far, and shallow enough to recurse.
const DEPTH_MAX: usize = 32;
/// How many values all aliases together may stand for.
const ALIASED_MAX: usize = 10_000;

/// The tree of `text`, if there is anything in it.
pub(super) fn document(text: &str) -> Result<Option<Rc<Node>>, Fault> {
    let builder = Builder {
        parser: Parser::new_from_str(text),
        anchors: Vec::new(),
        aliased: 0,
        path: Vec::new(),
    };
    builder.document()
}

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// What each anchor's number stands for.
    anchors: Vec<(usize, Rc<Node>)>,
    aliased: usize,
    path: Vec<String>,
}

impl<'a> Builder<'a> {
    fn document(mut self) -> Result<Option<Rc<Node>>, Fault> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(self.fault(span, "a second document begins here (use one a file)"));
                }
                Event::Nothing
                | Event::StreamStart
                | Event::DocumentStart(_)
                | Event::DocumentEnd => {}
                Event::Alias(_)
                | Event::Scalar(..)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingStart(..)
                | Event::MappingEnd => root = Some(self.node(event, span)?),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Fault> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Rc<Node>, Fault> {
        if self.path.len() > DEPTH_MAX {
            return Err(self.fault(span, &too_deep()));
        }
        let (node, anchor) = match event {
            Event::Alias(anchor) => return self.alias(anchor, span),
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), span)?;
                let is_plain = style == ScalarStyle::Plain;
                let is_null = is_plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let text = text.into_owned();
                (node(span, span, Kind::Scalar { text, is_null }), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), span)?;
                (self.list(span)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), span)?;
                (self.map(span)?, anchor)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Err(self.fault(span, "a value is missing here")),
        };
        let node = Rc::new(node);
        if anchor > 0 {
            self.anchors.push((anchor, Rc::clone(&node)));
        }
        Ok(node)
    }

    fn list(&mut self, start: Span) -> Result<Node, Fault> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if let Event::SequenceEnd = event {
                return Ok(node(start, span, Kind::List(items)));
            }
            self.path.push(format!("[{}]", items.len()));
            items.push(self.node(event, span)?);
            self.path.pop();
        }
    }

    fn map(&mut self, start: Span) -> Result<Node, Fault> {
        let mut entries = Vec::new();
        let mut keys = HashSet::new();
        loop {
            let (event, span) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(node(start, span, Kind::Map(entries))),
                Event::Scalar(key, _, _, tag) => {
                    self.refuse_tag(tag.as_deref(), span)?;
                    key.into_owned()
                }
                Event::Nothing
                | Event::StreamStart
                | Event::StreamEnd
                | Event::DocumentStart(_)
                | Event::DocumentEnd
                | Event::Alias(_)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingStart(..) => {
                    return Err(self.fault(span, "a key must be plain text"));
                }
            };
            if key == "<<" {
                let what = "merge keys (`<<`) are not read (write the keys out)";
                return Err(self.fault(span, what));
            }
            if !keys.insert(key.clone()) {
                self.path.push(shown(&key));
                let fault = self.fault(span, "");
                let what = match may_hold_secret(&fault.place.path) {
                    true => "a key is given twice".to_owned(),
                    false => format!("the key `{}` is given twice", shown(&key)),
                };
                let place = fault.place.discreet();
                return Err(Fault { place, what });
            }
            self.path.push(shown(&key));
            let (event, value_span) = self.next()?;
            let value = self.node(event, value_span)?;
            self.path.pop();
            entries.push(Entry {
                key,
                start: position(span.start),
                end: position(span.end),
                value,
            });
        }
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Rc<Node>, Fault> {
        let known = self.anchors.iter().find(|(number, _)| *number == anchor);
        let Some((_, node)) = known else {
            return Err(self.fault(span, "an alias inside of what it stands for"));
        };
        let node = Rc::clone(node);
        self.aliased = self.aliased.saturating_add(node.size);
        if self.aliased > ALIASED_MAX {
            let what = format!("the aliases stand for more than {ALIASED_MAX} values");
            return Err(self.fault(span, &what));
        }
        Ok(node)
    }

    fn refuse_tag(&self, tag: Option<&Tag>, span: Span) -> Result<(), Fault> {
        match tag {
            Some(_) => Err(self.fault(span, "tags (`!name`) are not read (leave it out)")),
            None => Ok(()),
        }
    }

    fn fault(&self, span: Span, what: &str) -> Fault {
        let path = self.path.iter().fold(String::new(), |path, step| {
            match path.is_empty() || step.starts_with('[') {
                true => path + step,
                false => format!("{path}.{step}"),
            }
        });
        Fault {
            place: Place {
                path,
                start: position(span.start),
                end: position(span.end),
                is_key: false,
            },
            what: what.to_owned(),
        }
    }

    fn syntax(&self, error: &ScanError) -> Fault {
        let span = Span::empty(*error.marker());
        // The scanner runs ahead of us and has a limit of its own.
        match error.info().contains("recursion limit") {
            true => self.fault(span, &too_deep()),
            false => self.fault(span, &format!("not YAML: {}", shown(error.info()))),
        }
    }
}

fn too_deep() -> String {
    format!("nested deeper than {DEPTH_MAX} levels")
}

fn node(start: Span, end: Span, kind: Kind) -> Node {
    let inside = |node: &Rc<Node>| node.size;
    let size = match &kind {
        Kind::Scalar { .. } => 0,
        Kind::List(items) => items.iter().map(inside).fold(0, usize::saturating_add),
        Kind::Map(entries) => {
            let sizes = entries.iter().map(|entry| inside(&entry.value));
            sizes.fold(0, usize::saturating_add)
        }
    };
    Node {
        start: position(start.start),
        end: position(end.end),
        kind,
        size: size.saturating_add(1),
    }
}

/// The parser counts lines from 1 and columns from 0.
fn position(marker: Marker) -> Position {
    Position {
        line: marker.line().max(1),
        column: marker.col() + 1,
    }
}
