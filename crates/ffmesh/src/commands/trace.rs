//! `ffmesh trace`: the nodes on the way to a node.

use std::time::Duration;

use comfy_table::Cell;
use ffmesh_api::{Trace, TraceHop, TraceRequest};
use tokio::time::{MissedTickBehavior, interval};

use crate::args;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::format::{milliseconds, share};
use crate::output::Column::{Number, Text};
use crate::output::{self, cell};
use crate::place;

/// From one trace to the next.
const PACE: Duration = Duration::from_secs(1);

/// Prints each trace as it comes back. Fails where none reached the node.
pub(crate) async fn trace(args: &args::Trace) -> Outcome {
    let node = place::node(&args.show.choice)?;
    let client = Client::new(&node);
    let request = TraceRequest { node: args.to.clone() };
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut any = false;
    for number in 1..=args.count {
        pace.tick().await;
        let trace: Trace = client.post("trace", &request).await?;
        any |= reached(&trace);
        if args.show.json {
            output::json(&trace)?;
        } else {
            output::line(&draw(&trace))?;
            if number < args.count {
                output::line("")?;
            }
        }
    }
    if any { Ok(()) } else { Err(Failure::silent(1)) }
}

/// Whether the traced node itself has answered.
fn reached(trace: &Trace) -> bool {
    trace.hops.last().is_some_and(|hop| hop.node_id == trace.node_id && hop.rtt_ms.is_some())
}

fn draw(trace: &Trace) -> String {
    let header =
        [Number("HOP"), Text("NODE"), Number("RTT"), Number("LINK RTT"), Number("LINK LOSS"), Text("NOTE")];
    output::draw(&header, (1..).zip(&trace.hops).map(|(number, hop)| row(number, hop)).collect())
}

fn row(number: u32, hop: &TraceHop) -> Vec<Cell> {
    let unknown = || "-".to_owned();
    vec![
        cell(number.to_string()),
        cell(hop.node_id.as_str()),
        cell(hop.rtt_ms.map_or_else(unknown, milliseconds)),
        cell(hop.link_rtt_ms.map_or_else(unknown, milliseconds)),
        cell(hop.link_loss.map_or_else(unknown, share)),
        cell(hop.error.as_deref().unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(node: &str, rtt_ms: Option<f64>, error: Option<&str>) -> TraceHop {
        TraceHop {
            node_id: node.parse().unwrap(),
            rtt_ms,
            link_rtt_ms: rtt_ms.map(|rtt| rtt / 2.0),
            link_loss: rtt_ms.map(|_| 0.0),
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn hops_are_numbered_and_silent_ones_say_why() {
        let hops = vec![hop("r1", Some(0.84), None), hop("b", None, Some("r1: no link\x1b[2J to b"))];
        let trace = Trace { node_id: "b".parse().unwrap(), hops };
        let text = draw(&trace);
        let words: Vec<_> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(words[1], "1 r1 0.84 ms 0.42 ms 0 %");
        assert_eq!(words[2], "2 b - - - r1: no link\\u{1b}[2J to b");
    }

    #[test]
    fn a_node_is_reached_when_it_has_answered_itself() {
        let trace = |hops| reached(&Trace { node_id: "b".parse().unwrap(), hops });
        assert!(trace(vec![hop("r1", None, Some("no answer")), hop("b", Some(1.0), None)]));
        assert!(!trace(vec![hop("r1", Some(1.0), None), hop("b", None, Some("no answer"))]));
        assert!(!trace(vec![hop("r1", Some(1.0), None)]));
        assert!(!trace(vec![]));
    }
}
