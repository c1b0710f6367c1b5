//! Addresses at which nodes find each other: those that this node tells of itself, and those of others that it dials.

use std::net::{IpAddr, SocketAddr};

use ffmesh_core::lsdb::record::MAX_ADDRESSES;
use ffmesh_core::target::{Host, Target};

use crate::config::Quic;
use crate::socket::SlotAddr;

/// From where an address can be reached, the widest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// From everywhere
    Global,
    /// From within a network (RFC 1918, RFC 6598, RFC 4193)
    Private,
}

/// Where this node can be dialled, best first, at most [`MAX_ADDRESSES`]; none where it does not listen.
///
/// This is `quic.advertise`, or else the port at the addresses of `interfaces`, as far as the socket is bound to them
/// (`udp`). What no other machine can dial is left out: a link-local address needs the name of an interface there. The
/// loopback is told only where the socket is bound to it, so that nodes of one machine find each other.
pub fn advertised(quic: &Quic, udp: SocketAddr, interfaces: &[IpAddr]) -> Vec<Target> {
    if quic.listen_port.is_none() {
        return Vec::new();
    }
    let mut targets: Vec<_> = if quic.advertise.is_empty() {
        own(udp, interfaces)
            .into_iter()
            .map(|ip| Target::Port { host: Host::Ip(ip), port: udp.port() })
            .collect()
    } else {
        let target = |at: &crate::config::Address| Target::Port { host: at.host.clone(), port: at.port };
        quic.advertise.iter().map(target).collect()
    };
    targets.truncate(MAX_ADDRESSES);
    targets
}

/// The addresses of this machine that the socket listens on, in an order that does not depend on the system's.
fn own(udp: SocketAddr, interfaces: &[IpAddr]) -> Vec<IpAddr> {
    let bound = udp.ip().to_canonical();
    if bound.is_loopback() {
        return vec![bound];
    }
    let heard = |ip: &IpAddr| match bound {
        IpAddr::V4(_) if bound.is_unspecified() => ip.is_ipv4(),
        IpAddr::V6(_) if bound.is_unspecified() => true, // both, see `ffmesh_udp::Socket::bind`
        _ => *ip == bound,
    };
    let interfaces = interfaces.iter().map(IpAddr::to_canonical).filter(heard);
    let mut own: Vec<_> = interfaces.filter_map(|ip| Some((reach(ip)?, ip))).collect();
    own.sort_unstable();
    own.dedup();
    own.into_iter().map(|(_, ip)| ip).collect()
}

/// Whether to dial an address that another node tells of itself. `udp` is what this node's socket is bound to.
///
/// It is a member's word, so it must not lead to where only this machine comes: its loopback and link-local addresses,
/// where things listen that trust whoever is there. The loopback is dialled only where this node's own socket is bound to
/// it: such a node speaks with nobody but this machine, as in the demo and in tests. This node's own address is left
/// out, too: two private networks may use the same ones.
pub(super) fn may_dial(to: SocketAddr, udp: SocketAddr, interfaces: &[IpAddr]) -> bool {
    let (ip, bound) = (to.ip().to_canonical(), udp.ip().to_canonical());
    let own = to.port() == udp.port() && (ip == bound || interfaces.contains(&ip));
    let reached = if ip.is_loopback() { bound.is_loopback() } else { reach(ip).is_some() };
    to.port() != 0 && reached && !own
}

