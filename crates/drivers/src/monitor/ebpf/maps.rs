//! What the programs counted, read and tidied: three maps of `nic.bpf.c`.
//!
//! A per-CPU map has a value for each processor that may ever come; they are summed here. Whole maps are read by
//! BPF_MAP_LOOKUP_BATCH (linux/bpf.h, Linux 5.6), a few system calls instead of two for each entry.
//!
//! **Invariant:** lengths that the kernel is told are those of the buffers it writes to.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::maps::{IterableMap, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues};

use super::NotCounted;
use decide::usage::reading::PACKET_SIZES;

/// As a receiver: many. (As a sender the same number is the host itself.)
pub(super) const MANY: u32 = 0;

const SIZES: usize = PACKET_SIZES.len() + 1;
const WAY_WORDS: usize = 2 + SIZES;
const LINK_WORDS: usize = 2 * WAY_WORDS;
const CELL_WORDS: usize = 2;
/// Entries of one batch to begin with; the kernel says if it must be more.
const BATCH: usize = 1024;
/// The most that a batch grows to: more than any of the maps holds.
const BATCH_MAX: usize = 32 * 1024;
/// `enum bpf_cmd`.
const MAP_LOOKUP_BATCH: libc::c_long = 24;
/// `BPF_NOEXIST`.
const ONLY_IF_NEW: u64 = 1;

/// One direction of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) frames: u64,
    pub(super) bytes: u64,
    pub(super) sizes: [u64; SIZES],
}

/// A link in the host's direction: what came in by it, what went out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) coming: Way,
    pub(super) going: Way,
}

/// A cell of the traffic matrix, by interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) frames: u64,
    pub(super) bytes: u64,
}

/// The maps.
pub(super) struct Maps {
    links: PerCpuHashMap<MapData, u32, [u64; LINK_WORDS]>,
    cells: PerCpuHashMap<MapData, [u32; 2], [u64; CELL_WORDS]>,
    lost: PerCpuArray<MapData, u64>,
    cpus: usize,
    batch: Batch,
}

impl Maps {
    pub(super) fn new(
        links: PerCpuHashMap<MapData, u32, [u64; LINK_WORDS]>,
        cells: PerCpuHashMap<MapData, [u32; 2], [u64; CELL_WORDS]>,
        lost: PerCpuArray<MapData, u64>,
    ) -> io::Result<Maps> {
        let cpus = aya::util::nr_cpus().map_err(|(_file, error)| error)?;
        Ok(Maps { links, cells, lost, cpus, batch: Batch::default() })
    }

    /// Makes room for a link; one that is there keeps its counters.
    pub(super) fn add_link(&mut self, ifindex: u32) -> Result<(), NotCounted> {
        let none = PerCpuValues::try_from(vec![[0; LINK_WORDS]; self.cpus])
            .map_err(|error| refused("making an entry of a link", &error))?;
        match self.links.insert(ifindex, none, ONLY_IF_NEW) {
            Ok(()) => Ok(()),
            Err(aya::maps::MapError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::AlreadyExists =>
            {
                Ok(())
            }
            Err(error) => Err(refused("making an entry of a link", &error)),
        }
    }

    /// What was counted at the links; entries of those that are not `wanted` are deleted.
    pub(super) fn links(
        &mut self,
        wanted: impl Fn(u32) -> bool,
    ) -> Result<BTreeMap<u32, Link>, NotCounted> {
        let mut found = BTreeMap::new();
        let mut gone = Vec::new();
        self.batch.read(
            self.links.map().fd().as_fd(),
            1,
            LINK_WORDS * self.cpus,
            |key, values| {
                if !wanted(key[0]) {
                    gone.push(key[0]);
                    return;
                }
                let mut link = Link::default();
                for words in values.chunks_exact(LINK_WORDS) {
                    let (coming, going) = words.split_at(WAY_WORDS);
                    link.coming.add(coming);
                    link.going.add(going);
                }
                found.insert(key[0], link);
            },
        )?;
        for ifindex in gone {
            unless_gone(self.links.remove(&ifindex))?;
        }
        Ok(found)
    }

    /// The traffic matrix; cells of interfaces that are not `there` are deleted.
    pub(super) fn cells(&mut self, there: impl Fn(u32) -> bool) -> Result<Vec<Cell>, NotCounted> {
        let mut found = Vec::new();
        let mut gone = Vec::new();
        self.batch.read(
            self.cells.map().fd().as_fd(),
            2,
            CELL_WORDS * self.cpus,
            |key, values| {
                // Nought is no interface, and never goes.
                if key[..2].iter().any(|end| *end != 0 && !there(*end)) {
                    gone.push([key[0], key[1]]);
                    return;
                }
                let mut cell = Cell { from: key[0], to: key[1], frames: 0, bytes: 0 };
                for words in values.chunks_exact(CELL_WORDS) {
                    cell.frames = cell.frames.wrapping_add(words[0]);
                    cell.bytes = cell.bytes.wrapping_add(words[1]);
                }
                found.push(cell);
            },
        )?;
        for key in gone {
            unless_gone(self.cells.remove(&key))?;
        }
        Ok(found)
    }

    /// Frames that found no cell.
    pub(super) fn lost(&self) -> Result<u64, NotCounted> {
        let values = self.lost.get(&0, 0).map_err(|error| refused("reading a map", &error))?;
        Ok(values.iter().fold(0, |sum: u64, one| sum.wrapping_add(*one)))
    }
}

impl Way {
    fn add(&mut self, words: &[u64]) {
        self.frames = self.frames.wrapping_add(words[0]);
        self.bytes = self.bytes.wrapping_add(words[1]);
        for (sum, more) in self.sizes.iter_mut().zip(&words[2..]) {
            *sum = sum.wrapping_add(*more);
        }
    }
}

fn unless_gone(removed: Result<(), aya::maps::MapError>) -> Result<(), NotCounted> {
    match removed {
        Ok(()) | Err(aya::maps::MapError::KeyNotFound) => Ok(()),
        Err(aya::maps::MapError::SyscallError(error))
            if error.io_error.kind() == io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        Err(error) => Err(refused("deleting an entry", &error)),
    }
}

fn refused(what: &'static str, error: &(dyn std::error::Error + 'static)) -> NotCounted {
    NotCounted::from_error(what, error)
}

