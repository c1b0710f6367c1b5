//! A member that lies is refused and counted, and the rest is unharmed.

use super::*;
use crate::flood::aged;
use crate::lsdb::fake::FakeSigner;
use crate::lsdb::record::{Content, Kind, Listed, NodeInfo, Version, sign};
use crate::wire::{Advert, Digest, DigestRequest, FindNode, ListedRecord, MAX_DIGEST_ENTRIES, Message, Sum};

/// A mesh of eight with a liar, node 60, linked to node 0. What it says is up to the test.
fn with_liar(seed: u64) -> (Net, LinkId) {
    let mut net = Net::ring(8, &[1, 3], seed);
    net.start(60, 1);
    let link = net.connect(60, 0).unwrap();
    net.run(QUIET);
    net.check();
    (net, link)
}

fn say(net: &mut Net, link: LinkId, records: &[Vec<u8>]) {
    let records = records.iter().map(|record| aged(Duration::ZERO, record)).collect();
    net.input(0, Input::Message(link, Message::Advert(Advert { records })));
}

pub(super) fn links(origin: usize, by: usize, version: Version, to: &[usize]) -> Vec<u8> {
    let listed = to.iter().map(|to| Listed { neighbor: id(*to), cost: 0, band: 0 }).collect();
    sign(&id(origin), version, &Content::Links(listed), &FakeSigner::of(&id(by)))
}

pub(super) const HIGH: Version = Version { epoch: u64::MAX, sequence: u32::MAX };

/// Lets the mesh settle and checks that it is what it was before.
fn unharmed(net: &mut Net, before: &[std::sync::Arc<crate::mesh::Table>]) {
    net.run(QUIET);
    net.check();
    for (table, mesh) in before.iter().zip(net.nodes.values()) {
        assert_eq!(table.reachable(), mesh.table().reachable());
        assert!(table.reachable().iter().all(|id| table.path(id) == mesh.table().path(id)));
    }
}

fn tables(net: &Net) -> Vec<std::sync::Arc<crate::mesh::Table>> {
    net.nodes.values().map(crate::mesh::Mesh::table).collect()
}

#[test]
fn records_in_the_name_of_others_are_refused_and_counted() {
    let (mut net, link) = with_liar(20);
    let before = tables(&net);
    // Of another node, of the neighbour itself, and of a node that does not exist
    say(&mut net, link, &[links(3, 60, HIGH, &[]), links(0, 60, HIGH, &[]), links(77, 60, HIGH, &[0])]);
    let mut forged = links(3, 3, HIGH, &[]);
    forged[3] ^= 1;
    say(&mut net, link, &[forged]);
    assert_eq!(net.nodes[&0].counters().refused_forged, 4);
    unharmed(&mut net, &before);
}

#[test]
fn forged_records_without_end_are_soon_not_looked_at() {
    let (mut net, link) = with_liar(21);
    let before = tables(&net);
    for _ in 0..100 {
        say(&mut net, link, &vec![links(3, 60, HIGH, &[]); 100]);
    }
    let counters = net.nodes[&0].counters();
    assert!(counters.refused_forged <= 64 && counters.muted >= 9_900, "{counters:?}");
    unharmed(&mut net, &before);
}

#[test]
fn old_records_are_answered_with_the_new_ones() {
    let (mut net, link) = with_liar(22);
    let before = tables(&net);
    say(&mut net, link, &[links(3, 3, Version { epoch: 0, sequence: 1 }, &[60])]);
    unharmed(&mut net, &before);
}

#[test]
fn a_million_services_are_refused() {
    let (mut net, link) = with_liar(23);
    let before = tables(&net);
    let node = NodeInfo { relay: true, transit: true, ..NodeInfo::default() };
    let mut many = sign(&id(60), HIGH, &Content::Node(node), &FakeSigner::of(&id(60)));
    let count = many.len() - 2;
    many[count..].copy_from_slice(&[0xff, 0xff]);
    many.extend((0..200_000).flat_map(|_| [1, b's', 0, 0]));
    say(&mut net, link, &[many.clone()]);
    many.truncate(60_000);
    say(&mut net, link, &[many]);
    assert_eq!(net.nodes[&0].counters().refused_malformed, 2);
    unharmed(&mut net, &before);
}

#[test]
fn links_that_the_other_end_does_not_list_attract_no_traffic() {
    let (mut net, link) = with_liar(24);
    let before = tables(&net);
    net.nodes.remove(&60); // an honest node would go above what is said in its name
    say(&mut net, link, &[links(60, 60, Version { epoch: 1, sequence: 1000 }, &[0, 1, 2, 3, 4, 5, 6, 7])]);
    net.run(QUIET);
    assert_eq!(net.nodes[&5].database().links(&id(60)).map(|links| links.len()), Some(8));
    for (table, mesh) in before.iter().zip(net.nodes.values()) {
        assert!(table.reachable().iter().all(|id| table.path(id) == mesh.table().path(id)));
    }
}

