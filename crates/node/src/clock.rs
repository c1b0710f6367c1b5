//! The node's clock for the core: microseconds since the process first asked.

use std::sync::LazyLock;
use std::time::Instant;

use ffmesh_core::time::Time;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// This moment.
pub fn now() -> Time {
    Time(u64::try_from(START.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// A moment of the core as one of tokio's clock.
pub fn instant(time: Time) -> tokio::time::Instant {
    tokio::time::Instant::from_std(*START + (time - Time(0)))
}
