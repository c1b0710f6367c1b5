//! The node's figures: its metrics, and what its history is made of.

use std::fmt;
use std::sync::Arc;

use ffmesh_api as api;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Parts;
use crate::config::Quic;
use crate::history;
use crate::metrics::{counter, gauge, gauges};
use crate::process::{Process, resident_memory};

/// The metrics that the parts of a node register. What [`Glance`] has comes beside them.
pub(super) fn registry(parts: &Parts) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(parts.flows.collector());
    registry.register_collector(parts.sessions.driver().collector());
    registry.register_collector(Box::new(parts.labels.clone()));
    registry.register_collector(Box::new(parts.counters.clone()));
    registry.register_collector(Box::new(Process));
    registry
}

/// All metrics, in OpenMetrics text.
pub(super) fn metrics(registry: &Registry, glance: Glance) -> String {
    let mut shown = Registry::default();
    shown.register_collector(Box::new(glance));
    let mut text = String::new();
    // A string takes all that is written.
    let _ = text::encode_registry(&mut text, &shown).and_then(|()| text::encode(&mut text, registry));
    text
}

/// What `status` and `peers` say, as metrics: the same figures everywhere.
#[derive(Debug)]
pub(super) struct Glance {
    pub(super) status: api::Status,
    pub(super) peers: Vec<api::Peer>,
    pub(super) limits: Quic,
}

impl Collector for Glance {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let Self { status, peers, limits } = self;
        let help = "The version of the program";
        let build = [("version", status.version.as_str())];
        encoder.encode_descriptor("ffmesh_build", help, None, MetricType::Info)?.encode_info(&build)?;

        let state = |state, word| {
            let count = peers.iter().filter(|peer| peer.state == state).count();
            ([("state", word)], count as u64)
        };
        let states = [
            state(api::PeerState::Up, "up"),
            state(api::PeerState::Dialling, "dialling"),
            state(api::PeerState::Down, "down"),
        ];
        gauges(encoder, "ffmesh_peers", "Neighbours by the state of their link", states)?;
        let up = || peers.iter().filter(|peer| peer.state == api::PeerState::Up);
        let peer = |peer: &api::Peer| [("peer", peer.node_id.to_string())];
        let rtts = up().filter_map(|it| Some((peer(it), it.rtt_ms? / 1e3)));
        gauges(encoder, "ffmesh_link_rtt_seconds", "Smoothed round trip time of a link", rtts)?;
        let losses = up().filter_map(|it| Some((peer(it), it.loss?)));
        gauges(encoder, "ffmesh_link_loss_ratio", "Lost share of a link's last probes, 0 to 1", losses)?;
        let down = status.upstreams.saturating_sub(status.upstreams_up);
        let upstreams = [("up", status.upstreams_up), ("down", down)];
        let upstreams = upstreams.map(|(state, count)| ([("state", state)], u64::from(count)));
        gauges(encoder, "ffmesh_upstreams", "Upstreams of the configuration", upstreams)?;

        let routes = u64::from(status.nodes_reachable);
        gauge(encoder, "ffmesh_routes", "Other nodes that a route leads to", routes)?;
        gauge(encoder, "ffmesh_nodes_known", "Other nodes that are known", u64::from(status.nodes_known))?;
        gauge(encoder, "ffmesh_sessions", "Sessions that are open", u64::from(status.sessions))?;
        let help = "Times that a session left a route that had died";
        counter(encoder, "ffmesh_failovers", help, status.failovers)?;
        gauge(
            encoder,
            "ffmesh_flow_memory_bytes",
            "Estimated bytes held for slow readers",
            status.flow_memory,
        )?;
        gauge(encoder, "ffmesh_draining", "1 while new flows are refused", u64::from(status.draining))?;
        let help = "End of the node's certificate, in Unix time";
        let expiry = status.certificate_expires.as_second();
        gauge(encoder, "ffmesh_certificate_expiry_seconds", help, expiry)?;

        let (flows, links) = (u64::from(limits.max_flows), u64::from(limits.max_links));
        gauge(encoder, "ffmesh_limit_flows", "Most flows that may be open: quic.max_flows", flows)?;
        gauge(encoder, "ffmesh_limit_links", "Most links that may be up: quic.max_links", links)?;
        let help = "Most bytes that may be held for slow readers: quic.flow_memory";
        gauge(encoder, "ffmesh_limit_flow_memory_bytes", help, limits.flow_memory)
    }
}

/// Keeps the history, and tells each second's figures. Never returns.
pub(super) async fn sample(parts: Arc<Parts>) {
    let tell = |sample| parts.events.publish(api::Change::Sample(sample));
    history::sample(parts.history.clone(), || parts.figures(), tell).await;
}

