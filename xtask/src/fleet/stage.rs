//! The simulated hosts, and who answers for them, under one lock.
//!
//! **Invariant:** hosts, their clocks and what is told of them show one time: that of the last thing that happened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use agent::clock::Clock as Shown;
use agent::fleet::{Asked, Desktop, Fleet, Place, Questions, Whose};
use anyhow::{Context, ensure};
use decide::host::Host;
use decide::host::story::{Note, Step};
use decide::policy::rules::Pin;
use decide::policy::settings::{Balance, Settings};
use decide::units::{BitsPerSec, HostId, Mib, Time};
use sim::hypervisor::Memory;
use sim::world::scene::Machine;
use sim::world::{Clock, World, address, host_id, number};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Truth, Ways, doors, goes_on};

pub(crate) const CLUSTER: &str = "simulated";
/// Of each host.
const CORES: u32 = 32;
const MEMORY: u64 = 128 * 1024;
const PACKETS: u64 = 4_000_000;
const LINK: BitsPerSec = BitsPerSec(10_000_000_000);
/// Time is let go on by so much at once, between two looks at why hosts move nothing.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// What was noted is brought to the disk so often.
const SYNC_EVERY: Duration = Duration::from_secs(60);
/// While time goes by as outside: hosts lag behind by so much at the most.
const STEP: Duration = Duration::from_millis(5);
const STEP_MAX: Duration = Duration::from_secs(1);
/// The VM that a rule keeps on the first two hosts.
pub(crate) const PINNED: &str = "vm1";

/// Which hosts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) hosts: u16,
    pub(crate) vms: u32,
    pub(crate) seed: u64,
}

/// What a host noted, when and where.
pub(crate) type Told = (Time, u16, Note);

/// Hosts, and who answers for them.
pub(crate) struct Stage {
    pub(crate) world: World,
    fleet: Fleet,
    /// What the hosts' clocks show.
    shown: &'static AtomicU64,
    /// All that was noted.
    pub(crate) told: Vec<Told>,
    looked: Time,
    synced: Time,
}

/// A stage whose time is let go on by hand.
pub(crate) struct Running {
    pub(crate) stage: Stage,
    plan: Plan,
    runtime: Runtime,
    questions: Questions,
    tops: BTreeMap<HostId, Desktop>,
    folder: PathBuf,
}

/// A stage that is served, and whose time goes on as outside.
pub(crate) struct Served {
    stage: Arc<Mutex<Stage>>,
    ways: Ways,
    runtime: Runtime,
    stops: Vec<oneshot::Sender<()>>,
    threads: Vec<(Sender<()>, JoinHandle<()>)>,
}

impl Running {
    /// Starts all agents; their clocks show `began`, microseconds since 1970.
    pub(crate) fn start(plan: &Plan, began: u64, folder: &Path) -> anyhow::Result<Running> {
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).thread_name("http").enable_all().build();
        let runtime = runtime.context("starting the runtime")?;
        let whose =
            |at: u16| Whose { id: host_id(at), name: format!("host{at}"), address: address(at) };
        let hosts: Vec<Whose> = (1..=plan.hosts).map(whose).collect();
        // As long as the process: clocks are copied to wherever time is told.
        let shown: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(began)));
        let place = Place {
            folder: folder.to_owned(),
            cluster: CLUSTER.to_owned(),
            clock: Shown::told(shown),
        };
        let (fleet, questions, tops) = runtime.block_on(Fleet::open(&place, &hosts))?;
        let mut world = build(plan, began);
        world.kept = Some(Vec::new());
        let (told, now) = (Vec::new(), world.now);
        let mut stage = Stage { world, fleet, shown, told, looked: now, synced: now };
        stage.settle();
        let (plan, folder) = (*plan, folder.to_owned());
        Ok(Running { stage, plan, runtime, questions, tops, folder })
    }

    /// Lets so much time go by, as fast as it is reckoned.
    pub(crate) fn live(&mut self, span: Duration) -> anyhow::Result<()> {
        self.stage.live(self.stage.world.now.plus(span))
    }

    /// Serves every host's API; from now on time goes on as outside.
    pub(crate) fn serve(self, truth: Option<Truth>) -> anyhow::Result<Served> {
        let Running { stage, plan, runtime, questions, tops, folder } = self;
        let stage = Arc::new(Mutex::new(stage));
        let threads = vec![
            thread("answers", Arc::clone(&stage), move |stage, wait| {
                let asked = questions.next(wait);
                asked.into_iter().for_each(|asked| locked(stage).answer(asked));
            })?,
            {
                let (began, from) = (Instant::now(), locked(&stage).world.now);
                thread("world", Arc::clone(&stage), move |stage, _| {
                    let mut stage = locked(stage);
                    // A host that does what it must not has ended the simulation with a word of its own.
                    stage.live(from.plus(began.elapsed())).expect("hosts keep what they must");
                })?
            },
        ];
        let opened = runtime.block_on(doors::open(plan.hosts, tops, &folder))?;
        let ways = Ways { truth, ..opened.ways };
        Ok(Served { stage, ways, runtime, stops: opened.stops, threads })
    }
}

/// A thread that does `what` over and over until told to stop; it is given how long it may wait in it.
fn thread(
    name: &str,
    stage: Arc<Mutex<Stage>>,
    mut what: impl FnMut(&Mutex<Stage>, Duration) + Send + 'static,
) -> anyhow::Result<(Sender<()>, JoinHandle<()>)> {
    let (stop, stopped) = channel();
    // One that waits for questions need not wait besides.
    let pause = if name == "world" { STEP } else { Duration::ZERO };
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
        while goes_on(stopped.recv_timeout(pause)) {
            what(&stage, STEP_MAX);
        }
    });
    Ok((stop, thread.with_context(|| format!("starting the thread {name}"))?))
}

