//! Usage histories on disk, in a file of their own (`history.redb`): no write of theirs ever delays the journal's.
//!
//! ```text
//!   closed spans ─▶ rows, one each ─(enough of them)─▶ block, packed ─(older than its level's time)─▶ dropped
//! ```
//!
//! One transaction writes what has closed in all histories since the last; the agent makes one a minute. It is on disk when it
//! ends: an agent that is killed loses what had closed since then.
//!
//! **Invariant:** a level never holds more than its time and one block; histories of VMs that are gone for [`GONE_MAX`], and
//! those beyond [`HISTORIES_MAX`], are dropped.
//! **Invariant:** nothing in the file stops the agent: a file that cannot be used is set aside and a new one begun, a block
//! that cannot be unpacked is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use decide::units::Time;
use decide::usage::history::levels::{Closed, Level};
use decide::usage::history::past::Past;
use decide::usage::history::quarters::Quarters;
use decide::usage::history::{Kept, Whose};
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::{StoreError, make_directory, sealed, unsealed};
use key::{Key, Owner, key, number, of_level, of_owner, owner};

mod came;
mod key;
pub mod pack;
mod row;
#[cfg(test)]
mod tests;
pub mod travel;

use came::STAGED;
pub use came::STAGED_MAX;
use pack::{BLOCK_MAX, pack, unpack};

const ROWS: TableDefinition<Key, &[u8]> = TableDefinition::new("rows");
const BLOCKS: TableDefinition<Key, &[u8]> = TableDefinition::new("blocks");
/// When each history was last written.
const OWNERS: TableDefinition<Owner, u64> = TableDefinition::new("owners");
/// Where VMs were before.
const PASTS: TableDefinition<Owner, &[u8]> = TableDefinition::new("pasts");

/// Kept of a VM that is gone, in case that it comes back.
pub const GONE_MAX: Duration = Duration::from_hours(7 * 24);
/// Histories in one file; the one that was written longest ago goes first.
pub const HISTORIES_MAX: usize = 1000;
/// Little: nothing is read twice.
const CACHE_BYTES: usize = 2 * 1024 * 1024;

/// How long each level is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spans {
    /// Spans of ten seconds.
    pub ten_seconds: Duration,
    /// Minutes.
    pub minutes: Duration,
    /// Quarters of an hour.
    pub quarters: Duration,
}

impl Default for Spans {
    fn default() -> Spans {
        let hours = Duration::from_hours;
        Spans { ten_seconds: hours(6), minutes: hours(2 * 24), quarters: hours(30 * 24) }
    }
}

impl Spans {
    /// How long that level is kept.
    #[must_use]
    pub fn of(&self, level: Level) -> Duration {
        match level {
            Level::TenSeconds => self.ten_seconds,
            Level::Minute => self.minutes,
            Level::Quarter => self.quarters,
        }
    }
}

/// All histories of this host.
#[derive(Debug)]
pub struct Histories {
    file: PathBuf,
    spans: Spans,
    /// None after a failure; the next call opens it again.
    database: Option<Database>,
}

impl Histories {
    /// Opens the histories in `dir`, or begins them there. A file that cannot be used is set aside, under a name that ends in
    /// `.bad`, and told as the second value.
    ///
    /// # Errors
    /// If there cannot be a new one either.
    pub fn open(dir: &Path, spans: Spans) -> Result<(Histories, Option<StoreError>), StoreError> {
        make_directory(dir)?;
        let file = dir.join("history.redb");
        let (database, set_aside) = match open_database(&file) {
            Ok(database) => (database, None),
            Err(bad @ StoreError::Garbled { .. }) => {
                std::fs::rename(&file, file.with_extension("redb.bad"))
                    .map_err(|error| StoreError::unopened(&file, error))?;
                (open_database(&file)?, Some(bad))
            }
            Err(error) => return Err(error),
        };
        Ok((Histories { file, spans, database: Some(database) }, set_aside))
    }

    /// Writes what is to be kept, in one transaction; it is on disk when this ends. Packs and drops what is due.
    ///
    /// # Errors
    /// `Failed`: nothing of it was written; the next call tries afresh.
    pub fn write(&mut self, kept: &[Kept]) -> Result<(), StoreError> {
        let spans = self.spans;
        self.with_database(|database| {
            let transaction = database.begin_write()?;
            put(&transaction, &spans, kept)?;
            transaction.commit()?;
            Ok(())
        })
    }

    /// What is kept of one level of a history, oldest first, from `since` on.
    ///
    /// # Errors
    /// `Failed`; the next call tries afresh.
    pub fn read(
        &mut self,
        whose: Whose,
        level: Level,
        since: Time,
    ) -> Result<Vec<Closed>, StoreError> {
        self.with_database(|database| {
            let transaction = database.begin_read()?;
            let (blocks, rows) = (transaction.open_table(BLOCKS)?, transaction.open_table(ROWS)?);
            let mut spans = level_of(&blocks, &rows, whose, level)?;
            spans.retain(|span| span.start >= since);
            Ok(spans)
        })
    }

