//! The API over a real Unix socket, with a double for the node.

mod attacks;
mod openapi;
mod schema;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use ffmesh_core::reason::Reason;
use ffmesh_core::target::Target;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{BODY_LIMIT, BoxFuture, Control, FLOW_HEADER, HistoryQuery, NC_PROTOCOL, OpenFlow, bind, serve};
use crate::events::Events;

/// A node that knows `server`, which echoes, and refuses everything else.
#[derive(Clone, Default)]
pub(super) struct Double {
    links_up: u32,
    draining: bool,
    pub(super) events: Events,
}

impl Control for Double {
    fn status(&self) -> api::Status {
        serde_json::from_value(json!({
            "node_id": "here", "mesh": "home", "version": "0", "started": "2026-01-01T00:00:00Z",
            "config": null, "state_dir": "/", "listen": [], "accepts": false, "links_up": self.links_up,
            "upstreams": 1, "upstreams_up": 0, "sessions": 0, "draining": self.draining, "flows_open": 0, "flows_total": 0,
            "bytes_sent": 0, "bytes_received": 0, "flow_memory": 0,
            "certificate_expires": "2026-06-01T00:00:00Z", "issuer": false, "errors": []
        }))
        .unwrap()
    }

    fn peers(&self) -> Vec<api::Peer> {
        Vec::new()
    }

    fn routes(&self) -> Vec<api::Route> {
        let route = |node: &str, path: &[&str], state: &str| {
            json!({
                "node_id": node, "path": path, "hops": path.len().saturating_sub(1), "cost_ms": 1.5,
                "state": state, "rtt_ms": null, "loss": null
            })
        };
        serde_json::from_value(json!([
            route("lost", &[], "unreachable"),
            route("server", &["here", "server"], "in_use"),
            route("server", &["here", "relay", "server"], "warm"),
        ]))
        .unwrap()
    }

    fn proxies(&self) -> Vec<api::Proxy> {
        Vec::new()
    }

    fn flows(&self) -> api::Flows {
        let flow = |id: &str| {
            json!({
                "id": id, "role": "ingress", "proxy": "nc", "peer": "server", "target": "127.0.0.1:7",
                "client": null, "started": "2026-01-01T00:00:00Z", "duration_ms": 5, "bytes_up": 1,
                "bytes_down": 2, "connected": true, "reason": "lost", "detail": "it restarted"
            })
        };
        serde_json::from_value(json!({"open": [], "ended": [flow("f1"), flow("f2")]})).unwrap()
    }

    fn metrics(&self) -> String {
        "# EOF\n".to_owned()
    }

    fn history(&self, query: HistoryQuery) -> api::History {
        let step_s = if query.step == api::Step::Minute { 60 } else { 1 };
        api::History { step_s, from: query.from, ..api::History::default() }
    }

