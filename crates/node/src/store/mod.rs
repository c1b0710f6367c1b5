//! The node's store: a database file in the state directory, for what must survive a restart and is no key.
//!
//! Its tables belong to the modules that keep something in it. A damaged file is put aside, never thrown away. A disk that
//! fails, or is full, is tried again: the database refuses all work after an error, so it is closed then, and opened anew
//! for whatever comes next.

#[cfg(test)]
pub(crate) mod faulty;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase as _, WriteTransaction};

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
    state: Arc<Mutex<State>>,
}

/// Makes a database of a file.
type Opener = Arc<dyn Fn(File) -> Result<Database, DatabaseError> + Send + Sync>;

struct State {
    opener: Opener,
    /// None after an error, until it is opened again
    database: Option<Database>,
    failing: bool,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("failing", &self.failing).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store of a state directory that this process holds, or makes it, and reads what `load` wants of it.
    ///
    /// # Errors
    /// What the file system says. A file that is damaged is renamed with a WARN, and a new one is made; also where only
    /// `load` finds the damage.
    pub fn open<T>(
        state: &StateDir,
        load: impl Fn(&Self) -> Result<T, StoreError>,
    ) -> Result<(Self, T), StoreError> {
        Self::open_by(Arc::new(database), state, load)
    }

    fn open_by<T>(
        opener: Opener,
        state: &StateDir,
        load: impl Fn(&Self) -> Result<T, StoreError>,
    ) -> Result<(Self, T), StoreError> {
        let closed = State { opener, database: None, failing: false };
        let store = Self { path: state.path().join(FILE).into(), state: Arc::new(Mutex::new(closed)) };
        let loaded = match load(&store) {
            Err(error) if is_damage(&error.source) => load(&store)?, // it is aside now
            loaded => loaded?,
        };
        Ok((store, loaded))
    }

    /// Reads: what is there now.
    pub fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        self.attempt(|database| read(&database.begin_read()?))
    }

    /// Writes all that `write` does, or nothing.
    pub fn write<T>(
        &self,
        write: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        self.attempt(|database| {
            let transaction = database.begin_write()?;
            let written = write(&transaction)?;
            transaction.commit()?;
            Ok(written)
        })
    }

    /// Does something with the database, opened if it is not. After an error it is closed; one that is damaged is put aside.
    fn attempt<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let mut state = self.lock();
        let done = unharmed(|| self.opened(&mut state).and_then(work));
        let done = done.or_else(|error| {
            let database = state.database.take();
            // What matters of it is in `error`.
            let _ = unharmed(|| {
                drop(database);
                Ok(())
            });
            if is_damage(&error) {
                self.put_aside(&error)?;
            }
            Err(error)
        });
        match &done {
            Ok(_) if std::mem::take(&mut state.failing) => {
                tracing::info!("the store {} works again", self.path.display());
            }
            Err(error) if !is_damage(error) && !std::mem::replace(&mut state.failing, true) => {
                tracing::warn!(
                    "the store {} does not work: {error}; until it does, the history stays in memory and nothing can be set \
                     at run time. Check that there is room; it is tried on",
                    self.path.display()
                );
            }
            _ => {}
        }
        done.map_err(|source| StoreError { path: self.path.to_path_buf(), source })
    }

    fn opened<'a>(&self, state: &'a mut State) -> Result<&'a Database, redb::Error> {
        let database = match state.database.take() {
            Some(database) => database,
            None => match unharmed(|| open(&self.path, &state.opener)) {
                Err(error) if is_damage(&error) => {
                    self.put_aside(&error)?;
                    open(&self.path, &state.opener)?
                }
                opened => opened?,
            },
        };
        Ok(state.database.insert(database))
    }

    /// Makes room for a new file.
    fn put_aside(&self, error: &redb::Error) -> Result<(), redb::Error> {
        let aside = self.path.with_extension(format!("redb.damaged-{}", Timestamp::now().as_second()));
        fs::rename(&self.path, &aside)?;
        tracing::warn!(
            "the store {} is damaged ({error}): it is now {}, and a new one is made; what was set at run time and the \
             history are in the old one only",
            self.path.display(),
            aside.display()
        );
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `redb` panics over some of the damage that it meets, which is no reason to end the node.
fn unharmed<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(redb::Error::Corrupted("it makes no sense".to_owned())))
}

/// Opens a database file, or makes it. One that could not be made leaves nothing behind.
fn open(path: &Path, opener: &Opener) -> Result<Database, redb::Error> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path)?;
    let is_new = file.metadata()?.len() == 0;
    opener(file).map_err(|error| {
        if is_new {
            let _ = fs::remove_file(path); // what is left of it would be taken for damage
        }
        error.into()
    })
}

fn database(file: File) -> Result<Database, DatabaseError> {
    Database::builder().set_cache_size(CACHE).create_with_backend(FileBackend::new(file)?)
}

/// Whether the file is not what it was when it was written. A table of another type is one that no version has made.
fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. } => true,
        _ => false,
    }
}
