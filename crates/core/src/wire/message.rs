//! The messages themselves.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::advert::{
    Advert, Certificate, CertificateRequest, Digest, DigestRequest, FindNode, FindNodeAck,
    MAX_ADVERT_RECORDS, MAX_CERTIFICATE_KEYS, MAX_CERTIFICATE_LEN, MAX_DIGEST_ENTRIES, MAX_FIND_TTL,
};
use super::trace::{Trace, TraceAck};
use crate::id::{MeshName, NodeId};
use crate::label::Label;
use crate::reason::Reason;
use crate::target::Target;

/// Version of the protocol, in SYN_MSG and SYN_DATA. A node refuses another one.
pub const VERSION: u32 = 1;
/// Most nodes of a circuit's or trace's route, both ends included.
pub const MAX_ROUTE_LEN: usize = 16;
/// Capabilities of a SYN_MSG that are read.
pub const MAX_CAPABILITIES: usize = 16;
/// Longest free text of a message (a refusal's detail, a proxy's name) in bytes; longer text is cut.
const MAX_TEXT_LEN: usize = 256;

/// A message and the node it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The node that the message is for.
    pub to: NodeId,
    /// The message.
    pub message: Message,
}

/// What nodes say to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// 0: first message of the node that dialled a link
    SynMsg(SynMsg),
    /// 1: its answer
    SynAckMsg(SynAckMsg),
    /// 2: first frame of a flow's stream
    SynData(SynData),
    /// 3: its answer
    SynAckData(SynAckData),
    /// 4: is the neighbour alive?
    Ping(Ping),
    /// 5: it is
    Pong(Pong),
    /// 6: who knows a node?
    FindNode(FindNode),
    /// 7: what it says about itself
    FindNodeAck(FindNodeAck),
    /// 16: records of the link-state database
    Advert(Advert),
    /// 17: fingerprints of the sender's database
    Digest(Digest),
    /// 18: records that the sender wants
    DigestRequest(DigestRequest),
    /// 19: install labels along a route
    CircuitOpen(CircuitOpen),
    /// 20: its answer
    CircuitAck(CircuitAck),
    /// 21: forget them
    CircuitClose(CircuitClose),
    /// 22: certificates that the sender wants
    CertificateRequest(CertificateRequest),
    /// 23: its answer
    Certificate(Certificate),
    /// 24: a node of a route is to answer
    Trace(Trace),
    /// 25: its answer
    TraceAck(TraceAck),
    /// A type that this version does not know, to be ignored.
    Unknown(u32),
}

/// What a node may do for others, beside its own traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Forwards for others
    Relay,
    /// Enrols others
    Issuer,
    /// One of a later version
    #[serde(other)]
    Unknown,
}

/// SYN_MSG: opens the control channel of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynMsg {
    /// [`VERSION`]
    pub version: u32,
    /// The sender, as in its certificate
    pub node_id: NodeId,
    /// Its mesh
    pub mesh: MeshName,
    /// Its boot epoch: grows with each start of the node
    pub epoch: u64,
    /// What it offers; at most [`MAX_CAPABILITIES`] are read
    #[serde(default)]
    pub capabilities: Vec<Capability>,
    /// Its clock as it sends this, in milliseconds since 1970; none from nodes of before 0.4
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ms: Option<u64>,
}

/// SYN_ACK_MSG: accepts a link or refuses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynAckMsg {
    /// Whether the link is accepted
    pub result: bool,
    /// A sentence that says why not
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who answers
    #[serde(flatten)]
    pub syn: SynMsg,
}

/// What a flow carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowProtocol {
    /// A TCP connection or Unix stream, dialled by the node that the message is for
    Tcp,
    /// Bytes come back as they are: `ffmesh ping`
    Echo,
    /// One enrolment request and its answer, for an issuer
    Enrol,
    /// One renewal request and its answer, for an issuer
    Renew,
    /// Bytes one way, then the other, as fast as it goes: `ffmesh speedtest`
    Speedtest,
    /// One of a later version
    #[serde(other)]
    Unknown,
}

/// SYN_DATA: head of a flow's stream; the client's first bytes may follow in the same packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynData {
    /// [`VERSION`]
    pub version: u32,
    /// What the flow carries
    pub protocol: FlowProtocol,
    /// What to dial; none where the protocol needs none
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// 16 hex digits that name the flow on both nodes
    pub flow_id: String,
    /// The ingress's name for where the flow came from
    #[serde(default)]
    pub proxy: String,
}

