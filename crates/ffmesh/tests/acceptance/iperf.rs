//! iperf3 through the mesh: one bulk connection, as fast as it gets.

use ffmesh_lab::{Mesh, Process, Transfer};

/// The first second is the connection finding its rate: it does not count.
const SKIPPED: [&str; 2] = ["--omit", "1"];

/// iperf3 behind a node.
pub(crate) fn serve(mesh: &Mesh, id: &str) -> Process {
    let log = mesh.lab.dir().join(format!("iperf3-{id}.log"));
    Transfer::serve(mesh.net(id), &mesh.service("load"), &log, &[])
}

/// One connection from behind `a` to a node.
pub(crate) fn transfer(mesh: &Mesh, to: &str, seconds: u32) -> Transfer {
    Transfer::run(mesh.net("a"), &mesh.proxy(to, "load"), seconds, &SKIPPED).unwrap()
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
