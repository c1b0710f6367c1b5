//! Tests of the database.

use proptest::prelude::*;

use super::*;
use crate::lsdb::fake::{FakeSigner, FakeVerifier, key_of};
use crate::lsdb::record::{MAX_NEIGHBORS, sign};
use crate::lsdb::{MAX_RECORD_LEN, Signer};

const NOW: Time = Time(1_000_000);
const HOUR: Duration = Duration::from_hours(1);

fn id(text: &str) -> NodeId {
    text.parse().unwrap()
}

fn version(epoch: u64, sequence: u32) -> Version {
    Version { epoch, sequence }
}

fn links(origin: &str, at: Version, neighbors: &[(&str, u32)]) -> Vec<u8> {
    let listed = |(neighbor, cost): &(&str, u32)| Listed { neighbor: id(neighbor), cost: *cost, band: 0 };
    let content = Content::Links(neighbors.iter().map(listed).collect());
    sign(&id(origin), at, &content, &FakeSigner::of(&id(origin)))
}

fn offer(db: &mut Database, record: &[u8], now: Time) -> Outcome {
    db.offer(record, Duration::ZERO, now, &FakeVerifier::default())
}

/// A verifier that must not be asked.
struct Never;

impl Verifier for Never {
    fn verify(&self, _: &NodeId, _: &KeyHash, _: &[u8], _: &[u8]) -> Verdict {
        panic!("the signature was looked at");
    }

    fn may_relay(&self, _: &KeyHash) -> bool {
        panic!("the certificate was looked at");
    }
}

#[test]
fn the_newest_stays() {
    let mut db = Database::default();
    let old = links("a", version(1, 5), &[("b", 1)]);
    let new = links("a", version(2, 1), &[("c", 1)]);
    assert!(matches!(offer(&mut db, &old, NOW), Outcome::Stored(_, News::Good)));
    assert!(matches!(offer(&mut db, &old, NOW), Outcome::Same(_)));
    assert!(matches!(offer(&mut db, &new, NOW), Outcome::Stored(_, News::Bad)));
    assert!(matches!(offer(&mut db, &old, NOW), Outcome::Older(_)));
    assert_eq!(db.links(&id("a")).unwrap()[0].neighbor, id("c"));
    assert_eq!((db.names.find(&id("b")), db.len()), (None, 1), "what nothing mentions is forgotten");
}

#[test]
fn what_is_known_is_known_without_a_look_at_its_signature() {
    let mut db = Database::default();
    let old = links("a", version(1, 5), &[("b", 1)]);
    let new = links("a", version(1, 6), &[("b", 1)]);
    assert!(matches!(offer(&mut db, &new, NOW), Outcome::Stored(..)));
    assert!(matches!(db.offer(&new, HOUR, NOW, &Never), Outcome::Same(_)));
    assert!(matches!(db.offer(&old, HOUR, NOW, &Never), Outcome::Older(_)));
}

#[test]
fn lies_are_refused_and_change_nothing() {
    let mut db = Database::default();
    offer(&mut db, &links("a", version(1, 1), &[("b", 1)]), NOW);
    let sums = db.sums().clone();
    let content = Content::Links(vec![]);
    let foreign = sign(&id("a"), version(9, 9), &content, &FakeSigner::of(&id("liar")));
    assert_eq!(offer(&mut db, &foreign, NOW), Outcome::Refused(Refusal::Forged));
    let mut forged = links("a", version(9, 9), &[]);
    forged[5] ^= 1;
    assert_eq!(offer(&mut db, &forged, NOW), Outcome::Refused(Refusal::Forged));
    let mut many = links("a", version(9, 9), &[]);
    let count = many.len() - 2;
    many[count..].copy_from_slice(&u16::try_from(MAX_NEIGHBORS + 1).unwrap().to_be_bytes());
    many.extend(vec![b'x'; 5_000]);
    assert_eq!(offer(&mut db, &many, NOW), Outcome::Refused(Refusal::Malformed(RecordError::Count)));
    many.resize(MAX_RECORD_LEN + 1, 0);
    assert_eq!(offer(&mut db, &many, NOW), Outcome::Refused(Refusal::Malformed(RecordError::Long)));
    assert_eq!(offer(&mut db, &[], NOW), Outcome::Refused(Refusal::Malformed(RecordError::Short)));
    assert_eq!(*db.sums(), sums);
}

