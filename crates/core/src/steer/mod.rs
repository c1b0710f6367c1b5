//! Which circuit each slot of a session takes, and which circuits are alive.
//!
//! A session has [`SLOTS`] slots, QUIC paths that stay for its life, and a circuit for each route that is
//! known. Each slot can take each circuit. The node that dialled the session is its [`Decider`]: it has circuits opened
//! for the routes that the mesh offers, asks each of them all the time whether it works, and points the slots at circuits
//! by a [`Map`], which every [`Probe`] carries. The other one is the [`Follower`]: it does as the newest map says.
//! Both are told what happens and the time, and say what to do ([`Step`], [`FollowerStep`]) and when to call again.
//!
//! # When a circuit is dead
//! Where there is data, every circuit of the session is asked each [`FAST`] interval. One is dead when nothing came over it
//! for about three of them, while another one (the witness) was heard: silence on all circuits is more likely a
//! sleeping process or a cable of our own than the end of all of them, and there would be nowhere to go. So the only
//! circuit never dies of silence. What counts as silence, and whose word counts, stands in `circuit`.
//!
//! # What the caller owes
//! - [`activity`](Decider::activity) of every circuit right before each `poll`, and a `poll` when data begins after a second
//!   without any: the machines learn of data in no other way, and poll twice a second while idle.
//! - `poll` at once after `closed`, `left`, `asked`, `echo`, `opened` and `heard_map`: what these change is done there.
//! - Echoes of Asks, at once and whatever the state. They carry the map, too.

use std::sync::Arc;
use std::time::Duration;

use crate::id::NodeId;
use crate::select::SLOTS;

mod asks;
mod candidate;
mod circuit;
mod decider;
mod follower;
mod lateness;
mod loss;
mod probe;
mod report;
#[cfg(test)]
mod tests;

pub use decider::{Decider, Finding, MAX_CIRCUITS, Step};
pub use follower::{Follower, FollowerStep, MAX_ARRIVED};
pub use probe::{Kind, PROBE_LEN, Probe};
pub use report::{RouteReport, RouteState};

/// A route: its nodes from the one that dialled the session to the other.
pub type Path = Arc<[NodeId]>;

/// Between two Asks on a circuit while there is data: a dead one is found after three. 20 ms made stalls a third longer.
pub const FAST: Duration = Duration::from_millis(10);
/// On a dead circuit, and on one that has been silent for [`MUTE`]: soon enough for a return, and cheap for a session that
/// waits for hours.
pub const SLOW: Duration = Duration::from_millis(50);
/// While there is no data: a hole is found in about a second, and it keeps NATs and circuits open.
pub const IDLE: Duration = Duration::from_millis(500);
/// Data within this time makes a session busy, and an Ask of the Follower keeps it fast for as long: some round trips.
pub const BUSY: Duration = Duration::from_secs(1);
/// A circuit that was asked and not heard for this long is mute: no more to be learnt from asking fast.
pub const MUTE: Duration = Duration::from_secs(1);
/// The round trip time of a circuit that has not been measured.
const UNMEASURED: Duration = Duration::from_millis(100);

/// Which circuit each slot takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Map {
    /// Which of two maps is newer; 0 before the first one
    pub epoch: u32,
    /// A circuit for each slot; 0 for none
    pub slots: [u64; SLOTS],
}
