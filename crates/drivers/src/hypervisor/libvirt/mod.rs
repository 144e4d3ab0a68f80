//! The hypervisor driver for libvirt.
//!
//! A move is taken in the steps of which libvirt's own live migration consists, and this driver, on each side, takes the part
//! of the library that would drive them. What one libvirt has to say to the other goes by the agents' own messages, so
//! no libvirt needs to reach another, or keys for it.
//!
//! ```text
//!   source                                   target
//!   Begin3: definition, cookie ─────────────▶ Prepare3: QEMU listens, paused
//!                                             Finish3, called at once: ends when the copy is complete, guest still paused
//!   Perform3: the copy ═════════════════════▶
//!    done: guest paused, its QEMU stays       done: `IncomingCompleted`
//!    `released` on disk, Fence, hand-over ───▶ `owner` on disk, Resume: the guest runs
//!   Confirm3: its QEMU is ended    ◀───────── seen running
//!   Confirm3, cancelled: it runs on  ◀─────── void
//! ```
//!
//! As one call (peer-to-peer) libvirt ends the source's copy before our hand-over, so a copy that dies at the target just
//! then would be lost; and if an answer is lost in it, libvirt itself lets both run. In steps neither can happen: nobody resumes
//! but us, and the source's copy stays until the guest was seen running at the target.
//!
//! Every VM has a task of its own; orders and libvirt's events reach it through its mailbox. One connection is shared for
//! events and short questions; each copy has one of its own, since it takes as long as it takes; and so has a question that waits for a
//! QEMU, of which few are asked at a time, so that VMs that hang keep nobody from the others.
//!
//! **Invariant:** the driver starts a guest only by `Resume` or `TakeBack`.
//! **Invariant:** it ends a domain only by `Discard`, `DestroyIncoming` or `DestroyIncomplete` (or to undo `Prepare`), and never
//! one whose guest was seen running.
//! **Invariant:** a daemon that ends, hangs or comes back stops nothing but what asks it: all is read anew when it is back.

mod adopt;
mod calls;
mod connections;
mod daemon;
mod definition;
mod disks;
mod figures;
mod files;
mod fit;
mod incoming;
mod left;
mod processor;
mod rpc;
mod source;
mod storage;
mod tags;
mod vm;
mod witness;
mod xdr;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use decide::migrate::hypervisor::{HypervisorCommand, Sighting, Witness};
use decide::units::{MoveId, VmId};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

pub use self::daemon::{check_uri, probe};
pub use self::storage::{DiskSeen, storage};

use self::daemon::{present, sockets, unusable, version};
use self::rpc::{ConnectError, Rpc, RpcError};
use self::tags::Wanted;
use self::vm::{Mail, VmTask};
use super::qemu::CopyKeys;
use super::{ChangedTags, FromHypervisor, Hypervisor, Other, TagChange, Watched, private, process};

/// Letters that may wait for one VM: orders of its moves, and libvirt's events.
const MAIL_MAX: usize = 64;
/// Of these, that must stay free for orders: what is seen comes again.
const ORDERS_MIN: usize = MAIL_MAX / 2;
/// Questions that may hang with a QEMU, at a time. The daemon has 20 workers, by default, for all that ask.
const QUESTIONS_MAX: usize = 4;
/// Likewise of QEMUs that have hung before: they keep nobody else waiting.
const DOUBTED_MAX: usize = 1;
/// Unanswered calls on the shared connection at which it is replaced: the daemon takes five of one connection at a time.
const LEFT_MAX: usize = 3;
/// Events of all VMs that may wait.
const EVENTS_MAX: usize = 256;
/// How often a daemon that is not there is looked for.
const CONNECT_EVERY: Duration = Duration::from_millis(500);
/// How often all domains are listed, in case an event was lost.
const LIST_EVERY: Duration = Duration::from_secs(2);
/// Where QEMU, started by libvirt, sees libvirt's folder.
const LIBVIRT_RUN: &str = "/run/libvirt";

