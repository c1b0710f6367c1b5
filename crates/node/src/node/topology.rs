//! The mesh as a graph, and what its nodes offer, as the admin API shows them.

use std::collections::{BTreeMap, HashMap};

use ffmesh_api as api;
use ffmesh_core::graph::{Graph, NodeIndex};
use ffmesh_core::id::NodeId;
use ffmesh_core::lsdb::record::NodeInfo;
use ffmesh_core::mesh::Table;

use super::Parts;
use super::routes::{ms, shown};
use super::settings::Offered;
use crate::config::{self, Protocol};
use crate::driver::NodeRecord;
use crate::link::Vitals;

/// The mesh as this node knows it.
pub(super) async fn topology(parts: &Parts) -> api::Topology {
    let records = parts.sessions.driver().node_records().await;
    let table = parts.sessions.table();
    let own = links_of(parts);
    let mut nodes = nodes(&table.mesh, &records, |node| table.has_route(node));
    for node in own.keys().filter(|node| !table.mesh.knows(node)) {
        nodes.push(api::TopologyNode { reachable: true, hops: Some(1), ..unknown(node) });
    }
    nodes.sort_by(|a, b| a.node_id.cmp(&b.node_id));
    nodes.insert(0, this_node(parts));
    let id = parts.credentials.node_id();
    api::Topology {
        generation: table.generation,
        nodes,
        links: links(&id, table.mesh.index(), table.mesh.graph(), &own),
        paths: paths(parts),
    }
}

/// What the nodes of the mesh offer by name: this one's first, in the file's order, then by name and node.
pub(super) async fn services(parts: &Parts) -> Vec<api::Service> {
    let records = parts.sessions.driver().node_records().await;
    let table = parts.sessions.table();
    let id = parts.credentials.node_id();
    let mut offered: Vec<_> = records
        .iter()
        .filter_map(NodeRecord::decode)
        .filter(|(node, _)| *node != id)
        .flat_map(|(node, info)| {
            let reachable = table.has_route(&node);
            offered(node, info, reachable)
        })
        .collect();
    offered.sort_by(|a, b| (&a.name, &a.node_id, &a.protocol).cmp(&(&b.name, &b.node_id, &b.protocol)));
    let in_force = parts.in_force.load();
    let mut services: Vec<_> = in_force.services.iter().map(|own| own_service(&id, own)).collect();
    services.append(&mut offered);
    services
}

/// A service of this node.
pub(super) fn own_service(id: &NodeId, offered: &Offered<config::Service>) -> api::Service {
    let Offered { item: service, origin, error } = offered;
    api::Service {
        name: service.name.clone(),
        protocol: service.protocol.to_string(),
        node_id: id.clone(),
        reachable: true,
        address: Some(service.target.to_string()),
        allow: service.allow.as_ref().map(|allow| allow.iter().map(ToString::to_string).collect()),
        origin: Some(*origin),
        error: error.clone(),
    }
}

fn offered(node: NodeId, info: NodeInfo, reachable: bool) -> impl Iterator<Item = api::Service> {
    info.services.into_iter().map(move |service| api::Service {
        name: service.name,
        protocol: match service.protocol {
            0 => Protocol::Tcp.to_string(),
            1 => Protocol::Udp.to_string(),
            other => other.to_string(), // of a later version
        },
        node_id: node.clone(),
        reachable,
        address: None,
        allow: None,
        origin: None,
        error: None,
    })
}

/// The other nodes of the mesh, in no particular order.
fn nodes(
    mesh: &Table,
    records: &[NodeRecord],
    reachable: impl Fn(&NodeId) -> bool,
) -> Vec<api::TopologyNode> {
    let decoded = records.iter().filter_map(|record| Some((record.decode()?, record.draining)));
    let mut known: HashMap<_, _> = decoded.map(|((node, info), draining)| (node, (info, draining))).collect();
    let node = |(number, node): (u32, &NodeId)| {
        let reachable = reachable(node);
        let hops = mesh.hop(number).map(|(_, hops)| hops).filter(|_| reachable);
        let relay = mesh.graph().through(number).is_some();
        let mut told = api::TopologyNode { reachable, hops, relay, ..unknown(node) };
        if let Some((info, draining)) = known.remove(node) {
            told.issuer = info.issuer;
            told.draining = draining;
            told.services = info.services.into_iter().map(|service| service.name).collect();
        }
        told
    };
    (1..).zip(mesh.nodes()).map(node).collect()
}

