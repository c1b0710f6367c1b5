//! Probes on the wire: encrypted and authenticated end to end, so that no relay can read or make them.
//!
//! A sealed probe is a counter (8 bytes, big endian) and the probe under AES-128-GCM. The two keys, one for each direction, are
//! exported from the session's TLS (RFC 8446, section 7.5), so they are new with each session.

use std::collections::HashMap;

use ffmesh_core::steer::Probe;
use noq::Connection;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

const LABEL: &[u8] = b"ffmesh probes 1";
const COUNTER_LEN: usize = 8;
const KEY_LEN: usize = 16;
/// Counters below the highest one of a circuit that are still taken, as packets overtake each other.
const WINDOW: u64 = 64;

/// The keys of one session's probes.
pub(super) struct Seal {
    send: LessSafeKey,
    receive: LessSafeKey,
    next: u64,
    /// For each circuit the highest counter that came, and those of the [`WINDOW`] below it, as bits: circuits may be
    /// seconds apart.
    seen: HashMap<u64, (u64, u64)>,
}

impl Seal {
    /// Those of a session whose handshake is complete.
    pub(super) fn of(connection: &Connection, dialled: bool) -> Option<Self> {
        let key = |of_dialler: bool| {
            let mut key = [0; KEY_LEN];
            let context: &[u8] = if of_dialler { b"dialler" } else { b"acceptor" };
            connection.export_keying_material(&mut key, LABEL, context).ok()?;
            Some(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).ok()?))
        };
        Some(Self { send: key(dialled)?, receive: key(!dialled)?, next: 1, seen: HashMap::new() })
    }

    /// A probe for the wire. Nothing where it could not be sealed, which is a lost probe.
    pub(super) fn seal(&mut self, probe: &Probe) -> Vec<u8> {
        let counter = self.next;
        self.next += 1;
        let mut body = probe.encode().to_vec();
        if self.send.seal_in_place_append_tag(nonce(counter), Aad::empty(), &mut body).is_err() {
            return Vec::new();
        }
        let mut sealed = counter.to_be_bytes().to_vec();
        sealed.extend(body);
        sealed
    }

    /// The probe in what came over a circuit, once. `None` for what the other end did not seal for this circuit, or did not
    /// seal just now.
    pub(super) fn open(&mut self, circuit: u64, sealed: &[u8]) -> Option<Probe> {
        let (counter, body) = sealed.split_first_chunk::<COUNTER_LEN>()?;
        let counter = u64::from_be_bytes(*counter);
        if !self.is_new(circuit, counter) {
            return None;
        }
        let mut body = body.to_vec();
        let probe = self.receive.open_in_place(nonce(counter), Aad::empty(), &mut body).ok()?;
        let probe = Probe::decode(probe).filter(|probe| probe.circuit == circuit)?;
        self.note(circuit, counter);
        Some(probe)
    }

    /// A circuit is gone, and its number does not come again.
    pub(super) fn forget(&mut self, circuit: u64) {
        self.seen.remove(&circuit);
    }

    fn is_new(&self, circuit: u64, counter: u64) -> bool {
        let (highest, bits) = self.seen.get(&circuit).copied().unwrap_or_default();
        counter > highest || (highest - counter < WINDOW && bits >> (highest - counter) & 1 == 0)
    }

    fn note(&mut self, circuit: u64, counter: u64) {
        let seen = self.seen.entry(circuit).or_default();
        let (highest, bits) = *seen;
        *seen = if counter > highest {
            let shifted = if counter - highest < WINDOW { bits << (counter - highest) } else { 0 };
            (counter, shifted | 1)
        } else {
            (highest, bits | 1 << (highest - counter))
        };
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - COUNTER_LEN..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use ffmesh_core::steer::{Kind, Map};

    use super::*;

    fn key(byte: u8) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[byte; KEY_LEN]).unwrap())
    }

    fn ends() -> (Seal, Seal) {
        let end =
            |send, receive| Seal { send: key(send), receive: key(receive), next: 1, seen: HashMap::new() };
        (end(1, 2), end(2, 1))
    }

    fn probe(seq: u32) -> Probe {
        Probe {
            kind: Kind::Ask,
            seq,
            sent: 7,
            boot: 8,
            circuit: 9,
            map: Map { epoch: 1, slots: [9, 9, 9] },
            suspicious: false,
        }
    }

    #[test]
    fn a_probe_arrives_once_in_any_order() {
        let (mut a, mut b) = ends();
        let sealed: Vec<_> = (0..40).map(|seq| a.seal(&probe(seq))).collect();
        for seq in [3, 1, 0, 39, 2, 20] {
            assert_eq!(b.open(9, &sealed[seq as usize]), Some(probe(seq)));
            assert_eq!(b.open(9, &sealed[seq as usize]), None, "{seq} again");
        }
    }

    #[test]
    fn what_is_too_old_tampered_with_or_reflected_is_nothing() {
        let (mut a, mut b) = ends();
        let first = a.seal(&probe(1));
        assert_eq!(a.open(9, &first), None, "one's own probe");
        let last = (0..100).map(|seq| a.seal(&probe(seq))).last().unwrap();
        assert!(b.open(9, &last).is_some());
        assert_eq!(b.open(9, &first), None);
        let mut sealed = a.seal(&probe(5));
        for at in 0..sealed.len() {
            sealed[at] ^= 1;
            assert_eq!(b.open(9, &sealed), None, "byte {at}");
            sealed[at] ^= 1;
        }
        for len in 0..sealed.len() {
            assert_eq!(b.open(9, &sealed[..len]), None);
        }
        assert_eq!(b.open(8, &sealed), None, "moved to another circuit");
        assert!(b.open(9, &sealed).is_some());
    }

    #[test]
    fn a_slow_circuit_is_heard_beside_fast_ones() {
        let (mut a, mut b) = ends();
        let on = |circuit, seq| Probe { circuit, ..probe(seq) };
        let late = a.seal(&on(1, 1));
        for seq in 0..1_000 {
            assert!(b.open(2, &a.seal(&on(2, seq))).is_some());
        }
        assert_eq!(b.open(1, &late), Some(on(1, 1)));
        assert_eq!(b.open(1, &late), None);
    }
}
