//! Records: what a node says about itself, signed, and the bytes that the signature is over.
//!
//! A record is its signature (1 byte of length, then so many bytes) followed by its body:
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | version of this layout: 1 |
//! | 1 | kind: 0 NODE, 1 LINKS; `0x80` added: withdrawn, and nothing follows the head |
//! | 1 + n | origin |
//! | 8, 4 | epoch and sequence |
//! | 32 | SHA-256 of the origin's key |
//! | … | NODE: boot epoch (8), flags (1), cost of transit (4), addresses (1, each 1 + n), services (2, each name 1 + n, protocol 1, attachment 1 + n) |
//! | … | LINKS: neighbours (2), each id (1 + n) and load band and cost (4: two bits and thirty) |
//!
//! Numbers are big endian. Neighbours stand in the order of their ids and services in that of name and
//! protocol, each once, so one content has one encoding. Bytes behind the last field are for later versions and are ignored.

use crate::id::NodeId;
use crate::target::Target;

use super::bytes::{Reader, put_text};
use super::trust::{KeyHash, Signer};

/// Most neighbours of a LINKS record: links are QUIC connections, and a node has at most 1,000.
pub const MAX_NEIGHBORS: usize = 1024;
/// Most services of a NODE record.
pub const MAX_SERVICES: usize = 256;
/// Most addresses of a NODE record: each is dialled.
pub const MAX_ADDRESSES: usize = 16;
/// Longest name of a service, in bytes.
pub const MAX_SERVICE_NAME_LEN: usize = 63;
/// Longest attachment of a service, in bytes.
pub const MAX_ATTACHMENT_LEN: usize = 255;
/// Longest signature: ECDSA P-256 in DER takes up to 72 bytes, Ed25519 64.
pub const MAX_SIGNATURE_LEN: usize = 80;
/// Longest record: above what all counts at their bounds make (about 83 KB), with room for later fields.
pub const MAX_RECORD_LEN: usize = 96 << 10;
/// Highest cost, in µs: 2^30 - 1, about 18 minutes. A link that is to be used last has it.
pub const MAX_COST: u32 = (1 << 30) - 1;

const LAYOUT: u8 = 1;
const WITHDRAWN: u8 = 0x80;
const RELAY: u8 = 1;
const ISSUER: u8 = 2;
const TRANSIT: u8 = 4;

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end within a field.
    #[error("record ends within a field")]
    Short,
    /// It is longer than [`MAX_RECORD_LEN`].
    #[error("record is longer than {MAX_RECORD_LEN} bytes")]
    Long,
    /// A layout of a later version.
    #[error("record has a layout of a later version")]
    Layout,
    /// A kind of a later version.
    #[error("record has a kind of a later version")]
    Kind,
    /// A text is not what its field takes.
    #[error("record has a malformed text")]
    Text,
    /// A count is over its bound.
    #[error("record has more entries than are allowed")]
    Count,
    /// Entries are out of order, or one stands twice.
    #[error("record has entries out of order")]
    Order,
}

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The node itself
    Node = 0,
    /// Its neighbours
    Links = 1,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Node, Self::Links];

    /// The kind of a number on the wire.
    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Which of two records of one origin and kind is the newer one: the higher epoch, then the higher sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// Grows with each start of the origin
    pub epoch: u64,
    /// Grows with each record within an epoch
    pub sequence: u32,
}

impl Version {
    /// The version that follows.
    #[must_use]
    pub fn next(self) -> Self {
        match self.sequence.checked_add(1) {
            Some(sequence) => Self { epoch: self.epoch, sequence },
            None => Self { epoch: self.epoch.saturating_add(1), sequence: 1 },
        }
    }
}

/// What stands at the front of each record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// What it is about
    pub kind: Kind,
    /// Whether the origin has taken it back
    pub withdrawn: bool,
    /// The node that speaks
    pub origin: NodeId,
    /// How new it is
    pub version: Version,
    /// The key that signed it
    pub key: KeyHash,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// NODE
    Node(NodeInfo),
    /// LINKS, in the order of the neighbours' ids, each once
    Links(Vec<Listed>),
    /// Nothing any more
    Withdrawn(Kind),
}

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeInfo {
    /// Its boot epoch. That of the record's [`Version`] can be higher, see [`own`](super::own).
    pub boot: u64,
    /// Its certificate has the capability `relay`
    pub relay: bool,
    /// Its certificate has the capability `issuer`
    pub issuer: bool,
    /// It is willing to forward for others
    pub transit: bool,
    /// Cost of a route through it, in µs, beside that of its links; at most [`MAX_COST`]
    pub cost: u32,
    /// Where it can be dialled, best first; at most [`MAX_ADDRESSES`]
    pub addresses: Vec<Target>,
    /// What it offers, in the order of name and protocol; at most [`MAX_SERVICES`]
    pub services: Vec<Service>,
}

