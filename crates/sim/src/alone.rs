//! One node of a mesh that is too large to run as a whole: all other nodes' records come over its one link.

use std::error::Error;
use std::time::{Duration, Instant};

use ffmesh_core::flood::LinkId;
use ffmesh_core::id::NodeId;
use ffmesh_core::lsdb::record::sign;
use ffmesh_core::lsdb::{Content, Listed, NodeInfo, Version};
use ffmesh_core::mesh::{Action, Config, Input, LinkUp, Mesh};
use ffmesh_core::random::Random;
use ffmesh_core::routes::{MAX_ROUTES, routes};
use ffmesh_core::spf::Spf;
use ffmesh_core::time::Time;
use ffmesh_core::wire::{Advert, AgedRecord, Base64, Message, decode_datagram, encode_datagram};

use crate::keys::{Authority, Keys, key};
use crate::report::Report;
use crate::topology::regular;

/// Records of one ADVERT
const BATCH: usize = 64;
/// Times that what takes microseconds is measured
const ROUNDS: u32 = 201;

/// Joins a mesh of `nodes` nodes cold and measures what that takes.
pub(crate) fn run(nodes: usize, degree: usize, seed: u64) -> Result<Report, Box<dyn Error>> {
    let mut random = Random::new(seed);
    let pairs = regular(nodes, degree, &mut random);
    let ids: Vec<NodeId> = (0..nodes).map(|n| format!("n{n:05x}").parse()).collect::<Result<_, _>>()?;
    let mut links: Vec<Vec<Listed>> = vec![Vec::new(); nodes];
    for (a, b) in pairs {
        let cost = 1000 + u32::try_from(random.below(99_000))?;
        for (from, to) in [(a, b), (b, a)] {
            links[from].push(Listed { neighbor: ids[to].clone(), cost, band: 0 });
        }
    }
    let messages = adverts(&ids, &links);
    let mut report = Report { nodes, degree, seed, ..Report::default() };
    report.number(
        "records of a node",
        per(messages.iter().map(Vec::len).sum(), nodes),
        "B on the wire",
        None,
    );
    let mesh = join(&ids[0], &links[0], &messages, seed, &mut report)?;
    report.number("database", per(mesh.database().memory(), 1_000_000), "MB", Some(15.0));
    routing(&mesh, &mut report)?;
    Ok(report)
}

/// Starts the node and gives it all messages.
fn join(
    id: &NodeId,
    links: &[Listed],
    messages: &[Vec<u8>],
    seed: u64,
    report: &mut Report,
) -> Result<Mesh, Box<dyn Error>> {
    let config = Config { relay: true, transit: true, ..Config::default() };
    let keys = Box::new(Keys(id.clone()));
    let mut mesh = Mesh::new(config, id.clone(), 1, keys, Box::new(Authority), seed);
    let mut now = Time(1_000_000);
    let (mut out, mut spf) = (Vec::new(), Vec::new());
    let start = Instant::now();
    for (number, listed) in (0u64..).zip(links) {
        let (link, neighbor) = (LinkId(number), listed.neighbor.clone());
        let rtt = Some(Duration::from_micros(listed.cost.into()));
        let up = LinkUp { link, key: key(&neighbor), neighbor, cost: 0, rtt };
        mesh.handle(Input::LinkUp(up), now, &mut out);
    }
    for text in messages {
        now = now + Duration::from_millis(10);
        let message = decode_datagram(text)?.message;
        out.clear();
        let before = Instant::now();
        mesh.handle(Input::Message(LinkId(0), message), now, &mut out);
        if out.contains(&Action::RoutesChanged) {
            spf.push(before.elapsed());
        }
    }
    report.real("cold join, all CPU but signatures", vec![start.elapsed()], Some(1000.0));
    report.real("  calls that computed routes", spf, None);
    let end = now + Duration::from_secs(5);
    while let Some(next) = mesh.next_deadline().filter(|next| *next < end) {
        now = next.max(now);
        mesh.handle(Input::Tick, now, &mut out);
        out.clear();
    }
    Ok(mesh)
}

/// Times searches in the table.
fn routing(mesh: &Mesh, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let table = mesh.table();
    let reachable = table.reachable().len();
    report.number("reachable", per(reachable, 1), "nodes", None);
    if reachable + 1 != report.nodes {
        report.failures.push(format!("{reachable} of {} other nodes are reachable", report.nodes - 1));
    }
    let graph = table.graph();
    let numbers = u32::try_from(graph.len())?;
    let mut sum = 0; // used, so that nothing is left out
    let spf = time(|i| sum += usize::from(Spf::new(graph, i % numbers).cost(0).is_some()));
    report.real("SPF", spf, Some(2.0));
    let mut found = 0;
    let three = time(|i| found += routes(graph, 0, 1 + i * 7919 % (numbers - 1), MAX_ROUTES).len());
    report.real("three disjoint routes to a node", three, None);
    report.number("  found", per(found, ROUNDS as usize), "routes", None);
    Ok(())
}

fn time(mut run: impl FnMut(u32)) -> Vec<Duration> {
    let one = |i| {
        let start = Instant::now();
        run(i);
        start.elapsed()
    };
    (0..ROUNDS).map(one).collect()
}

/// The records of all nodes but the first, in messages as they stand on the wire.
fn adverts(ids: &[NodeId], links: &[Vec<Listed>]) -> Vec<Vec<u8>> {
    let version = Version { epoch: 1, sequence: 1 };
    let mut records = Vec::new();
    for (n, (id, links)) in ids.iter().zip(links).enumerate().skip(1) {
        let keys = Keys(id.clone());
        let addresses = format!("192.0.2.{}:8443", n % 250).parse().into_iter().collect();
        let (relay, transit, issuer, cost) = (true, true, false, 0);
        let node = NodeInfo { boot: 1, relay, issuer, transit, cost, addresses, services: Vec::new() };
        for content in [Content::Node(node), Content::Links(links.clone())] {
            records.push(AgedRecord(1, Base64(sign(id, version, &content, &keys))));
        }
    }
    let message = |records: &[AgedRecord]| Message::Advert(Advert { records: records.to_vec() });
    records.chunks(BATCH).map(|batch| encode_datagram(&ids[0], &message(batch))).collect()
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn per(sum: usize, count: usize) -> f64 {
    sum as f64 / count as f64
}
