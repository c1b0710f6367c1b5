//! A token: the one word that lets another node join.
//!
//! `ffm1.` and base64url of: id (8 bytes), secret (16), fingerprint of the authority (32), expiry in seconds since
//! 1970 (8, big endian), mesh, number of nodes, and for each node its id, number of addresses, and for each address
//! host and port (2). Texts have a length byte before them, numbers of things take one byte. Four bytes of SHA-256
//! over all of that end it, so that a truncated paste is told from a wrong token.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ffmesh_core::id::{MeshName, NodeId};
use ffmesh_core::target::{Host, Target};
use jiff::Timestamp;

use super::certificate::KeyHash;
use crate::config::Address;

/// Longest token in characters.
pub const MAX_TOKEN_LEN: usize = 8 << 10;
/// Most addresses in one token.
pub const MAX_TOKEN_ADDRESSES: usize = 16;
const PREFIX: &str = "ffm1.";
const CHECKSUM_LEN: usize = 4;

/// A token, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Which token it is, without giving it away
    pub id: TokenId,
    pub(super) secret: Secret,
    /// SHA-256 of the authority's public key
    pub authority: KeyHash,
    /// The mesh it leads to
    pub mesh: MeshName,
    /// When the issuer will refuse it
    pub expires: Timestamp,
    /// Where to join: nodes and their addresses
    pub nodes: Vec<(NodeId, Vec<Address>)>,
}

/// The public half of a token; names its file at the issuer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenId(pub [u8; 8]);

/// The secret half of a token. Never printed but in the token itself.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(pub(super) [u8; 16]);

/// Why a text is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not look like one.
    #[error("this is no token: a token begins with {PREFIX} and is printed by `ffmesh token create`")]
    Form,
    /// A later version made it.
    #[error("this token is from a newer version of ffmesh: update this node")]
    Version,
    /// It is incomplete or mistyped.
    #[error("the token is damaged or incomplete: copy all of it again, from ffm1. to its end")]
    Damaged,
}

impl JoinToken {
    /// All addresses with the node that must answer there.
    pub fn addresses(&self) -> impl Iterator<Item = (&NodeId, &Address)> {
        self.nodes.iter().flat_map(|(node, addresses)| addresses.iter().map(move |address| (node, address)))
    }
}

impl fmt::Display for JoinToken {
    /// The token itself, with its secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::new();
        out.extend(self.id.0);
        out.extend(self.secret.0);
        out.extend(self.authority.0);
        out.extend(u64::try_from(self.expires.as_second()).unwrap_or(0).to_be_bytes());
        put_text(&mut out, self.mesh.as_str());
        put_count(&mut out, self.nodes.len());
        for (node, addresses) in &self.nodes {
            put_text(&mut out, node.as_str());
            put_count(&mut out, addresses.len());
            for address in addresses {
                put_text(&mut out, &address.host.to_string());
                out.extend(address.port.to_be_bytes());
            }
        }
        let sum = checksum(&out);
        out.extend(sum);
        write!(f, "{PREFIX}{}", BASE64URL_NOPAD.encode(&out))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    /// White space is ignored: a terminal or a mail may have broken the line.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        if text.len() > 2 * MAX_TOKEN_LEN {
            return Err(TokenError::Form);
        }
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let Some(payload) = text.strip_prefix(PREFIX) else {
            let newer = text.strip_prefix("ffm").and_then(|rest| rest.split_once('.'));
            let newer = newer.is_some_and(|(v, _)| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()));
            return Err(if newer { TokenError::Version } else { TokenError::Form });
        };
        let bytes = BASE64URL_NOPAD.decode(payload.as_bytes()).map_err(|_| TokenError::Damaged)?;
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or(TokenError::Damaged)?;
        if checksum(body) != *sum {
            return Err(TokenError::Damaged);
        }
        read(body).ok_or(TokenError::Damaged)
    }
}

