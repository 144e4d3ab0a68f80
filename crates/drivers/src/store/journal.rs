//! The journal: who owns each VM, and every open move. It is on disk before anything is acted on.
//!
//!   Open ── write fails ──▶ Doubtful ── reread ──▶ Open
//!     ◀── write succeeds ──┘ (from Open)
//!
//! **Invariant:** what `write` answered with Ok is on disk, all of it or none, and is found at the next opening.
//! **Invariant:** after a failed write nothing is written before the file was reopened and reread.
//! **Invariant:** the file on disk is opened for writing only after a copy of it in memory was found whole.
//!
//! A write costs one `fdatasync`. redb's two-phase commit and quick repair would cost a second: the first protects
//! against forged records that survive a torn write, which nobody can send here; the second spares the check of a
//! file after a crash, which takes milliseconds at this size and is made at every opening anyway.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use decide::units::{HostId, JournalId, MoveId, VmId};
use redb::backends::InMemoryBackend;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use super::identity::{Identity, machine_hash};
use super::room::{Room, Shared};
use super::witness::{Doubt, Witness, doubt};
use super::{StoreError, make_directory, no_room, open_file, sealed, unsealed};

/// One row: the journal's identity.
const IDENTITY: TableDefinition<(), &[u8]> = TableDefinition::new("identity");
const VMS: TableDefinition<u128, &[u8]> = TableDefinition::new("vms");
/// By host, incarnation and counter.
const MOVES: TableDefinition<(u128, u32, u32), &[u8]> = TableDefinition::new("moves");

/// Length of a new journal: enough for some hundred VMs without lengthening it.
const NEW_LENGTH: u64 = 1024 * 1024;

/// What one commit may take beside its records: the pages on the way from the roots to them, those that the two
/// commits before still hold, and redb's own tables of free pages.
const COMMIT_ROOM: u64 = 256 * 1024;

/// How often a journal that may just be written is read.
const GLANCES_MAX: u32 = 20;

/// redb may round a record's room up to twice its size, and keeps the old one until the next commit.
const RECORD_FACTOR: u64 = 4;

const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// One record to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// What is known of a VM: its owner and epoch. It is never forgotten.
    Vm(VmId, Vec<u8>),
    /// What is known of a move; None: it has ended and is forgotten.
    Move(MoveId, Option<Vec<u8>>),
}

/// All that the journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// How often the journal was written.
    pub generation: u64,
    /// The VMs.
    pub vms: BTreeMap<VmId, Vec<u8>>,
    /// The open moves.
    pub moves: BTreeMap<MoveId, Vec<u8>>,
}

/// Where a journal is, and who opens it.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// The folder, on a disk that outlives the machine's boots.
    pub dir: &'a Path,
    /// A file that is gone after a boot: what the journal was last seen to be.
    pub witness: &'a Path,
    /// This machine's id: a journal of another one is refused.
    pub machine_id: &'a str,
    /// The id of the journal if one must be created.
    pub fresh_id: JournalId,
    /// Seconds since 1970: the least that the incarnation may be.
    pub now: u32,
}

/// A journal and what was found in it.
#[derive(Debug)]
pub struct Opened {
    /// To be written from now on.
    pub journal: Journal,
    /// Which journal it is.
    pub id: JournalId,
    /// Whether it was created just now: it knows nothing, and must neither void nor resume.
    pub fresh: bool,
    /// Why it may not be relied on for what it had open, if so: to be [renewed](Journal::renew) before anything is done by it.
    pub doubt: Option<Doubt>,
    /// Higher at each opening.
    pub incarnation: u32,
    /// How often it had been written before it was opened.
    pub found_at: u64,
    /// How often it was written, the opening included.
    pub generation: u64,
    /// The VMs.
    pub vms: BTreeMap<VmId, Vec<u8>>,
    /// The open moves.
    pub moves: BTreeMap<MoveId, Vec<u8>>,
}

