//! What a wire is like: its rate, its addresses, and what lies behind it.

use crate::lab::run_tool;
use crate::net::Net;

/// How long a packet may wait in front of a slow wire: what home routers and cheap links have.
const QUEUE_MS: u32 = 25;
/// What may leave a slow wire at once.
const BURST_KIB: u32 = 32;

impl Net {
    /// From now on at most this many Mbit/s leave over the wire to `other`; what waits longer than 25 ms is dropped.
    ///
    /// Put it on the relay's side of a wire: a node whose own interface is slow is told so by its system, and slows
    /// down without losing anything.
    pub fn limit_rate_to(&self, other: &Self, mbit: u32) {
        self.one_packet_at_a_time(other);
        let (rate, burst) = (format!("{mbit}mbit"), format!("{BURST_KIB}kb"));
        let (interface, wait) = (self.interface_to(other), format!("{QUEUE_MS}ms"));
        let bucket = ["tbf", "rate", &rate, "burst", &burst, "latency", &wait];
        self.tc(&[&["qdisc", "replace", "dev", &interface, "root"], &bucket[..]].concat());
    }

    /// From now on batches are cut into packets before they leave over the wire to `other`, as by a card that does
    /// not segment: what drops, counts or measures packets there sees each of them.
    pub fn one_packet_at_a_time(&self, other: &Self) {
        self.ip(&["link", "set", &self.interface_to(other), "gso_max_segs", "1"]);
    }

    /// From now on this is a router: it passes packets on.
    pub fn route_packets(&self) {
        self.inside(|| {
            for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{key}"), "1").expect("a namespace of ours can route");
            }
        });
    }

    /// Packets to `network` leave through the router `via`.
    pub fn add_route(&self, network: &str, via: &str) {
        self.ip(&["route", "replace", network, "via", via]);
    }

    /// Replaces the address of the interface to `other`.
    pub fn readdress(&self, other: &Self, old: &str, new: &str) {
        let interface = self.interface_to(other);
        // In this order: an address goes away with the first one of its network.
        self.ip(&["address", "delete", old, "dev", &interface]);
        self.ip(&["address", "add", new, "dev", &interface]);
    }

    fn tc(&self, arguments: &[&str]) {
        run_tool("tc", &[&["-netns", self.name()], arguments].concat());
    }
}
