//! What the system gives: open files, socket buffers, offload, queues.

use std::fs;

use ffmesh_node::config::Config;
use ffmesh_udp::SOCKET_BUFFER;
use rustix::process::{Resource, getrlimit};
use socket2::{Domain, Socket, Type};

use super::finding::Finding;
use crate::format::{bytes, count};

/// Files of a node without flows, and to spare.
const OWN_FILES: u64 = 64;
/// With fewer files a node is of little use.
const LEAST_FILES: u64 = 256;
/// Connections that a proxy asks the system to queue.
const BACKLOG: u64 = 4096;
/// Below this a burst of connections is refused.
const LEAST_BACKLOG: u64 = 512;
/// Share of the table of connections that is taken when it is about to be full.
const NEARLY_FULL: f64 = 0.8;

/// All of it.
pub(super) fn machine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![judge_files(getrlimit(Resource::Nofile).maximum, config.quic.max_flows.into())];
    findings.extend(buffers());
    findings.push(offload());
    findings.extend(read("net/core/somaxconn").map(judge_backlog));
    let table = read("net/netfilter/nf_conntrack_count").zip(read("net/netfilter/nf_conntrack_max"));
    findings.extend(table.map(|(used, size)| judge_conntrack(used, size)));
    findings.push(ipv6());
    findings
}

fn read(key: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/{key}")).ok()?.trim().parse().ok()
}

/// A flow takes one file at each node.
fn judge_files(limit: Option<u64>, flows: u64) -> Finding {
    const NAME: &str = "open files";
    let needed = flows + OWN_FILES;
    let Some(limit) = limit.filter(|limit| *limit < needed) else {
        return Finding::ok(NAME, format!("enough for the {} flows of quic.max_flows", count(flows)));
    };
    let found = format!(
        "{} may be open, and {} flows (quic.max_flows) take {}",
        count(limit),
        count(flows),
        count(needed)
    );
    let advice = format!(
        "raise the hard limit: LimitNOFILE={needed} in the unit, or `ulimit -Hn {needed}`; or lower quic.max_flows"
    );
    if limit < LEAST_FILES {
        Finding::failed(NAME, found, advice)
    } else {
        Finding::warning(NAME, found, advice)
    }
}

/// What the kernel gives of the buffers that the node's socket asks for.
fn buffers() -> Vec<Finding> {
    let Ok(socket) = Socket::new(Domain::IPV4, Type::DGRAM, None) else {
        return vec![Finding::skipped("socket buffers", "no UDP socket could be made")];
    };
    let _ = (socket.set_recv_buffer_size(SOCKET_BUFFER), socket.set_send_buffer_size(SOCKET_BUFFER));
    // Linux counts its own bookkeeping and says twice what was asked for (socket(7)).
    let twice = if cfg!(target_os = "linux") { 2 } else { 1 };
    let given = |size: std::io::Result<usize>| size.map_or(0, |size| size / twice);
    vec![
        judge_buffer("receive buffer", "net.core.rmem_max", given(socket.recv_buffer_size())),
        judge_buffer("send buffer", "net.core.wmem_max", given(socket.send_buffer_size())),
    ]
}

fn judge_buffer(name: &str, key: &str, given: usize) -> Finding {
    let (wanted, size) = (bytes(SOCKET_BUFFER as u64), bytes(given as u64));
    if given >= SOCKET_BUFFER {
        return Finding::ok(name, format!("{size} for the UDP socket"));
    }
    let found =
        format!("the kernel gives the UDP socket {size} of the {wanted} it asks for: bursts are lost");
    let advice =
        format!("sysctl -w {key}={SOCKET_BUFFER} (and in /etc/sysctl.d/ to keep it), then restart the node");
    Finding::warning(name, found, advice)
}

fn offload() -> Finding {
    match ffmesh_udp::Socket::bind(None, 0) {
        Ok(socket) => judge_offload(socket.max_segments().get(), socket.receive_segments().get()),
        Err(error) => Finding::failed(
            "UDP",
            format!("no UDP socket can be bound: {error}"),
            "see the limits of the container",
        ),
    }
}

fn judge_offload(send: usize, receive: usize) -> Finding {
    let lacks = match (send > 1, receive > 1) {
        (true, true) => return Finding::ok("UDP offload", "the kernel takes and gives batches (GSO, GRO)"),
        (false, true) => "UDP_SEGMENT (GSO)",
        (true, false) => "UDP_GRO",
        (false, false) => "UDP_SEGMENT and UDP_GRO",
    };
    let found = format!("the kernel lacks {lacks}: each packet costs a system call");
    Finding::warning("UDP offload", found, "bulk traffic takes more CPU; a kernel from Linux 5.0 on has both")
}

fn judge_backlog(size: u64) -> Finding {
    const NAME: &str = "listen backlog";
    if size >= LEAST_BACKLOG {
        return Finding::ok(NAME, format!("{} connections may wait (net.core.somaxconn)", count(size)));
    }
    let found =
        format!("{} connections may wait (net.core.somaxconn): more at once are refused", count(size));
    Finding::warning(NAME, found, format!("sysctl -w net.core.somaxconn={BACKLOG}"))
}

fn judge_conntrack(used: u64, size: u64) -> Finding {
    const NAME: &str = "connection tracking";
    let found = format!("{} of {} entries are taken", count(used), count(size));
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let share = used as f64 / size.max(1) as f64;
    if size == 0 || share < NEARLY_FULL {
        return Finding::ok(NAME, found);
    }
    let advice = format!(
        "when it is full, packets are dropped: sysctl -w net.netfilter.nf_conntrack_max={}",
        size * 2
    );
    Finding::warning(NAME, found, advice)
}

fn ipv6() -> Finding {
    let addresses = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    if addresses.trim().is_empty() {
        return Finding::skipped("IPv6", "this machine or container has none: IPv4 only");
    }
    Finding::ok("IPv6", "there are addresses")
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn files_are_counted_against_flows() {
        let judge = |limit| judge_files(limit, 50_000).result;
        assert_eq!(judge(None), Verdict::Ok);
        assert_eq!(judge(Some(1 << 20)), Verdict::Ok);
        assert_eq!(judge(Some(1024)), Verdict::Warning);
        assert_eq!(judge(Some(100)), Verdict::Failed);
        assert_eq!(judge_files(Some(200), 100).result, Verdict::Ok);
        assert!(judge_files(Some(1024), 50_000).advice.unwrap().contains("LimitNOFILE=50064"));
    }

    #[test]
    fn buffers_queues_and_tables_are_judged_by_their_size() {
        assert_eq!(judge_buffer("b", "net.core.rmem_max", SOCKET_BUFFER).result, Verdict::Ok);
        let small = judge_buffer("b", "net.core.rmem_max", 212_992);
        assert!(small.advice.unwrap().contains("sysctl -w net.core.rmem_max=4194304"));
        assert_eq!((judge_backlog(4096).result, judge_backlog(128).result), (Verdict::Ok, Verdict::Warning));
        assert_eq!(judge_conntrack(10, 100).result, Verdict::Ok);
        assert_eq!(judge_conntrack(90, 100).result, Verdict::Warning);
        assert_eq!(judge_conntrack(0, 0).result, Verdict::Ok);
        assert_eq!(
            (judge_offload(64, 64).result, judge_offload(1, 64).result),
            (Verdict::Ok, Verdict::Warning)
        );
    }
}
