//! The QUIC paths of a session: one for each slot, opened once and kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ffmesh_core::select::SLOTS;
use noq::{Connection, Path, PathId, PathStatus};

use crate::socket::{SessionAddr, SlotAddr};
use crate::transport::Transport;

/// Path ids that are looked at for a slot. They count up with each path that is opened, and a slot's path stays.
const MAX_PATH_ID: u32 = 32;
/// How long opening a path may take before it is tried anew.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Before the next attempt. The other side grants connection IDs for paths only a moment after the handshake.
const RETRY: Duration = Duration::from_millis(100);
/// After this long without a route, probes have been backed off too far to be waited for.
const LONG_OUTAGE: Duration = Duration::from_millis(500);
/// Before each ping over a new route.
const AWAKEN_DELAYS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(30), Duration::from_millis(100), Duration::from_millis(300)];

/// The paths of one session.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    transport: Transport,
    connection: Connection,
    address: SessionAddr,
    opening: Arc<[AtomicBool; SLOTS]>,
}

impl Paths {
    pub(super) fn new(transport: Transport, connection: Connection, address: SessionAddr) -> Self {
        Self { transport, connection, address, opening: Arc::default() }
    }

    /// Opens the path of a slot unless there is one. For the dialling side; the other one follows.
    pub(super) fn ensure(&self, slot: u8) {
        let Some(opening) = self.opening.get(usize::from(slot)) else { return };
        if self.of(self.address.slot(slot)).is_some() || opening.swap(true, Ordering::Relaxed) {
            return;
        }
        let paths = self.clone();
        tokio::spawn(async move {
            let address = paths.address.slot(slot);
            while paths.connection.close_reason().is_none() {
                let open = paths
                    .connection
                    .open_path_ensure(std::net::SocketAddr::from(address), PathStatus::Available);
                match tokio::time::timeout(OPEN_TIMEOUT, open).await {
                    Ok(Ok(_)) => break,
                    Ok(Err(error)) => tracing::trace!(%error, slot, "path not open yet"),
                    Err(_) => tracing::trace!(slot, "path not open yet: no answer"),
                }
                tokio::time::sleep(RETRY).await;
            }
            paths.opening[usize::from(slot)].store(false, Ordering::Relaxed);
        });
    }

    /// Starts loss detection over a new route: the acknowledgement of a ping shows what was lost, where recovery would wait
    /// for a backed-off timer. Both sides do so, as in a download only the accepting one has something to send; and several
    /// times, as the other side's labels may be in place a little later.
    pub(super) fn awaken(&self, slots: Vec<u8>, outage: Duration) {
        let paths = self.clone();
        tokio::spawn(async move {
            for (turn, delay) in AWAKEN_DELAYS.into_iter().enumerate() {
                tokio::time::sleep(delay).await;
                // A sender whose window is full of lost packets cannot even ping before its next probe is due.
                if turn == 1 && outage >= LONG_OUTAGE {
                    paths.transport.probe_now();
                }
                for slot in &slots {
                    if let Some(path) = paths.of(paths.address.slot(*slot)) {
                        let _ = path.ping(); // a path that has ended needs none
                    }
                }
            }
        });
    }

    /// The path of a slot.
    fn of(&self, slot: SlotAddr) -> Option<Path> {
        (0..MAX_PATH_ID)
            .filter_map(|id| self.connection.path(PathId::from(id)))
            .find(|path| path.remote_address().ok().and_then(SlotAddr::of) == Some(slot))
    }
}
