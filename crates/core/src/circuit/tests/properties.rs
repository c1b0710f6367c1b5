//! What holds whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::super::{CircuitKey, Limits};
use super::network::{Network, id, route};
use crate::flood::LinkId;
use crate::id::NodeId;
use crate::label::Label;
use crate::wire::{CircuitAck, CircuitClose, CircuitOpen, Message};

const NODES: &str = "abcdefg";
/// Small enough to be reached
const LIMITS: Limits = Limits { per_link: 4, ends_per_link: 5, ends: 6, per_route: 2 };

#[derive(Debug, Clone)]
enum Op {
    /// A circuit along a walk of so many hops that rarely leads back
    Open(usize),
    /// One along a route that need not be one
    OpenAnything(usize),
    Close,
    Cut,
    Connect,
    Idle,
    Willing(bool),
    Wait(u64),
    Deliver(usize),
    Settle,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => (1usize..7).prop_map(Op::Open),
        1 => (0usize..19).prop_map(Op::OpenAnything),
        2 => Just(Op::Close),
        2 => Just(Op::Cut),
        2 => Just(Op::Connect),
        1 => Just(Op::Idle),
        1 => any::<bool>().prop_map(Op::Willing),
        2 => (0u64..3_000).prop_map(Op::Wait),
        8 => (0usize..30).prop_map(Op::Deliver),
        2 => Just(Op::Settle),
    ];
    prop::collection::vec(op, 0..120)
}

/// A mesh in which most nodes have links with each other, as the seed wants.
fn mesh(seed: u64) -> Network {
    let mut net = Network::new(NODES, LIMITS, seed);
    for (i, a) in route(NODES).iter().enumerate() {
        for b in &route(NODES)[i + 1..] {
            if net.random.below(3) > 0 {
                net.connect(a, b);
            }
        }
    }
    net
}

fn pick<T: Clone>(net: &mut Network, from: &[T]) -> Option<T> {
    let place = usize::try_from(net.random.below(from.len() as u64)).unwrap();
    from.get(place).cloned()
}

fn any_node(net: &mut Network) -> NodeId {
    pick(net, &route(NODES)).unwrap()
}

/// A way along links, through none of `without`.
fn walk(net: &mut Network, hops: usize, without: &BTreeSet<NodeId>) -> Vec<NodeId> {
    let mut way = vec![any_node(net)];
    while way.len() <= hops {
        let ends: Vec<_> =
            net.links.values().filter(|ends| ends.contains(&way[way.len() - 1])).flatten().collect();
        let onward: Vec<_> =
            ends.into_iter().filter(|end| !way.contains(end) && !without.contains(end)).cloned().collect();
        let Some(node) = pick(net, &onward) else { break };
        way.push(node);
    }
    way
}

fn step(net: &mut Network, op: &Op) {
    let link = |net: &mut Network| {
        let links: Vec<LinkId> = net.links.keys().copied().collect();
        pick(net, &links)
    };
    match op {
        Op::Open(hops) => {
            let way = walk(net, *hops, &BTreeSet::new());
            let id = net.random.bits();
            net.open(id, way);
        }
        Op::OpenAnything(len) => {
            let mut way = vec![any_node(net)];
            while way.len() < *len {
                way.push(any_node(net));
            }
            let id = net.random.bits();
            net.open(id, way);
        }
        Op::Close => {
            let own = any_node(net);
            let known: Vec<_> = net.nodes[&own].circuits.routes().map(|(key, _)| key.clone()).collect();
            let known: Vec<_> = known.into_iter().filter(|key| key.origin == own).collect();
            if let Some(key) = pick(net, &known) {
                net.close(&own, key.id);
            }
        }
        Op::Cut => {
            if let Some(link) = link(net) {
                net.cut(link);
            }
        }
        Op::Connect => {
            let (a, b) = (any_node(net), any_node(net));
            let linked = net.links.values().any(|ends| ends.contains(&a) && ends.contains(&b));
            if a != b && !linked {
                net.connect(&a, &b);
            }
        }
        Op::Idle => {
            let own = any_node(net);
            let mut labels: Vec<Label> = net.nodes[&own].labels.keys().copied().collect();
            labels.sort_by_key(|label| String::from(*label));
            if let Some(label) = pick(net, &labels) {
                net.at(&own, |node, _, _, out| node.idle(label, out));
            }
        }
        Op::Willing(willing) => {
            let own = any_node(net);
            net.at(&own, |node, _, _, _| node.relay(*willing));
        }
        Op::Wait(ms) => net.wait(Duration::from_millis(*ms)),
        Op::Deliver(events) => {
            for _ in 0..*events {
                net.deliver();
                check_limits(net);
            }
        }
        Op::Settle => net.settle(),
    }
}

fn check_limits(net: &Network) {
    for node in net.nodes.values() {
        let index = &node.circuits.index;
        let routes: Vec<_> = node.circuits.routes().map(|(_, route)| route).collect();
        assert!(net.links.keys().all(|link| index.transit_from(*link) <= LIMITS.per_link));
        assert!(index.ends() <= LIMITS.ends && index.ends() == node.ends.len());
        assert!(
            routes.iter().all(|way| index.along(way).is_none_or(|along| along.len() <= LIMITS.per_route))
        );
    }
}

