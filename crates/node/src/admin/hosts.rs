//! By which names the API may be addressed over TCP. A page whose name an attacker points at this machine (DNS
//! rebinding) comes with that name in `Host`.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Uri, header};

/// The names that are allowed beside addresses, and the port.
#[derive(Debug)]
pub(super) struct Hosts {
    names: Vec<String>,
    port: u16,
}

/// Why a request is not answered by what it says of its host.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HostError {
    /// None, several, or no host at all
    Malformed,
    /// Another one
    Foreign(String),
}

impl Hosts {
    /// Addresses, `localhost`, this machine's name and `names`, with this port or none.
    pub(super) fn new(names: &[String], port: u16) -> Self {
        let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let all = names.iter().cloned().chain(["localhost".to_owned(), own]);
        let names = all.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        Self { names: names.filter(|name| !name.is_empty()).collect(), port }
    }

    /// Whether the request is meant for this node, by `Host` and, where the request has one, by the host of its target.
    pub(super) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), HostError> {
        let mut given = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (given.next(), given.next()) else { return Err(HostError::Malformed) };
        let host: Authority = host.as_bytes().try_into().map_err(|_| HostError::Malformed)?;
        for host in [Some(&host), uri.authority()].into_iter().flatten() {
            if host.as_str().contains('@') {
                return Err(HostError::Malformed);
            }
            if !self.allows(host) {
                return Err(HostError::Foreign(host.as_str().to_owned()));
            }
        }
        Ok(())
    }

    fn allows(&self, host: &Authority) -> bool {
        let name = host.host().trim_end_matches('.').to_ascii_lowercase();
        let v6 = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let address = v6.map_or(name.parse::<IpAddr>().is_ok(), |v6| v6.parse::<Ipv6Addr>().is_ok());
        let port = match host.as_str().strip_prefix(host.host()) {
            Some("" | ":") => true,
            _ => host.port_u16() == Some(self.port),
        };
        port && (address || self.names.contains(&name))
    }
}

/// Whether `Origin`, where there is one, is that of the page that this host serves.
pub(super) fn is_own_origin(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    headers.get_all(header::ORIGIN).iter().map(HeaderValue::as_bytes).all(|origin| {
        let bare = origin.strip_prefix(b"http://").or(origin.strip_prefix(b"https://"));
        bare.zip(host).is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (name.parse::<axum::http::HeaderName>().unwrap(), value.parse().unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn only_known_hosts_are_answered() {
        let hosts = Hosts::new(&["Console.Example.com".to_owned()], 9464);
        let check = |host: &str| hosts.check(&"/".parse().unwrap(), &headers(&[("host", host)]));
        for known in [
            "localhost",
            "localhost:9464",
            "LOCALHOST.:9464",
            "127.0.0.1:9464",
            "192.0.2.7",
            "[::1]:9464",
            "console.example.com",
            "console.example.com:9464",
        ] {
            assert_eq!(check(known), Ok(()), "{known}");
        }
        for foreign in
            ["evil.example", "localhost:80", "localhost.evil.example:9464", "127.0.0.1.evil.example", "[::g]"]
        {
            assert!(check(foreign).is_err(), "{foreign}");
        }
        for wrong in ["", "a b", "user@localhost:9464", "localhost:9464/x"] {
            assert_eq!(check(wrong), Err(HostError::Malformed), "{wrong}");
        }
    }

    #[test]
    fn the_target_of_a_request_names_no_other_host() {
        let hosts = Hosts::new(&[], 9464);
        let absolute = |uri: &str| hosts.check(&uri.parse().unwrap(), &headers(&[("host", "localhost")]));
        assert_eq!(absolute("http://localhost:9464/"), Ok(()));
        assert_eq!(absolute("http://evil.example/"), Err(HostError::Foreign("evil.example".to_owned())));
        assert_eq!(hosts.check(&"/".parse().unwrap(), &HeaderMap::new()), Err(HostError::Malformed));
        let mut two = headers(&[("host", "localhost")]);
        two.append(header::HOST, "localhost".parse().unwrap());
        assert_eq!(hosts.check(&"/".parse().unwrap(), &two), Err(HostError::Malformed));
    }

    #[test]
    fn only_the_own_origin_is_answered() {
        let own = |origin| is_own_origin(&headers(&[("host", "localhost:9464"), ("origin", origin)]));
        assert!(own("http://localhost:9464") && own("https://LOCALHOST:9464"));
        for foreign in ["null", "", "http://localhost", "http://evil.example", "file://localhost:9464"] {
            assert!(!own(foreign), "{foreign}");
        }
        assert!(is_own_origin(&headers(&[("host", "localhost")])));
    }
}
