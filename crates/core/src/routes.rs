//! Routes to a target that share no relay, so that no single relay can cut them all.
//!
//! # Which ones
//! As many as there can be, up to `k`, and the shortest first. Where the shortest path is part of a largest set, it is
//! taken, and the others are the cheapest that leave its relays alone. Where the shortest path stands in the way of
//! a further route (it crosses the mesh where two others would have to pass), the number of routes counts more: it is
//! what lets flows outlive a relay. Then the set of least total cost is taken.
//!
//! # How
//! A set of `k` disjoint routes of least total cost is a flow of `k` units of least cost, in a graph where each node is an
//! entry and an exit with an arc of capacity 1 between them. Each further unit is one search for a shortest path that may
//! run backwards over what it takes back from the units before it: Suurballe ("Disjoint paths in a network", 1974) and
//! Bhandari ("Survivable networks", 1999). Exact, and one search a route: no reason to settle for less.
//! The distances of all nodes to the target serve as potentials (so no arc costs less than nothing and Dijkstra's search
//! can be used) and as a goal (A*): each search visits only nodes on routes about as cheap as those it finds. In a mesh of
//! 10,000 nodes nearly all the time goes into that one search from the target. Call it for targets in use only.
//!
//! # Length
//! A circuit has [`MAX_ROUTE_LEN`] nodes at most. Longer routes are rare, as each relay costs 10 ms; where one would come
//! out, routes are searched one by one among those of at most so many links (Bellman and Ford's rounds), each without
//! the relays of those before it. The first one is then still the shortest that a circuit can follow; the number of
//! disjoint ones may be less than possible (to find that number is NP-hard once length is bounded).

use crate::graph::{Graph, at};
use crate::queue::RadixHeap;
use crate::spf::{NONE, Reached, search};
use crate::wire::MAX_ROUTE_LEN;

/// Routes that are kept for a target in use: one for each slot of a session.
pub const MAX_ROUTES: usize = 3;

/// A way from one node to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// All its nodes, source and target included: 2 to [`MAX_ROUTE_LEN`], each once
    pub nodes: Vec<u32>,
    /// In microseconds: its links and what passing through its relays costs
    pub cost: u64,
}

/// Up to `k` routes from `source` to `target` of which no two share a relay, cheapest first. A direct link is a route
/// of its own. Empty where there is none, and for `source` itself.
pub fn routes(graph: &Graph, source: u32, target: u32, k: usize) -> Vec<Route> {
    limited_routes(graph, source, target, k, MAX_ROUTE_LEN)
}

/// Up to `k` routes between the ends of a route that share no relay with it or with each other, cheapest first: what
/// to keep beside a route that stays in use though it is no longer one of [`routes`]. Empty for what is no route.
pub fn beside(graph: &Graph, nodes: &[u32], k: usize) -> Vec<Route> {
    let (Some(source), Some(target)) = (nodes.first().copied(), nodes.last().copied()) else {
        return Vec::new();
    };
    if cost(graph, nodes).is_none() {
        return Vec::new();
    }
    let distances = search(graph, target, source);
    let mut flow = Flow::new(graph, source, target, &distances, nodes);
    while flow.units() < k && flow.augment() {}
    let mut routes = flow.routes();
    routes.retain(|route| route.nodes.len() <= MAX_ROUTE_LEN);
    routes
}

/// What a route costs now, in microseconds. `None` where it does not lead from its first node to its last: a link is gone,
/// a node between carries no transit (any more), or it has fewer than 2 or more than [`MAX_ROUTE_LEN`] nodes.
pub fn cost(graph: &Graph, nodes: &[u32]) -> Option<u64> {
    if nodes.len() < 2 || nodes.len() > MAX_ROUTE_LEN {
        return None;
    }
    let links = nodes.windows(2).map(|ends| graph.link(ends[0], ends[1]));
    let relays = nodes[1..nodes.len() - 1].iter().map(|relay| graph.through(*relay));
    links.chain(relays).map(|cost| cost.map(u64::from)).sum()
}

