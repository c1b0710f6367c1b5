//! A disk that fails when a test wants it to.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageBackend};

use super::{Opener, Store, StoreError};
use crate::state::StateDir;

/// Whether writing fails, as on a disk that is full.
#[derive(Debug, Clone, Default)]
pub(crate) struct Full(Arc<AtomicBool>);

impl Full {
    pub(crate) fn set(&self, full: bool) {
        self.0.store(full, Ordering::SeqCst);
    }

    /// A store on this disk.
    pub(crate) fn store(&self, state: &StateDir) -> Result<Store, StoreError> {
        // As a node does, it is opened at once.
        let load = |store: &Store| store.read(|_| Ok(()));
        Ok(Store::open_by(self.opener(), state, load)?.0)
    }

    fn opener(&self) -> Opener {
        let full = self.clone();
        Arc::new(move |file: File| -> Result<Database, DatabaseError> {
            let disk = Disk { file: FileBackend::new(file)?, full: full.clone() };
            Database::builder().create_with_backend(disk)
        })
    }

    /// From now on a store is on this disk.
    pub(crate) fn take(&self, store: &Store) {
        let mut state = store.lock();
        state.database = None;
        state.opener = self.opener();
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

#[derive(Debug)]
struct Disk {
    file: FileBackend,
    full: Full,
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.full.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.full.check()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}
