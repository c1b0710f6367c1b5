//! Traces among nodes that pass each other messages.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn ids(names: &str) -> Vec<NodeId> {
    names.split(' ').map(id).collect()
}

/// Nodes in a row: each is linked with the one before it and the one behind. Each link adds 1 ms one way.
struct Chain {
    nodes: Vec<(NodeId, Traces<()>)>,
    /// Links that are gone, by their first node.
    cut: Vec<usize>,
    now: Time,
}

impl Chain {
    fn new(names: &str) -> Self {
        let nodes = ids(names).into_iter().map(|node| (node.clone(), Traces::new(node, true)));
        Self { nodes: nodes.collect(), cut: Vec::new(), now: Time(0) }
    }

    fn at(&self, node: &NodeId) -> usize {
        self.nodes.iter().position(|(id, _)| id == node).unwrap()
    }

    fn link(&self, from: usize, to: usize) -> Option<Measured> {
        let there = from.abs_diff(to) == 1 && !self.cut.contains(&from.min(to));
        let rtt = Some(Duration::from_millis(2));
        there.then_some(Measured { rtt, loss: Some(u16::try_from(from.min(to)).unwrap()) })
    }

    /// Traces a route from its first node and returns what came out within the time it may take.
    fn trace(&mut self, route: &str) -> Vec<Hop> {
        let route = ids(route);
        let first = self.at(&route[0]);
        let mut number = 0;
        let random = || {
            number += 1;
            number
        };
        let links: Vec<_> = (0..self.nodes.len()).map(|to| self.link(first, to)).collect();
        let names: Vec<_> = self.nodes.iter().map(|(id, _)| id.clone()).collect();
        let link = |node: &NodeId| links[names.iter().position(|name| name == node)?];
        let sent = self.nodes[first].1.start(route, (), link, random, self.now);
        let mut queue: VecDeque<_> = sent.into_iter().map(|action| (self.now, first, action)).collect();
        while let Some((then, from, action)) = queue.pop_front() {
            let (to, message) = match action {
                Action::Send(to, message) => (self.at(&to), message),
                Action::Ended((), hops) => return hops,
            };
            if self.link(from, to).is_none() {
                continue;
            }
            self.now = self.now.max(then + Duration::from_millis(1));
            let at = then + Duration::from_millis(1);
            let links: Vec<_> = (0..self.nodes.len()).map(|node| self.link(to, node)).collect();
            let link = |node: &NodeId| links[names.iter().position(|name| name == node)?];
            let traces = &mut self.nodes[to].1;
            let action = match message {
                Message::Trace(trace) => traces.on_trace(&names[from], trace, link, at),
                Message::TraceAck(ack) => traces.on_ack(&names[from], ack, at),
                other => panic!("a message of type {}", other.number()),
            };
            queue.extend(action.map(|action| (at, to, action)));
        }
        let end = self.nodes[first].1.deadline().unwrap();
        let mut ended = self.nodes[first].1.expire(end);
        assert_eq!((ended.len(), self.nodes[first].1.deadline()), (1, None));
        ended.remove(0).1
    }
}

#[test]
fn each_node_answers_with_its_time_and_its_link_to_the_one_before() {
    let hops = Chain::new("a r1 r2 b").trace("a r1 r2 b");
    let ms = Duration::from_millis;
    for (i, (hop, node)) in hops.iter().zip(["r1", "r2", "b"]).enumerate() {
        let n = u16::try_from(i).unwrap();
        assert_eq!((hop.node.as_str(), &hop.error), (node, &None));
        assert_eq!(hop.rtt, Some(ms(2 * u64::from(n + 1))));
        assert_eq!(hop.link, Measured { rtt: Some(ms(2)), loss: Some(n) });
    }
    assert_eq!(hops.len(), 3);
}

