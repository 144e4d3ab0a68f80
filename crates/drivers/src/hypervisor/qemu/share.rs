//! The share of its host that a VM gets: a weight for its process (cgroup), a rate for its tap (tc).
//!
//! ```text
//!   Prepare ─▶ `<uuid>.share` ─▶ cgroup PARENT/UUID, its weight, the process in it ─▶ tbf at the root of the tap
//!   end of the process ─▶ cgroup, tbf and file removed
//! ```
//!
//! The file says what was asked for, why, and for which process, so that a restarted agent can give it again, which does no
//! harm, and knows when that process has ended meanwhile.
//!
//! **Invariant:** a share that cannot be given, or taken, stops no VM and no move: it is said, and shown with the VM.
//! **Invariant:** nothing is touched of a VM that was given no share.
//!
//! Sources: Documentation/admin-guide/cgroup-v2.rst (`cpu.weight`), Documentation/scheduler/sched-design-CFS.rst (version 1:
//! `cpu.shares`, 1024 where version 2 has 100), tc-tbf(8).

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use decide::migrate::hypervisor::VmShare;
use decide::units::VmId;
use serde::{Deserialize, Serialize};

use super::vm::VmTask;
use super::{private, tap};
use crate::hypervisor::GivenShare;

/// Names our queueing discipline, so that no other is removed.
const HANDLE: &str = "e4e:";
/// How long a packet may wait in it.
const LATENCY: &str = "50ms";
/// Looks at a cgroup that its process has just left before it is left behind.
const REMOVE_LOOKS: u32 = 200;

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    pid: i32,
    /// When that process began, in clock ticks since boot.
    start: u64,
    share: VmShare,
}

impl VmTask {
    /// Gives the VM its share, where it has one.
    pub(super) async fn give_share(&mut self, share: Option<VmShare>) {
        let (Some(share), Some(process)) = (share, &self.process) else { return };
        let (pid, start) = (process.pid(), process.start_time());
        let mut trouble = Vec::new();
        if let Err(error) = self.keep(&Kept { pid, start, share: share.clone() }) {
            trouble.push(format!("{}: {error}", self.paths.share.display()));
        }
        if let Some(weight) = share.weight {
            let group = self.cgroup();
            let given = give_weight(&group, weight, pid);
            trouble.extend(given.err().map(|error| format!("{}: {error}", group.display())));
        }
        if let (Some(rate), Ok(Some(link))) = (share.rate, self.link()) {
            let rate = rate.0.to_string() + "bit";
            // What arrives at once: at least a super-packet, at high rates ten milliseconds of them.
            let burst = (share.rate.map_or(0, |rate| rate.0) / 800).max(64 << 10).to_string();
            let tbf = ["tbf", "rate", &rate, "burst", &burst, "latency", LATENCY];
            let mut line = vec!["qdisc", "replace", "dev", &link.tap, "root", "handle", HANDLE];
            line.extend(tbf);
            trouble.extend(tap::run("tc", &line).await.err().map(|error| error.to_string()));
        }
        let trouble = (!trouble.is_empty()).then(|| trouble.join("; "));
        if let Some(trouble) = &trouble {
            tracing::warn!(vm = %self.vm, trouble, "its share could not be given");
        }
        self.share = Some(GivenShare { share, trouble });
    }

    /// Gives again what was given before this driver started.
    pub(super) async fn renew_share(&mut self) {
        if self.share.is_none() && self.paths.share.exists() {
            let text = std::fs::read(&self.paths.share).unwrap_or_default();
            let kept: Option<Kept> = serde_json::from_slice(&text).ok();
            let process =
                self.process.as_ref().map(|process| (process.pid(), process.start_time()));
            match kept.filter(|kept| Some((kept.pid, kept.start)) == process) {
                Some(kept) => self.give_share(Some(kept.share)).await,
                None => self.take_share().await,
            }
        }
    }

    fn keep(&self, kept: &Kept) -> io::Result<()> {
        private::write(&self.paths.share, &serde_json::to_vec(kept)?)
    }

    /// Takes the share back. To be called once the process is gone.
    pub(super) async fn take_share(&mut self) {
        self.share = None;
        if !self.paths.share.exists() {
            return;
        }
        let group = self.cgroup();
        if let Err(error) = remove(&group).await {
            tracing::warn!(vm = %self.vm, %error, "{} is left behind", group.display());
        }
        if let Ok(Some(link)) = self.link()
            && tap::exists(&link.tap).unwrap_or(true)
        {
            // An error means that none is there any more.
            drop(
                tap::run("tc", &["qdisc", "del", "dev", &link.tap, "root", "handle", HANDLE]).await,
            );
        }
        drop(std::fs::remove_file(&self.paths.share));
    }

    fn cgroup(&self) -> PathBuf {
        group_of(&self.place.config.cgroup, self.vm)
    }
}

fn group_of(parent: &Path, vm: VmId) -> PathBuf {
    parent.join(vm.to_string())
}

/// Makes the group with its weight and puts the process, all its threads, into it.
fn give_weight(group: &Path, weight: u32, pid: i32) -> io::Result<()> {
    let parent = group.parent().unwrap_or(group);
    // Where this is no cgroup the kernel makes no files in it, and a folder would be left behind.
    let above = parent.parent().unwrap_or(parent).join("cgroup.procs");
    if !parent.join("cgroup.procs").exists() && !above.exists() {
        let why = "no cgroup, nor below one: mount cgroup2, or set host.cgroup";
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    }
    for folder in [parent, group] {
        match std::fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let children = folder.join("cgroup.subtree_control");
        if folder == parent && children.exists() {
            write(&children, "+cpu").map_err(|error| {
                let why = format!(
                    "the cpu controller cannot be turned on ({error}): delegate it to the agent"
                );
                io::Error::new(error.kind(), why)
            })?;
        }
    }
    let (v1, v2) = (group.join("cpu.shares"), group.join("cpu.weight"));
    if v1.exists() {
        write(&v1, &(u64::from(weight) * 1024 / 100).max(2).to_string())?;
    } else {
        write(&v2, &weight.to_string())?;
    }
    write(&group.join("cgroup.procs"), &pid.to_string())
}

/// Writes to a file that must be there.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let named = |error: io::Error| {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        io::Error::new(error.kind(), format!("{name}: {error}"))
    };
    let mut open = OpenOptions::new().write(true).open(file).map_err(named)?;
    open.write_all(text.as_bytes()).map_err(named)
}

/// Removes a group that its process has left: the kernel lets go of it a moment later.
async fn remove(group: &Path) -> io::Result<()> {
    for _ in 0..REMOVE_LOOKS {
        match std::fs::remove_dir(group) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                tokio::time::sleep(super::vm::SETTLE_PAUSE).await;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            outcome => return outcome,
        }
    }
    std::fs::remove_dir(group)
}
