//! What goes silent: packets dropped by the kernel without a word.

use crate::net::Net;

/// What a drop spares, so that neighbour discovery still works, as on an Ethernet whose router dies behind the switch.
/// ARP is none of this hook's business.
const NOT_DISCOVERY: &str = "icmpv6 type != { nd-neighbor-solicit, nd-neighbor-advert } drop";

impl Net {
    /// From now on nothing arrives over any wire, and nobody is told. Neighbour discovery still works, as on an
    /// Ethernet whose router dies behind the switch.
    ///
    /// Only arriving packets are dropped: dropping leaving ones would tell the sender (EPERM). Deafen both ends
    /// to cut a wire in both directions.
    pub fn deafen(&self) {
        self.nft(
            "add table inet ffm_deaf; \
             add chain inet ffm_deaf arriving { type filter hook input priority 0; }; \
             add rule inet ffm_deaf arriving iifname != \"lo\" meta l4proto != ipv6-icmp drop",
        );
    }

    /// Ends [`Net::deafen`].
    pub fn hear(&self) {
        self.nft("delete table inet ffm_deaf");
    }

    /// From now on nothing arrives over the wire to `other`, ICMP included, and nobody is told. The other direction
    /// goes on.
    pub fn deafen_to(&self, other: &Self) {
        self.drop_arriving(other, "deaf", "");
    }

    /// Ends [`Net::deafen_to`].
    pub fn hear_from(&self, other: &Self) {
        self.nft(&format!("delete table inet {}", self.table("deaf", other)));
    }

    /// From now on this share of the packets that arrive over the wire to `other` is lost, at random.
    pub fn lose_from(&self, other: &Self, percent: u8) {
        self.drop_arriving(other, "loss", &format!("numgen random mod 100 < {percent}"));
    }

    /// Ends [`Net::lose_from`].
    pub fn lose_nothing_from(&self, other: &Self) {
        self.nft(&format!("delete table inet {}", self.table("loss", other)));
    }

    /// From now on connects to this TCP port in here hang, over loopback, too.
    pub fn silence_port(&self, port: u16) {
        self.nft(&format!(
            "add table inet ffm_silent; \
             add chain inet ffm_silent arriving {{ type filter hook input priority 0; }}; \
             add rule inet ffm_silent arriving tcp dport {port} drop"
        ));
    }

    /// From now on this router passes no packet of more than `bytes` (of IP) on, and tells nobody: a path MTU that
    /// can only be found out by trying.
    pub fn drop_longer_than(&self, bytes: u16) {
        self.nft(&format!(
            "add table inet ffm_mtu; \
             add chain inet ffm_mtu passing {{ type filter hook forward priority 0; }}; \
             add rule inet ffm_mtu passing meta length > {bytes} drop"
        ));
    }

    /// From now on this router hides what it sends towards `outside` behind its own address there, with source ports
    /// from `first_port` on. Called again, it forgets all mappings and makes others: a NAT that was restarted.
    pub fn masquerade(&self, outside: &Self, first_port: u16) {
        let (interface, last_port) = (self.interface_to(outside), first_port + 999);
        self.nft(&format!(
            "add table ip ffm_nat; delete table ip ffm_nat; add table ip ffm_nat; \
             add chain ip ffm_nat leaving {{ type nat hook postrouting priority 100; }}; \
             add rule ip ffm_nat leaving oifname \"{interface}\" meta l4proto udp \
             masquerade to :{first_port}-{last_port}"
        ));
        // What no mapping is for any more is not for the router either.
        let flushed = self.run("conntrack", &["-F"]);
        assert!(flushed.is_success(), "conntrack -F: {}", flushed.stderr);
    }

    /// Runs nft(8) commands, separated by semicolons.
    ///
    /// # Panics
    /// When nft refuses them.
    pub fn nft(&self, commands: &str) {
        let outcome = self.run("nft", &[commands]);
        assert!(outcome.is_success(), "nft {commands}: {}", outcome.stderr);
    }

    fn drop_arriving(&self, other: &Self, kind: &str, which: &str) {
        let (table, interface) = (self.table(kind, other), self.interface_to(other));
        self.nft(&format!(
            "add table inet {table}; \
             add chain inet {table} arriving {{ type filter hook input priority 0; }}; \
             add rule inet {table} arriving iifname \"{interface}\" meta l4proto != ipv6-icmp {which} drop; \
             add rule inet {table} arriving iifname \"{interface}\" {which} {NOT_DISCOVERY}"
        ));
    }

    /// The name of the table that is about the wire to `other`.
    fn table(&self, kind: &str, other: &Self) -> String {
        format!("ffm_{kind}_{}", self.interface_to(other).replace('-', "_"))
    }
}
