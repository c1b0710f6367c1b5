mod limits;
mod network;
mod properties;

use std::time::Duration;

use network::{Network, id, route};

use super::*;

const NAMES: &str = "abcdefghijklmnop";

fn failed(error: OpenError) -> Vec<Action> {
    vec![Action::Failed { id: 1, error }]
}

fn refused(reason: &str) -> Vec<Action> {
    failed(OpenError::Refused(reason.to_owned()))
}

fn key(origin: &str, number: u64) -> CircuitKey {
    CircuitKey { origin: id(origin), id: number }
}

/// What node b, in the middle of a chain, does with a message that comes over a link.
fn at_b(net: &mut Network, link: LinkId, message: Message) -> Vec<Action> {
    net.at(&id("b"), |node, random, now, out| {
        let mut actions = Vec::new();
        node.message(link, message, random, now, &mut actions);
        out.extend(actions.clone());
        actions
    })
}

fn asking(names: &str, number: u64) -> Message {
    let label = Label::from_random(number);
    Message::CircuitOpen(CircuitOpen { circuit: number, route: route(names), session: 7, label })
}

#[test]
fn packets_follow_a_route_of_any_length_there_and_back() {
    for len in 2..=NAMES.len() {
        let names = &NAMES[..len];
        let mut net = Network::chain(names);
        net.open(1, route(names));
        net.settle();
        assert!(net.carries(&id("a"), 1), "{names}");
        assert!(net.node("a").circuits.is_open(1));
        let last = &net.nodes[route(names).last().unwrap()];
        assert!(matches!(&last.news[..], [Action::Arrived { key: at, session: 7, route: along, .. }]
                if *at == key("a", 1) && *along == route(names)));
        let transit: usize = net.nodes.values().map(|node| node.circuits.transit()).sum();
        assert_eq!(transit, len - 2);

        net.close(&id("a"), 1);
        net.settle();
        let last = &net.nodes[route(names).last().unwrap()];
        let reason = "its first node closed it".to_owned();
        assert_eq!(last.news.last(), Some(&Action::Left { key: key("a", 1), session: 7, reason }));
        assert_eq!(net.node("a").news.len(), 1, "nothing but Opened");
        net.assert_blank();
    }
}

#[test]
fn what_is_no_route_is_not_asked_for() {
    let mut net = Network::chain("abcdefghijklmnopq");
    for names in ["a", "aba", "aa", "abcdefghijklmnopq"] {
        net.open(1, route(names));
        let error = OpenError::Refused("a has no such route, or this circuit already".to_owned());
        assert_eq!(
            net.nodes.get_mut(&id("a")).unwrap().news.pop(),
            Some(Action::Failed { id: 1, error }),
            "{names}"
        );
    }
    net.at(&id("a"), |node, random, now, out| node.open(1, route("bc"), 7, random, now, out));
    net.at(&id("a"), |node, random, now, out| node.open(1, Vec::new(), 7, random, now, out));
    net.settle();
    net.assert_blank();
    net.open(2, route("ac"));
    assert_eq!(net.node("a").news.last(), Some(&Action::Failed { id: 2, error: OpenError::NoLink }));
}

#[test]
fn a_refusal_says_who_and_why_and_leaves_nothing() {
    for (names, willing, reason) in
        [("abce", true, "c has no link to e"), ("abcd", false, "c carries no transit")]
    {
        let mut net = Network::chain("abcd");
        net.at(&id("c"), |node, _, _, _| node.relay(willing));
        net.open(1, route(names));
        net.settle();
        assert_eq!(net.node("a").news, refused(reason));
        net.assert_blank();
    }
}

#[test]
fn an_answer_to_an_earlier_circuit_of_the_same_name_leaves_nothing() {
    let mut net = Network::chain("abcd");
    net.silent.insert(id("a"));
    let (from_a, from_c) = (net.link("a", "b"), net.link("b", "c"));
    at_b(&mut net, from_a, asking("abcd", 1));
    at_b(&mut net, from_a, Message::CircuitClose(CircuitClose { origin: id("a"), circuit: 1, reason: None }));
    at_b(&mut net, from_a, asking("abcd", 1));
    // As c would have refused the first one.
    at_b(&mut net, from_c, refusal(key("a", 1), None));
    net.settle();
    net.assert_blank();
}

#[test]
fn a_relay_carries_only_what_came_along_the_route() {
    let mut net = Network::chain("abcd");
    let (from_a, from_c) = (net.link("a", "b"), net.link("b", "c"));
    for (names, link, reason) in [
        ("bac", from_a, "b is no further node of this route, or the route is none"),
        ("acd", from_a, "b is no further node of this route, or the route is none"),
        ("abcb", from_a, "b is no further node of this route, or the route is none"),
        ("abcc", from_a, "b is no further node of this route, or the route is none"),
        ("cabd", from_c, "b is asked by c, which is not the node before it"),
        ("cbd", from_a, "b is asked by a, which is not the node before it"),
        ("abd", from_a, "b has no link to d"),
    ] {
        let refusal = CircuitAck {
            origin: route(names)[0].clone(),
            circuit: 1,
            label: None,
            reason: Some(reason.to_owned()),
        };
        let answer = at_b(&mut net, link, asking(names, 1));
        assert_eq!(answer, [Action::Send(link, Message::CircuitAck(refusal))], "{names}");
    }
    assert_eq!(at_b(&mut net, from_a, asking("", 1)), []);
    assert_eq!(at_b(&mut net, LinkId(99), asking("abc", 1)), [], "no such link");
    net.settle();
    net.assert_blank();
}

