//! An FFMesh node.

pub mod admin;
pub mod config;
pub mod egress;
pub mod identity;
pub mod local;
pub mod socket;
pub mod state;