/// The authority on who owns a VM.
#[derive(Debug)]
pub struct Journal {
    file: PathBuf,
    identity: Identity,
    /// None while doubtful.
    open: Option<OpenFile>,
    witness: Witness,
    /// Until it is renewed, the witness keeps what it has seen.
    in_doubt: bool,
    _lock: File,
}

#[derive(Debug)]
struct OpenFile {
    database: Database,
    room: Arc<Room>,
}

impl Journal {
    /// Opens the journal, or creates it, and counts the opening.
    ///
    /// # Errors
    /// Whatever the error, a journal that was there is as it was.
    pub fn open(opening: Opening<'_>) -> Result<Opened, StoreError> {
        let Opening { dir, witness, machine_id, fresh_id, now } = opening;
        make_directory(dir)?;
        let lock = take_lock(dir)?;
        let file = dir.join("journal.redb");
        let machine = machine_hash(machine_id);
        let fresh = !file.try_exists().map_err(|source| StoreError::unopened(&file, source))?;
        if fresh {
            create(dir, &file, Identity { machine, id: fresh_id, incarnation: 0, generation: 0 })?;
        }
        let found = rehearse(&file)?;
        if found.identity.machine != machine {
            return Err(StoreError::OtherMachine { file });
        }
        let (witness, seen) = Witness::open(witness)?;
        let found_at = found.identity.generation;
        let doubt = doubt(seen, (found.identity.id, found_at));
        let incarnation = found.identity.incarnation.saturating_add(1).max(now);
        let identity = Identity { incarnation, ..found.identity };
        let open = open_for_writing(&file)?;
        let in_doubt = doubt.is_some();
        let open = Some(open);
        let mut journal = Journal { file, identity, open, witness, in_doubt, _lock: lock };
        let generation = journal.write(&[])?;
        let Records { vms, moves, .. } = found.records;
        let id = identity.id;
        Ok(Opened { id, journal, fresh, doubt, incarnation, found_at, generation, vms, moves })
    }

    /// What the journal in this folder holds, an agent at work on it or not: read from a copy, nothing is touched. None: there is none.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn glance(dir: &Path) -> Result<Option<Records>, StoreError> {
        let file = dir.join("journal.redb");
        if !file.try_exists().map_err(|source| StoreError::unopened(&file, source))? {
            return Ok(None);
        }
        let mut found = rehearse(&file);
        for _ in 1..GLANCES_MAX {
            if found.is_ok() {
                break;
            }
            // A copy that was taken while it was being written may be half of each.
            found = rehearse(&file);
        }
        found.map(|found| Some(found.records))
    }

    /// Writes all of `entries`, or none; when it returns they are on disk. Answers with the generation, raised by one.
    /// It blocks for one `fdatasync`.
    ///
    /// # Errors
    /// `Failed`: whether they were written is known only after `reread`. `Doubtful`: nothing was written.
    pub fn write(&mut self, entries: &[Entry]) -> Result<u64, StoreError> {
        let Some(open) = &self.open else {
            return Err(StoreError::Doubtful { file: self.file.clone() });
        };
        let generation = self.identity.generation + 1;
        let identity = Identity { generation, ..self.identity };
        if let Err(error) = put(&open.database, &identity, entries) {
            self.open = None;
            return Err(StoreError::failed(&self.file, error));
        }
        self.identity = identity;
        if !self.in_doubt {
            self.witness.note(identity.id, generation);
        }
        Ok(generation)
    }

    /// Makes a journal in doubt another one, together with `entries`: nobody takes it for the one that promised. Answers
    /// with the generation.
    ///
    /// # Errors
    /// As `write`; it is as doubtful at the next opening.
    pub fn renew(&mut self, id: JournalId, entries: &[Entry]) -> Result<u64, StoreError> {
        let before = std::mem::replace(&mut self.identity.id, id);
        let written = self.write(entries);
        match written {
            Ok(generation) => {
                self.in_doubt = false;
                self.witness.note(id, generation);
            }
            Err(_) => self.identity.id = before,
        }
        written
    }

    /// Closes the file, makes sure that what it reads as is on disk, opens it again and reads it.
    ///
    /// # Errors
    /// The journal stays doubtful. `RolledBack`: an acknowledged write is gone.
    pub fn reread(&mut self) -> Result<Records, StoreError> {
        self.open = None;
        write_back(&self.file)?;
        let found = rehearse(&self.file)?;
        let acknowledged = self.identity.generation;
        let generation = found.identity.generation;
        if found.identity.id != self.identity.id || generation < acknowledged {
            let file = self.file.clone();
            return Err(StoreError::RolledBack { file, acknowledged, found: generation });
        }
        self.open = Some(open_for_writing(&self.file)?);
        self.identity.generation = generation;
        Ok(found.records)
    }

    /// Makes sure that records of `bytes` in all can be written, whatever else fills the disk. To be asked for all open
    /// moves together, before readiness; records longer than a page (4 KiB) may still need more.
    ///
    /// # Errors
    /// `NoRoom`: the journal is as it was and can be written, without promise. `Doubtful`.
    pub fn reserve(&mut self, bytes: u64) -> Result<(), StoreError> {
        let Some(open) = &self.open else {
            return Err(StoreError::Doubtful { file: self.file.clone() });
        };
        let used = used_bytes(&open.database).map_err(|error| {
            // The failed transaction may have changed nothing, but who knows.
            StoreError::failed(&self.file, error)
        });
        let used = match used {
            Ok(used) => used,
            Err(error) => {
                self.open = None;
                return Err(error);
            }
        };
        let peak = bytes.saturating_mul(RECORD_FACTOR).saturating_add(used + COMMIT_ROOM);
        // redb doubles the file when it has no free page, so it asks for less than twice the peak.
        let length = peak.saturating_mul(2).next_multiple_of(4096);
        open.room.hold(length).map_err(|error| {
            if super::is_full(&error) {
                no_room(&self.file, length - open.room.held())
            } else {
                StoreError::failed(&self.file, redb::Error::Io(error))
            }
        })
    }
}

