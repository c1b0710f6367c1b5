//! Tests of flooding between two databases.

use proptest::prelude::*;

use super::*;
use crate::lsdb::fake::{FakeSigner, FakeVerifier};
use crate::lsdb::record::{Content, Kind, Listed, Version, sign};
use crate::lsdb::{MAX_AGE, Outcome};
use crate::wire::{MAX_FRAME_LEN, encode};

const LINK: LinkId = LinkId(1);

fn id(text: &str) -> NodeId {
    text.parse().unwrap()
}

fn record(origin: &str, sequence: u32) -> Vec<u8> {
    let listed = Listed { neighbor: id("x"), cost: sequence, band: 0 };
    let version = Version { epoch: 1, sequence };
    sign(&id(origin), version, &Content::Links(vec![listed]), &FakeSigner::of(&id(origin)))
}

struct End {
    name: &'static str,
    db: Database,
    flood: Flood,
}

impl End {
    fn new(name: &'static str) -> Self {
        Self { name, db: Database::default(), flood: Flood::default() }
    }

    fn have(&mut self, record: &[u8], now: Time) {
        self.db.offer(record, Duration::ZERO, now, &FakeVerifier::default());
    }

    fn take(&mut self, message: &Message, now: Time, out: &mut Outgoing) {
        match message {
            Message::Advert(advert) => {
                for AgedRecord(age, record) in &advert.records {
                    let age = Duration::from_secs((*age).into());
                    match self.db.offer(&record.0, age, now, &FakeVerifier::default()) {
                        Outcome::Stored(key, news) => self.flood.spread(key, news, Some(LINK), now),
                        Outcome::Same(key) => self.flood.known(key, LINK),
                        Outcome::Older(key) => self.flood.send(key, LINK, now),
                        other => panic!("{other:?}"),
                    }
                }
            }
            Message::Digest(digest) => self.flood.digest(LINK, digest, &self.db, now, out),
            Message::DigestRequest(request) => self.flood.request(LINK, request, &self.db, now),
            other => panic!("{other:?}"),
        }
    }
}

/// Connects the two and lets them talk until they are silent. Returns messages, records and bytes on the wire.
fn talk(a: &mut End, b: &mut End, mut now: Time) -> (usize, usize, usize) {
    a.flood.link_up(LINK, &id(a.name), &id(b.name), now);
    b.flood.link_up(LINK, &id(b.name), &id(a.name), now);
    let (mut messages, mut records, mut bytes) = (0, 0, 0);
    let until = now + sync::ANNOUNCE / 2;
    while now < until {
        for _ in 0..2 {
            let mut out = Outgoing::new();
            a.flood.poll(&a.db, now, &mut out);
            while let Some((_, message)) = (!out.is_empty()).then(|| out.remove(0)) {
                let len = encode(&id(b.name), &message).len();
                assert!(len <= MAX_FRAME_LEN, "{len} bytes");
                (messages, bytes) = (messages + 1, bytes + len);
                if let Message::Advert(advert) = &message {
                    records += advert.records.len();
                }
                let mut back = Outgoing::new();
                b.take(&message, now, &mut back);
                for (_, message) in back {
                    (messages, bytes) = (messages + 1, bytes + encode(&id(a.name), &message).len());
                    a.take(&message, now, &mut out);
                }
            }
            std::mem::swap(a, b);
        }
        now = now + PACE;
    }
    a.flood.link_down(LINK);
    b.flood.link_down(LINK);
    (messages, records, bytes)
}

#[test]
fn one_difference_in_a_thousand_costs_a_few_small_messages() {
    let (mut a, mut b) = (End::new("a"), End::new("b"));
    for n in 0..1000 {
        let record = record(&format!("n{n}"), 1);
        a.have(&record, Time(0));
        b.have(&record, Time(0));
    }
    assert_eq!(talk(&mut a, &mut b, Time(0)).0, 1, "equal databases exchange one message");
    b.have(&record("n7", 2), Time(0));
    let (messages, records, bytes) = talk(&mut a, &mut b, Time(0));
    println!("{messages} messages, {bytes} bytes");
    assert!(messages <= 6 && records == 1 && bytes <= 2500, "{messages}, {records}, {bytes}");
    assert_eq!(a.db.sums(), b.db.sums());
}

