//! What a mesh is made of, before it is.

/// Port of every node that listens.
pub(crate) const PORT: u16 = 3334;

/// Addresses of a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// IPv4 only
    #[default]
    V4,
    /// IPv6 only
    V6,
}

/// Nodes, the wires between them, and who dials whom over which.
///
/// ```text
/// Plan::new(&["a", "r", "b"]).link("a", "r").link("b", "r")     a ──▶ r ◀── b
/// ```
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) nodes: Vec<Planned>,
    pub(crate) edges: Vec<Edge>,
    pub(crate) everywhere: String,
    pub(crate) init: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) id: String,
    pub(crate) listens: bool,
    pub(crate) relay: bool,
    /// Whether it has proxies, and others have some to it
    pub(crate) proxied: bool,
    pub(crate) quic: String,
    pub(crate) more: String,
}

/// A wire, an upstream entry, or both.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    pub(crate) number: usize,
    pub(crate) dialler: String,
    pub(crate) listener: String,
    pub(crate) family: Family,
    pub(crate) cost: u32,
    /// Whether there is a wire of its own
    pub(crate) wired: bool,
    /// Whether the dialler has an upstream entry for it
    pub(crate) dialled: bool,
    /// Where the listener is dialled, when not at its address on the wire
    pub(crate) at: Option<String>,
}

impl Plan {
    /// Nodes of these ids (at most 11 characters), which all listen and may relay. The first founds the mesh.
    pub fn new(ids: &[&str]) -> Self {
        let node = |id: &&str| Planned {
            id: (*id).to_owned(),
            listens: true,
            relay: true,
            proxied: true,
            quic: String::new(),
            more: String::new(),
        };
        let nodes = ids.iter().map(node).collect();
        Self { nodes, edges: Vec::new(), everywhere: String::new(), init: Vec::new() }
    }

    /// A chain of these nodes: each dials the next, and there is no other wire.
    pub fn chain(ids: &[&str]) -> Self {
        ids.windows(2).fold(Self::new(ids), |plan, pair| plan.link(pair[0], pair[1]))
    }

    /// A wire of its own between two nodes, the first of which dials the second.
    #[must_use]
    pub fn link(self, dialler: &str, listener: &str) -> Self {
        self.link_over(Family::V4, dialler, listener)
    }

    /// The same over addresses of one family.
    #[must_use]
    pub fn link_over(mut self, family: Family, dialler: &str, listener: &str) -> Self {
        self.edge(dialler, listener).family = family;
        self
    }

    /// A link that is a backup: its upstream entry has a cost.
    #[must_use]
    pub fn backup(mut self, dialler: &str, listener: &str, cost: u32) -> Self {
        self.edge(dialler, listener).cost = cost;
        self
    }

    /// A wire of its own between two nodes of which neither has the other as an upstream.
    #[must_use]
    pub fn wire(mut self, a: &str, b: &str) -> Self {
        self.edge(a, b).dialled = false;
        self
    }

    /// An upstream entry for this address (host and port), and no wire: the test makes the way there.
    #[must_use]
    pub fn upstream(mut self, dialler: &str, listener: &str, address: &str) -> Self {
        let edge = self.edge(dialler, listener);
        edge.wired = false;
        edge.at = Some(address.to_owned());
        self
    }

    /// This node listens nowhere.
    #[must_use]
    pub fn hidden(mut self, id: &str) -> Self {
        self.node(id).listens = false;
        self
    }

    /// This node has no proxies, and nobody has any to it: no flows, and no sessions ahead of them.
    #[must_use]
    pub fn relay_only(mut self, id: &str) -> Self {
        self.node(id).proxied = false;
        self
    }

    /// This node's certificate does not let it relay. Not for the founder.
    #[must_use]
    pub fn without_relay(mut self, id: &str) -> Self {
        self.node(id).relay = false;
        self
    }

    /// Sections of this node's configuration besides `quic` and `proxies`.
    #[must_use]
    pub fn with(mut self, id: &str, yaml: &str) -> Self {
        self.node(id).more += yaml;
        self
    }

    /// Lines of this node's `quic` section, indented by two.
    #[must_use]
    pub fn with_quic(mut self, id: &str, yaml: &str) -> Self {
        self.node(id).quic += yaml;
        self
    }

    /// Sections of every node's configuration besides `quic` and `proxies`.
    #[must_use]
    pub fn everywhere(mut self, yaml: &str) -> Self {
        self.everywhere += yaml;
        self
    }

    /// Options of `ffmesh init`.
    #[must_use]
    pub fn init(mut self, options: &[&str]) -> Self {
        self.init.extend(options.iter().map(|option| (*option).to_owned()));
        self
    }

    /// Where `b` is dialled over the wire that was named as from `a` to `b`: host and port.
    ///
    /// # Panics
    /// When there is none.
    pub fn address(&self, a: &str, b: &str) -> String {
        let is = |edge: &&Edge| edge.dialler == a && edge.listener == b;
        self.edges.iter().find(is).unwrap_or_else(|| panic!("no wire from {a} to {b}")).address()
    }

    pub(crate) fn index(&self, id: &str) -> usize {
        self.nodes.iter().position(|node| node.id == id).unwrap_or_else(|| panic!("no node {id} in the plan"))
    }

    /// Whether there is no wire with IPv4.
    pub(crate) fn is_v6_only(&self) -> bool {
        !self.edges.is_empty() && self.edges.iter().all(|edge| edge.family == Family::V6)
    }

    fn node(&mut self, id: &str) -> &mut Planned {
        let index = self.index(id);
        &mut self.nodes[index]
    }

    fn edge(&mut self, dialler: &str, listener: &str) -> &mut Edge {
        for id in [dialler, listener] {
            self.index(id);
        }
        self.edges.push(Edge {
            // Numbers are part of addresses and begin at 1.
            number: self.edges.len() + 1,
            dialler: dialler.to_owned(),
            listener: listener.to_owned(),
            family: Family::V4,
            cost: 0,
            wired: true,
            dialled: true,
            at: None,
        });
        self.edges.last_mut().expect("just pushed")
    }
}

impl Edge {
    /// Addresses of its ends, the dialler's first, with the length of the network's prefix.
    pub(crate) fn interface_addresses(&self) -> [String; 2] {
        let length = if self.family == Family::V4 { 24 } else { 64 };
        [1, 2].map(|end| format!("{}/{length}", self.host(end)))
    }

    /// Where the listener is dialled.
    pub(crate) fn address(&self) -> String {
        match (&self.at, self.family) {
            (Some(address), _) => address.clone(),
            (None, Family::V4) => format!("{}:{PORT}", self.host(2)),
            (None, Family::V6) => format!("[{}]:{PORT}", self.host(2)),
        }
    }

    /// Each wire has a network of its own, so that nobody is reached over another one's wire.
    fn host(&self, end: u8) -> String {
        match self.family {
            Family::V4 => format!("10.72.{}.{end}", self.number),
            Family::V6 => format!("fd72:{}::{end}", self.number),
        }
    }
}