#[test]
fn a_relay_without_the_capability_is_refused() {
    let mut db = Database::default();
    let mut offer_node = |relay| {
        let content = Content::Node(NodeInfo { relay, ..NodeInfo::default() });
        offer(&mut db, &sign(&id("leaf1"), version(1, 1), &content, &FakeSigner::of(&id("leaf1"))), NOW)
    };
    assert_eq!(offer_node(true), Outcome::Refused(Refusal::Capability));
    assert!(matches!(offer_node(false), Outcome::Stored(..)));
}

#[test]
fn an_unknown_key_is_named() {
    let verifier = FakeVerifier::learning(&id("a"));
    let mut db = Database::default();
    let record = links("b", version(1, 1), &[]);
    let outcome = db.offer(&record, Duration::ZERO, NOW, &verifier);
    assert_eq!(outcome, Outcome::UnknownKey(key_of(&id("b"))));
    assert!(db.is_empty());
}

#[test]
fn a_withdrawn_record_never_returns() {
    let mut db = Database::default();
    let old = links("a", version(1, 1), &[("b", 1)]);
    offer(&mut db, &old, NOW);
    let withdrawn =
        sign(&id("a"), version(1, 2), &Content::Withdrawn(Kind::Links), &FakeSigner::of(&id("a")));
    assert!(matches!(offer(&mut db, &withdrawn, NOW), Outcome::Stored(_, News::Bad)));
    assert_eq!((db.links(&id("a")), db.nodes().count(), db.len()), (None, 0, 1));
    // Kept, passed on and compared until it is as old as any copy can be; then its version is remembered.
    let mut now = NOW;
    for _ in 0..12 {
        now = now + HOUR;
        db.expire(now);
        assert!(matches!(offer(&mut db, &old, now), Outcome::Older(_)), "returned after {:?}", now - NOW);
        assert!(db.links(&id("a")).is_none());
    }
    assert_eq!((db.len(), db.sums().root()), (0, 0));
    db.expire(now + HOUR);
    assert_eq!((db.origins, db.names.find(&id("a"))), (0, None), "tombstones end");
}

#[test]
fn what_is_not_refreshed_is_purged_at_one_age_wherever_it_came_from() {
    let mut db = Database::default();
    let record = links("a", version(1, 1), &[("b", 1)]);
    db.offer(&record, HOUR * 4, NOW, &FakeVerifier::default());
    let key = db.key(&id("a"), Kind::Links).unwrap();
    assert_eq!(db.record(key, NOW + HOUR).unwrap().0, HOUR * 5);
    assert_eq!(db.next_expiry(), Some(NOW + HOUR * 2));
    assert_eq!(db.expire(NOW + HOUR * 2), [key]);
    assert!(matches!(offer(&mut db, &record, NOW + HOUR * 2), Outcome::Older(_)));
    let other = links("c", version(1, 1), &[]);
    let outcome = db.offer(&other, MAX_AGE, NOW, &FakeVerifier::default());
    assert_eq!(outcome, Outcome::Refused(Refusal::Expired));
}

#[test]
fn a_revoked_key_is_purged_and_refused() {
    let mut db = Database::default();
    offer(&mut db, &links("a", version(1, 1), &[("b", 1)]), NOW);
    offer(&mut db, &links("b", version(1, 1), &[("a", 1)]), NOW);
    assert_eq!(db.revoke(FakeSigner::of(&id("a")).key(), NOW).len(), 1);
    assert!(db.links(&id("a")).is_none() && db.links(&id("b")).is_some());
    let newer = links("a", version(2, 1), &[]);
    assert_eq!(offer(&mut db, &newer, NOW), Outcome::Refused(Refusal::Revoked));
}

#[test]
fn the_same_said_again_is_no_news() {
    let mut db = Database::default();
    offer(&mut db, &links("a", version(1, 1), &[("b", 100)]), NOW);
    let mut news = |sequence, neighbors: &[(&str, u32)]| match offer(
        &mut db,
        &links("a", version(1, sequence), neighbors),
        NOW,
    ) {
        Outcome::Stored(_, news) => news,
        other => panic!("{other:?}"),
    };
    assert_eq!(news(2, &[("b", 100)]), News::Refresh);
    assert_eq!(news(3, &[("b", 130)]), News::Good);
    assert_eq!(news(4, &[("b", 130), ("c", 1)]), News::Good);
    assert_eq!(news(5, &[("b", 900), ("c", 1)]), News::Bad);
    assert_eq!(news(6, &[("c", 1)]), News::Bad);
}

