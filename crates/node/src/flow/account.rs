//! What flows add up to, by proxy: running totals, so that nobody has to look at each flow for them.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ffmesh_api::Role;
use ffmesh_core::reason::Reason;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::metrics::{counters, gauges, histogram};

/// Proxies that are counted by name. Names come from the configuration and the admin API, and what was counted outlives
/// a proxy that is removed: far more than there are at once, and a bound for those that come and go.
pub(super) const MAX_PROXIES: usize = 2_048;
/// What the proxies beyond are counted as.
const OTHER: &str = "(other)";
/// What flows are counted as that others open: the names of their proxies are theirs to choose.
const EGRESS: &str = "(egress)";
/// Bounds of the histogram of opening times in seconds, each twice the one before: 1 ms to 16 s. Dialling a target takes 10 s at
/// most.
const OPENING: (f64, f64, u16) = (0.001, 2.0, 15);

/// What a proxy has carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProxyTotals {
    /// Flows open now
    pub open: u64,
    /// Flows since the start
    pub total: u64,
    /// Of these, ended without having been connected
    pub failed: u64,
    /// Bytes from clients to targets
    pub up: u64,
    /// Bytes from targets to clients
    pub down: u64,
}

/// The running totals of one proxy, or of all flows that others open.
#[derive(Debug)]
pub(super) struct Account {
    label: Arc<str>,
    role: Role,
    begun: AtomicU64,
    failed: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    /// Flows that ended, by reason
    results: [AtomicU64; Reason::ALL.len()],
    opening: Histogram,
}

impl Account {
    fn new(label: Arc<str>, role: Role, opening: Histogram) -> Arc<Self> {
        let zero = AtomicU64::default;
        let results = std::array::from_fn(|_| zero());
        Arc::new(Self {
            label,
            role,
            begun: zero(),
            failed: zero(),
            up: zero(),
            down: zero(),
            results,
            opening,
        })
    }

    /// A flow has begun.
    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// A flow was connected, so long after it began.
    pub(super) fn connected(&self, after: Duration) {
        // The egress of a flow knows no more than how long it dialled.
        if self.role == Role::Ingress {
            self.opening.observe(after.as_secs_f64());
        }
    }

