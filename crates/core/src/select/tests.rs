use proptest::prelude::*;

use super::*;

type Route = &'static str;

fn ms(n: u64) -> Time {
    Time(n * 1000)
}

fn offer(route: Route, cost_ms: u64) -> Offer<Route> {
    Offer { route, cost: cost_ms * 1000, upstreams: 0, direct: false }
}

/// Routes of these costs in ms, all up since 0.
fn up(offers: &[(Route, u64)]) -> Selector<Route> {
    let mut selector = Selector::default();
    set(&mut selector, offers, ms(0));
    for (route, _) in offers {
        selector.state(route, State::Up, ms(0));
    }
    selector
}

fn set(selector: &mut Selector<Route>, offers: &[(Route, u64)], now: Time) {
    let offers: Vec<_> = offers.iter().map(|(route, cost)| offer(route, *cost)).collect();
    selector.offer(&offers, |_| None, now);
}

/// Polls at each deadline up to `until`.
fn run(selector: &mut Selector<Route>, from: Time, until: Time) -> Time {
    let mut now = from;
    while let Some(next) = selector.deadline(now).filter(|next| *next <= until) {
        assert!(next > now);
        now = next;
        selector.poll(now);
    }
    until
}

#[test]
fn nothing_is_in_use_before_a_route_is_up() {
    let mut selector = Selector::default();
    assert_eq!((selector.in_use(), selector.deadline(ms(0))), (None, None));
    set(&mut selector, &[("a", 10), ("b", 5)], ms(0));
    assert_eq!((selector.in_use(), selector.slots()), (None, [None; 3]));
    selector.state(&"a", State::Up, ms(1));
    assert_eq!(selector.slots(), [Some(&"a"), None, None]);
    selector.state(&"b", State::Up, ms(2));
    assert_eq!(selector.slots(), [Some(&"a"), Some(&"b"), None], "the first one up stays in use");
    assert_eq!(selector.changes(), 0);
}

#[test]
fn a_working_route_is_left_for_one_a_third_cheaper_for_half_a_minute() {
    for (cost, moves) in [(69, true), (70, true), (71, false)] {
        let mut selector = up(&[("a", 100), ("b", 100)]);
        set(&mut selector, &[("a", 100), ("b", cost)], ms(1000));
        run(&mut selector, ms(1000), ms(30_999));
        assert_eq!(selector.in_use(), Some(&"a"));
        run(&mut selector, ms(30_999), ms(90_000));
        assert_eq!(selector.in_use(), Some(if moves { &"b" } else { &"a" }), "{cost}");
        assert!(selector.slots().contains(&Some(&"a")));
    }
}

#[test]
fn ten_milliseconds_are_the_least_gain() {
    for (cost, moves) in [(1, true), (2, true), (3, false)] {
        let mut selector = up(&[("a", 12), ("b", 12)]);
        set(&mut selector, &[("a", 12), ("b", cost)], ms(0));
        run(&mut selector, ms(0), ms(60_000));
        assert_eq!(selector.in_use(), Some(if moves { &"b" } else { &"a" }), "{cost}");
    }
}

#[test]
fn a_gain_that_is_interrupted_starts_again() {
    let mut selector = up(&[("a", 100), ("b", 100)]);
    set(&mut selector, &[("a", 100), ("b", 10)], ms(0));
    run(&mut selector, ms(0), ms(29_000));
    selector.state(&"b", State::Impaired, ms(29_000));
    selector.state(&"b", State::Up, ms(29_100));
    run(&mut selector, ms(29_100), ms(59_099));
    assert_eq!(selector.in_use(), Some(&"a"));
    run(&mut selector, ms(59_099), ms(59_100));
    assert_eq!(selector.in_use(), Some(&"b"));
}

#[test]
fn a_dead_route_is_left_at_once_and_not_returned_to() {
    let mut selector = up(&[("a", 50), ("b", 60), ("c", 55)]);
    selector.state(&"a", State::Down, ms(5));
    assert_eq!(selector.slots(), [Some(&"c"), Some(&"b"), None], "the others stay");
    selector.state(&"a", State::Up, ms(305));
    assert_eq!(selector.slots(), [Some(&"c"), Some(&"b"), Some(&"a")]);
    run(&mut selector, ms(305), ms(600_000));
    assert_eq!(selector.in_use(), Some(&"c"), "a is not a third cheaper");
    assert_eq!(selector.changes(), 0);
}

