//! Curves: how FFMesh does with more of something.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use ffmesh_lab::{Lab, Mesh, Net, Plan, Process, Transfer, in_parallel, until};

use crate::program::args::ScaleArgs;
use crate::program::client;
use crate::program::run::beside_this_program;
use crate::program::site::{echo, iperf_server, wait_listening};
use crate::program::usage::{cpu_seconds, memory};

/// What the tables go through.
const RELAYS: std::ops::RangeInclusive<usize> = 0..=5;
const FLOWS: [usize; 5] = [1, 10, 100, 1000, 10_000];
const AT_ONCE: [usize; 6] = [1, 4, 16, 64, 256, 1024];
const PEERS: [usize; 6] = [1, 10, 50, 100, 200, 300];
/// Echoes that a latency is of.
const PINGS: usize = 2000;
/// Until memory and clocks have settled.
const SETTLE: Duration = Duration::from_secs(2);
/// How long an idle node is watched.
const WATCH: Duration = Duration::from_secs(4);
/// How long opens are counted.
const OPENS: Duration = Duration::from_secs(2);
/// How long nodes may take until all links are up.
const MEET_LIMIT: Duration = Duration::from_mins(2);
/// Enrolments at a time.
const JOINS: usize = 4;
/// Port of the service that a mesh of the lab has no server for, and its name there.
const SERVICE: (&str, u16) = ("load", 7004);
/// The same for a second one.
const SPARE: (&str, u16) = ("spare", 7005);
const MIB: f64 = (1 << 20) as f64;

/// Prints a table for each curve.
pub(crate) fn run(args: &ScaleArgs) -> Result<(), String> {
    let program = match &args.ffmesh {
        Some(path) => path.canonicalize().map_err(|e| format!("{}: {e}", path.display()))?,
        None => beside_this_program("ffmesh")?,
    };
    let wanted = |curve: &str| args.curves.is_empty() || args.curves.iter().any(|wanted| wanted == curve);
    if wanted("relays") {
        relays(&program, args.seconds)?;
    }
    if wanted("flows") {
        flows(&program)?;
    }
    if wanted("opens") {
        opens(&program)?;
    }
    if wanted("peers") {
        peers(&program, args.peers)?;
    }
    Ok(())
}

fn lab(program: &Path) -> Result<Lab, String> {
    let lab = Lab::new("scale").ok_or("needs root, to make network namespaces")?;
    Ok(lab.with_program(&program.to_string_lossy()))
}

/// Nodes in a row with wires between them, all of which run.
fn row_of_nodes(program: &Path, relays: usize) -> Result<Mesh, String> {
    let mut ids = vec!["a".to_owned()];
    ids.extend((1..=relays).map(|n| format!("r{n}")));
    ids.push("b".to_owned());
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let mut mesh = Mesh::of(&Plan::chain(&ids), lab(program)?);
    mesh.start();
    Ok(mesh)
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|e| format!("{text}: {e}"))
}

/// The echo service behind `b`, and where `a` reaches it.
fn echo_behind(mesh: &Mesh) -> Result<(Process, SocketAddr), String> {
    let log = mesh.lab.dir().join("echo.log");
    let process = echo(mesh.net("b"), &log, (Ipv4Addr::LOCALHOST, SERVICE.1).into())?;
    wait_listening(mesh.net("b"), SERVICE.1)?;
    Ok((process, address(&mesh.proxy("b", SERVICE.0))?))
}

fn pid(mesh: &mut Mesh, id: &str) -> u32 {
    mesh.node_mut(id).process().pid()
}

