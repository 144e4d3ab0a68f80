//! QEMU processes: found, started, watched, ended, proven gone.
//!
//! A process is held by a pidfd, taken between two equal readings of its start time: a signal can never reach another
//! process that was given the same pid, and its end is an event, whoever its parent is. A zombie counts as gone.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

#[cfg(feature = "libvirt")]
use decide::units::VmId;
use rustix::net::{Shutdown, SocketAddrAny};
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open, pidfd_send_signal,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::handshake::Ends;
use super::private;

/// The pause between two looks whether a process that was told to stop has stopped.
const STOP_PAUSE: Duration = Duration::from_millis(1);

/// A process that was alive when it was taken.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    start: u64,
    handle: AsyncFd<OwnedFd>,
    /// Present where this driver started it: only a parent learns the exit code, and must reap.
    child: Option<Child>,
}

impl Process {
    /// The process of that number; `None` if it is gone.
    pub(super) fn open(pid: i32) -> io::Result<Option<Process>> {
        let Some((pid, start)) = Pid::from_raw(pid).zip(start_time(pid)) else { return Ok(None) };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if start_time(pid.as_raw_pid()) != Some(start) {
            return Ok(None);
        }
        Ok(Some(Process { pid, start, handle: watch(handle)?, child: None }))
    }

    /// Starts a process that outlives this one, in a session of its own; what it says goes to `log`. It gets none of the
    /// capabilities that this process may have beside root's: a guest that breaks out of QEMU is not to have them.
    pub(super) fn start(command_line: &[String], log: &Path) -> io::Result<Process> {
        let (program, arguments) = command_line
            .split_first()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let said = private::create(log)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let alone = || {
            rustix::process::setsid()?;
            rustix::thread::clear_ambient_capability_set().map_err(io::Error::from)
        };
        // SAFETY: between fork and exec only async-signal-safe functions may be called. The closure makes the system
        // calls setsid(2) and prctl(2) and converts a number into an `io::Error`, which allocates nothing.
        unsafe { command.pre_exec(alone) };
        let child = command.spawn()?;
        let ended = || io::Error::other("it ended at once");
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or_else(ended)?;
        // It may be a zombie already, which has a start time and a pidfd too, but is not alive for `open`.
        let pid = Pid::from_raw(pid).ok_or_else(ended)?;
        let start = stat(pid.as_raw_pid()).map(|(_state, start)| start).ok_or_else(ended)?;
        let handle = watch(pidfd_open(pid, PidfdFlags::empty())?)?;
        Ok(Process { pid, start, handle, child: Some(child) })
    }

