//! Shortest paths.

use std::hint::black_box;

use ffmesh_core::graph::{Graph, Listed, Node};
use ffmesh_core::spf::Spf;

use super::Job;

/// Links of a node, on average.
const DEGREE: u32 = 8;

/// All paths from one node of a ring with chords.
pub(super) fn shortest_paths(nodes: u32) -> Job {
    let mut listed: Vec<Listed> = Vec::new();
    for n in 0..nodes * DEGREE / 2 {
        let from = n % nodes;
        // The first round is the ring; later ones are chords of many lengths.
        let step = if n < nodes { 1 } else { 1 + n.wrapping_mul(2_654_435_761) % (nodes - 1) };
        let (to, cost) = ((from + step) % nodes, 1000 + n.wrapping_mul(40_503) % 99_000);
        listed.extend([Listed { from, to, cost }, Listed { from: to, to: from, cost }]);
    }
    listed.sort_unstable_by_key(|link| (link.from, link.to)); // as records come: one node after the other
    let graph = Graph::new(&vec![Node::default(); nodes as usize], &listed);
    let mut source = 0;
    Box::new(move || {
        source = (source + 1) % nodes;
        black_box(Spf::new(black_box(&graph), source));
    })
}
