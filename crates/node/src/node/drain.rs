//! Waiting for the traffic of others to take other routes.

use std::time::Duration;

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
