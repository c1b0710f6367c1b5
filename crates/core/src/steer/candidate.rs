//! A route that may be taken, and the circuit along it.

use std::time::Duration;

use super::circuit::Circuit;
use super::{Finding, Path, Step};
use crate::select::State;
use crate::time::Time;

/// A circuit that could not be opened is tried again after this...
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// ...doubled each time up to this: a relay that listens again is a warm route within seconds.
const RETRY_MOST: Duration = Duration::from_secs(5);

/// A route and what there is of a circuit along it.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) path: Path,
    pub(super) setup: Setup,
    /// How long the next failure delays the next attempt
    retry: Duration,
    /// Whether a circuit along it died
    pub(super) died: bool,
}

#[derive(Debug)]
pub(super) enum Setup {
    /// To be opened from then on
    Closed(Time),
    /// Being opened since then
    Opening(Time),
    Open(Box<Circuit>),
}

impl Candidate {
    pub(super) fn new(path: Path, now: Time) -> Self {
        Self { path, setup: Setup::Closed(now), retry: RETRY_FIRST, died: false }
    }

    pub(super) fn circuit(&self) -> Option<&Circuit> {
        if let Setup::Open(circuit) = &self.setup { Some(circuit) } else { None }
    }

    pub(super) fn circuit_mut(&mut self) -> Option<&mut Circuit> {
        if let Setup::Open(circuit) = &mut self.setup { Some(circuit) } else { None }
    }

    /// No circuit, for now.
    pub(super) fn fail(&mut self, now: Time) {
        self.setup = Setup::Closed(now + self.retry);
        self.retry = (self.retry * 2).min(RETRY_MOST);
    }

    /// The next failure is the first again.
    pub(super) fn succeeded(&mut self) {
        self.retry = RETRY_FIRST;
    }

    /// How it fares, as far as slots go.
    pub(super) fn state(&self) -> State {
        match self.circuit().filter(|circuit| circuit.usable()) {
            None => State::Down,
            Some(circuit) if circuit.impaired => State::Impaired,
            Some(_) => State::Up,
        }
    }

    /// What was found out about its circuit.
    pub(super) fn verdict(&self, finding: Finding, why: &'static str) -> Option<Step> {
        self.circuit().map(|circuit| Step::Verdict {
            path: self.path.clone(),
            circuit: circuit.id,
            finding,
            why,
        })
    }
}
