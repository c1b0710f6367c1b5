//! When a session ends that nothing else ends: the decisions of `supervise`, without its I/O.

use std::time::Duration;

use ffmesh_core::time::Time;

/// How long a retired session stays without flows: time enough for the other node to learn that it is retired.
const RETIRED_LINGER: Duration = Duration::from_secs(30);
/// How long an accepted session without flows may have a route and no circuit: the other node sets one up within seconds,
/// unless it has forgotten the session or sees no route itself. One with flows waits for `mesh.hold`.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(1);
/// How long a session stays without flows. Longer than people look away; a new one costs two round trips.
const UNUSED_AFTER: Duration = Duration::from_mins(15);

/// What is known of a session now.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not a state")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// `mesh.hold`, as it is now.
    pub(super) hold: Duration,
    /// This node dialled it.
    pub(super) dialled: bool,
    /// Its node can be reached.
    pub(super) has_route: bool,
    /// It has a circuit.
    pub(super) has_circuit: bool,
    /// No flow is open.
    pub(super) is_idle: bool,
    /// It is kept for flows to come.
    pub(super) is_ahead: bool,
    /// Another session took over.
    pub(super) is_retired: bool,
    /// Its node has started anew since.
    pub(super) is_stale: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Close it: its node restarted.
    CloseStale,
    /// Close it: no route for `mesh.hold`.
    CloseRouteless,
    /// Close it: another session took over.
    CloseRetired,
    /// Close it: nobody uses it.
    CloseUnused,
    /// Close it: the other node has forgotten it.
    CloseForgotten,
    /// Nothing before this moment, or before the facts change.
    Wait(Option<Time>),
}

/// The memory of the decisions: since when what is so has been so.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    routeless: Option<Time>,
    idle: Option<Time>,
    /// Idle and retired
    spare: Option<Time>,
    bare: Option<Time>,
}

