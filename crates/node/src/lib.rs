//! An FFMesh node.
//!
//! Start with [`node`], the composition root: it has the picture of all tasks.

pub mod admin;
pub mod config;
pub mod congestion;
pub mod node;
pub mod state;

pub mod identity;

pub mod bucket;
pub mod clock;
pub mod driver;
pub mod egress;
pub mod events;
pub mod flow;
pub mod history;
pub mod ingress;
pub mod journal;
pub mod link;
pub mod local;
pub mod lookup;
pub mod metrics;
pub mod process;
pub mod repeats;
pub mod session;
pub mod socket;
pub mod store;
pub mod transport;
