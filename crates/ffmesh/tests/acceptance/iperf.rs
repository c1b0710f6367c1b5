//! iperf3 through the mesh: one bulk connection, as fast as it gets.

use ffmesh_lab::{Mesh, Process};
use serde_json::Value;

/// The first second is the connection finding its rate: it does not count.
const SKIPPED: &str = "1";

/// What one connection carried.
pub(crate) struct Transfer {
    pub(crate) mbit: f64,
    /// All bytes, those of the first second as well
    pub(crate) bytes: f64,
}

/// iperf3 behind a node.
pub(crate) fn serve(mesh: &Mesh, id: &str) -> Process {
    let service = mesh.service("load");
    let (host, port) = service.rsplit_once(':').unwrap();
    let mut command = mesh.net(id).command("iperf3");
    command.args(["--server", "--bind", host, "--port", port]);
    Process::start("iperf3", command, &mesh.lab.dir().join(format!("iperf3-{id}.log")))
}

/// One connection from behind `a` to a node.
pub(crate) fn transfer(mesh: &Mesh, to: &str, seconds: &str) -> Transfer {
    let proxy = mesh.proxy(to, "load");
    let (host, port) = proxy.rsplit_once(':').unwrap();
    let options = ["--client", host, "--port", port, "--time", seconds, "--omit", SKIPPED, "--json"];
    let outcome = mesh.net("a").run("iperf3", &options);
    assert!(outcome.is_success(), "iperf3 to {to}: {}", outcome.said());
    let answer: Value = serde_json::from_str(&outcome.stdout).expect("iperf3 prints JSON");
    let number = |path: &str| answer.pointer(path).and_then(Value::as_f64).expect("a figure of iperf3");
    let omitted =
        answer["intervals"].as_array().into_iter().flatten().filter(|it| it["sum"]["omitted"] == true);
    let omitted: f64 = omitted.filter_map(|interval| interval["sum"]["bytes"].as_f64()).sum();
    Transfer {
        mbit: number("/end/sum_received/bits_per_second") / 1e6,
        bytes: number("/end/sum_received/bytes") + omitted,
    }
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
