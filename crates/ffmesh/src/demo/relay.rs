//! A node of the demo that can be killed and started again.
//!
//! It has a tokio runtime of its own. To kill it is to stop that runtime first: its tasks are gone between two steps, and
//! none of them is left to tell the neighbours, as when a process is killed.

use std::time::Duration;

use ffmesh_core::id::NodeId;
use ffmesh_node::config::Config;
use ffmesh_node::node::Node;
use ffmesh_node::state::StateDir;
use tokio::runtime::{Builder, Runtime};
use tokio::task::spawn_blocking;

use crate::failure::{Failure, Outcome};
use crate::run::run_node;

/// How long the threads of a killed relay may take to end. Its port and files are free then.
const END_LIMIT: Duration = Duration::from_secs(2);

pub(super) struct Relay {
    pub(super) id: NodeId,
    pub(super) state: StateDir,
    pub(super) config: Config,
    running: Option<Running>,
}

/// A node and the threads that it runs on.
struct Running {
    runtime: Option<Runtime>,
    node: Option<Node>,
}

impl Relay {
    /// One that does not run yet.
    pub(super) fn new(id: NodeId, state: StateDir, config: Config) -> Self {
        Self { id, state, config, running: None }
    }

    pub(super) fn runs(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn start(&mut self) -> Outcome {
        if self.runs() {
            return Err(Failure::failed(format!("{} runs already", self.id)));
        }
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let inside = runtime.enter();
        let node = run_node(self.config.clone(), self.state.clone());
        drop(inside);
        let mut running = Running { runtime: Some(runtime), node: None };
        running.node = Some(node?);
        self.running = Some(running);
        Ok(())
    }

    /// Ends it at once, without a word to its neighbours.
    pub(super) async fn kill(&mut self) -> Outcome {
        let running = self.running.take();
        let mut running = running.ok_or_else(|| Failure::failed(format!("{} does not run", self.id)))?;
        if let Some(runtime) = running.runtime.take() {
            let ended = spawn_blocking(move || runtime.shutdown_timeout(END_LIMIT)).await;
            ended.map_err(Failure::failed)?;
        }
        Ok(())
    }

    /// The node, if it runs.
    pub(super) fn node(&self) -> Option<&Node> {
        self.running.as_ref()?.node.as_ref()
    }

    /// Ends it in order. It can be started again.
    pub(super) async fn stop(&mut self) {
        if let Some(mut running) = self.running.take()
            && let Some(node) = running.node.take()
        {
            node.stop().await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A runtime that is dropped as it is would wait for its threads, which an async task must not.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, UdpSocket};

    use ffmesh_node::config::Quic;
    use ffmesh_node::identity::{self, InitOptions};

    use super::*;

    #[tokio::test]
    async fn a_killed_relay_leaves_its_port_and_starts_again() {
        let dir = tempfile::tempdir().unwrap();
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let port = UdpSocket::bind((loopback, 0)).unwrap().local_addr().unwrap().port();
        let id: NodeId = "relay-1".parse().unwrap();
        let state = StateDir::resolve(Some(dir.path()), None, None, None);
        identity::init(&InitOptions {
            state: state.clone(),
            node_id: Some(id.clone()),
            mesh: Some("demo".parse().unwrap()),
            advertise: Vec::new(),
            listen_port: port,
            cert_ttl: Duration::from_hours(1),
        })
        .unwrap();
        let quic = Quic { listen_port: Some(port), listen_address: Some(loopback), ..Quic::default() };
        let mut relay = Relay::new(id, state, Config { quic, ..Config::default() });
        assert!(relay.kill().await.is_err());
        for _ in 0..3 {
            relay.start().unwrap();
            assert!(relay.runs() && relay.start().is_err());
            assert!(UdpSocket::bind((loopback, port)).is_err());
            relay.kill().await.unwrap();
            assert!(!relay.runs());
            UdpSocket::bind((loopback, port)).unwrap();
        }
        relay.start().unwrap();
        relay.stop().await;
    }
}
