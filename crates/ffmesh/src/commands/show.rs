//! `ffmesh status`, `peers`, `proxies`, `flows`: what the node knows now.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::Cell;
use ffmesh_api::{Flow, Flows, Peer, PeerState, Proxy, Role, Status, Transit};
use ffmesh_core::reason::Reason;
use jiff::Timestamp;

use crate::args::{self, Show};
use crate::client::Client;
use crate::failure::Outcome;
use crate::format::{age, bytes, count, duration, expiry, milliseconds, share};
use crate::output::Column::{Number, Text};
use crate::output::{self, Tone, cell, state};
use crate::place;

/// The key figures. Its JSON is that of the API, with the peers beside it.
pub(crate) async fn status(show: &Show) -> Outcome {
    let node = place::node(&show.choice)?;
    let client = Client::new(&node);
    let (mut json, status) = client.get::<Status>("status").await?;
    let (peers_json, peers) = client.get::<Vec<Peer>>("peers").await?;
    if show.json {
        json["peers"] = peers_json;
        return output::json(&json);
    }
    output::line(&output::draw(&[], status_rows(&status, &peers, Timestamp::now())))
}

fn status_rows(status: &Status, peers: &[Peer], now: Timestamp) -> Vec<Vec<Cell>> {
    let row = |name: &str, value: String| vec![cell(name), cell(value)];
    let listens = match (status.accepts, status.listen.join(", ")) {
        (true, listen) => format!("{listen} (UDP)"),
        (false, listen) if listen.is_empty() => "no port: it only dials out".to_owned(),
        (false, listen) => format!("{listen} (UDP), to dial out only"),
    };
    let mut links = format!("{} up", status.links_up);
    if status.upstreams > 0 {
        let _ = write!(links, "; {} of {} upstreams", status.upstreams_up, status.upstreams);
    }
    let healthy = status.upstreams_up == status.upstreams;
    let tone = match (healthy, status.links_up) {
        (true, _) => Tone::Good,
        (false, 0) => Tone::Bad,
        (false, _) => Tone::Busy,
    };
    let flows = format!("{} open, {} since the start", count(status.flows_open), count(status.flows_total));
    let carried = format!("{} sent, {} received", bytes(status.bytes_sent), bytes(status.bytes_received));
    let up = age(status.started, now);
    let running = format!("ffmesh {} for {up}", status.version);
    let running = if status.draining {
        state(format!("{running}; draining: new flows are refused"), Tone::Busy)
    } else {
        cell(running)
    };
    let mut rows = vec![
        row("node", format!("{} of the mesh {}", status.node_id, status.mesh)),
        vec![cell("running"), running],
        row("config", status.config.clone().unwrap_or_else(|| "none".to_owned())),
        row("state", status.state_dir.clone()),
        row("listens", listens),
        vec![cell("links"), state(links, tone)],
        row("latency", latency(peers)),
        row("nodes", format!("{} reachable of {} known", status.nodes_reachable, status.nodes_known)),
        row("failovers", count(status.failovers)),
        row("flows", flows),
        row("bytes", carried),
        row("errors", errors(status)),
        row("certificate", format!("until {}", expiry(status.certificate_expires, now))),
        row("issuer", if status.issuer { "yes: it can enrol others" } else { "no" }.to_owned()),
    ];
    if status.transit != Transit::default() {
        rows.push(row("transit", transit(&status.transit)));
    }
    rows
}

/// `2 circuits; 1,000 packets, 1.2 MiB; 3 dropped: 2 full, 1 no_link`
fn transit(transit: &Transit) -> String {
    let Transit { circuits, packets, bytes: carried, dropped } = transit;
    let mut text = format!("{circuits} circuits; {} packets, {}", count(*packets), bytes(*carried));
    if !dropped.is_empty() {
        let total = dropped.iter().map(|dropped| dropped.count).sum();
        let reasons: Vec<_> =
            dropped.iter().map(|dropped| format!("{} {}", count(dropped.count), dropped.kind)).collect();
        let _ = write!(text, "; {} dropped: {}", count(total), reasons.join(", "));
    }
    text
}