/// [`routes`] of at most `limit` nodes each.
fn limited_routes(graph: &Graph, source: u32, target: u32, k: usize, limit: usize) -> Vec<Route> {
    if source == target || at(source) >= graph.len() || k == 0 {
        return Vec::new();
    }
    let distances = search(graph, target, source);
    if distances[at(source)].cost == u64::MAX {
        return Vec::new();
    }
    let mut most = Flow::new(graph, source, target, &distances, &[]);
    let Some(shortest) = most.augment().then(|| most.routes().remove(0)) else { return Vec::new() };
    while most.units() < k && most.augment() {}
    let mut sets = vec![most.routes()];
    if !sets[0].contains(&shortest) {
        let mut rest = Flow::new(graph, source, target, &distances, &shortest.nodes);
        while rest.units() + 1 < k && rest.augment() {}
        let mut set = rest.routes();
        set.insert(0, shortest);
        sets.push(set);
    }
    if sets.iter().flatten().any(|route| route.nodes.len() > limit) {
        for set in &mut sets {
            set.retain(|route| route.nodes.len() <= limit);
        }
        let mut short = Vec::new();
        while short.len() < k
            && let Some(route) = short_route(graph, source, target, limit, &short)
        {
            short.push(route);
        }
        sets.push(short);
    }
    // Most routes; then the cheapest first one; then the least total.
    let rank = |set: &Vec<Route>| {
        let total: u64 = set.iter().map(|route| route.cost).sum();
        (usize::MAX - set.len(), set.first().map(|route| route.cost), total)
    };
    sets.into_iter().min_by_key(rank).unwrap_or_default()
}

fn route(graph: &Graph, nodes: Vec<u32>) -> Route {
    let links = nodes.windows(2).filter_map(|ends| graph.link(ends[0], ends[1])).map(u64::from);
    let relays = nodes[1..nodes.len() - 1].iter().filter_map(|node| graph.through(*node)).map(u64::from);
    Route { cost: links.sum::<u64>() + relays.sum::<u64>(), nodes }
}

/// The two halves of a node in the flow's graph.
const fn entry(node: u32) -> usize {
    node as usize * 2
}

const fn exit(node: u32) -> usize {
    node as usize * 2 + 1
}

/// A flow of least cost from source to target, one unit for each route.
struct Flow<'g> {
    graph: &'g Graph,
    source: u32,
    target: u32,
    /// Nodes that no route may pass, and neither the direct link where they are just source and target.
    without: &'g [u32],
    /// For each node on a route the one before it, else [`NONE`].
    before: Vec<u32>,
    /// For each relay on a route the one behind it, else [`NONE`].
    behind: Vec<u32>,
    /// The first nodes behind the source, one for each unit.
    first: Vec<u32>,
    /// For each half of a node a bound on the cost from there to the target, such that no arc of the flow's graph
    /// costs less than the bound falls along it.
    potential: Vec<i64>,
    scratch: Scratch,
}

/// What a search leaves to the next one.
struct Scratch {
    /// For each half of a node: cheapest cost so far beyond what the potential fell, [`u64::MAX`] where untouched
    cost: Vec<u64>,
    /// The half from which it was reached.
    from: Vec<u32>,
    touched: Vec<usize>,
}

impl<'g> Flow<'g> {
    /// No routes yet. `distances` are those to the target.
    fn new(graph: &'g Graph, source: u32, target: u32, distances: &[Reached], without: &'g [u32]) -> Self {
        let whole = distances[at(source)].cost;
        // All nodes at least as far off as the source are taken for equally far: their distances are not known.
        let bound = |cost: u64| i64::try_from(cost.min(whole)).unwrap_or(i64::MAX);
        let mut potential = Vec::with_capacity(distances.len() * 2);
        for (node, reached) in (0u32..).zip(distances) {
            let inside = match graph.through(node) {
                _ if node == target => 0,
                Some(through) => reached.cost.saturating_add(u64::from(through)),
                None => u64::MAX,
            };
            potential.extend([bound(inside), bound(reached.cost)]);
        }
        let halves = potential.len();
        Self {
            graph,
            source,
            target,
            without,
            before: vec![NONE; distances.len()],
            behind: vec![NONE; distances.len()],
            first: Vec::new(),
            potential,
            scratch: Scratch { cost: vec![u64::MAX; halves], from: vec![NONE; halves], touched: Vec::new() },
        }
    }

    fn units(&self) -> usize {
        self.first.len()
    }