fn read(body: &[u8]) -> Option<JoinToken> {
    let mut rest = Reader(body);
    let id = TokenId(rest.array()?);
    let secret = Secret(rest.array()?);
    let authority = KeyHash(rest.array()?);
    let expires = Timestamp::from_second(i64::try_from(u64::from_be_bytes(rest.array()?)).ok()?).ok()?;
    let mesh = rest.text()?.parse().ok()?;
    let mut nodes = Vec::new();
    let mut total = 0;
    for _ in 0..rest.array::<1>()?[0] {
        let node = rest.text()?.parse().ok()?;
        let mut addresses = Vec::new();
        for _ in 0..rest.array::<1>()?[0] {
            let host = rest.text()?.parse().ok()?;
            let port = u16::from_be_bytes(rest.array()?);
            addresses.push(Address { host, port });
            if port == 0 {
                return None;
            }
        }
        total += addresses.len();
        nodes.push((node, addresses));
    }
    (rest.0.is_empty() && (1..=MAX_TOKEN_ADDRESSES).contains(&total)).then_some(JoinToken {
        id,
        secret,
        authority,
        mesh,
        expires,
        nodes,
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = self.array::<1>()?[0];
        let (text, rest) = self.0.split_at_checked(len.into())?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

/// Names, hosts and counts fit a byte: names have at most 63 bytes, hosts 253, and there are at most 16 addresses.
fn put_count(out: &mut Vec<u8>, count: usize) {
    out.push(u8::try_from(count).unwrap_or(u8::MAX));
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_count(out, text.len());
    out.extend(text.as_bytes());
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(PREFIX.as_bytes());
    context.update(body);
    let mut sum = [0; CHECKSUM_LEN];
    sum.copy_from_slice(&context.finish().as_ref()[..CHECKSUM_LEN]);
    sum
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenId {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| TokenError::Damaged)?;
        bytes.try_into().map(Self).map_err(|_| TokenError::Damaged)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// `host:port` as it is written in configurations.
pub(super) fn address_text(address: &Address) -> String {
    format!("{}:{}", address.host, address.port)
}

/// Reads [`address_text`].
pub(super) fn address_of(text: &str) -> Option<Address> {
    match text.parse::<Target>().ok()? {
        Target::Port { host, port } => Some(Address { host, port }),
        Target::Unix(_) => None,
    }
}

/// Where this machine can be reached when nobody said so: the addresses of its interfaces, public ones first, without
/// link-local ones; loopback where there are no others.
pub(super) fn interface_addresses(port: u16) -> Vec<Address> {
    use std::net::{IpAddr, Ipv4Addr};
    /// Enough for a machine with some bridges; each is an attempt of the joining node.
    const MAX_INTERFACE_ADDRESSES: usize = 8;
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    };
    let private = |ip: &IpAddr| match ip {
        // 100.64.0.0/10 is shared by carriers (RFC 6598).
        IpAddr::V4(v4) => v4.is_private() || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64),
        IpAddr::V6(v6) => v6.is_unique_local(),
    };
    let mut ips: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .map(|interface| interface.ip())
        .filter(usable)
        .collect();
    ips.sort_by_key(private);
    let mut unique = Vec::new();
    for ip in ips {
        if !unique.contains(&ip) && unique.len() < MAX_INTERFACE_ADDRESSES {
            unique.push(ip);
        }
    }
    if unique.is_empty() {
        unique.push(Ipv4Addr::LOCALHOST.into());
    }
    unique.into_iter().map(|ip| Address { host: Host::Ip(ip), port }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            id: TokenId([1; 8]),
            secret: Secret([2; 16]),
            authority: KeyHash([3; 32]),
            mesh: "home".parse().unwrap(),
            expires: Timestamp::from_second(1_800_000_000).unwrap(),
            nodes: vec![(
                "121a93d4e5".parse().unwrap(),
                ["vps.example.com:3334", "[2001:db8::1]:1", "192.0.2.1:65535"]
                    .map(|a| address_of(a).unwrap())
                    .to_vec(),
            )],
        }
    }

    #[test]
    fn reads_back_what_it_prints_also_when_a_terminal_broke_it() {
        let text = token().to_string();
        assert_eq!(text.parse(), Ok(token()));
        let (a, b) = text.split_at(40);
        assert_eq!(format!(" {a}\n  {b}\n").parse(), Ok(token()));
    }

    #[test]
    fn says_what_is_wrong_with_it() {
        let text = token().to_string();
        for cut in 6..text.len() - 1 {
            assert_eq!(text[..cut].parse::<JoinToken>(), Err(TokenError::Damaged), "{cut}");
        }
        for text in ["", "hello", "ffm1", "ffm.x", "https://example.com"] {
            assert_eq!(text.parse::<JoinToken>(), Err(TokenError::Form), "{text}");
        }
        assert_eq!("ffm2.abc".parse::<JoinToken>(), Err(TokenError::Version));
    }

    #[test]
    fn its_secret_is_not_in_debug_output() {
        assert!(format!("{:?}", token()).contains("(secret)"));
    }

    #[test]
    fn a_machine_has_addresses_to_offer() {
        let addresses = interface_addresses(3334);
        assert!((1..=8).contains(&addresses.len()));
        assert!(addresses.iter().all(|a| a.port == 3334));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), payload in "[A-Za-z0-9_-]{0,200}") {
            let _ = text.parse::<JoinToken>();
            let _ = format!("{PREFIX}{payload}").parse::<JoinToken>();
        }

        #[test]
        fn no_body_panics(mut body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let sum = checksum(&body);
            body.extend(sum);
            let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&body));
            if let Ok(token) = text.parse::<JoinToken>() {
                prop_assert_eq!(token.to_string().parse::<JoinToken>(), Ok(token));
            }
        }

        #[test]
        fn a_changed_character_is_noticed(at in 5_usize..100, to in "[A-Za-z0-9_-]") {
            let text = token().to_string();
            let mut changed = text.clone();
            changed.replace_range(at..=at, &to);
            prop_assert!(changed == text || changed.parse::<JoinToken>().is_err());
        }
    }
}
