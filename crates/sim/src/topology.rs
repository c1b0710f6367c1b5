//! Random regular graphs: all nodes have the same number of links, and between which is up to the seed.

use std::collections::BTreeSet;

use ffmesh_core::random::Random;

/// A pair of nodes, the lower number first.
pub(crate) type Pair = (usize, usize);

/// A connected graph of `nodes` nodes with `degree` links each (one node has one less where the product is odd).
///
/// The pairing model: ends of links are paired at random, and pairs that make a loop or a second link between
/// two nodes swap ends with others until none do.
pub(crate) fn regular(nodes: usize, degree: usize, random: &mut Random) -> Vec<Pair> {
    let degree = degree.min(nodes.saturating_sub(1));
    loop {
        let pairs = paired(nodes, degree, random);
        if is_connected(nodes, &pairs) || degree < 2 {
            return pairs;
        }
    }
}

/// A number below `end`, as an index.
pub(crate) fn index(random: &mut Random, end: usize) -> usize {
    usize::try_from(random.below(end as u64)).unwrap_or_default()
}

fn paired(nodes: usize, degree: usize, random: &mut Random) -> Vec<Pair> {
    let mut ends: Vec<usize> = (0..nodes * degree).map(|end| end / degree).collect();
    for i in (1..ends.len()).rev() {
        ends.swap(i, index(random, i + 1)); // Fisher and Yates
    }
    let sorted = |a: usize, b: usize| (a.min(b), a.max(b));
    let mut pairs: Vec<Pair> = ends.chunks_exact(2).map(|pair| sorted(pair[0], pair[1])).collect();
    // Small dense graphs may not be repairable by single swaps: what is left after many is left out.
    for _ in 0..100 * pairs.len() {
        let mut seen = BTreeSet::new();
        let Some(bad) = pairs.iter().position(|pair| pair.0 == pair.1 || !seen.insert(*pair)) else { break };
        let other = index(random, pairs.len());
        let (a, b) = (pairs[bad], pairs[other]);
        let swapped = [sorted(a.0, b.0), sorted(a.1, b.1)];
        if swapped.iter().all(|pair| pair.0 != pair.1 && !pairs.contains(pair)) {
            (pairs[bad], pairs[other]) = (swapped[0], swapped[1]);
        }
    }
    let unique: BTreeSet<Pair> = pairs.into_iter().filter(|pair| pair.0 != pair.1).collect();
    unique.into_iter().collect()
}

fn is_connected(nodes: usize, pairs: &[Pair]) -> bool {
    let mut root: Vec<usize> = (0..nodes).collect();
    let find = |root: &mut Vec<usize>, mut node: usize| {
        while root[node] != node {
            root[node] = root[root[node]];
            node = root[node];
        }
        node
    };
    let mut parts = nodes;
    for (a, b) in pairs {
        let (a, b) = (find(&mut root, *a), find(&mut root, *b));
        parts -= usize::from(a != b);
        root[a] = b;
    }
    parts <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_nodes_have_the_same_degree_and_one_seed_gives_one_graph() {
        for (nodes, degree) in [(2, 1), (6, 5), (10, 3), (1000, 4), (500, 8)] {
            let pairs = regular(nodes, degree, &mut Random::new(7));
            let mut degrees = vec![0; nodes];
            for (a, b) in &pairs {
                assert!(a < b);
                degrees[*a] += 1;
                degrees[*b] += 1;
            }
            assert!(degrees.iter().all(|of| *of == degree), "{nodes} {degree}: {degrees:?}");
            assert!(is_connected(nodes, &pairs));
            assert_eq!(pairs, regular(nodes, degree, &mut Random::new(7)));
        }
    }
}
