//! The control plane, as metrics.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ffmesh_core::mesh;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::metrics::{counters, histogram};

/// Bounds of the histogram of SPF runs in seconds, each four times the one before: 16 µs to 1 s. A mesh of 1,000 nodes takes
/// some milliseconds.
const SPF: (f64, f64, u16) = (0.000_016, 4.0, 9);

/// What the driver has done, for others to read.
#[derive(Debug)]
pub(crate) struct Metrics {
    spf: Histogram,
    records_received: AtomicU64,
    records_sent: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        let spf = Histogram::new(exponential_buckets(SPF.0, SPF.1, SPF.2));
        Self { spf, records_received: AtomicU64::new(0), records_sent: AtomicU64::new(0) }
    }
}

impl Metrics {
    /// Routes were computed anew, which took so long.
    pub(super) fn routes_computed(&self, took: Duration) {
        self.spf.observe(took.as_secs_f64());
    }

    /// What the mesh has counted so far.
    pub(super) fn update(&self, counters: &mesh::Counters) {
        self.records_received.store(counters.records_received, Ordering::Relaxed);
        self.records_sent.store(counters.flood.records_sent, Ordering::Relaxed);
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        histogram(encoder, "ffmesh_spf_seconds", "Time to compute all routes anew", &self.spf)?;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let records = [("in", count(&self.records_received)), ("out", count(&self.records_sent))];
        let records = records.map(|(direction, count)| ([("direction", direction)], count));
        counters(encoder, "ffmesh_lsa", "Records of the link-state database from and to neighbours", records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::text;

    #[test]
    fn routes_and_records_are_shown() {
        let metrics = Metrics::default();
        metrics.routes_computed(Duration::from_micros(100));
        metrics.update(&mesh::Counters { records_received: 7, ..mesh::Counters::default() });
        let text = text(metrics);
        for line in [
            r#"ffmesh_spf_seconds_bucket{le="0.000064"} 0"#,
            r#"ffmesh_spf_seconds_bucket{le="0.000256"} 1"#,
            r#"ffmesh_lsa_total{direction="in"} 7"#,
            r#"ffmesh_lsa_total{direction="out"} 0"#,
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in\n{text}");
        }
    }
}
