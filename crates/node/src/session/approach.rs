//! A session's circuits while it is being set up: all slots take one circuit, and another one when that is silent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ffmesh_core::circuit::OpenError;
use ffmesh_core::select::SLOTS;
use ffmesh_core::steer::Path;
use ffmesh_core::time::Time;

use super::slots::Slots;
use crate::clock;
use crate::driver::{CircuitEvent, SessionEnds};
use crate::socket::{Labels, Way};

/// A circuit that nothing comes over for this long is left for another one, if there is any: QUIC sends its first packets
/// again meanwhile.
const SILENCE: Duration = Duration::from_millis(400);

/// How long the slots of a session that did not come about stay.
const LINGER: Duration = Duration::from_secs(1);

/// A circuit of the session, and its route where this node set it up.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    pub(super) path: Option<Path>,
    pub(super) way: Way,
}

/// The circuits of a session that is being set up.
#[derive(Debug)]
pub(super) struct Approach {
    pub(super) slots: Arc<Slots>,
    pub(super) ends: SessionEnds,
    pub(super) circuits: BTreeMap<u64, Ready>,
    /// The circuit that the slots take, and since when
    pub(super) taken: Option<u64>,
    since: Time,
}

impl Approach {
    pub(super) fn new(labels: Labels, ends: SessionEnds) -> Self {
        let slots = Arc::new(Slots::new(labels, ends.address));
        Self { slots, ends, circuits: BTreeMap::new(), taken: None, since: clock::now() }
    }

    /// Stays for a moment, so that what QUIC has to say of the end can leave.
    pub(super) fn linger(self) {
        tokio::spawn(async move {
            let _slots = self;
            tokio::time::sleep(LINGER).await;
        });
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

    /// Leaves a circuit that is silent; and one that is not, when no handshake comes of it.
    fn look(&mut self) {
        let heard = self.taken.and_then(|circuit| self.circuits.get(&circuit));
        let heard = heard.map(|ready| ready.way.activity.heard()).unwrap_or_default();
        let now = clock::now();
        if now - self.since.max(heard) >= SILENCE || now - self.since >= SILENCE * 2 {
            self.turn();
        }
    }

    /// Takes the next circuit, each in its turn.
    fn turn(&mut self) {
        let after = |from: u64| self.circuits.range(from..).next().map(|(circuit, _)| *circuit);
        let next = self.taken.and_then(|taken| after(taken.saturating_add(1))).or_else(|| after(0));
        if let Some(circuit) = next {
            self.take(circuit);
        }
    }

    fn take(&mut self, circuit: u64) {
        let Some(ready) = self.circuits.get(&circuit) else { return };
        (self.taken, self.since) = (Some(circuit), clock::now());
        for slot in (0u8..).take(SLOTS) {
            self.slots.point(slot, ready.way.clone());
        }
    }
}
