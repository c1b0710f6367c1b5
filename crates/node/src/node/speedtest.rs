//! Speed tests that the admin API asks for.

use std::time::Duration;

use ffmesh_api as api;
use ffmesh_core::id::NodeId;

use crate::flow::{Arrived, Measured, OpenContext, Speedtests, measure};

/// Measures in a task of its own: a test whose client leaves ends as any flow does.
pub(super) async fn speedtest(
    opening: OpenContext,
    tests: Speedtests,
    node: NodeId,
    duration: Duration,
) -> Result<api::Speedtest, api::Error> {
    let to = node.clone();
    let measured = tokio::spawn(async move { measure(&opening, &tests, &to, duration).await }).await;
    let measured = measured.map_err(|e| api::Error::new(format!("the speed test broke off: {e}")))?;
    let Measured { up, down, rtt_idle, rtt_loaded, route } =
        measured.map_err(|(reason, error)| api::Error::because(reason, error))?;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(api::Speedtest {
        node_id: node,
        up: throughput(up),
        down: throughput(down),
        rtt_idle_ms: rtt_idle.map(ms),
        rtt_loaded_ms: rtt_loaded.map(ms),
        route,
    })
}

fn throughput((bytes, time): Arrived) -> api::Throughput {
    let seconds = time.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "2^53 bytes in 30 s are far away")]
    let mbit = bytes as f64 * 8.0 / 1e6;
    api::Throughput { bytes, seconds, mbit_per_s: if seconds > 0.0 { mbit / seconds } else { 0.0 } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throughput_is_bits_over_time() {
        let measured = throughput((12_500_000, Duration::from_secs(2)));
        assert!((measured.mbit_per_s - 50.0).abs() < 1e-9, "{measured:?}");
        assert!(throughput((1_000, Duration::ZERO)).mbit_per_s.abs() < 1e-9, "no time, no rate");
    }
}