#[test]
fn the_last_route_stays_in_use_while_it_is_down() {
    let mut selector = up(&[("a", 50)]);
    selector.state(&"a", State::Down, ms(5));
    assert_eq!((selector.in_use(), selector.slots()), (Some(&"a"), [None; 3]));
    selector.state(&"a", State::Up, ms(400_000));
    assert_eq!((selector.slots(), selector.changes()), ([Some(&"a"), None, None], 0));
}

#[test]
fn a_lossy_route_is_left_at_once_and_carries_nothing() {
    let mut selector = up(&[("a", 50), ("b", 90)]);
    selector.state(&"a", State::Impaired, ms(5));
    assert_eq!(selector.slots(), [Some(&"b"), None, None]);
    selector.state(&"b", State::Impaired, ms(6));
    assert_eq!(selector.in_use(), Some(&"b"), "no better");
    selector.state(&"b", State::Down, ms(7));
    assert_eq!(selector.in_use(), Some(&"a"), "better than nothing");
}

fn with_backup() -> Selector<Route> {
    let mut selector = Selector::default();
    let backup = Offer { route: "lte", cost: 5_000, upstreams: 1_000, direct: false };
    selector.offer(&[offer("a", 50), offer("b", 300), backup], |_| None, ms(0));
    for route in ["a", "b", "lte"] {
        selector.state(&route, State::Up, ms(0));
    }
    selector
}

#[test]
fn a_backup_carries_nothing_while_a_cheaper_upstream_is_there() {
    let mut selector = with_backup();
    run(&mut selector, ms(0), ms(300_000));
    assert_eq!(selector.slots(), [Some(&"a"), Some(&"b"), None]);
    selector.state(&"a", State::Down, ms(300_000));
    assert_eq!(selector.slots(), [Some(&"b"), None, None]);
}

#[test]
fn a_backup_is_used_when_the_cheaper_ones_are_gone_and_left_after_half_a_minute() {
    let mut selector = with_backup();
    selector.state(&"a", State::Down, ms(1000));
    selector.state(&"b", State::Down, ms(2000));
    assert_eq!(selector.slots(), [Some(&"lte"), None, None]);
    selector.state(&"b", State::Up, ms(3000));
    run(&mut selector, ms(3000), ms(32_999));
    assert_eq!(selector.slots(), [Some(&"lte"), None, None]);
    run(&mut selector, ms(32_999), ms(33_000));
    assert_eq!(selector.slots(), [Some(&"b"), None, None]);
}

#[test]
fn a_flapping_route_is_the_last_choice_for_a_minute() {
    let mut selector = up(&[("a", 50), ("b", 10), ("c", 90)]);
    for at in [0, 100] {
        selector.state(&"b", State::Down, ms(at));
        selector.state(&"b", State::Up, ms(at + 50));
    }
    assert_eq!(selector.slots(), [Some(&"a"), None, Some(&"c")]);
    selector.state(&"a", State::Down, ms(200));
    assert_eq!(selector.in_use(), Some(&"c"));
    run(&mut selector, ms(200), ms(59_999));
    assert_eq!(selector.slots(), [Some(&"c"), None, None]);
    run(&mut selector, ms(59_999), ms(89_999));
    assert_eq!(selector.slots(), [Some(&"c"), Some(&"b"), None]);
    run(&mut selector, ms(89_999), ms(95_000));
    assert_eq!(selector.slots(), [Some(&"b"), Some(&"c"), None]);
}

#[test]
fn failures_are_remembered_of_a_route_that_the_mesh_takes_back_meanwhile() {
    let mut selector = up(&[("a", 50), ("b", 10)]);
    for at in [100, 200] {
        selector.state(&"b", State::Down, ms(at));
        set(&mut selector, &[("a", 50)], ms(at + 10));
        set(&mut selector, &[("a", 50), ("b", 10)], ms(at + 20));
        selector.state(&"b", State::Up, ms(at + 30));
    }
    run(&mut selector, ms(300), ms(60_000));
    assert_eq!(selector.slots(), [Some(&"a"), None, None]);
}

