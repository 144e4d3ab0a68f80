//! The connections of a copy at its source, when the other side is silent: of memory, and one for each disk that goes along (NBD).
//!
//! QEMU (seen in 10.0) does nothing else while a disk's is opened, while that of memory shakes hands, and while a copy is ended that has
//! something of a disk under way: not for its guest either. With a host that is gone, or behind a firewall that drops, that lasts until
//! the kernel gives up, or for ever. So where it waits for too long, and before a copy is cancelled, they are shut down from outside;
//! QEMU takes that for an error of the network and goes on.
//!
//! **Invariant:** no other connection is touched: not of another process, nor to elsewhere.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use procfs::process::FDTarget;
use serde::{Deserialize, Serialize};
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::Instant;

use super::files;
use super::vm::VmTask;
use crate::hypervisor::handshake::Ends;
use crate::hypervisor::process::Process;

/// How often it is looked whether QEMU waits.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The longest that it may: two tries of the kernel to connect, and what the two sides say then.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// QEMU's name of the thread that opens a disk's connection (`nbd/client-connection.c`), for which its main thread waits.
const OPENER: &str = "nbd-connect";

/// Where a copy goes: the mark `<uuid>.copying`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct To {
    pub(super) memory: SocketAddr,
    /// Absent where none goes along.
    pub(super) disks: Option<SocketAddr>,
}

/// What QEMU waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// A disk's connection to open, in that thread.
    Open(i32),
    /// The other side of the connection of memory that has that descriptor.
    Handshake((i32, SocketAddr)),
}

/// Looks after a copy's connections until it is dropped.
#[derive(Debug)]
pub(super) struct LookedAfter(AbortHandle);

impl LookedAfter {
    /// For a QEMU that is about to begin one. `process` is a handle of its own.
    pub(super) fn begin(process: Process, to: To) -> LookedAfter {
        LookedAfter(tokio::spawn(look(process, to)).abort_handle())
    }
}

impl Drop for LookedAfter {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn look(process: Process, to: To) {
    let pid = process.pid();
    if let Err(error) = process.may_be_looked_at()
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        tracing::warn!(
            pid,
            "a copy's connections for which it waits cannot be broken off: {error}"
        );
    }
    let mut waits: Option<(Wait, Instant)> = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(now) = waits_for(&process, to) else {
            waits = None;
            continue;
        };
        let since = match waits {
            Some((before, since)) if before == now => since,
            _ => Instant::now(),
        };
        waits = Some((now, since));
        if since.elapsed() < WAIT_MAX {
            continue;
        }
        tracing::warn!(pid, ?to, ?now, "a copy's connections at which QEMU waits are broken off");
        // Those first: the copy that ends with its memory's would wait for them.
        if let Some(disks) = to.disks {
            break_off(&process, disks).await;
        }
        if let Wait::Handshake(at) = now
            && let Err(error) = process.shut_down(at, Ends::To(to.memory))
        {
            tracing::warn!(pid, %error, "that of its memory could not be broken off");
        }
        waits = None;
    }
}

fn waits_for(process: &Process, to: To) -> Option<Wait> {
    // The guest may have disks of its own that are opened so.
    let here = |disks| connections(process.pid(), disks).is_ok_and(|there| !there.is_empty());
    let opens = to.disks.and_then(|disks| opener(process.pid()).ok()?.filter(|_| here(disks)));
    let shakes_hands = || process.waits_at(Ends::To(to.memory)).map(Wait::Handshake);
    opens.map(Wait::Open).or_else(shakes_hands)
}

/// The thread that opens a disk's connection just now.
fn opener(pid: i32) -> io::Result<Option<i32>> {
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = thread?.path();
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        if name.trim_end() == OPENER {
            return Ok(path.file_name().and_then(|thread| thread.to_str()?.parse().ok()));
        }
    }
    Ok(None)
}

impl VmTask {
    /// Puts on record where a copy goes, and looks after its connections.
    pub(super) fn look_after(&mut self, to: To) -> Result<(), String> {
        let mark = &self.files.copying;
        let text = serde_json::to_string(&to).map_err(|error| error.to_string())?;
        files::leave(mark, &text).map_err(|error| format!("{}: {error}", mark.display()))?;
        self.look_after_again();
        Ok(())
    }