#[test]
fn what_is_said_in_a_nodes_name_with_its_key_is_overruled_by_the_node() {
    let (mut net, link) = with_liar(29);
    let before = tables(&net);
    say(&mut net, link, &[links(60, 60, Version { epoch: 1, sequence: 1000 }, &[5])]);
    unharmed(&mut net, &before);
    assert!(matches!(net.events[..], [.., (60, Event::OwnRecordReturned(_))]));
}

#[test]
fn a_member_that_changes_its_mind_all_the_time_is_damped() {
    let (mut net, link) = with_liar(25);
    net.crash(60); // what is said in its name comes from the test alone
    let link = {
        let _ = link;
        net.start(60, 2);
        net.connect(60, 0).unwrap()
    };
    net.run(QUIET);
    let stored = |net: &Net, node: usize| net.nodes[&node].counters().records_stored;
    let (near, far) = (stored(&net, 0), stored(&net, 5));
    net.nodes.remove(&60);
    for n in 0..10_000u32 {
        let version = Version { epoch: 3, sequence: n };
        say(&mut net, link, &[links(60, 60, version, &[(n % 8) as usize])]);
        net.run(ms(1));
    }
    assert!(stored(&net, 0) - near <= 100, "{}", stored(&net, 0) - near);
    assert!(stored(&net, 5) - far <= 10, "{}", stored(&net, 5) - far);
}

#[test]
fn two_genuine_records_of_one_version_end_as_one() {
    let (mut net, link) = with_liar(26);
    let other = net.connect(60, 5).unwrap();
    net.run(QUIET);
    let twice = Version { epoch: 5, sequence: 5 };
    net.nodes.remove(&60);
    say(&mut net, link, &[links(60, 60, twice, &[0])]);
    let advert = Advert { records: vec![aged(Duration::ZERO, &links(60, 60, twice, &[5]))] };
    net.input(5, Input::Message(other, Message::Advert(advert)));
    net.run(QUIET);
    let said: BTreeSet<_> =
        net.nodes.values().map(|mesh| mesh.database().links(&id(60)).unwrap()[0].neighbor.clone()).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(net.nodes.values().any(|mesh| mesh.counters().conflicts > 0));
}

#[test]
fn a_leaf_that_claims_to_be_a_relay_is_refused() {
    let mut net = Net::new(27);
    for node in [0, LEAF, 1] {
        net.start(node, 1);
    }
    let link = net.connect(0, LEAF).unwrap();
    net.connect(LEAF, 1);
    net.run(QUIET);
    let node = NodeInfo { relay: true, transit: true, ..NodeInfo::default() };
    say(&mut net, link, &[sign(&id(LEAF), HIGH, &Content::Node(node), &FakeSigner::of(&id(LEAF)))]);
    assert_eq!(net.nodes[&0].counters().refused_capability, 1);
    net.run(QUIET);
    net.check();
}

#[test]
fn digests_and_queries_that_lie_cost_only_their_link() {
    let (mut net, link) = with_liar(28);
    let before = tables(&net);
    let listed = |n: u64| {
        let origin = id(usize::try_from(n % 8).unwrap());
        let bucket = crate::lsdb::digest::Bucket::of(&origin).0;
        (bucket, vec![ListedRecord(origin, 1, u64::MAX, u32::MAX, Sum(n))])
    };
    for n in 0..2000 {
        for digest in [
            Digest::Root(Sum(n)),
            Digest::Groups(crate::wire::SumList::new(vec![n; 32])),
            Digest::Buckets(vec![
                (255, crate::wire::SumList::new(vec![n; 32])),
                (3, crate::wire::SumList::new(vec![n; 32])),
            ]),
            Digest::Entries(vec![listed(n)]),
        ] {
            net.input(0, Input::Message(link, Message::Digest(digest)));
        }
        let records = vec![(id(3), Kind::Links as u8); MAX_DIGEST_ENTRIES];
        net.input(0, Input::Message(link, Message::DigestRequest(DigestRequest { records })));
        let find = FindNode { query: n, origin: id(3), target: id(55), ttl: 255 };
        net.input(0, Input::Message(link, Message::FindNode(find)));
    }
    let counters = net.nodes[&0].counters();
    assert!(counters.flood.digests_ignored > 9_000 && counters.finds_ignored > 1_900, "{counters:?}");
    unharmed(&mut net, &before);
}
