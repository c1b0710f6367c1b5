//! What survives restarts, full disks and damage.

use std::os::unix::fs::PermissionsExt as _;

use redb::{ReadableTable as _, TableDefinition};

use super::*;

const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// Another type than the table has
const TEXTS: TableDefinition<'_, &str, &str> = TableDefinition::new("numbers");

fn state() -> (tempfile::TempDir, StateDir) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::at(dir.path());
    (dir, state)
}

fn insert(store: &Store, name: &str, number: u64) -> Result<(), StoreError> {
    store.write(|transaction| {
        transaction.open_table(NUMBERS)?.insert(name, number)?;
        Ok(())
    })
}

fn numbers(store: &Store) -> Result<Vec<u64>, StoreError> {
    store.read(|transaction| {
        let table = match transaction.open_table(NUMBERS) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            table => table?,
        };
        Ok(table.iter()?.map(|entry| entry.map(|entry| entry.1.value())).collect::<Result<_, _>>()?)
    })
}

fn files(state: &StateDir) -> Vec<String> {
    let names = fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

#[test]
fn what_is_written_is_there_after_a_restart() {
    let (_dir, state) = state();
    let (store, none) = Store::open(&state, numbers).unwrap();
    assert!(none.is_empty());
    insert(&store, "a", 1).unwrap();
    let half: Result<(), _> = store.write(|transaction| {
        transaction.open_table(NUMBERS)?.insert("b", 2)?;
        Err(redb::StorageError::ValueTooLarge(0).into())
    });
    assert!(half.unwrap_err().to_string().contains("store.redb"));
    drop(store);
    let (_store, all) = Store::open(&state, numbers).unwrap();
    assert_eq!(all, [1]);
    let mode = fs::metadata(state.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_store_works_again_once_the_disk_does() {
    let (_dir, state) = state();
    let disk = faulty::Full::default();
    let store = disk.store(&state).unwrap();
    insert(&store, "a", 1).unwrap();
    disk.set(true);
    insert(&store, "b", 2).unwrap_err();
    insert(&store, "b", 2).unwrap_err();
    assert!(store.lock().failing);
    disk.set(false);
    insert(&store, "c", 3).unwrap();
    assert!(!store.lock().failing);
    assert_eq!(numbers(&store).unwrap(), [1, 3]);
    assert_eq!(files(&state), [FILE]);
}

#[test]
fn a_store_that_could_not_be_made_leaves_nothing_behind() {
    let (_dir, state) = state();
    let disk = faulty::Full::default();
    disk.set(true);
    disk.store(&state).unwrap_err();
    assert_eq!(files(&state), [""; 0]);
    disk.set(false);
    insert(&disk.store(&state).unwrap(), "a", 1).unwrap();
}

#[test]
fn a_damaged_store_is_put_aside() {
    let (_dir, state) = state();
    fs::write(state.path().join(FILE), vec![7; 100_000]).unwrap();
    let (_store, none) = Store::open(&state, numbers).unwrap();
    assert!(none.is_empty());
    let names = files(&state);
    assert_eq!(names.len(), 2);
    let aside = names.iter().find(|name| name.contains("damaged")).unwrap();
    assert_eq!(fs::read(state.path().join(aside)).unwrap(), vec![7; 100_000]);
}

#[test]
fn damage_that_is_found_only_when_it_is_read_is_put_aside_as_well() {
    let (_dir, state) = state();
    let (store, ()) = Store::open(&state, |_| Ok(())).unwrap();
    let write = |transaction: &WriteTransaction| {
        transaction.open_table(TEXTS)?.insert("a", "no number")?;
        Ok(())
    };
    store.write(write).unwrap();
    drop(store);
    let (store, none) = Store::open(&state, numbers).unwrap();
    assert_eq!((none, files(&state).len()), (vec![], 2));
    insert(&store, "a", 1).unwrap();
    assert_eq!(numbers(&store).unwrap(), [1]);
}

/// Whatever is broken in the file, the node starts.
#[test]
fn no_damage_keeps_the_store_from_opening() {
    let (_dir, state) = state();
    let (store, ()) = Store::open(&state, |_| Ok(())).unwrap();
    let names: Vec<_> = (0..500).map(|number| format!("name {number}")).collect();
    for (number, name) in (0..).zip(&names) {
        if number % 100 == 0 {
            insert(&store, name, number).unwrap();
        }
    }
    let all = |transaction: &WriteTransaction| {
        let mut table = transaction.open_table(NUMBERS)?;
        for (number, name) in (0..).zip(&names) {
            table.insert(name.as_str(), number)?;
        }
        Ok(())
    };
    store.write(all).unwrap();
    drop(store);
    let whole = fs::read(state.path().join(FILE)).unwrap();
    let used: Vec<_> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    for at in used.iter().step_by(used.len() / 50) {
        let mut damaged = whole.clone();
        damaged[*at..(*at + 16).min(whole.len())].fill(0xff);
        fs::write(state.path().join(FILE), damaged).unwrap();
        let (store, _) = Store::open(&state, numbers).unwrap_or_else(|error| panic!("at {at}: {error}"));
        insert(&store, "new", 1).unwrap_or_else(|error| panic!("at {at}: {error}"));
    }
}