/// SYN_ACK_DATA: the target is connected, or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynAckData {
    /// Whether the target is connected
    pub result: bool,
    /// Why not; none where it is a reason of a later version
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known")]
    pub reason: Option<Reason>,
}

/// PING, in a datagram of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Counts up from 0
    pub seq: u64,
}

/// PONG, its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// That of the PING
    pub seq: u64,
}

/// CIRCUIT_OPEN: asks the next node of a route to install labels. Goes hop by hop over the links' control streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircuitOpen {
    /// Chosen by the first node; with its id it names the circuit
    pub circuit: u64,
    /// The whole route, first and last node included; 2 to [`MAX_ROUTE_LEN`] nodes, each once
    pub route: Vec<NodeId>,
    /// The session that the circuit is for, chosen by the first node
    pub session: u64,
    /// The label that the sender of this message accepts from its receiver
    pub label: Label,
}

/// CIRCUIT_ACK: the labels are installed from here to the end of the route, or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircuitAck {
    /// First node of the route
    pub origin: NodeId,
    /// That of the CIRCUIT_OPEN
    pub circuit: u64,
    /// The label that the sender of this message accepts from its receiver; none means refused
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Label>,
    /// Why it was refused
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// CIRCUIT_CLOSE: forgets a circuit's labels. Goes on, away from where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircuitClose {
    /// First node of the route
    pub origin: NodeId,
    /// That of the CIRCUIT_OPEN
    pub circuit: u64,
    /// Why, where it was not its first node that closed it
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Message {
    /// The number in the `type` field.
    pub fn number(&self) -> u32 {
        match self {
            Self::SynMsg(_) => 0,
            Self::SynAckMsg(_) => 1,
            Self::SynData(_) => 2,
            Self::SynAckData(_) => 3,
            Self::Ping(_) => 4,
            Self::Pong(_) => 5,
            Self::FindNode(_) => 6,
            Self::FindNodeAck(_) => 7,
            Self::Advert(_) => 16,
            Self::Digest(_) => 17,
            Self::DigestRequest(_) => 18,
            Self::CircuitOpen(_) => 19,
            Self::CircuitAck(_) => 20,
            Self::CircuitClose(_) => 21,
            Self::CertificateRequest(_) => 22,
            Self::Certificate(_) => 23,
            Self::Trace(_) => 24,
            Self::TraceAck(_) => 25,
            Self::Unknown(number) => *number,
        }
    }

    pub(super) fn data(&self) -> Value {
        let value = match self {
            Self::SynMsg(m) => serde_json::to_value(m),
            Self::SynAckMsg(m) => serde_json::to_value(m),
            Self::SynData(m) => serde_json::to_value(m),
            Self::SynAckData(m) => serde_json::to_value(m),
            Self::Ping(m) => serde_json::to_value(m),
            Self::Pong(m) => serde_json::to_value(m),
            Self::FindNode(m) => serde_json::to_value(m),
            Self::FindNodeAck(m) => serde_json::to_value(m),
            Self::Advert(m) => serde_json::to_value(m),
            Self::Digest(m) => serde_json::to_value(m),
            Self::DigestRequest(m) => serde_json::to_value(m),
            Self::CircuitOpen(m) => serde_json::to_value(m),
            Self::CircuitAck(m) => serde_json::to_value(m),
            Self::CircuitClose(m) => serde_json::to_value(m),
            Self::CertificateRequest(m) => serde_json::to_value(m),
            Self::Certificate(m) => serde_json::to_value(m),
            Self::Trace(m) => serde_json::to_value(m),
            Self::TraceAck(m) => serde_json::to_value(m),
            Self::Unknown(_) => Ok(json!({})),
        };
        value.unwrap_or_default() // none of these types can fail to become JSON
    }

    pub(super) fn from_parts(number: u32, data: Value) -> Result<Self, String> {
        let wrong = |e: serde_json::Error| format!("message of type {number}: {e}");
        Ok(match number {
            0 => {
                let mut m: SynMsg = serde_json::from_value(data).map_err(wrong)?;
                m.capabilities.truncate(MAX_CAPABILITIES);
                Self::SynMsg(m)
            }
            1 => {
                let mut m: SynAckMsg = serde_json::from_value(data).map_err(wrong)?;
                m.reason = m.reason.map(cut);
                m.syn.capabilities.truncate(MAX_CAPABILITIES);
                Self::SynAckMsg(m)
            }
            2 => {
                let mut m: SynData = serde_json::from_value(data).map_err(wrong)?;
                m.proxy = cut(m.proxy);
                m.flow_id = cut(m.flow_id);
                Self::SynData(m)
            }
            3 => Self::SynAckData(serde_json::from_value(data).map_err(wrong)?),
            4 => Self::Ping(serde_json::from_value(data).map_err(wrong)?),
            5 => Self::Pong(serde_json::from_value(data).map_err(wrong)?),
            19 => {
                let m: CircuitOpen = serde_json::from_value(data).map_err(wrong)?;
                if !(2..=MAX_ROUTE_LEN).contains(&m.route.len()) {
                    return Err(format!("CIRCUIT_OPEN with a route of {} nodes", m.route.len()));
                }
                Self::CircuitOpen(m)
            }
            20 => {
                let mut m: CircuitAck = serde_json::from_value(data).map_err(wrong)?;
                m.reason = m.reason.map(cut);
                Self::CircuitAck(m)
            }
            21 => {
                let mut m: CircuitClose = serde_json::from_value(data).map_err(wrong)?;
                m.reason = m.reason.map(cut);
                Self::CircuitClose(m)
            }
            24 => {
                let m: Trace = serde_json::from_value(data).map_err(wrong)?;
                m.check()?;
                Self::Trace(m)
            }
            25 => {
                let mut m: TraceAck = serde_json::from_value(data).map_err(wrong)?;
                m.check()?;
                Self::TraceAck(m)
            }
            6 | 7 | 16..=18 | 22 | 23 => Self::database_message(number, data)?,
            other => Self::Unknown(other),
        })
    }
}