/// A node that has said nothing about itself.
fn unknown(node: &NodeId) -> api::TopologyNode {
    api::TopologyNode {
        node_id: node.clone(),
        reachable: false,
        hops: None,
        relay: false,
        issuer: false,
        draining: false,
        services: Vec::new(),
    }
}

fn this_node(parts: &Parts) -> api::TopologyNode {
    let (config, in_force) = (parts.config(), parts.in_force.load());
    let services = in_force.services.iter().filter(|service| service.error.is_none());
    let identity = parts.credentials.identity();
    api::TopologyNode {
        node_id: parts.credentials.node_id(),
        reachable: true,
        hops: Some(0),
        relay: identity.relay && config.mesh.transit,
        issuer: identity.issuer,
        draining: parts.flows.is_draining(),
        services: services.map(|service| service.item.name.clone()).collect(),
    }
}

/// A link of this node.
#[derive(Debug, Clone, Copy, Default)]
struct OwnLink {
    /// In µs; none where it leads nowhere yet
    cost: Option<u64>,
    vitals: Vitals,
}

fn links_of(parts: &Parts) -> BTreeMap<NodeId, OwnLink> {
    let table = parts.sessions.table();
    let id = parts.credentials.node_id();
    let own = |(node, link): (&NodeId, &crate::link::Link)| {
        let cost = table.cost(&[id.clone(), node.clone()]);
        (node.clone(), OwnLink { cost, vitals: link.vitals() })
    };
    table.neighbors.iter().map(own).collect()
}

/// Links of this node, then those that both of their ends list, each once.
fn links(
    id: &NodeId,
    index: &NodeIndex,
    graph: &Graph,
    own: &BTreeMap<NodeId, OwnLink>,
) -> Vec<api::TopologyLink> {
    let mut links: Vec<_> = own
        .iter()
        .map(|(node, link)| api::TopologyLink {
            a: id.clone(),
            b: node.clone(),
            own: true,
            cost_ms: link.cost.and_then(ms),
            rtt_ms: link.vitals.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
            loss: link.vitals.loss,
        })
        .collect();
    // Number 0 is this node, whose links are those that are up.
    for from in 1..u32::try_from(graph.len()).unwrap_or(u32::MAX) {
        for edge in graph.links(from).iter().filter(|edge| edge.to > from) {
            let (Some(a), Some(b)) = (index.id(from), index.id(edge.to)) else { continue };
            let (a, b) = if a < b { (a, b) } else { (b, a) };
            links.push(api::TopologyLink {
                a: a.clone(),
                b: b.clone(),
                own: false,
                cost_ms: ms(edge.cost.into()),
                rtt_ms: None,
                loss: None,
            });
        }
    }
    links[own.len()..].sort_unstable_by(|one, other| (&one.a, &one.b).cmp(&(&other.a, &other.b)));
    links
}