    /// Adds a unit at the least cost, re-routing the others where that is cheapest. Says whether there was a way.
    fn augment(&mut self) -> bool {
        let goal = entry(self.target);
        let mut queue = RadixHeap::default();
        self.reach(&mut queue, exit(self.source), 0, exit(self.source), 0);
        let mut found = false;
        while let Some((cost, half)) = queue.pop() {
            let half = at(half);
            if cost != self.scratch.cost[half] {
                continue;
            }
            if half == goal {
                found = true;
                break;
            }
            self.expand(&mut queue, half, cost);
        }
        if found {
            self.apply();
            let whole = self.scratch.cost[goal];
            for half in &self.scratch.touched {
                let cost = self.scratch.cost[*half];
                if cost < whole {
                    self.potential[*half] += i64::try_from(whole - cost).unwrap_or_default();
                }
            }
        }
        for half in self.scratch.touched.drain(..) {
            self.scratch.cost[half] = u64::MAX;
        }
        found
    }

    /// Follows all arcs out of `half`, which was reached at `cost`.
    fn expand(&mut self, queue: &mut RadixHeap, half: usize, cost: u64) {
        let graph = self.graph;
        let node = u32::try_from(half / 2).unwrap_or(NONE);
        let through = graph.through(node).map(i64::from);
        let used = self.before[at(node)] != NONE;
        if half == exit(node) {
            for edge in graph.links(node) {
                let taken = self.behind[at(node)] == edge.to
                    || node == self.source && self.first.contains(&edge.to)
                    || self.is_without(node, edge.to);
                if !taken && edge.to != self.source {
                    self.reach(queue, half, cost, entry(edge.to), i64::from(edge.cost));
                }
            }
            if let Some(through) = through.filter(|_| used) {
                self.reach(queue, half, cost, entry(node), -through); // takes the unit out of this node
            }
        } else if used {
            // The unit that comes in over this link is taken back; the new one goes on in its place.
            let before = self.before[at(node)];
            let link = graph.link(before, node).filter(|_| before != self.source);
            if let Some(link) = link {
                self.reach(queue, half, cost, exit(before), -i64::from(link));
            }
        } else if let Some(through) = through {
            self.reach(queue, half, cost, exit(node), through);
        }
    }

    fn is_without(&self, from: u32, to: u32) -> bool {
        match self.without {
            [_, _] => from == self.source && to == self.target,
            [_, relays @ .., _] => relays.contains(&to),
            _ => false,
        }
    }

    fn reach(&mut self, queue: &mut RadixHeap, from: usize, cost: u64, to: usize, arc: i64) {
        let beyond = arc + self.potential[to] - self.potential[from];
        debug_assert!(beyond >= 0, "the potential falls faster than the arc costs");
        let cost = cost + u64::try_from(beyond).unwrap_or_default();
        let known = &mut self.scratch.cost[to];
        if cost < *known {
            if *known == u64::MAX {
                self.scratch.touched.push(to);
            }
            *known = cost;
            self.scratch.from[to] = u32::try_from(from).unwrap_or(NONE);
            queue.push(cost, u32::try_from(to).unwrap_or(NONE));
        }
    }

    /// Adds the path that was found to the flow: first what it takes back, then what it adds.
    fn apply(&mut self) {
        let half_node = |half: usize| u32::try_from(half / 2).unwrap_or(NONE);
        let mut arcs = Vec::new();
        let mut to = entry(self.target);
        while to != exit(self.source) {
            let from = at(self.scratch.from[to]);
            arcs.push((from, to));
            to = from;
        }
        let is_link = |(from, to): &(usize, usize)| from / 2 != to / 2;
        for (from, to) in arcs.iter().filter(|arc| is_link(arc)).filter(|(from, _)| from % 2 == 0) {
            self.behind[to / 2] = NONE;
            self.before[from / 2] = NONE;
        }
        for (from, to) in arcs.iter().filter(|arc| is_link(arc)).filter(|(from, _)| from % 2 == 1) {
            let (from, to) = (half_node(*from), half_node(*to));
            if from == self.source {
                self.first.push(to);
            } else {
                self.behind[at(from)] = to;
            }
            if to != self.target {
                self.before[at(to)] = from;
            }
        }
    }

