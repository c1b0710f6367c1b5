//! The ways to other nodes, as the admin API shows them.

use std::time::Duration;

use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use ffmesh_core::lsdb::MAX_COST;
use ffmesh_core::steer::{RouteReport, RouteState};

use crate::driver::RoutingTable;
use crate::session::Sessions;

/// All routes to all nodes that this one knows, by node, the best first.
pub(super) fn routes(sessions: &Sessions) -> Vec<api::Route> {
    let table = sessions.table();
    let mut reports = sessions.route_reports();
    let mut nodes: Vec<_> = table.mesh.nodes().chain(table.neighbors.keys()).cloned().collect();
    nodes.sort();
    nodes.dedup();
    let mut routes = Vec::new();
    for node in nodes {
        let used = reports.remove(&node).unwrap_or_default();
        routes.extend(of_node(&table, &node, used));
    }
    routes
}

fn of_node(table: &RoutingTable, node: &NodeId, mut used: Vec<RouteReport>) -> Vec<api::Route> {
    used.sort_by_key(|report| (rank(report.state), report.cost));
    let mut routes: Vec<_> = used
        .iter()
        .map(|report| api::Route {
            cost_ms: ms(report.cost),
            rtt_ms: report.srtt.map(|rtt| rtt.as_secs_f64() * 1e3),
            loss: report.loss.map(|permille| f64::from(permille) / 1e3),
            ..route(node, &report.path, shown(report.state))
        })
        .collect();
    for offer in table.offers(node) {
        if !used.iter().any(|report| report.path == offer.route) {
            let known = route(node, &offer.route, api::RouteState::Known);
            routes.push(api::Route { cost_ms: ms(offer.cost), ..known });
        }
    }
    if routes.is_empty() {
        routes.push(route(node, &[], api::RouteState::Unreachable));
    }
    routes
}

fn route(node: &NodeId, path: &[NodeId], state: api::RouteState) -> api::Route {
    let hops = u32::try_from(path.len().saturating_sub(1)).unwrap_or(u32::MAX);
    let path = path.to_vec();
    api::Route { node_id: node.clone(), path, hops, cost_ms: None, state, rtt_ms: None, loss: None }
}

pub(super) fn shown(state: RouteState) -> api::RouteState {
    match state {
        RouteState::InUse => api::RouteState::InUse,
        RouteState::Warm => api::RouteState::Warm,
        RouteState::Impaired => api::RouteState::Impaired,
        RouteState::Down => api::RouteState::Down,
    }
}

/// The best first.
fn rank(state: RouteState) -> u8 {
    match state {
        RouteState::InUse => 0,
        RouteState::Warm => 1,
        RouteState::Impaired => 2,
        RouteState::Down => 3,
    }
}

/// A cost in ms; none over a link that is to be used last, as a node at one of its ends is about to stop.
pub(super) fn ms(us: u64) -> Option<f64> {
    (us < MAX_COST.into()).then(|| Duration::from_micros(us).as_secs_f64() * 1e3)
}
