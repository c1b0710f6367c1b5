//! What was relayed, as metrics.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::table::Labels;
use crate::metrics::{counter, counters, gauge};

impl Collector for Labels {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let transit = self.transit();
        let peers = self.peer_bytes();
        let bytes = peers.iter().flat_map(|(peer, received, sent)| {
            [("in", *received), ("out", *sent)]
                .map(|(direction, bytes)| ([("peer", peer.as_str()), ("direction", direction)], bytes))
        });
        let help = "Bytes of other nodes' circuits, labels included, from (in) and to (out) a neighbour";
        counters(encoder, "ffmesh_transit_bytes", help, bytes)?;
        let dropped = transit.dropped().map(|(reason, count)| ([("reason", reason)], count));
        let help = "Packets of other nodes' circuits that were not passed on";
        counters(encoder, "ffmesh_transit_dropped", help, dropped)?;
        let help = "Packets of other nodes' circuits that were passed on";
        counter(encoder, "ffmesh_transit_packets", help, transit.packets)?;
        let help = "Circuits of other nodes through this one";
        gauge(encoder, "ffmesh_transit_circuits", help, transit.circuits)
    }
}
