//! Virtual addresses: what QUIC takes for the addresses of a session's slots.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// First 6 bytes of virtual addresses. Only this process ever sees them, so they need not be unique.
const PREFIX: [u8; 6] = [0xfd, 0xff, 0x4d, 0x45, 0x53, 0x48];
const PORT: u16 = 1;

/// Slots that a session may have: what a label's lane can tell apart.
pub const MAX_SLOTS: u8 = 3;
/// The bits of a virtual address that number the slot.
const INDEX_BITS: u64 = 3;

/// The virtual addresses of one session: one for each of its slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionAddr(u64);

impl SessionAddr {
    /// Out of 64 random bits.
    pub fn from_random(bits: u64) -> Self {
        Self(bits & !INDEX_BITS)
    }

    /// The address of a slot, 0 to [`MAX_SLOTS`] - 1; the last one for numbers above.
    pub fn slot(self, index: u8) -> SlotAddr {
        SlotAddr(self.0 | u64::from(index.min(MAX_SLOTS - 1)))
    }
}

/// The virtual address of one slot, as QUIC sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotAddr(u64);

impl SlotAddr {
    /// The slot of an address, or `None` where the address is a real one.
    pub fn of(address: SocketAddr) -> Option<Self> {
        let IpAddr::V6(ip) = address.ip() else { return None };
        let [prefix @ .., _, _, b0, b1, b2, b3, b4, b5, b6, b7] = ip.octets();
        (prefix == PREFIX).then_some(Self(u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7])))
    }

    /// The session it is a slot of.
    pub fn session(self) -> SessionAddr {
        SessionAddr(self.0 & !INDEX_BITS)
    }

    /// Its number within the session.
    pub fn index(self) -> u8 {
        (self.0 & INDEX_BITS) as u8
    }
}

impl From<SlotAddr> for SocketAddr {
    fn from(slot: SlotAddr) -> Self {
        let mut octets = [0; 16];
        octets[..6].copy_from_slice(&PREFIX);
        octets[8..].copy_from_slice(&slot.0.to_be_bytes());
        Self::new(Ipv6Addr::from(octets).into(), PORT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_gives_its_session_and_number_back() {
        let session = SessionAddr::from_random(u64::MAX);
        for index in 0..MAX_SLOTS {
            let slot = SlotAddr::of(session.slot(index).into()).unwrap();
            assert_eq!((slot.session(), slot.index()), (session, index));
        }
        assert_eq!(session.slot(200).index(), MAX_SLOTS - 1);
        assert_eq!(SlotAddr::of("[fd00::1]:1".parse().unwrap()), None);
    }
}
