//! Bytes that both ends of a transfer know by their seed, and their digests.

/// SHA-256 of a transfer.
pub type Digest = [u8; 32];

/// An endless sequence of random bytes, the same for the same seed on every machine.
///
/// SplitMix64 in counter mode: each word follows from its position alone, so a reader checks any piece of the
/// sequence without keeping the rest, faster than a network delivers it.
#[derive(Debug, Clone)]
pub struct RandomBytes {
    seed: u64,
    position: u64,
}

impl RandomBytes {
    /// The sequence of this seed, from its beginning.
    pub fn new(seed: u64) -> Self {
        Self { seed, position: 0 }
    }

    /// Takes the next bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        let mut rest = buffer;
        while !rest.is_empty() {
            let skip = (self.position % 8) as usize;
            if skip == 0 && rest.len() >= 8 {
                let (words, tail) = rest.as_chunks_mut::<8>();
                let first = self.position / 8;
                for (number, word) in (first..).zip(words.iter_mut()) {
                    *word = self.word(number);
                }
                self.position += words.len() as u64 * 8;
                rest = tail;
            } else {
                let word = self.word(self.position / 8);
                let count = rest.len().min(8 - skip);
                let (head, tail) = rest.split_at_mut(count);
                head.copy_from_slice(&word[skip..skip + count]);
                self.position += count as u64;
                rest = tail;
            }
        }
    }

    /// Takes the next bytes for a throw of dice: true for so many of a hundred. Of a chance of zero none are taken.
    pub fn chance(&mut self, percent: f64) -> bool {
        if percent <= 0.0 {
            return false;
        }
        let mut word = [0; 4];
        self.fill(&mut word);
        f64::from(u32::from_le_bytes(word)) / f64::from(u32::MAX) * 100.0 < percent
    }

    /// Takes as many bytes as were received and compares.
    ///
    /// # Panics
    /// At the first byte that differs, with its position.
    pub fn expect(&mut self, received: &[u8]) {
        let mut expected = [0; 4096];
        for piece in received.chunks(expected.len()) {
            let start = self.position;
            let expected = &mut expected[..piece.len()];
            self.fill(expected);
            if piece != expected {
                let at = piece.iter().zip(expected.iter()).take_while(|(a, b)| a == b).count();
                panic!("byte {} differs (seed {})", start + at as u64, self.seed);
            }
        }
    }

    /// The first `count` bytes of a seed.
    pub fn take(seed: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        Self::new(seed).fill(&mut bytes);
        bytes
    }

    /// SHA-256 of the first `count` bytes of a seed.
    pub fn digest(seed: u64, count: u64) -> Digest {
        let mut bytes = Self::new(seed);
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 64 << 10];
        let mut left = count;
        while left > 0 {
            let piece = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            bytes.fill(&mut buffer[..piece]);
            hasher.update(&buffer[..piece]);
            left -= piece as u64;
        }
        hasher.finish()
    }

    #[inline]
    fn word(&self, number: u64) -> [u8; 8] {
        let mut z = self.seed.wrapping_add((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    }
}

/// SHA-256 of bytes as they come.
#[derive(Clone)]
pub struct Hasher(ring::digest::Context);

impl Hasher {
    /// Of no bytes yet.
    pub fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all of them.
    pub fn finish(self) -> Digest {
        self.0.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_make_the_same_sequence() {
        let whole = RandomBytes::take(7, 1000);
        for size in [1, 3, 8, 13, 64, 999] {
            let mut bytes = RandomBytes::new(7);
            let mut checked = RandomBytes::new(7);
            let mut pieces = vec![0; 1000];
            for piece in pieces.chunks_mut(size) {
                bytes.fill(piece);
                checked.expect(piece);
            }
            assert_eq!(pieces, whole, "in pieces of {size}");
        }
        assert_ne!(whole, RandomBytes::take(8, 1000));
        let mut hasher = Hasher::new();
        hasher.update(&whole);
        assert_eq!(hasher.finish(), RandomBytes::digest(7, 1000));
    }

    #[test]
    #[should_panic(expected = "byte 12 differs")]
    fn a_wrong_byte_is_named() {
        let mut bytes = RandomBytes::take(7, 100);
        bytes[12] ^= 1;
        RandomBytes::new(7).expect(&bytes);
    }
}