/// Of the links that are up, the three quickest and how many more there are.
fn latency(peers: &[Peer]) -> String {
    const SHOWN: usize = 3;
    let up = peers.iter().filter(|peer| peer.state == PeerState::Up);
    let mut known: Vec<_> = up.filter_map(|peer| peer.rtt_ms.map(|rtt| (rtt, peer))).collect();
    known.sort_by(|a, b| a.0.total_cmp(&b.0));
    if known.is_empty() {
        return "no link is up".to_owned();
    }
    let shown: Vec<_> = known
        .iter()
        .take(SHOWN)
        .map(|(rtt, peer)| format!("{} to {}", milliseconds(*rtt), peer.node_id))
        .collect();
    let more = known.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(", {more} more: ffmesh peers") } else { String::new() };
    shown.join(", ") + &more
}

/// How many of the flows ended in an error, and what else went wrong: `5 of 1,000 flows (0.5 %): 3 failed, 2 reset;
/// 1 handshake`.
fn errors(status: &Status) -> String {
    const OF_FLOWS: [(&str, &str); 3] =
        [("flow_failed", "failed"), ("denied", "denied"), ("flow_reset", "reset")];
    let (mut flows, mut others, mut failed) = (Vec::new(), Vec::new(), 0);
    for error in &status.errors {
        let number = count(error.count);
        if let Some((_, word)) = OF_FLOWS.iter().find(|(kind, _)| *kind == error.kind) {
            flows.push(format!("{number} {word}"));
            failed += error.count;
        } else {
            others.push(format!("{number} {}", error.kind));
        }
    }
    let (flows, others) = (flows.join(", "), others.join(", "));
    let flows = if failed == 0 || status.flows_total == 0 {
        flows
    } else {
        #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
        let rate = share(failed as f64 / status.flows_total as f64);
        format!("{} of {} flows ({rate}): {flows}", count(failed), count(status.flows_total))
    };
    match (flows.as_str(), others.as_str()) {
        ("", "") => "none".to_owned(),
        (flows, "") => flows.to_owned(),
        ("", others) => others.to_owned(),
        (flows, others) => format!("{flows}; {others}"),
    }
}

/// The neighbours.
pub(crate) async fn peers(show: &Show) -> Outcome {
    let node = place::node(&show.choice)?;
    let (json, peers) = Client::new(&node).get::<Vec<Peer>>("peers").await?;
    if show.json {
        return output::json(&json);
    }
    let now = Timestamp::now();
    let rows = peers.iter().map(|peer| peer_row(peer, now)).collect();
    let header = [
        Text("NODE"),
        Text("STATE"),
        Number("FOR"),
        Number("RTT"),
        Number("LOSS"),
        Text("ADDRESS"),
        Text("NOTE"),
    ];
    output::table(
        &header,
        rows,
        "no peers; `quic.upstreams` names nodes to dial, `ffmesh token create` lets others in",
    )
}

fn peer_row(peer: &Peer, now: Timestamp) -> Vec<Cell> {
    let (word, tone) = match peer.state {
        PeerState::Up => ("up", Tone::Good),
        PeerState::Dialling => ("dialling", Tone::Busy),
        PeerState::Down => ("down", Tone::Bad),
    };
    let mut notes = Vec::new();
    if let Some(name) = peer.name.as_ref().filter(|name| **name != peer.node_id.as_str()) {
        notes.push(name.clone());
    }
    if peer.state == PeerState::Up {
        notes.push(if peer.dialled { "dialled" } else { "accepted" }.to_owned());
        if !peer.relay {
            notes.push("no relay".to_owned());
        }
    } else {
        notes.extend(peer.last_error.clone());
    }
    notes.extend(peer.groups.iter().map(|group| format!("group:{group}")));
    vec![
        cell(peer.node_id.as_str()),
        state(word, tone),
        cell(age(peer.since, now)),
        cell(peer.rtt_ms.map_or("-".to_owned(), milliseconds)),
        cell(peer.loss.map_or("-".to_owned(), share)),
        cell(peer.address.as_deref().unwrap_or("-")),
        cell(notes.join(", ")),
    ]
}