/// What an operator may set.
#[derive(Clone, Debug)]
pub struct LibvirtConfig {
    /// Which daemon: `qemu:///system`, `qemu+unix:///system?socket=PATH`, or the socket's path. Only one of this host.
    pub uri: String,
    /// The folder of this driver's own marks: which domains are incoming, which were left. On tmpfs, as domains end with the
    /// machine.
    pub dir: PathBuf,
    /// The folder of what must outlive the machine: the definitions of VMs that have come, until libvirt keeps them.
    pub on_disk: PathBuf,
    /// Where libvirt saves definitions.
    pub definitions: PathBuf,
    /// The address of this host at which incoming copies listen: one that the other hosts reach. The ports are libvirt's
    /// (`migration_port_min` in its `qemu.conf`).
    pub listen: IpAddr,
    /// The address that this host's certificate names, where copies arrive at another.
    pub certified: Option<IpAddr>,
    /// How long the daemon may take for a short answer. Shorter takes a busy one for a dead one; 5 to 30 seconds are sane.
    pub answer_max: Duration,
    /// How long an incoming side may take to start. The first one after an upgrade of QEMU takes seconds longer, since libvirt
    /// then tries out what QEMU can; 30 to 120 seconds are sane.
    pub start_max: Duration,
    /// A copy of which nothing was sent for that long is cancelled. Longer than a network takes to mend itself; 10 to 120
    /// seconds are sane.
    pub stall_max: Duration,
    /// How often figures of all VMs are asked for, in one question. 5 to 30 seconds are sane.
    pub figures_every: Duration,
    /// Paths below which a disk is the same on all hosts, by the operator's word: neither compared nor copied along.
    pub shared_storage: Vec<PathBuf>,
    /// By what copies are encrypted, for libvirt's `migrate_tls_x509_cert_dir` to name; absent: they cannot be.
    pub keys: Option<CopyKeys>,
}

impl Default for LibvirtConfig {
    fn default() -> LibvirtConfig {
        LibvirtConfig {
            uri: "qemu:///system".to_owned(),
            dir: PathBuf::from("/run/evenkeel/libvirt"),
            on_disk: PathBuf::from("/var/lib/evenkeel/libvirt"),
            definitions: PathBuf::from("/etc/libvirt/qemu"),
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            certified: None,
            answer_max: Duration::from_secs(10),
            start_max: Duration::from_secs(60),
            stall_max: Duration::from_secs(30),
            figures_every: Duration::from_secs(5),
            shared_storage: Vec::new(),
            keys: None,
        }
    }
}

/// The driver cannot start; no VM was touched.
#[derive(Debug, thiserror::Error)]
pub enum LibvirtError {
    /// It names no daemon of this host: mend the configuration.
    #[error(
        "the URI {0:?} names no libvirt of this host: write \"qemu:///system\", or \"qemu+unix:///system?socket=/run/libvirt/libvirt-sock\""
    )]
    Uri(String),
    /// The folder cannot be used: make it, or name another.
    #[error("the folder {dir} for libvirt's VMs cannot be used")]
    Dir {
        /// Which folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A QEMU that runs could not be told from one that does not: show this user all processes.
    #[error(
        "processes of other users are hidden in /proc, so that a VM could seem not to run: mount it without hidepid, and start the agent without ProtectProc"
    )]
    Hidden(#[source] io::Error),
    /// What must be done at a hand-over, only root may: run the agent so.
    #[error(
        "the agent must run as root for libvirt's domains: it stops QEMUs of other users and asks libvirt for all. By systemd: sh /usr/share/evenkeel/libvirt/setup"
    )]
    NotRoot,
}

/// The driver. Dropping it leaves every VM, and every copy under way, as it is.
#[derive(Debug)]
pub struct Libvirt {
    place: Arc<Place>,
    hub: AbortHandle,
}

