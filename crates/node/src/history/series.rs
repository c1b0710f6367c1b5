//! Rows of one step, in the order of time.

use std::collections::VecDeque;

use super::row::Row;

/// Rows by the moment that they end at, in seconds of Unix time; a bounded number of them, the newest ones.
#[derive(Debug)]
pub(super) struct Series {
    /// Seconds from one row to the next
    pub(super) step: i64,
    pub(super) most: usize,
    rows: VecDeque<(i64, Row)>,
}

impl Series {
    pub(super) fn new(step: i64, most: usize) -> Self {
        Self { step, most, rows: VecDeque::new() }
    }

    /// Adds a row. Those of this moment and of later ones are dropped: they are of a clock that was wrong. That old ones
    /// go by their number, not by their age, keeps them where the clock jumps far ahead for a while.
    pub(super) fn push(&mut self, at: i64, row: Row) {
        while self.rows.back().is_some_and(|(last, _)| *last >= at) {
            self.rows.pop_back();
        }
        if self.rows.len() >= self.most {
            self.rows.pop_front();
        }
        self.rows.push_back((at, row));
    }

    /// The moment of the last row.
    pub(super) fn last(&self) -> Option<i64> {
        self.rows.back().map(|(at, _)| *at)
    }

    /// That of the first.
    pub(super) fn first(&self) -> Option<i64> {
        self.rows.front().map(|(at, _)| *at)
    }

    /// The rows after one moment, to another.
    pub(super) fn between(&self, after: i64, to: i64) -> impl Iterator<Item = &(i64, Row)> + Clone {
        let start = self.rows.partition_point(|(at, _)| *at <= after);
        self.rows.range(start..).take_while(move |(at, _)| *at <= to)
    }
}

#[cfg(test)]
mod tests {
    use ffmesh_api::Sample;

    use super::*;

    fn moments(series: &Series) -> Vec<i64> {
        series.between(i64::MIN, i64::MAX).map(|(at, _)| *at).collect()
    }

    #[test]
    fn there_is_a_bound_and_clocks_that_jump_do_no_harm() {
        let mut series = Series::new(1, 4);
        let mut push = |at: i64| {
            series.push(at, Row::new(&Sample::default(), Vec::new()));
            moments(&series)
        };
        push(10);
        push(11);
        assert_eq!(push(12), [10, 11, 12]);
        assert_eq!(push(9_000), [10, 11, 12, 9_000], "far ahead");
        assert_eq!(push(13), [10, 11, 12, 13], "and back");
        assert_eq!(push(13), [10, 11, 12, 13], "the same second twice");
        assert_eq!(push(11), [10, 11]);
        assert_eq!((series.first(), series.last()), (Some(10), Some(11)));
        assert_eq!(series.between(10, 11).count(), 1);
    }
}
