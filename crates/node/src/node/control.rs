//! What the admin API sees and does of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use ffmesh_core::reason::Reason;
use ffmesh_core::target::Target;
use ffmesh_core::trace::Hop;
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::measure::{self, Glance};
use super::settings::{self, Offered};
use super::{Parts, routes, speedtest, topology};
use crate::admin::{BoxFuture, Control, HistoryQuery, OpenFlow};
use crate::config::{Proxy, ProxyTarget, span};
use crate::events::Events;
use crate::flow::{OpenContext, Opened, Speedtests, new_id, open, ping};
use crate::identity::{TokenOptions, create_token, members};
use crate::link::Link;
use crate::local::Stream;
use crate::socket::Transit;

/// The proxy name of flows of `ffmesh nc`.
const NC: &str = "nc";

pub(super) struct NodeControl {
    parts: Arc<Parts>,
    opening: OpenContext,
    /// Those that this node asks others for
    speedtests: Speedtests,
    metrics: Registry,
}

impl NodeControl {
    pub(super) fn new(parts: Arc<Parts>, opening: OpenContext) -> Self {
        let metrics = measure::registry(&parts);
        Self { parts, opening, speedtests: Speedtests::default(), metrics }
    }

    fn proxy(&self, offered: &Offered<Proxy>) -> api::Proxy {
        let proxy = &offered.item;
        let totals = self.parts.flows.proxy_totals(&proxy.name);
        let target = match &proxy.target {
            Some(ProxyTarget::Address { node, target }) => format!("{node} {target}"),
            Some(ProxyTarget::Service(service)) => format!("service {service}"),
            None => proxy.exit.as_ref().map_or_else(String::new, |exit| format!("{exit} *")),
        };
        api::Proxy {
            name: proxy.name.clone(),
            origin: offered.origin,
            protocol: proxy.protocol.to_string(),
            listen: proxy.listen.to_string(),
            target,
            error: offered.error.clone(),
            idle_timeout: proxy.idle_timeout.map(span),
            flows_open: totals.open,
            flows_total: totals.total,
            flows_failed: totals.failed,
            bytes_up: totals.up,
            bytes_down: totals.down,
        }
    }
}

impl Control for NodeControl {
    #[expect(clippy::cast_precision_loss, reason = "errors of a minute")]
    fn status(&self) -> api::Status {
        let parts = &self.parts;
        let table = parts.sessions.table();
        let (flows_open, flows_total, bytes_sent, bytes_received) = parts.flows.totals();
        let (rtt_ms, loss) = table.mean_vitals();
        let errors = parts.history.errors_per_minute(parts.counters.all_errors());
        let known: BTreeSet<_> = table.mesh.nodes().chain(table.neighbors.keys()).collect();
        let config = parts.config();
        let upstreams = &config.quic.upstreams;
        let up = upstreams.iter().filter(|upstream| table.neighbors.contains_key(&upstream.node_id)).count();
        api::Status {
            node_id: parts.credentials.node_id(),
            mesh: parts.credentials.mesh().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: parts.started,
            config: config.path.as_ref().map(|path| path.display().to_string()),
            state_dir: parts.state.path().display().to_string(),
            listen: vec![parts.udp.to_string()],
            accepts: config.quic.listen_port.is_some(),
            links_up: count(table.neighbors.len()),
            upstreams: count(upstreams.len()),
            upstreams_up: count(up),
            sessions: count(parts.sessions.count()),
            nodes_known: count(known.len()),
            nodes_reachable: count(known.iter().filter(|node| table.has_route(node)).count()),
            failovers: parts.sessions.failovers(),
            transit: transit(&parts.labels.transit()),
            draining: parts.flows.is_draining(),
            flows_open,
            flows_total,
            bytes_sent,
            bytes_received,
            rtt_ms,
            loss,
            errors_per_minute: errors as f64,
            flow_memory: parts.flows.memory(),
            certificate_expires: parts.credentials.expires(),
            issuer: parts.issuer.is_some(),
            errors: parts.counters.errors(),
        }
    }

