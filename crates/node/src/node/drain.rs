//! Draining: that it is asked for, and waiting for the traffic of others to take other routes.

use std::time::Duration;

use ffmesh_api as api;

use super::Parts;
use crate::socket::Labels;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_millis(200);
/// Transit has ended once nothing but probes was passed on for this long. What changes slots in a mesh takes less.
const QUIET: Duration = Duration::from_secs(1);

/// Waits until nothing but probes passes through this node.
pub(super) async fn transit_ended(labels: &Labels) {
    let mut last = labels.payload_packets();
    let mut quiet = if labels.transit().circuits == 0 { QUIET } else { Duration::ZERO };
    while quiet < QUIET {
        tokio::time::sleep(INTERVAL).await;
        let now = labels.payload_packets();
        quiet = if now == last { quiet + INTERVAL } else { Duration::ZERO };
        last = now;
    }
}

impl Parts {
    /// Refuses new flows, and tells whoever runs the node to end it in order. Asking again changes nothing.
    pub(super) fn drain(&self) -> api::Drain {
        self.flows.drain();
        self.drain_asked.send_replace(true);
        let timeout_s = self.config().mesh.drain_timeout.as_secs();
        api::Drain { flows_open: self.flows.totals().0, timeout_s }
    }
}