fn relays(program: &Path, seconds: u32) -> Result<(), String> {
    println!(
        "\n| relays | up, Mbit/s | down, Mbit/s | CPU s/GB, all nodes | of it a relay | ping p50, us | p99 | connect + echo p50, us |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for count in RELAYS {
        let mut mesh = row_of_nodes(program, count)?;
        let (_echo, at) = echo_behind(&mesh)?;
        client::warm_up(mesh.net("a"), at)?;
        let pings = client::pings(mesh.net("a"), at, PINGS)?;
        let connects = client::connects(mesh.net("a"), at, PINGS / 4)?;
        let ids = mesh.ids();
        let pids: Vec<u32> = ids.iter().map(|id| pid(&mut mesh, id)).collect();
        let relays = &pids[1..pids.len() - 1];
        let before = (cpu_seconds(&pids), cpu_seconds(relays));
        let mut transfers = Vec::new();
        for down in [false, true] {
            let _server = iperf_server(mesh.net("b"), SPARE.1, mesh.lab.dir())?;
            let options: &[&str] = if down { &["--reverse"] } else { &[] };
            transfers.push(Transfer::run(mesh.net("a"), &mesh.proxy("b", SPARE.0), seconds, options)?);
        }
        let gb = transfers.iter().map(|transfer| transfer.bytes).sum::<f64>() / 1e9;
        let each =
            if relays.is_empty() { 0.0 } else { (cpu_seconds(relays) - before.1) / gb / as_f64(count) };
        println!(
            "| {count} | {:.0} | {:.0} | {:.2} | {each:.2} | {:.0} | {:.0} | {:.0} |",
            transfers[0].mbit,
            transfers[1].mbit,
            (cpu_seconds(&pids) - before.0) / gb,
            pings[0],
            pings[1],
            connects[0]
        );
    }
    Ok(())
}

fn flows(program: &Path) -> Result<(), String> {
    println!(
        "\n| flows open | echo over each in turn p50, us | p99 | opened a second | memory of both nodes, MiB | KiB a flow | cores at rest |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for count in FLOWS {
        let mut mesh = row_of_nodes(program, 0)?;
        let (_echo, at) = echo_behind(&mesh)?;
        client::warm_up(mesh.net("a"), at)?;
        let pids = ["a", "b"].map(|id| pid(&mut mesh, id));
        std::thread::sleep(SETTLE);
        let before = memory(&pids);
        let start = Instant::now();
        let mut streams = client::idle(mesh.net("a"), at, count)?;
        let opened = as_f64(count) / start.elapsed().as_secs_f64();
        let echoes = client::echoes_in_turn(&mut streams, PINGS)?;
        std::thread::sleep(SETTLE);
        let (after, cores) = (memory(&pids), cores_of(&pids));
        println!(
            "| {count} | {:.0} | {:.0} | {opened:.0} | {:.1} | {:.1} | {cores:.3} |",
            echoes[0],
            echoes[1],
            after / MIB,
            (after - before) / as_f64(count) / 1024.0
        );
    }
    Ok(())
}

fn opens(program: &Path) -> Result<(), String> {
    println!("\n| clients at once | connect + echo + close, a second, direct | over one relay |");
    println!("| ---: | ---: | ---: |");
    let mut rates = Vec::new();
    for relays in [0, 1] {
        let mesh = row_of_nodes(program, relays)?;
        let (_echo, at) = echo_behind(&mesh)?;
        for net in ["a", "b"] {
            // Closed connections keep their ports for a minute.
            let range = || std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "30000 65535");
            mesh.net(net).inside(range).map_err(|e| format!("can't set the range of ports: {e}"))?;
            let again = || std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1");
            mesh.net(net).inside(again).map_err(|e| format!("can't let ports be used again: {e}"))?;
        }
        client::warm_up(mesh.net("a"), at)?;
        let rate = |at_once: &usize| client::connect_rate(mesh.net("a"), at, *at_once, OPENS);
        rates.push(AT_ONCE.iter().map(rate).collect::<Result<Vec<_>, _>>()?);
    }
    for (n, at_once) in AT_ONCE.iter().enumerate() {
        println!("| {at_once} | {:.0} | {:.0} |", rates[0][n], rates[1][n]);
    }
    Ok(())
}

