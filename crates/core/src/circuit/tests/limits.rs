//! How much a node takes on.

use super::super::{Action, Limits, OpenError, PER_LINK};
use super::network::{Network, id, route};
use super::{key, refused};

#[test]
fn a_neighbour_has_no_more_transit_than_its_share() {
    let limits = Limits { per_link: 2, ..Limits::default() };
    let mut net = Network::new("abcd", limits, 1);
    for other in ["a", "c", "d"] {
        net.connect(&id("b"), &id(other));
    }
    (1..=3).for_each(|number| net.open(number, route("abc")));
    net.open(4, route("ab"));
    net.open(1, route("dbc"));
    net.settle();
    assert_eq!(net.node("b").circuits.transit(), 3);
    let reason = "b carries as many circuits of a as it can".to_owned();
    assert!(net.node("a").news.contains(&Action::Failed { id: 3, error: OpenError::Refused(reason) }));
    assert!(net.carries(&id("a"), 4), "it ends here");
    assert!(net.carries(&id("d"), 1), "another neighbour");
    net.close(&id("a"), 1);
    net.open(5, route("abc"));
    net.settle();
    assert!(net.carries(&id("a"), 5));
}

#[test]
fn a_neighbour_has_no_more_ends_than_its_share() {
    let limits = Limits { ends_per_link: 2, ..Limits::default() };
    let mut net = Network::new("abcd", limits, 1);
    for other in ["a", "d"] {
        net.connect(&id("b"), &id(other));
    }
    (1..=3).for_each(|number| net.open(number, route("ab")));
    net.open(1, route("db"));
    net.settle();
    let reason = "b has too many circuits".to_owned();
    assert!(net.node("a").news.contains(&Action::Failed { id: 3, error: OpenError::Refused(reason) }));
    assert!(net.carries(&id("d"), 1), "another neighbour");
    net.close(&id("a"), 1);
    net.open(5, route("ab"));
    net.settle();
    assert!(net.carries(&id("a"), 5));
}

#[test]
fn the_last_node_makes_room_along_a_route_but_not_for_others() {
    let limits = Limits { ends: 3, per_route: 2, ..Limits::default() };
    let mut net = Network::new("abcd", limits, 1);
    for other in ["a", "b", "d"] {
        net.connect(&id("c"), &id(other));
    }
    net.connect(&id("a"), &id("b"));
    net.open(1, route("abc"));
    net.open(2, route("ac"));
    net.settle();
    for number in 3..=5 {
        net.open(number, route("abc"));
        net.settle();
    }
    assert_eq!(net.node("c").circuits.ends(), 3);
    let open: Vec<u64> = net.all_open().into_iter().map(|(_, number)| number).collect();
    assert_eq!(open, [2, 4, 5], "of those along one route the oldest went");
    let reason = "c has newer circuits along this route".to_owned();
    assert!(net.node("a").news.contains(&Action::Closed { id: 1, reason: reason.clone() }));
    assert!(net.node("c").news.contains(&Action::Left { key: key("a", 1), session: 7, reason }));

    net.open(1, route("dc"));
    net.settle();
    assert_eq!(net.node("d").news, refused("c has too many circuits"));
    assert!(open.into_iter().all(|number| net.carries(&id("a"), number)));
}

#[test]
fn a_draining_relay_keeps_what_it_has() {
    let mut net = Network::chain("abc");
    net.open(1, route("abc"));
    net.settle();
    net.at(&id("b"), |node, _, _, _| node.relay(false));
    net.open(2, route("abc"));
    net.open(3, route("ab"));
    net.settle();
    assert!(net.carries(&id("a"), 1) && net.carries(&id("a"), 3));
    assert!(!net.node("a").circuits.is_open(2));
}

#[test]
fn a_link_takes_thousands_of_circuits_with_it() {
    let mut net = Network::new("abcd", Limits { per_route: PER_LINK, ..Limits::default() }, 1);
    let link = net.connect(&id("b"), &id("c"));
    net.connect(&id("a"), &id("b"));
    net.connect(&id("c"), &id("d"));
    let count = u64::try_from(PER_LINK).unwrap();
    for number in 0..=count {
        net.open(number, route(if number % 2 == 0 { "abc" } else { "abcd" }));
    }
    net.settle();
    assert_eq!(net.node("a").open.len(), PER_LINK, "one too many");
    assert_eq!(net.node("b").circuits.transit(), PER_LINK);
    net.cut(link);
    net.settle();
    net.assert_blank();
}
