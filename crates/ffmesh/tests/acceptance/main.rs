//! What FFMesh promises, shown with real nodes in network namespaces.
//!
//! - [`pair`]: two nodes, their services and proxies, which most tests start from
//! - [`seed_shape`]: the topology that FFMesh began with, with web servers and curl
//! - [`transfer`]: bytes, half-closes and resets, over IPv4, IPv6 only, and names of both
//! - [`refusals`]: what a client sees when its target can't be reached, and what the records say
//! - [`trust`]: who is let in, and who is not; [`stranger`] is one who tries
//! - [`enrolment`]: tokens, joining, renewal
//! - [`resilience`]: kills, outages, aborted flows, stalled readers
//! - [`limits`]: open files, idle flows, shutting down
//! - [`choices`]: Unix sockets, state directories, which node a command talks to
//!
//! Without root each test says that it is skipped; in CI that is a failure.

#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_methods, reason = "tests drive the nodes from plain threads, which may sleep")]
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod choices;
mod enrolment;
mod limits;
mod pair;
mod refusals;
mod resilience;
mod seed_shape;
mod stranger;
mod transfer;
mod trust;

/// The program under test.
const FFMESH: &str = env!("CARGO_BIN_EXE_ffmesh");
