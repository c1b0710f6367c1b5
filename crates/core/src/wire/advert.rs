//! Messages that carry the link-state database between neighbours.

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::NodeId;
use crate::lsdb::KeyHash;

/// Most records of an ADVERT that are read.
pub const MAX_ADVERT_RECORDS: usize = 4096;
/// Most entries of a DIGEST, and records of a DIGEST_REQUEST. With ids of 63 bytes they take about 50 KB.
pub const MAX_DIGEST_ENTRIES: usize = 400;
/// Sums on each level of a DIGEST.
const FAN_OUT: usize = crate::lsdb::digest::FAN_OUT;
/// Keys of a CERTIFICATE_REQUEST, and certificates of its answer.
pub const MAX_CERTIFICATE_KEYS: usize = 256;
/// Longest certificate, in bytes.
pub const MAX_CERTIFICATE_LEN: usize = 16 << 10;
/// Farthest that a FIND_NODE goes, in hops.
pub const MAX_FIND_TTL: u8 = 16;

/// Bytes, as base64 text in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map(Self).map_err(serde::de::Error::custom)
    }
}

/// A record and its age in whole seconds, rounded up: `[age, "base64"]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgedRecord(pub u32, pub Base64);

/// ADVERT: records that the receiver may not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advert {
    /// At most [`MAX_ADVERT_RECORDS`]
    pub records: Vec<AgedRecord>,
}

/// DIGEST: fingerprints of the sender's database, one level of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Digest {
    /// Of everything, 16 hex digits
    Root(Sum),
    /// Of each of the 32 groups
    Groups(SumList),
    /// Of each of the 32 buckets of some groups
    Buckets(Vec<(u8, SumList)>),
    /// All records of some buckets
    Entries(Vec<(u16, Vec<ListedRecord>)>),
    /// A level of a later version
    #[serde(untagged)]
    Unknown(serde_json::Value),
}

/// The fingerprint of some records: 16 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sum(pub u64);

impl From<Sum> for String {
    fn from(sum: Sum) -> Self {
        format!("{:016x}", sum.0)
    }
}

impl TryFrom<String> for Sum {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let sum = u64::from_str_radix(&text, 16).ok().filter(|_| hex);
        sum.map(Self).ok_or("a fingerprint is 16 hex digits")
    }
}

/// 32 fingerprints: base64 of 256 bytes, big endian.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Base64", into = "Base64")]
pub struct SumList(Vec<u64>);

impl SumList {
    /// Exactly 32 of them: what is missing is 0.
    pub fn new(mut sums: Vec<u64>) -> Self {
        sums.resize(FAN_OUT, 0);
        Self(sums)
    }

    /// The 32.
    pub fn sums(&self) -> &[u64] {
        &self.0
    }
}

impl From<SumList> for Base64 {
    fn from(list: SumList) -> Self {
        Self(list.0.iter().flat_map(|sum| sum.to_be_bytes()).collect())
    }
}

impl TryFrom<Base64> for SumList {
    type Error = &'static str;
    fn try_from(bytes: Base64) -> Result<Self, Self::Error> {
        let (sums, rest) = bytes.0.as_chunks::<8>();
        if sums.len() != FAN_OUT || !rest.is_empty() {
            return Err("a list of fingerprints has 256 bytes");
        }
        Ok(Self(sums.iter().map(|sum| u64::from_be_bytes(*sum)).collect()))
    }
}

/// A record in the list of a bucket: `["origin", kind, epoch, sequence, "fingerprint"]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedRecord(pub NodeId, pub u8, pub u64, pub u32, pub Sum);

/// DIGEST_REQUEST: asks for records by origin and kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestRequest {
    /// At most [`MAX_DIGEST_ENTRIES`]
    pub records: Vec<(NodeId, u8)>,
}

/// FIND_NODE: asks for a node that the sender does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindNode {
    /// 64 random bits, chosen by `origin`; with its id they name the query
    pub query: u64,
    /// The node that wants to know
    pub origin: NodeId,
    /// The node that is wanted
    pub target: NodeId,
    /// Hops that it may still go, counted down by each node; at most [`MAX_FIND_TTL`]
    pub ttl: u8,
}

/// FIND_NODE_ACK: what a node is known to say about itself, by its own signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindNodeAck {
    /// That of the FIND_NODE
    pub query: u64,
    /// That of the FIND_NODE
    pub origin: NodeId,
    /// That of the FIND_NODE
    pub target: NodeId,
    /// The target's NODE and LINKS
    pub records: Vec<AgedRecord>,
}

/// CERTIFICATE_REQUEST: asks for the certificates of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRequest {
    /// Each 64 hex digits; at most [`MAX_CERTIFICATE_KEYS`]
    pub keys: Vec<KeyHash>,
}

/// CERTIFICATE: its answer, with those that the sender has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// X.509 in DER; at most [`MAX_CERTIFICATE_KEYS`], each up to [`MAX_CERTIFICATE_LEN`] bytes
    pub certificates: Vec<Base64>,
}

impl Digest {
    /// Whether its counts are within their bounds.
    pub(super) fn check(&self) -> Result<(), String> {
        let (groups, entries) = match self {
            Self::Buckets(groups) => (groups.len(), 0),
            Self::Entries(buckets) => {
                // An empty bucket counts as one, too.
                (0, buckets.iter().map(|(_, entries)| entries.len().max(1)).sum())
            }
            Self::Root(_) | Self::Groups(_) | Self::Unknown(_) => (0, 0),
        };
        if groups > FAN_OUT || entries > FAN_OUT * FAN_OUT {
            return Err(format!("DIGEST with {groups} groups and {entries} entries"));
        }
        Ok(())
    }
}
