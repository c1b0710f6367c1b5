//! The node's store: a database file in the state directory, for what must survive a restart and is no key.
//!
//! Its tables belong to the modules that keep something in it. A damaged file is put aside, never thrown away.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase as _, StorageError, WriteTransaction};

use crate::state::StateDir;

const FILE: &str = "store.redb";
/// Memory for pages of the file.
const CACHE: usize = 1 << 20;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}: {source}; check that there is room and that it belongs to this user", path.display())]
pub struct StoreError {
    path: PathBuf,
    source: redb::Error,
}

/// The store. Cheap to clone; calls block while the disk works.
#[derive(Debug, Clone)]
pub struct Store {
    path: Arc<Path>,
    database: Arc<Database>,
}

impl Store {
    /// Opens the store of a state directory that this process holds, or makes it.
    ///
    /// # Errors
    /// What the file system says. A file that is damaged is renamed with a WARN, and a new one is made.
    pub fn open(state: &StateDir) -> Result<Self, StoreError> {
        let path = state.path().join(FILE);
        let database = match open(&path) {
            Err(error) if is_damage(&error) => {
                let aside = path.with_extension(format!("redb.damaged-{}", Timestamp::now().as_second()));
                tracing::warn!(
                    "the store {} is damaged ({error}): it is now {}, and a new one is made; what was set at run \
                     time and the history are gone",
                    path.display(),
                    aside.display()
                );
                std::fs::rename(&path, &aside)
                    .map_err(|error| StoreError { path: path.clone(), source: error.into() })?;
                open(&path)
            }
            opened => opened,
        };
        match database {
            Ok(database) => Ok(Self { path: path.into(), database: Arc::new(database) }),
            Err(error) => Err(StoreError { path, source: error.into() }),
        }
    }

    /// Begins to read: what is there now, whatever is written meanwhile.
    pub fn read(&self) -> Result<ReadTransaction, StoreError> {
        self.database.begin_read().map_err(|error| self.failed(error))
    }

    /// Writes all that `write` does, or nothing.
    pub fn write<T>(
        &self,
        write: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let transaction = self.database.begin_write().map_err(|error| self.failed(error))?;
        let written = write(&transaction).map_err(|error| self.failed(error))?;
        transaction.commit().map_err(|error| self.failed(error))?;
        Ok(written)
    }

    /// An error of this store.
    pub fn failed(&self, error: impl Into<redb::Error>) -> StoreError {
        StoreError { path: self.path.to_path_buf(), source: error.into() }
    }
}

fn open(path: &Path) -> Result<Database, DatabaseError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(StorageError::from)?;
    Database::builder().set_cache_size(CACHE).create_with_backend(FileBackend::new(file)?)
}

fn is_damage(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Storage(StorageError::Io(error)) => error.kind() == std::io::ErrorKind::InvalidData,
        DatabaseError::Storage(StorageError::Corrupted(_)) | DatabaseError::UpgradeRequired(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::{ReadableTable as _, TableDefinition};
    use std::os::unix::fs::PermissionsExt as _;

    const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");

    fn state() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path());
        (dir, state)
    }

    #[test]
    fn what_is_written_is_there_after_a_restart() {
        let (_dir, state) = state();
        let store = Store::open(&state).unwrap();
        store
            .write(|transaction| {
                transaction.open_table(NUMBERS)?.insert("a", 1)?;
                Ok(())
            })
            .unwrap();
        let half: Result<(), _> = store.write(|transaction| {
            transaction.open_table(NUMBERS)?.insert("b", 2)?;
            Err(StorageError::ValueTooLarge(0).into())
        });
        assert!(half.unwrap_err().to_string().contains("store.redb"));
        drop(store);
        let store = Store::open(&state).unwrap();
        let table = store.read().unwrap().open_table(NUMBERS).unwrap();
        let all: Vec<_> = table.iter().unwrap().map(|entry| entry.unwrap().1.value()).collect();
        assert_eq!(all, [1]);
        let mode = std::fs::metadata(state.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_store_is_put_aside() {
        let (_dir, state) = state();
        std::fs::write(state.path().join(FILE), vec![7; 100_000]).unwrap();
        Store::open(&state).unwrap();
        let names = std::fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        assert_eq!(names.len(), 2);
        let aside = names.iter().find(|name| name.contains("damaged")).unwrap();
        assert_eq!(std::fs::read(state.path().join(aside)).unwrap(), vec![7; 100_000]);
    }
}
