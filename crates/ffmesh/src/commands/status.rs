//! `ffmesh status`: the node at a glance.

use std::fmt::Write as _;

use comfy_table::Cell;
use ffmesh_api::{Peer, PeerState, Status, Transit};
use jiff::Timestamp;

use crate::args::Show;
use crate::client::Client;
use crate::failure::Outcome;
use crate::format::{age, bytes, count, expiry, milliseconds, share};
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
        row("latency", mean(status, latency(peers))),
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

/// `2 circuits; 1,000 packets, 1.2 MiB; 3 dropped: 2 buffer_full, 1 limit`
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

/// The mean of all links and what they lose, where there are several or something is lost.
fn mean(status: &Status, links: String) -> String {
    let rtt = status.rtt_ms.filter(|_| status.links_up > 1);
    let rtt = rtt.map(|rtt| format!("mean {}", milliseconds(rtt)));
    let loss = status.loss.filter(|loss| *loss > 0.0).map(|loss| format!("{} lost", share(loss)));
    [Some(links), rtt, loss].into_iter().flatten().collect::<Vec<_>>().join("; ")
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
    if status.errors_per_minute > 0.0 {
        others.push(format!("{:.0} in the last minute", status.errors_per_minute));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ffmesh_api::ErrorCount;

    use super::*;
    use crate::commands::fixture::peer;

    fn error(kind: &str, count: u64) -> ErrorCount {
        ErrorCount { kind: kind.into(), count }
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
                dropped: vec![error("buffer_full", 2), error("limit", 1)],
            },
            flows_open: 3,
            flows_total: 1_000,
            bytes_sent: 1_048_576,
            bytes_received: 2_048,
            rtt_ms: Some(0.42),
            loss: Some(0.015),
            errors_per_minute: 4.0,
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
            "0.42 ms to b; 1.5 % lost",
            "11 reachable of 12 known",
            "failovers    1,234",
            "2 circuits; 1,000 packets, 1.2 MiB; 3 dropped: 2 buffer_full, 1 limit",
            "3 open, 1,000 since the start",
            "1.0 MiB sent, 2.0 KiB received",
            "5 of 1,000 flows (0.5 %): 3 failed, 2 denied; 2 link_down, 4 in the last minute",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
        let text = output::draw(&[], status_rows(&draining, &peers, Timestamp::now()));
        for part in ["draining: new flows are refused", " 2 link_down"] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
        assert!(!text.contains("transit"), "a node that carries nothing for others has no such row:\n{text}");
        assert_eq!(errors(&Status { errors: Vec::new(), errors_per_minute: 0.0, ..draining }), "none");
    }
}
