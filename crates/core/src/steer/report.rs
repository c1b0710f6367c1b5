//! What a Decider's routes look like to a user.

use std::time::Duration;

use super::candidate::Candidate;
use super::circuit::Circuit;
use super::{Decider, Path};
use crate::select::{SLOTS, Standing};

/// How a route stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteState {
    /// Holds slot 0
    InUse,
    /// Alive
    Warm,
    /// Alive, and loses much
    Impaired,
    /// Without a circuit, or the circuit is dead, or silent for more than [`MUTE`](super::MUTE)
    Down,
}

/// A route, to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteReport {
    /// Its nodes
    pub path: Path,
    /// In microseconds
    pub cost: u64,
    /// Its circuit, if it has one
    pub circuit: Option<u64>,
    /// How it stands
    pub state: RouteState,
    /// Smoothed round trip time, if measured
    pub srtt: Option<Duration>,
    /// Lost share of the Asks of the last three seconds, per mille
    pub loss: Option<u16>,
    /// Which slots take it
    pub slots: [bool; SLOTS],
}

impl Decider {
    /// All routes, as they stand at the last poll.
    pub fn report(&self) -> Vec<RouteReport> {
        let report = |known: Standing<'_, Path>| {
            let candidate = self.candidates.iter().find(|candidate| candidate.path == *known.route);
            let circuit = candidate.and_then(Candidate::circuit);
            let state = match circuit {
                Some(circuit) if !circuit.alive || circuit.mute(self.polled) => RouteState::Down,
                Some(circuit) if circuit.impaired => RouteState::Impaired,
                Some(_) if self.selector.in_use() == Some(known.route) => RouteState::InUse,
                Some(_) => RouteState::Warm,
                None => RouteState::Down,
            };
            RouteReport {
                path: known.route.clone(),
                cost: known.cost,
                circuit: circuit.map(|circuit| circuit.id),
                state,
                srtt: circuit.and_then(Circuit::srtt),
                loss: circuit.and_then(Circuit::loss),
                slots: self.map.slots.map(|slot| circuit.is_some_and(|circuit| circuit.id == slot)),
            }
        };
        self.selector.routes().filter(|known| known.wanted).map(report).collect()
    }
}
