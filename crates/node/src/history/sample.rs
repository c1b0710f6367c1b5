//! Taking the node's figures, once a second.

use std::time::{Duration, Instant};

use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use jiff::Timestamp;

use super::History;
use crate::process::processor_time;

/// The shortest time that rates are reckoned over: what comes right after a pause is no burst.
const SHORTEST: Duration = Duration::from_millis(100);

/// The node's figures of a moment; counters since the start.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Payload bytes to other nodes
    pub sent: u64,
    /// Payload bytes from other nodes
    pub received: u64,
    /// Bytes carried for others
    pub transit: u64,
    /// Flows that are open
    pub flows_open: u64,
    /// Flows that began
    pub flows_started: u64,
    /// Flows that were refused or failed
    pub flows_failed: u64,
    /// Errors of all kinds
    pub errors: u64,
    /// Times that a session left a route that had died
    pub failovers: u64,
    /// Mean round trip time of the links that are up, ms
    pub rtt_ms: Option<f64>,
    /// Their mean loss, 0 to 1
    pub loss: Option<f64>,
    /// Resident memory in bytes
    pub memory: u64,
    /// The links that are up, those up the longest first, with their round trip time in ms
    pub up: Vec<(NodeId, Option<f64>)>,
}

/// Takes a sample at each full second of the clock, keeps it and hands it on. Never returns; what waits for a block
/// to be written is in `history` then, for its last [`flush`](History::flush).
pub async fn sample(history: History, figures: impl Fn() -> Figures, tell: impl Fn(api::Sample)) {
    let mut last = (Instant::now(), processor_time(), figures());
    history.count_errors(last.2.errors);
    loop {
        // By the clock of the wall, not by an interval: so each second has one sample, however the clock is slewed.
        tokio::time::sleep(until_next(Timestamp::now())).await;
        let taken = (Instant::now(), processor_time(), figures());
        let sample = difference(&last, &taken);
        history.count_errors(taken.2.errors);
        let full = history.push(nearest_second(Timestamp::now()), &sample, &taken.2.up);
        last = taken;
        tell(sample);
        if full {
            let history = history.clone();
            // The next samples do not wait for the disk.
            tokio::task::spawn_blocking(move || {
                // The store says when it begins to fail, and what could not be written comes with the next block.
                let _ = history.flush();
            });
        }
    }
}

/// How long it is until the second after the nearest one: half a second at least.
fn until_next(at: Timestamp) -> Duration {
    let whole = Duration::from_secs(if is_later_half(at) { 2 } else { 1 });
    whole.saturating_sub(Duration::from_nanos(at.subsec_nanosecond().unsigned_abs().into()))
}

fn nearest_second(at: Timestamp) -> i64 {
    at.as_second() + i64::from(is_later_half(at))
}

fn is_later_half(at: Timestamp) -> bool {
    at.subsec_nanosecond() >= 500_000_000
}

type Taken = (Instant, Duration, Figures);

/// The sample between two moments.
#[expect(clippy::cast_precision_loss, reason = "seven digits are kept")]
fn difference((before, cpu_before, old): &Taken, (now, cpu, new): &Taken) -> api::Sample {
    let passed = now.saturating_duration_since(*before).max(SHORTEST).as_secs_f64();
    let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / passed;
    api::Sample {
        sent: rate(new.sent, old.sent),
        received: rate(new.received, old.received),
        transit: rate(new.transit, old.transit),
        flows_open: new.flows_open as f64,
        flows_started: rate(new.flows_started, old.flows_started),
        flows_failed: rate(new.flows_failed, old.flows_failed),
        errors: rate(new.errors, old.errors),
        failovers: new.failovers.saturating_sub(old.failovers) as f64,
        links_up: new.up.len() as f64,
        rtt_ms: new.rtt_ms,
        loss: new.loss,
        cpu: cpu.saturating_sub(*cpu_before).as_secs_f64() / passed,
        memory: new.memory as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_time_that_passed_and_never_negative() {
        let start = Instant::now();
        let at = |seconds: u64, sent: u64| {
            let figures = Figures { sent, failovers: sent, flows_open: 3, ..Figures::default() };
            (start + Duration::from_secs(seconds), Duration::from_secs(seconds), figures)
        };
        let sample = difference(&at(10, 100), &at(14, 180));
        let figures = [sample.sent, sample.failovers, sample.flows_open, sample.cpu].map(Some);
        assert_eq!(figures, [20.0, 80.0, 3.0, 1.0].map(Some));
        assert_eq!(difference(&at(10, 100), &at(11, 0)).sent.to_bits(), 0.0_f64.to_bits());
        let at_once = difference(&at(10, 0), &at(10, 5));
        assert_eq!(at_once.sent.to_bits(), 50.0_f64.to_bits(), "over a tenth of a second");
    }

    #[test]
    fn a_moment_belongs_to_the_nearest_second() {
        let second = |text: &str| nearest_second(text.parse().unwrap());
        let full = second("2026-01-01T00:00:05Z");
        assert_eq!(second("2026-01-01T00:00:04.999Z"), full);
        assert_eq!(second("2026-01-01T00:00:05.4Z"), full);
        assert_eq!(second("2026-01-01T00:00:05.5Z"), full + 1);
        let wait = |text: &str| until_next(text.parse().unwrap()).as_millis();
        assert_eq!(wait("2026-01-01T00:00:05.001Z"), 999);
        assert_eq!(wait("2026-01-01T00:00:04.999Z"), 1_001, "that of 5 was taken a moment too early");
    }

    #[tokio::test]
    async fn a_sample_is_taken_each_second_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let load = |store: &crate::store::Store| History::load(store.clone(), Timestamp::now());
        let (_, history) = crate::store::Store::open(&crate::state::StateDir::at(dir.path()), load).unwrap();
        let (told, mut samples) = tokio::sync::mpsc::channel(8);
        let counted = std::sync::atomic::AtomicU64::new(0);
        let figures = move || {
            let count = counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Figures { errors: count * 5, ..Figures::default() }
        };
        let tell = move |sample| told.try_send(sample).unwrap();
        let task = tokio::spawn(sample(history.clone(), figures, tell));
        let first = samples.recv().await.unwrap();
        assert!(first.errors > 0.0);
        samples.recv().await.unwrap();
        task.abort();
        assert_eq!(history.errors_per_minute(12), 12);
        let kept = history.query(&super::super::Query::default(), Timestamp::now() + Duration::from_secs(1));
        let errors: Vec<_> = kept.columns.errors.iter().flatten().collect();
        assert_eq!(errors.len(), 2, "{errors:?}");
    }
}
