//! What the tests of several commands show.

use ffmesh_api::{Peer, PeerState};
use jiff::Timestamp;

/// A neighbour whose name would clear the terminal.
pub(super) fn peer(id: &str, state: PeerState, rtt_ms: Option<f64>) -> Peer {
    Peer {
        node_id: id.parse().unwrap(),
        name: Some("evil\x1b[2J".into()),
        state,
        address: Some("192.0.2.1:3334".into()),
        dialled: true,
        since: Timestamp::UNIX_EPOCH,
        rtt_ms,
        loss: Some(0.0),
        groups: vec!["dev".into()],
        relay: false,
        clock_offset_ms: None,
        last_error: Some("timed out".into()),
    }
}