fn locked(stage: &Mutex<Stage>) -> MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Served {
    pub(crate) fn ways(&self) -> &Ways {
        &self.ways
    }

    /// The first host notes so many events, one after another.
    pub(crate) fn burst(&self, count: u32) {
        for n in 1..=count {
            let mut stage = locked(&self.stage);
            let note = Note::new(Step::Settings, format!("event {n} of {count}, noted to be seen"));
            let now = stage.world.now;
            stage.world.notes.push((now, 1, note));
            stage.settle();
        }
    }

    pub(crate) fn until_ctrl_c(self) -> anyhow::Result<()> {
        self.runtime.block_on(tokio::signal::ctrl_c()).context("waiting for Ctrl-C")?;
        self.end();
        Ok(())
    }

    pub(crate) fn end(self) {
        drop(self.stops);
        for (stop, thread) in self.threads {
            drop(stop);
            // One that panicked has said so.
            let _ = thread.join();
        }
        drop(self.runtime);
        if let Ok(stage) = Arc::try_unwrap(self.stage) {
            stage.into_inner().unwrap_or_else(PoisonError::into_inner).fleet.end();
        }
    }
}

impl Stage {
    /// The hosts' clock, microseconds since 1970.
    pub(crate) fn clock(&self) -> Time {
        Time(self.shown.load(Ordering::Relaxed))
    }

    /// What each host does, or why nothing.
    pub(crate) fn doing(&self) -> BTreeMap<String, String> {
        let hosts = self.world.sites.values().filter_map(|site| site.host.as_ref());
        hosts.map(|host| (host.name().to_owned(), host.doing().to_owned())).collect()
    }

    pub(crate) fn host(&self, at: u16) -> anyhow::Result<&Host> {
        let host = self.world.sites.get(&at).and_then(|site| site.host.as_ref());
        host.with_context(|| format!("host{at} is not up"))
    }

    /// Lets time go on until then, and tells what is noted on the way.
    pub(crate) fn live(&mut self, until: Time) -> anyhow::Result<()> {
        while self.world.now < until {
            let look = self.looked.plus(LOOK_EVERY);
            let span = until.min(look).since(self.world.now);
            let noted = |world: &World| {
                !world.notes.is_empty() || world.kept.as_ref().is_some_and(|kept| !kept.is_empty())
            };
            self.world.until(span, noted);
            ensure!(
                self.world.checks.violations().is_empty(),
                "{:?}",
                self.world.checks.violations()
            );
            self.settle();
            if self.world.now >= look {
                self.look()?;
            }
        }
        Ok(())
    }

    fn look(&mut self) -> anyhow::Result<()> {
        self.looked = self.world.now;
        for (at, site) in &mut self.world.sites {
            if let Some(host) = &mut site.host {
                self.fleet.look(host_id(*at), host);
            }
        }
        if self.world.now.since(self.synced) >= SYNC_EVERY {
            self.synced = self.world.now;
            self.fleet.sync()?;
        }
        Ok(())
    }

    /// Sets the clocks, and tells and keeps what hosts have given.
    fn settle(&mut self) {
        if let Some(site) = self.world.sites.get(&1) {
            self.shown.store(site.clock.shown(self.world.now).0, Ordering::Relaxed);
        }
        for (when, at, note) in std::mem::take(&mut self.world.notes) {
            if let Some(host) = self.world.sites.get_mut(&at).and_then(|site| site.host.as_mut()) {
                self.fleet.tell(host_id(at), host, std::slice::from_ref(&note));
            }
            self.told.push((when, at, note));
        }
        for (at, kept) in self.world.kept.iter_mut().flat_map(std::mem::take) {
            self.fleet.keep(host_id(at), kept);
        }
    }

    fn answer(&mut self, asked: Asked) {
        let at = number(asked.host);
        let Stage { world, fleet, .. } = self;
        world.lend(at, |host| fleet.answer(asked, host));
        self.settle();
    }
}

/// Hosts alike, with VMs of several sizes dealt out to them in turn.
fn build(plan: &Plan, began: u64) -> World {
    let mut world = World::new(plan.seed, settings());
    for at in 1..=plan.hosts {
        let mut machine = Machine::new(CORES, MEMORY, PACKETS);
        machine.link = LINK;
        let clock = Clock::new(world.now, Time(began), 0);
        world.add(at, machine, clock);
    }
    // So that each host is about two fifths used, however many VMs it has.
    let each = plan.vms.div_ceil(u32::from(plan.hosts)).max(1);
    let share = |whole: u64| u32::try_from(whole / u64::from(each)).unwrap_or(u32::MAX);
    let (cpu, memory) = (share(u64::from(CORES) * 400), share(MEMORY * 2 / 5));
    for n in 1..=plan.vms {
        let at = 1 + u16::try_from((n - 1) % u32::from(plan.hosts)).unwrap_or_default();
        let mut about = |mean: u32| u64::from(mean / 2 + world.draw(mean));
        let (size, cpu, packets) = (Mib(about(memory)), about(cpu), about(20_000));
        let memory = Memory { size, working_set: Mib(size.0 / 10), dirty_rate: Mib(20) };
        world.boot_with(at, n, memory, cpu, packets);
    }
    (1..=plan.hosts).for_each(|at| world.restart(at));
    world
}

/// As shipped, but that hosts act by themselves; one VM is pinned.
fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.mode.balance = Balance::Automatic;
    let hosts = vec!["host1".to_owned(), "host2".to_owned()];
    settings.rules.pin.push(Pin { vms: vec![PINNED.to_owned()], hosts, ..Pin::default() });
    settings
}

/// Now, microseconds since 1970.
pub(super) fn now_micros() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or_default()
}