impl Message {
    /// The messages of [`super::advert`], within their bounds.
    fn database_message(number: u32, data: Value) -> Result<Self, String> {
        let wrong = |e: serde_json::Error| format!("message of type {number}: {e}");
        let bound = |what: &str, count: usize, most: usize| {
            if count > most { Err(format!("{what}: {count}, at most {most}")) } else { Ok(()) }
        };
        Ok(match number {
            6 => {
                let mut m: FindNode = serde_json::from_value(data).map_err(wrong)?;
                m.ttl = m.ttl.min(MAX_FIND_TTL);
                Self::FindNode(m)
            }
            7 => {
                let m: FindNodeAck = serde_json::from_value(data).map_err(wrong)?;
                bound("records of FIND_NODE_ACK", m.records.len(), 2)?;
                Self::FindNodeAck(m)
            }
            16 => {
                let m: Advert = serde_json::from_value(data).map_err(wrong)?;
                bound("records of ADVERT", m.records.len(), MAX_ADVERT_RECORDS)?;
                Self::Advert(m)
            }
            17 => {
                let m: Digest = serde_json::from_value(data).map_err(wrong)?;
                m.check()?;
                Self::Digest(m)
            }
            18 => {
                let m: DigestRequest = serde_json::from_value(data).map_err(wrong)?;
                bound("records of DIGEST_REQUEST", m.records.len(), MAX_DIGEST_ENTRIES)?;
                Self::DigestRequest(m)
            }
            22 => {
                let m: CertificateRequest = serde_json::from_value(data).map_err(wrong)?;
                bound("keys of CERTIFICATE_REQUEST", m.keys.len(), MAX_CERTIFICATE_KEYS)?;
                Self::CertificateRequest(m)
            }
            23 => {
                let m: Certificate = serde_json::from_value(data).map_err(wrong)?;
                bound("certificates of CERTIFICATE", m.certificates.len(), MAX_CERTIFICATE_KEYS)?;
                let longest = m.certificates.iter().map(|bytes| bytes.0.len()).max().unwrap_or_default();
                bound("bytes of a certificate", longest, MAX_CERTIFICATE_LEN)?;
                Self::Certificate(m)
            }
            other => Self::Unknown(other),
        })
    }
}

/// A reason that this version knows.
fn known<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Reason>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

/// What a peer wrote, at most [`MAX_TEXT_LEN`] bytes of it.
pub(super) fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT_LEN));
    text
}
