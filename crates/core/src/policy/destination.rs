//! What a rule of `access` opens or closes: addresses, names and Unix sockets.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::address;
use crate::target::{Host, MAX_UNIX_PATH_LEN};

/// What a rule speaks of, written `CIDR:ports`, `[v6 CIDR]:ports`, `name:ports`, `*:ports` or
/// `unix:/absolute/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Ports of hosts
    Port {
        /// Which hosts.
        hosts: Hosts,
        /// Which of their ports.
        ports: Ports,
    },
    /// A Unix stream socket, by exactly this path.
    Unix(String),
}

/// The hosts that a [`Destination`] speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosts {
    /// Every address that is not special.
    Any,
    /// The addresses of a network; a single address is a network of one.
    Net(IpNet),
    /// Whoever asks for exactly this name, in lower case.
    Name(String),
}

/// A set of ports, written `*`, `80`, `80-90` or several of them with commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports(Vec<RangeInclusive<u16>>);

/// Why a destination was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// There are no ports at the end.
    #[error(
        "has no ports: expected CIDR:ports, [v6 CIDR]:ports, name:ports, *:ports or unix:/path; * is every port"
    )]
    NoPorts,
    /// The ports can't be read.
    #[error("has the ports {0:?}: expected *, 80, 80-90 or 80,443 with numbers from 1 to 65535")]
    Ports(String),
    /// The host is neither a network nor an address nor a name.
    #[error(
        "has the host {0:?}: expected a CIDR such as 10.0.0.0/8, an address, [fd00::/8] with brackets for IPv6, a name or *"
    )]
    Host(String),
    /// The network has bits set beyond its prefix, so it is not clear what is meant.
    #[error("has the network {given}, whose address has bits beyond its prefix: did you mean {meant}?")]
    HostBits {
        /// As given
        given: IpNet,
        /// With these bits cleared
        meant: IpNet,
    },
    /// The network is a range of IPv6 forms of IPv4 addresses.
    #[error(
        "has the network {0}, a form of IPv4 addresses: write the IPv4 network, it covers this form as well"
    )]
    CarriesIpv4(Ipv6Net),
    /// The path is relative, too long, or has a NUL.
    #[error("has the path {0:?}: expected an absolute path of at most 107 bytes")]
    Path(String),
}

impl Ports {
    /// Every port.
    pub fn all() -> Self {
        Self(vec![1..=u16::MAX])
    }

    /// Whether `port` is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

impl FromStr for Ports {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        if text == "*" {
            return Ok(Self::all());
        }
        let number = |digits: &str| {
            let numeric = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            digits.parse::<u16>().ok().filter(|port| numeric && *port != 0)
        };
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first.trim())?, number(last.trim())?);
            (first <= last).then_some(first..=last)
        };
        let ranges = text.split(',').map(range).collect::<Option<_>>();
        ranges.map(Self).ok_or_else(|| DestinationError::Ports(text.to_owned()))
    }
}

impl FromStr for Hosts {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let wrong = || DestinationError::Host(text.to_owned());
        if text == "*" {
            return Ok(Self::Any);
        }
        let net = if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or_else(wrong)?;
            let net = match inner.parse::<Ipv6Addr>() {
                Ok(ip) => Ipv6Net::from(ip),
                Err(_) => inner.parse().map_err(|_| wrong())?,
            };
            if address::carries_ipv4(&net) {
                return Err(DestinationError::CarriesIpv4(net));
            }
            IpNet::V6(net)
        } else if text.contains('/') {
            IpNet::V4(text.parse::<Ipv4Net>().map_err(|_| wrong())?)
        } else {
            match text.parse::<Host>().map_err(|_| wrong())? {
                Host::Ip(ip) => ip.into(),
                Host::Name(name) => return Ok(Self::Name(name)),
            }
        };
        if net.trunc() != net {
            return Err(DestinationError::HostBits { given: net, meant: net.trunc() });
        }
        Ok(Self::Net(net))
    }
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') || path.len() > MAX_UNIX_PATH_LEN || path.contains('\0') {
                return Err(DestinationError::Path(path.to_owned()));
            }
            return Ok(Self::Unix(path.to_owned()));
        }
        // `fd00::1` without brackets must not be read as the host `fd00:` with port 1.
        if text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok() || text.ends_with(']') {
            return Err(DestinationError::NoPorts);
        }
        let (hosts, ports) = text.rsplit_once(':').ok_or(DestinationError::NoPorts)?;
        Ok(Self::Port { hosts: hosts.parse()?, ports: ports.parse()? })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::all() {
            return f.write_str("*");
        }
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { hosts: Hosts::Any, ports } => write!(f, "*:{ports}"),
            Self::Port { hosts: Hosts::Net(IpNet::V4(net)), ports } => write!(f, "{net}:{ports}"),
            Self::Port { hosts: Hosts::Net(IpNet::V6(net)), ports } => write!(f, "[{net}]:{ports}"),
            Self::Port { hosts: Hosts::Name(name), ports } => write!(f, "{name}:{ports}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_prints() {
        for (text, printed) in [
            ("127.0.0.0/8:*", "127.0.0.0/8:*"),
            ("10.0.0.1:80", "10.0.0.1/32:80"),
            ("10.0.0.0/8:80-90", "10.0.0.0/8:80-90"),
            ("[fd00::/64]:80,443", "[fd00::/64]:80,443"),
            ("[::1]:22", "[::1/128]:22"),
            ("DB.example.com:5432", "db.example.com:5432"),
            ("*:443", "*:443"),
            ("0.0.0.0/0:80-80", "0.0.0.0/0:80"),
            ("unix:/run/web.sock", "unix:/run/web.sock"),
        ] {
            let destination: Destination = text.parse().unwrap();
            assert_eq!(destination.to_string(), printed);
            assert_eq!(printed.parse::<Destination>().unwrap(), destination);
        }
    }

    #[test]
    fn refuses_what_names_nothing() {
        for text in [
            "",
            "*",
            "80",
            "10.0.0.0/8",
            "::1",
            "fd00::/8",
            "[fd00::/8]",
            "fd00::/8:80",
            "10.0.0.0/33:80",
            "10.0.0.1/8:80",
            "[fd00::1/8]:80",
            "[::ffff:10.0.0.0/104]:80",
            "[64:ff9b::/96]:80",
            "[2002::/16]:80",
            "[fe80::1%eth0]:80",
            "a b:80",
            "*.example.com:80",
            "10.0.0.1:",
            "10.0.0.1:0",
            "10.0.0.1:90-80",
            "10.0.0.1:80,",
            "10.0.0.1:+80",
            "10.0.0.1:65536",
            "unix:",
            "unix:run/web.sock",
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text:?} was accepted");
        }
    }
}
