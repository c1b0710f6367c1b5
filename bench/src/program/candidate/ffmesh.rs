//! FFMesh itself: two nodes, or three in a row.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ffmesh_lab::{Node, until};

use super::Start;
use crate::program::site::{LOCAL, Place, SERVICES};

/// Where nodes that are dialled listen.
const PORT: u16 = 3334;
/// How long it may take until the client's node has a route.
const ROUTE_LIMIT: Duration = Duration::from_secs(15);

pub(super) fn start(start: &mut Start<'_>, program: &Path) -> Result<(), String> {
    let site = start.site;
    let listens = format!("quic:\n  listen_port: {PORT}\n");
    let dials =
        |id: &str, at: IpAddr| format!("  upstreams:\n    - {{node_id: {id}, address: \"{at}:{PORT}\"}}\n");
    let mut proxies = "proxies:\n".to_owned();
    for port in SERVICES {
        let _ = writeln!(
            proxies,
            "  - {{local_port: {}, target_node_id: server, target_address: \"127.0.0.1:{port}\"}}",
            port + LOCAL
        );
    }
    let (founder, others) = if start.is_relayed() {
        let [towards_client, towards_server] = site.relay_ips;
        let server = listens.clone() + &dials("relay", towards_server);
        let client = listens.clone() + &dials("relay", towards_client) + &proxies;
        ("relay", vec![("server", server), ("client", client)])
    } else {
        ("server", vec![("client", listens.clone() + &dials("server", site.server_ip) + &proxies)])
    };
    let name = start.dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let node = |id: &str, yaml: &str| {
        let dir = format!("{name}/{id}");
        start.lab.node_of(program, site.net(place(id)), id, &dir, yaml)
    };
    let mut advertise = vec![site.server_ip];
    if start.is_relayed() {
        advertise = site.relay_ips.to_vec();
    }
    let advertise: Vec<_> = advertise.into_iter().map(|ip| format!("{ip}:{PORT}")).collect();
    let founding = node(founder, &listens);
    founding.init(&advertise.iter().flat_map(|at| ["--advertise", at]).collect::<Vec<_>>());
    let others: Vec<Node> = others.iter().map(|(id, yaml)| node(id, yaml)).collect();
    run(start, program, &founding);
    let answers = || founding.ask(&["status", "--json"]).is_success();
    until("the founder answers", ROUTE_LIMIT, answers);
    let token = founding.token(&["--uses", "2"]);
    for node in &others {
        node.join(&token);
        run(start, program, node);
    }
    let client = others.last().ok_or("no client")?;
    start.wait_listening(Place::Client, SERVICES[0] + LOCAL)?;
    until("the client has a route to the server", ROUTE_LIMIT, || {
        client.ask(&["status", "--json"]).is_success() && client.reaches("server")
    });
    Ok(())
}

fn run(start: &mut Start<'_>, program: &Path, node: &Node) {
    start.spawn(place(node.id()), node.id(), program, &[&node.config().to_string_lossy()]);
}

fn place(id: &str) -> Place {
    match id {
        "client" => Place::Client,
        "relay" => Place::Relay,
        _ => Place::Server,
    }
}
