//! A node whose settings change while its disk fails.

use ffmesh_core::target::Target;

use super::*;
use crate::flow::{Dialled, Flow, FlowStart};
use crate::identity::{DEFAULT_CERT_TTL, InitOptions, init};
use crate::journal::Journal;
use crate::node::Node;
use crate::state::StateDir;
use crate::store::faulty::Full;

fn start(dir: &tempfile::TempDir) -> Node {
    let state = StateDir::at(dir.path());
    let options = InitOptions {
        state: state.clone(),
        node_id: Some("a".parse().unwrap()),
        mesh: None,
        advertise: Vec::new(),
        listen_port: 1,
        cert_ttl: DEFAULT_CERT_TTL,
    };
    init(&options).unwrap();
    Node::start(Config::default(), state, Journal::default()).unwrap()
}

fn service(allow: &str) -> api::ServiceSpec {
    let address = "127.0.0.1:5432".to_owned();
    api::ServiceSpec { name: "db".to_owned(), address, protocol: None, allow: Some(vec![allow.to_owned()]) }
}

/// A flow of node b to the service.
fn flow(node: &Node) -> Arc<Flow> {
    let flow = node.parts.flows.begin(FlowStart {
        id: "1".to_owned(),
        role: api::Role::Egress,
        proxy: "db".into(),
        peer: "b".parse().unwrap(),
        target: "127.0.0.1:5432".to_owned(),
        client: None,
    });
    let target: Target = "127.0.0.1:5432".parse().unwrap();
    flow.dialled(Dialled { groups: Vec::new(), target, address: "127.0.0.1:5432".parse().ok() });
    flow
}

#[tokio::test]
async fn a_service_that_cannot_be_kept_ends_no_flows() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&dir);
    let settings = node.parts.settings.clone();
    settings.put_service(None, service("node:b")).await.unwrap();
    let flow = flow(&node);
    let disk = Full::default();
    disk.take(&node.parts.store);
    disk.set(true);
    settings.put_service(Some("db".to_owned()), service("node:c")).await.unwrap_err();
    assert!(tokio::time::timeout(Duration::from_millis(50), flow.cancelled()).await.is_err(), "it was ended");
    disk.set(false);
    settings.put_service(Some("db".to_owned()), service("node:c")).await.unwrap();
    flow.cancelled().await;
}