/// 10,000 nodes of degree 8 with two addresses and two services each, ids as `ffmesh init` makes them.
#[test]
fn ten_thousand_nodes_of_degree_eight_take_at_most_fifteen_megabytes() {
    const NODES: usize = 10_000;
    let name = |n: usize| format!("{:010x}", (n % NODES) * 104_729);
    let mut db = Database::default();
    for n in 0..NODES {
        let origin = name(n);
        let near: Vec<_> =
            [1, 7, 100, 1000].iter().flat_map(|d| [name(n + d), name(n + NODES - d)]).collect();
        let near: Vec<_> = near.iter().map(|id| (id.as_str(), 12_345)).collect();
        offer(&mut db, &links(&origin, version(1_795_346_644_912, 3), &near), NOW);
        let service = |name: &str| super::super::Service {
            name: name.to_owned(),
            protocol: 1,
            attachment: "group:dev".to_owned(),
        };
        let node = NodeInfo {
            boot: 1_795_346_644_912,
            relay: true,
            transit: true,
            addresses: vec!["vps.example.com:3334".parse().unwrap(), "[2001:db8::1:2]:3334".parse().unwrap()],
            services: vec![service("database"), service("web")],
            ..NodeInfo::default()
        };
        let (origin, at) = (id(&origin), version(1_795_346_644_912, 1));
        offer(&mut db, &sign(&origin, at, &Content::Node(node), &FakeSigner::of(&origin)), NOW);
    }
    assert_eq!(db.len(), 2 * NODES);
    assert_eq!(db.nodes().map(|name| db.edges(name).len()).sum::<usize>(), 8 * NODES);
    println!("{} bytes for {NODES} nodes of degree 8", db.memory());
    assert!(db.memory() <= 15 << 20, "{} bytes", db.memory());
}

/// Records of three origins with few versions, so that some are older, equal and in conflict.
fn records() -> impl Strategy<Value = Vec<(u8, u32, u8)>> {
    prop::collection::vec((0u8..3, 0u32..3, 0u8..3), 1..30)
}

fn build((origin, sequence, cost): (u8, u32, u8)) -> Vec<u8> {
    links(&format!("n{origin}"), version(1, sequence), &[("x", u32::from(cost))])
}

proptest! {
    #[test]
    fn the_order_in_which_records_come_does_not_matter(specs in records(), seed in any::<u64>()) {
        let all = |specs: &[(u8, u32, u8)]| {
            let mut db = Database::default();
            for spec in specs {
                offer(&mut db, &build(*spec), NOW);
            }
            db
        };
        let first = all(&specs);
        let mut random = crate::random::Random::new(seed);
        let mut shuffled = specs.clone();
        shuffled.sort_by_cached_key(|_| random.bits());
        let second = all(&shuffled);
        prop_assert_eq!(first.sums(), second.sums());
        prop_assert_eq!(first.entries(|_| true), second.entries(|_| true));
    }

    #[test]
    fn sums_are_those_of_the_entries(specs in records(), revoke in 0u8..3) {
        let mut db = Database::default();
        for spec in &specs {
                offer(&mut db, &build(*spec), NOW);
            }
        db.revoke(key_of(&id(&format!("n{revoke}"))), NOW);
        let entries = db.entries(|_| true);
        prop_assert_eq!(entries.iter().fold(0, |sum, (_, entry)| sum ^ entry.fingerprint), db.sums().root());
        db.expire(NOW + MAX_AGE);
        prop_assert_eq!(db.sums().root(), 0);
        db.expire(NOW + MAX_AGE + TOMBSTONE);
        prop_assert_eq!((db.origins, db.names.find(&id("x"))), (0, None));
    }

    #[test]
    fn a_newer_record_is_never_replaced_by_an_older(specs in records()) {
        let mut db = Database::default();
        let mut newest = std::collections::BTreeMap::new();
        for spec in specs {
            offer(&mut db, &build(spec), NOW);
            let origin = id(&format!("n{}", spec.0));
            let at: &mut Version = newest.entry(origin.clone()).or_default();
            *at = (*at).max(version(1, spec.1));
            prop_assert_eq!(db.version(db.key(&origin, Kind::Links).unwrap()), Some(*at));
        }
    }
}