#[test]
fn one_link_flapping_at_one_hertz_changes_the_route_once() {
    let mut selector = up(&[("a", 10), ("b", 90)]);
    for second in 0..60 {
        selector.state(&"a", State::Down, ms(second * 1000));
        assert_eq!(selector.in_use(), Some(&"b"));
        selector.state(&"a", State::Up, ms(second * 1000 + 500));
    }
    assert_eq!((selector.in_use(), selector.changes()), (Some(&"b"), 1));
}

#[test]
fn a_dead_route_is_left_at_once_however_often() {
    let mut selector = up(&[("a", 50), ("b", 50)]);
    for kill in 0..20 {
        let used = *selector.in_use().unwrap();
        selector.state(&used, State::Down, ms(kill * 3000));
        assert_ne!(selector.in_use(), Some(&used), "kill {kill}");
        selector.state(&used, State::Up, ms(kill * 3000 + 1000));
    }
    assert_eq!(selector.changes(), MAX_CHANGES, "what is counted is bounded");
}

#[test]
fn other_changes_wait_once_five_were_made_in_a_minute() {
    let mut selector = up(&[("a", 50), ("b", 50)]);
    for change in 0..MAX_CHANGES as u64 {
        let used = *selector.in_use().unwrap();
        selector.state(&used, State::Down, ms(change * 1000));
        selector.state(&used, State::Up, ms(change * 1000 + 100));
    }
    let used = *selector.in_use().unwrap();
    selector.state(&used, State::Impaired, ms(10_000));
    run(&mut selector, ms(10_000), ms(59_999));
    assert_eq!(selector.in_use(), Some(&used));
    run(&mut selector, ms(59_999), ms(60_000));
    assert_ne!(selector.in_use(), Some(&used));
}

#[test]
fn a_route_that_carries_traffic_already_is_in_use_from_the_start() {
    let mut selector = Selector::default();
    set(&mut selector, &[("b", 5)], ms(0));
    selector.adopt(&"a", ms(0));
    selector.state(&"b", State::Up, ms(1));
    assert_eq!(selector.slots(), [Some(&"a"), Some(&"b"), None]);
    selector.offer(&[offer("b", 5)], |_| Some(100_000), ms(2));
    run(&mut selector, ms(2), ms(60_000));
    assert_eq!(selector.in_use(), Some(&"b"), "its cost is known by now");
    let wanted: Vec<_> = selector.routes().map(|known| (*known.route, known.cost, known.wanted)).collect();
    assert_eq!(wanted, [("b", 5000, true), ("a", 100_000, true)], "a is in a slot");
}

#[test]
fn a_route_that_works_stays_when_the_mesh_offers_others() {
    let mut selector = up(&[("a", 50), ("b", 60), ("c", 70)]);
    let others = [offer("d", 49), offer("e", 60), offer("f", 70)];
    selector.offer(&others, |_| Some(51_000), ms(100));
    for route in ["d", "e", "f"] {
        selector.state(&route, State::Up, ms(200));
    }
    assert_eq!(selector.slots(), [Some(&"a"), Some(&"b"), Some(&"c")]);
    run(&mut selector, ms(200), ms(300_000));
    assert_eq!(
        selector.slots(),
        [Some(&"a"), Some(&"d"), Some(&"e")],
        "in use it stays, elsewhere for a while"
    );
    selector.offer(&others, |_| None, ms(300_000));
    assert_eq!(selector.in_use(), Some(&"d"), "withdrawn");
    assert!(!selector.slots().contains(&Some(&"a")));
}

#[test]
fn a_withdrawn_route_that_answers_is_better_than_none() {
    let mut selector = up(&[("a", 50)]);
    set(&mut selector, &[("b", 60)], ms(100));
    assert_eq!(selector.in_use(), Some(&"a"));
    selector.state(&"b", State::Up, ms(200));
    assert_eq!(selector.slots(), [Some(&"b"), None, None]);
}

