//! What a host says of itself to all others, in at most 256 bytes.
//!
//! Form, numbers big-endian: version (1 byte, now 2), processor use and memory committed (4 each, thousandths), packets and bits
//! each second (8 each), VMs (4), flags (1; bit 0 is "hot"), moves under way (4), inventory hash, policy hash (8 each),
//! journal id (16), journal generation (8), and since version 2 its generation when it was opened and the opening's lot (8 each).
//!
//! **Invariant:** a later version only appends, so that every version reads the fields it knows.

use bytes::{Buf, BufMut, TryGetError};

use crate::units::{BitsPerSec, JournalId, PacketsPerSec, Share};
use crate::wire::message::JournalMark;

/// The longest that an encoded digest may be, in any version.
pub const DIGEST_BYTES_MAX: usize = 256;

const VERSION: u8 = 2;
const HOT: u8 = 1;

/// One host in figures, as its agent said at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Use of all its processors.
    pub cpu_used: Share,
    /// Memory of its guests at full size, as a share of all its memory; above the whole where it is overcommitted.
    pub memory_committed: Share,
    /// Packets at all its taps.
    pub packets: PacketsPerSec,
    /// Bits at all its taps.
    pub bits: BitsPerSec,
    /// VMs there.
    pub vms: u32,
    /// Whether it is hot.
    pub hot: bool,
    /// Moves under way from and to it.
    pub moves_under_way: u32,
    /// Hash of its VM inventory: a change means that the inventory should be fetched anew.
    pub inventory: u64,
    /// `policy::settings::Settings::hash` of the settings it goes by.
    pub policy: u64,
    /// Its journal, and how far it has come.
    pub journal: JournalMark,
}

/// The bytes are no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDigest {
    /// Fewer bytes than the fields take.
    #[error("a digest of version {version} was cut off after {length} bytes")]
    Short {
        /// As it says.
        version: u8,
        /// Bytes that came.
        length: usize,
    },
    /// More bytes than any digest has, or than this version has.
    #[error("a digest of version {version} has {length} bytes, which is too many")]
    Long {
        /// As it says.
        version: u8,
        /// Bytes that came.
        length: usize,
    },
    /// No version was ever numbered so.
    #[error("a digest of version 0")]
    Version,
    /// A flag that this version does not have.
    #[error("a digest of version {VERSION} with unknown flags {0:#010b}")]
    Flags(u8),
}

impl Digest {
    /// The form that goes round.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(96);
        bytes.put_u8(VERSION);
        bytes.put_u32(self.cpu_used.0);
        bytes.put_u32(self.memory_committed.0);
        bytes.put_u64(self.packets.0);
        bytes.put_u64(self.bits.0);
        bytes.put_u32(self.vms);
        bytes.put_u8(if self.hot { HOT } else { 0 });
        bytes.put_u32(self.moves_under_way);
        bytes.put_u64(self.inventory);
        bytes.put_u64(self.policy);
        bytes.put_u128(self.journal.id.0);
        bytes.put_u64(self.journal.generation);
        bytes.put_u64(self.journal.opened);
        bytes.put_u64(self.journal.life);
        debug_assert!(bytes.len() <= DIGEST_BYTES_MAX, "a digest must stay small");
        bytes
    }
}

impl TryFrom<&[u8]> for Digest {
    type Error = BadDigest;

    fn try_from(bytes: &[u8]) -> Result<Digest, BadDigest> {
        let length = bytes.len();
        let version = *bytes.first().ok_or(BadDigest::Short { version: 0, length })?;
        if version == 0 {
            return Err(BadDigest::Version);
        }
        if length > DIGEST_BYTES_MAX {
            return Err(BadDigest::Long { version, length });
        }
        let mut rest = &bytes[1..];
        let (digest, flags) =
            fields(version, &mut rest).map_err(|_cut_off| BadDigest::Short { version, length })?;
        if version <= VERSION && !rest.is_empty() {
            return Err(BadDigest::Long { version, length });
        }
        if version <= VERSION && flags & !HOT != 0 {
            return Err(BadDigest::Flags(flags));
        }
        Ok(digest)
    }
}

fn fields(version: u8, bytes: &mut &[u8]) -> Result<(Digest, u8), TryGetError> {
    let cpu_used = Share(bytes.try_get_u32()?);
    let memory_committed = Share(bytes.try_get_u32()?);
    let packets = PacketsPerSec(bytes.try_get_u64()?);
    let bits = BitsPerSec(bytes.try_get_u64()?);
    let vms = bytes.try_get_u32()?;
    let flags = bytes.try_get_u8()?;
    let digest = Digest {
        cpu_used,
        memory_committed,
        packets,
        bits,
        vms,
        hot: flags & HOT != 0,
        moves_under_way: bytes.try_get_u32()?,
        inventory: bytes.try_get_u64()?,
        policy: bytes.try_get_u64()?,
        journal: JournalMark {
            id: JournalId(bytes.try_get_u128()?),
            generation: bytes.try_get_u64()?,
            opened: if version >= 2 { bytes.try_get_u64()? } else { 0 },
            life: if version >= 2 { bytes.try_get_u64()? } else { 0 },
        },
    };
    Ok((digest, flags))
}
