//! One moment's figures, and how they are stored.

use ffmesh_api::{Columns, Sample};

/// The figures of a [`Sample`].
pub(super) const FIGURES: usize = 13;
/// Neighbours whose round trip time is kept.
pub const MAX_PEERS: usize = 32;
/// The layout of stored rows. Others are skipped.
const VERSION: u8 = 1;

/// Figures of a second, or their means over a minute. What is not known is NaN.
///
/// Stored: the version, then the figures and the round trip times of neighbours by slot, each an `f32` in little-endian
/// order. Seven digits are enough for a chart.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) figures: [f32; FIGURES],
    /// By slot; those beyond the end are not known
    pub(super) rtts: Vec<f32>,
}

impl Row {
    pub(super) fn new(sample: &Sample, rtts: Vec<f32>) -> Self {
        let unknown = f64::NAN;
        let figures = [
            sample.sent,
            sample.received,
            sample.transit,
            sample.flows_open,
            sample.flows_started,
            sample.flows_failed,
            sample.errors,
            sample.failovers,
            sample.links_up,
            sample.rtt_ms.unwrap_or(unknown),
            sample.loss.unwrap_or(unknown),
            sample.cpu,
            sample.memory,
        ];
        #[expect(clippy::cast_possible_truncation, reason = "seven digits are kept")]
        let figures = figures.map(|figure| figure as f32);
        Self { figures, rtts }
    }

    /// The row of a minute: the means of what is known, and the sum of failovers.
    pub(super) fn mean<'r>(rows: impl Iterator<Item = &'r Self> + Clone) -> Self {
        let slots = rows.clone().map(|row| row.rtts.len()).max().unwrap_or_default();
        let mean = |of: &dyn Fn(&Self) -> f32| {
            let known = rows.clone().map(of).filter(|value| !value.is_nan());
            let (count, sum) = known.fold((0_u16, 0.0), |(count, sum), v| (count + 1, sum + f64::from(v)));
            #[expect(clippy::cast_possible_truncation, reason = "seven digits are kept")]
            let mean = (sum / f64::from(count)) as f32; // NaN where nothing is known
            mean
        };
        let mut figures = std::array::from_fn(|i| mean(&|row| row.figures[i]));
        let rtts = (0..slots).map(|slot| mean(&|row| row.rtt(slot))).collect();
        figures[FAILOVERS] = rows.map(|row| row.figures[FAILOVERS]).filter(|v| !v.is_nan()).sum();
        Self { figures, rtts }
    }

    /// The round trip time of the neighbour in a slot, ms.
    pub(super) fn rtt(&self, slot: usize) -> f32 {
        self.rtts.get(slot).copied().unwrap_or(f32::NAN)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let values = self.figures.iter().chain(&self.rtts).flat_map(|value| value.to_le_bytes());
        [VERSION].into_iter().chain(values).collect()
    }

    /// None for what this version cannot read.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (VERSION, values) = bytes.split_first().map(|(version, values)| (*version, values))? else {
            return None;
        };
        let (values, []) = values.as_chunks::<4>() else { return None };
        let (figures, rtts) = values.split_first_chunk::<FIGURES>()?;
        if rtts.len() > MAX_PEERS {
            return None;
        }
        let value = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes);
        Some(Self { figures: figures.map(|it| value(&it)), rtts: rtts.iter().map(value).collect() })
    }
}

const FAILOVERS: usize = 7;

/// Adds a row to the columns; none for a moment that there is nothing of.
pub(super) fn append(columns: &mut Columns, row: Option<&Row>) {
    let lists = [
        &mut columns.sent,
        &mut columns.received,
        &mut columns.transit,
        &mut columns.flows_open,
        &mut columns.flows_started,
        &mut columns.flows_failed,
        &mut columns.errors,
        &mut columns.failovers,
        &mut columns.links_up,
        &mut columns.rtt_ms,
        &mut columns.loss,
        &mut columns.cpu,
        &mut columns.memory,
    ];
    for (i, list) in lists.into_iter().enumerate() {
        list.push(row.and_then(|row| known(row.figures[i])));
    }
}

/// A figure that is known, with the digits that were kept of it.
pub(super) fn known(value: f32) -> Option<f64> {
    value.is_finite().then(|| f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(number: f64) -> Sample {
        Sample { sent: number, failovers: number, rtt_ms: Some(number), ..Sample::default() }
    }

    #[test]
    fn rows_are_read_as_they_were_written_and_others_are_skipped() {
        let row = Row::new(&sample(2.5), vec![1.0, f32::NAN, 3.0]);
        let bytes = row.encode();
        let read = Row::decode(&bytes).unwrap();
        assert_eq!(read.encode(), bytes);
        assert!((read.figures[0] - 2.5).abs() < f32::EPSILON && read.figures[10].is_nan());
        for wrong in [&[][..], &[VERSION], &bytes[..50], &[&[9], &bytes[1..]].concat()] {
            assert!(Row::decode(wrong).is_none(), "{wrong:?}");
        }
        let too_many = Row { rtts: vec![0.0; MAX_PEERS + 1], ..row };
        assert!(Row::decode(&too_many.encode()).is_none());
    }

    #[test]
    fn a_minute_has_the_mean_of_what_is_known_and_all_failovers() {
        let unknown = Sample { rtt_ms: None, ..sample(3.0) };
        let rows = [
            Row::new(&sample(1.0), vec![4.0]),
            Row::new(&sample(2.0), vec![6.0, 8.0]),
            Row::new(&unknown, vec![]),
        ];
        let mean = Row::mean(rows.iter());
        let mut columns = Columns::default();
        append(&mut columns, Some(&mean));
        append(&mut columns, None);
        assert_eq!(columns.sent, [Some(2.0), None]);
        assert_eq!(columns.failovers, [Some(6.0), None]);
        assert_eq!(columns.rtt_ms, [Some(1.5), None]);
        assert_eq!(columns.loss, [None, None]);
        assert_eq!([mean.rtt(0), mean.rtt(1)].map(known), [Some(5.0), Some(8.0)]);
        assert_eq!(known(mean.rtt(2)), None);
    }
}