/// A service, as others see it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// Its name, up to [`MAX_SERVICE_NAME_LEN`] bytes
    pub name: String,
    /// Number of its protocol; the core gives it no meaning
    pub protocol: u8,
    /// What the provider attaches for its users, up to [`MAX_ATTACHMENT_LEN`] bytes; the core gives it no meaning
    pub attachment: String,
}

/// A neighbour, as a LINKS record lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The neighbour
    pub neighbor: NodeId,
    /// Cost of the link from the origin to it, in µs; at most [`MAX_COST`]
    pub cost: u32,
    /// How loaded the link is, 0 (idle) to 3 (full)
    pub band: u8,
}

/// A signed record: signature and body, apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The origin's signature over `body`
    pub signature: &'a [u8],
    /// What is signed
    pub body: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Takes a record apart. Looks no further than its lengths.
    pub fn of(record: &'a [u8]) -> Result<Self, RecordError> {
        if record.len() > MAX_RECORD_LEN {
            return Err(RecordError::Long);
        }
        let mut reader = Reader(record);
        let len = usize::from(reader.u8()?);
        if len > MAX_SIGNATURE_LEN {
            return Err(RecordError::Count);
        }
        Ok(Self { signature: reader.take(len)?, body: reader.0 })
    }

    /// The front of the body.
    pub fn head(&self) -> Result<Head, RecordError> {
        read_head(&mut Reader(self.body))
    }

    /// All of the body.
    pub fn decode(&self) -> Result<(Head, Content), RecordError> {
        let mut reader = Reader(self.body);
        let head = read_head(&mut reader)?;
        let content = match head.kind {
            kind if head.withdrawn => Content::Withdrawn(kind),
            Kind::Node => Content::Node(read_node(&mut reader)?),
            Kind::Links => Content::Links(read_links(&mut reader)?),
        };
        Ok((head, content))
    }

    /// What follows the head: two records with one payload say the same.
    pub fn payload(&self) -> &'a [u8] {
        let mut reader = Reader(self.body);
        let _ = read_head(&mut reader); // what has no head has no payload
        reader.0
    }
}

/// A record of `signer`'s node. What is over a bound is left out, from the end.
pub fn sign(origin: &NodeId, version: Version, content: &Content, signer: &dyn Signer) -> Vec<u8> {
    let body = body(origin, version, content, signer.key());
    let signature = signer.sign(&body);
    let mut record = Vec::with_capacity(1 + signature.len() + body.len());
    record.push(u8::try_from(signature.len()).unwrap_or(u8::MAX)); // over the bound either way
    record.extend(signature);
    record.extend(body);
    record
}

fn body(origin: &NodeId, version: Version, content: &Content, key: KeyHash) -> Vec<u8> {
    let mut out = vec![LAYOUT];
    out.push(match content {
        Content::Node(_) => Kind::Node as u8,
        Content::Links(_) => Kind::Links as u8,
        Content::Withdrawn(kind) => *kind as u8 | WITHDRAWN,
    });
    put_text(&mut out, origin.as_str());
    out.extend(version.epoch.to_be_bytes());
    out.extend(version.sequence.to_be_bytes());
    out.extend(key.0);
    match content {
        Content::Node(node) => put_node(&mut out, node),
        Content::Links(links) => put_links(&mut out, links),
        Content::Withdrawn(_) => {}
    }
    out
}

fn put_node(out: &mut Vec<u8>, node: &NodeInfo) {
    out.extend(node.boot.to_be_bytes());
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    out.push(flag(node.relay, RELAY) | flag(node.issuer, ISSUER) | flag(node.transit, TRANSIT));
    out.extend(node.cost.min(MAX_COST).to_be_bytes());
    let addresses = node.addresses.iter().map(ToString::to_string).filter(|text| text.len() <= 255);
    let addresses: Vec<_> = addresses.take(MAX_ADDRESSES).collect();
    out.push(u8::try_from(addresses.len()).unwrap_or_default()); // bounded above
    for text in &addresses {
        put_text(out, text);
    }
    let mut services: Vec<_> =
        node.services.iter().filter(|s| (1..=MAX_SERVICE_NAME_LEN).contains(&s.name.len())).collect();
    services.sort_by(|a, b| service_order(a).cmp(&service_order(b)));
    services.dedup_by(|a, b| service_order(a) == service_order(b));
    services.truncate(MAX_SERVICES);
    out.extend(u16::try_from(services.len()).unwrap_or_default().to_be_bytes());
    for service in services {
        put_text(out, &service.name);
        out.push(service.protocol);
        put_text(out, &service.attachment);
    }
}

