//! Two sessions and one TCP connection share a line, with a buffer of usual and of unusual depth.
//!
//! The line is a VXLAN between two namespaces, whose UDP packets pass a [`DelayLine`] in each direction: so QUIC and
//! TCP wait in one queue.

use std::thread::sleep;
use std::time::Duration;

use ffmesh_lab::{DelayLine, Lab, Line, Net, Node, Transfer, report, require_programs};
use serde_json::json;

use crate::FFMESH;

/// What the line carries, and how long it takes there and back.
const MBIT: u64 = 100;
const RTT: Duration = Duration::from_millis(40);
/// What fits onto the line in that time, in bytes.
const PRODUCT: usize = 500_000;
/// How long all three run.
const SECONDS: u32 = 20;
/// Least Mbit/s of each: a fifth of the line.
const LEAST: f64 = 20.0;
/// Addresses of the namespaces, and those that are reached over the line.
const OUTER: [&str; 2] = ["10.8.0.1", "10.8.0.2"];
const INNER: [&str; 2] = ["10.9.0.1", "10.9.0.2"];
const VXLAN_PORT: u16 = 4789;
const LINE_PORT: u16 = 4900;
/// Where the receivers listen: one behind each session, one for TCP.
const RECEIVERS: [u16; 3] = [5201, 5202, 5203];

#[test]
#[ignore = "takes a minute, and a busy machine makes it unfair; the same is simulated in ffmesh-node"]
fn two_sessions_and_a_tcp_connection_get_a_fifth_each() {
    if !require_programs(&["iperf3", "ethtool", "bridge"]) {
        return;
    }
    for products in [1, 4] {
        let Some(lab) = Lab::new("fair") else { return };
        let lab = lab.with_program(FFMESH);
        let nets = [lab.net("near"), lab.net("far")];
        lab.wire(&nets[0], &[&format!("{}/24", OUTER[0])], &nets[1], &[&format!("{}/24", OUTER[1])]);
        let _lines = [0, 1].map(|end| long_line(&nets, end, products * PRODUCT));
        let _nodes = [1, 2].map(|number| session(&lab, &nets, number));
        let mut receivers = RECEIVERS.map(|port| {
            let log = lab.dir().join(format!("iperf3-{port}.log"));
            Transfer::serve(&nets[1], &format!("0.0.0.0:{port}"), &log, &[])
        });
        sleep(Duration::from_millis(500));
        let mbit = std::thread::scope(|scope| {
            let senders = RECEIVERS.map(|port| {
                let near = &nets[0];
                scope.spawn(move || {
                    if port == RECEIVERS[2] {
                        send(near, INNER[1], port)
                    } else {
                        send(near, "127.0.0.1", port)
                    }
                })
            });
            senders.map(|sender| sender.join().unwrap())
        });
        for receiver in &mut receivers {
            receiver.kill();
        }
        let [first, second, tcp] = mbit;
        report(&format!("fairness-{products}"), &json!({ "sessions": [first, second], "tcp": tcp }));
        assert!(mbit.iter().all(|mbit| *mbit >= LEAST), "buffer of {products} products: {mbit:.1?} Mbit/s");
    }
}

/// The end of the line in `nets[end]`, and what delays packets that are sent from there.
fn long_line(nets: &[Net; 2], end: usize, queue: usize) -> DelayLine {
    let (near, there) = (&nets[end], OUTER[1 - end]);
    let (port, line_port) = (VXLAN_PORT.to_string(), LINE_PORT.to_string());
    let all = "00:00:00:00:00:00";
    let vxlan = format!("ip link add long type vxlan id 1 dstport {port} nolearning local {}", OUTER[end]);
    for command in [
        &vxlan.split(' ').collect::<Vec<_>>()[..],
        // Nothing below the line fills in checksums or cuts large packets.
        &["ethtool", "-K", "long", "tx", "off", "tso", "off", "gso", "off", "gro", "off"],
        &["ip", "address", "add", &format!("{}/24", INNER[end]), "dev", "long"],
        &["ip", "link", "set", "long", "mtu", "1450", "up"],
        &["bridge", "fdb", "append", all, "dev", "long", "dst", there, "port", &line_port],
    ] {
        let outcome = near.run(command[0], &command[1..]);
        assert!(outcome.is_success(), "{command:?}: {}", outcome.said());
    }
    let line = Line { delay: RTT / 2, rate: Some(MBIT * 1_000_000), queue, ..Line::default() };
    DelayLine::start(&nets[1 - end], &format!("{there}:{LINE_PORT}"), &format!("{there}:{VXLAN_PORT}"), line)
}

/// Two nodes with a session of their own over the line; its proxy is ten thousand above the receiver's port.
fn session(lab: &Lab, nets: &[Net; 2], number: u16) -> [Node; 2] {
    let (port, receiver) = (3330 + number, RECEIVERS[usize::from(number) - 1]);
    let address = format!("{}:{port}", INNER[1]);
    let (near, far) = (format!("near{number}"), format!("far{number}"));
    let mut server =
        lab.node(&nets[1], &far, &format!("quic: {{ listen_port: {port}, advertise: [\"{address}\"] }}\n"));
    let mut client = lab.node(
        &nets[0],
        &near,
        &format!(
            "quic:\n  upstreams: [{{ node_id: {far}, address: \"{address}\" }}]\n\
             proxies: [{{ name: p, local_port: {}, target_node_id: {far}, target_address: \"127.0.0.1:{receiver}\" }}]\n",
            receiver + 10_000
        ),
    );
    server.init(&[]);
    server.start();
    client.join(&server.token(&[]));
    client.start();
    client.wait_for_peer(&far);
    [client, server]
}

/// Mbit/s that arrive: over a proxy where it is this host's, else over TCP as most have it.
fn send(net: &Net, host: &str, port: u16) -> f64 {
    let (port, controller) =
        if host == INNER[1] { (port, &["--congestion", "cubic"][..]) } else { (port + 10_000, &[][..]) };
    Transfer::run(net, &format!("{host}:{port}"), SECONDS, controller).unwrap().mbit
}