    fn peers(&self) -> Vec<api::Peer> {
        let table = self.parts.sessions.table();
        let mut peers: BTreeMap<NodeId, api::Peer> =
            table.neighbors.iter().map(|(node, link)| (node.clone(), linked(link))).collect();
        for (node, lost) in &table.lost {
            peers.insert(
                node.clone(),
                absent(node, api::PeerState::Down, lost.since, Some(lost.reason.clone())),
            );
        }
        for dialler in &self.parts.in_force.load().diallers {
            let upstream = dialler.upstream();
            let state = dialler.state();
            let dialling = || absent(&upstream.node_id, api::PeerState::Dialling, state.since, None);
            let peer = peers.entry(upstream.node_id.clone()).or_insert_with(dialling);
            // One that is dialled at several addresses has the name of the first.
            peer.name.get_or_insert_with(|| upstream.name.clone());
            if peer.state != api::PeerState::Up {
                peer.state = api::PeerState::Dialling;
                peer.address = Some(upstream.address.to_string());
                peer.last_error = state.last_error.or_else(|| peer.last_error.take());
            }
        }
        for (node, state) in self.parts.wanted.all() {
            let peer = absent(&node, api::PeerState::Dialling, state.since, state.last_error);
            // One that was lost says why.
            let entry = peers.entry(node).or_insert(peer);
            if entry.state == api::PeerState::Down {
                entry.state = api::PeerState::Dialling;
            }
        }
        peers.into_values().collect()
    }

    fn routes(&self) -> Vec<api::Route> {
        routes::routes(&self.parts.sessions)
    }

    fn proxies(&self) -> Vec<api::Proxy> {
        self.parts.in_force.load().proxies.iter().map(|proxy| self.proxy(proxy)).collect()
    }

    fn flows(&self) -> api::Flows {
        self.parts.flows.report()
    }

    fn metrics(&self) -> String {
        let limits = self.parts.config().quic.clone();
        measure::metrics(&self.metrics, Glance { status: self.status(), peers: self.peers(), limits })
    }

    fn history(&self, query: HistoryQuery) -> api::History {
        self.parts.history.query(&query, Timestamp::now())
    }

