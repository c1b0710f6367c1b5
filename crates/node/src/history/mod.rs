//! What was measured over time: the last hour by seconds and the last week by minutes.
//!
//! [`sample`] takes the node's figures each second and tells whoever listens. [`History`] keeps them in memory, from where
//! they are read, and in the store, so that they survive a restart (`file`). All of it is bounded: 3,600 rows of seconds
//! and 10,080 of minutes, of at most 181 bytes each; twice as many while the clock is wrong.

mod file;
mod row;
mod sample;
mod series;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use jiff::Timestamp;

use file::{Block, MINUTES, SECONDS};
use row::{Row, append, known};
use series::Series;
use slots::Slots;

pub use row::MAX_PEERS;
pub use sample::{Figures, sample};

use crate::store::{Store, StoreError};

/// Seconds that are kept: an hour.
pub const MAX_SECONDS: usize = 3_600;
/// Minutes that are kept: a week.
pub const MAX_MINUTES: usize = 7 * 24 * 60;
const MINUTE: i64 = 60;
/// Counts of errors that are kept, one a second: from that of a minute ago to the newest one.
const MAX_COUNTS: usize = 61;

/// The history of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct History {
    store: Store,
    state: Arc<Mutex<State>>,
    /// Held while a block is written, so that an older one does not come after a newer one
    writing: Arc<Mutex<()>>,
}

#[derive(Debug)]
struct State {
    seconds: Series,
    minutes: Series,
    slots: Slots,
    /// Rows that the store has not got yet
    new_seconds: Vec<(i64, Vec<u8>)>,
    new_minutes: Vec<(i64, Vec<u8>)>,
    /// All errors since the start, at each second of the last minute
    errors: VecDeque<u64>,
}

impl History {
    /// What the store has, as seen at `now`.
    pub fn load(store: Store, now: Timestamp) -> Result<Self, StoreError> {
        let now = now.as_second();
        let state = State {
            seconds: Series::kept(1, MAX_SECONDS, file::read_rows(&store, SECONDS)?, now),
            minutes: Series::kept(MINUTE, MAX_MINUTES, file::read_rows(&store, MINUTES)?, now),
            slots: file::read_slots(&store)?,
            new_seconds: Vec::new(),
            new_minutes: Vec::new(),
            errors: VecDeque::new(),
        };
        Ok(Self { store, state: Arc::new(Mutex::new(state)), writing: Arc::default() })
    }

    /// Takes in the second that ends at `at`, with the round trip times in ms of the links that are up. Returns whether a
    /// minute is full, and a block is to be [written](Self::flush).
    pub fn push(&self, at: i64, sample: &api::Sample, up: &[(NodeId, Option<f64>)]) -> bool {
        let mut state = self.lock();
        let State { seconds, minutes, slots, new_seconds, new_minutes, .. } = &mut *state;
        let row = Row::new(sample, slots.fill(at, up));
        // The minute of the last row is over.
        let minute = |at: i64| at.div_euclid(MINUTE) + i64::from(at.rem_euclid(MINUTE) > 0);
        let full = seconds.newest().map(minute).filter(|last| *last != minute(at)).map(|last| last * MINUTE);
        if let Some(end) = full {
            let mean = Row::mean(seconds.between(end - MINUTE, end).map(|(_, row)| row));
            new_minutes.push((end, mean.encode()));
            minutes.push(end, mean);
        }
        new_seconds.push((at, row.encode()));
        seconds.push(at, row);
        full.is_some()
    }

    /// Writes what is new to the store. Blocks while the disk works. What cannot be written comes with the next block: as
    /// many rows as are kept at all.
    pub fn flush(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.lock();
        let kept = |series: &Series| series.first().zip(series.last());
        let (kept_seconds, kept_minutes) = (kept(&state.seconds), kept(&state.minutes));
        let seconds = Block { rows: std::mem::take(&mut state.new_seconds), kept: kept_seconds };
        let minutes = Block { rows: std::mem::take(&mut state.new_minutes), kept: kept_minutes };
        let slots = Slots::clone(&state.slots);
        drop(state);
        let written = file::write(&self.store, &seconds, &minutes, &slots);
        if written.is_err() {
            let mut state = self.lock();
            put_back(&mut state.new_seconds, seconds.rows, MAX_SECONDS);
            put_back(&mut state.new_minutes, minutes.rows, MAX_MINUTES);
        }
        written
    }

    /// The rows from one moment to another, at most as many as are kept. Without `to`, up to `now`.
    pub fn query(&self, query: &Query, now: Timestamp) -> api::History {
        let state = self.lock();
        let series = match query.step {
            api::Step::Second => &state.seconds,
            api::Step::Minute => &state.minutes,
        };
        let step = series.step;
        let to = query.to.map_or(now, |to| to.min(now)).as_second().div_euclid(step);
        let most = i64::try_from(series.most).unwrap_or(i64::MAX);
        let oldest = now.as_second().div_euclid(step) - most + 1;
        let from = query.from.map_or(oldest, |from| ceiling(from, step).max(oldest));
        let mut columns = api::Columns::default();
        let slots: Vec<_> = state.slots.iter().collect();
        let mut rtts: Vec<Vec<Option<f64>>> = vec![Vec::new(); slots.len()];
        let mut rows = series.between(from.saturating_mul(step) - 1, to.saturating_mul(step)).peekable();
        for at in (from..=to).map(|moment| moment * step) {
            let row = rows.next_if(|(there, _)| *there == at).map(|(_, row)| row);
            append(&mut columns, row);
            for ((number, slot), rtts) in slots.iter().zip(&mut rtts) {
                let own = row.filter(|_| at >= slot.since);
                rtts.push(own.and_then(|row| known(row.rtt(usize::from(*number)))));
            }
        }
        let peer = |((_, slot), rtt_ms): (&(u8, &slots::Slot), Vec<Option<f64>>)| api::PeerHistory {
            node_id: slot.node.clone(),
            rtt_ms,
        };
        let with_some = slots.iter().zip(rtts).filter(|(_, rtts)| rtts.iter().any(Option::is_some));
        api::History {
            step_s: u32::try_from(step).unwrap_or_default(),
            from: (from <= to).then(|| Timestamp::from_second(from * step).ok()).flatten(),
            columns,
            peers: with_some.map(peer).collect(),
        }
    }

    /// Takes note of how many errors there were so far, once a second.
    fn count_errors(&self, all: u64) {
        let mut state = self.lock();
        if state.errors.len() >= MAX_COUNTS {
            state.errors.pop_front();
        }
        state.errors.push_back(all);
    }

    /// Errors within the last minute, of so many since the start.
    pub fn errors_per_minute(&self, all: u64) -> u64 {
        all.saturating_sub(self.lock().errors.front().copied().unwrap_or_default())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts rows that could not be written before those that have come meanwhile. The oldest ones go where there are too many.
fn put_back(new: &mut Vec<(i64, Vec<u8>)>, mut rows: Vec<(i64, Vec<u8>)>, most: usize) {
    rows.append(new);
    rows.drain(..rows.len().saturating_sub(most));
    *new = rows;
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Query {
    /// How fine
    pub step: api::Step,
    /// The first entry ends then or later
    pub from: Option<Timestamp>,
    /// The last one then or earlier
    pub to: Option<Timestamp>,
}

/// A moment in steps, rounded up.
fn ceiling(at: Timestamp, step: i64) -> i64 {
    let second = at.as_second() + i64::from(at.subsec_nanosecond() > 0);
    second.div_euclid(step) + i64::from(second.rem_euclid(step) > 0)
}