    /// Counts bytes from the client to the target.
    pub(super) fn count_up(&self, bytes: u64) {
        self.up.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes from the target to the client.
    pub(super) fn count_down(&self, bytes: u64) {
        self.down.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A flow has ended.
    pub(super) fn end(&self, reason: Reason, connected: bool) {
        self.failed.fetch_add(u64::from(!connected), Ordering::Relaxed);
        self.results[reason.code() as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn totals(&self) -> ProxyTotals {
        // Ended ones first: one that begins and ends meanwhile is not missing in `open`.
        let ended: u64 = self.results().map(|(_, count)| count).sum();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let total = count(&self.begun);
        let open = total.saturating_sub(ended);
        ProxyTotals { open, total, failed: count(&self.failed), up: count(&self.up), down: count(&self.down) }
    }

    fn results(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL
            .into_iter()
            .zip(&self.results)
            .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }
}

/// All accounts of a node.
#[derive(Debug)]
pub(super) struct Accounts {
    proxies: Mutex<HashMap<Arc<str>, Arc<Account>>>,
    other: Arc<Account>,
    egress: Arc<Account>,
    opening: Histogram,
}

impl Default for Accounts {
    fn default() -> Self {
        let opening = Histogram::new(exponential_buckets(OPENING.0, OPENING.1, OPENING.2));
        Self {
            proxies: Mutex::default(),
            other: Account::new(OTHER.into(), Role::Ingress, opening.clone()),
            egress: Account::new(EGRESS.into(), Role::Egress, opening.clone()),
            opening,
        }
    }
}

impl Accounts {
    /// The account of a flow.
    pub(super) fn of(&self, role: Role, proxy: &Arc<str>) -> Arc<Account> {
        if role == Role::Egress {
            return self.egress.clone();
        }
        let mut proxies = self.lock();
        if let Some(account) = proxies.get(proxy) {
            return account.clone();
        }
        if proxies.len() >= MAX_PROXIES || [OTHER, EGRESS].contains(&&**proxy) {
            return self.other.clone();
        }
        let account = Account::new(proxy.clone(), role, self.opening.clone());
        proxies.insert(proxy.clone(), account.clone());
        account
    }

    /// What a proxy of this node has carried.
    pub(super) fn of_proxy(&self, proxy: &str) -> ProxyTotals {
        self.lock().get(proxy).map(|account| account.totals()).unwrap_or_default()
    }

    /// What each account has, those of proxies by name.
    fn all(&self) -> Vec<Arc<Account>> {
        let mut all: Vec<_> = self.lock().values().chain([&self.other, &self.egress]).cloned().collect();
        all.sort_by(|a, b| a.label.cmp(&b.label));
        all
    }

    /// What all flows add up to, those that this node opened and those that others did.
    pub(super) fn sums(&self) -> (ProxyTotals, ProxyTotals) {
        let add = |a: ProxyTotals, b: ProxyTotals| ProxyTotals {
            open: a.open + b.open,
            total: a.total + b.total,
            failed: a.failed + b.failed,
            up: a.up + b.up,
            down: a.down + b.down,
        };
        let ingress = self.lock().values().map(|account| account.totals()).fold(self.other.totals(), add);
        (ingress, self.egress.totals())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Account>>> {
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Accounts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let all = self.all();
        let totals: Vec<_> = all.iter().map(|account| (&*account.label, account.totals())).collect();
        let open = totals.iter().map(|(proxy, totals)| ([("proxy", *proxy)], totals.open));
        gauges(encoder, "ffmesh_flows_active", "Flows open now", open)?;
        let results = all.iter().flat_map(|account| {
            let happened = account.results().filter(|(_, count)| *count > 0);
            happened.map(|(reason, count)| ([("proxy", &*account.label), ("result", reason.as_str())], count))
        });
        counters(encoder, "ffmesh_flows", "Flows that ended, by the reason", results)?;
        let bytes = totals.iter().flat_map(|(proxy, totals)| {
            [("up", totals.up), ("down", totals.down)]
                .map(|(direction, bytes)| ([("proxy", *proxy), ("direction", direction)], bytes))
        });
        counters(encoder, "ffmesh_flow_bytes", "Payload bytes: up to targets, down to clients", bytes)?;
        let help = "Time from a client's connection to that of its target, for flows that came so far";
        histogram(encoder, "ffmesh_flow_open_seconds", help, &self.opening)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::text;

    #[test]
    fn what_others_name_is_one_account_and_own_names_are_bounded() {
        let accounts = Accounts::default();
        for i in 0..MAX_PROXIES * 2 {
            let name: Arc<str> = format!("invented-{i}").into();
            accounts.of(Role::Egress, &name).begin();
            accounts.of(Role::Ingress, &name).begin();
        }
        // Names that look like the collective ones do not make a second sample of the same name.
        for name in [OTHER, EGRESS] {
            accounts.of(Role::Ingress, &name.into()).begin();
        }
        let more = (MAX_PROXIES + 2) as u64;
        let text = text(accounts);
        let active = text.lines().filter(|line| line.starts_with("ffmesh_flows_active{")).count();
        assert_eq!(active, MAX_PROXIES + 2);
        for (label, count) in [("(egress)", 2 * MAX_PROXIES as u64), ("(other)", more), ("invented-0", 1)] {
            let line = format!("\nffmesh_flows_active{{proxy=\"{label}\"}} {count}\n");
            assert_eq!(text.matches(&line).count(), 1, "{line}");
        }
    }

    #[test]
    fn results_bytes_and_opening_times_are_counted() {
        let accounts = Accounts::default();
        let account = accounts.of(Role::Ingress, &"web".into());
        for (reason, connected) in [(Reason::Done, true), (Reason::Refused, false), (Reason::Refused, false)]
        {
            account.begin();
            if connected {
                account.connected(Duration::from_millis(3));
                account.count_up(10);
                account.count_down(20);
            }
            account.end(reason, connected);
        }
        account.begin();
        let egress = accounts.of(Role::Egress, &"web".into());
        egress.begin();
        egress.connected(Duration::from_secs(1));
        egress.count_up(7);
        let totals = ProxyTotals { open: 1, total: 4, failed: 2, up: 10, down: 20 };
        assert_eq!(accounts.of_proxy("web"), totals);
        let others = ProxyTotals { open: 1, total: 1, failed: 0, up: 7, down: 0 };
        assert_eq!(accounts.sums(), (totals, others));
        let text = text(accounts);
        for line in [
            r#"ffmesh_flows_active{proxy="web"} 1"#,
            r#"ffmesh_flows_total{proxy="web",result="done"} 1"#,
            r#"ffmesh_flows_total{proxy="web",result="refused"} 2"#,
            r#"ffmesh_flow_bytes_total{proxy="web",direction="up"} 10"#,
            r#"ffmesh_flow_bytes_total{proxy="web",direction="down"} 20"#,
            r#"ffmesh_flow_bytes_total{proxy="(egress)",direction="up"} 7"#,
            r#"ffmesh_flow_open_seconds_bucket{le="0.004"} 1"#,
            "ffmesh_flow_open_seconds_count 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn names_cannot_break_out_of_their_label() {
        let accounts = Accounts::default();
        accounts.of(Role::Ingress, &"a\"} 1\nevil{x=\"\\".into()).begin();
        let text = text(accounts);
        let line = r#"ffmesh_flows_active{proxy="a\"} 1\nevil{x=\"\\"} 1"#;
        assert!(text.lines().any(|it| it == line), "{text}");
        assert!(!text.lines().any(|line| line.starts_with("evil")), "{text}");
    }
}