#[test]
fn an_open_sent_again_is_refused_and_harms_nothing() {
    let mut net = Network::chain("abc");
    net.open(1, route("abc"));
    net.settle();
    let before = net.node("b").circuits.clone();
    for (names, link) in [("abc", net.link("a", "b")), ("ab", net.link("a", "b"))] {
        let answer = at_b(&mut net, link, asking(names, 1));
        assert!(
            matches!(&answer[..], [Action::Send(to, Message::CircuitAck(CircuitAck { label: None, .. }))] if *to == link)
        );
    }
    net.settle(); // the refusals: second answers
    assert_eq!(net.node("b").circuits, before);
    assert!(net.carries(&id("a"), 1));

    let before = net.node("a").circuits.clone();
    let answer = net.at(&id("a"), |node, random, now, _| {
        let mut out = Vec::new();
        node.open(1, route("ab"), 7, random, now, &mut out);
        out
    });
    assert_eq!(answer, refused("a has no such route, or this circuit already"));
    assert_eq!(net.node("a").circuits, before);
}

#[test]
fn a_stranger_changes_nothing() {
    let mut net = Network::chain("abcd");
    let stranger = net.connect(&id("b"), &id("d"));
    net.open(1, route("abc"));
    net.deliver(); // b has asked c
    let label = Some(Label::from_random(9));
    for again in [false, true] {
        let before = net.node("b").circuits.clone();
        let close = CircuitClose { origin: id("a"), circuit: 1, reason: None };
        let ack = CircuitAck { origin: id("a"), circuit: 1, label, reason: None };
        let refusal = CircuitAck { label: None, ..ack.clone() };
        let from_a = net.link("a", "b");
        assert_eq!(at_b(&mut net, stranger, Message::CircuitClose(close.clone())), []);
        for link in [stranger, from_a] {
            assert_eq!(at_b(&mut net, link, Message::CircuitAck(ack.clone())), []);
            assert_eq!(at_b(&mut net, link, Message::CircuitAck(refusal.clone())), []);
        }
        if again {
            let from_c = net.link("b", "c");
            assert_eq!(at_b(&mut net, from_c, Message::CircuitAck(ack)), [], "a second answer");
            assert_eq!(at_b(&mut net, from_c, Message::CircuitAck(refusal)), []);
        }
        let unknown = CircuitClose { circuit: 2, ..close };
        assert_eq!(at_b(&mut net, from_a, Message::CircuitClose(unknown)), []);
        assert_eq!(net.node("b").circuits, before);
        net.settle();
        assert!(net.carries(&id("a"), 1));
    }
}

#[test]
fn a_link_that_goes_down_takes_its_circuits_and_all_hear_why() {
    let mut net = Network::chain("abcde");
    net.open(1, route("abcde"));
    net.open(2, route("ab"));
    net.settle();
    net.cut(net.link("c", "d"));
    net.settle();
    let reason = "the link between c and d is gone".to_owned();
    assert_eq!(net.node("a").news.last(), Some(&Action::Closed { id: 1, reason }));
    let reason = "the link between d and c is gone".to_owned();
    assert_eq!(net.node("e").news.last(), Some(&Action::Left { key: key("a", 1), session: 7, reason }));
    assert!(net.carries(&id("a"), 2), "another circuit");

    net.cut(net.link("a", "b"));
    net.settle();
    let reason = "the link between a and b is gone".to_owned();
    assert_eq!(net.node("a").news.last(), Some(&Action::Closed { id: 2, reason }));
    net.assert_blank();
}

#[test]
fn a_link_that_goes_down_before_the_answer_is_one() {
    let mut net = Network::chain("abc");
    net.open(1, route("abc"));
    net.deliver(); // b has asked c
    net.cut(net.link("b", "c"));
    net.settle();
    assert_eq!(net.node("a").news, refused("the link between b and c is gone"));
    net.open(1, route("ab"));
    net.cut(net.link("a", "b"));
    net.settle();
    assert_eq!(net.node("a").news[1..], failed(OpenError::NoLink));
    net.assert_blank();
}

#[test]
fn answers_are_not_awaited_for_ever() {
    let mut net = Network::chain("abcd");
    net.silent.insert(id("d"));
    net.open(1, route("abcd"));
    net.settle();
    assert_eq!(net.node("a").circuits.deadline(), Some(Time(0) + OPEN_TIMEOUT));
    assert_eq!(net.node("c").circuits.deadline(), Some(Time(0) + RELAY_TIMEOUT));
    let moment = Duration::from_micros(1);
    net.wait(OPEN_TIMEOUT.saturating_sub(moment));
    assert_eq!(net.node("a").news, []);
    net.wait(moment);
    assert_eq!(net.node("a").news, failed(OpenError::Timeout));
    net.settle();
    net.assert_blank();
}

