//! The machines by themselves: maps, setting up and tearing down, and whatever order events come in.

use proptest::prelude::*;

use super::net::{Net, ms, path};
use super::*;
use crate::select::Offer;

fn at(n: u64) -> Time {
    Time(n * 1000)
}

fn offers(routes: &[usize]) -> Vec<Offer<Path>> {
    routes
        .iter()
        .map(|route| Offer { route: path(*route), cost: 50_000, upstreams: 0, direct: false })
        .collect()
}

fn poll(decider: &mut Decider, now: Time) -> Vec<Step> {
    let mut steps = Vec::new();
    decider.poll(now, &mut steps);
    steps
}

#[test]
fn the_session_starts_on_the_circuit_that_it_was_dialled_over() {
    let mut decider = Decider::new(at(0));
    decider.adopt(&path(0), 7, at(1));
    let map = Map { epoch: 1, slots: [7; SLOTS] };
    assert_eq!((decider.map(), decider.is_alive(7)), (map, true));
    let steps = poll(&mut decider, at(1));
    assert_eq!(steps, [Step::Point(map), Step::Ask { circuit: 7, seq: 1 }]);
    assert_eq!(decider.report()[0].slots, [true; SLOTS]);
    decider.offer(&offers(&[0, 1]), |_| None, at(2));
    assert_eq!(decider.deadline(), at(2));
    assert_eq!(poll(&mut decider, at(2)), [Step::Open(path(1))]);
    assert_eq!(poll(&mut decider, at(3)), [], "once");
}

#[test]
fn a_new_circuit_is_asked_at_once_and_used_after_two_echoes() {
    let mut decider = Decider::new(at(0));
    decider.offer(&offers(&[1]), |_| None, at(0));
    assert_eq!(poll(&mut decider, at(0)), [Step::Open(path(1))]);
    decider.opened(&path(1), 5, at(100));
    assert_eq!(poll(&mut decider, at(100)), [Step::Ask { circuit: 5, seq: 1 }]);
    decider.echo(5, 1, at(105));
    decider.echo(5, 1, at(105));
    assert_eq!(poll(&mut decider, at(110)), [Step::Ask { circuit: 5, seq: 2 }], "the same echo twice is one");
    decider.echo(5, 2, at(115));
    let map = Map { epoch: 1, slots: [5; SLOTS] };
    let alive = Step::Verdict { path: path(1), circuit: 5, finding: Finding::Alive, why: "answers" };
    assert_eq!(poll(&mut decider, at(115)), [alive, Step::Point(map), Step::Ask { circuit: 5, seq: 3 }]);
}

#[test]
fn echoes_of_asks_from_before_its_death_prove_nothing() {
    let mut net = Net::busy(&[200, 10], 1);
    net.roads[0].cut = [false, true];
    net.until(ms(600), |net| !net.alive(0));
    net.run(ms(1000));
    assert!(!net.alive(0), "{:?}", net.verdicts);
}

#[test]
fn what_cannot_be_opened_is_tried_less_and_less_often() {
    let mut net = Net::new(&[10, 10], 1);
    net.roads[1].refuses = true;
    net.run(ms(25_000));
    let gaps: Vec<_> = net.opens.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_millis()).collect();
    assert_eq!(gaps[..5], [520, 1020, 2020, 4020, 5020]);
    net.roads[1].refuses = false;
    net.run(ms(6000));
    assert!(net.alive(1));
    net.kill(1);
    let opens = net.opens.len();
    net.run(ms(600));
    assert_eq!(net.opens.len() - opens, 1, "at once, and again after 500 ms");
}

#[test]
fn circuits_of_routes_that_nobody_wants_are_closed_and_never_one_in_use() {
    let mut net = Net::new(&[10; 9], 1);
    net.run(ms(500));
    assert_eq!(net.opens.len(), MAX_CIRCUITS - 1, "more than are ever offered");
    net.offer(&[0, 1, 2]);
    net.run(ms(500));
    assert_eq!(net.closes.len(), 3);
    let used = net.decider.map().slots;
    for round in 0..30 {
        let first = round % 7;
        net.offer(&[first, first + 1, first + 2]);
        net.run(ms(1500));
        let open = net.decider.report().iter().filter(|report| report.circuit.is_some()).count();
        assert!(open <= MAX_CIRCUITS);
        let slots = net.decider.map().slots;
        assert!(net.closes.iter().all(|closed| !slots.contains(closed)));
    }
    assert!(used.iter().any(|circuit| net.closes.contains(circuit)));
    assert_eq!(net.deaths(), []);
}

