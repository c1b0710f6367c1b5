//! How busy this node is, for the mesh: new sessions of others take less busy relays where there is a choice.

use std::time::{Duration, Instant};

use crate::driver::Driver;
use crate::process::processor_time;

/// How often it is measured. The mesh is told of bands that last 30 s.
const INTERVAL: Duration = Duration::from_secs(5);

/// Tells the driver how much of the machine's processors this process takes. Never returns.
pub(super) async fn watch(driver: Driver) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut last = (Instant::now(), processor_time());
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = (Instant::now(), processor_time());
        let (spent, passed) = (now.1.saturating_sub(last.1), now.0 - last.0);
        last = now;
        let available = passed.as_micros().saturating_mul(cores as u128).max(1);
        let permille = spent.as_micros().saturating_mul(1_000) / available;
        driver.load(u16::try_from(permille.min(1_000)).unwrap_or(1_000)).await;
    }
}