#[test]
fn a_node_that_cannot_pass_it_on_says_so() {
    let mut chain = Chain::new("a r1 r2 b");
    chain.cut.push(1);
    let hops = chain.trace("a r1 r2 b");
    assert!(hops[0].rtt.is_some() && hops[0].error.is_none());
    for hop in &hops[1..] {
        assert_eq!((hop.rtt, hop.error.as_deref()), (None, Some("r1: no link to r2")));
        assert_eq!(hop.link, Measured::default());
    }

    let mut chain = Chain::new("a r1 b");
    chain.nodes[1].1.transit = false;
    let hops = chain.trace("a r1 b");
    assert!(hops[0].rtt.is_some());
    assert_eq!(hops[1].error.as_deref(), Some("r1: carries nothing for others"));

    let mut chain = Chain::new("a b");
    chain.cut.push(0);
    assert_eq!(chain.trace("a b")[0].error.as_deref(), Some("no link to b"));
}

#[test]
fn who_does_not_answer_is_told_apart_from_who_does() {
    let mut chain = Chain::new("a r1 b");
    // A relay that takes all and passes nothing on.
    chain.nodes[1].1.rates.insert(id("a"), (Time(0), u32::MAX));
    let hops = chain.trace("a r1 b");
    assert_eq!(hops.len(), 2);
    assert!(hops.iter().all(|hop| hop.rtt.is_none() && hop.error.as_deref() == Some("no answer within 2 s")));
    assert!(chain.nodes[0].1.waiting.is_empty());
}

fn trace(route: &str, to: u8) -> Trace {
    let route = ids(route);
    Trace { trace: 7, origin: route[0].clone(), route, to }
}

fn ack(route: &str, at: u8) -> TraceAck {
    let Trace { trace, origin, route, to } = trace(route, at);
    TraceAck { trace, origin, route, at: to, link_rtt_us: None, link_loss_permille: None, error: None }
}

/// A link to every node.
const UP: fn(&NodeId) -> Option<Measured> = |_| Some(Measured::default());

#[test]
fn a_message_that_is_out_of_place_goes_nowhere() {
    let mut r1 = Traces::<()>::new(id("r1"), true);
    for (from, message) in [
        ("b", trace("a r1 b", 2)),    // from the wrong side
        ("x", trace("a r1 b", 2)),    // from beside the route
        ("a", trace("a b", 1)),       // this node is not on it
        ("a", trace("a r0 r1 b", 1)), // past who was asked
        ("r1", trace("r1 a", 1)),     // its own, come back
        ("a", trace("a r1", 2)),      // beyond its end
    ] {
        assert_eq!(r1.on_trace(&id(from), message.clone(), UP, Time(0)), None, "{from} {message:?}");
    }
    for (from, message) in [("a", ack("a r1 b", 2)), ("b", ack("a r1 b", 1)), ("b", ack("r1 b", 1))] {
        assert_eq!(r1.on_ack(&id(from), message.clone(), Time(0)), None, "{from} {message:?}");
    }
    assert_eq!(r1.ignored(), 9);
    assert!(r1.on_ack(&id("b"), ack("a r1 b", 2), Time(0)).is_some());
}

#[test]
fn an_answer_counts_once_and_only_for_what_was_asked() {
    let mut a = Traces::new(id("a"), true);
    let mut numbers = 7..;
    a.start(ids("a r1 b"), "me", UP, || numbers.next().unwrap(), Time(0));
    let b = |number, at| TraceAck { trace: number, ..ack("a r1 b", at) };
    assert_eq!(a.on_ack(&id("r1"), b(99, 1), Time(1)), None);
    assert_eq!(a.on_ack(&id("r1"), TraceAck { trace: 7, ..ack("a r1 c", 1) }, Time(1)), None);
    assert_eq!(a.on_ack(&id("x"), b(7, 1), Time(1)), None);
    assert_eq!(a.on_ack(&id("r1"), b(7, 1), Time(1)), None);
    assert_eq!(a.on_ack(&id("r1"), b(7, 1), Time(500)), None);
    // A node that answers for one behind it proves nothing.
    let Some(Action::Ended("me", hops)) = a.on_ack(&id("r1"), b(8, 1), Time(2)) else {
        panic!("the trace goes on");
    };
    assert_eq!(hops[0].rtt, Some(Duration::from_micros(1)));
    assert_eq!((hops[1].rtt, hops[1].error.as_deref()), (None, Some("another node answered")));
    assert_eq!((a.deadline(), a.ignored()), (None, 3));
}

