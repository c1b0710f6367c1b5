//! Labels of circuits: 64 random bits that mean something on one hop only.
//!
//! On the wire a labelled packet is `[LABEL_TAG | label, 8 bytes, big endian | QUIC packet]`. To a middlebox it
//! looks like a QUIC packet with a short header (RFC 9000, section 17.3) whose connection ID is the label. The
//! connection IDs of a node's own QUIC connections keep the top bit of their first byte clear and labels have
//! it set, so one port carries both.

use std::fmt;

use serde::{Deserialize, Serialize};

/// First byte of a labelled packet: short header form with the fixed bit set, all other bits zero.
pub const LABEL_TAG: u8 = 0x40;
/// Bytes that a label adds to each packet.
pub const LABEL_HEADER_LEN: usize = 9;
/// The bit of the first connection ID byte that tells labels (set) from connection IDs (clear).
pub const LABEL_BIT: u8 = 0x80;

/// A label, valid on one hop. Its top bit is always set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(u64);

impl Label {
    /// A label out of 64 random bits.
    pub fn from_random(bits: u64) -> Self {
        Self(bits | (u64::from(LABEL_BIT) << 56))
    }

    /// The header that stands before each QUIC packet of the circuit.
    pub fn header(self) -> [u8; LABEL_HEADER_LEN] {
        let mut header = [LABEL_TAG; LABEL_HEADER_LEN];
        header[1..].copy_from_slice(&self.0.to_be_bytes());
        header
    }

    /// The label of a packet, or `None` where the packet is an ordinary QUIC packet or too short to tell.
    pub fn of_packet(packet: &[u8]) -> Option<Self> {
        let header: &[u8; LABEL_HEADER_LEN] = packet.first_chunk()?;
        if header[0] & 0xc0 != LABEL_TAG || header[1] & LABEL_BIT == 0 {
            return None;
        }
        let [_, label @ ..] = *header;
        Some(Self(u64::from_be_bytes(label)))
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<Label> for String {
    fn from(label: Label) -> String {
        format!("{label:?}")
    }
}

impl TryFrom<String> for Label {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, &'static str> {
        let hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u64::from_str_radix(&text, 16) {
            Ok(bits) if hex && bits >> 63 == 1 => Ok(Self(bits)),
            _ => Err("a label is 16 hex digits with the top bit set"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_gives_its_label_back() {
        let label = Label::from_random(7);
        let mut packet = label.header().to_vec();
        packet.extend([1, 2, 3]);
        assert_eq!(Label::of_packet(&packet), Some(label));
        assert_eq!(Label::try_from(String::from(label)), Ok(label));
    }

    #[test]
    fn quic_packets_are_not_labelled() {
        assert_eq!(Label::of_packet(&[0xc0; 20]), None, "long header");
        assert_eq!(Label::of_packet(&[0x40; 20]), None, "connection ID with the bit clear");
        assert_eq!(Label::of_packet(&[0x40, 0x80]), None, "too short");
    }
}
