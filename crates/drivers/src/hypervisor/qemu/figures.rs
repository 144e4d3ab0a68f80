//! What QEMU is asked of a VM now and then: its vCPU threads, its disks, its balloon, how fast it writes to its memory.
//!
//! ```text
//!   beat ─▶ a question ─▶ its answer ─▶ the next question ─▶ … ─▶ nothing more until the next beat
//! ```
//!
//! **Invariant:** nobody waits for an answer: the VM's task hears it beside everything else, and an order goes first. One
//! question at a time is open; as long as QEMU does not answer it, no other is asked.
//! **Invariant:** nothing is asked of a VM that is not adopted, or of which a copy is followed; and its memory is not
//! measured while QEMU itself says that a copy is under way. What a move overtook is not used. QEMU cannot be told to stop
//! measuring: that goes on for the rest of its second, looking at samples of pages only.
//!
//! Source: QEMU's `qapi/machine.json`, `qapi/block-core.json`, `qapi/migration.json`, `docs/interop/virtio-balloon-stats.rst`.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use decide::migrate::hypervisor::RunState;
use decide::units::{Bytes, Mib, MibPerSec, VmId};
use decide::usage::reading::DiskCounters;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::messages::{
    BlockStats, CalcDirtyRate, CpuFast, DirtyRate, DirtyStatus, GuestStats, Migration, QomChild,
    QomGetAt, QomList, QomSet, QueryBlockstats, QueryCpusFast, QueryDirtyRate, QueryMigrate,
};
use super::qmp::{Answer, Qmp, QmpError};
use super::vm::{Following, VmTask};
use crate::hypervisor::Told;

/// What changes seldom is asked at every so many beats, and the memory measured as often.
const SELDOM: u32 = 12;
/// A balloon that said nothing new for so many beats has no driver in the guest any more.
const SILENT_MAX: u32 = 4;
/// Into how many parts a beat is divided, for VMs to be asked one after the other.
const PHASES: u32 = 1024;
/// Where devices are that were given an id, and those that were not.
const DEVICES: [&str; 2] = ["/machine/peripheral", "/machine/peripheral-anon"];
const POLLING: &str = "guest-stats-polling-interval";

/// What may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Which threads run vCPUs.
    Threads,
    /// What devices there are in one of [`DEVICES`].
    Devices(&'static str),
    /// How often the balloon asks the guest.
    Polling,
    /// That it shall.
    Poll,
    /// What the guest told its balloon.
    GuestMemory,
    /// What the disks did.
    Disks,
    /// Whether a copy is under way that nobody here follows.
    Copying,
    /// That the memory shall be measured.
    Measure,
    /// How fast it is written to.
    DirtyRate,
}

/// The figures of one VM, and what is being asked.
#[derive(Debug)]
pub(super) struct Figures {
    every: Duration,
    /// Counts beats from another number in each VM, so that not all are measured at once.
    beats: u32,
    /// Whether this process was asked for what changes seldom.
    asked_seldom: bool,
    left: VecDeque<Question>,
    open: Option<(Question, Answer)>,
    balloon: Option<String>,
    /// When the guest told its balloon last, by QEMU's clock, and beats since.
    guest_told: (u64, u32),
    /// A measurement was begun and not read.
    measuring: bool,
    /// Its copy is complete elsewhere.
    pub(super) released: bool,
    told: Told,
}

