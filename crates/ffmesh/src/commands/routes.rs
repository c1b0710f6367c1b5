//! `ffmesh routes`: the ways to other nodes.

use comfy_table::Cell;
use ffmesh_api::{Route, RouteState};
use ffmesh_core::id::NodeId;

use crate::args::Routes;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::format::{milliseconds, share};
use crate::output::Column::{Number, Text};
use crate::output::{self, Tone, cell, state};
use crate::place;

/// All routes, or those to one node. Its JSON is that of the API.
pub(crate) async fn routes(args: &Routes) -> Outcome {
    let node = place::node(&args.show.choice)?;
    let path = args.to.as_ref().map_or("routes".to_owned(), |to| format!("routes?node={to}"));
    let (json, routes) = Client::new(&node).get::<Vec<Route>>(&path).await?;
    let known = if args.to.is_some() && routes.is_empty() { Err(Failure::silent(1)) } else { Ok(()) };
    if args.show.json {
        return output::json(&json).and(known);
    }
    let header = [
        Text("NODE"),
        Text("STATE"),
        Number("HOPS"),
        Number("COST"),
        Number("RTT"),
        Number("LOSS"),
        Text("PATH"),
    ];
    let empty = match &args.to {
        Some(to) => format!("no node {to} is known here; `ffmesh routes` shows those that are"),
        None => "no other node is known; `ffmesh peers` shows the links".to_owned(),
    };
    output::table(&header, routes.iter().map(row).collect(), &empty).and(known)
}

fn row(route: &Route) -> Vec<Cell> {
    let tone = match route.state {
        RouteState::InUse | RouteState::Warm => Tone::Good,
        RouteState::Impaired => Tone::Busy,
        RouteState::Down | RouteState::Unreachable => Tone::Bad,
        RouteState::Known => Tone::Quiet,
    };
    let unknown = || "-".to_owned();
    let path: Vec<_> = route.path.iter().map(NodeId::as_str).collect();
    let (hops, path) =
        if path.is_empty() { (unknown(), unknown()) } else { (route.hops.to_string(), path.join(" > ")) };
    vec![
        cell(route.node_id.as_str()),
        state(state_word(route.state), tone),
        cell(hops),
        cell(route.cost_ms.map_or_else(unknown, milliseconds)),
        cell(route.rtt_ms.map_or_else(unknown, milliseconds)),
        cell(route.loss.map_or_else(unknown, share)),
        cell(path),
    ]
}

/// A route's state in words.
pub(crate) fn state_word(state: RouteState) -> &'static str {
    match state {
        RouteState::InUse => "in use",
        RouteState::Warm => "warm",
        RouteState::Impaired => "impaired",
        RouteState::Down => "down",
        RouteState::Known => "known",
        RouteState::Unreachable => "unreachable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_shown_with_its_nodes_and_figures() {
        let ids = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let used = Route {
            node_id: "b".parse().unwrap(),
            path: ids(&["a", "r1", "b"]),
            hops: 2,
            cost_ms: Some(12.0),
            state: RouteState::InUse,
            rtt_ms: Some(0.42),
            loss: Some(0.004),
        };
        let lost = Route {
            node_id: "c".parse().unwrap(),
            path: vec![],
            hops: 0,
            cost_ms: None,
            state: RouteState::Unreachable,
            rtt_ms: None,
            loss: None,
        };
        let text = output::draw(&[], vec![row(&used), row(&lost)]);
        let words: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0].join(" "), "b in use 2 12.0 ms 0.42 ms 0.4 % a > r1 > b");
        assert_eq!(words[1].join(" "), "c unreachable - - - - -");
    }
}
