//! What a relay costs: one bulk connection over a relay beside one over a direct path, in one run.
//!
//! The bounds here hold on any machine and with a program that is not optimised; the figures are in docs/performance.md.

use ffmesh_lab::{Mesh, Plan, Transfer, report, require_programs};
use serde_json::json;

use crate::iperf::{median, serve, transfer};
use crate::mesh;

/// Each way is measured so many times, by turns.
const ROUNDS: usize = 3;
/// Seconds of each transfer.
const SECONDS: u32 = 4;
/// Least share of the direct path's throughput.
const LEAST_SHARE: f64 = 0.4;
/// Most seconds of CPU that the relay's process may take for each GB carried.
const MOST_CPU: f64 = 1.5;

/// One transfer.
struct Measured {
    mbit: f64,
    /// Seconds of the relay's CPU for each GB
    cpu: f64,
}

#[test]
fn a_relay_costs_little_and_keeps_most_of_the_throughput() {
    if !require_programs(&["iperf3"]) {
        return;
    }
    // From `a`, `b` is one wire away, and `c` two wires with `r` between them.
    let plan = Plan::new(&["r", "a", "b", "c"]).link("a", "b").link("a", "r").link("c", "r");
    let Some(mut mesh) = mesh("relay-cost", &plan) else { return };
    let _servers = ["b", "c"].map(|id| serve(&mesh, id));
    let (mut direct, mut relayed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        direct.push(measured(&mut mesh, "b"));
        relayed.push(measured(&mut mesh, "c"));
    }
    let mbit = |transfers: &[Measured]| median(transfers.iter().map(|transfer| transfer.mbit));
    let share = mbit(&relayed) / mbit(&direct);
    let cpu = median(relayed.iter().map(|transfer| transfer.cpu));
    let all = |transfers: &[Measured]| transfers.iter().map(|transfer| transfer.mbit).collect::<Vec<_>>();
    let figures = json!({
        "direct_mbit": mbit(&direct), "relayed_mbit": mbit(&relayed), "share": share, "relay_cpu_s_per_gb": cpu,
        "each_direct_mbit": all(&direct), "each_relayed_mbit": all(&relayed),
        "each_relay_cpu_s_per_gb": relayed.iter().map(|transfer| transfer.cpu).collect::<Vec<_>>(),
    });
    report("relay-cost", &figures);
    assert!(share >= LEAST_SHARE, "{share:.2} of the direct path's throughput");
    assert!(cpu <= MOST_CPU, "{cpu:.2} s of the relay's CPU for each GB");
}

/// One connection from behind `a` to a node, and what it costs the relay.
fn measured(mesh: &mut Mesh, to: &str) -> Measured {
    let before = mesh.node_mut("r").process().cpu_seconds();
    let Transfer { mbit, bytes } = transfer(mesh, to, SECONDS);
    let cpu = mesh.node_mut("r").process().cpu_seconds() - before;
    Measured { mbit, cpu: cpu / (bytes / 1e9) }
}