impl Parts {
    /// The figures of this moment.
    pub(super) fn figures(&self) -> history::Figures {
        let table = self.sessions.table();
        let (flows_open, flows_started, sent, received) = self.flows.totals();
        let (rtt_ms, loss) = table.mean_vitals();
        let mut links: Vec<_> = table.neighbors.values().collect();
        links.sort_by_key(|link| link.since());
        let rtt = |link: &crate::link::Link| link.vitals().rtt.map(|rtt| rtt.as_secs_f64() * 1e3);
        history::Figures {
            sent,
            received,
            transit: self.labels.transit().bytes,
            flows_open,
            flows_started,
            flows_failed: self.flows.failed(),
            errors: self.counters.all_errors(),
            failovers: self.sessions.failovers(),
            rtt_ms,
            loss,
            memory: resident_memory().unwrap_or_default(),
            up: links.into_iter().map(|link| (link.node().clone(), rtt(link))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::{Duration, Instant};

    use ffmesh_core::reason::Reason;
    use serde_json::json;

    use super::*;
    use crate::driver;
    use crate::flow::{FlowLimits, FlowStart, Flows};
    use crate::metrics::{Counters, ErrorKind};
    use crate::socket::Labels;

    const DOCUMENT: &str = include_str!("../../../../docs/metrics.md");

    fn glance(peers: usize) -> Glance {
        let status = json!({
            "node_id": "here", "mesh": "home", "version": "0.1.0", "started": "2026-01-01T00:00:00Z",
            "config": null, "state_dir": "/", "listen": [], "accepts": false, "links_up": 1, "upstreams": 3,
            "upstreams_up": 1, "sessions": 2, "nodes_known": 9, "nodes_reachable": 8, "failovers": 7,
            "flows_open": 0, "flows_total": 0, "bytes_sent": 0, "bytes_received": 0, "flow_memory": 5,
            "certificate_expires": "2026-06-01T00:00:00Z", "issuer": false, "errors": []
        });
        let peer = |i| {
            json!({
                "node_id": format!("n{i}"), "name": null, "state": if i == 0 { "down" } else { "up" }, "address": null,
                "dialled": false, "since": "2026-01-01T00:00:00Z", "rtt_ms": 2.5, "loss": 0.25, "groups": [],
                "relay": false, "last_error": null
            })
        };
        Glance {
            status: serde_json::from_value(status).unwrap(),
            peers: serde_json::from_value((0..peers).map(peer).collect()).unwrap(),
            limits: Quic::default(),
        }
    }

    /// The metrics of a node with so many flows.
    fn whole(flows: &Flows) -> Registry {
        let mut registry = Registry::default();
        let labels = Labels::default();
        labels.link_up(1, &"b".parse().unwrap());
        let counters = Counters::default();
        counters.error(ErrorKind::Denied);
        registry.register_collector(flows.collector());
        registry.register_collector(Box::new(driver::Metrics::default()));
        registry.register_collector(Box::new(labels));
        registry.register_collector(Box::new(counters));
        registry.register_collector(Box::new(Process));
        registry
    }

    fn flows(count: u64) -> (Flows, Vec<Arc<crate::flow::Flow>>) {
        let limits = FlowLimits { flows: count, memory: 1 << 30, window: 1 << 20 };
        let flows = Flows::new(limits, Arc::default());
        let begin = |i: u64| {
            let role = if i.is_multiple_of(2) { api::Role::Ingress } else { api::Role::Egress };
            flows.begin(FlowStart {
                id: format!("{i:016x}"),
                role,
                proxy: format!("proxy-{}", i % 100).into(),
                peer: format!("n{}", i % 300).parse().unwrap(),
                target: "127.0.0.1:80".into(),
                client: None,
            })
        };
        let open = (0..count).map(begin).collect();
        (flows, open)
    }

    #[test]
    fn a_node_with_many_flows_and_peers_is_scraped_quickly() {
        let (flows, _open) = flows(10_000);
        let registry = whole(&flows);
        let quickest = (0..3).map(|_| {
            let begun = Instant::now();
            let text = metrics(&registry, glance(300));
            assert!(text.contains("ffmesh_link_rtt_seconds{peer=\"n299\"} 0.0025\n"), "{text}");
            begun.elapsed()
        });
        let quickest = quickest.min().unwrap();
        assert!(quickest < Duration::from_millis(100), "{quickest:?}");
    }

    #[test]
    fn figures_of_status_and_peers_are_in_the_metrics() {
        let text = crate::metrics::tests::text(glance(3));
        for line in [
            r#"ffmesh_build_info{version="0.1.0"} 1"#,
            r#"ffmesh_peers{state="up"} 2"#,
            r#"ffmesh_peers{state="down"} 1"#,
            r#"ffmesh_peers{state="dialling"} 0"#,
            r#"ffmesh_link_rtt_seconds{peer="n1"} 0.0025"#,
            r#"ffmesh_link_loss_ratio{peer="n1"} 0.25"#,
            r#"ffmesh_upstreams{state="down"} 2"#,
            "ffmesh_routes 8",
            "ffmesh_failovers_total 7",
            "ffmesh_limit_flows 50000",
            "ffmesh_certificate_expiry_seconds 1780272000",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains(r#"rtt_seconds{peer="n0"}"#), "its link is down");
    }

    /// Names with their labels: of what a node says, and of what the document says.
    #[test]
    fn the_document_has_exactly_the_metrics_that_there_are() {
        let (flows, open) = flows(2);
        for flow in &open {
            flow.connected();
            flows.end(flow, Reason::Done, None);
        }
        let text = metrics(&whole(&flows), glance(2));
        let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut kind = "";
        for line in text.lines() {
            if let Some(described) = line.strip_prefix("# TYPE ") {
                kind = described.rsplit_once(' ').unwrap().1;
            } else if !line.starts_with('#') {
                let (name, rest) = line.split_once(['{', ' ']).unwrap();
                let name = if kind == "histogram" { name.rsplit_once('_').unwrap().0 } else { name };
                let labels = rest.split_once('}').map_or("", |(labels, _)| labels);
                let keys = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
                shown.entry(name.to_owned()).or_default().extend(keys.filter(|key| key != "le"));
            }
        }
        let mut documented = BTreeMap::new();
        for row in DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `")) {
            let (name, rest) = row.split_once('`').unwrap();
            let labels = rest.split('|').nth(2).unwrap();
            let labels = labels.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
            documented.insert(name.to_owned(), labels);
        }
        assert_eq!(shown, documented);
    }
}
