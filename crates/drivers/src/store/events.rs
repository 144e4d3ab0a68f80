//! The events: what was decided and seen, in order, for people. Nothing is decided by them.
//!
//! Noted without waiting for the disk; `sync`, which the agent calls at most every second, makes them durable. A killed
//! agent loses those since then, and their numbers are used again. The file is separate from the journal's, so that
//! events neither lengthen the journal's commits nor fill its room.
//!
//! **Invariant:** numbers are without gaps, and at most `events_max` events are kept: the newest.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
};

use super::{StoreError, make_directory, sealed, unsealed};

const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");

const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// An event as it was noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Counts this host's events from 1.
    pub seq: u64,
    /// As it was given.
    pub record: Vec<u8>,
}

/// The events of this host. Reading and noting may go on side by side.
#[derive(Debug)]
pub struct Events {
    file: PathBuf,
    events_max: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// None after a failure; the next call opens it again.
    database: Option<Arc<Database>>,
    unsynced: bool,
}

impl Events {
    /// Opens the events in `dir`, or creates them there. At most `events_max` are kept, at least one; 100,000 take about
    /// 50 MB and a tenth of a second to check at each start.
    ///
    /// # Errors
    /// `Garbled`: the agent may go on without old events once the file was moved away.
    pub fn open(dir: &Path, events_max: u64) -> Result<Events, StoreError> {
        make_directory(dir)?;
        let file = dir.join("events.redb");
        let database = Some(open_database(&file)?);
        let state = Mutex::new(State { database, unsynced: false });
        Ok(Events { file, events_max: events_max.max(1), state })
    }

    /// Notes events, in order, and drops the oldest beyond `events_max`. Answers with the first one's number. They are
    /// readable at once and durable after the next `sync`.
    ///
    /// # Errors
    /// `Failed`: none was noted, and those since the last `sync` may be lost; the next call tries afresh.
    pub fn note(&self, records: &[Vec<u8>]) -> Result<u64, StoreError> {
        self.with_database(|database, state| {
            let first = append(database, records, self.events_max)?;
            state.unsynced |= !records.is_empty();
            Ok(first)
        })
    }

    /// Makes all events durable. Costs nothing if none was noted since the last time, else it blocks for one `fdatasync`.
    ///
    /// # Errors
    /// `Failed`: events since the last `sync` may be lost; the next call tries afresh.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.with_database(|database, state| {
            if std::mem::take(&mut state.unsynced) {
                database.begin_write()?.commit()?;
            }
            Ok(())
        })
    }

    /// At most `limit` events from number `from_seq` on, oldest first.
    ///
    /// # Errors
    /// `Failed`, `UnknownVersion`.
    pub fn events(&self, from_seq: u64, limit: usize) -> Result<Vec<Noted>, StoreError> {
        let database = self.with_database(|database, _| Ok(Arc::clone(database)))?;
        let rows = rows(&database, from_seq, limit);
        self.understand(rows.map_err(|error| StoreError::failed(&self.file, error))?)
    }

    /// The newest events, at most `limit`, oldest first.
    ///
    /// # Errors
    /// `Failed`, `UnknownVersion`.
    pub fn latest(&self, limit: usize) -> Result<Vec<Noted>, StoreError> {
        let database = self.with_database(|database, _| Ok(Arc::clone(database)))?;
        let rows = newest_rows(&database, limit);
        self.understand(rows.map_err(|error| StoreError::failed(&self.file, error))?)
    }

    fn understand(&self, rows: Vec<(u64, Vec<u8>)>) -> Result<Vec<Noted>, StoreError> {
        rows.into_iter()
            .map(|(seq, stored)| {
                let record = unsealed(&self.file, &|| format!("event {seq}"), &stored)?;
                Ok(Noted { seq, record })
            })
            .collect()
    }

    fn with_database<T>(
        &self,
        act: impl FnOnce(&Arc<Database>, &mut State) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let mut state = self.lock();
        let database = match state.database.take() {
            Some(database) => database,
            None => open_database(&self.file)?,
        };
        let result = act(&database, &mut state);
        // After an error redb answers nothing else until it is opened again.
        if result.is_ok() {
            state.database = Some(database);
        }
        result.map_err(|error| StoreError::failed(&self.file, error))
    }

    /// A panic while it was held left at worst no database in it, which is provided for.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_database(file: &Path) -> Result<Arc<Database>, StoreError> {
    super::open_database(file, CACHE_BYTES, create_table).map(Arc::new)
}

fn create_table(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(EVENTS)?;
    transaction.commit()?;
    Ok(())
}

fn append(database: &Database, records: &[Vec<u8>], max: u64) -> Result<u64, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction
        .set_durability(Durability::None)
        .expect("no savepoint is used, and one process writes");
    let first;
    {
        let mut table = transaction.open_table(EVENTS)?;
        first = table.last()?.map_or(1, |(seq, _)| seq.value() + 1);
        for (seq, record) in (first..).zip(records) {
            table.insert(seq, sealed(record).as_slice())?;
        }
        while table.len()? > max {
            table.pop_first()?;
        }
    }
    transaction.commit()?;
    Ok(first)
}

type Rows = Vec<(u64, Vec<u8>)>;

fn rows(database: &Database, from_seq: u64, limit: usize) -> Result<Rows, redb::Error> {
    let table = database.begin_read()?.open_table(EVENTS)?;
    let mut rows = Vec::new();
    for row in table.range(from_seq..)?.take(limit) {
        let (seq, record) = row?;
        rows.push((seq.value(), record.value().to_vec()));
    }
    Ok(rows)
}

fn newest_rows(database: &Database, limit: usize) -> Result<Rows, redb::Error> {
    let table = database.begin_read()?.open_table(EVENTS)?;
    let mut rows = Vec::new();
    for row in table.iter()?.rev().take(limit) {
        let (seq, record) = row?;
        rows.push((seq.value(), record.value().to_vec()));
    }
    rows.reverse();
    Ok(rows)
}
