//! The hypervisor driver for bare QEMU processes, by QMP.
//!
//! Every VM whose definition lies in one folder (see `definition`) has a task of its own; orders reach it through its
//! mailbox. A further task looks into the folder once a second for VMs that nobody has a task for yet.
//!
//! ```text
//!   order ──▶ mailbox of the VM ──▶ its task ◀──▶ QMP socket, pidfd, tap
//!                                       └──▶ one channel of reports and sightings
//! ```
//!
//! Dropping the driver ends its tasks and connections, never a VM: the next one adopts what runs.
//!
//! **Invariant:** the driver starts a guest only by `Resume` or `TakeBack`, and only a copy that is settled.
//! **Invariant:** it ends a process only by `Discard`, `DestroyIncoming` or `DestroyIncomplete` (or to undo `Prepare`), and
//! never one whose guest was seen running.
//! **Invariant:** no file, socket or answer of QEMU's stops the driver: each problem is said once, as a sighting.
//!
//! Disks must be none or on storage that all hosts share.

mod adopt;
mod copy;
mod definition;
mod figures;
#[cfg(test)]
mod fuzz;
mod incoming;
mod left;
mod messages;
mod qmp;
mod reach;
mod share;
mod source;
mod tls;
mod vm;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use decide::migrate::hypervisor::{HypervisorCommand, Sighting};
use decide::units::{MoveId, VmId};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use self::definition::{Definition, Paths};
pub use self::tls::CopyKeys;
use self::vm::{Order, VmTask};
use super::{
    ChangedTags, FromHypervisor, Hypervisor, Other, TagChange, TagsError, Watched, handshake,
    private, process, tap,
};

/// How often the folder, and each VM's files in it, are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Orders that may wait for one VM. A move gives about ten in all.
const ORDERS_MAX: usize = 32;
/// A unix socket's address holds 107 bytes; a UUID and the extension take 42 of them.
const DIR_LENGTH_MAX: usize = 65;

/// What an operator may set.
#[derive(Clone, Debug)]
pub struct QemuConfig {
    /// The folder with definitions and sockets. On tmpfs, since it says what is there now; kept short (at most 65
    /// bytes), since a socket's address has a limit.
    pub dir: PathBuf,
    /// The address of this host at which incoming copies listen: one that the other hosts reach.
    pub listen: IpAddr,
    /// The address that this host's certificate names, where copies arrive at another.
    pub certified: Option<IpAddr>,
    /// The ports of incoming copies, one per move under way; `0..=0` lets the kernel choose.
    pub ports: RangeInclusive<u16>,
    /// How long QEMU may take for one answer. Shorter takes a busy host for a dead one; 2 to 30 seconds are sane.
    pub answer_max: Duration,
    /// How long an incoming side may take to start. Large guests and slow disks need more; 5 to 60 seconds are sane.
    pub start_max: Duration,
    /// A copy of which nothing was sent for that long is cancelled: QEMU itself waits for ever when a link is down.
    /// Longer than a network takes to mend itself; 10 to 120 seconds are sane.
    pub stall_max: Duration,
    /// How often QEMU is asked for disks and memory of a VM, each time a few short questions; how fast the memory is written
    /// to is measured at every twelfth. Shorter costs the agent and QEMU time; 5 to 30 seconds are sane.
    pub figures_every: Duration,
    /// The cgroup under which each VM that gets a weight has one of its own, named by its UUID. It, or the one above it, must
    /// be there and be the agent's to write to; its own weight is the operator's.
    pub cgroup: PathBuf,
    /// By what copies are encrypted; absent: they cannot be.
    pub keys: Option<CopyKeys>,
}

impl Default for QemuConfig {
    fn default() -> QemuConfig {
        QemuConfig {
            dir: PathBuf::from("/run/evenkeel/qemu"),
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            certified: None,
            ports: 49152..=49215,
            answer_max: Duration::from_secs(5),
            start_max: Duration::from_secs(15),
            stall_max: Duration::from_secs(30),
            figures_every: Duration::from_secs(5),
            cgroup: PathBuf::from("/sys/fs/cgroup/evenkeel"),
            keys: None,
        }
    }
}

