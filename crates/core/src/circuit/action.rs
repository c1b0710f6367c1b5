//! What a node is to do for its circuits.

use super::CircuitKey;
use crate::flood::LinkId;
use crate::id::NodeId;
use crate::label::Label;
use crate::wire::Message;

/// Where packets go that come with a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forward {
    /// To the neighbour at the other end of a link
    Relay {
        /// The link
        link: LinkId,
        /// The label that they get instead
        label: Label,
    },
    /// To the session of an own circuit, by its id
    Own(u64),
    /// To the session of a circuit that ends here
    End(CircuitKey),
}

/// What the caller is to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a message to the neighbour at the other end of a link.
    Send(LinkId, Message),
    /// From now on packets with this label are accepted.
    Install {
        /// What they come with
        label: Label,
        /// The link that it was agreed over: packets of others with this label are not accepted
        link: LinkId,
        /// Where they go
        to: Forward,
    },
    /// From now on they are not. The label was installed before.
    Remove(Label),
    /// An own circuit is set up. What comes back was installed as [`Forward::Own`] when it was asked for.
    Opened {
        /// The circuit
        id: u64,
        /// Where its packets go
        link: LinkId,
        /// The label that they get
        label: Label,
    },
    /// An own circuit did not come about.
    Failed {
        /// The circuit
        id: u64,
        /// Why
        error: OpenError,
    },
    /// An own circuit that was open is gone, and not by [`Circuits::close`](super::Circuits::close).
    Closed {
        /// The circuit
        id: u64,
        /// A sentence that says why, fit to be shown
        reason: String,
    },
    /// A circuit of another node ends here. Its first node has not been told yet that it is set up.
    Arrived {
        /// The circuit
        key: CircuitKey,
        /// The session that it is for, chosen by its first node
        session: u64,
        /// Its route, whose last node this one is. Only the neighbour before this node is certain; who the first one is, the
        /// session has to prove.
        route: Vec<NodeId>,
        /// Where what goes back goes
        link: LinkId,
        /// The label that it gets
        label: Label,
    },
    /// Such a circuit is gone.
    Left {
        /// The circuit
        key: CircuitKey,
        /// The session that it was for
        session: u64,
        /// A sentence that says why, fit to be shown
        reason: String,
    },
}

/// Why a circuit was not set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no link for the first hop, or it went down before the answer came.
    #[error("there is no link to the next node of the route")]
    NoLink,
    /// A node of the route refused.
    #[error("refused by a node of the route: {0}")]
    Refused(String),
    /// No answer within [`OPEN_TIMEOUT`](super::OPEN_TIMEOUT).
    #[error("no answer within 2 s")]
    Timeout,
}
