//! The table of flows: what is open, what ended and why, and the limits over all.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use ffmesh_core::reason::Reason;
use ffmesh_core::time::Time;
use prometheus_client::collector::Collector;
use tokio::sync::watch;

use super::account::{Accounts, ProxyTotals};
use super::carry::MAX_READ;
use super::entry::{Dialled, Flow, FlowStart};
use super::release::Release;
use crate::clock;
use crate::metrics::{Counters, ErrorKind};
use crate::repeats::Repeats;

/// Ended flows that are remembered.
const MAX_ENDED: usize = 1_000;
/// A flow that was not drained for this long is taken to hold a full window.
const STALLED_AFTER: Duration = Duration::from_millis(500);
/// How often stalled flows are looked for.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// How often a draining node looks whether its flows have ended.
const DRAIN_INTERVAL: Duration = Duration::from_millis(20);
/// What a flow is told that the node's drain refuses or ends.
pub(super) const DRAINED: &str = "this node is shutting down";
/// Where flows begin to be reset, in percent of `flow_memory`; from 100 on, new ones are refused.
const RESET_PERCENT: u64 = 110;

/// Limits over all flows of the node.
#[derive(Debug, Clone, Copy)]
pub struct FlowLimits {
    /// `quic.max_flows`
    pub flows: u64,
    /// `quic.flow_memory`
    pub memory: u64,
    /// `quic.stream_window`: what a stalled flow may hold
    pub window: u64,
}

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<u64, Arc<Flow>>,
    ended: VecDeque<Arc<api::Flow>>,
    next: u64,
    /// Open egress flows by the node that opened them.
    served: HashMap<NodeId, u64>,
}

/// The node's flows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Flows {
    limits: Arc<ArcSwap<FlowLimits>>,
    state: Arc<Mutex<State>>,
    accounts: Arc<Accounts>,
    /// Estimated bytes held for slow readers.
    memory: Arc<AtomicU64>,
    draining: Arc<watch::Sender<bool>>,
    repeats: Arc<Repeats>,
    counters: Arc<Counters>,
}

impl Flows {
    /// None yet. Keep [`watch`](Self::watch) running.
    pub fn new(limits: FlowLimits, counters: Arc<Counters>) -> Self {
        Self {
            limits: Arc::new(ArcSwap::from_pointee(limits)),
            state: Arc::default(),
            accounts: Arc::default(),
            memory: Arc::default(),
            draining: Arc::default(),
            repeats: Arc::default(),
            counters,
        }
    }

    /// Enters a flow. Refused flows are entered, too, so that they can be looked at: check [`admit`](Self::admit) next.
    pub fn begin(&self, start: FlowStart) -> Arc<Flow> {
        let account = self.accounts.of(start.role, &start.proxy);
        account.begin();
        let mut state = self.lock();
        let serial = state.next;
        state.next += 1;
        let flow = Arc::new(Flow::new(serial, start, account));
        state.open.insert(serial, flow.clone());
        if flow.role() == api::Role::Egress {
            *state.served.entry(flow.peer().clone()).or_default() += 1;
        }
        flow
    }

    /// Whether there is room for the flow that was just entered. No node may take more than half of it here.
    pub fn admit(&self, flow: &Flow) -> Result<(), (Reason, String)> {
        if self.is_draining() {
            return Err((Reason::Drained, DRAINED.to_owned()));
        }
        let (open, of_peer) = {
            let state = self.lock();
            (state.open.len() as u64, state.served.get(flow.peer()).copied().unwrap_or_default())
        };
        let limits = self.limits.load();
        let limit = limits.flows;
        if open > limit {
            self.counters.error(ErrorKind::Limit);
            return Err((Reason::Limit, format!("quic.max_flows is reached: {limit} flows are open")));
        }
        if flow.role() == api::Role::Egress && of_peer > limit.div_ceil(2) {
            self.counters.error(ErrorKind::Limit);
            return Err((
                Reason::Limit,
                format!("{} has half of the {limit} flows of quic.max_flows", flow.peer()),
            ));
        }
        let held = self.memory.load(Ordering::Relaxed);
        if held >= limits.memory {
            self.counters.error(ErrorKind::Limit);
            let limit = limits.memory;
            return Err((
                Reason::Limit,
                format!("slow readers hold {held} bytes, and quic.flow_memory is {limit}"),
            ));
        }
        Ok(())
    }