/// None for what is no machine's address, or only within one machine or one link.
fn reach(ip: IpAddr) -> Option<Reach> {
    let (nowhere, private) = match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let nowhere = a == 0 || a >= 224 || v4.is_loopback() || v4.is_link_local();
            (nowhere, v4.is_private() || a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(v6) => {
            let nowhere =
                v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local();
            // A slot is where QUIC sees a session: nothing else may be dialled there.
            (nowhere || SlotAddr::of(SocketAddr::new(ip, 0)).is_some(), v6.is_unique_local())
        }
    };
    (!nowhere).then_some(if private { Reach::Private } else { Reach::Global })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn told(quic: &Quic, udp: &str, interfaces: &[&str]) -> Vec<String> {
        let targets = advertised(quic, udp.parse().unwrap(), &ips(interfaces));
        targets.iter().map(ToString::to_string).collect()
    }

    const INTERFACES: [&str; 10] = [
        "127.0.0.1",
        "::1",
        "fe80::1",
        "169.254.1.1",
        "192.168.1.5",
        "fd12::5",
        "2001:db8::5",
        "100.64.0.9",
        "203.0.113.5",
        "203.0.113.5",
    ];

    #[test]
    fn a_node_tells_the_addresses_that_others_can_dial_the_global_ones_first() {
        let quic = Quic { listen_port: Some(4000), ..Quic::default() };
        let all = [
            "203.0.113.5:4000",
            "[2001:db8::5]:4000",
            "100.64.0.9:4000",
            "192.168.1.5:4000",
            "[fd12::5]:4000",
        ];
        assert_eq!(told(&quic, "[::]:4000", &INTERFACES), all);
        let mut reversed = INTERFACES;
        reversed.reverse();
        assert_eq!(told(&quic, "[::]:4000", &reversed), all);
        let v4 = ["203.0.113.5:4000", "100.64.0.9:4000", "192.168.1.5:4000"];
        assert_eq!(told(&quic, "0.0.0.0:4000", &INTERFACES), v4);
        assert_eq!(told(&quic, "192.168.1.5:4000", &INTERFACES), ["192.168.1.5:4000"]);
        assert_eq!(told(&quic, "127.0.0.1:4000", &INTERFACES), ["127.0.0.1:4000"]);
        let many: Vec<_> = (0..100).map(|n| format!("203.0.113.{n}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(told(&quic, "[::]:4000", &many).len(), MAX_ADDRESSES);
    }

    #[test]
    fn what_the_configuration_advertises_is_told_instead_if_the_node_listens() {
        let address = crate::config::Address { host: Host::Name("vps.example.com".into()), port: 5000 };
        let mut quic = Quic { listen_port: Some(4000), advertise: vec![address; 20], ..Quic::default() };
        assert_eq!(told(&quic, "[::]:4000", &INTERFACES), ["vps.example.com:5000"; MAX_ADDRESSES]);
        quic.listen_port = None;
        assert_eq!(told(&quic, "[::]:4000", &INTERFACES), [""; 0]);
    }

    #[test]
    fn what_a_member_tells_leads_to_no_place_that_only_this_machine_reaches() {
        let may = |to: &str, udp: &str| {
            may_dial(to.parse().unwrap(), udp.parse().unwrap(), &ips(&["192.168.1.5", "203.0.113.5"]))
        };
        for to in [
            "127.0.0.1:4000",
            "127.9.9.9:4000",
            "[::1]:4000",
            "[::ffff:127.0.0.1]:4000",
            "[::ffff:169.254.169.254]:4000",
            "0.0.0.0:4000",
            "0.1.2.3:4000",
            "[::]:4000",
            "224.0.0.1:4000",
            "[ff02::1]:4000",
            "255.255.255.255:4000",
            "169.254.169.254:4000",
            "[fe80::2]:4000",
            "192.168.1.5:4000",
            "203.0.113.5:4000",
            "198.51.100.1:0",
            "[fdff:4d45:5348::1]:1", // a slot
        ] {
            assert!(!may(to, "[::]:4000"), "{to}");
        }
        for to in
            ["198.51.100.1:4000", "192.168.1.5:4001", "10.0.0.1:4000", "[2001:db8::1]:4000", "[fd12::1]:4000"]
        {
            assert!(may(to, "[::]:4000"), "{to}");
        }
        assert!(may("127.0.0.1:4000", "127.0.0.1:4001") && may("[::ffff:127.0.0.1]:4000", "[::1]:4001"));
        assert!(
            !may("127.0.0.1:4000", "127.0.0.1:4000") && !may("[::ffff:127.0.0.1]:4000", "127.0.0.1:4000")
        );
    }
}