/// Where nothing is under way each circuit is known at all its nodes and carries packets, or at none; labels likewise.
fn check_at_rest(net: &Network) {
    let mut known: BTreeMap<NodeId, BTreeSet<CircuitKey>> = BTreeMap::new();
    let mut labels: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (own, id) in net.all_open() {
        assert!(net.carries(&own, id), "{own} has circuit {id} open");
        let way = net.nodes[&own].circuits.route(id).unwrap();
        for (place, node) in way.iter().enumerate() {
            known.entry(node.clone()).or_default().insert(CircuitKey { origin: own.clone(), id });
            let ends = place == 0 || place == way.len() - 1;
            *labels.entry(node.clone()).or_default() += if ends { 1 } else { 2 };
        }
    }
    for (own, node) in &net.nodes {
        let here: BTreeSet<_> = node.circuits.routes().map(|(key, _)| key.clone()).collect();
        assert_eq!(here, known.remove(own).unwrap_or_default(), "circuits at {own}");
        assert_eq!(node.labels.len(), labels.remove(own).unwrap_or_default(), "labels at {own}");
    }
}

/// Something that a liar says about circuits, those of others mostly.
fn lie(net: &mut Network, liar: &NodeId, neighbor: &NodeId) -> Message {
    let nodes: Vec<_> = net.nodes.values().flat_map(|node| node.circuits.routes()).collect();
    let known: Vec<_> = nodes.into_iter().map(|(key, way)| (key.clone(), way.to_vec())).collect();
    let mut labels: Vec<Label> = net.nodes.values().flat_map(|node| node.labels.keys().copied()).collect();
    labels.sort_by_key(|label| String::from(*label));
    labels.push(Label::from_random(net.random.bits()));
    let label = pick(net, &labels).unwrap();
    let (mut key, mut way) =
        pick(net, &known).unwrap_or((CircuitKey { origin: liar.clone(), id: 0 }, vec![]));
    if net.random.below(3) == 0 {
        key.id = net.random.bits();
    }
    match net.random.below(4) {
        0 => Message::CircuitClose(CircuitClose { origin: key.origin, circuit: key.id, reason: None }),
        1 => {
            let label = Some(label).filter(|_| net.random.below(2) == 0);
            Message::CircuitAck(CircuitAck { origin: key.origin, circuit: key.id, label, reason: None })
        }
        kind => {
            if kind == 2 {
                // The kind that is believed: from the liar to the neighbour, and on to anyone.
                way = walk(net, 2, &BTreeSet::from([liar.clone(), neighbor.clone()]));
                way.retain(|node| node != liar && node != neighbor);
                let place = way.len().min(usize::try_from(net.random.below(3)).unwrap());
                way.splice(place..place, [liar.clone(), neighbor.clone()]);
            }
            Message::CircuitOpen(CircuitOpen { circuit: key.id, route: way, session: 7, label })
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn circuits_carry_or_are_forgotten_by_all(seed: u64, ops in ops(), close: bool) {
        let mut net = mesh(seed);
        let mut broken = Vec::new();
        for op in ops {
            step(&mut net, &op);
            check_limits(&net);
            let open = net.all_open();
            broken.extend(open.into_iter().filter(|(own, id)| !net.carries(own, *id)));
        }
        net.rest();
        check_at_rest(&net);
        let open = net.all_open();
        prop_assert!(broken.iter().all(|circuit| !open.contains(circuit)), "it broke, and its first node never heard");
        if close {
            for (own, id) in open {
 net.close(&own, id);
}
        } else {
            while let Some(link) = net.links.keys().next() {
 net.cut(*link);
}
        }
        net.settle();
        net.assert_blank();
    }

    #[test]
    fn a_liar_harms_no_circuit_that_does_not_pass_through_it(
        seed: u64,
        circuits in prop::collection::vec(1usize..6, 1..30),
        lies in 1usize..200,
    ) {
        let mut net = mesh(seed);
        let liar = id("d");
        net.silent.insert(liar.clone());
        for hops in circuits {
            let way = walk(&mut net, hops, &BTreeSet::from([liar.clone()]));
            if way[0] != liar {
                let id = net.random.bits();
                net.open(id, way);
            }
        }
        net.rest();
        let open = net.all_open();
        for _ in 0..lies {
            let links: Vec<_> = net.links.iter().filter(|(_, ends)| ends.contains(&liar)).collect();
            let links: Vec<_> = links.into_iter().map(|(link, ends)| (*link, ends.clone())).collect();
            let Some((link, ends)) = pick(&mut net, &links) else { break };
            let neighbor = ends.into_iter().find(|end| *end != liar).unwrap();
            let message = lie(&mut net, &liar, &neighbor);
            net.send(&liar, link, message);
            net.deliver();
            check_limits(&net);
            if net.random.below(10) == 0 {
                net.wait(Duration::from_millis(700));
            }
        }
        net.rest();
        prop_assert_eq!(net.all_open(), open.clone());
        prop_assert!(open.iter().all(|(own, id)| net.carries(own, *id)));
        check_limits(&net);

        // What the liar has set up goes with its links.
        for (own, id) in &open {
 net.close(own, *id);
}
        let links: Vec<_> = net.links.iter().filter(|(_, ends)| ends.contains(&liar)).collect();
        links.into_iter().map(|(link, _)| *link).collect::<Vec<_>>().into_iter().for_each(|link| net.cut(link));
        net.settle();
        net.assert_blank();
    }
}
