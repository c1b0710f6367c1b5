//! Numbers for node ids, so that 80,000 mentions of 10,000 nodes cost four bytes each.

use std::collections::HashMap;

use super::digest::Bucket;
use crate::id::NodeId;

/// The number of a [`NodeId`] in one database; another id may get it once nothing mentions this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub u32);

/// Ids and their numbers, each kept as long as something mentions it.
#[derive(Debug, Default)]
pub struct Names {
    numbers: HashMap<NodeId, Name>,
    entries: Vec<Entry>,
    free: Vec<Name>,
}

#[derive(Debug)]
struct Entry {
    id: Option<NodeId>,
    mentions: u32,
    bucket: Bucket,
}

impl Names {
    /// The number of an id, with one more mention of it.
    pub fn hold(&mut self, id: &NodeId) -> Name {
        if let Some(name) = self.numbers.get(id) {
            self.entries[name.0 as usize].mentions += 1;
            return *name;
        }
        let entry = Entry { id: Some(id.clone()), mentions: 1, bucket: Bucket::of(id) };
        let name = if let Some(name) = self.free.pop() {
            self.entries[name.0 as usize] = entry;
            name
        } else {
            self.entries.push(entry);
            Name(u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)) // bounded by the database's limits
        };
        self.numbers.insert(id.clone(), name);
        name
    }

    /// Gives one mention back.
    pub fn release(&mut self, name: Name) {
        let Some(entry) = self.entries.get_mut(name.0 as usize) else { return };
        entry.mentions = entry.mentions.saturating_sub(1);
        if entry.mentions == 0
            && let Some(id) = entry.id.take()
        {
            self.numbers.remove(&id);
            self.free.push(name);
        }
    }

    /// The number of an id that is mentioned.
    pub fn find(&self, id: &NodeId) -> Option<Name> {
        self.numbers.get(id).copied()
    }

    /// The id of a number that is in use.
    pub fn id(&self, name: Name) -> Option<&NodeId> {
        self.entries.get(name.0 as usize)?.id.as_ref()
    }

    /// The bucket of an id's records, remembered: to compute it takes ten times as long.
    pub(super) fn bucket(&self, name: Name) -> Option<Bucket> {
        self.entries.get(name.0 as usize).map(|entry| entry.bucket)
    }

    /// One more than the highest number in use so far.
    pub fn end(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of memory, estimated.
    pub fn memory(&self) -> usize {
        let text: usize = self.numbers.keys().map(|id| id.as_str().len() + 16).sum();
        text + self.entries.capacity() * size_of::<Entry>()
            + self.numbers.capacity() * (size_of::<(NodeId, Name)>() + 1) * 8 / 7
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_lasts_as_long_as_its_last_mention() {
        let mut names = Names::default();
        let (a, b): (NodeId, NodeId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let first = names.hold(&a);
        assert_eq!(names.hold(&a), first);
        names.release(first);
        assert_eq!(names.find(&a), Some(first));
        names.release(first);
        assert_eq!((names.find(&a), names.id(first)), (None, None));
        assert_eq!(names.hold(&b), first, "the number is used again");
        assert_eq!(names.end(), 1);
    }
}
