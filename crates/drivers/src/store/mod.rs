//! What outlives the agent: the journal, which is the authority on who owns a VM, the events, which tell the story, and the
//! usage histories.
//!
//! Three files in one directory (mode 0700, files 0600): `journal.redb`, small, every write on disk before it is answered;
//! `events.redb`, larger, written behind, so that no event ever stands in the way of a hand-over; `history.redb`, the usage
//! histories, written once a minute.
//!
//! **Invariant:** one agent at a time: `lock` is held from opening to the end, also while a file is being reopened.
//! **Invariant:** a file that is not understood is reported and left as it is.

mod events;
pub mod history;
mod identity;
mod journal;
mod room;
mod witness;

use std::io;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database};

pub use self::events::{Events, Noted};
pub use self::journal::{Entry, Journal, Opened, Opening, Records};
pub use self::witness::Doubt;

/// Opens a file that is not the journal, with its tables made, so that reading finds them.
fn open_database(
    file: &Path,
    cache_bytes: usize,
    create_tables: fn(&Database) -> Result<(), redb::Error>,
) -> Result<Database, StoreError> {
    let opening = |error| StoreError::opening(file, error);
    let backend = FileBackend::new(open_file(file)?).map_err(|error| opening(error.into()))?;
    let database = Builder::new()
        .set_cache_size(cache_bytes)
        .set_check_integrity_on_open(true)
        .create_with_backend(backend)
        .map_err(|error| opening(error.into()))?;
    create_tables(&database).map_err(opening)?;
    Ok(database)
}

/// Form of every stored record, its first byte. Raised when the form changes.
const RECORD_VERSION: u8 = 1;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The journal was copied here from another machine. Nothing was changed.
    #[error(
        "{} was written on another machine: it does not say who owns the VMs of this one; \
         put back this machine's own journal, or move the file away to start without one", .file.display()
    )]
    OtherMachine {
        /// The journal.
        file: PathBuf,
    },
    /// Another agent works with this directory. Nothing was changed.
    #[error("another agent is using {}: stop it first, or give this one a directory of its own", .dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The file is damaged, or none of ours. It was left as it is.
    #[error(
        "{} is damaged or not an Evenkeel file: restore it, or move it away to start without it", .file.display()
    )]
    Garbled {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<redb::Error>,
    },
    /// A newer agent wrote this file. It was left as it is.
    #[error(
        "{}: {what} has the form {version}, this agent knows {RECORD_VERSION}: install the agent that wrote it", .file.display()
    )]
    UnknownVersion {
        /// The file.
        file: PathBuf,
        /// Which record.
        what: String,
        /// Its version byte.
        version: u8,
    },
    /// The disk is too full. What was on disk is unchanged and still usable.
    #[error("no room on the disk of {}: {needed} bytes are needed, {free} are free", .path.display())]
    NoRoom {
        /// A file on that disk.
        path: PathBuf,
        /// Bytes that were needed in addition.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The write failed: it may or may not be on disk. Reread before answering anybody.
    #[error("writing {}", .file.display())]
    Failed {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// An earlier write failed and the journal was not reread since. Nothing was written.
    #[error("{} must be reread after a failed write before it is written again", .file.display())]
    Doubtful {
        /// The journal.
        file: PathBuf,
    },
    /// The disk lost what it had acknowledged. Nothing in the journal may be relied on: it never voids and never resumes.
    #[error(
        "{} went back from generation {acknowledged} to {found}: the disk lost what it had acknowledged", .file.display()
    )]
    RolledBack {
        /// The journal.
        file: PathBuf,
        /// The last generation that was acknowledged.
        acknowledged: u64,
        /// The one that was found.
        found: u64,
    },
    /// The directory or file cannot be opened or made.
    #[error("opening {}", .path.display())]
    Unopened {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    fn unopened(path: &Path, source: impl Into<io::Error>) -> StoreError {
        StoreError::Unopened { path: path.to_owned(), source: source.into() }
    }

    /// What opening a database failed with, by what can be done about it.
    fn opening(file: &Path, error: impl Into<redb::Error>) -> StoreError {
        let dir = file.parent().unwrap_or(file).to_owned();
        let file = file.to_owned();
        #[expect(clippy::wildcard_enum_match_arm, reason = "redb has far more errors than these")]
        match error.into() {
            redb::Error::DatabaseAlreadyOpen => StoreError::InUse { dir },
            redb::Error::Io(source) if is_full(&source) => no_room(&file, 0),
            redb::Error::Io(source) if !is_foreign(&source) => {
                StoreError::Unopened { path: file, source }
            }
            source => StoreError::Garbled { file, source: Box::new(source) },
        }
    }

    /// What reading or writing an open database failed with.
    fn failed(file: &Path, error: impl Into<redb::Error>) -> StoreError {
        StoreError::Failed { file: file.to_owned(), source: Box::new(error.into()) }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What redb says of a file that is too short or not its own.
fn is_foreign(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn no_room(path: &Path, needed: u64) -> StoreError {
    let on = path.parent().unwrap_or(path);
    let free = rustix::fs::statvfs(on).map_or(0, |disk| disk.f_bavail * disk.f_frsize);
    StoreError::NoRoom { path: path.to_owned(), needed, free }
}

/// The record with its version byte before it.
fn sealed(record: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(record.len() + 1);
    stored.push(RECORD_VERSION);
    stored.extend_from_slice(record);
    stored
}

/// The record without its version byte, if that is known.
fn unsealed(file: &Path, what: &dyn Fn() -> String, stored: &[u8]) -> Result<Vec<u8>, StoreError> {
    match stored.split_first() {
        Some((&RECORD_VERSION, record)) => Ok(record.to_vec()),
        other => Err(StoreError::UnknownVersion {
            file: file.to_owned(),
            what: what(),
            version: other.map_or(0, |(version, _)| *version),
        }),
    }
}

/// Creates the directory, readable by its owner only, unless it is there.
fn make_directory(dir: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| StoreError::unopened(dir, source))
}

/// Opens a file for reading and writing, for its owner only; creates it if it is not there.
fn open_file(path: &Path) -> Result<std::fs::File, StoreError> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(|source| StoreError::unopened(path, source))
}