impl Libvirt {
    /// Starts to look for the daemon, which need not be there yet. Everything heard goes into `heard`; a full channel delays
    /// the VMs' tasks, so it must be read.
    ///
    /// # Errors
    /// If the configuration cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        config: LibvirtConfig,
        heard: mpsc::Sender<FromHypervisor>,
    ) -> Result<Libvirt, LibvirtError> {
        let sockets = sockets(&config.uri)?;
        if !rustix::process::geteuid().is_root() {
            return Err(LibvirtError::NotRoot);
        }
        process::all_are_seen().map_err(LibvirtError::Hidden)?;
        for dir in [&config.dir, &config.on_disk] {
            private::folder(dir)
                .map_err(|source| LibvirtError::Dir { dir: dir.clone(), source })?;
        }
        let still_to_be_kept = files::still_to_be_kept(&config.on_disk);
        let runtime = Handle::current();
        let (roster, shared) = (Mutex::default(), watch::Sender::new(None));
        let questions = [QUESTIONS_MAX, DOUBTED_MAX].map(Semaphore::new);
        let place = Place { config, sockets, heard, runtime, roster, shared, questions };
        let place = Arc::new(place);
        for vm in still_to_be_kept {
            // libvirt may not know it: its task looks.
            Arc::clone(&place).entry(&mut place.roster(), vm);
        }
        let hub = place.runtime.spawn(Arc::clone(&place).hub()).abort_handle();
        Ok(Libvirt { place, hub })
    }
}

impl Hypervisor for Libvirt {
    fn order(&self, move_id: MoveId, vm: VmId, command: HypervisorCommand) {
        let mut roster = self.place.roster();
        let entry = Arc::clone(&self.place).entry(&mut roster, vm);
        if let Err(error) = entry.mailbox.try_send(Mail::Order(move_id, command)) {
            tracing::error!(%move_id, %vm, %error, "an order was dropped: the VM does not keep up");
        }
    }

    fn change_tags(&self, vm: VmId, change: TagChange) -> oneshot::Receiver<ChangedTags> {
        let (tell, told) = oneshot::channel();
        let mut roster = self.place.roster();
        let entry = Arc::clone(&self.place).entry(&mut roster, vm);
        // Where it does not fit, `tell` is dropped.
        drop(entry.mailbox.try_send(Mail::Tags(Wanted { change, tell })));
        told
    }

    fn testify(&self, vm: VmId, witness: Witness) {
        let mut roster = self.place.roster();
        let entry = Arc::clone(&self.place).entry(&mut roster, vm);
        if let Err(error) = entry.mailbox.try_send(Mail::Testify(witness)) {
            tracing::warn!(%vm, %error, "its definition will not name its owner: the VM does not keep up");
        }
    }

    fn watched(&self) -> Vec<Watched> {
        self.place.roster().values().filter_map(|entry| entry.watched.clone()).collect()
    }

    fn others(&self) -> Vec<Other> {
        let roster = self.place.roster();
        let idle = roster.iter().filter(|(_, entry)| entry.watched.is_none());
        let other = |(vm, entry): (&VmId, &Entry)| {
            let (name, runs) = entry.known.clone()?;
            Some(Other { vm: *vm, name, runs })
        };
        idle.filter_map(other).collect()
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        self.hub.abort();
        for entry in self.place.roster().values() {
            entry.task.abort();
        }
    }
}

type Roster = BTreeMap<VmId, Entry>;

/// A VM that has a task.
#[derive(Debug)]
struct Entry {
    mailbox: mpsc::Sender<Mail>,
    /// A look is in the mailbox: a second one would bring nothing.
    looks: Arc<AtomicBool>,
    task: AbortHandle,
    watched: Option<Watched>,
    /// Its name and whether it is active, where libvirt knows it.
    known: Option<(String, bool)>,
    /// What figures are asked for.
    asked: Option<calls::Domain>,
}

