//! The history in the node's store.
//!
//! Rows are written in blocks, once a minute and when the node ends, each block in one transaction that is on the disk
//! afterwards. So a crash loses a minute of seconds at most, and the disk is asked for one write a minute.

use ffmesh_core::id::NodeId;
use redb::{ReadableTable as _, TableDefinition, TableError, WriteTransaction};

use super::row::{MAX_PEERS, Row};
use super::slots::{Slot, Slots};
use crate::store::{Store, StoreError};

type Rows = TableDefinition<'static, i64, &'static [u8]>;

/// Rows by the moment that they end at, in seconds of Unix time
pub(super) const SECONDS: Rows = TableDefinition::new("history_seconds");
pub(super) const MINUTES: Rows = TableDefinition::new("history_minutes");
/// The neighbour of each slot, since when it is that one's, and when it was up last
const SLOTS: TableDefinition<'static, u8, (&str, i64, i64)> = TableDefinition::new("history_peers");

/// Rows that are to be written, and which ones there are to be then.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) rows: Vec<(i64, Vec<u8>)>,
    /// The first and the last; all others are removed
    pub(super) kept: Option<(i64, i64)>,
}

/// Writes what is new, and removes what is too old.
pub(super) fn write(
    store: &Store,
    seconds: &Block,
    minutes: &Block,
    slots: &Slots,
) -> Result<(), StoreError> {
    store.write(|transaction| {
        write_rows(transaction, SECONDS, seconds)?;
        write_rows(transaction, MINUTES, minutes)?;
        let mut table = transaction.open_table(SLOTS)?;
        for (number, slot) in slots.iter() {
            table.insert(number, (slot.node.as_str(), slot.since, slot.seen))?;
        }
        Ok(())
    })
}

fn write_rows(transaction: &WriteTransaction, rows: Rows, block: &Block) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(rows)?;
    for (at, bytes) in &block.rows {
        table.insert(at, &bytes[..])?;
    }
    if let Some((first, last)) = block.kept {
        table.retain_in(..first, |_, _| false)?;
        table.retain_in(last.saturating_add(1).., |_, _| false)?;
    }
    Ok(())
}

/// Reads all rows of a table. Those that cannot be read are skipped.
pub(super) fn read_rows(store: &Store, rows: Rows) -> Result<Vec<(i64, Row)>, StoreError> {
    store.read(|transaction| {
        let mut read = Vec::new();
        let Some(table) = there(transaction.open_table(rows))? else { return Ok(read) };
        for entry in table.iter()? {
            let (at, bytes) = entry?;
            if let Some(row) = Row::decode(bytes.value()) {
                read.push((at.value(), row));
            }
        }
        Ok(read)
    })
}

/// Reads who has which slot.
pub(super) fn read_slots(store: &Store) -> Result<Slots, StoreError> {
    store.read(|transaction| {
        let mut slots = Slots::default();
        let Some(table) = there(transaction.open_table(SLOTS))? else { return Ok(slots) };
        for entry in table.iter()? {
            let (number, slot) = entry?;
            let (node, since, seen) = slot.value();
            if let (true, Ok(node)) = (usize::from(number.value()) < MAX_PEERS, node.parse::<NodeId>()) {
                slots.set(number.value(), Slot { node, since, seen });
            }
        }
        Ok(slots)
    })
}

/// A table that was never written to does not exist.
fn there<T>(table: Result<T, TableError>) -> Result<Option<T>, redb::Error> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