    fn ping(&self, node: NodeId) -> BoxFuture<'_, Result<api::Ping, api::Error>> {
        Box::pin(async move { known(node).map(|node_id| api::Ping { node_id, rtt_ms: 1.5, route: vec![] }) })
    }

    fn trace(&self, node: NodeId) -> BoxFuture<'_, Result<api::Trace, api::Error>> {
        Box::pin(async move {
            let node_id = known(node)?;
            let hop = json!({
                "node_id": node_id, "rtt_ms": null, "link_rtt_ms": null, "link_loss": null, "error": "no answer"
            });
            Ok(serde_json::from_value(json!({"node_id": node_id, "hops": [hop]})).unwrap())
        })
    }

    fn speedtest(
        &self,
        node: NodeId,
        duration: Duration,
    ) -> BoxFuture<'_, Result<api::Speedtest, api::Error>> {
        Box::pin(async move {
            let one_way = json!({"bytes": 1, "seconds": duration.as_secs(), "mbit_per_s": 1.5});
            Ok(serde_json::from_value(json!({
                "node_id": known(node)?, "up": one_way, "down": one_way, "rtt_idle_ms": 1.5,
                "rtt_loaded_ms": null, "route": ["here", "server"]
            }))
            .unwrap())
        })
    }

    fn open(&self, node: NodeId, target: Target) -> BoxFuture<'_, Result<OpenFlow, api::Error>> {
        Box::pin(async move {
            known(node)?;
            if target.to_string() == "10.0.0.1:22" {
                return Err(api::Error::because(Reason::Denied, "refused by policy"));
            }
            let (near, mut far) = tokio::io::duplex(1024);
            tokio::spawn(async move {
                far.write_all(b"hello\n").await.unwrap();
                let mut all = Vec::new();
                far.read_to_end(&mut all).await.unwrap();
                all.reverse();
                far.write_all(&all).await.unwrap();
            });
            Ok(OpenFlow { id: "f1".into(), io: Box::new(near) })
        })
    }

    fn topology(&self) -> BoxFuture<'_, api::Topology> {
        let node = |id: &str, hops: u32| {
            json!({
                "node_id": id, "reachable": true, "hops": hops, "relay": true, "issuer": false, "draining": false,
                "services": []
            })
        };
        let link =
            json!({"a": "here", "b": "server", "own": true, "cost_ms": 1.5, "rtt_ms": null, "loss": null});
        let topology = json!({
            "generation": 3, "nodes": [node("here", 0), node("server", 1)], "links": [link], "paths": []
        });
        Box::pin(async move { serde_json::from_value(topology).unwrap() })
    }

    fn services(&self) -> BoxFuture<'_, Vec<api::Service>> {
        let service = json!({
            "name": "evil\u{1b}[2J", "protocol": "tcp", "node_id": "server", "reachable": true, "address": null,
            "allow": null, "origin": null, "error": null
        });
        Box::pin(async move { serde_json::from_value(json!([service])).unwrap() })
    }

    fn events(&self) -> &Events {
        &self.events
    }

    fn log(&self) -> Vec<api::LogEntry> {
        let line = json!({
            "at": "2026-01-01T00:00:00Z", "level": "INFO", "target": "ffmesh_node", "message": "evil\u{1b}[2J",
            "fields": {"peer": "b"}
        });
        serde_json::from_value(json!([line])).unwrap()
    }

    fn drain(&self) -> api::Drain {
        api::Drain { flows_open: 3, timeout_s: 30 }
    }

    fn create_token(&self, request: api::TokenRequest) -> Result<api::Token, api::Error> {
        if request.relay {
            let expires = "2026-01-01T01:00:00Z".parse().unwrap();
            return Ok(api::Token { token: "ffm1.x".into(), join: "ffmesh join".into(), expires });
        }
        Err(api::Error::new("this node is no issuer"))
    }

    fn config(&self) -> api::Config {
        api::Config {
            path: None,
            applied: "2026-01-01T00:00:00Z".parse().unwrap(),
            values: json!({ "watch": false }),
            warnings: Vec::new(),
            needs_restart: vec!["quic.mtu".to_owned()],
        }
    }

    fn reload(&self) -> BoxFuture<'_, Result<api::Reload, api::Error>> {
        let problem = api::Problem {
            file: Some("c.yaml".to_owned()),
            line: 1,
            column: 2,
            key: "proxies".to_owned(),
            message: "is a section".to_owned(),
        };
        let error = api::Error { problems: vec![problem], ..api::Error::new("c.yaml has a problem") };
        Box::pin(async move { Err(error) })
    }

    fn put_proxy(
        &self,
        instead: Option<String>,
        spec: api::ProxySpec,
    ) -> BoxFuture<'_, Result<api::Proxy, api::Error>> {
        Box::pin(async move {
            changeable(instead.as_deref())?;
            let proxy = json!({
                "name": spec.name, "origin": "runtime", "protocol": "tcp", "listen": "127.0.0.1:1", "target": "b 127.0.0.1:80",
                "error": null, "flows_open": 0, "flows_total": 0, "flows_failed": 0, "bytes_up": 0, "bytes_down": 0
            });
            Ok(serde_json::from_value(proxy).unwrap())
        })
    }

    fn remove_proxy(&self, name: String) -> BoxFuture<'_, Result<(), api::Error>> {
        Box::pin(async move { changeable(Some(&name)) })
    }

    fn put_service(
        &self,
        instead: Option<String>,
        spec: api::ServiceSpec,
    ) -> BoxFuture<'_, Result<api::Service, api::Error>> {
        Box::pin(async move {
            changeable(instead.as_deref())?;
            let service =
                json!({ "name": spec.name, "protocol": "tcp", "node_id": "here", "reachable": true });
            Ok(serde_json::from_value(service).unwrap())
        })
    }

    fn remove_service(&self, name: String) -> BoxFuture<'_, Result<(), api::Error>> {
        Box::pin(async move { changeable(Some(&name)) })
    }
}

