//! Messages that ask the nodes of a route, one by one, whether they are there.

use serde::{Deserialize, Serialize};

use super::message::{MAX_ROUTE_LEN, cut};
use crate::id::NodeId;

/// TRACE: asks one node of a route to answer. Goes along the route, hop by hop over the links' control streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// 64 random bits, chosen by `origin` for each TRACE; the answer has the same
    pub trace: u64,
    /// The node that wants to know: first of the route
    pub origin: NodeId,
    /// The whole route, first and last node included; 2 to [`MAX_ROUTE_LEN`] nodes, each once
    pub route: Vec<NodeId>,
    /// Position in `route` of the node that is to answer, from 1
    pub to: u8,
}

/// TRACE_ACK: its answer. Goes back along the route, hop by hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceAck {
    /// That of the TRACE
    pub trace: u64,
    /// That of the TRACE
    pub origin: NodeId,
    /// That of the TRACE
    pub route: Vec<NodeId>,
    /// Position in `route` of the node that answers, from 1: the one that was asked, or one before it that could not
    /// pass the TRACE on
    pub at: u8,
    /// Round trip time of the link between the node that answers and the one before it, in microseconds, as measured by
    /// the former
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_rtt_us: Option<u32>,
    /// Lost share of the last probes of that link, in thousandths
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_loss_permille: Option<u16>,
    /// Why the TRACE went no further
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Trace {
    /// Whether its route and position are within their bounds.
    pub(super) fn check(&self) -> Result<(), String> {
        check("TRACE", &self.origin, &self.route, self.to)
    }
}

impl TraceAck {
    /// Whether its route and position are within their bounds. Cuts what is too long or too large.
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.error = self.error.take().map(cut);
        self.link_loss_permille = self.link_loss_permille.map(|loss| loss.min(1000));
        check("TRACE_ACK", &self.origin, &self.route, self.at)
    }
}

fn check(what: &str, origin: &NodeId, route: &[NodeId], position: u8) -> Result<(), String> {
    if !(2..=MAX_ROUTE_LEN).contains(&route.len()) {
        return Err(format!("{what} with a route of {} nodes", route.len()));
    }
    if route.iter().enumerate().any(|(i, node)| route[..i].contains(node)) {
        return Err(format!("{what} with a route that passes a node twice"));
    }
    if route[0] != *origin {
        return Err(format!("{what} whose origin is not the first of its route"));
    }
    if !(1..route.len()).contains(&usize::from(position)) {
        return Err(format!("{what} for position {position} of a route of {} nodes", route.len()));
    }
    Ok(())
}