/// The driver cannot start; no VM was touched.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// The folder cannot be used: make it, or name another.
    #[error("the folder {dir} for QEMU sockets cannot be used")]
    Dir {
        /// Which folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder's name is too long for a socket in it: name another.
    #[error("the folder {dir} for QEMU sockets has a name of more than {DIR_LENGTH_MAX} bytes")]
    DirTooLong {
        /// Which folder.
        dir: PathBuf,
    },
    /// The ports are no range: mend the configuration.
    #[error(
        "the ports {0:?} for incoming copies are no range: write the lower one first, or 0 for both"
    )]
    Ports(RangeInclusive<u16>),
    /// A QEMU of another user's that runs could not be told from one that does not: show this user all processes.
    #[error(
        "processes of other users are hidden in /proc, so that a VM could seem not to run: mount it without hidepid, and start the agent without ProtectProc"
    )]
    Hidden(#[source] io::Error),
}

/// The driver. Dropping it leaves every VM as it is.
#[derive(Debug)]
pub struct Qemu {
    place: Arc<Place>,
    scan: AbortHandle,
}

impl Qemu {
    /// Starts to watch the folder, making it where it is absent. Everything heard goes into `heard`; a full channel
    /// delays the VMs' tasks, so it must be read.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        mut config: QemuConfig,
        heard: mpsc::Sender<FromHypervisor>,
    ) -> Result<Qemu, QemuError> {
        let unusable = |dir: &Path| {
            let dir = dir.to_owned();
            move |source| QemuError::Dir { dir, source }
        };
        process::all_are_seen().map_err(QemuError::Hidden)?;
        private::folder(&config.dir).map_err(unusable(&config.dir))?;
        // Command lines of QEMU processes are compared with this name.
        config.dir = config.dir.canonicalize().map_err(unusable(&config.dir))?;
        if config.dir.as_os_str().len() > DIR_LENGTH_MAX {
            return Err(QemuError::DirTooLong { dir: config.dir });
        }
        if config.ports.is_empty() || (*config.ports.start() == 0 && *config.ports.end() != 0) {
            return Err(QemuError::Ports(config.ports));
        }
        let runtime = Handle::current();
        let place = Arc::new(Place { config, heard, runtime, roster: Mutex::default() });
        let scan = place.runtime.spawn(Arc::clone(&place).scan()).abort_handle();
        Ok(Qemu { place, scan })
    }
}

impl Hypervisor for Qemu {
    fn order(&self, move_id: MoveId, vm: VmId, command: HypervisorCommand) {
        let mut roster = self.place.roster();
        let entry = Arc::clone(&self.place).entry(&mut roster, vm);
        if let Err(error) = entry.mailbox.try_send(Order { move_id, command }) {
            tracing::error!(%move_id, %vm, %error, "an order was dropped: the VM does not keep up");
        }
    }

    fn change_tags(&self, vm: VmId, _change: TagChange) -> oneshot::Receiver<ChangedTags> {
        let (tell, told) = oneshot::channel();
        let file = self.place.config.dir.join(format!("{vm}.toml"));
        let why = format!(
            "with the driver `qemu` a VM's tags stand in its own file: write `tags = […]` in {}",
            file.display()
        );
        // Whoever asked may have gone.
        drop(tell.send(Err(TagsError::Refused(why))));
        told
    }

    fn watched(&self) -> Vec<Watched> {
        self.place.roster().values().filter_map(|entry| entry.watched.clone()).collect()
    }

    fn others(&self) -> Vec<Other> {
        let roster = self.place.roster();
        let idle = roster.iter().filter(|(_, entry)| entry.watched.is_none());
        let idle: Vec<VmId> = idle.map(|(vm, _)| *vm).collect();
        drop(roster);
        let listening = listening();
        let defined = idle.into_iter().filter_map(|vm| {
            let Paths { definition, socket, .. } = Paths::new(&self.place.config.dir, vm);
            let runs = socket.file_name().is_some_and(|name| listening.contains(name));
            let text = std::fs::read_to_string(definition).ok();
            let name = text.as_ref().and_then(|text| Definition::parse(text).ok());
            let name = name.map_or_else(|| vm.to_string(), |it| it.name);
            (runs || text.is_some()).then_some(Other { vm, name, runs })
        });
        defined.collect()
    }
}