    /// The process whose command line makes it listen on that socket; `None` proves that there is none.
    pub(super) fn find(socket: &Path) -> io::Result<Option<Process>> {
        for entry in std::fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if listens_on(pid, socket)
                && let Some(process) = Process::open(pid)?
                && listens_on(pid, socket)
            {
                return Ok(Some(process));
            }
        }
        Ok(None)
    }

    /// The process whose command line gives QEMU that UUID, and that sees the folder `theirs` (its name for it) as ours;
    /// `None` proves that there is none. `likely` is looked at first.
    #[cfg(feature = "libvirt")]
    pub(super) fn of_vm(
        vm: VmId,
        likely: Option<i32>,
        (theirs, ours): (&Path, &Path),
    ) -> io::Result<Option<Process>> {
        let uuid = vm.to_string();
        let is_it = |pid: i32| has_uuid(pid, &uuid) && sees(pid, theirs, ours);
        let numbers = std::fs::read_dir("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        for pid in likely.into_iter().chain(numbers) {
            if is_it(pid)
                && let Some(process) = Process::open(pid)?
                && is_it(pid)
            {
                return Ok(Some(process));
            }
        }
        Ok(None)
    }

    /// Whether it was told to end, and has not heard it yet: its signals are not delivered while it is stopped.
    #[cfg(feature = "libvirt")]
    pub(super) fn has_been_told_to_end(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        status.unwrap_or_default().lines().any(|line| {
            let mask = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"));
            let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            mask.is_some_and(|mask| mask >> (Signal::TERM.as_raw() - 1) & 1 == 1)
        })
    }

    /// Whether it ends just now, or has ended: what it is asked it may not do any more.
    #[cfg(feature = "libvirt")]
    pub(super) fn is_ending(&self) -> bool {
        /// Field 9 of `/proc/PID/stat`, of the kernel's `PF_EXITING`.
        const EXITING: u64 = 4;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        let stat = stat.unwrap_or_default();
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let (state, flags) = (fields.next(), fields.nth(5).and_then(|flags| flags.parse().ok()));
        let lives = state.is_some_and(|state| !matches!(state, "Z" | "X"));
        !lives || flags.is_none_or(|flags: u64| flags & EXITING != 0)
    }

    /// Its number.
    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_pid()
    }

    /// When it began, in clock ticks since boot.
    pub(super) fn start_time(&self) -> u64 {
        self.start
    }

    /// Waits for its end and says how it ended, as far as that can be known.
    pub(super) async fn ended(&mut self) -> String {
        // An error would mean that the runtime shuts down, which ends this task too.
        drop(self.handle.readable().await);
        let Some(child) = &mut self.child else { return "ended".to_owned() };
        match child.wait().await.map(|status| (status.code(), status.signal())) {
            Ok((Some(code), _)) => format!("ended with exit code {code}"),
            Ok((_, Some(signal))) => format!("was killed by signal {signal}"),
            _ => "ended".to_owned(),
        }
    }

    /// Whether it ends within that time.
    pub(super) async fn gone_within(&mut self, max: Duration) -> bool {
        timeout(max, self.ended()).await.is_ok()
    }

    /// Whether it is stopped by a signal: it executes nothing, whoever asks it to.
    pub(super) fn is_stopped(&self) -> bool {
        stat(self.pid.as_raw_pid()) == Some(('T', self.start))
    }

    /// Stops it by a signal, and waits until all of its threads are. One that is gone needs no stopping.
    pub(super) async fn stop(&self, max: Duration) -> io::Result<()> {
        match pidfd_send_signal(self.handle.get_ref(), Signal::STOP) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
        let stopped = async {
            while start_time(self.pid.as_raw_pid()) == Some(self.start) && !self.is_stopped() {
                tokio::time::sleep(STOP_PAUSE).await;
            }
        };
        timeout(max, stopped).await.map_err(|_late| io::ErrorKind::TimedOut.into())
    }

    /// Lets it go on.
    pub(super) fn go_on(&self) -> io::Result<()> {
        pidfd_send_signal(self.handle.get_ref(), Signal::CONT).map_err(io::Error::from)
    }

    /// Whether [`Process::waits_at`] may look: the kernel asks for the same user and no more rights than ours, or
    /// CAP_SYS_PTRACE; with Yama also for a child of ours.
    pub(super) fn may_be_looked_at(&self) -> io::Result<()> {
        std::fs::read_to_string(format!("/proc/{}/syscall", self.pid())).map(drop)
    }

    /// The connection of these at which its main thread waits for the other side: its descriptor there, and that side, since a
    /// descriptor is soon given to the next connection.
    pub(super) fn waits_at(&self, ends: Ends) -> Option<(i32, SocketAddr)> {
        // Number and arguments of the system call (proc(5)); those that wait at a connection have it as their first argument.
        let call = std::fs::read_to_string(format!("/proc/{}/syscall", self.pid())).ok()?;
        let first = call.split_ascii_whitespace().nth(1)?.strip_prefix("0x")?;
        let descriptor = i32::from_str_radix(first, 16).ok()?;
        self.connection(descriptor, ends).ok().map(|(_connection, there)| (descriptor, there))
    }

    /// Shuts down a connection of it, if it is that one, and one of these.
    pub(super) fn shut_down(&self, at: (i32, SocketAddr), ends: Ends) -> io::Result<()> {
        let (connection, there) = self.connection(at.0, ends)?;
        if there != at.1 {
            return Err(io::Error::other("it ended by itself"));
        }
        rustix::net::shutdown(&connection, Shutdown::Both).map_err(io::Error::from)
    }

    /// Shuts down one of its sockets, if the descriptor still is that of this inode.
    #[cfg(feature = "libvirt")]
    pub(super) fn shut_down_socket(&self, descriptor: i32, inode: u64) -> io::Result<()> {
        let socket = pidfd_getfd(self.handle.get_ref(), descriptor, PidfdGetfdFlags::empty())?;
        if rustix::fs::fstat(&socket)?.st_ino != inode {
            return Ok(());
        }
        rustix::net::shutdown(&socket, Shutdown::Both).map_err(io::Error::from)
    }

    /// A descriptor of its connection, beside its own, and the other side.
    fn connection(&self, descriptor: i32, ends: Ends) -> io::Result<(OwnedFd, SocketAddr)> {
        let other = || io::Error::other("no connection of the copy");
        let pidfd = self.handle.get_ref();
        let connection = pidfd_getfd(pidfd, descriptor, PidfdGetfdFlags::empty())?;
        let there = rustix::net::getpeername(&connection)?.ok_or_else(other)?;
        let here = rustix::net::getsockname(&connection)?;
        let address = |it: SocketAddrAny| SocketAddr::try_from(it).map_err(|_unix| other());
        let there = address(there)?;
        if ends.are(address(here)?, there) { Ok((connection, there)) } else { Err(other()) }
    }

    /// Kills it and waits until that is proven.
    pub(super) async fn kill(&mut self, max: Duration) -> io::Result<()> {
        match pidfd_send_signal(self.handle.get_ref(), Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
        if self.gone_within(max).await { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
    }
}

/// An error where processes of other users cannot be looked at ([`Process::find`] would prove nothing): init's is one, unless
/// all is this user's own or this is root.
pub(super) fn all_are_seen() -> io::Result<()> {
    std::fs::read("/proc/1/cmdline").map(drop)
}

/// Whether a process is stopped by a signal.
pub(super) fn is_stopped(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| state == 'T')
}

