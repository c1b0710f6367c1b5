//! What an FFMesh node knows and decides, without any I/O.
//!
//! Nothing in this crate opens a socket or a file, reads a clock or draws a random number: callers pass in
//! events and the time, and carry out what comes back. So a whole mesh runs in one test, and every rule can be
//! tested without a network.
//!
//! - [`id`]: names of nodes and meshes
//! - [`target`]: what a flow is to be connected to
//! - [`reason`]: why a flow ended
//! - [`policy`]: what may be dialled through a node, and by whom
//! - [`wire`]: the messages that nodes exchange, and their framing
//! - [`label`]: the labels of circuits
//! - [`text`]: what others wrote, made fit to be shown
//! - [`lsdb`]: the link-state database: what every node says about itself, signed
//! - [`flood`]: how records get from their origin to every node
//! - [`neighbor`]: which link to a neighbour counts, and whether it is alive
//! - [`metric`]: what a link costs
//! - [`graph`]: the mesh as a graph
//! - [`spf`]: the shortest path to each node
//! - [`routes`]: routes to a node that share no relay
//! - [`select`]: which of them a session uses
//! - [`steer`]: which circuit each slot of a session takes, and which circuits are alive
//! - [`mesh`]: the control plane of one node: all of these in one state machine

pub mod backoff;
pub mod flood;
pub mod graph;
pub mod hash;
pub mod id;
pub mod label;
pub mod lsdb;
pub mod mesh;
pub mod metric;
pub mod neighbor;
pub mod policy;
mod queue;
pub mod random;
pub mod reason;
pub mod routes;
pub mod select;
pub mod spf;
pub mod steer;
pub mod target;
pub mod text;
pub mod time;
pub mod wire;
