//! The queue of Dijkstra's algorithm.

/// Entries by cost, of which none may be pushed that is cheaper than the last one popped.
///
/// A radix heap (Ahuja, Mehlhorn, Orlin, Tarjan, "Faster algorithms for the shortest path problem", 1990): an entry lies in
/// the bucket of the highest bit in which its cost differs from that of the last popped one, so it moves at most
/// once a bit and mostly once or twice in all. Among equally cheap entries the order is that of the pushes, in no
/// particular direction, but the same for the same pushes.
#[derive(Debug)]
pub(crate) struct RadixHeap {
    last: u64,
    /// Bucket 0: as cheap as `last`; bucket `i`: differing in bit `i - 1` at most.
    buckets: [Vec<(u64, u32)>; 65],
    /// Bit `i`: bucket `i + 1` has entries.
    used: u64,
}

impl Default for RadixHeap {
    fn default() -> Self {
        Self { last: 0, buckets: [const { Vec::new() }; 65], used: 0 }
    }
}

impl RadixHeap {
    pub(crate) fn push(&mut self, cost: u64, item: u32) {
        debug_assert!(cost >= self.last, "cheaper than what was popped");
        let bucket = bucket(cost ^ self.last);
        self.buckets[bucket].push((cost, item));
        if bucket > 0 {
            self.used |= 1 << (bucket - 1);
        }
    }

    /// A cheapest entry.
    pub(crate) fn pop(&mut self) -> Option<(u64, u32)> {
        if let Some(entry) = self.buckets[0].pop() {
            return Some(entry);
        }
        if self.used == 0 {
            return None;
        }
        let lowest = self.used.trailing_zeros() as usize + 1;
        self.used &= self.used - 1;
        let mut entries = std::mem::take(&mut self.buckets[lowest]);
        self.last = entries.iter().map(|(cost, _)| *cost).min()?;
        for (cost, item) in entries.drain(..) {
            self.push(cost, item);
        }
        self.buckets[lowest] = entries; // its memory
        self.buckets[0].pop()
    }
}

fn bucket(difference: u64) -> usize {
    (u64::BITS - difference.leading_zeros()) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_pops_in_the_order_of_cost(steps in prop::collection::vec((any::<bool>(), 0u32..64, any::<u64>()), 0..200)) {
            let mut queue = RadixHeap::default();
            let mut oracle = std::collections::BinaryHeap::new();
            let mut last = 0;
            for (push, shift, random) in steps {
                if push {
                    let cost = last | (random >> shift);
                    queue.push(cost, 1);
                    oracle.push(std::cmp::Reverse(cost));
                } else {
                    let popped = queue.pop().map(|(cost, _)| cost);
                    prop_assert_eq!(popped, oracle.pop().map(|cost| cost.0));
                    last = popped.unwrap_or(last);
                }
            }
        }
    }
}
