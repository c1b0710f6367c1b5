//! What goes silent: packets dropped by the kernel without a word.

use crate::net::Net;

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

    /// From now on connects to this TCP port in here hang, over loopback, too.
    pub fn silence_port(&self, port: u16) {
        self.nft(&format!(
            "add table inet ffm_silent; \
             add chain inet ffm_silent arriving {{ type filter hook input priority 0; }}; \
             add rule inet ffm_silent arriving tcp dport {port} drop"
        ));
    }

    /// Runs nft(8) commands, separated by semicolons.
    ///
    /// # Panics
    /// When nft refuses them.
    pub fn nft(&self, commands: &str) {
        let outcome = self.run("nft", &[commands]);
        assert!(outcome.is_success(), "nft {commands}: {}", outcome.stderr);
    }
}
