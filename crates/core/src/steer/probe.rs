//! The bytes of a probe: a question whether a circuit works, and its answer.
//!
//! Big endian, [`PROBE_LEN`] bytes; the node encrypts and authenticates them. A later version may append fields, which
//! this one does not read, and set more flags.
//!
//! | bytes | field |
//! | --- | --- |
//! | 0 | version, 1 |
//! | 1 | kind: 1 Ask, 2 Echo |
//! | 2 | flags: bit 0 suspicious |
//! | 3 | zero |
//! | 4..8 | seq |
//! | 8..16 | sent |
//! | 16..24 | boot |
//! | 24..32 | circuit |
//! | 32..36 | epoch of the map |
//! | 36..60 | circuits of the map's slots 0, 1, 2 |

use super::Map;
use crate::select::SLOTS;

/// Bytes of an encoded probe.
pub const PROBE_LEN: usize = 60;
/// Version of the layout. Another one is not read.
const VERSION: u8 = 1;
const ASK: u8 = 1;
const ECHO: u8 = 2;
const SUSPICIOUS: u8 = 1;

/// Which way a probe goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To be answered over the same circuit
    Ask,
    /// The answer, with the Ask's `seq`, `sent` and `circuit`
    Echo,
}

/// A packet over a circuit from one end of a session to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Which way it goes
    pub kind: Kind,
    /// Number of the Ask on its circuit
    pub seq: u32,
    /// When the Ask was sent, in µs of the asking node's clock; means nothing to the other
    pub sent: u64,
    /// Boot epoch of the node that sends this probe
    pub boot: u64,
    /// The circuit that it goes over
    pub circuit: u64,
    /// The map that the sender follows
    pub map: Map,
    /// Whether the sender misses answers on another circuit
    pub suspicious: bool,
}

impl Probe {
    /// Its bytes.
    pub fn encode(&self) -> [u8; PROBE_LEN] {
        let kind = match self.kind {
            Kind::Ask => ASK,
            Kind::Echo => ECHO,
        };
        let mut bytes = [0; PROBE_LEN];
        bytes[..4].copy_from_slice(&[VERSION, kind, u8::from(self.suspicious) * SUSPICIOUS, 0]);
        bytes[4..8].copy_from_slice(&self.seq.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.sent.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.boot.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.circuit.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.map.epoch.to_be_bytes());
        for (place, circuit) in bytes[36..].chunks_exact_mut(8).zip(self.map.slots) {
            place.copy_from_slice(&circuit.to_be_bytes());
        }
        bytes
    }

    /// Reads a probe; `None` for another version, an unknown kind or fewer than [`PROBE_LEN`] bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[VERSION, kind, flags, _], rest) = bytes.split_first_chunk()? else { return None };
        let kind = match kind {
            ASK => Kind::Ask,
            ECHO => Kind::Echo,
            _ => return None,
        };
        let (seq, mut rest) = rest.split_first_chunk()?;
        let sent = number(&mut rest)?;
        let boot = number(&mut rest)?;
        let circuit = number(&mut rest)?;
        let (epoch, mut rest) = rest.split_first_chunk()?;
        let mut slots = [0; SLOTS];
        for slot in &mut slots {
            *slot = number(&mut rest)?;
        }
        Some(Self {
            kind,
            seq: u32::from_be_bytes(*seq),
            sent,
            boot,
            circuit,
            map: Map { epoch: u32::from_be_bytes(*epoch), slots },
            suspicious: flags & SUSPICIOUS != 0,
        })
    }
}

/// Takes eight bytes off the front.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn probe(kind: Kind, suspicious: bool) -> Probe {
        let map = Map { epoch: 0x0102_0304, slots: [5, 6, u64::MAX] };
        Probe { kind, seq: 7, sent: 8, boot: 9, circuit: 10, map, suspicious }
    }

    #[test]
    fn the_layout_is_fixed() {
        let bytes = probe(Kind::Echo, true).encode();
        let numbers = [8u64, 9, 10].map(u64::to_be_bytes).concat();
        let slots = [5u64, 6, u64::MAX].map(u64::to_be_bytes).concat();
        let expected = [&[1, 2, 1, 0, 0, 0, 0, 7][..], &numbers, &[1, 2, 3, 4], &slots].concat();
        assert_eq!(bytes[..], expected[..]);
    }

    #[test]
    fn it_is_read_back_with_or_without_later_fields() {
        for kind in [Kind::Ask, Kind::Echo] {
            for suspicious in [false, true] {
                let probe = probe(kind, suspicious);
                let mut longer = probe.encode().to_vec();
                assert_eq!(Probe::decode(&longer), Some(probe));
                longer[2] |= 0x80;
                longer.extend([1; 40]);
                assert_eq!(Probe::decode(&longer), Some(probe));
                assert_eq!(Probe::decode(&longer[..PROBE_LEN - 1]), None, "cut");
            }
        }
    }

    #[test]
    fn other_versions_and_kinds_are_not_read() {
        for (at, value) in [(0, 0), (0, 2), (1, 0), (1, 3)] {
            let mut bytes = probe(Kind::Ask, false).encode();
            bytes[at] = value;
            assert_eq!(Probe::decode(&bytes), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_read_is_written_alike(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            if let Some(probe) = Probe::decode(&bytes) {
                prop_assert_eq!(&probe.encode()[4..], &bytes[4..PROBE_LEN]);
            }
        }
    }
}