/// What all tasks of a driver share.
#[derive(Debug)]
struct Place {
    config: LibvirtConfig,
    sockets: Vec<PathBuf>,
    heard: mpsc::Sender<FromHypervisor>,
    runtime: Handle,
    roster: Mutex<Roster>,
    /// The connection for events and short questions, while there is one.
    shared: watch::Sender<Option<Rpc>>,
    /// Who may ask what may hang: of a QEMU that has answered so far, and of one that has not.
    questions: [Semaphore; 2],
}

impl Place {
    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> Option<Rpc> {
        self.shared.borrow().clone()
    }

    /// The shared connection; a driver that has just started, or a daemon that has, is waited for a moment.
    async fn connected_soon(&self) -> Option<Rpc> {
        let mut shared = self.shared.subscribe();
        let there = timeout(CONNECT_EVERY * 4, shared.wait_for(Option::is_some)).await;
        there.ok()?.ok()?.clone()
    }

    fn entry(self: Arc<Self>, roster: &mut Roster, vm: VmId) -> &mut Entry {
        roster.entry(vm).or_insert_with(|| {
            let (mailbox, mail) = mpsc::channel(MAIL_MAX);
            let looks = Arc::new(AtomicBool::new(false));
            let task = VmTask::new(Arc::clone(&self), vm, mail, Arc::clone(&looks));
            let task = self.runtime.spawn(task.run()).abort_handle();
            Entry { mailbox, looks, task, watched: None, known: None, asked: None }
        })
    }

    /// Says something; waits while the agent does not keep up.
    async fn say(&self, what: FromHypervisor) {
        // A closed channel means that the agent ends.
        drop(self.heard.send(what).await);
    }

    fn socket(&self) -> &Path {
        present(&self.sockets)
    }

    /// libvirt's folder, as QEMU sees it and as we do.
    fn folder(&self) -> (&Path, &Path) {
        (Path::new(LIBVIRT_RUN), self.socket().parent().unwrap_or(Path::new(LIBVIRT_RUN)))
    }

    /// A connection of its own, for a copy.
    async fn connect(&self, events: Option<mpsc::Sender<rpc::Event>>) -> Result<Rpc, String> {
        let socket = self.socket();
        let rpc = Rpc::connect(socket, self.config.answer_max, events).await;
        rpc.map_err(|error| format!("libvirt cannot be reached at {}: {error}", socket.display()))
    }

    /// A connection for one question that waits as long as a QEMU does not answer. Few are asked at a time.
    async fn question(&self, doubted: bool) -> Result<(Rpc, SemaphorePermit<'_>), RpcError> {
        let turn = self.questions[usize::from(doubted)]
            .acquire()
            .await
            .map_err(|_never_closed| RpcError::Lost)?;
        let rpc = Rpc::connect(self.socket(), self.config.answer_max, None).await;
        Ok((rpc.map_err(|_gone| RpcError::Lost)?, turn))
    }

    /// Stays connected; gives events to the VMs' tasks and looks for domains that have none.
    async fn hub(self: Arc<Self>) {
        let mut said = None;
        loop {
            let ended = self.connected(&mut said).await;
            let why = ended.err().map(|error| unusable(self.socket(), &error));
            self.shared.send_replace(None);
            self.tell_all(|| Mail::Daemon(false));
            if let Some(why) = why
                && said.as_ref() != Some(&why)
            {
                self.say(FromHypervisor::Sighting(Sighting::Unusable(None, why.clone()))).await;
                said = Some(why);
            }
            sleep(CONNECT_EVERY).await;
        }
    }