#[test]
fn a_direct_route_that_is_no_dearer_relieves_relays_within_seconds() {
    let mut selector = up(&[("relayed", 50)]);
    let direct = |cost_ms| Offer { direct: true, ..offer("direct", cost_ms) };
    selector.offer(&[offer("relayed", 50), direct(51)], |_| None, ms(0));
    selector.state(&"direct", State::Up, ms(0));
    assert_eq!(run(&mut selector, ms(0), ms(100_000)), ms(100_000));
    assert_eq!(selector.in_use(), Some(&"relayed"), "it is dearer");
    selector.offer(&[offer("relayed", 50), direct(50)], |_| None, ms(100_000));
    selector.poll(ms(102_999));
    assert_eq!(selector.in_use(), Some(&"relayed"), "not at once");
    assert_eq!(selector.deadline(ms(102_999)), Some(ms(103_000)));
    selector.poll(ms(103_000));
    assert_eq!(selector.in_use(), Some(&"direct"));
    selector.offer(&[offer("relayed", 45), direct(50)], |_| None, ms(104_000));
    run(&mut selector, ms(104_000), ms(300_000));
    assert_eq!(selector.in_use(), Some(&"direct"), "a little dearer is no reason to go back");
}

#[test]
fn new_sessions_go_to_the_less_busy_of_two_near_routes() {
    let offer = |route: Route, cost, upstreams| Offer { route, cost, upstreams, direct: false };
    let offers = [offer("d", 50, 9), offer("a", 100, 0), offer("b", 125, 0), offer("c", 126, 0)];
    let count = |busy: Option<Route>, route: Route| {
        let load = |of: &Route| if Some(*of) == busy { LoadBand::Busy } else { LoadBand::Idle };
        let randoms = (0..1000u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        randoms.filter(|random| pick(&offers, load, *random).map(|offer| offer.route) == Some(route)).count()
    };
    assert!((400..600).contains(&count(None, "a")) && (400..600).contains(&count(None, "b")));
    assert_eq!((count(None, "c"), count(None, "d")), (0, 0), "too far, and a backup");
    assert_eq!(count(Some("a"), "b"), 1000);
    assert_eq!(pick::<Route>(&[], |_| LoadBand::Idle, 7), None);
    assert_eq!(
        pick(&offers[..1], |_| LoadBand::Full, 7),
        Some(&offers[0]),
        "a backup is better than nothing"
    );
}

const NAMES: [Route; 4] = ["a", "b", "c", "d"];

#[derive(Debug, Clone)]
enum Event {
    State(usize, State),
    /// Costs in ms, 0: not offered
    Offer([u64; 4]),
    Poll,
}

fn any_event() -> impl Strategy<Value = Event> {
    let state = prop_oneof![Just(State::Up), Just(State::Up), Just(State::Impaired), Just(State::Down)];
    prop_oneof![
        6 => (0usize..4, state).prop_map(|(route, state)| Event::State(route, state)),
        1 => [0u64..200, 0u64..200, 0u64..200, 0u64..200].prop_map(Event::Offer),
        2 => Just(Event::Poll),
    ]
}

fn offers(costs: [u64; 4]) -> Vec<Offer<Route>> {
    let upstreams = [0, 0, 0, 5000];
    let all = NAMES.iter().zip(costs).zip(upstreams);
    all.filter(|((_, cost), _)| *cost > 0)
        .map(|((route, cost), upstreams)| Offer {
            route: *route,
            cost: cost * 1000,
            upstreams,
            direct: *route == "a",
        })
        .collect()
}

/// How a route fares. One that is not known is as good as down.
fn fares(selector: &Selector<Route>, route: Route) -> State {
    selector.routes().find(|known| *known.route == route).map_or(State::Down, |known| known.state)
}

/// One step, and what must hold across it.
fn step(
    selector: &mut Selector<Route>,
    now: Time,
    event: &Event,
    changes: &mut Vec<Time>,
) -> Result<(), TestCaseError> {
    let before = selector.in_use().copied();
    let slots_before = selector.slots().map(Option::<&Route>::copied);
    match event {
        Event::State(route, state) => selector.state(&NAMES[*route], *state, now),
        Event::Offer(costs) => selector.offer(&offers(*costs), |_| None, now),
        Event::Poll => selector.poll(now),
    }
    let used = selector.in_use().copied();
    prop_assert!(before.is_none() || used.is_some());
    if let (Some(before), Some(used)) = (before, used)
        && before != used
    {
        let died = fares(selector, before) == State::Down;
        let recent = changes.iter().filter(|at| now - **at < MINUTE).count();
        prop_assert!(recent < MAX_CHANGES || died, "{recent} changes before");
        prop_assert!(fares(selector, used) != State::Down, "left for a dead route");
        changes.push(now);
    }
    let slots = selector.slots().map(Option::<&Route>::copied);
    let seated: Vec<Route> = slots.iter().flatten().copied().collect();
    prop_assert!((1..seated.len()).all(|i| !seated[..i].contains(&seated[i])), "{:?}", slots);
    if let Some(State::Down) = used.map(|used| fares(selector, used)) {
        prop_assert!(selector.known.iter().all(|known| known.state == State::Down), "stands on a dead route");
    }
    if before == used {
        for (slot, route) in slots_before.iter().enumerate().filter(|(_, route)| route.is_some()) {
            let after = slots.iter().position(|other| other == route);
            prop_assert!(after.is_none_or(|after| after == slot), "a route moved to another slot");
        }
    }
    prop_assert!(selector.known.len() <= MAX_KNOWN);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn whatever_happens_the_rules_hold(
        events in prop::collection::vec((prop_oneof![3 => 1u64..400, 1 => 1u64..40_000], any_event()), 1..300),
    ) {
        let mut selector: Selector<Route> = Selector::default();
        let mut now = ms(0);
        let mut changes: Vec<Time> = Vec::new();
        selector.offer(&offers([50, 80, 120, 10]), |_| None, now);
        for (gap, event) in events {
            let until = now + Duration::from_millis(gap);
            while let Some(next) = selector.deadline(now).filter(|next| *next < until) {
                prop_assert!(next > now);
                now = next;
                step(&mut selector, now, &Event::Poll, &mut changes)?;
            }
            now = until;
            step(&mut selector, now, &event, &mut changes)?;
        }
        // When all is quiet it settles: off a dead or lossy route, back from a backup, to a better one.
        let before = changes.len();
        while let Some(next) = selector.deadline(now) {
            now = next;
            step(&mut selector, now, &Event::Poll, &mut changes)?;
        }
        prop_assert!(changes.len() - before <= 3, "{} changes in peace", changes.len() - before);
    }

    #[test]
    fn costs_that_waver_by_a_tenth_change_nothing(
        wobbles in prop::collection::vec([0u64..10, 0u64..10, 0u64..10], 1..200),
    ) {
        let mut selector = up(&[("a", 95), ("b", 95), ("c", 95)]);
        for (second, [a, b, c]) in (0u64..).zip(wobbles) {
            set(&mut selector, &[("a", 90 + a), ("b", 90 + b), ("c", 90 + c)], ms(second * 5000));
            prop_assert_eq!(selector.slots(), [Some(&"a"), Some(&"b"), Some(&"c")]);
        }
    }

    #[test]
    fn one_route_of_two_flapping_at_one_hertz_changes_it_at_most_five_times_a_minute(
        costs in [1u64..200, 1u64..200], phase in 0u64..1000, down in 50u64..900, impaired in any::<bool>(),
    ) {
        let mut selector = up(&[("a", costs[0]), ("b", costs[1])]);
        let mut changes: Vec<Time> = Vec::new();
        let mut now = ms(0);
        for second in 0..180 {
            let back = if impaired { State::Impaired } else { State::Up };
            let events = [(phase, State::Down), (phase + down, back), (phase + down + 20, State::Up)];
            for (offset, state) in events {
                let at = ms(second * 1000 + offset);
                let used = selector.in_use().copied();
                now = run(&mut selector, now, at).max(now);
                selector.state(&"a", state, at);
                if selector.in_use().copied() != used {
                    changes.push(at);
                }
            }
        }
        for (i, at) in changes.iter().enumerate() {
            let minute = changes[i..].iter().filter(|other| **other - *at < MINUTE).count();
            prop_assert!(minute <= MAX_CHANGES, "{minute}");
        }
    }
}
