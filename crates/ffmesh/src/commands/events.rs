//! `ffmesh events`: changes of state as they happen.

use ffmesh_api::{Change, Event, PeerState};
use ffmesh_core::id::NodeId;
use ffmesh_core::text::{escape, foreign};
use serde_json::Value;

use crate::args::Events;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::{output, place};

/// Prints one line for each event until the node ends. The JSON of a line is that of the API.
pub(crate) async fn events(args: &Events) -> Outcome {
    let node = place::node(&args.show.choice)?;
    let kinds = args.kinds.clone().unwrap_or_else(usual);
    let mut stream = Client::new(&node).stream(&format!("events?kinds={kinds}")).await?;
    while let Some(line) = stream.line().await? {
        // Besides data there are numbers and words that the data has as well, and comments.
        let Some(data) = line.strip_prefix("data:") else { continue };
        if args.show.json {
            output::json(&serde_json::from_str::<Value>(data).map_err(Failure::failed)?)?;
        } else {
            // A kind of a later version is shown as it came.
            let shown = serde_json::from_str::<Event>(data).map(|event| text(&event));
            output::line(&shown.unwrap_or_else(|_| escape(data)))?;
        }
    }
    Err(Failure::failed("the node has ended its events; it may have stopped: see its log"))
}

/// Those that are shown without being asked for: samples and lines of the log would drown the others.
fn usual() -> String {
    let usual = Change::KINDS.into_iter().filter(|kind| !matches!(*kind, "sample" | "log"));
    usual.collect::<Vec<_>>().join(",")
}

/// `2026-01-01T00:00:00Z peer b is down: no answer`
fn text(event: &Event) -> String {
    format!("{:.3} {}", event.at, says(&event.change))
}

fn says(change: &Change) -> String {
    match change {
        Change::Peer { node_id, state, reason } => {
            let state = match state {
                PeerState::Up => "is up",
                PeerState::Dialling => "is dialled",
                PeerState::Down => "is down",
            };
            format!("peer {node_id} {state}{}", because(reason.as_deref()))
        }
        Change::Node { node_id, reachable: true } => format!("node {node_id} can be reached"),
        Change::Node { node_id, reachable: false } => format!("node {node_id} cannot be reached"),
        Change::Topology { generation } => format!("topology {generation}"),
        Change::Failover { node_id, from, to } if to.is_empty() => {
            format!("failover to {node_id}: {} died, and no route is left", route(from))
        }
        Change::Failover { node_id, from, to } => {
            format!("failover to {node_id}: {} died, now {}", route(from), route(to))
        }
        Change::Session { node_id, open: true } => format!("session with {node_id} open"),
        Change::Session { node_id, open: false } => format!("session with {node_id} closed"),
        Change::Proxy { name } => format!("proxy {} changed", escape(name)),
        Change::Service { name } => format!("service {} changed", escape(name)),
        Change::Reload { result, error } => {
            let changed =
                result.as_ref().map(|reload| escape(&reload.changed.join(", "))).unwrap_or_default();
            match error {
                Some(error) => format!("reload refused{}", because(Some(error))),
                None if changed.is_empty() => "reload: nothing changed".to_owned(),
                None => format!("reload: {changed}"),
            }
        }
        Change::Drain { flows_open } => format!("draining, {flows_open} flows are open"),
        Change::Certificate { expires } => format!("certificate renewed, ends {expires}"),
        Change::Sample(sample) => format!(
            "sample: {:.0} B/s sent, {:.0} B/s received, {:.0} flows",
            sample.sent, sample.received, sample.flows_open
        ),
        Change::Log(line) => {
            let fields =
                line.fields.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value)));
            let said = [escape(&line.level), escape(&line.message)].into_iter().chain(fields);
            format!("log {}", said.collect::<Vec<_>>().join(" "))
        }
        Change::Lagged { missed } => format!("{missed} events were left out: this reads too slowly"),
    }
}

fn because(reason: Option<&str>) -> String {
    reason.map(|reason| format!(": {}", foreign(reason))).unwrap_or_default()
}

fn route(path: &[NodeId]) -> String {
    path.iter().map(NodeId::as_str).collect::<Vec<_>>().join(" > ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<NodeId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn an_event_is_a_line_that_does_nothing_to_the_terminal() {
        let node_id: NodeId = "b".parse().unwrap();
        let reason = Some("gone\x1b[2J\nforged".to_owned());
        let down = Change::Peer { node_id: node_id.clone(), state: PeerState::Down, reason };
        let event = Event { id: 7, at: "2026-01-01T00:00:00Z".parse().unwrap(), change: down };
        assert_eq!(text(&event), "2026-01-01T00:00:00.000Z peer b is down: gone\\u{1b}[2J\\u{a}forged");
        let (from, to) = (ids(&["a", "r1", "b"]), ids(&["a", "r2", "b"]));
        let failover = |to| Change::Failover { node_id: node_id.clone(), from: from.clone(), to };
        assert_eq!(says(&failover(to)), "failover to b: a > r1 > b died, now a > r2 > b");
        assert_eq!(says(&failover(vec![])), "failover to b: a > r1 > b died, and no route is left");
    }
}
