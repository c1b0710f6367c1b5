//! Links: the connections of neighbours, on their direct UDP path, which carry the control plane.
//!
//! ```text
//! dial ───┐                     one task each:
//! wanted ─┼─ handshake ── run ─┬─ control stream in, probes, changes of address
//! accept ─┘                    └─ control stream out
//! ```
//!
//! `dial` keeps the links to the upstreams of the configuration, `wanted` makes some to nodes in use at the `addresses`
//! that they advertise.
//!
//! A link tells of itself by [`LinkEvent`]s; whoever owns the links decides (the driver).

mod addresses;
mod dial;
mod handshake;
mod run;
#[cfg(test)]
mod tests;
mod wanted;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ffmesh_api::{Change, PeerState};
use ffmesh_core::id::NodeId;
use ffmesh_core::wire::{Capability, Message, SynMsg};
use jiff::Timestamp;
use noq::{Connection, PathId, VarInt};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::events::Events;
use crate::identity::{Certificates, Credentials, PeerIdentity};
use crate::transport::Transport;

pub use addresses::advertised;
pub use dial::{DialState, Dialler, Linked, Upstreams};
pub use handshake::accept;
pub use wanted::{MAX_WANTED, Wanted, WantedDialler, dial_wanted};

/// Control messages that may wait for a link: an end and a new beginning of each circuit that a lost link takes along.
/// A neighbour that leaves more than these unread is cut off, and one that reads nothing for [`WRITE_TIMEOUT`].
const OUTBOX: usize = 8_192;
/// How long a neighbour may take to take in a control message.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Application error codes of a link's CONNECTION_CLOSE (RFC 9000, section 19.19).
pub mod code {
    /// The node is shutting down; `Reason::Drained` of sessions. 0 is what a connection that was dropped says.
    pub const GOODBYE: u32 = 8;
    /// Another link to the same node took over.
    pub const REPLACED: u32 = 1;
    /// Nothing was heard for too long.
    pub const SILENT: u32 = 2;
    /// A message was malformed or out of place.
    pub const PROTOCOL: u32 = 3;
    /// The link was refused; the reason says why.
    pub const REFUSED: u32 = 4;
    /// The certificate that opened it has ended.
    pub const EXPIRED: u32 = 5;
}

/// What links need of their node.
#[derive(Debug, Clone)]
pub struct LinkContext {
    /// The QUIC endpoint
    pub transport: Transport,
    /// Who this node is
    pub credentials: Arc<Credentials>,
    /// This node's boot epoch
    pub epoch: u64,
    /// What this node offers
    pub capabilities: Vec<Capability>,
    /// `quic.keep_alive`
    pub keep_alive: Duration,
    /// Where events go
    pub events: mpsc::Sender<LinkEvent>,
    /// Where it is published that a node is dialled
    pub changes: Events,
}

impl LinkContext {
    /// Publishes that a node is dialled, or why it was not reached.
    fn publish_dialling(&self, node: &NodeId, reason: Option<String>) {
        let (node_id, state) = (node.clone(), PeerState::Dialling);
        self.changes.publish(Change::Peer { node_id, state, reason });
    }

    fn syn(&self) -> SynMsg {
        SynMsg {
            version: ffmesh_core::wire::VERSION,
            node_id: self.credentials.node_id(),
            mesh: self.credentials.mesh(),
            epoch: self.epoch,
            capabilities: self.capabilities.clone(),
            clock_ms: u64::try_from(Timestamp::now().as_millisecond()).ok(),
        }
    }
}

/// What happens to links.
#[derive(Debug)]
pub enum LinkEvent {
    /// A link is ready; it runs once the answer is `Ok`, and is refused with the sentence otherwise.
    Candidate {
        /// The link
        link: Link,
        /// Takes the decision
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// A control message came.
    Message {
        /// Over this link
        link: Link,
        /// This one
        message: Message,
    },
    /// The neighbour has proved to be at another address.
    Moved {
        /// The link
        link: Link,
        /// It was
        old: SocketAddr,
        /// It is
        new: SocketAddr,
    },
    /// A link that was accepted is gone.
    Down {
        /// The link
        link: Link,
        /// Why, as a sentence
        reason: String,
        /// Whether one of the nodes ended it on purpose
        orderly: bool,
    },
}

/// A link to a neighbour that has proved who it is.
#[derive(Debug, Clone)]
pub struct Link(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    serial: u64,
    peer: PeerIdentity,
    syn: SynMsg,
    made: Made,
    clock_offset_ms: Option<i64>,
    since: Timestamp,
    connection: Connection,
    outbox: mpsc::Sender<Message>,
    /// Where the neighbour has proved to be, by its handshake or by an answer to a PING there.
    address: Mutex<Option<SocketAddr>>,
    vitals: Mutex<Vitals>,
    /// Something speaks against the neighbour.
    suspected: Notify,
}

/// How a link came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    Accepted,
    /// Its node is an upstream of the configuration.
    Dialled,
    /// Its node was wanted, and dialled where it says that it can be.
    Found,
}

