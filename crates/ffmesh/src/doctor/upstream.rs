//! Upstreams: the name, the way there, who answers, the clock there, and how long packets may be.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ffmesh_api::{Peer, PeerState};
use ffmesh_core::id::{MeshName, NodeId};
use ffmesh_core::target::Host;
use ffmesh_node::config::{Address, Config, Upstream};
use ffmesh_node::identity::{Credentials, Expected, explain_connection_error};
use ffmesh_node::lookup::lookup;
use ffmesh_node::socket::Labels;
use ffmesh_node::transport::Transport;
use noq::ConnectionError;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::finding::Finding;
use super::probe::{ANSWER_TIMEOUT, MIN_PACKET, longest, round_trip};
use crate::format::{duration, milliseconds};

/// How long a name may take to resolve.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Names looked up at once.
const MAX_LOOKUPS: usize = 16;
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(4);
/// How long the other node may take to refuse this node's certificate, beside two round trips: it comes after the
/// handshake is over here.
const VERDICT_TIMEOUT: Duration = Duration::from_millis(300);
/// UDP payload that FFMesh is made for: IPv6 on Ethernet.
const USUAL_PAYLOAD: u16 = 1452;
/// Clocks that differ by more are worth a warning.
const CLOCK_WARNING: Duration = Duration::from_mins(1);
/// Certificates are valid from so long before they are made.
const CLOCK_FAILURE: Duration = Duration::from_mins(5);

/// Dials as this node, and opens no link: a handshake that is withdrawn disturbs nobody.
#[derive(Debug, Clone)]
pub(super) struct Dialler {
    transport: Transport,
    mesh: MeshName,
}

impl Dialler {
    /// None where no UDP socket can be had.
    pub(super) fn new(credentials: &Credentials, config: &Config) -> Option<Self> {
        let udp = ffmesh_udp::Socket::bind(None, 0).ok()?;
        let transport = Transport::new(Arc::new(udp), Labels::default(), credentials, config).ok()?;
        Some(Self { transport, mesh: credentials.mesh() })
    }

    /// Why the two nodes would have no link.
    async fn handshake(&self, at: SocketAddr, node: &NodeId, rtt: Duration) -> Result<(), String> {
        let expected = Expected::dialled(at, node);
        let explain = |error: &ConnectionError| explain_connection_error(error, &expected);
        let name = node.dns_name(&self.mesh);
        let (connecting, _dialling) =
            self.transport.connect_link(at, &name).map_err(|error| error.to_string())?;
        let connection = match timeout(HANDSHAKE_TIMEOUT, connecting).await {
            Ok(connection) => connection.map_err(|error| explain(&error))?,
            Err(_) => return Err(explain(&ConnectionError::TimedOut)),
        };
        // The other side looks at this node's certificate when the handshake is over here.
        let refused = timeout(VERDICT_TIMEOUT + rtt * 2, connection.closed()).await;
        connection.close(0_u32.into(), b"");
        refused.map_or(Ok(()), |error| Err(explain(&error)))
    }
}

/// The name of an upstream's findings.
pub(super) fn name(upstream: &Upstream) -> String {
    format!("upstream {}", upstream.name)
}

/// Everything about one upstream. `peer` is what the running node knows of it.
pub(super) async fn check(
    upstream: Upstream,
    mtu: u16,
    dialler: Option<Dialler>,
    peer: Option<Peer>,
) -> Vec<Finding> {
    let name = name(&upstream);
    let addresses = match resolve(&upstream.address).await {
        Ok(addresses) => addresses,
        Err(why) => {
            let advice = "correct its address, or the name server of this machine (/etc/resolv.conf)";
            return vec![Finding::failed(name, why, advice)];
        }
    };
    let mut findings = Vec::new();
    let (at, rtt) = match first_answer(&addresses).await {
        Ok(answered) => answered,
        Err(errors) => {
            let linked = peer.as_ref().is_some_and(|peer| peer.state == PeerState::Up);
            return vec![judge_silence(&name, &errors, linked)];
        }
    };
    let reached = format!("answers at {at}, {}", milliseconds(rtt.as_secs_f64() * 1e3));
    let path = match longest(at, mtu, rtt).await {
        Ok(length) => judge_length(&name, length, mtu),
        Err(error) => Finding::skipped(format!("{name}: MTU"), error.to_string()),
    };
    let too_narrow = path.result == super::Verdict::Failed;
    match (peer, dialler) {
        (Some(peer), _) if peer.state == PeerState::Up => {
            findings.push(Finding::ok(
                &name,
                format!("{} {reached}; the node has a link with it", upstream.node_id),
            ));
            findings.push(judge_clock(&name, peer.clock_offset_ms));
        }
        (_, Some(_)) if too_narrow => findings.push(unknown(&name, &upstream.node_id, &reached)),
        (peer, Some(dialler)) => {
            let reached = format!("{} {reached}", upstream.node_id);
            let refused = dialler.handshake(at, &upstream.node_id, rtt).await;
            findings.push(judge_handshake(&name, &reached, refused, peer.and_then(|peer| peer.last_error)));
            findings.push(judge_clock(&name, None));
        }
        (_, None) => findings.push(unknown(&name, &upstream.node_id, &reached)),
    }
    findings.push(path);
    findings
}

