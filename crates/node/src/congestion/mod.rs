//! `quic.congestion: auto`: how much a path may have in flight.
//!
//! [`window`] decides; this puts it under QUIC. Decision 0012 says why it is as it is.

mod delay;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
mod window;

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use noq::congestion::{Controller, ControllerFactory, ControllerMetrics};
use noq_proto::RttEstimator;

use window::{Acked, Sign, Window};

/// Bytes that may be in flight at first (RFC 9002, section 7.2).
const INITIAL_WINDOW: u64 = 14_720;

/// Makes the windows of sessions' paths.
#[derive(Debug, Clone, Copy, Default)]
pub struct AutoConfig;

impl ControllerFactory for AutoConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Auto { window: Window::new(now, INITIAL_WINDOW, current_mtu), batch: None })
    }
}

/// Collects what one acknowledgement brings for [`Window`].
#[derive(Debug, Clone)]
struct Auto {
    window: Window,
    /// When the last packet of an acknowledgement was sent, and the bytes of all
    batch: Option<(Instant, u64)>,
}

impl Controller for Auto {
    fn on_ack(&mut self, _: Instant, sent: Instant, bytes: u64, _: u64, _: bool, _: &RttEstimator) {
        let (latest, sum) = self.batch.unwrap_or((sent, 0));
        self.batch = Some((latest.max(sent), sum + bytes));
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, _: bool, _: Option<u64>) {
        if let Some((sent, bytes)) = self.batch.take() {
            self.window.acked(now, Acked { sent, bytes, in_flight });
        }
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        is_ecn: bool,
        lost_bytes: u64,
        _: u64,
    ) {
        let sign = match (is_persistent_congestion, is_ecn) {
            (true, _) => Sign::Persistent,
            (false, true) => Sign::Marked,
            (false, false) => Sign::Lost(lost_bytes),
        };
        self.window.congested(now, sent, sign);
    }

    fn on_spurious_congestion_event(&mut self) {
        self.window.nothing_lost();
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.window.set_mtu(new_mtu);
    }

    fn window(&self) -> u64 {
        self.window.size()
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window.size();
        metrics.ssthresh = self.window.threshold();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