/// Nodes around a hub, each a process of its own, that have nobody else. They share one namespace.
fn peers(program: &Path, most: usize) -> Result<(), String> {
    const PORT: u16 = 3334;
    println!(
        "\n| peers of one node | links up after, s | it: memory, MiB | cores | packets out a second | a peer: memory, MiB | cores | ping p50 to it, us | p99 |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let lab = lab(program)?;
    let (hub_net, net) = (lab.net("hub"), lab.net("peers"));
    lab.wire(&hub_net, &["10.80.1.1/24"], &net, &["10.80.1.2/24"]);
    let mut hub = lab.node(&hub_net, "hub", &format!("quic:\n  listen_port: {PORT}\n"));
    hub.init(&["--advertise", &format!("10.80.1.1:{PORT}")]);
    hub.start();
    let _echo = echo(&hub_net, &lab.dir().join("echo.log"), (Ipv4Addr::LOCALHOST, SERVICE.1).into())?;
    wait_listening(&hub_net, SERVICE.1)?;
    let counts: Vec<_> = PEERS.into_iter().filter(|count| *count <= most).collect();
    let all = counts.last().copied().ok_or("no peers")?;
    let token = hub.token(&["--uses", &all.to_string()]);
    let at: SocketAddr = (Ipv4Addr::LOCALHOST, SERVICE.1).into();
    let ping_at: SocketAddr = (Ipv4Addr::LOCALHOST, SERVICE.1 + 10_000).into();
    let nodes = in_parallel(all, JOINS, |n| {
        let mut yaml =
            format!("quic:\n  upstreams:\n    - {{ node_id: hub, address: \"10.80.1.1:{PORT}\" }}\n");
        if n == 0 {
            let port = ping_at.port();
            yaml += "proxies:\n";
            let _ =
                writeln!(yaml, "  - {{ local_port: {port}, target_node_id: hub, target_address: \"{at}\" }}");
        }
        let node = lab.node(&net, &format!("p{n}"), &yaml);
        node.join(&token);
        node
    });
    let mut running: Vec<Process> = Vec::new();
    let hub_pid = [hub.process().pid()];
    for count in counts {
        let start = Instant::now();
        for node in &nodes[running.len()..count] {
            let mut command = net.command(&program.to_string_lossy());
            command.arg(node.config());
            running.push(Process::start(node.id(), command, &lab.dir().join(node.id()).join("log")));
        }
        let up =
            || hub.peers().iter().filter(|peer| peer.state == ffmesh_api::PeerState::Up).count() == count;
        until(&format!("{count} links are up"), MEET_LIMIT, up);
        let took = start.elapsed().as_secs_f64();
        std::thread::sleep(SETTLE * 2);
        let pids: Vec<u32> = running.iter().map(Process::pid).collect();
        let (cpu, packets) = ((cpu_seconds(&hub_pid), cpu_seconds(&pids)), packets_out(&hub_net));
        std::thread::sleep(WATCH);
        let seconds = WATCH.as_secs_f64();
        let of_hub = (cpu_seconds(&hub_pid) - cpu.0) / seconds;
        let of_peer = (cpu_seconds(&pids) - cpu.1) / seconds / as_f64(count);
        let packets = (packets_out(&hub_net) - packets) / seconds;
        client::warm_up(&net, ping_at)?;
        let pings = client::pings(&net, ping_at, PINGS)?;
        println!(
            "| {count} | {took:.1} | {:.1} | {of_hub:.3} | {packets:.0} | {:.1} | {of_peer:.4} | {:.0} | {:.0} |",
            memory(&hub_pid) / MIB,
            memory(&pids) / MIB / as_f64(count),
            pings[0],
            pings[1]
        );
    }
    Ok(())
}

/// Cores that these use while nothing happens.
fn cores_of(pids: &[u32]) -> f64 {
    let before = cpu_seconds(pids);
    std::thread::sleep(WATCH);
    (cpu_seconds(pids) - before) / WATCH.as_secs_f64()
}

/// Packets that left by the interfaces of a namespace, the loopback not counted.
fn packets_out(net: &Net) -> f64 {
    let text = net.inside(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    // The tenth figure is of packets sent.
    lines.filter_map(|(_, figures)| figures.split_whitespace().nth(9)?.parse::<f64>().ok()).sum()
}

fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
