//! Where the maps are kept so that they outlive the agent: a folder of its own under bpffs.
//!
//!   /sys/fs/bpf/evenkeel/NETWORK-OBJECT/{links,cells,lost}
//!
//! NETWORK is the cookie of the network namespace, which no later one is given before the next boot; the indices that the
//! maps are keyed by mean something in it alone. (Names under bpffs have no dots.) OBJECT is the beginning of the hash of the program: another program may lay its
//! maps out in another way, so it begins anew, and what the earlier one left is removed.
//!
//! **Invariant:** a folder serves one agent at a time, which holds its lock; a second one counts without pins.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, statfs};
use rustix::net::{AddressFamily, SocketType, socket};
use sha2::{Digest, Sha256};

/// BPF_FS_MAGIC of linux/magic.h.
const BPF_FS: u32 = 0xcafe_4a11;
/// SO_NETNS_COOKIE of asm-generic/socket.h; since Linux 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The folder, locked as long as this lives.
#[derive(Debug)]
pub(super) struct Pins {
    folder: PathBuf,
    _lock: File,
}

impl Pins {
    /// Makes or finds the folder of this network namespace and this program.
    pub(super) fn open(root: &Path, object: &[u8]) -> Result<Pins, String> {
        let told = |error: io::Error| format!("{}: {error}", root.display());
        let network =
            network().map_err(|error| format!("telling network namespaces apart: {error}"))?;
        make(root).map_err(told)?;
        let found = statfs(root).map_err(|errno| told(errno.into()))?;
        if u32::try_from(found.f_type & 0xffff_ffff) != Ok(BPF_FS) {
            // Only an empty folder goes: the one that was made here.
            let _ = fs::remove_dir(root);
            return Err(format!("no bpffs is mounted where {} lies", root.display()));
        }
        let hash = Sha256::digest(object);
        let hash: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let folder = root.join(format!("{network}-{hash}"));
        make(&folder).map_err(told)?;
        let lock = File::open(&folder).map_err(told)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_taken| format!("another agent uses {}", folder.display()))?;
        remove_others(root, network, &folder).map_err(told)?;
        Ok(Pins { folder, _lock: lock })
    }

    /// Where a map of that name lies.
    pub(super) fn path(&self, map: &str) -> PathBuf {
        self.folder.join(map)
    }
}

fn make(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// What other programs left for the same namespace.
fn remove_others(root: &Path, network: u64, ours: &Path) -> io::Result<()> {
    let of_network = format!("{network}-");
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.path() != ours && name.to_string_lossy().starts_with(&of_network) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn network() -> io::Result<u64> {
    let any: OwnedFd = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    cookie(&any)
}

fn cookie(socket: &OwnedFd) -> io::Result<u64> {
    use std::os::fd::AsRawFd;
    let mut cookie = 0u64;
    let mut length = 8;
    // SAFETY: the socket is open, and the kernel writes at most `length` bytes to `cookie`, which has as many.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if outcome == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}