impl Upkeep {
    /// What to do at `now`.
    pub(super) fn step(&mut self, now: Time, facts: Facts) -> Step {
        if facts.is_stale {
            return Step::CloseStale;
        }
        let since = |was: Option<Time>, is: bool| is.then(|| was.unwrap_or(now));
        let stranded = !facts.dialled && !facts.has_circuit;
        self.routeless = since(self.routeless, !facts.has_route || stranded);
        // Only its dialler knows whether it is kept for flows to come.
        self.idle = since(self.idle, facts.is_idle && facts.dialled && !facts.is_ahead);
        self.spare = since(self.spare, facts.is_idle && facts.is_retired);
        self.bare = since(self.bare, facts.has_route && !facts.has_circuit && facts.is_idle);
        // Its dialler ends it; the other node helps where the dialler does not.
        let patience = if facts.dialled { 1 } else { 2 };
        let ends = [
            (self.routeless, facts.hold, Step::CloseRouteless),
            (self.spare, RETIRED_LINGER * patience, Step::CloseRetired),
            (self.idle, UNUSED_AFTER, Step::CloseUnused),
            (self.bare.filter(|_| !facts.dialled), FORGOTTEN_AFTER, Step::CloseForgotten),
        ];
        let mut wake: Option<Time> = None;
        for (since, limit, step) in ends {
            let Some(since) = since else { continue };
            if now >= since + limit {
                return step;
            }
            wake = Some(wake.map_or(since + limit, |wake| wake.min(since + limit)));
        }
        Step::Wait(wake)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOLD: Duration = Duration::from_mins(10);

    fn healthy() -> Facts {
        Facts {
            hold: HOLD,
            dialled: true,
            has_route: true,
            has_circuit: true,
            is_idle: false,
            is_ahead: false,
            is_retired: false,
            is_stale: false,
        }
    }

    fn at(seconds: u64) -> Time {
        Time(0) + Duration::from_secs(seconds)
    }

    #[test]
    fn a_healthy_session_is_left_alone() {
        assert_eq!(Upkeep::default().step(at(0), healthy()), Step::Wait(None));
    }

    #[test]
    fn without_a_route_it_waits_for_the_hold() {
        let mut upkeep = Upkeep::default();
        let facts = Facts { has_route: false, has_circuit: false, ..healthy() };
        assert_eq!(upkeep.step(at(5), facts), Step::Wait(Some(at(605))));
        assert_eq!(upkeep.step(at(604), facts), Step::Wait(Some(at(605))));
        assert_eq!(upkeep.step(at(605), facts), Step::CloseRouteless);
    }

    #[test]
    fn another_hold_counts_for_sessions_that_wait_already() {
        let mut upkeep = Upkeep::default();
        let facts = Facts { has_route: false, has_circuit: false, ..healthy() };
        upkeep.step(at(0), facts);
        let longer = Facts { hold: HOLD * 2, ..facts };
        assert_eq!(upkeep.step(at(600), longer), Step::Wait(Some(at(1200))));
        let shorter = Facts { hold: HOLD / 2, ..facts };
        assert_eq!(upkeep.step(at(600), shorter), Step::CloseRouteless);
    }

    #[test]
    fn a_route_that_returns_starts_the_hold_anew() {
        let mut upkeep = Upkeep::default();
        let routeless = Facts { has_route: false, has_circuit: false, ..healthy() };
        upkeep.step(at(0), routeless);
        upkeep.step(at(599), healthy());
        assert_eq!(upkeep.step(at(600), routeless), Step::Wait(Some(at(1200))));
    }

    #[test]
    fn an_accepted_session_without_a_circuit_is_forgotten() {
        let mut upkeep = Upkeep::default();
        let facts = Facts { dialled: false, has_circuit: false, is_idle: true, ..healthy() };
        assert_eq!(upkeep.step(at(1), facts), Step::Wait(Some(at(61))));
        assert_eq!(upkeep.step(at(61), facts), Step::CloseForgotten);
        let busy = Facts { is_idle: false, ..facts };
        assert_eq!(Upkeep::default().step(at(1), busy), Step::Wait(Some(at(601))), "its flows wait");
        let dialled = Facts { has_circuit: false, ..healthy() };
        assert_eq!(Upkeep::default().step(at(0), dialled), Step::Wait(None));
    }

    #[test]
    fn a_retired_session_ends_after_its_last_flow_and_by_its_dialler_first() {
        let idle = Facts { is_idle: true, is_retired: true, ..healthy() };
        let mut upkeep = Upkeep::default();
        assert_eq!(upkeep.step(at(0), idle), Step::Wait(Some(at(30))));
        assert_eq!(upkeep.step(at(30), idle), Step::CloseRetired);
        let accepted = Facts { dialled: false, ..idle };
        assert_eq!(Upkeep::default().step(at(0), accepted), Step::Wait(Some(at(60))));
    }

    #[test]
    fn a_session_that_nobody_uses_ends() {
        let idle = Facts { is_idle: true, ..healthy() };
        let mut upkeep = Upkeep::default();
        assert_eq!(upkeep.step(at(0), idle), Step::Wait(Some(at(900))));
        assert_eq!(upkeep.step(at(899), healthy()), Step::Wait(None));
        assert_eq!(upkeep.step(at(900), idle), Step::Wait(Some(at(1800))));
        assert_eq!(upkeep.step(at(1800), idle), Step::CloseUnused);
    }

    #[test]
    fn one_that_is_kept_for_flows_to_come_is_closed_by_neither_side() {
        let kept = Facts { is_idle: true, is_ahead: true, ..healthy() };
        let other_side = Facts { dialled: false, is_ahead: false, ..kept };
        for facts in [kept, other_side] {
            let mut upkeep = Upkeep::default();
            assert_eq!(upkeep.step(at(0), facts), Step::Wait(None));
            assert_eq!(upkeep.step(at(100_000), facts), Step::Wait(None));
        }
        let mut upkeep = Upkeep::default();
        upkeep.step(at(0), kept);
        let not_any_more = Facts { is_ahead: false, ..kept };
        assert_eq!(upkeep.step(at(5000), not_any_more), Step::Wait(Some(at(5900))));
    }

    proptest! {
        #[test]
        fn it_never_wakes_in_the_past(steps in prop::collection::vec(
            (0u64..5_000_000, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()), 1..60,
        )) {
            let mut upkeep = Upkeep::default();
            let mut now = Time(0);
            for (later, dialled, has_route, has_circuit, is_idle, is_retired) in steps {
                now = Time(now.0 + later);
                let hold = Duration::from_secs(3);
                let facts =
                    Facts { hold, dialled, has_route, has_circuit, is_idle, is_ahead: false, is_retired, is_stale: false };
                if let Step::Wait(Some(at)) = upkeep.step(now, facts) {
                    prop_assert!(at > now);
                }
            }
        }
    }
}
