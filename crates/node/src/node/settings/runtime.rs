//! Proxies and services that were added at run time: kept in the node's store, so that they survive a restart.
//!
//! What is kept is the JSON text of the API. It is read as an item of the configuration file is.

use std::collections::{BTreeMap, BTreeSet};

use redb::{ReadableTable as _, TableDefinition, TableError};

use crate::config::{Problems, Proxy, Service};
use crate::store::{Store, StoreError};

/// Proxies that may be added at run time, and services: many times what people manage by hand, and few enough to be
/// compared with each other.
pub(super) const MAX_ENTRIES: usize = 1_000;

type Table = TableDefinition<'static, &'static str, &'static str>;

/// What may be added at run time.
pub(super) trait Kind: Clone + Send + 'static {
    /// Where it is kept: name to JSON
    const TABLE: Table;
    /// Its word
    const WORD: &'static str;
    /// Reads what is kept.
    fn parse(text: &str) -> Result<Self, Problems>;
    /// Its name
    fn name(&self) -> &str;
}

impl Kind for Proxy {
    const TABLE: Table = TableDefinition::new("runtime_proxies");
    const WORD: &'static str = "proxy";

    fn parse(text: &str) -> Result<Self, Problems> {
        Self::parse(text)
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Kind for Service {
    const TABLE: Table = TableDefinition::new("runtime_services");
    const WORD: &'static str = "service";

    fn parse(text: &str) -> Result<Self, Problems> {
        Self::parse(text)
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// All of one kind, by name.
#[derive(Debug, Clone)]
pub(super) struct Entries<T> {
    items: BTreeMap<String, T>,
    /// Kept, and not understood by this version
    foreign: BTreeSet<String>,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), foreign: BTreeSet::new() }
    }
}

impl<T: Kind> Entries<T> {
    /// Those in the store. What this version does not understand stays there, with a WARN.
    pub(super) fn load(store: &Store) -> Result<Self, StoreError> {
        store.read(|transaction| {
            let mut entries = Self::default();
            let table = match transaction.open_table(T::TABLE) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(entries),
                table => table?,
            };
            for entry in table.iter()? {
                let (name, text) = entry?;
            match T::parse(text.value()) {
                Ok(item) => drop(entries.items.insert(name.value().to_owned(), item)),
                Err(problems) => {
                    tracing::warn!(
                        "the {} {:?} that was added at run time is not understood by this version, and not used: {problems}",
                        T::WORD,
                        name.value()
                    );
                    entries.foreign.insert(name.value().to_owned());
                }
            }
        }
        Ok(entries)
        })
    }

    /// Those that this version understands, by name.
    pub(super) fn items(&self) -> impl Iterator<Item = &T> {
        self.items.values()
    }

    /// Whether one is called so, understood or not.
    pub(super) fn has(&self, name: &str) -> bool {
        self.items.contains_key(name) || self.foreign.contains(name)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.items.len() + self.foreign.len()
    }

    /// Puts one in the place of another, if that is named.
    pub(super) fn put(&mut self, instead: Option<&str>, item: T) {
        if let Some(name) = instead {
            self.remove(name);
        }
        self.foreign.remove(item.name());
        self.items.insert(item.name().to_owned(), item);
    }

    /// Takes one away.
    pub(super) fn remove(&mut self, name: &str) {
        self.items.remove(name);
        self.foreign.remove(name);
    }
}

/// Keeps in the store that one entry has gone and another one has come. On a thread for blocking work.
pub(super) async fn keep<T: Kind>(
    store: &Store,
    gone: Option<String>,
    new: Option<(String, String)>,
) -> Result<(), String> {
    let store = store.clone();
    let written = tokio::task::spawn_blocking(move || {
        store.write(|transaction| {
            let mut table = transaction.open_table(T::TABLE)?;
            if let Some(name) = &gone {
                table.remove(name.as_str())?;
            }
            if let Some((name, text)) = &new {
                table.insert(name.as_str(), text.as_str())?;
            }
            Ok(())
        })
    });
    written.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::StateDir;

    fn json(name: &str, port: u16) -> String {
        format!(
            r#"{{"name":"{name}","local_port":{port},"target_node_id":"b","target_address":"127.0.0.1:80"}}"#
        )
    }

    #[tokio::test]
    async fn entries_survive_a_restart_and_foreign_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path());
        let (store, none) = Store::open(&state, Entries::<Proxy>::load).unwrap();
        assert_eq!(none.len(), 0);
        for (name, text) in
            [("a", json("a", 1)), ("b", json("b", 2)), ("f", r#"{"name":"f","speaks":"x"}"#.to_owned())]
        {
            keep::<Proxy>(&store, None, Some((name.to_owned(), text))).await.unwrap();
        }
        keep::<Proxy>(&store, Some("b".to_owned()), Some(("c".to_owned(), json("c", 3)))).await.unwrap();
        drop(store);
        let (store, mut entries) = Store::open(&state, Entries::<Proxy>::load).unwrap();
        assert_eq!(entries.items().map(Kind::name).collect::<Vec<_>>(), ["a", "c"]);
        assert!(entries.has("f") && entries.len() == 3);
        assert_eq!(Entries::<Service>::load(&store).unwrap().len(), 0);
        entries.put(Some("a"), Kind::parse(&json("f", 4)).unwrap());
        assert_eq!((entries.items().map(Kind::name).collect::<Vec<_>>(), entries.len()), (vec!["c", "f"], 2));
        entries.remove("f");
        assert!(!entries.has("f"));
    }
}