#[test]
fn a_relay_gives_up_where_the_first_node_does_not() {
    let mut net = Network::chain("abc");
    net.silent.extend([id("a"), id("c")]);
    let link = net.link("a", "b");
    at_b(&mut net, link, asking("abc", 1));
    net.now = net.now + RELAY_TIMEOUT;
    let (own, reason) = (id("b"), Some("b had no answer from c within 3 s".to_owned()));
    let sent = net.at(&own, |node, _, now, out| {
        node.poll(now, out);
        out.iter().filter(|action| matches!(action, Action::Send(..))).cloned().collect::<Vec<_>>()
    });
    let ack = CircuitAck { origin: id("a"), circuit: 1, label: None, reason: reason.clone() };
    let close = CircuitClose { origin: id("a"), circuit: 1, reason };
    assert_eq!(
        sent,
        [
            Action::Send(link, Message::CircuitAck(ack)),
            Action::Send(net.link("b", "c"), Message::CircuitClose(close))
        ]
    );
    net.settle();
    net.assert_blank();
}

#[test]
fn an_own_circuit_can_be_closed_before_it_is_open() {
    let mut net = Network::chain("abcd");
    for delivered in 0..6 {
        net.open(1, route("abcd"));
        (0..delivered).for_each(|_| assert!(net.deliver()));
        net.close(&id("a"), 1);
        net.settle();
        net.assert_blank();
    }
}

#[test]
fn what_is_idle_at_a_relay_is_closed_both_ways() {
    let mut net = Network::chain("abcd");
    net.open(1, route("abcd"));
    net.settle();
    for end in ["a", "d"] {
        let label = *net.node(end).labels.keys().next().unwrap();
        net.at(&id(end), |node, _, _, out| node.idle(label, out));
    }
    net.at(&id("b"), |node, _, _, out| node.idle(Label::from_random(1), out));
    net.settle();
    assert!(net.carries(&id("a"), 1), "no relay of it was idle");
    let label = *net.node("b").labels.keys().next().unwrap();
    net.at(&id("b"), |node, _, _, out| node.idle(label, out));
    net.settle();
    let reason = "idle at b".to_owned();
    assert_eq!(net.node("a").news.last(), Some(&Action::Closed { id: 1, reason: reason.clone() }));
    assert_eq!(net.node("d").news.last(), Some(&Action::Left { key: key("a", 1), session: 7, reason }));
    net.assert_blank();
}

#[test]
fn the_newest_of_two_links_to_a_neighbour_is_used() {
    let mut net = Network::chain("ab");
    net.open(1, route("ab"));
    net.settle();
    let (old, new) = (net.link("a", "b"), net.connect(&id("a"), &id("b")));
    net.open(2, route("ab"));
    net.settle();
    assert_eq!((net.node("a").open[&1].0, net.node("a").open[&2].0), (old, new));
    net.cut(old);
    net.settle();
    assert!(net.carries(&id("a"), 2));
    net.open(3, route("ab"));
    net.settle();
    assert!(net.carries(&id("a"), 3));
    let newer = net.connect(&id("a"), &id("b"));
    net.cut(newer);
    net.settle();
    net.open(4, route("ab"));
    net.settle();
    assert_eq!(net.node("a").open[&4].0, new, "back to the one that is left");
}

#[test]
fn no_two_circuits_share_a_label() {
    let mut node = Circuits::new(id("a"), Limits::default());
    node.link_up(LinkId(1), id("b"));
    // The lowest bits are no part of a label: 5 and 6 make the same one.
    let (mut draws, mut out) = ([5, 5, 6, 9].into_iter(), Vec::new());
    for number in [1, 2] {
        node.open(number, route("ab"), 7, &mut || draws.next().unwrap(), Time(0), &mut out);
    }
    let labels: Vec<Label> = out
        .iter()
        .filter_map(|action| if let Action::Install { label, .. } = action { Some(*label) } else { None })
        .collect();
    assert_eq!(labels, [Label::from_random(5), Label::from_random(9)]);
}

#[test]
fn what_a_peer_gives_as_reason_is_made_fit_to_be_shown() {
    let mut net = Network::chain("abc");
    net.silent.insert(id("c"));
    net.open(1, route("abc"));
    net.settle();
    let link = net.link("b", "c");
    let reason = Some(format!("\u{1b}{}", "x".repeat(1000)));
    let ack = CircuitAck { origin: id("a"), circuit: 1, label: None, reason };
    at_b(&mut net, link, Message::CircuitAck(ack));
    net.settle();
    assert_eq!(net.node("a").news, refused(&format!("\\u{{1b}}{}…", "x".repeat(299))));
    net.open(1, route("ab"));
    let link = net.link("a", "b");
    let silent = CircuitAck { origin: id("a"), circuit: 1, label: None, reason: None };
    net.at(&id("a"), |node, random, now, out| {
        node.message(link, Message::CircuitAck(silent), random, now, out);
    });
    assert_eq!(net.node("a").news[1..], refused("no reason given"));
}
