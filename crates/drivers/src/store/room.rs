//! The journal's file, whose room on disk is had before it is needed.
//!
//!   |<──────── held: blocks allocated and written ────────>|
//!   |<── len: what redb knows of ──>|<── ahead ───────────>|
//!
//! redb writes each commit to pages that are free and lengthens the file, by doubling it, when there are none. Left to
//! itself it makes the file sparse (`ftruncate`), so that any commit can meet a full disk, and gives room back when half
//! of it is free. Here the file never gives room back, is lengthened with zeros really written, and can be lengthened
//! ahead of need: what redb later asks for is then there, and a commit only overwrites blocks that the file has. A
//! filler file to be deleted when the disk is full would not do: whatever filled the disk takes its room first.
//!
//! Overwriting written blocks also spares the file system a journal commit of its own in each `fdatasync`.
//!
//! **Invariant:** `len` ≤ `held`; all bytes from `len` on read as zero once redb lengthens the file over them.
//! **Boundary:** it holds where overwriting takes no new block (ext4, XFS, tmpfs). On copy-on-write file systems
//! (btrfs, ZFS) no file can promise that; there a full disk shows as a failed write, which is survived by rereading.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Zeros are written in pieces of this size.
const PIECE: usize = 256 * 1024;

/// A file that keeps what room it got.
#[derive(Debug)]
pub(super) struct Room {
    file: File,
    /// redb's own backend on the same open file: its locks are taken and released there.
    inner: FileBackend,
    len: AtomicU64,
    held: AtomicU64,
}

impl Room {
    pub(super) fn new(file: File) -> Result<Arc<Room>, redb::Error> {
        let held = file.metadata()?.len();
        let inner = FileBackend::new(file.try_clone()?)?;
        Ok(Arc::new(Room { file, inner, len: AtomicU64::new(held), held: AtomicU64::new(held) }))
    }

    /// Makes sure that `length` bytes are on disk. If they cannot be had, the file stays as it was.
    pub(super) fn hold(&self, length: u64) -> io::Result<()> {
        let held = self.held.load(Ordering::Acquire);
        if length <= held {
            return Ok(());
        }
        if let Err(error) = self.lengthen(held, length) {
            // Nothing beyond `held` was used, so nothing is lost.
            self.file.set_len(held)?;
            return Err(error);
        }
        self.held.store(length, Ordering::Release);
        Ok(())
    }

    /// How much is on disk.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    fn lengthen(&self, from: u64, to: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::empty(), from, to - from) {
            // Where the file system cannot allocate ahead, writing does it.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.write_zeros(from, to)?;
        self.file.sync_all()
    }

    fn write_zeros(&self, from: u64, to: u64) -> io::Result<()> {
        let zeros = vec![0; PIECE];
        let mut at = from;
        while at < to {
            let piece = usize::try_from(to - at).map_or(PIECE, |left| left.min(PIECE));
            self.file.write_all_at(&zeros[..piece], at)?;
            at += u64::try_from(piece).expect("usize has at most 64 bits");
        }
        Ok(())
    }
}

/// The part of the room's owner that redb holds.
#[derive(Debug)]
pub(super) struct Shared(pub(super) Arc<Room>);

impl StorageBackend for Shared {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len.load(Ordering::Acquire))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let before = self.0.len.load(Ordering::Acquire);
        let held = self.0.held();
        if len > before {
            self.0.write_zeros(before, len.min(held))?;
        }
        self.0.hold(len)?;
        self.0.len.store(len, Ordering::Release);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.0.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.inner.query_lock_range(start, end)
    }
}
