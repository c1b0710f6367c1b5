//! Labels of circuits: 61 random bits that mean something on one hop only.
//!
//! On the wire a labelled packet is `[LABEL_TAG | label, 8 bytes, big endian | QUIC packet or probe]`. To a middlebox it
//! looks like a QUIC packet with a short header (RFC 9000, section 17.3) whose connection ID is the label. The
//! connection IDs of a node's own QUIC connections keep the top bit of their first byte clear and labels have
//! it set, so one port carries both.
//!
//! The two lowest bits are no part of the label but the packet's [`Lane`]: each slot of a session can take each of its
//! circuits, and the other end has to know which slot a packet belongs to. Relays leave them as they are.

use std::fmt;

use serde::{Deserialize, Serialize};

/// First byte of a labelled packet: short header form with the fixed bit set, all other bits zero.
pub const LABEL_TAG: u8 = 0x40;
/// Bytes that a label adds to each packet.
pub const LABEL_HEADER_LEN: usize = 9;
/// The bit of the first connection ID byte that tells labels (set) from connection IDs (clear).
pub const LABEL_BIT: u8 = 0x80;

/// The bits of a label on the wire that are the packet's [`Lane`].
const LANE_BITS: u64 = 3;

/// What a packet of a circuit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// A QUIC packet of this slot of the circuit's session, 0 to 2
    Slot(u8),
    /// A probe of the circuit itself
    Probe,
}

impl Lane {
    fn of_bits(bits: u64) -> Self {
        match bits & LANE_BITS {
            0 => Self::Slot(0),
            1 => Self::Slot(1),
            2 => Self::Slot(2),
            _ => Self::Probe,
        }
    }

    fn bits(self) -> u64 {
        match self {
            Self::Slot(slot) => u64::from(slot.min(2)),
            Self::Probe => LANE_BITS,
        }
    }
}

/// A label, valid on one hop. Its top bit is always set and its two lowest are always clear.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(u64);

impl Label {
    /// A label out of 64 random bits.
    pub fn from_random(bits: u64) -> Self {
        Self((bits | (u64::from(LABEL_BIT) << 56)) & !LANE_BITS)
    }

    /// The header that stands before each packet of the circuit.
    pub fn header(self, lane: Lane) -> [u8; LABEL_HEADER_LEN] {
        let mut header = [LABEL_TAG; LABEL_HEADER_LEN];
        header[1..].copy_from_slice(&(self.0 | lane.bits()).to_be_bytes());
        header
    }

    /// The label and lane of a packet, or `None` where the packet is an ordinary QUIC packet or too short to tell.
    pub fn of_packet(packet: &[u8]) -> Option<(Self, Lane)> {
        let header: &[u8; LABEL_HEADER_LEN] = packet.first_chunk()?;
        if header[0] & 0xc0 != LABEL_TAG || header[1] & LABEL_BIT == 0 {
            return None;
        }
        let [_, label @ ..] = *header;
        let bits = u64::from_be_bytes(label);
        Some((Self(bits & !LANE_BITS), Lane::of_bits(bits)))
    }

    /// Puts this label in the place of the one that a labelled packet has; its lane stays.
    pub fn swap_into(self, packet: &mut [u8]) {
        if let Some((_, lane)) = Self::of_packet(packet) {
            packet[..LABEL_HEADER_LEN].copy_from_slice(&self.header(lane));
        }
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
            Ok(bits) if hex && bits >> 63 == 1 && bits & LANE_BITS == 0 => Ok(Self(bits)),
            _ => Err("a label is 16 hex digits with the top bit set and the two lowest clear"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_gives_its_label_back() {
        for lane in [Lane::Slot(0), Lane::Slot(1), Lane::Slot(2), Lane::Probe] {
            let label = Label::from_random(7);
            let mut packet = label.header(lane).to_vec();
            packet.extend([1, 2, 3]);
            assert_eq!(Label::of_packet(&packet), Some((label, lane)));
            assert_eq!(Label::try_from(String::from(label)), Ok(label));
        }
        assert!(Label::try_from("8000000000000001".to_owned()).is_err(), "a lane is no part of a label");
    }

    #[test]
    fn a_relay_changes_the_label_and_nothing_else() {
        let (old, new) = (Label::from_random(7), Label::from_random(u64::MAX));
        let mut packet = [&old.header(Lane::Slot(2))[..], b"payload"].concat();
        new.swap_into(&mut packet);
        assert_eq!(packet, [&new.header(Lane::Slot(2))[..], b"payload"].concat());
        let mut quic = [0x40; 20];
        new.swap_into(&mut quic);
        assert_eq!(quic, [0x40; 20]);
    }

    #[test]
    fn quic_packets_are_not_labelled() {
        assert_eq!(Label::of_packet(&[0xc0; 20]), None, "long header");
        assert_eq!(Label::of_packet(&[0x40; 20]), None, "connection ID with the bit clear");
        assert_eq!(Label::of_packet(&[0x40, 0x80]), None, "too short");
    }
}
