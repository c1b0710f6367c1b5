//! What the tables must say, worked out from what really is up.

use std::collections::BTreeSet;

use ffmesh_core::graph::{Graph, Listed, Node, NodeIndex};
use ffmesh_core::id::NodeId;
use ffmesh_core::spf::Spf;

use crate::world::World;

/// Whether each running node's table has each reachable node at the least cost, and no other node.
///
/// Costs are those that the two ends say in their own records; whether a link is up is looked up in the world.
pub(crate) fn check(world: &World) -> Result<(), String> {
    let mut index = NodeIndex::default();
    let running: Vec<_> =
        world.hosts.iter().filter_map(|host| Some((&host.id, host.mesh.as_ref()?))).collect();
    for (id, _) in &running {
        index.intern(id);
    }
    let mut up = BTreeSet::new();
    for wire in 0..world.wire_count() {
        let ((a, b), is_up) = world.wire(wire);
        if is_up {
            let ends = (&world.hosts[a].id, &world.hosts[b].id);
            up.extend([ends, (ends.1, ends.0)]);
        }
    }
    let mut listed = Vec::new();
    for (id, mesh) in &running {
        for link in mesh.database().links(id).unwrap_or_default() {
            if up.contains(&(*id, &link.neighbor))
                && let (Some(from), Some(to)) = (index.get(id), index.get(&link.neighbor))
            {
                listed.push(Listed { from, to, cost: link.cost });
            }
        }
    }
    if listed.len() != up.len() {
        return Err(format!("{} link ends are listed and {} are up", listed.len(), up.len()));
    }
    let graph = Graph::new(&vec![Node::default(); running.len()], &listed);
    for (id, mesh) in &running {
        let number = |id: &NodeId| index.get(id).ok_or("no number");
        let spf = Spf::new(&graph, number(id)?);
        let table = mesh.table();
        let mut reached = 0;
        for (other, _) in running.iter().filter(|(other, _)| other != id) {
            let expected = spf.cost(number(other)?);
            let found = table.reach(other).map(|reach| reach.cost);
            if found != expected {
                return Err(format!("{id} has {other} at {found:?} us, not {expected:?}"));
            }
            reached += usize::from(found.is_some());
        }
        let all = table.reachable().len();
        if all != reached {
            return Err(format!("{id} has routes to {all} nodes, and {reached} of them run"));
        }
    }
    Ok(())
}
