//! What a host says of itself to all others, in at most 256 bytes.
//!
//! Form, numbers big-endian: version (1 byte, now 4), processor use and memory committed (4 each, thousandths), packets and bits
//! each second (8 each), VMs (4), flags (1; bit 0 is "hot"), moves under way (4), inventory hash, policy hash (8 each),
//! journal id (16), journal generation (8); since version 2 its generation when it was opened and the opening's lot (8 each);
//! since version 3 the headroom: room for guests in MiB, processor asked and in all in thousandths of a core (4 each), the
//! network card's bits (8; 0: not known), pressure of processor, memory and disks (2 each, thousandths), driver (1) and
//! abilities (1; bits 0 to 3 are KVM, TCG, the program at the taps, and a journal in doubt); since version 4 all memory in MiB (4;
//! 0: not known).
//!
//! **Invariant:** a later version only appends, so that every version reads the fields it knows.

use bytes::{Buf, BufMut, TryGetError};

use crate::units::{BitsPerSec, JournalId, Mib, MilliCores, PacketsPerSec, Share};
use crate::wire::message::JournalMark;

/// The longest that an encoded digest may be, in any version.
pub const DIGEST_BYTES_MAX: usize = 256;

const VERSION: u8 = 5;
const HOT: u8 = 1;
const ABILITIES: u8 = 0b1_1111;

/// One host in figures, as its agent said at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Use of all its processors.
    pub cpu_used: Share,
    /// Memory of its guests at full size, as a share of all its memory, rounded up; above the whole where it is overcommitted.
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
    /// What it has left to give; a host of a version before 3 does not say.
    pub headroom: Option<Headroom>,
}

/// What a host could still take, in absolute units, and what it is able to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headroom {
    /// Memory that guests could still be given, overhead included; reservations count as given.
    pub room: Mib,
    /// Processor time that its VMs ask for.
    pub cpu_asked: MilliCores,
    /// All its processors.
    pub cpu: MilliCores,
    /// All its memory; zero where a host of version 3 does not say.
    pub memory: Mib,
    /// Speed of its uplink, both directions together; zero where the driver does not tell.
    pub nic: BitsPerSec,
    /// Share of time in which something waited for a processor, for memory, for a disk.
    pub pressure: [Share; 3],
    /// Its hypervisor's driver.
    pub driver: Driver,
    /// Whether guests can run on KVM there.
    pub kvm: bool,
    /// Whether they can run on TCG, QEMU's own emulation.
    pub tcg: bool,
    /// Whether the program at its taps counts.
    pub program: bool,
    /// Whether its journal is in doubt: what it had open waits for a person.
    pub doubt: bool,
    /// Whether hosts are being emptied and it is not, since it has a VM that stays.
    pub stays: bool,
}

/// The hypervisor's driver, as far as digests tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// None of the others.
    Other,
    /// QEMU, by QMP.
    Qemu,
    /// libvirt.
    Libvirt,
}

impl Driver {
    /// The driver of this name.
    pub fn named(name: &str) -> Driver {
        match name {
            "qemu" => Driver::Qemu,
            "libvirt" => Driver::Libvirt,
            _ => Driver::Other,
        }
    }

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Other => "other",
            Driver::Qemu => "qemu",
            Driver::Libvirt => "libvirt",
        }
    }
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
    #[error("a digest of a known version with unknown flags {0:#010b}")]
    Flags(u8),
}

impl Digest {
    /// The form that goes round.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(136);
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
        if let Some(headroom) = &self.headroom {
            put_headroom(&mut bytes, headroom);
        } else {
            bytes[0] = 2;
        }
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
        let unknown = [flags.0 & !HOT, flags.1 & !ABILITIES].into_iter().find(|flags| *flags != 0);
        match unknown.filter(|_| version <= VERSION) {
            Some(flags) => Err(BadDigest::Flags(flags)),
            None => Ok(digest),
        }
    }
}

fn put_headroom(bytes: &mut Vec<u8>, headroom: &Headroom) {
    // What no host has is cut, not refused: it would not change what is made of it.
    let cut = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    bytes.put_u32(cut(headroom.room.0));
    bytes.put_u32(cut(headroom.cpu_asked.0));
    bytes.put_u32(cut(headroom.cpu.0));
    bytes.put_u64(headroom.nic.0);
    for share in headroom.pressure {
        bytes.put_u16(u16::try_from(share.0).unwrap_or(u16::MAX));
    }
    bytes.put_u8(match headroom.driver {
        Driver::Other => 0,
        Driver::Qemu => 1,
        Driver::Libvirt => 2,
    });
    let Headroom { kvm, tcg, program, doubt, stays, .. } = *headroom;
    let able = [kvm, tcg, program, doubt, stays].into_iter().rev();
    bytes.put_u8(able.fold(0, |bits, able| bits << 1 | u8::from(able)));
    bytes.put_u32(cut(headroom.memory.0));
}

/// A digest, its flags, and those of its headroom.
fn fields(version: u8, bytes: &mut &[u8]) -> Result<(Digest, (u8, u8)), TryGetError> {
    let cpu_used = Share(bytes.try_get_u32()?);
    let memory_committed = Share(bytes.try_get_u32()?);
    let packets = PacketsPerSec(bytes.try_get_u64()?);
    let bits = BitsPerSec(bytes.try_get_u64()?);
    let vms = bytes.try_get_u32()?;
    let flags = bytes.try_get_u8()?;
    let mut digest = Digest {
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
        headroom: None,
    };
    let mut abilities = 0;
    if version >= 3 {
        let headroom;
        (headroom, abilities) = get_headroom(version, bytes)?;
        digest.headroom = Some(headroom);
    }
    Ok((digest, (flags, abilities)))
}

fn get_headroom(version: u8, bytes: &mut &[u8]) -> Result<(Headroom, u8), TryGetError> {
    let [room, cpu_asked, cpu] =
        [bytes.try_get_u32()?, bytes.try_get_u32()?, bytes.try_get_u32()?].map(u64::from);
    let nic = BitsPerSec(bytes.try_get_u64()?);
    let pressure = [bytes.try_get_u16()?, bytes.try_get_u16()?, bytes.try_get_u16()?];
    let driver = match bytes.try_get_u8()? {
        1 => Driver::Qemu,
        2 => Driver::Libvirt,
        _ => Driver::Other,
    };
    let abilities = bytes.try_get_u8()?;
    let able = |bit: u8| abilities >> bit & 1 == 1;
    let headroom = Headroom {
        room: Mib(room),
        cpu_asked: MilliCores(cpu_asked),
        cpu: MilliCores(cpu),
        memory: if version >= 4 { Mib(bytes.try_get_u32()?.into()) } else { Mib(0) },
        nic,
        pressure: pressure.map(|share| Share(share.into())),
        driver,
        kvm: able(0),
        tcg: able(1),
        program: able(2),
        doubt: able(3),
        stays: able(4),
    };
    Ok((headroom, abilities))
}