    /// The routes of the flow, cheapest first.
    fn routes(&self) -> Vec<Route> {
        let mut routes: Vec<Route> = self
            .first
            .iter()
            .map(|first| {
                let mut nodes = vec![self.source, *first];
                let mut last = *first;
                while last != self.target && nodes.len() <= self.graph.len() {
                    last = self.behind[at(last)];
                    nodes.push(last);
                }
                route(self.graph, nodes)
            })
            .collect();
        routes.sort_by(|a, b| (a.cost, a.nodes.len(), &a.nodes).cmp(&(b.cost, b.nodes.len(), &b.nodes)));
        routes
    }
}

/// The cheapest route of at most `limit` nodes that shares no relay with those in `without`, nor the direct link.
fn short_route(graph: &Graph, source: u32, target: u32, limit: usize, without: &[Route]) -> Option<Route> {
    let mut barred = vec![false; graph.len()];
    let mut direct = false;
    for route in without {
        direct |= route.nodes.len() == 2;
        for relay in &route.nodes[1..route.nodes.len() - 1] {
            barred[at(*relay)] = true;
        }
    }
    // Round h: the cheapest way to each node over exactly so many links as improved on all shorter ones.
    let mut cheapest = vec![u64::MAX; graph.len()];
    *cheapest.get_mut(at(source))? = 0;
    let mut rounds = vec![vec![(source, 0u64, NONE)]];
    let mut best = None;
    while rounds.len() < limit {
        let mut next: Vec<(u32, u64, u32)> = Vec::new();
        for (node, cost, _) in rounds.last().into_iter().flatten().filter(|(node, ..)| *node != target) {
            let onward = match graph.through(*node) {
                _ if *node == source => 0,
                Some(through) => cost + u64::from(through),
                None => continue,
            };
            for edge in graph.links(*node) {
                let barred = barred[at(edge.to)] || direct && *node == source && edge.to == target;
                if !barred && onward + u64::from(edge.cost) < cheapest[at(edge.to)] {
                    next.push((edge.to, onward + u64::from(edge.cost), *node));
                }
            }
        }
        next.sort_unstable();
        next.dedup_by_key(|(node, ..)| *node);
        for (node, cost, _) in &next {
            cheapest[at(*node)] = *cost;
        }
        if next.is_empty() {
            break;
        }
        if next.binary_search_by_key(&target, |(node, ..)| *node).is_ok() {
            best = Some(rounds.len());
        }
        rounds.push(next);
    }
    let mut nodes = vec![target];
    for round in rounds[1..=best?].iter().rev() {
        let node = *nodes.last()?;
        let found = round.binary_search_by_key(&node, |(node, ..)| *node).ok()?;
        nodes.push(round[found].2);
    }
    nodes.reverse();
    Some(route(graph, nodes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::graph::Node;
    use crate::spf::Spf;
    use crate::spf::tests::{all_paths, any_graph, graph};

    fn nodes(routes: &[Route]) -> Vec<Vec<u32>> {
        routes.iter().map(|route| route.nodes.clone()).collect()
    }

    fn disjoint(a: &[u32], b: &[u32]) -> bool {
        let relays = |path: &[u32]| path[1..path.len() - 1].to_vec();
        a != b && relays(a).iter().all(|node| !relays(b).contains(node))
    }

    /// All sets of up to `k` paths of which no two share a relay, as (count, costs).
    fn sets(paths: &[(u64, Vec<u32>)], k: usize) -> Vec<Vec<u64>> {
        fn extend<'a>(
            paths: &'a [(u64, Vec<u32>)],
            k: usize,
            set: &mut Vec<&'a (u64, Vec<u32>)>,
            all: &mut Vec<Vec<u64>>,
        ) {
            let mut costs: Vec<u64> = set.iter().map(|(cost, _)| *cost).collect();
            costs.sort_unstable();
            all.push(costs);
            for (i, path) in paths.iter().enumerate() {
                if set.len() < k && set.iter().all(|other| disjoint(&path.1, &other.1)) {
                    set.push(path);
                    extend(&paths[i + 1..], k, set, all);
                    set.pop();
                }
            }
        }
        let mut all = Vec::new();
        extend(paths, k, &mut Vec::new(), &mut all);
        all
    }

    /// Costs of the set that [`routes`] documents: most routes, cheapest first one, least total.
    fn best_set(paths: &[(u64, Vec<u32>)], k: usize) -> Vec<u64> {
        let all = sets(paths, k);
        let most = all.iter().map(Vec::len).max().unwrap();
        let shortest = paths.iter().map(|(cost, _)| *cost).min();
        let full: Vec<_> = all.into_iter().filter(|set| set.len() == most).collect();
        let with_shortest = full.iter().filter(|set| set.first().copied() == shortest);
        let total = |set: &&Vec<u64>| set.iter().sum::<u64>();
        with_shortest.min_by_key(total).or_else(|| full.iter().min_by_key(total)).cloned().unwrap()
    }

    #[test]
    fn the_shortest_path_gives_way_where_it_would_cost_a_route() {
        // 0-1-2-5 is the shortest and crosses both 0-1-4-5 and 0-3-2-5.
        let links = [(0, 1, 1), (1, 2, 1), (2, 5, 1), (0, 3, 50), (3, 2, 50), (1, 4, 50), (4, 5, 50)];
        let graph = graph(&[Node::default(); 6], &links);
        assert_eq!(nodes(&routes(&graph, 0, 5, 1)), [[0, 1, 2, 5]]);
        assert_eq!(nodes(&routes(&graph, 0, 5, 3)), [[0, 1, 4, 5], [0, 3, 2, 5]]);
    }

    #[test]
    fn a_route_backs_out_of_several_nodes_in_a_row() {
        // 0-1-2-3-6 is the shortest; only 0-1-5-6 and 0-4-3-6 go together, and 2 is on neither.
        let links = [
            (0, 1, 1),
            (1, 2, 1),
            (2, 3, 1),
            (3, 6, 1),
            (0, 4, 90_000),
            (4, 3, 90_000),
            (1, 5, 90_000),
            (5, 6, 90_000),
        ];
        let graph = graph(&[Node::default(); 7], &links);
        assert_eq!(nodes(&routes(&graph, 0, 6, 3)), [[0, 1, 5, 6], [0, 4, 3, 6]]);
    }

    #[test]
    fn the_shortest_path_stays_where_it_costs_no_route() {
        // The two at the edges are cheaper in total than the middle one with the long one.
        let links = [
            (0, 1, 1),
            (1, 2, 1),
            (2, 5, 1), // shortest
            (0, 3, 500),
            (3, 2, 500),
            (1, 4, 500),
            (4, 5, 500),
            (0, 6, 90_000),
            (6, 5, 90_000),
        ];
        let graph = graph(&[Node::default(); 7], &links);
        assert_eq!(nodes(&routes(&graph, 0, 5, 2)), [vec![0, 1, 2, 5], vec![0, 6, 5]]);
        assert_eq!(routes(&graph, 0, 5, 3).len(), 3);
    }

    #[test]
    fn a_direct_link_is_a_route_of_its_own() {
        let links = [(0, 3, 80_000), (0, 1, 1), (1, 3, 1), (0, 2, 2), (2, 3, 2)];
        let graph = graph(&[Node::default(); 4], &links);
        assert_eq!(nodes(&routes(&graph, 0, 3, 3)), [vec![0, 1, 3], vec![0, 2, 3], vec![0, 3]]);
        assert_eq!(nodes(&routes(&graph, 0, 3, 1)), [[0, 1, 3]]);
        assert!(routes(&graph, 0, 0, 3).is_empty() && routes(&graph, 0, 9, 3).is_empty());
        assert!(routes(&graph, 9, 0, 3).is_empty() && routes(&graph, 0, 3, 0).is_empty());
    }

    #[test]
    fn a_route_has_sixteen_nodes_at_most() {
        let chain = |nodes: u32| -> Vec<(u32, u32, u32)> { (1..nodes).map(|i| (i - 1, i, 1)).collect() };
        let line = graph(&[Node::default(); 17], &chain(17));
        assert_eq!(routes(&line, 0, 15, 3)[0].nodes.len(), 16);
        assert!(routes(&line, 0, 16, 3).is_empty());
        let path: Vec<u32> = (0..17).collect();
        assert_eq!((cost(&line, &path), cost(&line, &path[..16])), (None, Some(14 * 10_000 + 15)));
        assert_eq!((cost(&line, &[0, 2]), cost(&line, &[0]), cost(&line, &[])), (None, None, None));
        // A dear short cut makes it short enough.
        let mut links = chain(17);
        links.push((3, 6, 4_000_000));
        let shortcut = graph(&[Node::default(); 17], &links);
        assert_eq!(routes(&shortcut, 0, 16, 3)[0].nodes.len(), 15);
    }

    /// A cheap line from the first node to the last, and dear detours round parts of it: the shortest path is in the way.
    fn any_trap() -> impl Strategy<Value = Graph> {
        let detours = prop::collection::vec((0u32..10, 0u32..10, 1u32..4), 2..9);
        (4u32..7, detours).prop_map(|(line, detours)| {
            let count = line + u32::try_from(detours.len()).unwrap();
            let last = count - 1;
            // Nodes 0 to line - 2 and the last one are the line, those between are detours.
            let mut links: Vec<_> = (1..line - 1).map(|i| (i - 1, i, 1)).collect();
            links.push((line - 2, last, 1));
            for (detour, (from, to, cost)) in (line - 1..).zip(detours) {
                links.push((from.min(last), detour, cost * 50_000));
                links.push((detour, to.min(last), cost * 50_000));
            }
            graph(&vec![Node::default(); count as usize], &links)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        #[test]
        fn the_set_is_the_one_that_trying_all_finds(graph in prop_oneof![any_graph(2..9), any_trap()], k in 1usize..4) {
            let target = u32::try_from(graph.len() - 1).unwrap();
            let paths = all_paths(&graph, 0, target, usize::MAX);
            let found = routes(&graph, 0, target, k);
            let costs: Vec<u64> = found.iter().map(|route| route.cost).collect();
            prop_assert_eq!(costs, best_set(&paths, k), "{:?}", found);
            for (i, route) in found.iter().enumerate() {
                prop_assert!(paths.contains(&(route.cost, route.nodes.clone())), "{:?}", route);
                prop_assert!(found[..i].iter().all(|other| disjoint(&route.nodes, &other.nodes)));
                prop_assert_eq!(cost(&graph, &route.nodes), Some(route.cost));
                let clear: Vec<_> = paths.iter().filter(|path| disjoint(&route.nodes, &path.1)).cloned().collect();
                let beside = beside(&graph, &route.nodes, 2);
                prop_assert!(beside.iter().all(|other| disjoint(&route.nodes, &other.nodes)));
                // The least total of the largest set, whether or not it has the shortest.
                let all = sets(&clear, 2);
                let most = all.iter().map(Vec::len).max().unwrap();
                let least = all.iter().filter(|set| set.len() == most).map(|set| set.iter().sum::<u64>()).min();
                prop_assert_eq!(beside.len(), most);
                prop_assert_eq!(Some(beside.iter().map(|route| route.cost).sum()), least);
            }
        }

        #[test]
        fn short_routes_are_found_wherever_there_is_one(graph in any_graph(2..10), k in 1usize..4, limit in 2usize..6) {
            let target = u32::try_from(graph.len() - 1).unwrap();
            let paths = all_paths(&graph, 0, target, limit);
            let found = limited_routes(&graph, 0, target, k, limit);
            prop_assert_eq!(found.is_empty(), paths.is_empty());
            if k == 1 {
                prop_assert_eq!(found.first().map(|route| route.cost), paths.iter().map(|(cost, _)| *cost).min());
            }
            for (i, route) in found.iter().enumerate() {
                prop_assert!(paths.contains(&(route.cost, route.nodes.clone())), "{:?}", route);
                prop_assert!(found[..i].iter().all(|other| disjoint(&route.nodes, &other.nodes)));
            }
        }

        #[test]
        fn one_route_costs_what_the_tree_says(graph in any_graph(2..40)) {
            let spf = Spf::new(&graph, 0);
            for target in 1..u32::try_from(graph.len()).unwrap() {
                let found = limited_routes(&graph, 0, target, 1, usize::MAX);
                prop_assert_eq!(found.first().map(|route| route.cost), spf.cost(target));
            }
        }
    }
}
