//! An FFMesh node.
//!
//! Start with [`node`], the composition root: it has the picture of all tasks.

pub mod admin;
pub mod config;
pub mod node;
pub mod state;

pub mod identity;

mod clock;
mod driver;
mod egress;
mod flow;
mod ingress;
mod link;
mod local;
mod metrics;
mod session;
mod socket;
mod transport;