/// `union bpf_attr` of a lookup in batches.
#[repr(C)]
#[derive(Debug, Default)]
struct LookupBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Room for the entries of one batch, kept between cycles.
#[derive(Debug, Default)]
struct Batch {
    keys: Vec<u32>,
    values: Vec<u64>,
}

impl Batch {
    /// Goes through a map once. Entries that are made or deleted meanwhile are seen or not.
    fn read(
        &mut self,
        map: BorrowedFd<'_>,
        key_words: usize,
        value_words: usize,
        mut each: impl FnMut(&[u32], &[u64]),
    ) -> Result<(), NotCounted> {
        let failed = |error: io::Error| refused("reading a map", &error);
        let mut size = BATCH;
        let mut place: Option<u64> = None;
        loop {
            self.keys.resize(size * key_words, 0);
            self.values.resize(size * value_words, 0);
            let mut next = 0;
            let (count, outcome) = self.lookup(map, size, place.as_ref(), &mut next);
            let more = match outcome {
                Ok(()) => true,
                // The last entries have been given.
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                // Entries that hash alike come together; nothing was given.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && size < BATCH_MAX => {
                    size *= 2;
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            let entries =
                self.keys.chunks_exact(key_words).zip(self.values.chunks_exact(value_words));
            entries.take(count).for_each(|(key, value)| each(key, value));
            if !more {
                return Ok(());
            }
            place = Some(next);
        }
    }

    /// One system call for up to `size` entries, from `place` on; how many there were.
    fn lookup(
        &mut self,
        map: BorrowedFd<'_>,
        size: usize,
        place: Option<&u64>,
        next: &mut u64,
    ) -> (usize, io::Result<()>) {
        let mut attributes = LookupBatch {
            in_batch: place.map_or(0, |place| address(place)),
            out_batch: address(next),
            keys: address(self.keys.as_mut_ptr()),
            values: address(self.values.as_mut_ptr()),
            count: u32::try_from(size).expect("at most BATCH_MAX"),
            map_fd: map.as_raw_fd().cast_unsigned(),
            ..LookupBatch::default()
        };
        // SAFETY: `attributes` is a `bpf_attr` of this command, of the size given; the kernel reads 4 of the 8 bytes of `place`,
        // writes as many of `next`, and at most `count` entries to `keys` and `values`, which have room for `size` entries of
        // the sizes that the map was made with. All outlive the call.
        let outcome = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                MAP_LOOKUP_BATCH,
                &raw mut attributes,
                size_of::<LookupBatch>(),
            )
        };
        let result = if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
        (usize::try_from(attributes.count).unwrap_or(usize::MAX), result)
    }
}

/// As the kernel takes pointers.
fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}