    /// Bytes that a history takes, without what the file itself needs.
    ///
    /// # Errors
    /// `Failed`; the next call tries afresh.
    pub fn bytes(&mut self, whose: Whose) -> Result<u64, StoreError> {
        self.with_database(|database| {
            let transaction = database.begin_read()?;
            let mut bytes = 0;
            for table in [ROWS, BLOCKS] {
                for entry in transaction.open_table(table)?.range(of_owner(&owner(whose)))? {
                    let (at, stored) = entry?;
                    bytes += at.value().len() as u64 + stored.value().len() as u64;
                }
            }
            Ok(bytes)
        })
    }

    /// What a host must know of a history to go on with it; nothing if nothing is kept. What came with the VM and was set aside is
    /// joined to what is kept before.
    ///
    /// # Errors
    /// `Failed`; the next call tries afresh.
    pub fn recall(&mut self, whose: Whose) -> Result<Option<(Quarters, Past)>, StoreError> {
        self.join_staged(whose)?;
        let (quarters, past) = self.with_database(|database| {
            let transaction = database.begin_read()?;
            let (blocks, rows) = (transaction.open_table(BLOCKS)?, transaction.open_table(ROWS)?);
            let mut quarters = Quarters::default();
            level_of(&blocks, &rows, whose, Level::Quarter)?.iter().for_each(|q| quarters.push(q));
            Ok((quarters, past_of(&transaction.open_table(PASTS)?, whose)?))
        })?;
        let nothing = quarters.is_empty() && past.stays().is_empty();
        Ok((!nothing).then_some((quarters, past)))
    }

    fn with_database<T>(
        &mut self,
        act: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open_database(&self.file)?,
        };
        let result = act(&database);
        // After an error redb answers nothing else until it is opened again.
        if result.is_ok() {
            self.database = Some(database);
        }
        result.map_err(|error| StoreError::failed(&self.file, error))
    }
}

fn open_database(file: &Path) -> Result<Database, StoreError> {
    super::open_database(file, CACHE_BYTES, create_tables)
}

fn create_tables(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(ROWS)?;
    transaction.open_table(BLOCKS)?;
    transaction.open_table(OWNERS)?;
    transaction.open_table(PASTS)?;
    transaction.open_table(STAGED)?;
    transaction.commit()?;
    Ok(())
}

/// Rows that wait before they are packed: fewer of them make more work, more of them take more room.
fn rows_max(level: Level) -> usize {
    match level {
        Level::TenSeconds => 60,
        Level::Minute => 30,
        Level::Quarter => 8,
    }
}

fn put(transaction: &WriteTransaction, keep: &Spans, kept: &[Kept]) -> Result<(), redb::Error> {
    let mut rows = transaction.open_table(ROWS)?;
    let mut touched: BTreeMap<(Whose, Level), Time> = BTreeMap::new();
    for kept in kept {
        match kept {
            Kept::Span(whose, Closed { level, start, stats }) => {
                let at = key(*whose, *level, level.number(*start));
                rows.insert(at, row::encode(stats).as_slice())?;
                let newest = touched.entry((*whose, *level)).or_default();
                *newest = (*newest).max(*start);
            }
            Kept::Past(vm, past) => {
                let mut pasts = transaction.open_table(PASTS)?;
                // What is kept may have come with the VM, and not be known to who says this.
                let mut all = past_of(&pasts, Whose::Vm(*vm))?;
                all.import(past);
                let record = serde_json::to_vec(&all).expect("ids and names have a form");
                pasts.insert(owner(Whose::Vm(*vm)), sealed(&record).as_slice())?;
            }
        }
    }
    let mut blocks = transaction.open_table(BLOCKS)?;
    for ((whose, level), newest) in &touched {
        seal(&mut rows, &mut blocks, *whose, *level)?;
        let before = newest.minus(keep.of(*level));
        trim(&mut blocks, *whose, *level, level.number(before))?;
    }
    drop(rows);
    drop(blocks);
    note_owners(transaction, &touched)
}

