//! `ffmesh speedtest`.

use std::io::IsTerminal as _;
use std::time::Duration;

use ffmesh_api::{Speedtest, SpeedtestRequest, Throughput};
use ffmesh_core::id::NodeId;

use crate::args;
use crate::client::Client;
use crate::failure::Outcome;
use crate::format::{bytes, milliseconds};
use crate::{output, place};

/// What the node may take besides the two directions: for a route, echoes, and what ends late.
const MARGIN: Duration = Duration::from_secs(30);

/// Measures, and prints what came out.
pub(crate) async fn speedtest(args: &args::Speedtest) -> Outcome {
    let node = place::node(&args.show.choice)?;
    let seconds = u32::try_from(args.duration.as_secs()).unwrap_or(u32::MAX);
    let request = SpeedtestRequest { node: args.to.clone(), duration_s: Some(seconds) };
    if std::io::stderr().is_terminal() {
        output::remark(&format!("measuring the way to {} and back, {seconds} s each …", args.to));
    }
    let takes = args.duration * 2 + MARGIN;
    let measured: Speedtest = Client::new(&node).post_slow("speedtest", &request, takes).await?;
    if args.show.json { output::json(&measured) } else { output::line(&text(&measured)) }
}

fn text(measured: &Speedtest) -> String {
    let rtt = |rtt: Option<f64>| rtt.map_or_else(|| "-".to_owned(), milliseconds);
    let one_way = |way: &Throughput| {
        format!("{:>8.1} Mbit/s  ({} in {:.1} s)", way.mbit_per_s, bytes(way.bytes), way.seconds)
    };
    let route: Vec<_> = measured.route.iter().map(NodeId::as_str).collect();
    format!(
        "up    {}\ndown  {}\nround trip {} idle, {} loaded\nroute {}",
        one_way(&measured.up),
        one_way(&measured.down),
        rtt(measured.rtt_idle_ms),
        rtt(measured.rtt_loaded_ms),
        route.join(" > ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_both_directions_round_trips_and_the_route() {
        let way = |bytes, mbit_per_s| Throughput { bytes, seconds: 3.0, mbit_per_s };
        let route = ["a", "r", "b"].map(|id| id.parse().unwrap()).to_vec();
        let measured = Speedtest {
            node_id: "b".parse().unwrap(),
            up: way(18_750_000, 50.0),
            down: way(3_750_000, 10.04),
            rtt_idle_ms: Some(1.5),
            rtt_loaded_ms: None,
            route,
        };
        assert_eq!(
            text(&measured),
            "up        50.0 Mbit/s  (17.9 MiB in 3.0 s)\ndown      10.0 Mbit/s  (3.6 MiB in 3.0 s)\n\
             round trip 1.50 ms idle, - loaded\nroute a > r > b"
        );
    }
}