#[test]
fn a_neighbour_that_floods_is_bounded_and_alone() {
    let mut r1 = Traces::<()>::new(id("r1"), true);
    let mut passed = |from: &str, now| {
        let asked = trace(&format!("{from} r1 b"), 2);
        r1.on_trace(&id(from), asked, UP, Time(now)).is_some()
    };
    assert_eq!((0..10_000).filter(|now| passed("a", *now)).count(), MAX_TRACES_PER_SECOND as usize);
    assert!(passed("x", 10_000));
    assert!(passed("a", 1_000_000));
    // Answers that nobody asked for are bounded all the same.
    let acks = (0..10_000).filter(|_| r1.on_ack(&id("b"), ack("a r1 b", 2), Time(0)).is_some());
    assert_eq!(acks.count(), MAX_TRACES_PER_SECOND as usize);
    for neighbor in ["a", "b", "x"] {
        r1.link_down(&id(neighbor));
    }
    assert!(r1.rates.is_empty());
}

#[test]
fn a_node_has_so_many_traces_at_once() {
    let mut a = Traces::new(id("a"), true);
    for n in 0..MAX_OWN as u64 {
        assert_eq!(a.start(ids("a b"), n, UP, || n, Time(n)).len(), 1);
    }
    let refused = a.start(ids("a b"), 99, UP, || 99, Time(0));
    assert!(matches!(&refused[..], [Action::Ended(99, hops)] if hops[0].error.is_some()), "{refused:?}");
    assert_eq!(a.expire(Time(3) + PATIENCE).len(), 4);
    assert_eq!(a.start(ids("a b"), 99, UP, || 99, Time(0)).len(), 1);
    let long = vec![id("a"); MAX_ROUTE_LEN + 1];
    assert_eq!(a.start(long, 5, UP, || 5, Time(0)), [Action::Ended(5, vec![])]);
}

prop_compose! {
    fn route()(names in prop::collection::vec("[a-e]", 0..6)) -> Vec<NodeId> {
        names.iter().map(|name| id(name)).collect()
    }
}

proptest! {
    #[test]
    fn whatever_comes_it_goes_on_along_its_route_or_not_at_all(
        route in route(), from in "[a-e]", position in any::<u8>(), number in 0_u64..3, transit: bool, is_ack: bool,
    ) {
        let mut node = Traces::new(id("c"), transit);
        node.start(ids("c d e"), (), UP, || 1, Time(0));
        let (from, origin) = (id(&from), id("a"));
        let action = if is_ack {
            let ack = TraceAck {
                trace: number, origin, route: route.clone(), at: position,
                link_rtt_us: Some(u32::MAX), link_loss_permille: Some(u16::MAX), error: None,
            };
            node.on_ack(&from, ack, Time(1))
        } else {
            node.on_trace(&from, Trace { trace: number, origin, route: route.clone(), to: position }, UP, Time(1))
        };
        if let Some(Action::Send(to, message)) = action {
            let at = route.iter().position(|node| node.as_str() == "c").unwrap();
            let before = at.checked_sub(1).map(|before| &route[before]);
            let behind = route.get(at + 1);
            let forth = matches!(message, Message::Trace(_));
            prop_assert_eq!(Some(&from), if is_ack { behind } else { before });
            prop_assert_eq!(Some(&to), if forth { behind } else { before });
        }
    }
}