    fn ping(&self, node: NodeId) -> BoxFuture<'_, Result<api::Ping, api::Error>> {
        Box::pin(async move {
            ping(&self.opening, &node).await.map_err(|(reason, error)| api::Error::because(reason, error))
        })
    }

    fn trace(&self, node: NodeId) -> BoxFuture<'_, Result<api::Trace, api::Error>> {
        Box::pin(async move {
            let hops = self.parts.sessions.trace(&node).await;
            let hops = hops.map_err(|e| api::Error::because(e.reason, e.detail))?;
            Ok(api::Trace { node_id: node, hops: hops.into_iter().map(traced).collect() })
        })
    }

    fn speedtest(
        &self,
        node: NodeId,
        duration: Duration,
    ) -> BoxFuture<'_, Result<api::Speedtest, api::Error>> {
        Box::pin(speedtest::speedtest(self.opening.clone(), self.speedtests.clone(), node, duration))
    }

    fn open(&self, node: NodeId, target: Target) -> BoxFuture<'_, Result<OpenFlow, api::Error>> {
        Box::pin(async move {
            let (ours, flows) =
                UnixStream::pair().map_err(|e| api::Error::new(format!("no socket for the flow: {e}")))?;
            let (connected, is_connected) = oneshot::channel();
            let id = new_id();
            let opened = Opened {
                id: id.clone(),
                proxy: NC.into(),
                node,
                target,
                client: None,
                idle_timeout: None,
                connected: Some(connected),
            };
            let opening = self.opening.clone();
            let flow = tokio::spawn(async move { open(&opening, Stream::Unix(flows), opened).await });
            if is_connected.await.is_ok() {
                return Ok(OpenFlow { id, io: Box::new(ours) });
            }
            // It ended before it was connected.
            let (reason, detail) = flow.await.unwrap_or((Reason::Reset, None));
            let error = detail.unwrap_or_else(|| reason.to_string());
            Err(api::Error::because(reason, error))
        })
    }

    fn topology(&self) -> BoxFuture<'_, api::Topology> {
        Box::pin(topology::topology(&self.parts))
    }

    fn services(&self) -> BoxFuture<'_, Vec<api::Service>> {
        Box::pin(topology::services(&self.parts))
    }

    fn events(&self) -> &Events {
        &self.parts.events
    }

    fn log(&self) -> Vec<api::LogEntry> {
        self.parts.journal.lines()
    }

    fn drain(&self) -> api::Drain {
        self.parts.drain()
    }

    fn create_token(&self, request: api::TokenRequest) -> Result<api::Token, api::Error> {
        let config = self.parts.config();
        let options = TokenOptions {
            ttl: Duration::from_secs(request.ttl_s),
            uses: request.uses,
            node: request.node,
            groups: request.groups,
            relay: request.relay,
            members: members(&config.quic),
            advertise: config.quic.advertise.clone(),
            listen_port: config.quic.listen_port,
        };
        create_token(&self.parts.state, &options).map_err(|e| api::Error::new(e.to_string()))
    }

    fn config(&self) -> api::Config {
        settings::config(&self.parts)
    }

    fn reload(&self) -> BoxFuture<'_, Result<api::Reload, api::Error>> {
        Box::pin(self.parts.settings.reload())
    }

    fn put_proxy(
        &self,
        instead: Option<String>,
        spec: api::ProxySpec,
    ) -> BoxFuture<'_, Result<api::Proxy, api::Error>> {
        Box::pin(async move {
            let put = self.parts.settings.put_proxy(instead, spec).await;
            put.map(|proxy| self.proxy(&proxy))
        })
    }

    fn remove_proxy(&self, name: String) -> BoxFuture<'_, Result<(), api::Error>> {
        Box::pin(self.parts.settings.remove_proxy(name))
    }

    fn put_service(
        &self,
        instead: Option<String>,
        spec: api::ServiceSpec,
    ) -> BoxFuture<'_, Result<api::Service, api::Error>> {
        Box::pin(async move {
            let put = self.parts.settings.put_service(instead, spec).await;
            put.map(|service| topology::own_service(&self.parts.credentials.node_id(), &service))
        })
    }

    fn remove_service(&self, name: String) -> BoxFuture<'_, Result<(), api::Error>> {
        Box::pin(self.parts.settings.remove_service(name))
    }
}

fn linked(link: &Link) -> api::Peer {
    let vitals = link.vitals();
    api::Peer {
        node_id: link.node().clone(),
        name: None,
        state: api::PeerState::Up,
        address: link.address().map(|address| address.to_string()),
        dialled: link.dialled(),
        since: link.since(),
        rtt_ms: vitals.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        loss: vitals.loss,
        groups: link.peer().groups.clone(),
        relay: link.peer().relay,
        clock_offset_ms: link.clock_offset_ms(),
        last_error: None,
    }
}

fn traced(hop: Hop) -> api::TraceHop {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    api::TraceHop {
        node_id: hop.node,
        rtt_ms: hop.rtt.map(ms),
        link_rtt_ms: hop.link.rtt.map(ms),
        link_loss: hop.link.loss.map(|permille| f64::from(permille) / 1e3),
        error: hop.error,
    }
}

fn absent(node: &NodeId, state: api::PeerState, since: Timestamp, last_error: Option<String>) -> api::Peer {
    api::Peer {
        node_id: node.clone(),
        name: None,
        state,
        address: None,
        dialled: false,
        since,
        rtt_ms: None,
        loss: None,
        groups: Vec::new(),
        relay: false,
        clock_offset_ms: None,
        last_error,
    }
}

fn transit(transit: &Transit) -> api::Transit {
    let counted = |(kind, count): (&str, u64)| api::ErrorCount { kind: kind.to_owned(), count };
    let mut dropped: Vec<_> = transit.dropped().filter(|(_, count)| *count > 0).map(counted).collect();
    dropped.sort_by_key(|dropped| std::cmp::Reverse(dropped.count));
    api::Transit {
        circuits: count(transit.circuits),
        packets: transit.packets,
        bytes: transit.bytes,
        dropped,
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