    /// The same for a copy that was begun before this driver, if one is on record.
    pub(super) fn look_after_again(&mut self) {
        if self.looked_after.is_some() {
            return;
        }
        if let Some(to) = self.goes_to()
            && let Ok(true) = self.find_process()
            && let Some(process) = &self.process
            // A handle beside the one that is watched.
            && let Ok(Some(qemu)) = Process::open(process.pid())
        {
            self.looked_after = Some(LookedAfter::begin(qemu, to));
        }
    }

    /// Ends what is under way to a copy's disks.
    pub(super) async fn break_off_disks(&mut self) {
        if let Some(disks) = self.goes_to().and_then(|to| to.disks)
            && let Ok(true) = self.find_process()
            && let Some(qemu) = &self.process
        {
            break_off(qemu, disks).await;
        }
    }

    fn goes_to(&self) -> Option<To> {
        serde_json::from_str(&std::fs::read_to_string(&self.files.copying).ok()?).ok()
    }

    /// There is no copy any more.
    pub(super) fn no_copy(&mut self) {
        self.looked_after = None;
        if let Err(error) = files::remove(&self.files.copying) {
            tracing::warn!(vm = %self.vm, %error, "left over from a copy");
        }
    }
}

/// Shuts down all that QEMU has there, those that are not open yet too.
async fn break_off(process: &Process, to: SocketAddr) {
    let pid = process.pid();
    match spawn_blocking(move || connections(pid, to)).await {
        Ok(Ok(found)) => {
            tracing::debug!(pid, %to, all = found.len(), "connections of disks are shut down");
            found.iter().for_each(|one| shut_down(process, one));
        }
        Ok(Err(error)) => {
            tracing::warn!(pid, %to, %error, "its disks' connections cannot be broken off");
        }
        Err(_runtime_ends) => {}
    }
}

fn shut_down(process: &Process, Connection { descriptor, inode }: &Connection) {
    if let Err(error) = process.shut_down_socket(*descriptor, *inode) {
        let pid = process.pid();
        tracing::warn!(pid, %error, "a disk's connection could not be broken off");
    }
}

/// One of a process's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Connection {
    descriptor: i32,
    /// Of its socket.
    inode: u64,
}

/// A process's connections to there.
fn connections(pid: i32, to: SocketAddr) -> procfs::ProcResult<Vec<Connection>> {
    let process = procfs::process::Process::new(pid)?;
    let all = if to.is_ipv4() { process.tcp() } else { process.tcp6() };
    let there = all?.into_iter().filter(|it| it.remote_address == to);
    let there: BTreeSet<u64> = there.map(|it| it.inode).collect();
    if there.is_empty() {
        return Ok(Vec::new());
    }
    let its = process.fd()?.filter_map(|descriptor| {
        let descriptor = descriptor.ok()?;
        let FDTarget::Socket(inode) = descriptor.target else { return None };
        there.contains(&inode).then_some(Connection { descriptor: descriptor.fd, inode })
    });
    Ok(its.collect())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn own() -> (i32, Process) {
        let pid = i32::try_from(std::process::id()).unwrap();
        (pid, Process::open(pid).unwrap().expect("this process"))
    }

    #[tokio::test]
    async fn connections_to_there_are_broken_off_and_no_others() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let (disks, other) =
                (TcpListener::bind(local).unwrap(), TcpListener::bind(local).unwrap());
            let (to, elsewhere) = (disks.local_addr().unwrap(), other.local_addr().unwrap());
            let mut copying = TcpStream::connect(to).unwrap();
            let kept = TcpStream::connect(elsewhere).unwrap();
            let (pid, process) = own();
            assert_eq!(connections(pid, to).unwrap().len(), 1);

            break_off(&process, to).await;
            assert_eq!(copying.read(&mut [0]).unwrap(), 0, "its end is seen at once");
            let (_held, from) = other.accept().unwrap();
            assert_eq!(from, kept.local_addr().unwrap());
            kept.set_nonblocking(true).unwrap();
            let silent = (&kept).read(&mut [0]).unwrap_err();
            assert_eq!(silent.kind(), io::ErrorKind::WouldBlock, "it goes on");
        }
    }

    #[tokio::test]
    async fn a_socket_that_took_the_place_of_another_is_left_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let stream = TcpStream::connect(to).unwrap();
        let (pid, process) = own();
        let [one] = connections(pid, to).unwrap()[..] else { panic!("one connection") };
        process.shut_down_socket(one.descriptor, one.inode + 1).unwrap();
        stream.set_nonblocking(true).unwrap();
        let silent = (&stream).read(&mut [0]).unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::WouldBlock);
    }
}
