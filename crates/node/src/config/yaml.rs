//! YAML text to a tree in which every key and value knows its place.
//!
//! The tree is bounded: the parser limits nesting, and aliases, which could multiply a small text into
//! gigabytes, count every node that they repeat.

use std::collections::HashMap;

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, Tag, options};

use super::problem::{Place, Report};

/// Nested lists and sections; the configuration needs 5.
const MAX_DEPTH: usize = 32;
/// Values in a file, those repeated by aliases counted each time. A mesh of thousands of proxies needs 50,000.
const MAX_NODES: usize = 100_000;

/// A value and where it starts.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: Kind,
}

/// What a value is. Scalars stay as written: the key they stand at says what they mean, so an id such as
/// `88e2` is no number.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) value: Node,
}

/// What stops the parser: nothing after it can be read.
struct Fault {
    place: Place,
    message: String,
}

/// The tree of `text`; `None` where it is empty, or broken and `report` says how.
pub(super) fn parse(text: &str, report: &mut Report<'_>) -> Option<Node> {
    let options = options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
        disallow_directives: true,
    };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder { parser, report, anchors: HashMap::new(), nodes: 0 };
    match builder.document() {
        Ok(root) => root,
        Err(Fault { place, message }) => {
            report.problem(place, "", message);
            None
        }
    }
}

struct Builder<'a, 'r, 'f> {
    parser: Parser<'a, StrInput<'a>>,
    report: &'r mut Report<'f>,
    anchors: HashMap<usize, Anchored>,
    nodes: usize,
}

/// A node that aliases may repeat.
struct Anchored {
    node: Node,
    nodes: usize,
    depth: usize,
}

impl<'a> Builder<'a, '_, '_> {
    fn document(&mut self) -> Result<Option<Node>, Fault> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(..) if root.is_some() => {
                    return Err(fault(&span, "a second document starts here: expected one in a file"));
                }
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                event => root = Some(self.node(event, span, 0)?.0),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Fault> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(syntax(&error)),
            // The parser ends with StreamEnd, where `document` stops asking.
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    /// The node that starts with `event`, `level` deep, and the depth of what is in it.
    fn node(&mut self, event: Event<'a>, span: Span, level: usize) -> Result<(Node, usize), Fault> {
        let before = self.nodes;
        self.count(1, &span)?;
        let place = place(&span);
        let mut depth = 0;
        let (kind, anchor) = match event {
            Event::Alias(id) => return self.alias(id, &span, level),
            Event::Scalar(text, style, anchor, tag) => {
                let text_tag = self.tag(tag.as_deref(), &span);
                let null = style == ScalarStyle::Plain
                    && !text_tag
                    && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                (if null { Kind::Null } else { Kind::Scalar(text.into_owned()) }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), &span);
                let mut items = Vec::new();
                loop {
                    let (event, span) = self.next()?;
                    if matches!(event, Event::SequenceEnd | Event::StreamEnd) {
                        break;
                    }
                    let (item, inner) = self.node(event, span, level + 1)?;
                    depth = depth.max(inner + 1);
                    items.push(item);
                }
                (Kind::List(items), anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), &span);
                let entries = self.entries(level, &mut depth)?;
                (Kind::Map(entries), anchor)
            }
            _ => return Err(fault(&span, "expected a value")),
        };
        let node = Node { place, kind };
        if anchor != 0 {
            let nodes = self.nodes - before;
            self.count(nodes, &span)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), nodes, depth });
        }
        Ok((node, depth))
    }

    fn entries(&mut self, level: usize, depth: &mut usize) -> Result<Vec<Entry>, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd | Event::StreamEnd) {
                return Ok(entries);
            }
            let key = self.node(event, span, level + 1)?.0;
            let (event, span) = self.next()?;
            let (value, inner) = self.node(event, span, level + 1)?;
            *depth = (*depth).max(inner + 1);
            let Kind::Scalar(name) = key.kind else {
                self.report.problem(key.place, "", "expected a key, a plain word before the colon");
                continue;
            };
            if let Some(line) = lines.get(&name) {
                let message = format!("duplicate key `{}`: it stands on line {line} already", shown(&name));
                self.report.problem(key.place, &shown(&name), message);
                continue;
            }
            lines.insert(name.clone(), key.place.line);
            entries.push(Entry { key: name, place: key.place, value });
        }
    }

    fn alias(&mut self, id: usize, span: &Span, level: usize) -> Result<(Node, usize), Fault> {
        let Some(Anchored { node, nodes, depth }) = self.anchors.get(&id) else {
            return Err(fault(span, "this alias repeats the value that it stands in"));
        };
        if level + depth > MAX_DEPTH {
            return Err(fault(span, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let (node, nodes, depth) = (node, *nodes, *depth);
        // Counted before it is copied.
        if self.nodes + nodes > MAX_NODES {
            return Err(too_many(span));
        }
        let node = Node { place: place(span), kind: node.kind.clone() };
        self.nodes += nodes;
        Ok((node, depth))
    }

    fn count(&mut self, nodes: usize, span: &Span) -> Result<(), Fault> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES { Err(too_many(span)) } else { Ok(()) }
    }

    /// Whether the tag says that the value is text; others than YAML's own are problems.
    fn tag(&mut self, tag: Option<&Tag>, span: &Span) -> bool {
        let Some(tag) = tag else { return false };
        if !tag.is_yaml_core_schema() {
            let message = format!("the tag `{}` means nothing here: leave it out", shown(&tag.original()));
            let place = span.tag_start().map_or(place(span), |mark| at(&mark));
            self.report.problem(place, "", message);
        }
        tag.is_yaml_core_schema_tag("str")
    }
}

/// `text` for a message: no control characters, and not longer than anyone wants to read.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 64;
    let mut shown = String::new();
    for c in text.chars().take(MOST) {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

fn place(span: &Span) -> Place {
    at(&span.start)
}

fn at(mark: &Marker) -> Place {
    Place { line: mark.line(), column: mark.col() + 1 }
}

fn fault(span: &Span, message: impl Into<String>) -> Fault {
    Fault { place: place(span), message: message.into() }
}

fn too_many(span: &Span) -> Fault {
    fault(span, format!("more than {MAX_NODES} values, those repeated by aliases included"))
}

fn syntax(error: &ScanError) -> Fault {
    let info = error.info();
    let mut message = format!("not YAML: {}", info.replace(char::is_control, "?"));
    message.push_str(match error.kind() {
        ErrorKind::MissingAnchorOrAliasName | ErrorKind::UnknownAnchor => {
            "; a value that starts with * or & stands in quotes, as in \"*\""
        }
        ErrorKind::TabNotAllowed | ErrorKind::TabInBlockIndentation | ErrorKind::TabInIndentation => {
            "; indent with spaces"
        }
        _ => "",
    });
    Fault { place: at(error.marker()), message }
}
