//! Waiting with a limit, and doing things at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);
/// Stack of each thread of [`in_parallel`]: a thousand of them stay small.
const STACK: usize = 256 << 10;

/// Waits until `condition` holds and returns how long that took.
///
/// # Panics
/// After `limit`, with `what`.
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    until_some(what, limit, || condition().then_some(()));
    start.elapsed()
}

/// Waits until `look` sees something and returns it.
///
/// # Panics
/// After `limit`, with `what`.
pub fn until_some<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(POLL);
    }
}

/// Measures up to three times and passes at the first time within `limit`: a busy machine delays a process at
/// times, but not three times in a row.
///
/// # Panics
/// When no try was within the limit, with `what` and the times.
pub fn once_within(what: &str, limit: Duration, mut measure: impl FnMut() -> Duration) {
    let mut times = Vec::new();
    for _ in 0..3 {
        let time = measure();
        times.push(time);
        if time <= limit {
            return;
        }
    }
    panic!("{what}: not once within {limit:?}, but {times:?}");
}

/// Runs `job(0..count)`, at most `at_once` at a time, and returns the results in order. The threads inherit the
/// namespace of the caller's.
///
/// # Panics
/// When a job panics.
pub fn in_parallel<T: Send>(count: usize, at_once: usize, job: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return done;
            }
            done.push((number, job(number)));
        }
    };
    let mut results = std::thread::scope(|scope| {
        let start = || {
            let thread = std::thread::Builder::new().stack_size(STACK);
            thread.spawn_scoped(scope, worker).expect("start a thread")
        };
        let threads: Vec<_> = (0..at_once.min(count)).map(|_| start()).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads.into_iter().flat_map(join).collect::<Vec<_>>()
    });
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}