/// Something answers, and nobody has asked it who it is.
fn unknown(name: &str, node: &NodeId, reached: &str) -> Finding {
    let why = "a handshake tells, which takes an identity of this node and a path that is wide enough";
    Finding::skipped(
        name,
        format!("something that speaks QUIC {reached}; whether it is {node} is not known: {why}"),
    )
}

async fn resolve(address: &Address) -> Result<Vec<SocketAddr>, String> {
    static LOOKUPS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(MAX_LOOKUPS)));
    let name = match &address.host {
        Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, address.port)]),
        Host::Name(name) => name.clone(),
    };
    let found = async {
        let permit = LOOKUPS.clone().acquire_owned().await.map_err(io::Error::other)?;
        lookup(permit, name.clone(), address.port).await
    };
    match timeout(RESOLVE_TIMEOUT, found).await {
        Ok(Ok(found)) if found.is_empty() => Err(format!("{name} has no address")),
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(format!("cannot resolve {name}: {error}")),
        Err(_) => Err(format!("cannot resolve {name}: no answer within {RESOLVE_TIMEOUT:?}")),
    }
}

/// The address that answers first, or why none does.
async fn first_answer(
    addresses: &[SocketAddr],
) -> Result<(SocketAddr, Duration), Vec<(SocketAddr, io::Error)>> {
    let mut probes = tokio::task::JoinSet::new();
    for at in addresses.iter().copied() {
        probes.spawn(async move { (at, round_trip(at).await) });
    }
    let mut errors = Vec::new();
    while let Some(probed) = probes.join_next().await {
        match probed {
            Ok((at, Ok(rtt))) => return Ok((at, rtt)),
            Ok((at, Err(error))) => errors.push((at, error)),
            Err(_) => {} // probes do not panic, and nobody ends them
        }
    }
    Err(errors)
}

/// What it means that no address answers.
fn judge_silence(name: &str, errors: &[(SocketAddr, io::Error)], linked: bool) -> Finding {
    let describe = |(at, error): &(SocketAddr, io::Error)| match error.kind() {
        io::ErrorKind::TimedOut => format!("no answer from {at} within {} s", ANSWER_TIMEOUT.as_secs()),
        io::ErrorKind::ConnectionRefused => format!("nothing listens at UDP {at}"),
        _ => format!("{at}: {error}"),
    };
    let found = errors.iter().map(describe).collect::<Vec<_>>().join("\n");
    if linked {
        let advice = "the running node has a link with it by another address: correct the upstream's";
        return Finding::warning(name, found, advice);
    }
    let any = |kind| errors.iter().any(|(_, error)| error.kind() == kind);
    let advice = if any(io::ErrorKind::TimedOut) {
        "the node there is off, the port is wrong, or UDP is blocked on the way: look at firewalls, port forwarding and \
         the provider's rules for UDP"
    } else if any(io::ErrorKind::ConnectionRefused) {
        "start the node there, or correct the port: its machine is reached and refuses"
    } else {
        "look at this machine's network: it has no way there"
    };
    Finding::failed(name, found, advice)
}

fn judge_handshake(
    name: &str,
    reached: &str,
    refused: Result<(), String>,
    last_error: Option<String>,
) -> Finding {
    match (refused, last_error) {
        (Err(why), _) => Finding::failed(name, why, "do as it says; the other node's log may say more"),
        (Ok(()), Some(why)) => {
            let found = format!("{reached}; the running node has no link with it: {why}");
            Finding::failed(name, found, "see the log of both nodes")
        }
        (Ok(()), None) => Finding::ok(name, format!("{reached}, and both certificates are accepted")),
    }
}

