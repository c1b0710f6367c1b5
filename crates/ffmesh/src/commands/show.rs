//! `ffmesh peers`, `proxies`, `flows`: what the node knows now.

use std::time::Duration;

use comfy_table::Cell;
use ffmesh_api::{Flow, Flows, Peer, PeerState, Proxy, Role};
use ffmesh_core::reason::Reason;
use jiff::Timestamp;

use crate::args::{self, Show};
use crate::client::Client;
use crate::failure::Outcome;
use crate::format::{age, bytes, count, duration, milliseconds, share};
use crate::output::Column::{Number, Text};
use crate::output::{self, Tone, cell, state};
use crate::place;

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
    use crate::commands::fixture::peer;

    #[test]
    fn a_peers_strings_do_nothing_to_the_terminal() {
        let now = Timestamp::UNIX_EPOCH + Duration::from_secs(90);
        let text = output::draw(&[], vec![peer_row(&peer("b", PeerState::Down, None), now)]);
        assert!(!text.contains('\x1b'), "{text:?}");
        assert!(text.contains("evil\\u{1b}[2J, timed out, group:dev"), "{text}");
    }
}
