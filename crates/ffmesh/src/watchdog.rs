//! systemd's watchdog (`WatchdogSec` of the unit): told that the node lives for as long as it does its work.

use std::time::Duration;

use ffmesh_node::node::Liveness;
use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::warn;

use crate::commands::up::notify;

/// Parts of the watchdog's time, one of which passes between two messages. In three of them an answer that takes as
/// long as it may still comes in time for the message after it.
const PARTS: u32 = 3;

/// Tells systemd that this node lives, if it wants to know. Ends with the process.
///
/// This runs on the threads that carry the flows, so threads that hang keep it silent as well.
pub(crate) fn start(liveness: Liveness) {
    if let Some(limit) = sd_notify::watchdog_enabled() {
        tokio::spawn(watch(
            limit / PARTS,
            async move || liveness.answers().await,
            || {
                notify(&[NotifyState::Watchdog]);
            },
        ));
    }
}

/// Tells that the node lives every time that it answers, asked once in `every`.
async fn watch(every: Duration, answers: impl AsyncFn() -> bool, tell: impl Fn()) {
    let mut pace = interval(every.max(Duration::from_millis(1)));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent = false;
    loop {
        pace.tick().await;
        match timeout(every, answers()).await {
            Ok(true) => {
                silent = false;
                tell();
            }
            // The end of an orderly stop takes less than the watchdog's time.
            Ok(false) => return,
            Err(_) if silent => {}
            Err(_) => {
                silent = true;
                warn!(
                    "the node has not answered for {every:?}; systemd is not told that it lives until it does"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_node_that_hangs_is_not_said_to_live_until_it_answers_again() {
        let every = Duration::from_millis(5);
        let (asked, told) = (Cell::new(0), Cell::new(0));
        let answers = async || {
            asked.set(asked.get() + 1);
            match asked.get() {
                1..=3 | 7..=9 => true,
                4..=6 => std::future::pending().await,
                _ => {
                    assert_eq!(told.get(), 6);
                    false
                }
            }
        };
        let tell = || {
            assert!(!(4..=6).contains(&asked.get()), "told although it hangs");
            told.set(told.get() + 1);
        };
        watch(every, answers, tell).await;
        assert_eq!((asked.get(), told.get()), (10, 6));
    }
}
