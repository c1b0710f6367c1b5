//! A network laboratory for tests: real nodes in network namespaces, and what they carry bytes between.
//!
//! ```text
//! Lab ── Net (a namespace) ── wire ── Net        one lab at a time on a machine
//!         ├─ Node       the real program: configuration, state directory, log
//!         ├─ Service    what a node dials: echo, digest, source, …
//!         ├─ Nginx      a web server as people run it
//!         ├─ Conn       what a client does
//!         ├─ Load       many flows at a steady pace, whose silences are noted
//!         ├─ DelayLine  a line that takes its time
//!         └─ Capture    what one who reads along sees
//! Mesh ── nodes in namespaces of their own, wired and enrolled as a Plan says
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
mod capture;
mod conn;
mod delay;
mod firewall;
mod iperf;
mod lab;
mod load;
mod mesh;
mod net;
mod nginx;
mod node;
mod plan;
mod process;
mod report;
mod requirement;
mod service;
mod usage;
mod wait;
mod wire;

pub use bytes::{Digest, Hasher, RandomBytes};
pub use capture::{Capture, contains};
pub use conn::{Address, Conn, End};
pub use delay::{DelayLine, Line};
pub use iperf::Transfer;
pub use lab::Lab;
pub use load::{Load, LoadReport, Pace, Stalls};
pub use mesh::Mesh;
pub use net::Net;
pub use nginx::Nginx;
pub use node::Node;
pub use plan::{Family, Plan};
pub use process::{Outcome, Process, run};
pub use report::{Distribution, report};
pub use requirement::{require_programs, require_root};
pub use service::Service;
pub use usage::{CpuSeconds, TICKS, memory_of};
pub use wait::{in_parallel, once_within, until, until_some};
