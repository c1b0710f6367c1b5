//! Whether a node does its work, for the watchdog of a service manager.

use crate::driver::Driver;

/// Asks a node whether it does its work. Cheap to clone; does not keep the node.
#[derive(Debug, Clone)]
pub struct Liveness(Driver);

impl Liveness {
    pub(super) fn new(driver: Driver) -> Self {
        Self(driver)
    }

    /// Whether the node does its work: its driver, which owns links and routes, answers behind all that it was asked
    /// before. A driver that hangs never does, so the caller sets a limit. False once the node has ended.
    pub async fn answers(&self) -> bool {
        self.0.answers().await
    }
}
