//! Hashing of keys that this node drew at random.

use std::hash::{BuildHasher, Hasher};

/// Hashes keys of one random number: the labels that this node accepts, and virtual addresses.
///
/// There is a look-up for each relayed packet. The usual hash withstands keys that others choose; here nobody else chooses
/// one that is stored, whatever packets ask for. A neighbour could ask for many labels and keep those that fall together,
/// but which these are depends on a secret.
#[derive(Debug, Clone)]
pub(super) struct RandomKeys {
    secret: u64,
}

impl Default for RandomKeys {
    fn default() -> Self {
        Self { secret: rand::random::<u64>() | 1 }
    }
}

impl BuildHasher for RandomKeys {
    type Hasher = RandomKey;

    fn build_hasher(&self) -> RandomKey {
        RandomKey { secret: self.secret, hash: 0 }
    }
}

/// The hash of one key.
pub(super) struct RandomKey {
    secret: u64,
    hash: u64,
}

impl Hasher for RandomKey {
    fn write_u64(&mut self, number: u64) {
        // A map takes the lowest bits and the highest ones. Those that depend on all of the number are at the low end of
        // the product's high half and at the high end of its low half.
        let (low, high) = (self.hash ^ number).carrying_mul(self.secret, 0);
        self.hash = low ^ high;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ffmesh_core::label::Label;

    use super::*;

    #[test]
    fn labels_spread_over_the_bits_that_a_map_takes() {
        let keys = RandomKeys::default();
        let hashes: Vec<u64> =
            (0..4_096).map(|_| keys.hash_one(Label::from_random(rand::random()))).collect();
        let used = |bits: fn(&u64) -> u64| hashes.iter().map(bits).collect::<HashSet<_>>().len();
        // Of random numbers 63 % of the places are taken, and all of few.
        assert!(used(|hash| hash % 4_096) > 2_200, "lowest bits");
        assert_eq!(used(|hash| hash >> 57), 128, "highest bits");
    }
}
