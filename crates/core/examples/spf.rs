//! Times graph, SPF and routes: `cargo run --release -p ffmesh-core --example spf -- 10000 8`.
#![allow(clippy::print_stdout, reason = "a benchmark says what it measured")]

use std::time::{Duration, Instant};

use ffmesh_core::graph::{Graph, Listed, Node};
use ffmesh_core::routes::routes;
use ffmesh_core::spf::Spf;

const ROUNDS: u32 = 101;

fn main() {
    let mut words = std::env::args().skip(1).filter_map(|word| word.parse::<u32>().ok());
    let (nodes, degree) = (words.next().unwrap_or(10_000), words.next().unwrap_or(8));
    let listed = regular(nodes, degree);
    let all = vec![Node::default(); nodes as usize];
    println!(
        "{nodes} nodes, degree {degree}, {} links; best, median and worst of {ROUNDS}",
        listed.len() / 2
    );
    let mut sum = 0;
    time("graph", |_| sum += Graph::new(&all, &listed).link_count());
    let graph = Graph::new(&all, &listed);
    time("spf", |i| sum += usize::from(Spf::new(&graph, i % nodes).cost(nodes - 1).is_some()));
    time("graph and spf", |i| {
        let graph = Graph::new(&all, &listed);
        sum += usize::from(Spf::new(&graph, i % nodes).cost(nodes - 1).is_some());
    });
    for k in [1, 3] {
        time(&format!("{k} routes"), |i| sum += routes(&graph, 0, 1 + i * 7919 % (nodes - 1), k).len());
    }
    println!("({sum})");
}

fn time(name: &str, mut run: impl FnMut(u32)) {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|i| {
            let start = Instant::now();
            run(i);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!(
        "{name:<16} {:>10.3?} {:>10.3?} {:>10.3?}",
        times[0],
        times[times.len() / 2],
        times[times.len() - 1]
    );
}

/// A ring and random chords, `degree` links a node on average, 1 to 100 ms each.
fn regular(nodes: u32, degree: u32) -> Vec<Listed> {
    let mut state = 7u64;
    let mut random = |below: u32| {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((z ^ (z >> 31)) % u64::from(below)).unwrap_or_default()
    };
    let mut links: Vec<(u32, u32, u32)> = Vec::new();
    for node in 0..nodes {
        links.push((node, (node + 1) % nodes, 1000 + random(99_000)));
    }
    for _ in 0..nodes * degree.saturating_sub(2) / 2 {
        links.push((random(nodes), random(nodes), 1000 + random(99_000)));
    }
    let mut listed: Vec<Listed> = links
        .into_iter()
        .flat_map(|(a, b, cost)| [Listed { from: a, to: b, cost }, Listed { from: b, to: a, cost }])
        .collect();
    listed.sort_unstable_by_key(|l| (l.from, l.to)); // as records come: one node after the other
    listed
}
