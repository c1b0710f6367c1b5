//! What an address stands for: the forms that carry an IPv4 address inside an IPv6 one undone, and the ranges
//! that only an exact rule opens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// An address as the policy sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plain {
    /// The address, an IPv4 one where the original only carries one.
    pub(super) ip: IpAddr,
    /// The original is rewritten by a translator in the network (NAT64, 6to4, a tunnel), so that `ip` is
    /// reached from there and not from this node.
    pub(super) translated: bool,
}

/// Undoes IPv4-mapped (RFC 4291, section 2.5.5.2), IPv4-compatible (2.5.5.1), NAT64 with the well-known prefix
/// (RFC 6052) and 6to4 (RFC 3056).
pub(super) fn plain(ip: IpAddr) -> Plain {
    let IpAddr::V6(v6) = ip else { return Plain { ip, translated: false } };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return Plain { ip: v4.into(), translated: false };
    }
    match translated(v6) {
        Some(v4) => Plain { ip: v4.into(), translated: true },
        None => Plain { ip, translated: false },
    }
}

/// The IPv4 address that a translator takes out of `ip`.
fn translated(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    match ip.segments() {
        // `::` and `::1` lie in the IPv4-compatible range but mean what they always mean.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    }
}

/// A range that no rule for a wider range covers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Special {
    pub(super) net: IpNet,
    pub(super) what: &'static str,
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8, what: &'static str) -> Special {
    Special { net: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)), what }
}

const fn v6(ip: Ipv6Addr, prefix: u8, what: &'static str) -> Special {
    Special { net: IpNet::V6(Ipv6Net::new_assert(ip, prefix)), what }
}

const METADATA: &str = "a cloud's metadata service";

/// No range lies inside another.
const SPECIAL: [Special; 14] = [
    v4(0, 0, 0, 0, 8, "an unspecified address"),
    v4(169, 254, 0, 0, 16, "a link-local address, where clouds keep their metadata service"),
    v4(100, 100, 100, 200, 32, METADATA),
    v4(168, 63, 129, 16, 32, METADATA),
    v4(192, 0, 0, 192, 32, METADATA),
    v4(224, 0, 0, 0, 4, "a multicast address"),
    v4(240, 0, 0, 0, 4, "a reserved or broadcast address"),
    v6(Ipv6Addr::UNSPECIFIED, 128, "the unspecified address"),
    v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, "a link-local address"),
    v6(Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, "a site-local address"),
    v6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, "a multicast address"),
    v6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128, METADATA),
    v6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128, METADATA),
    // Where in the address the IPv4 one stands is the operator's choice (RFC 8215, section 5), so it can't be
    // looked at.
    v6(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, "an address of a local NAT64 translator"),
];

/// The special range that `ip` lies in.
pub(super) fn special(ip: IpAddr) -> Option<&'static Special> {
    SPECIAL.iter().find(|special| special.net.contains(&ip))
}

/// Whether some address of `net` carries an IPv4 address: the policy undoes such forms before it looks at
/// rules, so a rule for them would never match.
pub(super) fn carries_ipv4(net: &Ipv6Net) -> bool {
    let first = net.network();
    let width = net.prefix_len();
    (width >= 96 && (first.to_ipv4_mapped().is_some() || translated(first).is_some()))
        || (width >= 16 && first.segments()[0] == 0x2002)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undoes_the_forms_that_carry_ipv4() {
        for (form, ip, translated) in [
            ("::ffff:169.254.169.254", "169.254.169.254", false),
            ("::169.254.169.254", "169.254.169.254", true),
            ("64:ff9b::a9fe:a9fe", "169.254.169.254", true),
            ("2002:a9fe:a9fe::1", "169.254.169.254", true),
            ("::1", "::1", false),
            ("::", "::", false),
            ("2001:db8::1", "2001:db8::1", false),
            ("10.0.0.1", "10.0.0.1", false),
        ] {
            let plain = plain(form.parse().unwrap());
            assert_eq!(plain, Plain { ip: ip.parse().unwrap(), translated }, "{form}");
        }
    }

    #[test]
    fn knows_the_special_ranges() {
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "100.100.100.200",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "64:ff9b:1::a9fe:a9fe",
        ] {
            assert!(special(ip.parse().unwrap()).is_some(), "{ip}");
        }
        for ip in
            ["127.0.0.1", "::1", "10.0.0.1", "100.100.100.201", "8.8.8.8", "fd00:ec2::253", "2001:db8::1"]
        {
            assert!(special(ip.parse().unwrap()).is_none(), "{ip}");
        }
    }
}