#[test]
fn a_circuit_that_is_dead_for_long_is_replaced() {
    let mut net = Net::busy(&[10, 10], 1);
    let old = net.of(1).unwrap();
    net.roads[1].cut = [true; 2];
    net.run(ms(29_000));
    assert_eq!(net.of(1), Some(old));
    net.run(ms(3000));
    assert!(net.closes.contains(&old) && net.of(1).is_some_and(|new| new != old));
}

#[test]
fn a_circuit_opened_in_vain_is_closed() {
    let mut decider = Decider::new(at(0));
    decider.offer(&offers(&[1]), |_| None, at(0));
    poll(&mut decider, at(0));
    decider.offer(&[], |_| None, at(1));
    poll(&mut decider, at(1));
    decider.opened(&path(1), 5, at(2));
    assert_eq!(poll(&mut decider, at(2)), [Step::Ask { circuit: 5, seq: 1 }, Step::Close(5)]);
    decider.opened(&path(2), 6, at(3));
    assert_eq!(poll(&mut decider, at(3)), [Step::Close(6)]);
}

#[test]
fn the_report_says_how_each_route_stands() {
    let mut net = Net::busy(&[10, 20, 30], 1);
    net.roads[2].cut = [true; 2];
    net.run(ms(500));
    let report = net.decider.report();
    let states: Vec<_> = report.iter().map(|report| report.state).collect();
    assert_eq!(states, [RouteState::InUse, RouteState::Warm, RouteState::Down]);
    assert_eq!(report.iter().map(|report| report.slots[0]).collect::<Vec<_>>(), [true, false, false]);
    assert!((19..=21).contains(&report[1].srtt.unwrap().as_millis()));
    assert_eq!((report[1].loss, report[1].cost), (Some(0), 50_000));
}

fn map(epoch: u32, slots: [u64; 3]) -> Map {
    Map { epoch, slots }
}

#[test]
fn the_follower_takes_newer_maps_only_as_far_as_circuits_are_there() {
    let mut follower = Follower::new(at(0));
    follower.arrived(1, at(0));
    assert_eq!(follower.map(), map(0, [1; 3]));
    follower.arrived(2, at(1));
    follower.heard_map(map(5, [2, 1, 3]), at(2));
    assert_eq!(follower.map(), map(5, [2, 1, 1]), "3 has not arrived");
    follower.heard_map(map(4, [1, 1, 1]), at(3));
    follower.heard_map(map(5, [1, 1, 1]), at(3));
    assert_eq!(follower.map(), map(5, [2, 1, 1]), "old news");
    follower.arrived(3, at(4));
    assert_eq!(follower.map(), map(5, [2, 1, 3]));
    follower.activity(3, at(5), at(5), Time(0));
    follower.left(2, at(6));
    assert_eq!(follower.map(), map(5, [3, 1, 3]), "the one that was heard last");
    assert_eq!(follower.deadline(), at(0), "at once, since the first event");
    let mut steps = Vec::new();
    follower.poll(at(6), &mut steps);
    assert_eq!(steps, [FollowerStep::Point(map(5, [3, 1, 3]))]);
    follower.heard_map(map(6, [0, 3, 1]), at(7));
    assert_eq!(follower.map(), map(6, [3, 3, 1]), "0 names none");
}

#[test]
fn the_follower_forgets_surplus_circuits_and_none_in_a_slot() {
    let mut follower = Follower::new(at(0));
    for circuit in 1..1000 {
        follower.arrived(circuit, at(circuit));
        assert_eq!(follower.map().slots, [1; 3]);
    }
    follower.heard_map(map(1, [1, 999, 500]), at(1000));
    assert_eq!(follower.map().slots, [1, 999, 1]);
}