/// A pidfd becomes readable when its process ends.
fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is a valid descriptor, always the same, and open until it is dropped; only the `AsyncFd`
    // that takes it drops it.
    Ok(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?)
}

/// Start time of a process, in clock ticks since boot; `None` if it is gone or a zombie.
fn start_time(pid: i32) -> Option<u64> {
    stat(pid).filter(|(state, _)| !"ZX".contains(*state)).map(|(_, start)| start)
}

/// State and start time: fields 3 and 22 of `/proc/PID/stat` (proc(5)). The second field may contain anything.
fn stat(pid: i32) -> Option<(char, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.nth(18)?.parse().ok()?))
}

/// Whether a command line holds `unix:SOCKET` (`-qmp`) or `path=SOCKET` (`-chardev`): QEMU's words for a socket, which
/// the tools that connect to one do not use.
fn listens_on(pid: i32, socket: &Path) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let name = socket.to_string_lossy();
    let named = String::from_utf8_lossy(&line).split('\0').any(|word| {
        ["unix:", "path="].iter().any(|before| {
            let needle = format!("{before}{name}");
            word.find(&needle).is_some_and(|at| {
                matches!(word.as_bytes().get(at + needle.len()), None | Some(b','))
            })
        })
    });
    named && sees_our_folder(pid, socket)
}

/// Whether the process means the same folder by that name as we do: in a container the same name may be another folder.
/// In doubt it does.
fn sees_our_folder(pid: i32, socket: &Path) -> bool {
    socket.parent().is_none_or(|folder| sees(pid, folder, folder))
}