    /// As long as a connection lasts. An error if there was none.
    async fn connected(self: &Arc<Self>, said: &mut Option<String>) -> Result<(), ConnectError> {
        let (tell, mut events) = mpsc::channel(EVENTS_MAX);
        let rpc = Rpc::connect(self.socket(), self.config.answer_max, Some(tell)).await?;
        let version = version(&rpc).await?;
        rpc.register().await?;
        self.shared.send_replace(Some(rpc.clone()));
        *said = None;
        tracing::info!(version, "connected to libvirt");
        self.tell_all(|| Mail::Daemon(true));
        let (mut list, mut ask) = (interval(LIST_EVERY), interval(self.config.figures_every));
        list.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => if let Some(change) = calls::change(&event) {
                        self.tell(change.domain.vm, Mail::Changed(change));
                    },
                    None => return Ok(()),
                },
                _ = list.tick() => {
                    if rpc.left() >= LEFT_MAX {
                        tracing::warn!("libvirt leaves questions unanswered: connecting to it anew");
                        return Ok(());
                    }
                    self.list(&rpc).await;
                }
                _ = ask.tick() => self.ask_figures(&rpc).await,
            }
        }
    }

    /// Gives every domain a task, and has every task look.
    async fn list(self: &Arc<Self>, rpc: &Rpc) {
        // An error is the connection's end, or passes.
        let Ok(domains) = rpc.domains().await else { return };
        let known: Vec<VmId> = self.roster().keys().copied().collect();
        let here: Vec<VmId> = domains.iter().map(|domain| domain.vm).collect();
        for domain in domains {
            self.tell(domain.vm, Mail::Look(Some(domain)));
        }
        for vm in known.into_iter().filter(|vm| !here.contains(vm)) {
            self.tell(vm, Mail::Look(None));
        }
    }

    /// A VM that does not keep up hears of it by the next list.
    fn tell(self: &Arc<Self>, vm: VmId, mail: Mail) {
        let mut roster = self.roster();
        let Entry { mailbox, looks, .. } = Arc::clone(self).entry(&mut roster, vm);
        deliver(mailbox, looks, mail);
    }

    fn tell_all(&self, mail: impl Fn() -> Mail) {
        for entry in self.roster().values() {
            drop(entry.mailbox.try_send(mail()));
        }
    }
}

/// Puts a letter into a VM's mailbox, unless orders need the place, or a look waits there already.
fn deliver(mailbox: &mpsc::Sender<Mail>, looks: &AtomicBool, mail: Mail) {
    let look = matches!(mail, Mail::Look(_));
    if look && looks.swap(true, Ordering::Relaxed) {
        return;
    }
    let delivered = mailbox.capacity() > ORDERS_MIN && mailbox.try_send(mail).is_ok();
    if look && !delivered {
        // None waits there: else no other would ever be put in.
        looks.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_look_waits_at_a_time_and_one_that_found_no_place_is_followed_by_others() {
        let (mailbox, mut mail) = mpsc::channel(MAIL_MAX);
        let looks = AtomicBool::new(false);
        let waiting = |mailbox: &mpsc::Sender<Mail>| MAIL_MAX - mailbox.capacity();
        for _ in 0..3 {
            deliver(&mailbox, &looks, Mail::Look(None));
        }
        assert_eq!(waiting(&mailbox), 1);
        assert!(matches!(mail.try_recv(), Ok(Mail::Look(None))));
        looks.store(false, Ordering::Relaxed);

        for _ in 0..MAIL_MAX {
            deliver(&mailbox, &looks, Mail::Daemon(true));
        }
        assert_eq!(waiting(&mailbox), MAIL_MAX - ORDERS_MIN, "the rest is for orders");
        deliver(&mailbox, &looks, Mail::Look(None));
        assert_eq!(waiting(&mailbox), MAIL_MAX - ORDERS_MIN);
        assert!(matches!(mail.try_recv(), Ok(Mail::Daemon(true))));
        deliver(&mailbox, &looks, Mail::Look(None));
        assert_eq!(waiting(&mailbox), MAIL_MAX - ORDERS_MIN, "it is in again");
    }
}
