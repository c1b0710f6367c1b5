//! The messages that nodes exchange, and how they are framed.
//!
//! A frame is a length (4 bytes, big endian) and that many bytes of JSON of the shape
//! `{"type": int, "node_id": string, "data": {…}}`; `node_id` is the node that the message is for. Frames stand on
//! the control stream of a link, at the head of each stream of a session, and (without the length) in the
//! datagrams of a link. Unknown types and unknown fields are ignored, so that versions can mix.

mod advert;
mod codec;
mod message;
mod trace;

pub use advert::{
    Advert, AgedRecord, Base64, Certificate, CertificateRequest, Digest, DigestRequest, FindNode,
    FindNodeAck, ListedRecord, MAX_ADVERT_RECORDS, MAX_CERTIFICATE_KEYS, MAX_CERTIFICATE_LEN,
    MAX_DIGEST_ENTRIES, MAX_FIND_TTL, Sum, SumList,
};
pub use codec::{
    Decoder, FrameError, MAX_ADVERT_LEN, MAX_FRAME_LEN, decode_datagram, encode, encode_datagram,
};
pub use message::{
    Capability, CircuitAck, CircuitClose, CircuitOpen, Envelope, FlowProtocol, MAX_CAPABILITIES,
    MAX_ROUTE_LEN, Message, Ping, Pong, SynAckData, SynAckMsg, SynData, SynMsg, VERSION,
};
pub use trace::{Trace, TraceAck};