    /// Ends a flow: its one record is written.
    pub fn end(&self, flow: &Flow, reason: Reason, detail: Option<String>) {
        let report = flow.report(Some((reason, detail)));
        self.log(&report, reason);
        let mut state = self.lock();
        if state.open.remove(&flow.serial).is_none() {
            return;
        }
        if let (api::Role::Egress, Entry::Occupied(mut served)) =
            (report.role, state.served.entry(flow.peer().clone()))
        {
            *served.get_mut() -= 1;
            if *served.get() == 0 {
                served.remove();
            }
        }
        flow.account.end(reason, report.connected);
        if state.ended.len() >= MAX_ENDED {
            state.ended.pop_back();
        }
        state.ended.push_front(Arc::new(report));
    }

    fn log(&self, flow: &api::Flow, reason: Reason) {
        match reason {
            Reason::Done | Reason::Drained | Reason::Idle => {}
            Reason::Reset => self.counters.error(ErrorKind::FlowReset),
            Reason::Denied => self.counters.error(ErrorKind::Denied),
            _ => self.counters.error(ErrorKind::FlowFailed),
        }
        // What peers wrote is escaped by Debug.
        let api::Flow {
            id,
            role,
            proxy,
            peer,
            target,
            client,
            bytes_up,
            bytes_down,
            duration_ms,
            detail,
            ..
        } = flow;
        let detail = detail.as_deref().unwrap_or_default();
        if matches!(reason, Reason::Done | Reason::Reset | Reason::Idle) {
            tracing::debug!(
                flow = ?id, ?role, ?proxy, %peer, ?target, client, bytes_up, bytes_down, duration_ms, %reason,
                "flow ended: {detail}"
            );
        } else if !self.repeats.is_news((proxy, peer, target, reason)) {
            tracing::debug!(flow = ?id, ?role, ?proxy, %peer, ?target, client, %reason, "flow ended: {detail}");
        } else if flow.connected {
            tracing::warn!(
                flow = ?id, ?role, ?proxy, %peer, ?target, client, bytes_up, bytes_down, duration_ms, %reason,
                "flow ended: {detail}"
            );
        } else {
            tracing::warn!(flow = ?id, ?role, ?proxy, %peer, ?target, client, %reason, "flow refused: {detail}");
        }
    }

    /// Open flows and the last that ended.
    pub fn report(&self) -> api::Flows {
        // Thousands of rows take a while, and each flow that begins or ends waits for the table: they are made behind it.
        let (open, ended) = self.records();
        api::Flows {
            open: open.iter().map(|flow| flow.report(None)).collect(),
            ended: ended.iter().map(|flow| api::Flow::clone(flow)).collect(),
        }
    }

    fn records(&self) -> (Vec<Arc<Flow>>, Vec<Arc<api::Flow>>) {
        let state = self.lock();
        (state.open.values().cloned().collect(), state.ended.iter().cloned().collect())
    }

    /// Flows open now, flows since the start, bytes sent to other nodes, bytes received from them.
    pub fn totals(&self) -> (u64, u64, u64, u64) {
        let (own, others) = self.accounts.sums();
        (own.open + others.open, own.total + others.total, own.up + others.down, own.down + others.up)
    }

    /// Flows since the start that ended without having been connected.
    pub fn failed(&self) -> u64 {
        let (own, others) = self.accounts.sums();
        own.failed + others.failed
    }

    /// Flows open now by the node at their other end.
    pub fn open_by_peer(&self) -> HashMap<NodeId, u64> {
        let state = self.lock();
        let mut open = HashMap::new();
        for flow in state.open.values() {
            match open.get_mut(flow.peer()) {
                Some(count) => *count += 1,
                None => drop(open.insert(flow.peer().clone(), 1)),
            }
        }
        open
    }

    /// What a proxy has carried.
    pub fn proxy_totals(&self, proxy: &str) -> ProxyTotals {
        self.accounts.of_proxy(proxy)
    }

    /// What flows add up to, as metrics.
    pub fn collector(&self) -> Box<dyn Collector> {
        Box::new(self.accounts.clone())
    }

    /// Other limits, for flows that begin from now on.
    pub fn set_limits(&self, limits: FlowLimits) {
        self.limits.store(Arc::new(limits));
    }

    /// Ends the open flows that were dialled here and that `refuses` has something to say against, as denied. Returns how
    /// many.
    pub fn revoke(&self, refuses: impl Fn(&NodeId, &Dialled) -> Option<String>) -> usize {
        let open: Vec<_> = self.lock().open.values().cloned().collect();
        let mut revoked = 0;
        for flow in open {
            if let Some(detail) = flow.dialled.get().and_then(|dialled| refuses(flow.peer(), dialled)) {
                flow.cancel(Reason::Denied, detail);
                revoked += 1;
            }
        }
        revoked
    }