#[test]
fn a_node_that_joins_gets_everything_once() {
    let (mut a, mut b) = (End::new("a"), End::new("b"));
    for n in 0..2000 {
        b.have(&record(&format!("n{n}"), 1), Time(0));
    }
    let (messages, records, _) = talk(&mut a, &mut b, Time(0));
    assert_eq!((records, a.db.len()), (2000, 2000));
    assert!(messages < 30, "{messages} messages");
    assert_eq!(a.db.sums(), b.db.sums());
}

#[test]
fn age_travels_and_never_shrinks() {
    let (mut a, mut b) = (End::new("a"), End::new("b"));
    a.have(&record("n", 1), Time(0));
    let later = Time(0) + MAX_AGE / 2;
    talk(&mut a, &mut b, later);
    let key = b.db.key(&id("n"), Kind::Links).unwrap();
    assert!(b.db.record(key, later + sync::ANNOUNCE).unwrap().0 >= MAX_AGE / 2);
    assert!(b.db.next_expiry() <= a.db.next_expiry());
}

#[test]
fn an_origin_that_changes_all_the_time_is_passed_on_less_and_less() {
    let mut end = End::new("a");
    end.flood.link_up(LINK, &id("z"), &id("a"), Time(0));
    let (mut sent, mut out) = (0, Outgoing::new());
    for step in 0..3000u32 {
        let now = Time(0) + Duration::from_millis(10) * step;
        let origin = end.db.key(&id("n"), Kind::Links).map(|key| key.name);
        if end.flood.admits(origin, now)
            && let Outcome::Stored(key, news) =
                end.db.offer(&record("n", step + 1), Duration::ZERO, now, &FakeVerifier::default())
        {
            end.flood.spread(key, news, None, now);
        }
        end.flood.poll(&end.db, now, &mut out);
        sent += out.drain(..).filter(|(_, message)| matches!(message, Message::Advert(_))).count();
        assert!(end.flood.waiting() <= 1);
    }
    assert!(sent <= 18, "{sent} in 30 s");
    assert!(end.flood.counters().damped > 1500);
}

#[test]
fn a_neighbour_that_asks_without_end_is_answered_within_bounds() {
    let mut end = End::new("b");
    end.flood.link_up(LINK, &id("b"), &id("a"), Time(0));
    end.have(&record("n", 1), Time(0));
    let mut out = Outgoing::new();
    for _ in 0..10_000 {
        let root = crate::wire::Digest::Root(crate::wire::Sum(1));
        end.flood.digest(LINK, &root, &end.db, Time(5), &mut out);
    }
    assert!(out.len() <= 256, "{} answers", out.len());
    assert!(end.flood.counters().digests_ignored > 9000);
}

proptest! {
    #[test]
    fn two_databases_are_equal_after_one_comparison(
        here in prop::collection::btree_map(0u16..300, 1u32..4, 0..120),
        there in prop::collection::btree_map(0u16..300, 1u32..4, 0..120),
        swap in any::<bool>(),
    ) {
        let (mut a, mut b) = (End::new("a"), End::new("b"));
        for (end, records) in [(&mut a, &here), (&mut b, &there)] {
            for (n, sequence) in records {
                end.have(&record(&format!("n{n}"), *sequence), Time(0));
            }
        }
        if swap {
            std::mem::swap(&mut a, &mut b);
        }
        let (_, sent, _) = talk(&mut a, &mut b, Time(0));
        prop_assert_eq!(a.db.sums(), b.db.sums());
        let missing = (0..300).filter(|n| here.get(n) != there.get(n)).count();
        prop_assert_eq!(sent, missing, "each missing record goes once");
        for n in 0..300 {
            let key = a.db.key(&id(&format!("n{n}")), Kind::Links);
            let expected = here.get(&n).max(there.get(&n));
            prop_assert_eq!(key.and_then(|key| a.db.version(key)).map(|v| v.sequence), expected.copied());
        }
    }
}
