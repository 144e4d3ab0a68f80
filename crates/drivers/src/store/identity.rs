//! The journal's own record: whose it is, how often it was opened and written.
//!
//! Stored form: version (1 byte), SHA-256 of the machine-id (32), journal id (16), incarnation (4), generation (8);
//! numbers in network order.
//!
//! **Invariant:** incarnation and generation only grow.
//! An incarnation is at least the second in which the journal was opened, so that it is a new one also after the journal was
//! set back.

use decide::units::JournalId;
use sha2::{Digest, Sha256};

use super::RECORD_VERSION;

const STORED: usize = 1 + 32 + 16 + 4 + 8;

/// Whose journal it is, how often it was opened and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) machine: [u8; 32],
    pub(super) id: JournalId,
    pub(super) incarnation: u32,
    pub(super) generation: u64,
}

impl Identity {
    pub(super) fn encode(&self) -> [u8; STORED] {
        let mut stored = [0; STORED];
        stored[0] = RECORD_VERSION;
        stored[1..33].copy_from_slice(&self.machine);
        stored[33..49].copy_from_slice(&self.id.0.to_be_bytes());
        stored[49..53].copy_from_slice(&self.incarnation.to_be_bytes());
        stored[53..61].copy_from_slice(&self.generation.to_be_bytes());
        stored
    }

    /// The version byte if it is not known, or the record is too short for it.
    pub(super) fn decode(stored: &[u8]) -> Result<Identity, u8> {
        let version = stored.first().copied().unwrap_or(0);
        let stored: &[u8; STORED] = stored.try_into().map_err(|_wrong_length| version)?;
        if version != RECORD_VERSION {
            return Err(version);
        }
        Ok(Identity {
            machine: part(stored, 1),
            id: JournalId(u128::from_be_bytes(part(stored, 33))),
            incarnation: u32::from_be_bytes(part(stored, 49)),
            generation: u64::from_be_bytes(part(stored, 53)),
        })
    }
}

fn part<const N: usize>(stored: &[u8; STORED], at: usize) -> [u8; N] {
    stored[at..at + N].try_into().expect("the slice has N bytes")
}

/// What is kept of the machine-id: machine-id(5) asks not to pass the id itself on.
pub(super) fn machine_hash(machine_id: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"evenkeel journal\n");
    hash.update(machine_id.trim().as_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_its_stored_form() {
        let identity = Identity {
            machine: machine_hash("3d1219c7c4c5404aaa1f6d2a48adfda4\n"),
            id: JournalId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
            incarnation: 7,
            generation: u64::MAX - 1,
        };
        assert_eq!(Identity::decode(&identity.encode()), Ok(identity));
    }

    #[test]
    fn another_version_or_length_is_told() {
        let mut stored =
            Identity { machine: [1; 32], id: JournalId(2), incarnation: 3, generation: 4 }.encode();
        assert_eq!(Identity::decode(&stored[..60]), Err(RECORD_VERSION));
        stored[0] = 9;
        assert_eq!(Identity::decode(&stored), Err(9));
        assert_eq!(Identity::decode(&[]), Err(0));
    }

    #[test]
    fn the_line_end_of_the_machine_id_does_not_matter() {
        assert_eq!(machine_hash("abc\n"), machine_hash("abc"));
        assert_ne!(machine_hash("abc"), machine_hash("abd"));
    }
}