/// The local listeners.
pub(crate) async fn proxies(show: &Show) -> Outcome {
    let node = place::node(&show.choice)?;
    let (json, proxies) = Client::new(&node).get::<Vec<Proxy>>("proxies").await?;
    if show.json {
        return output::json(&json);
    }
    let header = [
        Text("NAME"),
        Text("STATE"),
        Text("PROTOCOL"),
        Text("LISTENS"),
        Text("LEADS TO"),
        Number("OPEN"),
        Number("TOTAL"),
        Number("FAILED"),
        Number("UP"),
        Number("DOWN"),
    ];
    output::table(
        &header,
        proxies.iter().map(proxy_row).collect(),
        "no proxies; `proxies` of the file names them",
    )
}

fn proxy_row(proxy: &Proxy) -> Vec<Cell> {
    let (word, tone) = match &proxy.error {
        None => ("listening".to_owned(), Tone::Good),
        Some(error) => (error.clone(), Tone::Bad),
    };
    vec![
        cell(&proxy.name),
        state(word, tone),
        cell(&proxy.protocol),
        cell(&proxy.listen),
        cell(&proxy.target),
        cell(count(proxy.flows_open)),
        cell(count(proxy.flows_total)),
        cell(count(proxy.flows_failed)),
        cell(bytes(proxy.bytes_up)),
        cell(bytes(proxy.bytes_down)),
    ]
}