/// When to ask: each VM at another instant. To be called inside the runtime.
pub(super) fn beat(vm: VmId, every: Duration) -> Interval {
    let mut beat = interval_at(Instant::now() + every * phase(vm) / PHASES, every);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

fn phase(vm: VmId) -> u32 {
    u32::try_from(vm.0 % u128::from(PHASES)).unwrap_or(0)
}

impl Figures {
    /// Nothing known yet.
    pub(super) fn new(vm: VmId, every: Duration) -> Figures {
        Figures {
            every,
            beats: phase(vm) % SELDOM,
            asked_seldom: false,
            left: VecDeque::new(),
            open: None,
            balloon: None,
            guest_told: (0, 0),
            measuring: false,
            released: false,
            told: Told::default(),
        }
    }

    /// As told last.
    pub(super) fn told(&self) -> Told {
        self.told.clone()
    }

    /// The process is another one, or gone.
    pub(super) fn forget(&mut self) {
        self.give_way();
        self.asked_seldom = false;
        self.balloon = None;
        self.told = Told::default();
    }

    /// An order has come: what was begun is not gone on with.
    pub(super) fn give_way(&mut self) {
        self.left.clear();
        self.measuring = false;
    }

    /// What to ask at this beat.
    fn plan(&mut self, runs: bool) {
        self.beats = (self.beats + 1) % SELDOM;
        if self.beats == 0 || !self.asked_seldom {
            self.asked_seldom = true;
            self.left.push_back(Question::Threads);
            self.left.extend(DEVICES.map(Question::Devices));
        }
        self.left.push_back(Question::Disks);
        if self.balloon.is_some() {
            self.left.push_back(Question::GuestMemory);
        }
        if self.measuring {
            self.left.push_back(Question::DirtyRate);
        } else if self.beats == 0 && runs {
            self.left.push_back(Question::Copying);
        }
    }

    /// Sends a question.
    async fn begin(&self, qmp: &mut Qmp, question: Question) -> Result<Answer, QmpError> {
        let path = || self.balloon.clone().unwrap_or_default();
        match question {
            Question::Threads => qmp.begin(QueryCpusFast {}).await,
            Question::Devices(path) => qmp.begin(QomList { path }).await,
            Question::Polling => qmp.begin(QomGetAt { path: path(), property: POLLING }).await,
            Question::Poll => {
                let value = self.every.as_secs().max(1);
                qmp.begin(QomSet { path: path(), property: POLLING, value }).await
            }
            Question::GuestMemory => {
                qmp.begin(QomGetAt { path: path(), property: "guest-stats" }).await
            }
            Question::Disks => qmp.begin(QueryBlockstats {}).await,
            Question::Copying => qmp.begin(QueryMigrate {}).await,
            Question::Measure => qmp.begin(CalcDirtyRate::ONE_SECOND).await,
            Question::DirtyRate => qmp.begin(QueryDirtyRate {}).await,
        }
    }

    /// Takes an answer; none where QEMU has nothing to say, or says no.
    pub(super) fn take(&mut self, question: Question, answer: Option<&Value>) {
        match question {
            Question::Threads => {
                self.told.vcpu_threads = parsed(answer).map_or(Vec::new(), threads)
            }
            Question::Devices(folder) => self.look_for_balloon(folder, parsed(answer)),
            // Whoever made it poll knows why so often.
            Question::Polling if parsed(answer) == Some(0_u64) => {
                self.left.push_front(Question::Poll)
            }
            Question::Polling | Question::Poll => {}
            Question::GuestMemory => self.take_guest_memory(parsed(answer)),
            Question::Disks => {
                let disks = parsed(answer).and_then(disks);
                self.told.disk = disks.map(|disks| (Instant::now().into_std(), disks));
            }
            Question::Copying => {
                if parsed(answer).is_some_and(|last: Migration| last.status().settled()) {
                    self.left.push_front(Question::Measure);
                }
            }
            // A refusal means that it is being measured already.
            Question::Measure => self.measuring = true,
            Question::DirtyRate => {
                let rate: Option<DirtyRate> = parsed(answer);
                self.measuring =
                    rate.as_ref().is_some_and(|rate| rate.status == DirtyStatus::Measuring);
                if !self.measuring {
                    let measured = rate.and_then(|rate| rate.dirty_rate);
                    self.told.dirty =
                        measured.and_then(|rate| u64::try_from(rate).ok()).map(MibPerSec);
                }
            }
        }
    }

    fn look_for_balloon(&mut self, folder: &str, devices: Option<Vec<QomChild>>) {
        let is_balloon = |device: &QomChild| device.kind.starts_with("child<virtio-balloon");
        let found = devices.unwrap_or_default().into_iter().find(is_balloon);
        if let (Some(device), None) = (found, &self.balloon) {
            self.balloon = Some(format!("{folder}/{}", device.name));
            self.left.push_front(Question::Polling);
        }
    }

    fn take_guest_memory(&mut self, stats: Option<GuestStats>) {
        let Some(stats) = stats else {
            self.balloon = None;
            self.told.guest_memory = None;
            return;
        };
        let (last, silent) = self.guest_told;
        let silent = if stats.last_update == last { silent.saturating_add(1) } else { 0 };
        self.guest_told = (stats.last_update, silent);
        let heard = stats.last_update > 0 && silent < SILENT_MAX;
        self.told.guest_memory = guest_memory(&stats).filter(|_| heard);
    }
}

impl VmTask {
    /// It is time to ask.
    pub(super) async fn on_beat(&mut self) {
        if self.figures.open.is_none() && self.may_be_asked() {
            self.figures.left.clear();
            self.figures.plan(self.run_state == Some(RunState::Running));
            self.ask_next().await;
        }
    }

    /// Takes an answer, and asks what is left.
    pub(super) async fn on_answer(&mut self, question: Heard) {
        let Heard(question, answer) = question;
        if !self.may_be_asked() {
            return;
        }
        self.figures.take(question, answer.as_ref());
        if let Some(entry) = self.place.roster().get_mut(&self.vm)
            && let Some(watched) = &mut entry.watched
        {
            watched.told = self.figures.told();
        }
        self.ask_next().await;
    }

    async fn ask_next(&mut self) {
        let Some(link) = &mut self.link else { return };
        while let Some(question) = self.figures.left.pop_front() {
            match self.figures.begin(&mut link.qmp, question).await {
                Ok(answer) => {
                    self.figures.open = Some((question, answer));
                    return;
                }
                // A connection that is lost is noticed by the loop.
                Err(error) => tracing::debug!(vm = %self.vm, %error, "not asked"),
            }
        }
    }

    /// Whether the VM lives here and no move has to do with it, as far as is known.
    fn may_be_asked(&self) -> bool {
        let followed = !matches!(self.following, Following::Nothing);
        self.run_state.is_some() && !followed && !self.figures.released
    }
}

/// An answer that was heard.
#[derive(Debug)]
pub(super) struct Heard(Question, Option<Value>);

/// The answer to the open question. Nothing is lost if this is dropped before it comes.
pub(super) async fn heard(figures: &mut Figures) -> Heard {
    let Some((question, answer)) = &mut figures.open else { return std::future::pending().await };
    let (question, answer) = (*question, answer.await);
    figures.open = None;
    Heard(question, answer.ok().and_then(Result::ok))
}

fn parsed<T: DeserializeOwned>(answer: Option<&Value>) -> Option<T> {
    T::deserialize(answer?).ok()
}

/// Each thread once: without multi-threaded TCG all vCPUs share one.
fn threads(cpus: Vec<CpuFast>) -> Vec<u32> {
    cpus.into_iter().map(|cpu| cpu.thread_id).collect::<BTreeSet<_>>().into_iter().collect()
}

/// All disks together; none where there is none.
fn disks(disks: Vec<BlockStats>) -> Option<DiskCounters> {
    disks.into_iter().map(|disk| disk.stats).fold(None, |sum: Option<DiskCounters>, disk| {
        let sum = sum.unwrap_or_default();
        let requests = disk.rd_operations.saturating_add(disk.wr_operations);
        Some(DiskCounters {
            read: sum.read.plus(Bytes(disk.rd_bytes)),
            written: sum.written.plus(Bytes(disk.wr_bytes)),
            requests: sum.requests.saturating_add(requests),
        })
    })
}

/// What the guest could not give to a new program without swapping. A figure that it does not tell is all ones.
fn guest_memory(stats: &GuestStats) -> Option<Mib> {
    let told = |bytes: u64| (bytes != u64::MAX).then_some(bytes);
    let (total, available) = (told(stats.stats.total)?, told(stats.stats.available)?);
    Some(Mib(total.checked_sub(available)? >> 20))
}

#[cfg(test)]
mod tests;
