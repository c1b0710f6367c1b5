//! What the nodes of the mesh say about themselves.

use ffmesh_core::id::NodeId;
use ffmesh_core::lsdb::record::{Content, NodeInfo, Parts};
use ffmesh_core::lsdb::{Database, MAX_COST};

/// What a node says about itself, as it came.
#[derive(Debug, Clone)]
pub struct NodeRecord {
    record: Box<[u8]>,
    /// Whether it asks the others to use its links last, as it is about to stop
    pub draining: bool,
}

impl NodeRecord {
    /// The node and what it says. Decoding many of them takes a while, and is not for the driver's task.
    pub fn decode(&self) -> Option<(NodeId, NodeInfo)> {
        match Parts::of(&self.record).and_then(|parts| parts.decode()).ok()? {
            (head, Content::Node(info)) => Some((head.origin, info)),
            _ => None,
        }
    }
}

/// Those of all nodes, in no particular order.
pub(super) fn of(database: &Database) -> Vec<NodeRecord> {
    let record = |(name, record): (_, &[u8])| {
        let mut links = database.edges(name).iter().peekable();
        let draining = links.peek().is_some() && links.all(|link| link.cost() >= MAX_COST);
        NodeRecord { record: record.into(), draining }
    };
    database.node_records().map(record).collect()
}
