//! A network laboratory for tests: real nodes in network namespaces, and what they carry bytes between.
//!
//! ```text
//! Lab ── Net (a namespace) ── wire ── Net        one lab at a time on a machine
//!         ├─ Node     the real program: configuration, state directory, log
//!         ├─ Service  what a node dials: echo, digest, source, …
//!         ├─ Nginx    a web server as people run it
//!         └─ Conn     what a client does
//! ```
//!
//! A test begins with `let Some(lab) = Lab::new("name") else { return };`: without root it says so and passes,
//! in CI (where `CI` is set) it fails instead. Everything that a lab made goes away with it, also when the test
//! panics, and then the logs of its nodes are printed. What a killed test process left behind is removed by the
//! next lab. Every wait has a limit.

#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_methods, reason = "tests drive the nodes from plain threads, which may sleep")]
#![allow(clippy::print_stderr, reason = "what a test has to say goes to its output")]

mod bytes;
mod conn;
mod firewall;
mod lab;
mod net;
mod nginx;
mod node;
mod process;
mod requirement;
mod service;
mod wait;

pub use bytes::{Digest, Hasher, RandomBytes};
pub use conn::{Address, Conn, End};
pub use lab::Lab;
pub use net::Net;
pub use nginx::Nginx;
pub use node::Node;
pub use process::{Outcome, Process, run};
pub use requirement::{require_programs, require_root};
pub use service::Service;
pub use wait::{in_parallel, once_within, until, until_some};
