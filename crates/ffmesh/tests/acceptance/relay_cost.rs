//! What a relay costs: one bulk connection over a relay beside one over a direct path, in one run.
//!
//! The bounds here hold on any machine and with a program that is not optimised; the figures are in docs/performance.md.

use ffmesh_lab::{Mesh, Plan, Process, report, require_programs};
use serde_json::{Value, json};

use crate::mesh;

/// Each way is measured so many times, by turns.
const ROUNDS: usize = 3;
/// Seconds of each transfer.
const SECONDS: &str = "4";
/// The first second is the connection finding its rate.
const SKIPPED: &str = "1";
/// Least share of the direct path's throughput.
const LEAST_SHARE: f64 = 0.4;
/// Most seconds of CPU that the relay's process may take for each GB carried.
const MOST_CPU: f64 = 1.5;

/// One transfer.
struct Transfer {
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
        direct.push(transfer(&mut mesh, "b"));
        relayed.push(transfer(&mut mesh, "c"));
    }
    let mbit = |transfers: &[Transfer]| median(transfers.iter().map(|transfer| transfer.mbit));
    let share = mbit(&relayed) / mbit(&direct);
    let cpu = median(relayed.iter().map(|transfer| transfer.cpu));
    let all = |transfers: &[Transfer]| transfers.iter().map(|transfer| transfer.mbit).collect::<Vec<_>>();
    let figures = json!({
        "direct_mbit": mbit(&direct), "relayed_mbit": mbit(&relayed), "share": share, "relay_cpu_s_per_gb": cpu,
        "each_direct_mbit": all(&direct), "each_relayed_mbit": all(&relayed),
        "each_relay_cpu_s_per_gb": relayed.iter().map(|transfer| transfer.cpu).collect::<Vec<_>>(),
    });
    report("relay-cost", &figures);
    assert!(share >= LEAST_SHARE, "{share:.2} of the direct path's throughput");
    assert!(cpu <= MOST_CPU, "{cpu:.2} s of the relay's CPU for each GB");
}

/// iperf3 behind a node.
fn serve(mesh: &Mesh, id: &str) -> Process {
    let service = mesh.service("load");
    let (host, port) = service.rsplit_once(':').unwrap();
    let mut command = mesh.net(id).command("iperf3");
    command.args(["--server", "--bind", host, "--port", port]);
    Process::start("iperf3", command, &mesh.lab.dir().join(format!("iperf3-{id}.log")))
}

/// One connection from behind `a` to a node, as fast as it gets.
fn transfer(mesh: &mut Mesh, to: &str) -> Transfer {
    let proxy = mesh.proxy(to, "load");
    let (host, port) = proxy.rsplit_once(':').unwrap();
    let before = mesh.node_mut("r").process().cpu_seconds();
    let options = ["--client", host, "--port", port, "--time", SECONDS, "--omit", SKIPPED, "--json"];
    let outcome = mesh.net("a").run("iperf3", &options);
    let cpu = mesh.node_mut("r").process().cpu_seconds() - before;
    assert!(outcome.is_success(), "iperf3 to {to}: {}", outcome.said());
    let answer: Value = serde_json::from_str(&outcome.stdout).expect("iperf3 prints JSON");
    let number = |path: &str| answer.pointer(path).and_then(Value::as_f64).expect("a figure of iperf3");
    // What was carried in the first second counts for the CPU, too.
    let omitted =
        answer["intervals"].as_array().into_iter().flatten().filter(|it| it["sum"]["omitted"] == true);
    let omitted: f64 = omitted.filter_map(|interval| interval["sum"]["bytes"].as_f64()).sum();
    let bytes = number("/end/sum_received/bytes") + omitted;
    Transfer { mbit: number("/end/sum_received/bits_per_second") / 1e6, cpu: cpu / (bytes / 1e9) }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