/// Of what it listens on and offers, only `added` was added at run time; `web` is of the file.
fn changeable(name: Option<&str>) -> Result<(), api::Error> {
    match name {
        None | Some("added") => Ok(()),
        Some("web") => Err(api::Error::new("it is of the file")),
        Some(name) => Err(api::Error::missing(format!("nothing is called {name}"))),
    }
}

fn known(node: NodeId) -> Result<NodeId, api::Error> {
    if node.as_str() == "server" {
        return Ok(node);
    }
    Err(api::Error::because(Reason::UnknownNode, format!("no node is called {node}")))
}

pub(super) struct Served {
    _dir: tempfile::TempDir,
    pub(super) path: PathBuf,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

fn served(links_up: u32) -> Served {
    serve_double(Double { links_up, ..Double::default() })
}

pub(super) fn serve_double(double: Double) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let listener = bind(&path).unwrap();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(serve(listener, Arc::new(double), None, async {
        stopped.await.ok();
    }));
    Served { _dir: dir, path, stop, task }
}

impl Served {
    /// Sends a whole request and reads until the server closes: status code and body.
    async fn raw(&self, request: &[u8]) -> (u16, String) {
        let mut stream = UnixStream::connect(&self.path).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.unwrap();
        let reply = String::from_utf8(reply).unwrap();
        let status = reply[9..12].parse().unwrap();
        (status, reply.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    pub(super) async fn get(&self, path: &str) -> (u16, String) {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await
    }

    async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let (status, body) = self.send("POST", path, body).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.raw((head + body).as_bytes()).await
    }

    /// Asks for an upgraded connection and reads the reply's head.
    async fn nc(&self, query: &str) -> (UnixStream, String) {
        let mut stream = UnixStream::connect(&self.path).await.unwrap();
        let request = format!(
            "POST /api/v1/nc?{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {NC_PROTOCOL}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        (stream, String::from_utf8(head).unwrap())
    }
}

#[tokio::test]
async fn answers_each_path() {
    let node = served(0);
    let (status, body) = node.get("/api/v1/status").await;
    assert_eq!(status, 200);
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["node_id"], "here");
    for path in ["/api/v1/peers", "/api/v1/proxies"] {
        assert_eq!(node.get(path).await, (200, "[]".to_owned()));
    }
    for (query, count) in [("", 2), ("?id=f1", 1), ("?id=f3", 0)] {
        let (status, body) = node.get(&format!("/api/v1/flows{query}")).await;
        let flows: api::Flows = serde_json::from_str(&body).unwrap();
        assert_eq!((status, flows.ended.len()), (200, count), "{query:?}");
    }
    for (query, count) in [("", 3), ("?node=server", 2), ("?node=SERVER", 2), ("?node=stranger", 0)] {
        let (status, body) = node.get(&format!("/api/v1/routes{query}")).await;
        let routes: Vec<api::Route> = serde_json::from_str(&body).unwrap();
        assert_eq!((status, routes.len()), (200, count), "{query:?}");
    }
    let (status, reply) = node.post("/api/v1/trace", r#"{"node":"server"}"#).await;
    assert_eq!((status, &reply["hops"][0]["error"]), (200, &json!("no answer")));
    let (status, body) = node.get("/api/v1/topology").await;
    let topology: api::Topology = serde_json::from_str(&body).unwrap();
    assert_eq!((status, topology.nodes.len(), topology.links.len()), (200, 2, 1));
    let (status, body) = node.get("/api/v1/services").await;
    let services: Vec<api::Service> = serde_json::from_str(&body).unwrap();
    assert_eq!((status, services[0].node_id.as_str()), (200, "server"));
    assert_eq!(node.get("/metrics").await, (200, "# EOF\n".to_owned()));
    let (status, body) = node.get("/api/v1/history?step=1m&from=2026-01-01T00:00:00Z").await;
    let history: api::History = serde_json::from_str(&body).unwrap();
    assert_eq!((status, history.step_s, history.from.unwrap().as_second()), (200, 60, 1_767_225_600));
    let order = "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z";
    for wrong in ["step=1h", "from=yesterday", "until=2026-01-01T00:00:00Z", order] {
        let (status, body) = node.get(&format!("/api/v1/history?{wrong}")).await;
        assert_eq!(status, 400, "{wrong}");
        assert!(body.contains("expected are `step`, 1s or 1m"), "{body}");
    }
    assert_eq!(node.get("/healthz").await, (200, "ok\n".to_owned()));
    let (status, reply) = node.post("/api/v1/ping", r#"{"node":"server"}"#).await;
    assert_eq!((status, &reply["rtt_ms"]), (200, &json!(1.5)));
    for (body, seconds) in [(r#"{"node":"server"}"#, 3.0), (r#"{"node":"server","duration_s":30}"#, 30.0)] {
        let (status, reply) = node.post("/api/v1/speedtest", body).await;
        assert_eq!((status, &reply["down"]["seconds"]), (200, &json!(seconds)));
    }
    // Nothing has to be said in the body, and an empty object does not hurt.
    for body in ["", "{}"] {
        let (status, reply) = node.post("/api/v1/drain", body).await;
        assert_eq!((status, reply), (200, json!({"flows_open": 3, "timeout_s": 30})));
    }
    let request = r#"{"ttl_s":60,"uses":1,"node":null,"groups":[],"relay":true}"#;
    let (status, reply) = node.post("/api/v1/tokens", request).await;
    assert_eq!((status, &reply["token"]), (200, &json!("ffm1.x")));
}

#[tokio::test]
async fn what_is_added_can_be_changed_and_the_file_cannot() {
    let node = served(0);
    for (kind, spec) in [
        ("proxies", r#"{"name":"主 a/b","local_port":1}"#),
        ("services", r#"{"name":"主 a/b","address":"a:1"}"#),
    ] {
        let all = format!("/api/v1/{kind}");
        let (status, reply) = node.post(&all, spec).await;
        assert_eq!((status, &reply["name"]), (201, &json!("主 a/b")));
        assert_eq!(node.post(&all, r#"{"name":"a","local_prot":1}"#).await.0, 400);
        for (name, put, delete) in [("added", 200, 204), ("web", 409, 409), ("nothing%20at%2Fall", 404, 404)]
        {
            let one = format!("{all}/{name}");
            assert_eq!(node.send("PUT", &one, spec).await.0, put, "{one}");
            let (status, body) = node.send("DELETE", &one, "").await;
            assert_eq!(status, delete, "{one}");
            assert_eq!(body.is_empty(), status == 204, "{one}: {body}");
            if status == 404 {
                assert!(body.contains("nothing at/all"), "{body}");
            }
        }
    }
}

#[tokio::test]
async fn a_file_with_problems_is_not_to_be_processed() {
    let node = served(0);
    let (status, reply) = node.post("/api/v1/reload", "").await;
    assert_eq!((status, &reply["problems"][0]["line"]), (422, &json!(1)));
    assert!(reply.get("missing").is_none());
    let (status, body) = node.get("/api/v1/config").await;
    let config: api::Config = serde_json::from_str(&body).unwrap();
    assert_eq!((status, config.needs_restart), (200, vec!["quic.mtu".to_owned()]));
}

#[tokio::test]
async fn is_ready_with_a_link_until_it_drains() {
    assert_eq!(served(0).get("/readyz").await.0, 503);
    assert_eq!(served(1).get("/readyz").await.0, 200);
    let (status, body) =
        serve_double(Double { links_up: 1, draining: true, ..Double::default() }).get("/readyz").await;
    assert!(status == 503 && body.contains("draining"), "{status} {body}");
}

#[tokio::test]
async fn every_error_is_json_that_says_why() {
    let node = served(0);
    assert_eq!(node.get("/api/v1/routes?node=no.name").await.0, 400);
    let large = format!(r#"{{"node":"{}"}}"#, "a".repeat(BODY_LIMIT));
    for (path, body, status) in [
        ("/nowhere", "", 404),
        ("/api/v1/status", "", 405),
        ("/api/v1/ping", "", 400),
        ("/api/v1/ping", r#"{"node":"no.name"}"#, 400),
        ("/api/v1/ping", r#"{"node":"stranger"}"#, 404),
        ("/api/v1/ping", &large, 413),
        ("/api/v1/trace", r#"{"node":"no.name"}"#, 400),
        ("/api/v1/trace", r#"{"node":"stranger"}"#, 404),
        ("/api/v1/speedtest", r#"{"node":"stranger"}"#, 404),
        ("/api/v1/speedtest", r#"{"node":"server","duration_s":0}"#, 400),
        ("/api/v1/speedtest", r#"{"node":"server","duration_s":31}"#, 400),
        ("/api/v1/speedtest", r#"{"node":"server","seconds":3}"#, 400),
        ("/api/v1/routes", "", 405),
        ("/api/v1/tokens", r#"{"ttl_s":60,"uses":1,"node":null,"groups":[],"relay":false}"#, 409),
        ("/api/v1/tokens", r#"{"ttl_s":60,"uses":0,"node":null,"groups":[],"relay":true}"#, 400),
        ("/api/v1/tokens", r#"{"ttl_s":0,"uses":1,"node":null,"groups":[],"relay":true}"#, 400),
        ("/api/v1/nc", "", 400),
        ("/api/v1/nc?node=server&target=nonsense", "", 400),
        ("/api/v1/nc?node=server&target=a:1", "", 426),
    ] {
        let (got, reply) = node.post(path, body).await;
        assert_eq!(got, status, "{path} {}: {reply}", &body[..body.len().min(80)]);
        assert!(reply["error"].as_str().is_some_and(|text| !text.is_empty()), "{path}: {reply}");
    }
}

#[tokio::test]
async fn nc_carries_bytes_and_ends_each_direction_alone() {
    let node = served(0);
    let (mut stream, head) = node.nc("node=server&target=127.0.0.1:7").await;
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(&format!("{FLOW_HEADER}: f1\r\n")), "{head}");
    let mut greeting = [0; 6];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"hello\n");
    // More than every buffer on the way: the far end must read while it does not write.
    let sent: Vec<u8> = (0..1_000_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.unwrap();
    got.reverse();
    assert!(got == sent, "{} bytes came back of {}", got.len(), sent.len());
}

#[tokio::test]
async fn nc_says_why_before_it_upgrades() {
    let node = served(0);
    let (_, head) = node.nc("node=server&target=10.0.0.1:22").await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    let (_, head) = node.nc("node=stranger&target=127.0.0.1:22").await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
}

#[tokio::test]
async fn stops_with_idle_connections_and_open_flows() {
    let node = served(0);
    let _idle = UnixStream::connect(&node.path).await.unwrap();
    let (mut flow, head) = node.nc("node=server&target=127.0.0.1:7").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    node.stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(5), node.task).await.unwrap().unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), flow.read_to_end(&mut rest)).await.unwrap().ok();
}
