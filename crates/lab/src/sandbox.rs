//! Namespaces of our own in which everything runs, and which end with the program, whatever ends it.
//!
//! ```text
//!  outer ── runs itself again by setpriv, unshare ──▶ init (pid 1) ── runs itself again ──▶ inside
//!    │ holds the write end of a pipe                   │ reads it: at its end, all is over    │ the program proper
//!    └ waits                                           └ reaps whatever is orphaned          └ its end is init's end
//! ```
//!
//! When init ends, the kernel kills every process of the pid namespace; with the last process go the namespaces, links,
//! sockets and mounts. Init ends if the program inside ends; if the outer process ends, by whatever signal, since the
//! pipe then closes; and if setpriv's death signal reaches unshare first. The pipe also covers an outer process that
//! was killed before a death signal was set, which from a pid namespace cannot be seen by the parent's pid.
//!
//! Ctrl-C reaches the outer process too, and ends it: so it ends everything at once.
//!
//! A folder of the outer /proc stays open inside, since only there stand the ids by which another terminal knows our
//! processes: [`pid_outside`].

use std::ffi::OsString;
use std::fs::{self, File};
use std::future::Future;
use std::io::{Read, stdin};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::{env, process, thread};

use anyhow::{Context, bail, ensure};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, WaitOptions, geteuid, wait};

use crate::setup;

const MARK: &str = "EVENKEEL_SANDBOX";
const MARK_INIT: &str = "init";
const MARK_INSIDE: &str = "inside";
/// Number of the open folder that is the outer /proc.
const OUTER_PROC: &str = "EVENKEEL_OUTER_PROC";

/// Where the caller finds itself.
#[derive(Debug)]
pub enum Entered {
    /// Inside the sandbox: go on.
    Inside,
    /// Outside; the program has run inside and ended so.
    Outside(ExitStatus),
}

/// Whether this process is the outer one: what must be done before [`enter`], and once, is done there.
#[must_use]
pub fn outside() -> bool {
    env::var_os(MARK).is_none()
}

/// An error unless this process may make a sandbox: said before anything that takes long.
pub fn allowed() -> anyhow::Result<()> {
    ensure!(
        geteuid().is_root(),
        "making network namespaces and taps needs root: run this with sudo"
    );
    Ok(())
}

/// The id that the sandbox's process `pid` has outside, where another terminal can name it.
pub fn pid_outside(pid: u32) -> anyhow::Result<u32> {
    let number = env::var(OUTER_PROC).context("not inside a sandbox")?;
    let proc = format!("/proc/self/fd/{number}");
    let own = fs::read_link(format!("{proc}/self/ns/pid")).context("reading the outer /proc")?;
    for entry in fs::read_dir(&proc)? {
        let path = entry?.path();
        // Processes of others end while we look, and are not ours to look at.
        let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
        let Some(ids) = status.lines().find_map(|line| line.strip_prefix("NSpid:")) else {
            continue;
        };
        let ids: Vec<u32> = ids.split_whitespace().filter_map(|id| id.parse().ok()).collect();
        if ids.last() == Some(&pid) && fs::read_link(path.join("ns/pid")).is_ok_and(|ns| ns == own)
        {
            return ids.first().copied().context("a process without an id");
        }
    }
    bail!("no process {pid} in this sandbox")
}

/// Runs this program again, with the same arguments, inside a new sandbox. To be called early in `main`, by the thread
/// that lives longest: the death signal is bound to it.
pub fn enter() -> anyhow::Result<Entered> {
    enter_with(env::args_os().skip(1).collect())
}

/// The body of a test named `name` (with its modules) that needs real guests: runs setup outside, then `body` inside.
///
/// # Panics
/// If `body` fails, the sandbox cannot be made, or the test has another name: then nothing of it would run inside.
pub fn test<F>(name: &str, body: impl FnOnce() -> F)
where
    F: Future<Output = anyhow::Result<()>>,
{
    test_with(false, name, body);
}

/// As [`test()`]; where `with_libvirt`, guests can be domains of libvirt too.
///
/// # Panics
/// As there.
pub fn test_with<F>(with_libvirt: bool, name: &str, body: impl FnOnce() -> F)
where
    F: Future<Output = anyhow::Result<()>>,
{
    let run = || -> anyhow::Result<()> {
        // Where tests run one at a time they have the main thread, which does not know.
        let thread = thread::current();
        let is = thread.name().unwrap_or(name);
        ensure!(is == name || is == "main", "this test is {is:?} and calls itself {name:?}");
        if outside() {
            setup::ensure_with(with_libvirt, &mut |_step| {}).context("setup")?;
        }
        match enter_with([name, "--exact", "--nocapture"].map(OsString::from).to_vec())? {
            Entered::Inside => {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(2)
                    .enable_all()
                    .build()?;
                runtime.block_on(body())
            }
            Entered::Outside(status) => {
                ensure!(status.success(), "inside the sandbox: {status}");
                Ok(())
            }
        }
    };
    if let Err(error) = run() {
        panic!("{error:#}");
    }
}

fn enter_with(arguments: Vec<OsString>) -> anyhow::Result<Entered> {
    match env::var(MARK).as_deref() {
        Ok(MARK_INSIDE) => Ok(Entered::Inside),
        Ok(MARK_INIT) => init(arguments),
        Ok(other) => bail!("{MARK}={other:?} in the environment: unset it"),
        Err(_) => outer(arguments).map(Entered::Outside),
    }
}

fn outer(arguments: Vec<OsString>) -> anyhow::Result<ExitStatus> {
    allowed()?;
    let proc = File::open("/proc").context("opening /proc")?;
    fcntl_setfd(&proc, FdFlags::empty()).context("handing /proc on")?;
    let mut unshare = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child=SIGKILL"])
        .args(["--mount", "--net", "--uts", "--ipc", "--mount-proc"])
        .arg(env::current_exe().context("finding this program")?)
        .args(arguments)
        .env(MARK, MARK_INIT)
        .env(OUTER_PROC, proc.as_raw_fd().to_string())
        .stdin(Stdio::piped())
        .spawn()
        .context("starting setpriv and unshare (package util-linux)")?;
    // Held until the end; wait() would close it at once.
    let _lifeline = unshare.stdin.take();
    unshare.wait().context("waiting for the sandbox")
}

/// Pid 1 of the sandbox; never returns.
fn init(arguments: Vec<OsString>) -> anyhow::Result<Entered> {
    ensure!(process::id() == 1, "{MARK} is set, but this is no sandbox: unset it");
    thread::Builder::new().name("lifeline".to_owned()).spawn(|| {
        let _ended_either_way = stdin().read(&mut [0]);
        exit(128 + 9)
    })?;
    let program = Command::new(env::current_exe().context("finding this program")?)
        .args(arguments)
        .env(MARK, MARK_INSIDE)
        .stdin(Stdio::null())
        .spawn()
        .context("starting the program inside the sandbox")?;
    let program = i32::try_from(program.id()).ok().and_then(Pid::from_raw);
    loop {
        let reaped =
            wait(WaitOptions::empty()).context("waiting for the program inside the sandbox")?;
        if let Some((pid, status)) = reaped
            && Some(pid) == program
        {
            let status = ExitStatus::from_raw(status.as_raw());
            exit(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()));
        }
    }
}

#[expect(clippy::exit, reason = "pid 1 ends the sandbox by ending")]
fn exit(code: i32) -> ! {
    process::exit(code)
}