    /// Estimated bytes held for slow readers.
    pub fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    /// Refuses new flows from now on.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Whether new flows are refused.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Waits until new flows are refused: what nobody would miss ends then.
    pub async fn drain_begins(&self) {
        let mut draining = self.draining.subscribe();
        let _ = draining.wait_for(|draining| *draining).await; // the table keeps its sender
    }

    /// Waits until no flow is open.
    pub async fn ended(&self) {
        while !self.lock().open.is_empty() {
            tokio::time::sleep(DRAIN_INTERVAL).await;
        }
    }

    /// Keeps the estimate of held memory, and resets the flows stalled longest where it is too much. Gives memory back once many
    /// flows have ended. Never returns.
    pub async fn watch(&self) {
        let mut release = Release::default();
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let open = self.lock().open.len();
            if release.is_due(open, clock::now()) {
                let _ = tokio::task::spawn_blocking(ffmesh_udp::release_memory).await;
            }
            for flow in self.overdue(clock::now()) {
                self.counters.error(ErrorKind::Limit);
                let detail = "its reader was stalled longest when quic.flow_memory was used up";
                flow.cancel(Reason::Limit, detail.to_owned());
            }
        }
    }

    /// Takes stock; returns the flows to reset, which are those stalled longest.
    fn overdue(&self, now: Time) -> Vec<Arc<Flow>> {
        let mut stalled: Vec<(u64, Arc<Flow>)> = Vec::new();
        let mut unsent = 0;
        let lasts = |since: u64| since != 0 && now - Time(since) >= STALLED_AFTER;
        for flow in self.lock().open.values() {
            let since = flow.undrained.load(Ordering::Relaxed);
            if lasts(since) {
                stalled.push((since, flow.clone()));
            }
            unsent += u64::from(lasts(flow.unsent.load(Ordering::Relaxed)));
        }
        let limits = self.limits.load();
        let window = limits.window.max(1);
        self.memory.store(stalled.len() as u64 * window + unsent * MAX_READ as u64, Ordering::Relaxed);
        let allowed = usize::try_from(limits.memory / 100 * RESET_PERCENT / window).unwrap_or(usize::MAX);
        stalled.sort_by_key(|(since, _)| *since);
        stalled.truncate(stalled.len().saturating_sub(allowed));
        stalled.into_iter().map(|(_, flow)| flow).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ffmesh_core::target::Target;

    use super::*;

    fn flows(limits: FlowLimits) -> Flows {
        Flows::new(limits, Arc::default())
    }

    fn limits() -> FlowLimits {
        FlowLimits { flows: 3, memory: 1000, window: 100 }
    }

    fn start(role: api::Role) -> FlowStart {
        FlowStart {
            id: "00".into(),
            role,
            proxy: "web".into(),
            peer: "b".parse().unwrap(),
            target: "127.0.0.1:80".into(),
            client: None,
        }
    }

    #[test]
    fn totals_are_the_same_before_and_after_the_end() {
        let flows = flows(limits());
        for role in [api::Role::Ingress, api::Role::Egress] {
            let flow = flows.begin(start(role));
            flow.connected();
            flow.count_up(10);
            flow.count_down(3);
            let before = (flows.totals(), flows.proxy_totals("web"));
            flows.end(&flow, Reason::Done, None);
            let (open, total, sent, received) = flows.totals();
            assert_eq!((open, total, sent, received), (before.0.0 - 1, before.0.1, before.0.2, before.0.3));
            let proxy = flows.proxy_totals("web");
            assert_eq!((proxy.total, proxy.up, proxy.down), (before.1.total, before.1.up, before.1.down));
        }
        assert_eq!(flows.totals(), (0, 2, 13, 13));
        assert_eq!((flows.report().ended.len(), flows.failed()), (2, 0));
    }

    /// Totals do not depend on how many flows there are: `status`, `proxies` and metrics ask for them, the sampler each
    /// second.
    #[test]
    fn totals_of_ten_thousand_flows_take_no_time() {
        const FLOWS: u64 = 10_000;
        let flows = flows(FlowLimits { flows: FLOWS, ..limits() });
        let role = |i: u64| if i.is_multiple_of(2) { api::Role::Ingress } else { api::Role::Egress };
        let open: Vec<_> = (0..FLOWS).map(|i| flows.begin(start(role(i)))).collect();
        for flow in &open {
            flow.count_up(1);
        }
        let quickest = (0..3).map(|_| {
            let begun = Instant::now();
            assert_eq!(flows.totals(), (FLOWS, FLOWS, FLOWS / 2, FLOWS / 2));
            assert_eq!(flows.proxy_totals("web").open, FLOWS / 2);
            begun.elapsed()
        });
        let quickest = quickest.min().unwrap();
        assert!(quickest < Duration::from_millis(1), "{quickest:?}");
    }

    #[test]
    fn the_last_thousand_ended_flows_are_kept() {
        let flows = flows(limits());
        for i in 0..1_500 {
            let flow = flows.begin(FlowStart { id: i.to_string(), ..start(api::Role::Egress) });
            flows.end(&flow, Reason::Done, None);
        }
        let ended = flows.report().ended;
        assert_eq!((ended.len(), ended[0].id.as_str(), ended[999].id.as_str()), (1_000, "1499", "500"));
    }

    #[test]
    fn flows_over_the_limit_are_refused() {
        let flows = flows(limits());
        let open: Vec<_> = (0..3).map(|_| flows.begin(start(api::Role::Ingress))).collect();
        assert!(flows.admit(&open[2]).is_ok());
        let fourth = flows.begin(start(api::Role::Ingress));
        assert_eq!(flows.admit(&fourth).unwrap_err().0, Reason::Limit);
        flows.end(&fourth, Reason::Limit, None);
        assert!(flows.admit(&open[2]).is_ok());
        flows.drain();
        assert_eq!(flows.admit(&open[2]).unwrap_err().0, Reason::Drained);
    }

    #[test]
    fn other_limits_hold_at_once() {
        let flows = flows(limits());
        let open: Vec<_> = (0..3).map(|_| flows.begin(start(api::Role::Ingress))).collect();
        flows.set_limits(FlowLimits { flows: 2, ..limits() });
        assert_eq!(flows.admit(&open[2]).unwrap_err().0, Reason::Limit);
    }

    #[tokio::test]
    async fn a_flow_whose_access_is_taken_away_ends_and_no_other() {
        let flows = flows(limits());
        let target: Target = "127.0.0.1:80".parse().unwrap();
        let dial = |flow: &Flow, groups: &[&str]| {
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            flow.dialled(Dialled { groups, target: target.clone(), address: "127.0.0.1:80".parse().ok() });
        };
        let [dev, ops, dialling] = [(); 3].map(|()| flows.begin(start(api::Role::Egress)));
        dial(&dev, &["dev"]);
        dial(&ops, &["ops"]);
        let refuses = |_: &NodeId, dialled: &Dialled| {
            (dialled.groups == ["dev"]).then(|| "group:dev may not".to_owned())
        };
        assert_eq!(flows.revoke(refuses), 1);
        assert_eq!(dev.cancelled().await, (Reason::Denied, "group:dev may not".to_owned()));
        for other in [ops, dialling] {
            assert!(other.verdict.get().is_none());
        }
    }

    #[test]
    fn no_node_gets_more_than_half_of_the_flows_here() {
        let flows = flows(FlowLimits { flows: 10, ..limits() });
        let open: Vec<_> = (0..5).map(|_| flows.begin(start(api::Role::Egress))).collect();
        assert!(flows.admit(&open[4]).is_ok());
        let sixth = flows.begin(start(api::Role::Egress));
        assert_eq!(flows.admit(&sixth).unwrap_err().0, Reason::Limit);
        let other = flows.begin(FlowStart { peer: "c".parse().unwrap(), ..start(api::Role::Egress) });
        assert!(flows.admit(&other).is_ok());
        for flow in open.iter().chain([&sixth, &other]) {
            flows.end(flow, Reason::Done, None);
        }
        assert!(flows.lock().served.is_empty());
    }

    #[test]
    fn stalled_flows_cost_memory_and_the_oldest_is_reset_first() {
        let flows = flows(FlowLimits { flows: 100, ..limits() });
        let open: Vec<_> = (0..12).map(|_| flows.begin(start(api::Role::Egress))).collect();
        let now = Time(0) + STALLED_AFTER * 2;
        assert_eq!(flows.overdue(now).len(), 0);
        assert!(flows.admit(&open[0]).is_ok());
        for (i, flow) in open.iter().enumerate() {
            flow.undrained.store(1 + i as u64, Ordering::Relaxed); // long ago, each later than the last
        }
        let overdue = flows.overdue(now);
        assert_eq!(flows.memory(), 1200);
        assert_eq!(flows.admit(&open[0]).unwrap_err().0, Reason::Limit);
        assert_eq!(overdue.iter().map(|f| f.serial).collect::<Vec<_>>(), [0], "11 windows are 110 %");
        for flow in &open {
            flow.drained();
        }
        assert_eq!((flows.overdue(now).len(), flows.memory()), (0, 0));
    }
}
