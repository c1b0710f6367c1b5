//! What changes from one configuration to another, and what of it takes a restart.

use std::fmt;

use super::{Config, Proxy, Service, Upstream};

/// Keys whose values are used once, when a node starts: identity, sockets, and what QUIC connections are made with.
type Fixed = (&'static str, fn(&Config, &Config) -> bool, fn(&mut Config, &Config));

macro_rules! fixed {
    ($($name:literal => $($field:ident).+),* $(,)?) => {
        [$((
            $name,
            |old, new| old.$($field).+ == new.$($field).+,
            |new, old| new.$($field).+.clone_from(&old.$($field).+),
        )),*]
    };
}

const FIXED: [Fixed; 12] = fixed! {
    "node_id" => node_id,
    "state_dir" => state_dir,
    "quic.listen_port" => quic.listen_port,
    "quic.listen_address" => quic.listen_address,
    "quic.congestion" => quic.congestion,
    "quic.keep_alive" => quic.keep_alive,
    "quic.stream_window" => quic.stream_window,
    "quic.send_window" => quic.send_window,
    "quic.mtu" => quic.mtu,
    "admin.listen" => admin.listen,
    "admin.hosts" => admin.hosts,
    "log.format" => log.format,
};

/// What applying a configuration changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diff {
    /// What changes at once, in the order of the documentation
    pub changes: Vec<Change>,
    /// Keys whose new value takes a restart
    pub needs_restart: Vec<&'static str>,
}

/// One thing that changes. Displayed as the key that it is about, as in `proxies.web: added` or `log.level`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `proxies`
    Proxy(Entry),
    /// `services`
    Service(Entry),
    /// `access`
    Access,
    /// `quic.advertise`
    Advertise,
    /// `quic.upstreams`
    Upstream(Entry),
    /// `quic.max_flows`
    MaxFlows,
    /// `quic.flow_memory`
    FlowMemory,
    /// `quic.max_links`
    MaxLinks,
    /// `mesh.transit`
    Transit,
    /// `mesh.cost`
    Cost,
    /// `mesh.hold`
    Hold,
    /// `mesh.drain_timeout`
    DrainTimeout,
    /// `log.level`
    LogLevel,
    /// `watch`
    Watch,
}

/// An item of a list, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name
    pub name: String,
    /// What becomes of it
    pub kind: Kind,
}

/// What becomes of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is new
    Added,
    /// It says something else
    Changed,
    /// It is gone
    Removed,
}

impl Config {
    /// What changes when `new` takes the place of this one; and `new` as it can be applied: what takes a restart is in it
    /// as it is in this one.
    pub fn diff(&self, mut new: Self) -> (Diff, Self) {
        let mut diff = Diff::default();
        for (key, same, keep) in FIXED {
            if !same(self, &new) {
                diff.needs_restart.push(key);
                keep(&mut new, self);
            }
        }
        let changes = &mut diff.changes;
        changes.extend(entries(&self.proxies, &new.proxies).map(Change::Proxy));
        changes.extend(entries(&self.services, &new.services).map(Change::Service));
        let scalars = [
            (self.access != new.access, Change::Access),
            (self.quic.advertise != new.quic.advertise, Change::Advertise),
        ];
        changes.extend(changed(scalars));
        changes.extend(entries(&self.quic.upstreams, &new.quic.upstreams).map(Change::Upstream));
        changes.extend(changed([
            (self.quic.max_flows != new.quic.max_flows, Change::MaxFlows),
            (self.quic.flow_memory != new.quic.flow_memory, Change::FlowMemory),
            (self.quic.max_links != new.quic.max_links, Change::MaxLinks),
            (self.mesh.transit != new.mesh.transit, Change::Transit),
            (self.mesh.cost != new.mesh.cost, Change::Cost),
            (self.mesh.hold != new.mesh.hold, Change::Hold),
            (self.mesh.drain_timeout != new.mesh.drain_timeout, Change::DrainTimeout),
            (self.log.level != new.log.level, Change::LogLevel),
            (self.watch != new.watch, Change::Watch),
        ]));
        (diff, new)
    }
}