/// Whether what the process knows as the folder `theirs` is what we know as `ours`. In doubt it is.
fn sees(pid: i32, theirs: &Path, ours: &Path) -> bool {
    let theirs = std::fs::metadata(format!("/proc/{pid}/root{}", theirs.display()));
    match (theirs, std::fs::metadata(ours)) {
        (Ok(theirs), Ok(ours)) => (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()),
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => false,
        _ => true,
    }
}

/// Whether a command line is a QEMU's of that UUID.
#[cfg(feature = "libvirt")]
fn has_uuid(pid: i32, uuid: &str) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line);
    let mut words = line.split('\0');
    words.any(|word| word == "-uuid") && words.next() == Some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn log(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("process-test-{}-{name}.log", std::process::id()))
    }

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_process_that_ends_at_once_says_how() {
        let mut process =
            Process::start(&words(&["sh", "-c", "echo no such luck >&2; exit 3"]), &log("once"))
                .unwrap();
        assert_eq!(process.ended().await, "ended with exit code 3");
        assert_eq!(std::fs::read_to_string(log("once")).unwrap(), "no such luck\n");
        assert!(Process::open(process.pid()).unwrap().is_none());
        std::fs::remove_file(log("once")).unwrap();
    }

    #[tokio::test]
    async fn a_process_is_stopped_and_goes_on() {
        let mut process =
            Process::start(&words(&["tail", "-f", "/dev/null"]), &log("stopped")).unwrap();
        assert!(!process.is_stopped());
        for _ in 0..2 {
            process.stop(SOON).await.unwrap();
            assert!(process.is_stopped());
        }
        process.go_on().unwrap();
        process.stop(SOON).await.unwrap();
        process.kill(SOON).await.unwrap();
        assert!(!process.is_stopped());
        process.stop(SOON).await.expect("it is gone");
        std::fs::remove_file(log("stopped")).unwrap();
    }

    #[tokio::test]
    async fn a_process_is_found_by_its_socket_and_proven_gone_after_a_kill() {
        let socket = log("found").with_extension("sock");
        let line = format!("unix:{},server=on", socket.display());
        let mut child = Process::start(&words(&["tail", "-f", "/dev/null", &line]), &log("found"));
        let child = child.as_mut().unwrap();
        let mut found = Process::find(&socket).unwrap().expect("it runs");
        assert_eq!((found.pid(), found.start_time()), (child.pid(), child.start_time()));
        assert!(
            Process::find(&socket.with_extension("soc")).unwrap().is_none(),
            "a part of a name is no match"
        );
        found.kill(SOON).await.unwrap();
        assert!(Process::open(child.pid()).unwrap().is_none(), "a zombie is gone");
        assert_eq!(child.ended().await, "was killed by signal 9");
        assert!(Process::find(&socket).unwrap().is_none());
        std::fs::remove_file(log("found")).unwrap();
    }

    #[tokio::test]
    async fn only_the_connection_that_was_seen_is_shut_down_and_not_the_next_with_its_descriptor() {
        use std::io::Read;
        use std::net::{TcpListener, TcpStream};
        use std::os::fd::AsRawFd;
        let itself = i32::try_from(std::process::id()).unwrap();
        let itself = Process::open(itself).unwrap().expect("it runs");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, peer) = listener.accept().unwrap();
        let another = SocketAddr::new(peer.ip(), peer.port() ^ 1);
        let ends = Ends::At(ours.local_addr().unwrap().port(), 0);
        itself.shut_down((ours.as_raw_fd(), another), ends).expect_err("it is another's");
        theirs.set_nonblocking(true).unwrap();
        let open = theirs.read(&mut [0]).unwrap_err().kind();
        assert_eq!(open, io::ErrorKind::WouldBlock);
        theirs.set_nonblocking(false).unwrap();
        itself.shut_down((ours.as_raw_fd(), peer), ends).unwrap();
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    }
}