/// Packs rows into blocks once there are enough of them: into the newest block, until that is full.
fn seal(
    rows: &mut Table<'_, Key, &'static [u8]>,
    blocks: &mut Table<'_, Key, &'static [u8]>,
    whose: Whose,
    level: Level,
) -> Result<(), redb::Error> {
    let mut loose = Vec::new();
    for entry in rows.range(of_level(whose, level))? {
        let (at, bytes) = entry?;
        let start = level.at(number(&at.value()));
        loose.extend(row::decode(bytes.value()).ok().map(|stats| Closed { level, start, stats }));
    }
    if loose.len() < rows_max(level) {
        return Ok(());
    }
    rows.retain_in(of_level(whose, level), |_, _| false)?;
    let newest = blocks.range(of_level(whose, level))?.next_back().transpose()?;
    let newest = newest.map(|(at, bytes)| (at.value(), bytes.value().to_vec()));
    let mut spans = Vec::new();
    if let Some((at, bytes)) = newest {
        match unpack(level, number(&at), &bytes) {
            Ok(packed) if packed.len() < BLOCK_MAX => spans = packed,
            Ok(_) => {}
            Err(why) => {
                tracing::warn!(%why, ?whose, ?level, "a block of a history cannot be unpacked and is dropped");
                blocks.remove(at)?;
            }
        }
    }
    // A clock that was set back writes again what is there: the newer word counts.
    let mut joined: BTreeMap<u64, Closed> = BTreeMap::new();
    joined.extend(spans.into_iter().chain(loose).map(|span| (level.number(span.start), span)));
    let joined: Vec<Closed> = joined.into_values().collect();
    let apart = |a: &Closed, b: &Closed| pack::fits(level, a, b);
    for part in joined.chunk_by(apart).flat_map(|part| part.chunks(BLOCK_MAX)) {
        let first = level.number(part[0].start);
        blocks.insert(key(whose, level, first), pack(level, part).as_slice())?;
    }
    Ok(())
}

/// Drops the blocks of which all spans are older than this number.
fn trim(
    blocks: &mut Table<'_, Key, &'static [u8]>,
    whose: Whose,
    level: Level,
    oldest: u64,
) -> Result<(), redb::Error> {
    let mut starts = Vec::new();
    for entry in blocks.range(of_level(whose, level))? {
        starts.push(entry?.0.value());
    }
    // A block is over where the next one begins.
    for pair in starts.windows(2).take_while(|pair| number(&pair[1]) <= oldest) {
        blocks.remove(pair[0])?;
    }
    Ok(())
}

/// Notes when histories were written, and drops those that were not for long.
fn note_owners(
    transaction: &WriteTransaction,
    touched: &BTreeMap<(Whose, Level), Time>,
) -> Result<(), redb::Error> {
    let Some(now) = touched.values().max() else { return Ok(()) };
    let mut owners = transaction.open_table(OWNERS)?;
    let mut fresh = BTreeSet::new();
    for (whose, _) in touched.keys() {
        owners.insert(owner(*whose), now.0)?;
        fresh.insert(owner(*whose));
    }
    let mut known: Vec<(u64, Owner)> = Vec::new();
    for entry in owners.iter()? {
        let (at, written) = entry?;
        known.push((written.value(), at.value()));
    }
    known.sort_unstable();
    let beyond = known.len().saturating_sub(HISTORIES_MAX);
    let gone = |(index, (written, at)): &(usize, (u64, Owner))| {
        !fresh.contains(at) && (*index < beyond || now.since(Time(*written)) > GONE_MAX)
    };
    for (_, (_, at)) in known.into_iter().enumerate().filter(gone) {
        owners.remove(at)?;
        drop_owner(transaction, &at)?;
    }
    Ok(())
}

fn drop_owner(transaction: &WriteTransaction, whose: &Owner) -> Result<(), redb::Error> {
    transaction.open_table(ROWS)?.retain_in(of_owner(whose), |_, _| false)?;
    transaction.open_table(BLOCKS)?.retain_in(of_owner(whose), |_, _| false)?;
    transaction.open_table(PASTS)?.remove(*whose)?;
    Ok(())
}

/// All spans of one level, oldest first. A block that cannot be unpacked is passed over.
fn level_of(
    blocks: &impl ReadableTable<Key, &'static [u8]>,
    rows: &impl ReadableTable<Key, &'static [u8]>,
    whose: Whose,
    level: Level,
) -> Result<Vec<Closed>, redb::Error> {
    let mut spans: BTreeMap<u64, Closed> = BTreeMap::new();
    for entry in blocks.range(of_level(whose, level))? {
        let (at, bytes) = entry?;
        let block = unpack(level, number(&at.value()), bytes.value()).unwrap_or_default();
        spans.extend(block.into_iter().map(|span| (level.number(span.start), span)));
    }
    for entry in rows.range(of_level(whose, level))? {
        let (at, bytes) = entry?;
        let first = number(&at.value());
        if let Ok(stats) = row::decode(bytes.value()) {
            spans.insert(first, Closed { level, start: level.at(first), stats });
        }
    }
    Ok(spans.into_values().collect())
}

/// Where a VM was; nothing if that is not known or cannot be read.
fn past_of(
    pasts: &impl ReadableTable<Owner, &'static [u8]>,
    whose: Whose,
) -> Result<Past, redb::Error> {
    let stored = pasts.get(owner(whose))?.map(|stored| stored.value().to_vec());
    let read = |stored: Vec<u8>| {
        let record = unsealed(Path::new(""), &|| "where a VM was".to_owned(), &stored).ok()?;
        serde_json::from_slice(&record).ok()
    };
    Ok(stored.and_then(read).unwrap_or_default())
}
