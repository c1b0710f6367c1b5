//! What a session needs and when: the decisions of `supervise`, without its I/O.

use std::time::Duration;

use ffmesh_core::time::Time;

/// Between attempts to set up a circuit where there is a route.
const REPOINT_INTERVAL: Duration = Duration::from_millis(500);
/// How long a retired session stays without flows: time enough for the other node to learn that it is retired.
const RETIRED_LINGER: Duration = Duration::from_secs(30);
/// How long an accepted session may have a route and no circuit: the other node sets one up at once, unless it has
/// forgotten the session.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5);

/// What is known of a session now.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not a state")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// This node dialled it.
    pub(super) dialled: bool,
    /// Its node can be reached.
    pub(super) has_route: bool,
    /// Its slot points at the best route (dialled), or at any (accepted).
    pub(super) is_pointed: bool,
    /// Another session took over, and no flow is open.
    pub(super) is_idle: bool,
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
    /// Close it: the other node has forgotten it.
    CloseForgotten,
    /// Set up a circuit over the best route.
    Point,
    /// Nothing before this moment, or before the facts change.
    Wait(Option<Time>),
}

/// The memory of the decisions.
#[derive(Debug)]
pub(super) struct Upkeep {
    hold: Duration,
    routeless_since: Option<Time>,
    idle_since: Option<Time>,
    unpointed_since: Option<Time>,
    point_at: Option<Time>,
}

impl Upkeep {
    pub(super) fn new(hold: Duration) -> Self {
        Self { hold, routeless_since: None, idle_since: None, unpointed_since: None, point_at: None }
    }

    /// What to do at `now`. After [`Step::Point`], tell how it went with the next facts.
    pub(super) fn step(&mut self, now: Time, facts: Facts) -> Step {
        if facts.is_stale {
            return Step::CloseStale;
        }
        let since = |was: Option<Time>, is: bool| is.then(|| was.unwrap_or(now));
        self.routeless_since = since(self.routeless_since, !facts.has_route);
        self.idle_since = since(self.idle_since, facts.is_idle);
        self.unpointed_since = since(self.unpointed_since, facts.has_route && !facts.is_pointed);
        if self.unpointed_since.is_none() {
            self.point_at = None;
        }
        // Its dialler ends it; the other node helps where the dialler does not.
        let linger = if facts.dialled { RETIRED_LINGER } else { RETIRED_LINGER * 2 };
        let ends = [
            (self.routeless_since, self.hold, Step::CloseRouteless),
            (self.idle_since, linger, Step::CloseRetired),
            (self.unpointed_since.filter(|_| !facts.dialled), FORGOTTEN_AFTER, Step::CloseForgotten),
        ];
        let mut wake: Option<Time> = None;
        for (since, limit, step) in ends {
            let Some(since) = since else { continue };
            if now >= since + limit {
                return step;
            }
            wake = Some(wake.map_or(since + limit, |wake| wake.min(since + limit)));
        }
        if facts.dialled && self.unpointed_since.is_some() {
            let at = self.point_at.unwrap_or(now);
            if now >= at {
                self.point_at = Some(now + REPOINT_INTERVAL);
                return Step::Point;
            }
            wake = Some(wake.map_or(at, |wake| wake.min(at)));
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
        Facts { dialled: true, has_route: true, is_pointed: true, is_idle: false, is_stale: false }
    }

    fn at(seconds: u64) -> Time {
        Time(0) + Duration::from_secs(seconds)
    }

    #[test]
    fn a_healthy_session_is_left_alone() {
        assert_eq!(Upkeep::new(HOLD).step(at(0), healthy()), Step::Wait(None));
    }

    #[test]
    fn without_a_route_it_waits_for_the_hold() {
        let mut upkeep = Upkeep::new(HOLD);
        let facts = Facts { has_route: false, is_pointed: false, ..healthy() };
        assert_eq!(upkeep.step(at(5), facts), Step::Wait(Some(at(605))));
        assert_eq!(upkeep.step(at(604), facts), Step::Wait(Some(at(605))));
        assert_eq!(upkeep.step(at(605), facts), Step::CloseRouteless);
    }

    #[test]
    fn a_route_that_returns_starts_the_hold_anew() {
        let mut upkeep = Upkeep::new(HOLD);
        let routeless = Facts { has_route: false, is_pointed: false, ..healthy() };
        upkeep.step(at(0), routeless);
        upkeep.step(at(599), healthy());
        assert_eq!(upkeep.step(at(600), routeless), Step::Wait(Some(at(1200))));
    }

    #[test]
    fn a_dialled_session_is_pointed_at_once_and_again_until_it_is() {
        let mut upkeep = Upkeep::new(HOLD);
        let unpointed = Facts { is_pointed: false, ..healthy() };
        assert_eq!(upkeep.step(at(1), unpointed), Step::Point);
        let again = at(1) + REPOINT_INTERVAL;
        assert_eq!(upkeep.step(at(1), unpointed), Step::Wait(Some(again)));
        assert_eq!(upkeep.step(again, unpointed), Step::Point);
        assert_eq!(upkeep.step(again, healthy()), Step::Wait(None));
        assert_eq!(upkeep.step(again, unpointed), Step::Point, "a new loss is not made to wait");
    }

    #[test]
    fn an_accepted_session_that_nobody_points_is_forgotten() {
        let mut upkeep = Upkeep::new(HOLD);
        let facts = Facts { dialled: false, is_pointed: false, ..healthy() };
        assert_eq!(upkeep.step(at(1), facts), Step::Wait(Some(at(6))));
        assert_eq!(upkeep.step(at(6), facts), Step::CloseForgotten);
    }

    #[test]
    fn a_retired_session_ends_after_its_last_flow_and_by_its_dialler_first() {
        let idle = Facts { is_idle: true, ..healthy() };
        let mut upkeep = Upkeep::new(HOLD);
        assert_eq!(upkeep.step(at(0), idle), Step::Wait(Some(at(30))));
        assert_eq!(upkeep.step(at(30), idle), Step::CloseRetired);
        let accepted = Facts { dialled: false, ..idle };
        assert_eq!(Upkeep::new(HOLD).step(at(0), accepted), Step::Wait(Some(at(60))));
    }

    proptest! {
        #[test]
        fn it_never_wakes_in_the_past(steps in prop::collection::vec(
            (0u64..5_000_000, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()), 1..60,
        )) {
            let mut upkeep = Upkeep::new(Duration::from_secs(3));
            let mut now = Time(0);
            for (later, dialled, has_route, is_pointed, is_idle) in steps {
                now = Time(now.0 + later);
                let facts = Facts { dialled, has_route, is_pointed, is_idle, is_stale: false };
                match upkeep.step(now, facts) {
                    Step::Wait(Some(at)) => prop_assert!(at > now),
                    // Pointing is not asked for twice at one moment, so that a failing one cannot spin.
                    Step::Point => prop_assert!(matches!(upkeep.step(now, facts), Step::Wait(Some(at)) if at > now)),
                    _ => {}
                }
            }
        }
    }
}