fn put_links(out: &mut Vec<u8>, links: &[Listed]) {
    let mut links: Vec<_> = links.iter().collect();
    links.sort_by(|a, b| a.neighbor.cmp(&b.neighbor));
    links.dedup_by(|a, b| a.neighbor == b.neighbor);
    links.truncate(MAX_NEIGHBORS);
    out.extend(u16::try_from(links.len()).unwrap_or_default().to_be_bytes());
    for link in links {
        put_text(out, link.neighbor.as_str());
        out.extend((link.cost.min(MAX_COST) | u32::from(link.band.min(3)) << 30).to_be_bytes());
    }
}

fn read_head(reader: &mut Reader<'_>) -> Result<Head, RecordError> {
    if reader.u8()? != LAYOUT {
        return Err(RecordError::Layout);
    }
    let kind = reader.u8()?;
    Ok(Head {
        kind: Kind::of(kind & !WITHDRAWN).ok_or(RecordError::Kind)?,
        withdrawn: kind & WITHDRAWN != 0,
        origin: read_id(reader)?,
        version: Version { epoch: reader.u64()?, sequence: reader.u32()? },
        key: KeyHash(reader.array()?),
    })
}

fn read_node(reader: &mut Reader<'_>) -> Result<NodeInfo, RecordError> {
    let boot = reader.u64()?;
    let flags = reader.u8()?;
    let cost = reader.u32()?.min(MAX_COST);
    let count = usize::from(reader.u8()?);
    if count > MAX_ADDRESSES {
        return Err(RecordError::Count);
    }
    let mut addresses = Vec::with_capacity(count);
    for _ in 0..count {
        match reader.text()?.parse() {
            Ok(target @ Target::Port { .. }) => addresses.push(target),
            _ => return Err(RecordError::Text),
        }
    }
    let count = usize::from(reader.u16()?);
    if count > MAX_SERVICES {
        return Err(RecordError::Count);
    }
    let mut services: Vec<Service> = Vec::new();
    for _ in 0..count {
        let name = reader.text()?.to_owned();
        if !(1..=MAX_SERVICE_NAME_LEN).contains(&name.len()) {
            return Err(RecordError::Text);
        }
        let service = Service { name, protocol: reader.u8()?, attachment: reader.text()?.to_owned() };
        if services.last().is_some_and(|last| service_order(last) >= service_order(&service)) {
            return Err(RecordError::Order);
        }
        services.push(service);
    }
    Ok(NodeInfo {
        boot,
        relay: flags & RELAY != 0,
        issuer: flags & ISSUER != 0,
        transit: flags & TRANSIT != 0,
        cost,
        addresses,
        services,
    })
}

fn read_links(reader: &mut Reader<'_>) -> Result<Vec<Listed>, RecordError> {
    let count = usize::from(reader.u16()?);
    if count > MAX_NEIGHBORS {
        return Err(RecordError::Count);
    }
    let mut links: Vec<Listed> = Vec::new();
    for _ in 0..count {
        let neighbor = read_id(reader)?;
        let bits = reader.u32()?;
        if links.last().is_some_and(|last| last.neighbor >= neighbor) {
            return Err(RecordError::Order);
        }
        links.push(Listed { neighbor, cost: bits & MAX_COST, band: (bits >> 30) as u8 });
    }
    Ok(links)
}

fn read_id(reader: &mut Reader<'_>) -> Result<NodeId, RecordError> {
    let text = reader.text()?;
    let id: NodeId = text.parse().map_err(|_| RecordError::Text)?;
    if id.as_str() == text { Ok(id) } else { Err(RecordError::Text) } // upper case would be a second encoding
}

