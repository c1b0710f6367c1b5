//! Typed reading of the tree: sections with known keys, and values that are parsed where they stand.

use super::keys;
use super::problem::{Place, Report};
use super::yaml::{Entry, Kind, Node, shown};

/// Longest text of one value in bytes: nothing that the configuration holds comes near.
const MAX_TEXT: usize = 4096;

/// A value that is there, with its key.
#[derive(Clone)]
pub(super) struct Value<'a> {
    pub(super) key: String,
    pub(super) node: &'a Node,
}

/// A parsed value, and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) place: Place,
    pub(super) key: String,
}

/// A mapping of which every key is known.
pub(super) struct Section<'a> {
    pub(super) key: String,
    pub(super) place: Place,
    entries: &'a [Entry],
}

impl<'a> Value<'a> {
    pub(super) fn wrong(&self, report: &mut Report<'_>, message: impl Into<String>) {
        report.problem(self.node.place, &self.key, message);
    }

    /// The value as a section, of which keys outside `known` are problems.
    pub(super) fn section(&self, known: &[&str], report: &mut Report<'_>) -> Option<Section<'a>> {
        let Kind::Map(entries) = &self.node.kind else {
            // `key:value` without a space is one word to YAML.
            let colon = matches!(&self.node.kind, Kind::Scalar(text) if text.contains(':'));
            let hint = if colon { "; a space stands between a key's colon and its value" } else { "" };
            let keys = list(known);
            let message = format!("is {}: expected a section with the keys {keys}{hint}", what(self.node));
            self.wrong(report, message);
            return None;
        };
        let section = Section { key: self.key.clone(), place: self.node.place, entries };
        for entry in entries.iter().filter(|entry| !known.contains(&&*entry.key)) {
            let name = shown(&entry.key);
            let hint = match (keys::meant(&entry.key, known), keys::home(&entry.key)) {
                (Some(key), _) => format!(", did you mean `{key}`?"),
                (None, Some(home)) => format!(": it belongs {home}"),
                (None, None) => format!(": expected one of {}", list(known)),
            };
            report.problem(entry.place, &section.path(&name), format!("unknown key `{name}`{hint}"));
        }
        Some(section)
    }

    /// The value as text, parsed.
    pub(super) fn parse<T>(
        &self,
        report: &mut Report<'_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Placed<T>> {
        let Kind::Scalar(text) = &self.node.kind else {
            self.wrong(report, format!("is {}: expected one value", what(self.node)));
            return None;
        };
        if text.len() > MAX_TEXT {
            self.wrong(report, format!("is longer than {MAX_TEXT} bytes"));
            return None;
        }
        match parse(text) {
            Ok(value) => Some(Placed { value, place: self.node.place, key: self.key.clone() }),
            Err(message) => {
                self.wrong(report, message);
                None
            }
        }
    }

    /// Whether it is a list without items.
    pub(super) fn is_empty(&self) -> bool {
        matches!(&self.node.kind, Kind::List(items) if items.is_empty())
    }

    fn items(&self, nodes: &'a [Node]) -> Vec<Self> {
        let item = |(i, node)| Self { key: format!("{}[{i}]", self.key), node };
        nodes.iter().enumerate().map(item).collect()
    }
}

impl<'a> Section<'a> {
    /// The value of `name`; none where it is absent, null or `""`, which the first FFMesh wrote for "not set".
    pub(super) fn value(&self, name: &str) -> Option<Value<'a>> {
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        match &entry.value.kind {
            Kind::Null => None,
            Kind::Scalar(text) if text.is_empty() => None,
            _ => Some(Value { key: self.path(name), node: &entry.value }),
        }
    }

    /// Whether [`Section::value`] has one.
    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// The parsed value of `name`; none where it is absent or wrong.
    pub(super) fn get<T>(
        &self,
        name: &str,
        report: &mut Report<'_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Placed<T>> {
        self.value(name)?.parse(report, parse)
    }

    /// Stores the parsed value of `name`, if there is one.
    pub(super) fn set<T>(
        &self,
        name: &str,
        report: &mut Report<'_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
        to: &mut T,
    ) {
        if let Some(placed) = self.get(name, report, parse) {
            *to = placed.value;
        }
    }

    /// The parsed value of `name`, whose absence is a problem.
    pub(super) fn need<T>(
        &self,
        name: &str,
        expected: &str,
        report: &mut Report<'_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Placed<T>> {
        if !self.has(name) {
            report.problem(self.place, &self.path(name), format!("is missing: expected {expected}"));
        }
        self.get(name, report, parse)
    }

    /// The sections in the list at `name`.
    pub(super) fn sections(&self, name: &str, known: &[&str], report: &mut Report<'_>) -> Vec<Section<'a>> {
        let Some(value) = self.value(name) else { return Vec::new() };
        let Kind::List(nodes) = &value.node.kind else {
            let expected = "expected a list, a line that starts with `- ` for each item";
            value.wrong(report, format!("is {}: {expected}", what(value.node)));
            return Vec::new();
        };
        value.items(nodes).iter().filter_map(|item| item.section(known, report)).collect()
    }

    /// The parsed values of the list at `name`, where one value stands for a list of one; none where the list
    /// is absent.
    pub(super) fn list<T>(
        &self,
        name: &str,
        report: &mut Report<'_>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let value = self.value(name)?;
        let items = match &value.node.kind {
            Kind::List(nodes) => value.items(nodes),
            _ => vec![value],
        };
        let parsed = items.iter().filter_map(|item| item.parse(report, &parse));
        Some(parsed.map(|placed| placed.value).collect())
    }

    /// The full key of `name` in this section.
    pub(super) fn path(&self, name: &str) -> String {
        if self.key.is_empty() { name.to_owned() } else { format!("{}.{name}", self.key) }
    }
}

fn what(node: &Node) -> String {
    match &node.kind {
        Kind::Null => "empty".into(),
        Kind::Scalar(text) => format!("the value \"{}\"", shown(text)),
        Kind::List(_) => "a list".into(),
        Kind::Map(_) => "a section".into(),
    }
}

fn list(keys: &[&str]) -> String {
    keys.join(", ")
}
