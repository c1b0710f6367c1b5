//! What is counted over the whole node, and how metrics are written.
//!
//! Each part of the node registers a `Collector` of its own. Names, labels and meanings stand in docs/metrics.md.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use ffmesh_api::ErrorCount;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, EncodeMetric, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;

/// Kinds of errors, a fixed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A link went down that should not have
    LinkDown,
    /// A connection was refused at its handshake
    Handshake,
    /// A node came with another key than its id is bound to
    KeyConflict,
    /// A flow was refused by policy
    Denied,
    /// A flow was not connected for another reason
    FlowFailed,
    /// A flow ended by a reset
    FlowReset,
    /// A limit was reached
    Limit,
    /// A peer sent something malformed
    Protocol,
    /// A listener could not accept
    Accept,
    /// Enrolment was refused
    Enrolment,
    /// A record of the link-state database was refused
    Record,
    /// A client of the admin API was refused: wrong token, code or session
    Admin,
}

const KINDS: [(ErrorKind, &str); 12] = [
    (ErrorKind::LinkDown, "link_down"),
    (ErrorKind::Handshake, "handshake"),
    (ErrorKind::KeyConflict, "key_conflict"),
    (ErrorKind::Denied, "denied"),
    (ErrorKind::FlowFailed, "flow_failed"),
    (ErrorKind::FlowReset, "flow_reset"),
    (ErrorKind::Limit, "limit"),
    (ErrorKind::Protocol, "protocol"),
    (ErrorKind::Accept, "accept"),
    (ErrorKind::Enrolment, "enrolment"),
    (ErrorKind::Record, "record"),
    (ErrorKind::Admin, "admin"),
];

/// The node's counters.
#[derive(Debug, Default)]
pub struct Counters {
    errors: [AtomicU64; KINDS.len()],
}

impl Counters {
    /// Counts one error.
    pub fn error(&self, kind: ErrorKind) {
        self.errors[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The errors that occurred, most frequent first.
    pub fn errors(&self) -> Vec<ErrorCount> {
        let mut errors: Vec<_> = self
            .each()
            .filter(|(_, count)| *count > 0)
            .map(|(word, count)| ErrorCount { kind: word.to_owned(), count })
            .collect();
        errors.sort_by_key(|error| std::cmp::Reverse(error.count));
        errors
    }

    /// Errors of all kinds since the start.
    pub fn all_errors(&self) -> u64 {
        self.each().map(|(_, count)| count).sum()
    }

    fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        KINDS.iter().map(|(kind, word)| (*word, self.errors[*kind as usize].load(Ordering::Relaxed)))
    }
}

impl Collector for Counters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let errors = self.each().map(|(kind, count)| ([("kind", kind)], count));
        counters(&mut encoder, "ffmesh_errors", "Errors by kind", errors)
    }
}

/// Writes a counter, one sample for each set of labels. Its name gets `_total`.
pub(crate) fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (L, V)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in samples {
        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, V, f64>(&value, None)?;
    }
    Ok(())
}

/// Writes a counter without labels. Its name gets `_total`.
#[expect(clippy::needless_pass_by_value, reason = "it is a number")]
pub(crate) fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: impl EncodeCounterValue,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    metric.encode_counter::<NoLabelSet, _, f64>(&value, None)
}

/// Writes a gauge, one sample for each set of labels.
pub(crate) fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (L, V)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in samples {
        metric.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

/// Writes a gauge without labels.
#[expect(clippy::needless_pass_by_value, reason = "it is a number")]
pub(crate) fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: impl EncodeGaugeValue,
) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

/// Writes a histogram.
pub(crate) fn histogram(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    histogram: &Histogram,
) -> fmt::Result {
    histogram.encode(encoder.encode_descriptor(name, help, None, MetricType::Histogram)?)
}

#[cfg(test)]
pub(crate) mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    /// What a collector says, in OpenMetrics text.
    pub(crate) fn text(collector: impl Collector) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(collector));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn each_kind_has_its_own_counter() {
        let counters = Counters::default();
        for (i, (kind, _)) in KINDS.iter().enumerate() {
            for _ in 0..=i {
                counters.error(*kind);
            }
        }
        let errors = counters.errors();
        assert_eq!(errors.len(), KINDS.len());
        assert_eq!((errors[0].kind.as_str(), errors[0].count), ("admin", 12));
        assert_eq!(counters.all_errors(), 78);
        let text = text(counters);
        assert!(text.contains("\nffmesh_errors_total{kind=\"record\"} 11\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