fn judge_clock(name: &str, offset_ms: Option<i64>) -> Finding {
    let name = format!("{name}: clock");
    let Some(offset) = offset_ms else {
        return Finding::skipped(name, "it is compared when a link is made: start the node, and look again");
    };
    let off = Duration::from_millis(offset.unsigned_abs());
    if off < CLOCK_WARNING {
        return Finding::ok(name, "the two clocks agree");
    }
    let side = if offset > 0 { "ahead of" } else { "behind" };
    let found = format!("its clock is {} {side} this machine's", duration(off));
    let advice = "set both clocks, for example with NTP: certificates have a beginning and an end";
    if off < CLOCK_FAILURE {
        Finding::warning(name, found, advice)
    } else {
        Finding::failed(name, found, advice)
    }
}

fn judge_length(name: &str, longest: Option<u16>, tried: u16) -> Finding {
    let name = format!("{name}: MTU");
    match longest {
        None => {
            let found = format!("packets of {MIN_PACKET} bytes, which QUIC needs, do not get there whole");
            let advice = "raise the MTU of the interface or tunnel on the way to 1,280 or more (`ip link` shows this machine's)";
            Finding::failed(name, found, advice)
        }
        Some(length) if length < USUAL_PAYLOAD.min(tried) => {
            let found =
                format!("packets of {length} bytes get there, and none of {}", USUAL_PAYLOAD.min(tried));
            let percent = (f64::from(USUAL_PAYLOAD) / f64::from(length) - 1.0) * 100.0;
            let advice = format!(
                "it works; bulk traffic takes {percent:.0} % more packets. A tunnel or PPPoE on the way is the usual cause"
            );
            Finding::warning(name, found, advice)
        }
        Some(length) => Finding::ok(name, format!("packets of {length} bytes get there whole")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn silence(kinds: &[io::ErrorKind], linked: bool) -> Finding {
        let at = "192.0.2.1:3334".parse().unwrap();
        let errors: Vec<_> = kinds.iter().map(|kind| (at, io::Error::from(*kind))).collect();
        judge_silence("u", &errors, linked)
    }

    #[test]
    fn silence_and_refusal_are_told_apart() {
        let blocked = silence(&[io::ErrorKind::TimedOut], false);
        assert!(blocked.advice.unwrap().contains("UDP is blocked"), "{}", blocked.found);
        let refused = silence(&[io::ErrorKind::ConnectionRefused], false);
        assert!(refused.found.contains("nothing listens") && refused.result == Verdict::Failed);
        let both = silence(&[io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut], false);
        assert!(both.advice.unwrap().contains("UDP is blocked"));
        let no_way = silence(&[io::ErrorKind::NetworkUnreachable], false);
        assert!(no_way.advice.unwrap().contains("no way there"));
        assert_eq!(silence(&[io::ErrorKind::TimedOut], true).result, Verdict::Warning);
    }

    #[test]
    fn clocks_may_differ_by_a_minute() {
        let judge = |seconds: i64| judge_clock("u", Some(seconds * 1_000));
        assert_eq!(judge(59).result, Verdict::Ok);
        assert_eq!(judge(-61).result, Verdict::Warning);
        assert!(judge(-61).found.contains("behind") && judge(61).found.contains("ahead of"));
        assert_eq!((judge(301).result, judge(-301).result), (Verdict::Failed, Verdict::Failed));
        assert_eq!(judge_clock("u", None).result, Verdict::Skipped);
        assert_eq!(judge_clock("u", Some(i64::MIN)).result, Verdict::Failed);
    }

    #[test]
    fn a_path_carries_quic_well_or_badly_or_not() {
        assert_eq!(judge_length("u", None, 1452).result, Verdict::Failed);
        assert_eq!(judge_length("u", Some(1272), 1452).result, Verdict::Warning);
        assert_eq!(judge_length("u", Some(1452), 1452).result, Verdict::Ok);
        assert_eq!(judge_length("u", Some(1300), 1300).result, Verdict::Ok, "no more was asked for");
        assert_eq!(judge_length("u", Some(1500), 9000).result, Verdict::Ok);
    }

    #[test]
    fn who_has_not_been_asked_who_it_is_may_be_anybody() {
        let unasked = unknown("u", &"b".parse().unwrap(), "answers at 192.0.2.1:3334, 1.00 ms");
        assert_eq!(unasked.result, Verdict::Skipped);
        assert!(unasked.found.contains("whether it is b is not known"), "{}", unasked.found);
    }

    #[test]
    fn a_handshake_that_fails_says_why() {
        assert_eq!(judge_handshake("u", "it answers", Ok(()), None).result, Verdict::Ok);
        let refused = judge_handshake("u", "it answers", Err("another mesh".to_owned()), None);
        assert!(refused.result == Verdict::Failed && refused.found.contains("another mesh"));
        let unlinked = judge_handshake("u", "it answers", Ok(()), Some("another key".to_owned()));
        assert!(unlinked.result == Verdict::Failed && unlinked.found.contains("another key"));
    }
}
