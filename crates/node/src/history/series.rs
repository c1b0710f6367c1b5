//! Rows of one step, in the order of time.

use std::collections::VecDeque;

use super::row::Row;

/// Rows by the moment that they end at, in seconds of Unix time; a bounded number of them, those next to now.
///
/// Clocks jump, and mostly they come back: a machine without a battery begins in the past until it has heard the time. So
/// rows of the future stay until a row for their moment comes, or until so many rows have come before them that the clock
/// has to be taken at its word.
#[derive(Debug)]
pub(super) struct Series {
    /// Seconds from one row to the next
    pub(super) step: i64,
    /// Rows of the past at most, and rows of the future
    pub(super) most: usize,
    rows: VecDeque<(i64, Row)>,
    /// The row that came last
    newest: Option<i64>,
    /// Rows that have come, one after another, while there were some of the future
    behind: usize,
}

impl Series {
    pub(super) fn new(step: i64, most: usize) -> Self {
        Self { step, most, rows: VecDeque::new(), newest: None, behind: 0 }
    }

    /// Those that were kept, in any order, as seen at `now`.
    pub(super) fn kept(step: i64, most: usize, mut rows: Vec<(i64, Row)>, now: i64) -> Self {
        rows.sort_by_key(|(at, _)| *at);
        let newest = rows.iter().map(|(at, _)| *at).rfind(|at| *at <= now);
        let mut series = Self { rows: rows.into(), newest, ..Self::new(step, most) };
        series.bound(now);
        series
    }

    /// Adds a row, in the place of that of the same moment. That old ones go by their number, not by their age, keeps
    /// them where the clock jumps far ahead for a while.
    pub(super) fn push(&mut self, at: i64, row: Row) {
        let place = self.rows.partition_point(|(other, _)| *other < at);
        match self.rows.get_mut(place) {
            Some((other, old)) if *other == at => *old = row,
            _ => self.rows.insert(place, (at, row)),
        }
        self.newest = Some(at);
        let is_last = place + 1 == self.rows.len();
        self.behind = if is_last { 0 } else { self.behind + 1 };
        if self.behind >= self.most {
            self.rows.truncate(place + 1);
            self.behind = 0;
        }
        self.bound(at);
    }

    /// Drops what is too far away on either side.
    fn bound(&mut self, now: i64) {
        let past = self.rows.partition_point(|(at, _)| *at <= now);
        self.rows.truncate(past + self.most);
        self.rows.drain(..past.saturating_sub(self.most));
    }

    /// The moment of the row that came last.
    pub(super) fn newest(&self) -> Option<i64> {
        self.newest
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
        assert_eq!(push(13), [10, 11, 12, 13, 9_000], "and back");
        assert_eq!(push(13), [10, 11, 12, 13, 9_000], "the same second twice");
        assert_eq!(push(14), [11, 12, 13, 14, 9_000], "what is old goes");
        assert_eq!(
            push(15),
            [12, 13, 14, 15],
            "and what is too far ahead, once the clock has been so for long"
        );
        assert_eq!(push(2), [2, 12, 13, 14, 15], "back by much: nothing is lost");
        assert_eq!(push(1), [1, 2, 12, 13, 14], "no more of the future than of the past");
        assert_eq!(push(16), [12, 13, 14, 16], "and ahead again");
        assert_eq!((series.first(), series.last(), series.newest()), (Some(12), Some(16), Some(16)));
        assert_eq!(series.between(13, 16).count(), 2);
    }
    #[test]
    fn what_is_kept_is_bounded_on_either_side_of_now() {
        let rows = |range: std::ops::Range<i64>| {
            range.map(|at| (at, Row::new(&Sample::default(), Vec::new()))).rev().collect::<Vec<_>>()
        };
        let kept = |now| {
            let series = Series::kept(1, 2, rows(0..10), now);
            (moments(&series), series.newest())
        };
        assert_eq!(kept(4), (vec![3, 4, 5, 6], Some(4)));
        assert_eq!(kept(100), (vec![8, 9], Some(9)));
        assert_eq!(kept(-1), (vec![0, 1], None));
    }
}