/// The flows, newest last: those that ended, then those that are open.
pub(crate) async fn flows(args: &args::Flows) -> Outcome {
    let node = place::node(&args.show.choice)?;
    let (json, flows) = Client::new(&node).get::<Flows>("flows").await?;
    if args.show.json {
        return output::json(&json);
    }
    let limit = if args.limit == 0 { usize::MAX } else { args.limit };
    // The node gives the ended newest first and the open oldest first.
    let ended = if args.open { &[][..] } else { &flows.ended[..flows.ended.len().min(limit)] };
    let open = if args.ended { &[][..] } else { &flows.open[flows.open.len().saturating_sub(limit)..] };
    let rows = ended.iter().rev().chain(open).map(|flow| flow_row(flow, Timestamp::now())).collect();
    let header = [
        Text("STATE"),
        Text("PROXY"),
        Text("PEER"),
        Text("TARGET"),
        Text("CLIENT"),
        Number("BEGAN"),
        Number("FOR"),
        Number("UP"),
        Number("DOWN"),
        Text("NOTE"),
    ];
    output::table(&header, rows, "no flows")?;

    let left_out = |all: usize, shown: usize, wanted: bool, what: &str| {
        (wanted && all > shown).then(|| format!("{} more {what}", count((all - shown) as u64)))
    };
    let left_out: Vec<_> = [
        left_out(flows.ended.len(), ended.len(), !args.open, "ended"),
        left_out(flows.open.len(), open.len(), !args.ended, "open"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !left_out.is_empty() {
        output::remark(&format!("{}: --limit 0 shows all", left_out.join(", ")));
    }
    Ok(())
}

fn flow_row(flow: &Flow, now: Timestamp) -> Vec<Cell> {
    let (word, tone) = match flow.reason {
        None if flow.connected => ("open", Tone::Good),
        None => ("opening", Tone::Busy),
        Some(Reason::Done) => ("done", Tone::Quiet),
        Some(reason) => (reason.as_str(), Tone::Bad),
    };
    // The arrow shows who began: this node towards the peer, or the peer towards this node.
    let peer = match flow.role {
        Role::Ingress => format!("> {}", flow.peer),
        Role::Egress => format!("< {}", flow.peer),
    };
    vec![
        state(word, tone),
        cell(&flow.proxy),
        cell(peer),
        cell(&flow.target),
        cell(flow.client.as_deref().unwrap_or("-")),
        cell(format!("{} ago", age(flow.started, now))),
        cell(duration(Duration::from_millis(flow.duration_ms))),
        cell(bytes(flow.bytes_up)),
        cell(bytes(flow.bytes_down)),
        cell(flow.detail.as_deref().unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use ffmesh_api::ErrorCount;

    fn error(kind: &str, count: u64) -> ErrorCount {
        ErrorCount { kind: kind.into(), count }
    }

    fn peer(id: &str, state: PeerState, rtt_ms: Option<f64>) -> Peer {
        Peer {
            node_id: id.parse().unwrap(),
            name: Some("evil\x1b[2J".into()),
            state,
            address: Some("192.0.2.1:3334".into()),
            dialled: true,
            since: Timestamp::UNIX_EPOCH,
            rtt_ms,
            loss: Some(0.0),
            groups: vec!["dev".into()],
            relay: false,
            last_error: Some("timed out".into()),
        }
    }

    #[test]
    fn a_status_has_the_key_figures() {
        let status = Status {
            node_id: "a".parse().unwrap(),
            mesh: "home".into(),
            version: "0.1.0".into(),
            started: Timestamp::UNIX_EPOCH,
            config: None,
            state_dir: "/s".into(),
            listen: vec!["[::]:3334".into()],
            accepts: true,
            links_up: 1,
            upstreams: 2,
            upstreams_up: 1,
            sessions: 1,
            nodes_known: 12,
            nodes_reachable: 11,
            failovers: 1_234,
            transit: Transit {
                circuits: 2,
                packets: 1_000,
                bytes: 1_258_291,
                dropped: vec![error("full", 2), error("no_link", 1)],
            },
            flows_open: 3,
            flows_total: 1_000,
            bytes_sent: 1_048_576,
            bytes_received: 2_048,
            flow_memory: 0,
            certificate_expires: Timestamp::UNIX_EPOCH + Duration::from_hours(48),
            issuer: true,
            draining: false,
            errors: vec![error("flow_failed", 3), error("link_down", 2), error("denied", 2)],
        };
        let draining = Status {
            draining: true,
            errors: vec![error("link_down", 2)],
            transit: Transit::default(),
            ..status.clone()
        };
        let peers = [peer("b", PeerState::Up, Some(0.42)), peer("c", PeerState::Dialling, None)];
        let rows = status_rows(&status, &peers, Timestamp::UNIX_EPOCH + Duration::from_mins(5));
        let text = output::draw(&[], rows);
        for part in [
            "ffmesh 0.1.0 for 5m 0s",
            "1 up; 1 of 2 upstreams",
            "0.42 ms to b",
            "11 reachable of 12 known",
            "failovers    1,234",
            "2 circuits; 1,000 packets, 1.2 MiB; 3 dropped: 2 full, 1 no_link",
            "3 open, 1,000 since the start",
            "1.0 MiB sent, 2.0 KiB received",
            "5 of 1,000 flows (0.5 %): 3 failed, 2 denied; 2 link_down",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
        let text = output::draw(&[], status_rows(&draining, &peers, Timestamp::now()));
        for part in ["draining: new flows are refused", " 2 link_down"] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
        assert!(!text.contains("transit"), "a node that carries nothing for others has no such row:\n{text}");
        assert_eq!(errors(&Status { errors: Vec::new(), ..draining }), "none");
    }

    #[test]
    fn a_peers_strings_do_nothing_to_the_terminal() {
        let now = Timestamp::UNIX_EPOCH + Duration::from_secs(90);
        let text = output::draw(&[], vec![peer_row(&peer("b", PeerState::Down, None), now)]);
        assert!(!text.contains('\x1b'), "{text:?}");
        assert!(text.contains("evil\\u{1b}[2J, timed out, group:dev"), "{text}");
    }
}
