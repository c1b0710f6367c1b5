//! When memory is given back to the system: after many flows have ended.

use std::time::Duration;

use ffmesh_core::time::Time;

/// Flows that have ended since the most were open, for it to be worth the while: some 3 MB.
const ENDED: usize = 500;
/// The least time from one release to the next, as who allocates waits meanwhile.
const PAUSE: Duration = Duration::from_secs(10);

/// What was seen of how many flows are open.
#[derive(Debug, Default)]
pub(super) struct Release {
    most: usize,
    last: usize,
    released: Option<Time>,
}

impl Release {
    /// Takes in how many flows are open now; whether memory is to be given back.
    pub(super) fn is_due(&mut self, open: usize, now: Time) -> bool {
        self.most = self.most.max(open);
        let falling = open < std::mem::replace(&mut self.last, open);
        let rested = self.released.is_none_or(|then| now - then >= PAUSE);
        let due = !falling && rested && self.most - open >= ENDED;
        if due {
            (self.most, self.released) = (open, Some(now));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time(0) + Duration::from_secs(seconds)
    }

    #[test]
    fn it_is_due_once_many_flows_have_ended_and_no_more_do() {
        let mut release = Release::default();
        assert!(!release.is_due(2_000, at(0)));
        assert!(!release.is_due(900, at(1)), "more are about to end");
        assert!(!release.is_due(10, at(2)));
        assert!(release.is_due(10, at(3)));
        assert!(!release.is_due(10, at(100)), "nothing has ended since");
    }

    #[test]
    fn few_flows_that_come_and_go_are_no_reason() {
        let mut release = Release::default();
        for (second, open) in (0..1_000).zip([0, ENDED - 1].into_iter().cycle()) {
            assert!(!release.is_due(open, at(second)));
        }
    }

    #[test]
    fn bursts_in_a_row_share_a_release() {
        let mut release = Release::default();
        let bursts = (0..100).zip([1_000, 0, 0].into_iter().cycle());
        let released = bursts.filter(|(second, open)| release.is_due(*open, at(*second))).count();
        assert!((5..=10).contains(&released), "{released} times in 100 s");
    }
}
