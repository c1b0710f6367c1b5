//! A session's circuits while it is being set up: all slots take one circuit, and another one when that is silent.

use std::collections::BTreeMap;
use std::time::Duration;

use ffmesh_core::circuit::OpenError;
use ffmesh_core::select::SLOTS;
use ffmesh_core::steer::Path;
use ffmesh_core::time::Time;

use crate::clock;
use crate::driver::{CircuitEvent, SessionEnds};
use crate::socket::{Labels, Way};

/// A circuit that nothing comes over for this long is left for another one, if there is any: QUIC sends its first packets
/// again meanwhile.
const SILENCE: Duration = Duration::from_millis(400);

/// A circuit of the session, and its route where this node set it up.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    pub(super) path: Option<Path>,
    pub(super) way: Way,
}

/// The circuits of a session that is being set up.
#[derive(Debug)]
pub(super) struct Approach {
    labels: Labels,
    pub(super) ends: SessionEnds,
    pub(super) circuits: BTreeMap<u64, Ready>,
    /// The circuit that the slots take, and since when
    pub(super) taken: Option<u64>,
    since: Time,
}

impl Approach {
    pub(super) fn new(labels: Labels, ends: SessionEnds) -> Self {
        Self { labels, ends, circuits: BTreeMap::new(), taken: None, since: clock::now() }
    }

    /// Waits for the next circuit that is set up or not. `None` when the node is shutting down.
    pub(super) async fn next(&mut self) -> Option<Result<(), OpenError>> {
        loop {
            match self.ends.events.recv().await? {
                CircuitEvent::Failed { error, .. } => return Some(Err(error)),
                event => {
                    let known = self.circuits.len();
                    self.take_in(event);
                    if self.circuits.len() > known {
                        return Some(Ok(()));
                    }
                }
            }
        }
    }

    /// Runs the handshake, and sees that its packets have a circuit.
    pub(super) async fn until<T>(&mut self, handshake: impl Future<Output = T>) -> T {
        let mut handshake = std::pin::pin!(handshake);
        while let Ok(event) = self.ends.events.try_recv() {
            self.take_in(event);
        }
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                result = &mut handshake => return result,
                event = self.ends.events.recv(), if open => match event {
                    Some(event) => self.take_in(event),
                    None => open = false,
                },
                () = tokio::time::sleep(SILENCE / 4) => self.look(),
            }
        }
    }

    fn take_in(&mut self, event: CircuitEvent) {
        match event {
            CircuitEvent::Opened { path, circuit, way } => self.add(circuit, Some(path), way),
            CircuitEvent::Arrived { circuit, way } => self.add(circuit, None, way),
            CircuitEvent::Moved { circuit, way } => {
                if let Some(ready) = self.circuits.get_mut(&circuit) {
                    ready.way = way;
                    if self.taken == Some(circuit) {
                        self.take(circuit);
                    }
                }
            }
            CircuitEvent::Gone { circuit, .. } => {
                self.circuits.remove(&circuit);
                if self.taken == Some(circuit) {
                    self.taken = None;
                    self.turn();
                }
            }
            CircuitEvent::Failed { .. } => {} // others were asked for
        }
    }

    fn add(&mut self, circuit: u64, path: Option<Path>, way: Way) {
        self.circuits.insert(circuit, Ready { path, way });
        if self.taken.is_none() {
            self.take(circuit);
        }
    }

    /// Leaves a circuit that is silent.
    fn look(&mut self) {
        let heard = self
            .taken
            .and_then(|circuit| self.circuits.get(&circuit))
            .map(|ready| ready.way.activity.heard());
        if clock::now() - self.since.max(heard.unwrap_or_default()) >= SILENCE {
            self.turn();
        }
    }

    /// Takes the next circuit, the one heard last first.
    fn turn(&mut self) {
        let others = self.circuits.iter().filter(|(circuit, _)| Some(**circuit) != self.taken);
        let next = others.max_by_key(|(circuit, ready)| (ready.way.activity.heard(), **circuit));
        if let Some(circuit) = next.map(|(circuit, _)| *circuit) {
            self.take(circuit);
        }
    }

    fn take(&mut self, circuit: u64) {
        let Some(ready) = self.circuits.get(&circuit) else { return };
        (self.taken, self.since) = (Some(circuit), clock::now());
        for slot in (0u8..).take(SLOTS) {
            self.labels.point(self.ends.address.slot(slot), Some(ready.way.clone()));
        }
    }
}