/// How a link is doing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Vitals {
    /// Smoothed round trip time
    pub rtt: Option<Duration>,
    /// Lost share of the last probes, 0 to 1
    pub loss: Option<f64>,
}

impl Link {
    fn new(
        connection: Connection,
        peer: PeerIdentity,
        syn: SynMsg,
        made: Made,
    ) -> (Self, mpsc::Receiver<Message>) {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let inner = Inner {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            clock_offset_ms: clock_offset(&syn, connection.rtt(PathId::ZERO), Timestamp::now()),
            peer,
            syn,
            made,
            since: Timestamp::now(),
            address: Mutex::new(current_address(&connection)),
            connection,
            outbox,
            vitals: Mutex::default(),
            suspected: Notify::new(),
        };
        (Self(Arc::new(inner)), messages)
    }

    /// A number that no other link of this process has.
    pub fn serial(&self) -> u64 {
        self.0.serial
    }

    /// Who is at the other end, as its certificate says.
    pub fn peer(&self) -> &PeerIdentity {
        &self.0.peer
    }

    /// The neighbour's id.
    pub fn node(&self) -> &NodeId {
        &self.0.peer.id
    }

    /// The neighbour's boot epoch.
    pub fn epoch(&self) -> u64 {
        self.0.syn.epoch
    }

    /// By how much the neighbour's clock was ahead of this machine's when the link was made, in ms, give or take half
    /// a round trip; negative where it was behind. None where it did not say.
    pub fn clock_offset_ms(&self) -> Option<i64> {
        self.0.clock_offset_ms
    }

    /// Whether this node dialled it.
    pub fn dialled(&self) -> bool {
        self.0.made != Made::Accepted
    }

    /// Whether this node dialled it by [`dial_wanted`]: nobody has configured it, so it can go when it has no use.
    pub fn is_found(&self) -> bool {
        self.0.made == Made::Found
    }

    /// When it was made.
    pub fn since(&self) -> Timestamp {
        self.0.since
    }

    /// The neighbour's address, never v4-mapped: the last one that it has proved to be at.
    pub fn address(&self) -> Option<SocketAddr> {
        *self.0.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the last packet claimed to come from. Anybody can write an address on a packet.
    fn claimed_address(&self) -> Option<SocketAddr> {
        current_address(&self.0.connection)
    }

    fn set_address(&self, address: SocketAddr) {
        *self.0.address.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    /// This node's address on the link.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.0.connection.path(PathId::ZERO)?.local_ip().ok().flatten()
    }

    /// How it is doing.
    pub fn vitals(&self) -> Vitals {
        *self.0.vitals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The round trip time that QUIC has measured, from the handshake on.
    pub fn rtt(&self) -> Option<Duration> {
        self.0.connection.rtt(PathId::ZERO)
    }

    /// Something speaks against the neighbour: it is asked at once, and has to answer soon.
    pub fn suspect(&self) {
        self.0.suspected.notify_one();
    }

    /// Lets records of the neighbour be checked by the certificate that it presented.
    pub fn learn_certificate(&self, certificates: &Certificates) {
        if let Err(error) = certificates.insert_peer(&self.0.connection) {
            tracing::warn!(peer = %self.node(), "records of this neighbour cannot be checked: {error}");
        }
    }

    /// Queues a control message. A neighbour that does not read its messages is cut off.
    pub fn send(&self, message: Message) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.0.outbox.try_send(message) {
            self.close(code::PROTOCOL, "does not read its control messages");
        }
    }

    /// Closes it.
    pub fn close(&self, code: u32, reason: &str) {
        self.0.connection.close(VarInt::from_u32(code), reason.as_bytes());
    }

    fn set_vitals(&self, vitals: Vitals) {
        *self.0.vitals.lock().unwrap_or_else(PoisonError::into_inner) = vitals;
    }
}

fn current_address(connection: &Connection) -> Option<SocketAddr> {
    connection.path(PathId::ZERO)?.remote_address().ok().map(ffmesh_udp::canonical)
}

/// By how much the sender's clock is ahead of this one, at which its message arrived: it travelled half a round trip.
fn clock_offset(syn: &SynMsg, rtt: Option<Duration>, arrived: Timestamp) -> Option<i64> {
    let sent = i64::try_from(syn.clock_ms?).ok()?;
    let travelled = i64::try_from(rtt.unwrap_or_default().as_millis() / 2).ok()?;
    sent.checked_add(travelled)?.checked_sub(arrived.as_millisecond())
}
