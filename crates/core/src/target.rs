//! What a flow is to be connected to.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest host name in bytes (RFC 1035, section 2.3.4).
pub const MAX_HOST_LEN: usize = 253;
/// Longest path of a Unix socket in bytes: `sun_path` of `unix(7)` without its closing NUL.
pub const MAX_UNIX_PATH_LEN: usize = 107;

/// A host as the user wrote it: an address or a name that the dialling node resolves.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Host {
    /// An IPv4 or IPv6 address.
    Ip(IpAddr),
    /// A DNS name in lower case.
    Name(String),
}

/// What a flow is to be connected to, seen from the dialling node.
///
/// Written `host:port`, `[v6]:port` or `unix:/absolute/path`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// A TCP or UDP port; the port is never 0.
    Port {
        /// Where the port is.
        host: Host,
        /// 1 to 65,535.
        port: u16,
    },
    /// The absolute path of a Unix stream socket.
    Unix(String),
}

/// Why a target was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// There is no `:port` at the end.
    #[error("has no port: expected host:port, [v6 address]:port or unix:/path")]
    NoPort,
    /// The port is no number from 1 to 65,535.
    #[error("has the port {0:?}: expected a number from 1 to 65535")]
    Port(String),
    /// The host is neither an address nor a name.
    #[error("has the host {0:?}: expected a name, an IPv4 address or an IPv6 address in brackets")]
    Host(String),
    /// The path is relative, too long, or has a NUL.
    #[error("has the path {0:?}: expected an absolute path of at most 107 bytes")]
    Path(String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') || path.len() > MAX_UNIX_PATH_LEN || path.contains('\0') {
                return Err(TargetError::Path(path.to_owned()));
            }
            return Ok(Self::Unix(path.to_owned()));
        }
        let (host, port) = text.rsplit_once(':').ok_or(TargetError::NoPort)?;
        let host = host.parse()?;
        // `u16::from_str` takes a leading plus, which nobody means.
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        match port.parse() {
            Ok(port) if digits && port != 0 => Ok(Self::Port { host, port }),
            _ => Err(TargetError::Port(port.to_owned())),
        }
    }
}

impl FromStr for Host {
    type Err = TargetError;

    /// Takes an IPv6 address only in brackets, as it stands before a port.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        let wrong = || TargetError::Host(text.to_owned());
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or_else(wrong)?;
            return inner.parse::<Ipv6Addr>().map(|ip| Self::Ip(ip.into())).map_err(|_| wrong());
        }
        if let Ok(ip) = text.parse() {
            return if matches!(ip, IpAddr::V4(_)) { Ok(Self::Ip(ip)) } else { Err(wrong()) };
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let label = |l: &str| {
            !l.is_empty()
                && l.len() <= 63
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        // A last label of digits only is a mistyped address, not a name (RFC 3696, section 2).
        let numeric = name.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
        if name.len() > MAX_HOST_LEN || numeric || !name.split('.').all(label) {
            return Err(wrong());
        }
        Ok(Self::Name(name.to_ascii_lowercase()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = TargetError;
    fn try_from(text: String) -> Result<Self, TargetError> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> String {
        target.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_prints() {
        for text in ["127.0.0.1:80", "[::1]:22", "db.example.com:5432", "localhost:1", "unix:/run/web.sock"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert_eq!("Web.Example.COM.:80".parse::<Target>().unwrap().to_string(), "web.example.com:80");
    }

    #[test]
    fn refuses_what_cannot_be_dialled() {
        for text in [
            "",
            "80",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:+80",
            ":80",
            "::1:80",
            "[::1:80",
            "a b:80",
            "256.1.1.1:80",
            "1.2.3:80",
            "a..b:80",
            "unix:",
            "unix:relative",
            "unix:/a\0b",
            "[127.0.0.1]:80",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text:?} was accepted");
        }
    }
}
