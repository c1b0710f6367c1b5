//! The topology that FFMesh began with: a client node between two servers, a web server behind each.

use ffmesh_lab::{Lab, Nginx, Node, RandomBytes, require_programs};

use crate::FFMESH;

/// The seed's configuration of its client node, with addresses of the lab.
const CLIENT: &str = r#"proxies:
  - name: web-service
    local_port: 3333
    protocol: tcp
    target_node_id: "88b2c4d4e5"
    target_address: "127.0.0.1:80"
  - name: web-service-2
    local_port: 3335
    target_node_id: "ffb213d4e5"
    target_address: "127.0.0.1:80"
quic:
  upstreams:
    - name: upstream-1
      node_id: "ffb213d4e5"
      address: "10.71.1.2:3334"
    - name: upstream-2
      node_id: "88b2c4d4e5"
      address: "10.71.2.2:3334"
"#;

/// The seed's configuration of a server node, with a proxy back to the client node.
const SERVER: &str = r#"proxies:
  - name: back
    local_port: 3333
    protocol: tcp
    target_node_id: "121a93d4e5"
    target_address: "127.0.0.1:80"
quic:
  listen_port: 3334
"#;

#[test]
fn a_node_between_two_servers_reaches_both_and_both_reach_it() {
    if !require_programs(&["nginx", "curl"]) {
        return;
    }
    let Some(lab) = Lab::new("seed") else { return };
    let lab = lab.with_program(FFMESH);
    let (ffb2, middle, b882) = (lab.net("ffb2"), lab.net("121a"), lab.net("88b2"));
    lab.wire(&middle, &["10.71.1.1/24"], &ffb2, &["10.71.1.2/24"]);
    lab.wire(&middle, &["10.71.2.1/24"], &b882, &["10.71.2.2/24"]);
    // The servers see each other on the network, for joining; neither has the other as an upstream.
    lab.wire(&ffb2, &["10.71.3.1/24"], &b882, &["10.71.3.2/24"]);

    let page = RandomBytes::take(5, 3 << 20);
    let serve = |net, id: &str| {
        let pages: [(&str, &[u8]); 2] = [("name", id.as_bytes()), ("page", &page)];
        Nginx::start(net, &lab.dir().join(format!("nginx-{id}")), "127.0.0.1:80", &pages)
    };
    let _webs = [serve(&ffb2, "ffb213d4e5"), serve(&middle, "121a93d4e5"), serve(&b882, "88b2c4d4e5")];

    let mut founder = lab.node(&ffb2, "ffb213d4e5", SERVER);
    let mut client = lab.node(&middle, "121a93d4e5", CLIENT);
    let mut other = lab.node(&b882, "88b2c4d4e5", SERVER);
    founder.init(&["--advertise", "10.71.1.2:3334", "--advertise", "10.71.3.1:3334"]);
    founder.start();
    for node in [&client, &other] {
        node.join(&founder.token(&[]));
    }

    client.start();
    other.start();
    for server in ["ffb213d4e5", "88b2c4d4e5"] {
        client.wait_for_peer(server);
    }
    founder.wait_for_peer("121a93d4e5");
    other.wait_for_peer("121a93d4e5");

    assert_fetches(&client, 3333, "88b2c4d4e5", &page);
    assert_fetches(&client, 3335, "ffb213d4e5", &page);
    assert_fetches(&founder, 3333, "121a93d4e5", &page);
    assert_fetches(&other, 3333, "121a93d4e5", &page);

    let status = client.status();
    assert!(!status.accepts, "a node without listen_port takes connections");
    assert_eq!((status.upstreams, status.upstreams_up, status.links_up), (2, 2, 2));
    assert!(founder.status().accepts);
    let ping = client.run(&["ping", "88b2c4d4e5", "-c", "1", "--config", &client.config().to_string_lossy()]);
    assert!(ping.is_success(), "{}", ping.said());
    for node in [&mut founder, &mut client, &mut other] {
        assert_eq!(node.stop().code(), Some(0));
    }
}

/// curl on the node's machine gets both pages of the web server behind `target` through the proxy on `port`.
fn assert_fetches(node: &Node, port: u16, target: &str, page: &[u8]) {
    let url = |name| format!("http://127.0.0.1:{port}/{name}");
    let curl = ["-sS", "--fail", "--max-time", "10"];
    let name = node.net().run("curl", &[&curl[..], &[&url("name")]].concat());
    assert_eq!((name.stdout.as_str(), name.stderr.as_str()), (target, ""), "from {} to {target}", node.id());
    let file = node.config().with_file_name("fetched");
    let got = node.net().run("curl", &[&curl[..], &["-o", &file.to_string_lossy(), &url("page")]].concat());
    assert!(got.is_success(), "from {} to {target}: {}", node.id(), got.stderr);
    assert!(std::fs::read(file).unwrap() == page, "from {} to {target}: another page", node.id());
}
