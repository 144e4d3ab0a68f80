//! What the journal was last seen to be, kept apart from it: in a folder that is empty after each boot of the machine.
//!
//! A journal that was replaced by an older copy reads as well as any. But a machine's processes and this file end together,
//! so while there may be guests whose owner the journal must name, its witness is there too.
//!
//! Form: journal id (16 bytes), generation (8), both in network order.
//!
//! **Invariant:** what it says was on the journal's disk before.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use decide::units::JournalId;

use super::{StoreError, open_file};

const LENGTH: usize = 16 + 8;

/// Why the journal that was found may not be relied on for what it had open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// It is a former state of the journal that was here.
    #[error(
        "the journal was set back: {found} writes are in it, {seen} were made since this machine booted"
    )]
    SetBack {
        /// Writes that are in it.
        found: u64,
        /// Writes that were made.
        seen: u64,
    },
    /// Another journal was here.
    #[error(
        "another journal than this one was here since this machine booted: what was written there is lost"
    )]
    Replaced,
}

#[derive(Debug)]
pub(super) struct Witness {
    file: File,
}

impl Witness {
    /// Opens the file, or creates it, and reads it; what it says may be nothing yet.
    pub(super) fn open(path: &Path) -> Result<(Witness, Option<(JournalId, u64)>), StoreError> {
        if let Some(folder) = path.parent() {
            // Others may read the API's socket there.
            std::fs::create_dir_all(folder)
                .map_err(|source| StoreError::unopened(folder, source))?;
        }
        let file = open_file(path)?;
        let mut bytes = [0; LENGTH];
        let seen = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => Some(understood(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(source) => return Err(StoreError::unopened(path, source)),
        };
        Ok((Witness { file }, seen))
    }

    /// Takes down what is on the journal's disk. If it cannot, it goes on saying less, which does no harm.
    pub(super) fn note(&self, id: JournalId, generation: u64) {
        let mut bytes = [0; LENGTH];
        bytes[..16].copy_from_slice(&id.0.to_be_bytes());
        bytes[16..].copy_from_slice(&generation.to_be_bytes());
        let _says_less = self.file.write_all_at(&bytes, 0);
    }
}

fn understood(bytes: &[u8; LENGTH]) -> (JournalId, u64) {
    let (id, generation) = bytes.split_at(16);
    let id = u128::from_be_bytes(id.try_into().expect("16 bytes were split off"));
    (JournalId(id), u64::from_be_bytes(generation.try_into().expect("8 bytes are left")))
}

/// What follows from what was seen and what was found.
pub(super) fn doubt(seen: Option<(JournalId, u64)>, found: (JournalId, u64)) -> Option<Doubt> {
    let (id, seen) = seen?;
    if id != found.0 {
        return Some(Doubt::Replaced);
    }
    (found.1 < seen).then_some(Doubt::SetBack { found: found.1, seen })
}
