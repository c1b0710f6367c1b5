//! An entry of the table of flows: one flow as it is now.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use ffmesh_api as api;
use ffmesh_core::id::NodeId;
use ffmesh_core::reason::Reason;
use ffmesh_core::target::Target;
use ffmesh_core::time::Time;
use jiff::Timestamp;
use tokio::sync::Notify;

use super::account::Account;
use crate::clock;

/// What is known of a flow when it begins.
#[derive(Debug, Clone)]
pub struct FlowStart {
    /// 16 hex digits, the same on both nodes
    pub id: String,
    /// This node's part
    pub role: api::Role,
    /// The proxy it came through, as the ingress names it
    pub proxy: Arc<str>,
    /// The node at the other end
    pub peer: NodeId,
    /// What is dialled
    pub target: String,
    /// The client's address, at the ingress
    pub client: Option<String>,
}

/// A flow: its record, which outlives its connection.
#[derive(Debug)]
pub struct Flow {
    pub(super) serial: u64,
    start: FlowStart,
    pub(super) account: Arc<Account>,
    started: Timestamp,
    since: Instant,
    up: AtomicU64,
    down: AtomicU64,
    connected: AtomicBool,
    /// Microseconds of [`clock::now`] since when there has always been more to read than was taken; 0 where all is
    /// taken.
    pub(super) undrained: AtomicU64,
    /// The same for bytes of the local socket that the other node gives no credit for.
    pub(super) unsent: AtomicU64,
    active: AtomicU64,
    /// What was dialled, at the egress
    pub(super) dialled: OnceLock<Dialled>,
    cancelled: Notify,
    /// Why it is cancelled
    pub(super) verdict: OnceLock<(Reason, String)>,
}

/// What a flow's target is connected to, and for whom: what the policy has decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialled {
    /// The groups of the caller
    pub groups: Vec<String>,
    /// What it asked for
    pub target: Target,
    /// The address that was dialled; none for a Unix socket
    pub address: Option<SocketAddr>,
}

impl Flow {
    pub(super) fn new(serial: u64, start: FlowStart, account: Arc<Account>) -> Self {
        Self {
            serial,
            start,
            account,
            started: Timestamp::now(),
            since: Instant::now(),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            connected: AtomicBool::new(false),
            undrained: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
            active: AtomicU64::new(clock::now().0),
            dialled: OnceLock::new(),
            cancelled: Notify::new(),
            verdict: OnceLock::new(),
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.start.id
    }

    /// This node's part.
    pub fn role(&self) -> api::Role {
        self.start.role
    }

    /// The proxy it came through.
    pub fn proxy(&self) -> &str {
        &self.start.proxy
    }

    /// The node at the other end.
    pub fn peer(&self) -> &NodeId {
        &self.start.peer
    }

    /// The target is connected.
    pub fn connected(&self) {
        if !self.connected.swap(true, Ordering::Relaxed) {
            self.account.connected(self.since.elapsed());
        }
    }

    /// What was dialled for it, at the egress.
    pub fn dialled(&self, dialled: Dialled) {
        let _ = self.dialled.set(dialled); // a flow is dialled once
    }

    /// Counts bytes from the client to the target.
    pub fn count_up(&self, bytes: usize) {
        self.up.fetch_add(bytes as u64, Ordering::Relaxed);
        self.account.count_up(bytes as u64);
        self.touch();
    }

    /// Counts bytes from the target to the client.
    pub fn count_down(&self, bytes: usize) {
        self.down.fetch_add(bytes as u64, Ordering::Relaxed);
        self.account.count_down(bytes as u64);
        self.touch();
    }

    /// All that has come from the other node was taken.
    pub fn drained(&self) {
        self.undrained.store(0, Ordering::Relaxed);
    }

    /// Something came from the other node, and there may be more.
    pub fn undrained(&self) {
        let now = clock::now().0.max(1);
        // Only the first moment counts.
        let _ = self.undrained.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Something that was read here waits for the other node's credit (`true`), or has got it.
    pub fn unsent(&self, unsent: bool) {
        self.unsent.store(if unsent { clock::now().0.max(1) } else { 0 }, Ordering::Relaxed);
    }

    /// When the last byte went by, in either direction.
    pub fn last_active(&self) -> Time {
        Time(self.active.load(Ordering::Relaxed))
    }

    /// Waits until this node demands the flow's end; returns why.
    pub async fn cancelled(&self) -> (Reason, String) {
        loop {
            self.cancelled.notified().await;
            if let Some(verdict) = self.verdict.get() {
                return verdict.clone();
            }
        }
    }

    /// Demands the flow's end. The first reason counts.
    pub(super) fn cancel(&self, reason: Reason, detail: String) {
        let _ = self.verdict.set((reason, detail));
        self.cancelled.notify_one();
    }

    fn touch(&self) {
        self.active.store(clock::now().0, Ordering::Relaxed);
    }

    pub(super) fn report(&self, ended: Option<(Reason, Option<String>)>) -> api::Flow {
        let (reason, detail) = ended.map_or((None, None), |(reason, detail)| (Some(reason), detail));
        api::Flow {
            id: self.start.id.clone(),
            role: self.start.role,
            proxy: self.start.proxy.to_string(),
            peer: self.start.peer.clone(),
            target: self.start.target.clone(),
            client: self.start.client.clone(),
            started: self.started,
            duration_ms: u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            bytes_up: self.up.load(Ordering::Relaxed),
            bytes_down: self.down.load(Ordering::Relaxed),
            connected: self.connected.load(Ordering::Relaxed),
            reason,
            detail,
        }
    }
}
