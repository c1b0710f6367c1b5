//! Where the slots of a session point, for as long as it lives.

use crate::socket::{Labels, SessionAddr, Way};

/// The slots of one session. What the socket knows of them goes with this.
#[derive(Debug)]
pub(super) struct Slots {
    labels: Labels,
    address: SessionAddr,
}

impl Slots {
    /// They point nowhere yet.
    pub(super) fn new(labels: Labels, address: SessionAddr) -> Self {
        Self { labels, address }
    }

    /// Lets the packets of a slot take a circuit.
    pub(super) fn point(&self, slot: u8, way: Way) {
        self.labels.point(self.address.slot(slot), Some(way));
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.labels.forget_session(self.address);
    }
}