fn changed<const N: usize>(of: [(bool, Change); N]) -> impl Iterator<Item = Change> {
    of.into_iter().filter_map(|(changed, change)| changed.then_some(change))
}

/// Something with a name of its own in a list.
trait Named: PartialEq {
    fn name(&self) -> &str;
}

impl Named for Proxy {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for Service {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for Upstream {
    fn name(&self) -> &str {
        &self.name
    }
}

/// Items of `new` that are not as in `old`, in its order, then those that are gone.
fn entries<'a, T: Named>(old: &'a [T], new: &'a [T]) -> impl Iterator<Item = Entry> + 'a {
    let entry = |item: &T, kind| Entry { name: item.name().to_owned(), kind };
    let find = |items: &'a [T], name: &str| items.iter().find(|item| item.name() == name);
    let new_or_changed = new.iter().filter_map(move |item| match find(old, item.name()) {
        None => Some(entry(item, Kind::Added)),
        Some(before) => (before != item).then(|| entry(item, Kind::Changed)),
    });
    let gone = old.iter().filter(move |item| find(new, item.name()).is_none());
    new_or_changed.chain(gone.map(move |item| entry(item, Kind::Removed)))
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = match self {
            Self::Proxy(entry) => return write!(f, "proxies.{entry}"),
            Self::Service(entry) => return write!(f, "services.{entry}"),
            Self::Upstream(entry) => return write!(f, "quic.upstreams.{entry}"),
            Self::Access => "access",
            Self::Advertise => "quic.advertise",
            Self::MaxFlows => "quic.max_flows",
            Self::FlowMemory => "quic.flow_memory",
            Self::MaxLinks => "quic.max_links",
            Self::Transit => "mesh.transit",
            Self::Cost => "mesh.cost",
            Self::Hold => "mesh.hold",
            Self::DrainTimeout => "mesh.drain_timeout",
            Self::LogLevel => "log.level",
            Self::Watch => "watch",
        };
        f.write_str(key)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Added => "added",
            Kind::Changed => "changed",
            Kind::Removed => "removed",
        };
        write!(f, "{}: {kind}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::*;

    fn parse(text: &str) -> Config {
        Config::parse(text, None).unwrap_or_else(|problems| panic!("{problems}")).config
    }

    /// What changes, and what takes a restart, as a user reads it.
    fn diff(old: &str, new: &str) -> (Vec<String>, Vec<&'static str>) {
        let (diff, _) = parse(old).diff(parse(new));
        (diff.changes.iter().map(ToString::to_string).collect(), diff.needs_restart)
    }

    const PROXY: &str = "target_node_id: b, target_address: \"127.0.0.1:80\"";

    #[test]
    fn the_same_file_changes_nothing() {
        let example = include_str!("../../../../docs/config.example.yaml");
        assert_eq!(diff(example, example), (vec![], vec![]));
    }

    #[test]
    fn items_are_told_apart_by_their_names() {
        let old = format!(
            "proxies:\n  - {{ name: a, local_port: 1, {PROXY} }}\n  - {{ name: b, local_port: 2, {PROXY} }}\n  \
             - {{ name: c, local_port: 3, {PROXY} }}\n"
        );
        // Another order is no change; two that swap their ports both change.
        let new = format!(
            "proxies:\n  - {{ name: d, local_port: 4, {PROXY} }}\n  - {{ name: b, local_port: 1, {PROXY} }}\n  \
             - {{ name: a, local_port: 2, {PROXY} }}\n"
        );
        let (changes, _) = diff(&old, &new);
        assert_eq!(
            changes,
            ["proxies.d: added", "proxies.b: changed", "proxies.a: changed", "proxies.c: removed"]
        );
    }

    #[test]
    fn an_empty_access_section_is_not_an_absent_one() {
        assert_eq!(diff("", "access: []").0, ["access"]);
    }

    /// Another value for each key that a file may have at this place.
    fn other(key: &str) -> String {
        let flow = |section: &str, rest: &str| format!("{section}: {{ {rest} }}\n");
        let quic = |rest: &str| flow("quic", rest);
        match key {
            "node_id" => "node_id: other".into(),
            "state_dir" => "state_dir: /other".into(),
            "proxies" => format!("proxies: [{{ name: p, local_port: 9, {PROXY} }}]"),
            "services" => "services: [{ name: s, address: \"127.0.0.1:1\" }]".into(),
            "access" => "access: []".into(),
            "quic.advertise" => quic("advertise: [\"a.example:1\"]"),
            "quic.upstreams" => quic("upstreams: [{ node_id: u, address: \"a.example:1\" }]"),
            "quic.listen_port" => quic("listen_port: 9"),
            "quic.listen_address" => quic("listen_address: \"127.0.0.1\""),
            "quic.congestion" => quic("congestion: bbr"),
            "quic.keep_alive" => quic("keep_alive: 2s"),
            "quic.stream_window" => quic("stream_window: 1MiB"),
            "quic.send_window" => quic("send_window: 1MiB"),
            "quic.mtu" => quic("mtu: 1300"),
            "quic.max_flows" => quic("max_flows: 9"),
            "quic.flow_memory" => quic("flow_memory: 32MiB"),
            "quic.max_links" => quic("max_links: 9"),
            "mesh.transit" => flow("mesh", "transit: false"),
            "mesh.cost" => flow("mesh", "cost: 9"),
            "mesh.hold" => flow("mesh", "hold: 9s"),
            "mesh.drain_timeout" => flow("mesh", "drain_timeout: 9s"),
            "admin.listen" => flow("admin", "listen: \"127.0.0.1:9\""),
            "admin.hosts" => flow("admin", "hosts: [a.example]"),
            "log.level" => flow("log", "level: debug"),
            "log.format" => flow("log", "format: json"),
            "watch" => "watch: true".into(),
            _ => panic!("{key} is new: another value for it is needed here"),
        }
    }

    #[test]
    fn every_key_is_either_applied_or_named() {
        let sections =
            [("quic", keys::QUIC), ("mesh", keys::MESH), ("admin", keys::ADMIN), ("log", keys::LOG)];
        let mut all: Vec<String> = Vec::new();
        for key in keys::ROOT {
            match sections.iter().find(|(section, _)| section == key) {
                Some((section, inner)) => all.extend(inner.iter().map(|inner| format!("{section}.{inner}"))),
                None => all.push((*key).to_owned()),
            }
        }
        assert_eq!(all.len(), 26);
        let old = Config::default();
        for key in all {
            let (diff, applied) = old.diff(parse(&other(&key)));
            let changes: Vec<_> = diff.changes.iter().map(ToString::to_string).collect();
            if diff.needs_restart.is_empty() {
                assert!(changes.len() == 1 && changes[0].starts_with(&key), "{key}: {changes:?}");
                assert_eq!(applied, parse(&other(&key)), "{key}");
            } else {
                assert_eq!((diff.needs_restart, changes), (vec![&*key], vec![]), "{key}");
                assert_eq!(applied, old, "{key}: the old value stays");
            }
        }
    }

    #[test]
    fn what_takes_a_restart_stays_and_the_rest_is_applied() {
        let old = parse("quic: { mtu: 1300, max_links: 5 }\nnode_id: a");
        let (diff, applied) = old.diff(parse("quic: { mtu: 1400, max_links: 6 }\nnode_id: b"));
        assert_eq!(diff.needs_restart, ["node_id", "quic.mtu"]);
        assert_eq!(diff.changes, [Change::MaxLinks]);
        assert_eq!(applied, parse("quic: { mtu: 1300, max_links: 6 }\nnode_id: a"));
    }
}
