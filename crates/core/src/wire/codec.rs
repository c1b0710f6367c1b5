//! Frames: length and JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::message::cut;
use super::{Envelope, Message};
use crate::id::NodeId;

/// Longest JSON text of a frame, in bytes.
pub const MAX_FRAME_LEN: usize = 64 << 10;
/// Longest JSON text of a frame with ADVERT or FIND_NODE_ACK, in bytes. Such frames come only on control streams.
pub const MAX_ADVERT_LEN: usize = 1 << 20;
const LENGTH_LEN: usize = 4;

/// Why bytes are no frame. It ends the stream it was read from, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is over [`MAX_FRAME_LEN`], or [`MAX_ADVERT_LEN`] where that holds.
    #[error("frame of {0} bytes: at most {MAX_FRAME_LEN} are allowed, or {MAX_ADVERT_LEN} with records")]
    TooLong(usize),
    /// The text is no message.
    #[error("malformed message: {0}")]
    Malformed(String),
}

#[derive(Serialize)]
struct Out<'a> {
    r#type: u32,
    node_id: &'a NodeId,
    data: Value,
}

#[derive(Deserialize)]
struct In {
    r#type: u32,
    node_id: NodeId,
    #[serde(default)]
    data: Value,
}

/// A message as a frame.
pub fn encode(to: &NodeId, message: &Message) -> Vec<u8> {
    let mut frame = vec![0; LENGTH_LEN];
    frame.extend(encode_datagram(to, message));
    let len = u32::try_from(frame.len() - LENGTH_LEN).unwrap_or(u32::MAX); // over the limit either way
    frame[..LENGTH_LEN].copy_from_slice(&len.to_be_bytes());
    frame
}

