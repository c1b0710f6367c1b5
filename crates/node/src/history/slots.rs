//! Which neighbours' round trip times are kept.

use ffmesh_core::id::NodeId;

use super::row::MAX_PEERS;

/// A neighbour's place in each row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) node: NodeId,
    /// What rows have of this slot before is another neighbour's
    pub(super) since: i64,
    /// When its link was up last
    pub(super) seen: i64,
}

/// Whose slot is which. Who has one keeps it while its link is up; a new neighbour gets a free one, or that of the neighbour
/// that has been away for longest, whose history ends.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots([Option<Slot>; MAX_PEERS]);

impl Slots {
    pub(super) fn set(&mut self, number: u8, slot: Slot) {
        self.0[usize::from(number)] = Some(slot);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u8, &Slot)> {
        (0..).zip(&self.0).filter_map(|(number, slot)| Some((number, slot.as_ref()?)))
    }

    /// The round trip times of the links that are up, by slot.
    pub(super) fn fill(&mut self, at: i64, up: &[(NodeId, Option<f64>)]) -> Vec<f32> {
        let mut rtts = Vec::new();
        for (node, rtt) in up {
            let Some(number) = self.slot_of(at, node, up) else { continue };
            if rtts.len() <= number {
                rtts.resize(number + 1, f32::NAN);
            }
            #[expect(clippy::cast_possible_truncation, reason = "seven digits are kept")]
            let rtt = rtt.map_or(f32::NAN, |rtt| rtt as f32);
            rtts[number] = rtt;
        }
        rtts
    }

    fn slot_of(&mut self, at: i64, node: &NodeId, up: &[(NodeId, Option<f64>)]) -> Option<usize> {
        let has = |slot: &Option<Slot>| slot.as_ref().is_some_and(|slot| slot.node == *node);
        if let Some(number) = self.0.iter().position(has) {
            if let Some(slot) = &mut self.0[number] {
                slot.seen = at;
                slot.since = slot.since.min(at); // a clock that went back
            }
            return Some(number);
        }
        let free = self.0.iter().position(Option::is_none).or_else(|| {
            let taken = self.0.iter().enumerate().filter_map(|(number, slot)| Some((number, slot.as_ref()?)));
            let away = taken.filter(|(_, slot)| !up.iter().any(|(node, _)| *node == slot.node));
            away.min_by_key(|(_, slot)| slot.seen).map(|(number, _)| number)
        })?;
        self.0[free] = Some(Slot { node: node.clone(), since: at, seen: at });
        Some(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(nodes: std::ops::Range<usize>) -> Vec<(NodeId, Option<f64>)> {
        nodes.map(|i| (format!("n{i}").parse().unwrap(), Some(1.0))).collect()
    }

    #[test]
    fn slots_are_kept_while_links_are_up_and_then_given_to_others() {
        let mut slots = Slots::default();
        assert_eq!(slots.fill(1, &up(0..MAX_PEERS)).len(), MAX_PEERS);
        assert_eq!(slots.fill(2, &up(0..MAX_PEERS + 5)).len(), MAX_PEERS, "no more than there are slots");
        let first = |slots: &Slots| slots.iter().next().map(|(_, slot)| slot.clone()).unwrap();
        assert_eq!(first(&slots), Slot { node: "n0".parse().unwrap(), since: 1, seen: 2 });
        slots.fill(3, &up(1..MAX_PEERS + 1));
        let newcomer = format!("n{MAX_PEERS}").parse().unwrap();
        assert_eq!(first(&slots), Slot { node: newcomer, since: 3, seen: 3 }, "n0 was away");
    }
}