proptest! {
    #[test]
    fn maps_that_are_late_double_or_out_of_order_never_lead_back(
        epochs in prop::collection::vec(1u32..50, 1..200),
    ) {
        let mut follower = Follower::new(at(0));
        (1..=50).for_each(|circuit| follower.arrived(circuit, at(0)));
        let mut newest = 0;
        for epoch in epochs {
            newest = newest.max(epoch);
            follower.heard_map(map(epoch, [u64::from(epoch); 3]), at(1));
            prop_assert_eq!(follower.map().epoch, newest);
        }
    }
}

#[derive(Debug, Clone)]
enum Event {
    Offer(Vec<usize>),
    Adopt(usize),
    Opened(usize),
    Failed(usize),
    Closed(u64),
    Activity(u64, [u64; 3]),
    Echo(u64, u32),
    Asked(u64),
    Map(Map),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => prop::collection::vec(0usize..8, 0..5).prop_map(Event::Offer),
        1 => (0usize..8).prop_map(Event::Adopt),
        4 => (0usize..8).prop_map(Event::Opened),
        1 => (0usize..8).prop_map(Event::Failed),
        1 => (0u64..30).prop_map(Event::Closed),
        4 => (0u64..30, prop::array::uniform3(0u64..2_000_000)).prop_map(|(circuit, back)| Event::Activity(circuit, back)),
        8 => (0u64..30, 0u32..60).prop_map(|(circuit, seq)| Event::Echo(circuit, seq)),
        1 => (0u64..30).prop_map(Event::Asked),
        1 => (0u32..9, [0u64..30, 0u64..30, 0u64..30]).prop_map(|(epoch, slots)| Event::Map(Map { epoch, slots })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_happens_there_is_time_until_the_next_poll(
        events in prop::collection::vec((0u64..300_000, any_event()), 1..200),
    ) {
        let mut now = Time(10_000_000);
        let (mut decider, mut follower) = (Decider::new(now), Follower::new(now));
        let (mut steps, mut follows) = (Vec::new(), Vec::new());
        let (mut epoch, mut circuit) = (0, 0);
        for (gap, event) in events {
            let until = now + Duration::from_micros(gap);
            while decider.deadline().min(follower.deadline()) < until {
                now = now.max(decider.deadline().min(follower.deadline()));
                decider.poll(now, &mut steps);
                follower.poll(now, &mut follows);
                prop_assert!(decider.deadline() > now && follower.deadline() > now);
            }
            now = until;
            match event {
                Event::Offer(routes) => decider.offer(&offers(&routes), |_| None, now),
                Event::Adopt(route) => {
                    circuit += 1;
                    decider.adopt(&path(route), circuit, now);
                }
                Event::Opened(route) => {
                    circuit += 1;
                    decider.opened(&path(route), circuit, now);
                    follower.arrived(circuit, now);
                }
                Event::Failed(route) => decider.failed(&path(route), now),
                Event::Closed(id) => {
                    decider.closed(id, now);
                    follower.left(id, now);
                }
                Event::Activity(circuit, [heard, heard_data, sent]) => {
                    let back = |by: u64| Time(now.0 - by);
                    decider.activity(circuit, back(heard), back(heard_data), back(sent));
                    follower.activity(circuit, back(heard), back(heard_data), back(sent));
                }
                Event::Echo(circuit, seq) => {
                    decider.echo(circuit, seq, now);
                    follower.echo(circuit, seq, now);
                }
                Event::Asked(circuit) => decider.asked(circuit, now),
                Event::Map(map) => follower.heard_map(map, now),
            }
            steps.clear();
            decider.poll(now, &mut steps);
            follower.poll(now, &mut follows);
            prop_assert!(decider.deadline() > now && follower.deadline() > now);
            prop_assert!(decider.map().epoch >= epoch);
            epoch = decider.map().epoch;
            let circuits: Vec<_> = decider.report().iter().filter_map(|report| report.circuit).collect();
            prop_assert!(circuits.len() <= MAX_CIRCUITS + 1, "{:?}", circuits);
            let slots = decider.map().slots;
            let closes = steps.iter().filter_map(|step| if let Step::Close(id) = step { Some(id) } else { None });
            prop_assert!(closes.into_iter().all(|closed| !slots.contains(closed)), "{:?} {:?}", steps, slots);
        }
    }
}