/// A message without a length, as it stands in a datagram.
pub fn encode_datagram(to: &NodeId, message: &Message) -> Vec<u8> {
    let out = Out { r#type: message.number(), node_id: to, data: message.data() };
    serde_json::to_vec(&out).unwrap_or_default() // none of these types can fail to become JSON
}

/// The message of a datagram or of a frame's text.
pub fn decode_datagram(text: &[u8]) -> Result<Envelope, FrameError> {
    let raw: In = serde_json::from_slice(text).map_err(|e| FrameError::Malformed(cut(e.to_string())))?;
    let message = Message::from_parts(raw.r#type, raw.data).map_err(|e| FrameError::Malformed(cut(e)))?;
    Ok(Envelope { to: raw.node_id, message })
}

/// Takes frames out of bytes that arrive in pieces. Holds at most one frame and what follows it in one read.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    longest: usize,
}

impl Default for Decoder {
    /// For streams of a session: no frame is longer than [`MAX_FRAME_LEN`].
    fn default() -> Self {
        Self { buffer: Vec::new(), longest: MAX_FRAME_LEN }
    }
}

impl Decoder {
    /// For the control stream of a link: messages with records may have up to [`MAX_ADVERT_LEN`], others
    /// [`MAX_FRAME_LEN`].
    pub fn for_link() -> Self {
        Self { buffer: Vec::new(), longest: MAX_ADVERT_LEN }
    }

    /// Adds bytes that were read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` until more bytes come. After an error the decoder is of no more use.
    pub fn message(&mut self) -> Result<Option<Envelope>, FrameError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_LEN>() else { return Ok(None) };
        let len = u32::from_be_bytes(*length) as usize;
        if len > self.longest {
            return Err(FrameError::TooLong(len));
        }
        let Some(text) = self.buffer.get(LENGTH_LEN..LENGTH_LEN + len) else { return Ok(None) };
        let envelope = decode_datagram(text)?;
        if len > MAX_FRAME_LEN && !matches!(envelope.message, Message::Advert(_) | Message::FindNodeAck(_)) {
            return Err(FrameError::TooLong(len));
        }
        self.buffer.drain(..LENGTH_LEN + len);
        Ok(Some(envelope))
    }

    /// What was pushed behind the last message: a flow's first bytes.
    pub fn into_rest(self) -> Vec<u8> {
        self.buffer
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::label::Label;
    use crate::reason::Reason;
    use crate::wire::*;

    fn id(s: &str) -> NodeId {
        s.parse().unwrap()
    }

    fn syn() -> SynMsg {
        SynMsg {
            version: VERSION,
            node_id: id("a"),
            mesh: "home".parse().unwrap(),
            epoch: 7,
            capabilities: vec![Capability::Relay],
            clock_ms: Some(1_795_346_653_021),
        }
    }

    fn trace() -> Trace {
        Trace { trace: u64::MAX, origin: id("a"), route: vec![id("a"), id("b"), id("c")], to: 2 }
    }

    fn trace_ack() -> TraceAck {
        let Trace { trace, origin, route, to } = trace();
        let (link_rtt_us, link_loss_permille) = (Some(420), Some(1000));
        TraceAck { trace, origin, route, at: to, link_rtt_us, link_loss_permille, error: None }
    }

    fn every_message() -> Vec<Message> {
        vec![
            Message::SynMsg(syn()),
            Message::SynAckMsg(SynAckMsg { result: false, reason: Some("full".into()), syn: syn() }),
            Message::SynData(SynData {
                version: VERSION,
                protocol: FlowProtocol::Tcp,
                target: Some("127.0.0.1:80".parse().unwrap()),
                flow_id: "00".into(),
                proxy: "web".into(),
            }),
            Message::SynData(SynData {
                version: VERSION,
                protocol: FlowProtocol::Speedtest,
                target: None,
                flow_id: "01".into(),
                proxy: "speedtest".into(),
            }),
            Message::SynAckData(SynAckData { result: false, reason: Some(Reason::Denied) }),
            Message::Ping(Ping { seq: 1 }),
            Message::Pong(Pong { seq: 1 }),
            Message::CircuitOpen(CircuitOpen {
                circuit: u64::MAX,
                route: vec![id("a"), id("b")],
                session: 3,
                label: Label::from_random(9),
            }),
            Message::CircuitAck(CircuitAck {
                origin: id("a"),
                circuit: 1,
                label: Some(Label::from_random(10)),
                reason: None,
            }),
            Message::CircuitClose(CircuitClose { origin: id("a"), circuit: 1, reason: Some("idle".into()) }),
            Message::FindNode(FindNode { query: u64::MAX, origin: id("a"), target: id("z"), ttl: 8 }),
            Message::FindNodeAck(FindNodeAck {
                query: 1,
                origin: id("a"),
                target: id("z"),
                records: vec![AgedRecord(7, Base64(vec![1, 2, 3]))],
            }),
            Message::Advert(Advert { records: vec![AgedRecord(0, Base64(vec![0xff; 70])); 3] }),
            Message::Digest(Digest::Root(Sum(u64::MAX - 1))),
            Message::Digest(Digest::Groups(SumList::new((0..32).map(|n| u64::MAX - n).collect()))),
            Message::Digest(Digest::Buckets(vec![(31, SumList::new(vec![5; 32]))])),
            Message::Digest(Digest::Entries(vec![
                (1023, vec![ListedRecord(id("a"), 1, u64::MAX, u32::MAX, Sum(3))]),
                (0, vec![]),
            ])),
            Message::DigestRequest(DigestRequest { records: vec![(id("a"), 1)] }),
            Message::CertificateRequest(CertificateRequest { keys: vec![crate::lsdb::KeyHash([7; 32]); 2] }),
            Message::Certificate(Certificate { certificates: vec![Base64(vec![0x30; 500])] }),
            Message::Trace(trace()),
            Message::TraceAck(trace_ack()),
            Message::TraceAck(TraceAck {
                link_rtt_us: None,
                link_loss_permille: None,
                error: Some("no link to c".into()),
                ..trace_ack()
            }),
        ]
    }

    #[test]
    fn only_records_may_be_longer_than_other_messages() {
        let long = |message| {
            let mut decoder = Decoder::for_link();
            decoder.push(&encode(&id("b"), &message));
            decoder.message().map(|message| message.is_some())
        };
        let records = |len| vec![AgedRecord(0, Base64(vec![0; len]))];
        assert_eq!(long(Message::Advert(Advert { records: records(700_000) })), Ok(true));
        assert!(long(Message::Advert(Advert { records: records(800_000) })).is_err());
        let circuit = Message::CircuitAck(CircuitAck {
            origin: id("a"),
            circuit: 1,
            label: None,
            reason: Some("x".repeat(MAX_FRAME_LEN)),
        });
        assert!(long(circuit).is_err());
    }

    #[test]
    fn database_messages_over_their_bounds_are_refused() {
        let listed = ListedRecord(id("a"), 1, 1, 1, Sum(3));
        for message in [
            Message::Advert(Advert { records: vec![AgedRecord(0, Base64(vec![])); MAX_ADVERT_RECORDS + 1] }),
            Message::DigestRequest(DigestRequest { records: vec![(id("a"), 1); MAX_DIGEST_ENTRIES + 1] }),
            Message::Digest(Digest::Buckets(vec![(1, SumList::new(vec![])); 33])),
            Message::Digest(Digest::Entries(vec![(1, vec![listed; 1025])])),
            Message::Certificate(Certificate {
                certificates: vec![Base64(vec![0; MAX_CERTIFICATE_LEN + 1])],
            }),
        ] {
            assert!(decode_datagram(&encode_datagram(&id("b"), &message)).is_err(), "{}", message.number());
        }
    }

    #[test]
    fn a_digest_of_the_root_is_tiny() {
        let text = encode_datagram(&id("88b2c4d4e5"), &Message::Digest(Digest::Root(Sum(1))));
        assert!(text.len() <= 80, "{} bytes", text.len());
    }

    #[test]
    fn every_message_survives_a_frame_cut_anywhere() {
        for message in every_message() {
            let frame = encode(&id("b"), &message);
            for cut in 0..frame.len() {
                let mut decoder = Decoder::default();
                decoder.push(&frame[..cut]);
                assert_eq!(decoder.message(), Ok(None));
                decoder.push(&frame[cut..]);
                decoder.push(b"rest");
                assert_eq!(decoder.message(), Ok(Some(Envelope { to: id("b"), message: message.clone() })));
                assert_eq!(decoder.into_rest(), b"rest");
            }
        }
    }

    #[test]
    fn unknown_types_and_fields_are_ignored() {
        let text = br#"{"type":77,"node_id":"b","data":{"x":1},"more":2}"#;
        assert_eq!(decode_datagram(text).unwrap().message, Message::Unknown(77));
        let text = br#"{"type":3,"node_id":"b","data":{"result":false,"reason":"of_tomorrow"}}"#;
        let refused = Message::SynAckData(SynAckData { result: false, reason: None });
        assert_eq!(decode_datagram(text).unwrap().message, refused);
        let text = br#"{"type":4,"node_id":"b","data":{"seq":1,"load":0.5}}"#;
        assert_eq!(decode_datagram(text).unwrap().message, Message::Ping(Ping { seq: 1 }));
    }

    #[test]
    fn a_protocol_of_tomorrow_is_read_as_unknown() {
        let protocol = |word: &str| {
            let text = format!(
                r#"{{"type":2,"node_id":"b","data":{{"version":1,"protocol":"{word}","flow_id":"00"}}}}"#
            );
            match decode_datagram(text.as_bytes()).unwrap().message {
                Message::SynData(syn) => syn.protocol,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(protocol("speedtest"), FlowProtocol::Speedtest);
        assert_eq!(protocol("of_tomorrow"), FlowProtocol::Unknown);
    }

    #[test]
    fn an_oversized_frame_is_refused_before_it_is_buffered() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_be_bytes());
        assert_eq!(decoder.message(), Err(FrameError::TooLong(u32::MAX as usize)));
    }

    #[test]
    fn routes_out_of_bounds_are_refused() {
        for len in [0, 1, MAX_ROUTE_LEN + 1] {
            let open = Message::CircuitOpen(CircuitOpen {
                circuit: 1,
                route: vec![id("a"); len],
                session: 1,
                label: Label::from_random(1),
            });
            assert!(decode_datagram(&encode_datagram(&id("b"), &open)).is_err(), "{len}");
        }
    }

    #[test]
    fn traces_out_of_bounds_are_refused() {
        let ids = |names: &str| names.chars().map(|name| id(&name.to_string())).collect::<Vec<_>>();
        for (origin, route, position, good) in [
            ("a", "abc", 1, true),
            ("a", "abcdefghijklmnop", 15, true),
            ("a", "abcdefghijklmnopq", 1, false),
            ("a", "a", 0, false),
            ("a", "", 0, false),
            ("a", "aba", 1, false),
            ("b", "abc", 1, false),
            ("a", "abc", 0, false),
            ("a", "abc", 3, false),
        ] {
            let (origin, route) = (id(origin), ids(route));
            let ack = TraceAck { origin: origin.clone(), route: route.clone(), at: position, ..trace_ack() };
            let asked = Trace { origin, route, to: position, ..trace() };
            for message in [Message::Trace(asked), Message::TraceAck(ack)] {
                let read = decode_datagram(&encode_datagram(&id("b"), &message));
                assert_eq!(read.is_ok(), good, "{message:?}");
            }
        }
    }

    #[test]
    fn what_a_trace_says_is_cut() {
        let error = Some("x".repeat(10_000));
        let long = Message::TraceAck(TraceAck { error, link_loss_permille: Some(u16::MAX), ..trace_ack() });
        let Message::TraceAck(read) = decode_datagram(&encode_datagram(&id("b"), &long)).unwrap().message
        else {
            panic!("another message came out");
        };
        assert_eq!(read.error.unwrap().len(), 256);
        assert_eq!(read.link_loss_permille, Some(1000));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.message() {}
            let _ = decode_datagram(&bytes);
        }

        #[test]
        fn no_change_of_one_byte_panics(pick in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let messages = every_message();
            let mut frame = encode(&id("b"), &messages[pick.index(messages.len())]);
            let at = at.index(frame.len());
            frame[at] = to;
            let mut decoder = Decoder::default();
            decoder.push(&frame);
            let _ = decoder.message();
        }
    }
}
