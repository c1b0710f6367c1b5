//! Fingerprints of a database in three levels: all of it, 32 groups, 32 buckets in each.
//!
//! A record belongs to the bucket that the top ten bits of its origin's fingerprint name; the top five are the
//! group. The sum of a bucket is the exclusive or of the fingerprints of its records' bodies, so it does not
//! depend on their order and changes with one operation. Two neighbours whose sums of everything differ send
//! each other the 32 below, then those below the groups that differ, then the list of a bucket (about 20 records in a mesh of
//! 10,000 nodes).

use super::record::{Kind, Version};
use crate::hash::fingerprint;
use crate::id::NodeId;

/// Groups of a database, and buckets of a group.
pub const FAN_OUT: usize = 32;

/// One of the [`FAN_OUT`]² buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(pub u16);

impl Bucket {
    /// Where the records of an origin are.
    pub fn of(origin: &NodeId) -> Self {
        Self((fingerprint(origin.as_str().as_bytes()) >> 54) as u16)
    }

    /// Those of a group, in order.
    pub fn all_of(group: usize) -> impl Iterator<Item = Self> {
        (0u16..).map(Self).skip(group * FAN_OUT).take(FAN_OUT)
    }
}

/// The sums of all buckets: 8 KB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums(Vec<u64>);

impl Default for Sums {
    fn default() -> Self {
        Self(vec![0; FAN_OUT * FAN_OUT])
    }
}

impl Sums {
    /// Adds a record's fingerprint to its bucket, or takes it out again.
    pub fn toggle(&mut self, bucket: Bucket, fingerprint: u64) {
        if let Some(sum) = self.0.get_mut(usize::from(bucket.0)) {
            *sum ^= fingerprint;
        }
    }

    /// The sum of everything.
    pub fn root(&self) -> u64 {
        self.0.iter().fold(0, |all, sum| all ^ sum)
    }

    /// The sums of the groups.
    pub fn groups(&self) -> Vec<u64> {
        self.0.chunks(FAN_OUT).map(|group| group.iter().fold(0, |all, sum| all ^ sum)).collect()
    }

    /// The sums of a group's buckets, empty where there is no such group.
    pub fn buckets(&self, group: usize) -> &[u64] {
        self.0.chunks(FAN_OUT).nth(group).unwrap_or_default()
    }
}

/// One record in the list of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is
    pub origin: NodeId,
    /// What it is about
    pub kind: Kind,
    /// How new it is
    pub version: Version,
    /// The fingerprint of its body
    pub fingerprint: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sums_do_not_depend_on_the_order(
            mut records in prop::collection::vec((0u16..1024, any::<u64>()), 1..50), by in 0usize..50,
        ) {
            let sums = |records: &[(u16, u64)]| {
                let mut sums = Sums::default();
                for (bucket, fingerprint) in records {
                    sums.toggle(Bucket(*bucket), *fingerprint);
                }
                sums
            };
            let first = sums(&records);
            let by = by % records.len();
            records.rotate_left(by);
            prop_assert_eq!(&sums(&records), &first);
            let all = first.groups().iter().fold(0, |all, sum| all ^ sum);
            prop_assert_eq!(all, first.root());
            for (group, sum) in first.groups().into_iter().enumerate() {
                prop_assert_eq!(first.buckets(group).iter().fold(0, |all, sum| all ^ sum), sum);
            }
        }
    }
}