/// The routes of the sessions that this node has dialled, by node; of the others, the other node chooses.
fn paths(parts: &Parts) -> Vec<api::TopologyPath> {
    let flows = parts.flows.open_by_peer();
    let reports: BTreeMap<_, _> = parts.sessions.route_reports().into_iter().collect();
    let path = |node: &NodeId, report: ffmesh_core::steer::RouteReport| api::TopologyPath {
        node_id: node.clone(),
        path: report.path.to_vec(),
        state: shown(report.state),
        rtt_ms: report.srtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        loss: report.loss.map(|permille| f64::from(permille) / 1e3),
        flows_open: flows.get(node).copied().unwrap_or_default(),
    };
    reports
        .iter()
        .flat_map(|(node, reports)| reports.iter().map(|report| path(node, report.clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ffmesh_core::graph::{Listed, Node};
    use ffmesh_core::lsdb::MAX_COST;
    use ffmesh_core::lsdb::record::Service;

    use super::*;

    fn id(number: u32) -> NodeId {
        format!("n{number}").parse().unwrap()
    }

    /// Nodes in a ring, each linked to the next `degree / 2` on both sides. The cost of a link is its lower number, and
    /// the direction back costs 100 more.
    fn ring(count: u32, degree: u32) -> Table {
        let mut index = NodeIndex::default();
        for number in 0..count {
            index.intern(&id(number));
        }
        let both = |(from, to): (u32, u32)| {
            let cost = 1_000 + from.min(to);
            [Listed { from, to, cost }, Listed { from: to, to: from, cost: cost + 100 }]
        };
        let pairs =
            (0..count).flat_map(|from| (1..=degree / 2).map(move |step| (from, (from + step) % count)));
        let listed: Vec<_> = pairs.flat_map(both).collect();
        let nodes = vec![Node::default(); count as usize];
        Table::of(index, Graph::new(&nodes, &listed), Vec::new())
    }

    #[test]
    fn each_link_is_told_of_once_with_the_dearer_cost() {
        let mesh = ring(300, 8);
        let vitals = Vitals { rtt: Some(Duration::from_micros(1_500)), loss: Some(0.25) };
        let own: BTreeMap<_, _> = mesh
            .graph()
            .links(0)
            .iter()
            .map(|edge| (id(edge.to), OwnLink { cost: Some(2_000), vitals }))
            .collect();
        let links = links(&id(0), mesh.index(), mesh.graph(), &own);
        assert_eq!(links.len(), 300 * 8 / 2);
        let first = &links[0];
        assert_eq!((&first.a, first.own, first.cost_ms), (&id(0), true, Some(2.0)));
        assert_eq!((first.rtt_ms, first.loss), (Some(1.5), Some(0.25)));
        assert!(links[..8].iter().all(|link| link.own) && links[8..].iter().all(|link| !link.own));
        assert!(links[8..].iter().all(|link| link.a < link.b && link.a != id(0) && link.b != id(0)));
        assert!(
            links
                .windows(2)
                .all(|pair| (&pair[0].own, &pair[1].a, &pair[1].b) > (&pair[1].own, &pair[0].a, &pair[0].b)
                    || pair[0].own != pair[1].own)
        );
        let far = links.iter().find(|link| (&link.a, &link.b) == (&id(150), &id(151))).unwrap();
        assert_eq!(far.cost_ms, Some(1.25));
    }

    #[test]
    fn a_link_that_is_up_is_told_of_before_the_mesh_knows_it_and_one_that_is_down_is_not() {
        let mesh = ring(4, 2);
        let own = BTreeMap::from([(id(7), OwnLink::default())]);
        let links = links(&id(0), mesh.index(), mesh.graph(), &own);
        let ends: Vec<_> = links.iter().map(|link| (link.a.clone(), link.b.clone())).collect();
        assert_eq!(ends, [(id(0), id(7)), (id(1), id(2)), (id(2), id(3))]);
    }

    #[test]
    fn a_link_to_be_used_last_has_no_cost() {
        let mut index = NodeIndex::default();
        for number in 0..3 {
            index.intern(&id(number));
        }
        let listed = [(1, 2), (2, 1)].map(|(from, to)| Listed { from, to, cost: MAX_COST });
        let graph = Graph::new(&[Node::default(); 3], &listed);
        let links = links(&id(0), &index, &graph, &BTreeMap::new());
        assert_eq!((links.len(), links[0].cost_ms), (1, None));
    }

    #[test]
    fn nodes_say_how_far_they_are_and_what_they_offer() {
        let mesh = ring(6, 2);
        let nodes = nodes(&mesh, &[], |node| *node != id(3));
        let hops: Vec<_> = nodes.iter().map(|node| node.hops).collect();
        assert_eq!(hops, [Some(1), Some(2), None, Some(2), Some(1)]);
        assert!(nodes.iter().all(|node| node.relay && !node.issuer));
        let service = |protocol| Service { name: "web".to_owned(), protocol, attachment: String::new() };
        let info = NodeInfo { services: vec![service(0), service(1), service(9)], ..NodeInfo::default() };
        let protocols: Vec<_> = offered(id(1), info, true).map(|service| service.protocol).collect();
        assert_eq!(protocols, ["tcp", "udp", "9"]);
    }

    #[test]
    fn ten_thousand_nodes_are_told_of_in_no_time() {
        let mesh = ring(10_000, 8);
        let begin = Instant::now();
        let nodes = nodes(&mesh, &[], |_| true);
        let links = links(&id(0), mesh.index(), mesh.graph(), &BTreeMap::new());
        // It takes some tens of milliseconds; looking for each link among all of them would take minutes.
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        assert_eq!((nodes.len(), links.len()), (9_999, 40_000 - 8));
    }
}