fn take_lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let lock = open_file(&path)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::InUse { dir: dir.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(StoreError::unopened(&path, source)),
    }
}

/// Creates the journal under another name first: under its own it is whole or not there.
fn create(dir: &Path, file: &Path, identity: Identity) -> Result<(), StoreError> {
    let unfinished = dir.join("journal.redb.new");
    let result = create_as(&unfinished, identity).and_then(|()| {
        let moved = std::fs::rename(&unfinished, file).and_then(|()| File::open(dir)?.sync_all());
        moved.map_err(|source| StoreError::unopened(file, source))
    });
    if result.is_err() {
        // It holds nothing; if it cannot be removed, the next creation begins by emptying it.
        let _ = std::fs::remove_file(&unfinished);
    }
    result
}

fn create_as(unfinished: &Path, identity: Identity) -> Result<(), StoreError> {
    let file = open_file(unfinished)?;
    file.set_len(0).map_err(|source| StoreError::unopened(unfinished, source))?;
    let opening = |error| StoreError::opening(unfinished, error);
    let room = Room::new(file).map_err(opening)?;
    let backend = Shared(Arc::clone(&room));
    let database = builder().create_with_backend(backend).map_err(|error| opening(error.into()))?;
    put(&database, &identity, &[]).map_err(opening)?;
    drop(database);
    room.hold(NEW_LENGTH).map_err(|error| {
        if super::is_full(&error) {
            no_room(unfinished, NEW_LENGTH)
        } else {
            StoreError::unopened(unfinished, error)
        }
    })
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

struct Found {
    identity: Identity,
    records: Records,
}

/// Opens a copy in memory, where redb may check, mend or reject it, and reads all of it.
fn rehearse(file: &Path) -> Result<Found, StoreError> {
    let bytes = std::fs::read(file).map_err(|source| StoreError::unopened(file, source))?;
    let opening = |error| StoreError::opening(file, error);
    if bytes.is_empty() {
        return Err(opening(redb::Error::Corrupted("the file is empty".to_owned())));
    }
    let copy = InMemoryBackend::new();
    let length = u64::try_from(bytes.len()).expect("usize has at most 64 bits");
    copy.set_len(length).and_then(|()| copy.write(0, &bytes)).map_err(|e| opening(e.into()))?;
    let opened = builder().set_check_integrity_on_open(true).create_with_backend(copy);
    read_all(file, &opened.map_err(|error| opening(error.into()))?)
}

/// Writes the file again as it reads. After a failed `fsync` Linux takes the pages it could not write for written:
/// they read well until they are evicted, and no later `fsync` would bring them to the disk.
fn write_back(file: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::unopened(file, source);
    let bytes = std::fs::read(file).map_err(failed)?;
    let written = OpenOptions::new().write(true).open(file).map_err(failed)?;
    written.write_all_at(&bytes, 0).and_then(|()| written.sync_all()).map_err(failed)
}

fn open_for_writing(file: &Path) -> Result<OpenFile, StoreError> {
    let room = Room::new(open_file(file)?).map_err(|error| StoreError::opening(file, error))?;
    let database = builder()
        .create_with_backend(Shared(Arc::clone(&room)))
        .map_err(|error| StoreError::opening(file, error))?;
    Ok(OpenFile { database, room })
}

fn put(database: &Database, identity: &Identity, entries: &[Entry]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        transaction.open_table(IDENTITY)?.insert((), identity.encode().as_slice())?;
        let mut vms = transaction.open_table(VMS)?;
        let mut moves = transaction.open_table(MOVES)?;
        for entry in entries {
            match entry {
                Entry::Vm(vm, record) => {
                    vms.insert(vm.0, sealed(record).as_slice())?;
                }
                Entry::Move(id, Some(record)) => {
                    moves.insert(move_key(*id), sealed(record).as_slice())?;
                }
                Entry::Move(id, None) => {
                    moves.remove(move_key(*id))?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn move_key(id: MoveId) -> (u128, u32, u32) {
    (id.host.0, id.incarnation, id.counter)
}

fn read_all(file: &Path, database: &Database) -> Result<Found, StoreError> {
    read_raw(database).map_err(|error| StoreError::opening(file, error))?.understand(file)
}

/// As stored, with version bytes.
struct Raw {
    identity: Vec<u8>,
    vms: Vec<(VmId, Vec<u8>)>,
    moves: Vec<(MoveId, Vec<u8>)>,
}

fn read_raw(database: &Database) -> Result<Raw, redb::Error> {
    let transaction = database.begin_read()?;
    let identity = transaction.open_table(IDENTITY)?.get(())?;
    let identity = identity.map(|stored| stored.value().to_vec()).unwrap_or_default();
    let mut raw = Raw { identity, vms: Vec::new(), moves: Vec::new() };
    for row in transaction.open_table(VMS)?.iter()? {
        let (key, record) = row?;
        raw.vms.push((VmId(key.value()), record.value().to_vec()));
    }
    for row in transaction.open_table(MOVES)?.iter()? {
        let (key, record) = row?;
        let (host, incarnation, counter) = key.value();
        let id = MoveId { host: HostId(host), incarnation, counter };
        raw.moves.push((id, record.value().to_vec()));
    }
    Ok(raw)
}

impl Raw {
    fn understand(self, file: &Path) -> Result<Found, StoreError> {
        let identity = Identity::decode(&self.identity).map_err(|version| {
            let what = "the journal's identity".to_owned();
            StoreError::UnknownVersion { file: file.to_owned(), what, version }
        })?;
        let mut records = Records { generation: identity.generation, ..Records::default() };
        for (vm, stored) in self.vms {
            records.vms.insert(vm, unsealed(file, &|| format!("VM {vm}"), &stored)?);
        }
        for (id, stored) in self.moves {
            records.moves.insert(id, unsealed(file, &|| format!("move {id}"), &stored)?);
        }
        Ok(Found { identity, records })
    }
}

/// Pages in use, those of the last commits included.
fn used_bytes(database: &Database) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let stats = transaction.stats()?;
    let page_size = u64::try_from(stats.page_size()).expect("usize has at most 64 bits");
    let used = stats.allocated_pages() * page_size;
    transaction.abort()?;
    Ok(used)
}