fn service_order(service: &Service) -> (&str, u8) {
    (&service.name, service.protocol)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lsdb::fake::FakeSigner;

    fn round_trip(content: &Content) -> (Head, Content) {
        let origin = "a1".parse().unwrap();
        let version = Version { epoch: 7, sequence: 9 };
        let record = sign(&origin, version, content, &FakeSigner::of(&origin));
        assert!(record.len() <= MAX_RECORD_LEN, "{}", record.len());
        let parts = Parts::of(&record).unwrap();
        let (head, content) = parts.decode().unwrap();
        assert_eq!((&head.origin, head.version, head.key), (&origin, version, FakeSigner::of(&origin).key()));
        assert_eq!(parts.head().unwrap(), head);
        (head, content)
    }

    fn name() -> impl Strategy<Value = String> {
        "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
    }

    #[test]
    fn the_largest_records_fit_their_bound() {
        let id = |n: usize| format!("{n:0>63}").parse().unwrap();
        let links = (0..MAX_NEIGHBORS).map(|n| Listed { neighbor: id(n), cost: MAX_COST, band: 3 }).collect();
        assert_eq!(round_trip(&Content::Links(links)).0.kind, Kind::Links);
        let node = NodeInfo {
            addresses: vec![
                format!("{0}.{0}.{0}.{1}:65535", "a".repeat(63), "b".repeat(57)).parse().unwrap();
                16
            ],
            services: (0..MAX_SERVICES)
                .map(|n| Service { name: format!("{n:0>63}"), protocol: 1, attachment: "x".repeat(255) })
                .collect(),
            ..NodeInfo::default()
        };
        assert_eq!(round_trip(&Content::Node(node.clone())).1, Content::Node(node));
    }

    #[test]
    fn what_is_over_a_bound_is_left_out() {
        let services = (0..1_000)
            .map(|n| Service { name: format!("s{n}"), protocol: 0, attachment: "é".repeat(200) })
            .collect();
        let Content::Node(node) = round_trip(&Content::Node(NodeInfo { services, ..NodeInfo::default() })).1
        else {
            panic!("another kind");
        };
        assert_eq!(node.services.len(), MAX_SERVICES);
        assert_eq!(node.services[0].attachment.len(), 254);
    }

    #[test]
    fn a_second_encoding_of_the_same_is_refused() {
        let origin: NodeId = "a".parse().unwrap();
        let listed = |id: &str| Listed { neighbor: id.parse().unwrap(), cost: 1, band: 0 };
        let content = Content::Links(vec![listed("b"), listed("c")]);
        let record = sign(&origin, Version::default(), &content, &FakeSigner::of(&origin));
        let change = |from: u8, to: u8| {
            let mut changed = record.clone();
            let at = changed.iter().rposition(|byte| *byte == from).unwrap();
            changed[at] = to;
            Parts::of(&changed).unwrap().decode().unwrap_err()
        };
        assert_eq!(change(b'c', b'b'), RecordError::Order);
        assert_eq!(change(b'c', b'a'), RecordError::Order);
        assert_eq!(change(b'c', b'C'), RecordError::Text);
    }

    proptest! {
        #[test]
        fn links_come_back_as_they_were(
            links in prop::collection::btree_map(name(), (0..=MAX_COST, 0u8..4), 0..40),
        ) {
            let links: Vec<_> = links.into_iter()
                .map(|(id, (cost, band))| Listed { neighbor: id.parse().unwrap(), cost, band }).collect();
            prop_assert_eq!(round_trip(&Content::Links(links.clone())).1, Content::Links(links));
        }

        #[test]
        fn nodes_come_back_as_they_were(
            boot in any::<u64>(), flags in any::<[bool; 3]>(), cost in 0..=MAX_COST,
            services in prop::collection::btree_map((name(), any::<u8>()), ".{0,60}", 0..20),
        ) {
            let node = NodeInfo {
                boot, relay: flags[0], issuer: flags[1], transit: flags[2], cost,
                addresses: vec!["[::1]:3334".parse().unwrap(), "vps.example.com:3334".parse().unwrap()],
                services: services.into_iter()
                    .map(|((name, protocol), attachment)| Service { name, protocol, attachment }).collect(),
            };
            prop_assert_eq!(round_trip(&Content::Node(node.clone())).1, Content::Node(node));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(parts) = Parts::of(&bytes) {
                let _ = (parts.decode(), parts.payload());
            }
        }

        #[test]
        fn no_change_of_one_byte_panics(at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let origin: NodeId = "a".parse().unwrap();
            let links = (0..9).map(|n| Listed { neighbor: format!("n{n}").parse().unwrap(), cost: n, band: 0 });
            let content = Content::Links(links.collect());
            let mut record = sign(&origin, Version::default(), &content, &FakeSigner::of(&origin));
            let at = at.index(record.len());
            record[at] = to;
            if let Ok(parts) = Parts::of(&record) {
                let _ = (parts.decode(), parts.payload());
            }
        }
    }
}
