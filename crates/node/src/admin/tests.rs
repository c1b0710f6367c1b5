//! The API over a real Unix socket, with a double for the node.

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

use super::{BODY_LIMIT, BoxFuture, Control, FLOW_HEADER, NC_PROTOCOL, OpenFlow, bind, serve};

/// A node that knows `server`, which echoes, and refuses everything else.
#[derive(Clone, Copy, Default)]
struct Double {
    links_up: u32,
    draining: bool,
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

    fn create_token(&self, request: api::TokenRequest) -> Result<api::Token, api::Error> {
        if request.relay {
            let expires = "2026-01-01T01:00:00Z".parse().unwrap();
            return Ok(api::Token { token: "ffm1.x".into(), join: "ffmesh join".into(), expires });
        }
        Err(api::Error::new("this node is no issuer"))
    }
}

fn known(node: NodeId) -> Result<NodeId, api::Error> {
    if node.as_str() == "server" {
        return Ok(node);
    }
    Err(api::Error::because(Reason::UnknownNode, format!("no node is called {node}")))
}

struct Served {
    _dir: tempfile::TempDir,
    path: PathBuf,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

fn served(links_up: u32) -> Served {
    serve_double(Double { links_up, ..Double::default() })
}

fn serve_double(double: Double) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let listener = bind(&path).unwrap();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(serve(listener, Arc::new(double), async {
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

    async fn get(&self, path: &str) -> (u16, String) {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await
    }

    async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let (status, body) = self.raw((head + body).as_bytes()).await;
        (status, serde_json::from_str(&body).unwrap())
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
    assert_eq!(node.get("/healthz").await, (200, "ok\n".to_owned()));
    let (status, reply) = node.post("/api/v1/ping", r#"{"node":"server"}"#).await;
    assert_eq!((status, &reply["rtt_ms"]), (200, &json!(1.5)));
    for (body, seconds) in [(r#"{"node":"server"}"#, 3.0), (r#"{"node":"server","duration_s":30}"#, 30.0)] {
        let (status, reply) = node.post("/api/v1/speedtest", body).await;
        assert_eq!((status, &reply["down"]["seconds"]), (200, &json!(seconds)));
    }
    let request = r#"{"ttl_s":60,"uses":1,"node":null,"groups":[],"relay":true}"#;
    let (status, reply) = node.post("/api/v1/tokens", request).await;
    assert_eq!((status, &reply["token"]), (200, &json!("ffm1.x")));
}

#[tokio::test]
async fn is_ready_with_a_link_until_it_drains() {
    assert_eq!(served(0).get("/readyz").await.0, 503);
    assert_eq!(served(1).get("/readyz").await.0, 200);
    let (status, body) = serve_double(Double { links_up: 1, draining: true }).get("/readyz").await;
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