/// File names of the sockets in this network namespace that somebody has open, as the kernel lists them: unlike connecting, it
/// asks nothing of a hypervisor that may be stuck. Names alone, since a socket may be bound by another path to its folder.
fn listening() -> BTreeSet<OsString> {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let paths = table.lines().filter_map(|line| line.split_whitespace().nth(7));
    paths.filter_map(|path| Path::new(path).file_name().map(OsString::from)).collect()
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.scan.abort();
        for entry in self.place.roster().values() {
            entry.task.abort();
        }
    }
}

type Roster = BTreeMap<VmId, Entry>;

/// A VM that has a task.
#[derive(Debug)]
struct Entry {
    mailbox: mpsc::Sender<Order>,
    task: AbortHandle,
    watched: Option<Watched>,
}

/// What all tasks of a driver share.
#[derive(Debug)]
struct Place {
    config: QemuConfig,
    heard: mpsc::Sender<FromHypervisor>,
    runtime: Handle,
    roster: Mutex<Roster>,
}

impl Place {
    fn roster(&self) -> std::sync::MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The VM's entry, with a task started for it where it has none.
    fn entry(self: Arc<Self>, roster: &mut Roster, vm: VmId) -> &mut Entry {
        roster.entry(vm).or_insert_with(|| {
            let (mailbox, orders) = mpsc::channel(ORDERS_MAX);
            let task = VmTask::new(Arc::clone(&self), vm, orders);
            Entry { mailbox, task: self.runtime.spawn(task.run()).abort_handle(), watched: None }
        })
    }

    /// Says something; waits while the agent does not keep up.
    async fn say(&self, what: FromHypervisor) {
        // A closed channel means that the agent ends.
        drop(self.heard.send(what).await);
    }

    /// Whether another VM that is watched has this name.
    fn name_taken(&self, vm: VmId, name: &str) -> bool {
        let named = |(other, entry): (&VmId, &Entry)| {
            *other != vm && entry.watched.as_ref().is_some_and(|watched| watched.name == name)
        };
        self.roster().iter().any(named)
    }

    /// Gives every VM that has files a task; says once what is wrong with the rest.
    async fn scan(self: Arc<Self>) {
        let mut said = BTreeSet::new();
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let (vms, problems) = match look_into(&self.config.dir) {
                Ok(found) => found,
                Err(error) => {
                    let dir = self.config.dir.display();
                    (
                        Vec::new(),
                        BTreeSet::from([format!(
                            "{dir}: the folder cannot be read ({error}): make it again"
                        )]),
                    )
                }
            };
            {
                let mut roster = self.roster();
                for vm in vms {
                    Arc::clone(&self).entry(&mut roster, vm);
                }
            }
            for problem in problems.difference(&said) {
                self.say(FromHypervisor::Sighting(Sighting::Unusable(None, problem.clone()))).await;
            }
            said = problems;
        }
    }
}

/// The VMs that have files there, and what is wrong with other definitions.
fn look_into(dir: &Path) -> io::Result<(Vec<VmId>, BTreeSet<String>)> {
    let (mut vms, mut problems) = (Vec::new(), BTreeSet::new());
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let part = |part: Option<&std::ffi::OsStr>| {
            part.unwrap_or_default().to_string_lossy().into_owned()
        };
        let (stem, extension) = (part(path.file_stem()), part(path.extension()));
        if !["toml", "incoming", "sock"].contains(&extension.as_str()) {
            continue;
        }
        match stem.parse::<VmId>() {
            Ok(vm) if vm.to_string() == stem => vms.push(vm),
            _ if extension == "toml" => {
                let path = path.display();
                problems
                    .insert(format!("{path}: rename it to UUID.toml, the VM's UUID in lower case"));
            }
            _ => {}
        }
    }
    Ok((vms, problems))
}
