//! The bed of all cases: three hosts with agents that can be held, small disks for their journals, and one guest, a bare QEMU or a
//! domain of libvirt's.
//!
//! A case ends with the guest where it then is, and the next begins there. After a case that went wrong, all is made anew.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use api::{Event, EventFilter, MoveRequest, Step};
use decide::units::BitsPerSec;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::case::Driver;
use super::domains::MARKS;
use super::phase::STATE;
use crate::cluster::{CALM, Cluster};
use crate::guests::{self, GuestPlan};
use crate::hosts::{Host, Network, Way};
use crate::libvirt::Daemon;
use crate::setup::Parts;
use crate::wait;

/// Where agents are told at which step to stop themselves.
const HOLD: &str = "/run/evenkeel/hold";
/// What the journal was last seen to be.
pub(crate) const WITNESS: &str = "/run/evenkeel/journal-seen";
/// A copy over such a link takes far longer than a case.
const SLOW: BitsPerSec = BitsPerSec(15_000_000);
const BOOT_MAX: Duration = Duration::from_secs(120);
/// Within so long all is quiet again after a case.
const QUIET_MAX: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Hosts, agents and a guest.
#[derive(Debug)]
pub struct Bed {
    pub(crate) cluster: Cluster,
    pub(crate) plan: GuestPlan,
    /// The host that the guest is on.
    pub(crate) at: usize,
    pub(crate) scratch: PathBuf,
    pub(crate) driver: Driver,
    /// The libvirt of each host, while it runs; none without.
    pub(crate) daemons: Vec<Option<Daemon>>,
    pub(crate) parts: Parts,
}

impl Bed {
    /// Makes it, with agents of this program. To be called inside the sandbox.
    ///
    /// # Errors
    /// If something cannot be made or does not come up.
    pub async fn make(daemon: &Path, driver: Driver) -> anyhow::Result<Bed> {
        let network = Network::new(3)?;
        for host in network.hosts() {
            let disk = ["-t", "tmpfs", "-o", "size=24m,mode=700", "state", STATE];
            let made = host.command("mount").args(disk).status().context("running mount")?;
            ensure!(made.success(), "no small disk for {}", host.name());
        }
        let scratch = network.folder().join("scratch");
        fs::create_dir_all(&scratch)?;
        let variables = [("EVENKEEL_HOLD_FILE", HOLD)];
        let mut daemons = Vec::new();
        if driver == Driver::Libvirt {
            for host in network.hosts() {
                daemons.push(Some(Daemon::start(host).await?));
            }
        }
        let sections = match driver {
            Driver::Qemu => CALM.to_owned(),
            Driver::Libvirt => format!("{CALM}[hypervisor]\ndriver = \"libvirt\"\n"),
        };
        let cluster = Cluster::start_with(network, daemon, &sections, &variables).await?;
        let plan = GuestPlan { operator: true, ..GuestPlan::new("web1", 1) };
        let parts = Parts::load()?;
        let mut bed = Bed { cluster, plan, at: 0, scratch, driver, daemons, parts };
        bed.boot().await?;
        bed.tour().await?;
        Ok(bed)
    }

    /// Moves the guest over all hosts and back: each journal then holds the room that a move needs, as after a first day.
    async fn tour(&mut self) -> anyhow::Result<()> {
        for _ in 0..self.hosts().len() {
            let to = (self.at + 1) % self.hosts().len();
            let name = self.cluster.host(to).name();
            let request = MoveRequest { vm: self.plan.name.clone(), to: Some(name), force: false };
            let id = self.cluster.api(self.at).start_move(&request).await?.move_id;
            let view = self.cluster.ended(self.at, &id, QUIET_MAX).await?;
            ensure!(view.phase == "done", "the first move was not made: {view:?}");
            self.at = to;
            self.quiet().await?;
        }
        Ok(())
    }

    /// Starts the guest anew where it was, also on top of what a dead one left.
    pub(crate) async fn boot(&mut self) -> anyhow::Result<()> {
        let host = self.cluster.host(self.at);
        if host.path("/sys/class/net").join(self.plan.tap()).exists() {
            host.ip(&format!("link delete {}\n", self.plan.tap()))?;
        }
        let before = guests::console(host, self.plan.vm()).matches("READY").count();
        let guest = match self.driver {
            Driver::Qemu => Some(guests::start(host, &self.plan, &self.parts)?),
            Driver::Libvirt => self.start_domain().await.map(|()| None)?,
        };
        wait::until(BOOT_MAX, "the guest boots", || {
            let ended = guest.as_ref().and_then(guests::Guest::ended);
            ensure!(ended.is_none(), "its QEMU ended: {ended:?}");
            let ready = guests::console(host, self.plan.vm()).matches("READY").count();
            Ok((ready > before).then_some(()))
        })
        .await?;
        self.quiet().await
    }

    /// Ends the guest and starts it anew where it was.
    pub(crate) async fn renew(&mut self) -> anyhow::Result<()> {
        let (host, vm) = (self.cluster.host(self.at), self.plan.vm());
        guests::kill_qemu(host, vm)?;
        let gone = || Ok(guests::qemus(host, vm)?.is_empty().then_some(()));
        wait::until(QUIET_MAX, "QEMU gone", gone).await?;
        self.boot().await
    }

    /// Ends all agents and guests, forgets all they knew, and begins again on the first host.
    pub(crate) async fn reset(&mut self) -> anyhow::Result<()> {
        for number in 0..self.hosts().len() {
            if self.cluster.agent_pid(number).is_some() {
                self.cluster.kill_agent(number)?;
            }
            self.mend(number)?;
            let host = self.cluster.host(number);
            for pid in guests::qemus(host, self.plan.vm())? {
                let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
                kill_process(pid.context("a process has a number")?, Signal::KILL)?;
            }
            let gone = || Ok(guests::qemus(host, self.plan.vm())?.is_empty().then_some(()));
            wait::until(QUIET_MAX, "QEMU gone", gone).await?;
            if host.path("/sys/class/net").join(self.plan.tap()).exists() {
                host.ip(&format!("link delete {}\n", self.plan.tap()))?;
            }
            if self.driver == Driver::Libvirt {
                self.forget_domains(number).await?;
            }
            for folder in ["/run/evenkeel/qemu", MARKS, STATE] {
                if !self.cluster.host(number).path(folder).exists() {
                    continue;
                }
                let host = self.cluster.host(number);
                for entry in fs::read_dir(host.path(folder))? {
                    let entry = entry?;
                    // The host's keys, a folder, stay.
                    if !entry.file_type()?.is_dir() {
                        fs::remove_file(entry.path())?;
                    }
                }
            }
            // As after a boot: what is new then is not taken for replaced.
            fs::remove_file(self.cluster.host(number).path(WITNESS))?;
        }
        for number in 0..self.hosts().len() {
            self.cluster.start_agent(number)?;
        }
        self.at = 0;
        self.boot().await?;
        self.tour().await
    }

    /// Undoes every lasting fault of one host.
    pub(crate) fn mend(&self, number: usize) -> anyhow::Result<()> {
        let host = self.cluster.host(number);
        host.link_up()?;
        host.heal(Way::In)?;
        host.heal(Way::Out)?;
        host.limit_uplink(None)?;
        for file in [HOLD.to_owned(), format!("{STATE}/filler")] {
            let file = host.path(&file);
            if file.exists() {
                fs::remove_file(file)?;
            }
        }
        Ok(())
    }

    /// The hosts.
    pub(crate) fn hosts(&self) -> &[Host] {
        self.cluster.network.hosts()
    }

    /// Tells the agent of a host at which step to stop itself.
    pub(crate) fn hold_at(&self, number: usize, step: &str) -> anyhow::Result<()> {
        let file = self.cluster.host(number).path(HOLD);
        fs::write(&file, step).context("telling an agent where to stop")
    }

    /// Takes that back.
    pub(crate) fn hold_nowhere(&self) {
        for host in self.hosts() {
            // Gone already where an agent has stopped.
            let _gone = fs::remove_file(host.path(HOLD));
        }
    }

    /// Takes all room on the disk of a host's journal.
    pub(crate) fn fill_disk(&self, number: usize) -> anyhow::Result<()> {
        let file = self.cluster.host(number).path(&format!("{STATE}/filler"));
        let mut filler = fs::File::create(file).context("filling a disk")?;
        for piece in [64 * 1024, 4096, 1] {
            while filler.write_all(&vec![1; piece]).is_ok() {}
        }
        Ok(())
    }

    /// Slows a host's link down so that the copy of the guest takes longer than a case.
    pub(crate) fn slow(&self, number: usize) -> anyhow::Result<()> {
        self.cluster.host(number).limit_uplink(Some(SLOW))
    }

    /// The hosts to which the guest can be moved.
    pub(crate) async fn others(&self) -> anyhow::Result<Vec<usize>> {
        let seen = self.cluster.api(self.at).hosts().await?;
        let alive = |host: &Host| {
            seen.iter().any(|view| view.name == host.name() && view.state == "alive" && !view.local)
        };
        let hosts = self.hosts();
        let after = (1..hosts.len()).map(|step| (self.at + step) % hosts.len());
        Ok(after.filter(|number| alive(&hosts[*number])).collect())
    }

    /// Waits until the guest's agent sees another host, no move is under way, and the guest is watched where it is and nowhere else.
    pub(crate) async fn quiet(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + QUIET_MAX;
        loop {
            self.cluster.all_run()?;
            let Some(noise) = self.noise().await? else { return Ok(()) };
            ensure!(Instant::now() < deadline, "not quiet within {QUIET_MAX:?}: {noise}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What is not quiet yet.
    async fn noise(&self) -> anyhow::Result<Option<String>> {
        for (number, host) in self.hosts().iter().enumerate() {
            let api = self.cluster.api(number);
            let Ok(status) = api.status().await else {
                return Ok(Some(format!("{} does not answer", host.name())));
            };
            // One that was cut off is found again within half a minute: meanwhile there is another.
            if number == self.at && status.hosts_alive < 2 {
                return Ok(Some(format!("{} sees no other host", host.name())));
            }
            if status.moves_under_way > 0 {
                return Ok(Some(format!("{} moves at {}", status.moves_under_way, host.name())));
            }
            let vms = api.vms().await.unwrap_or_default();
            if number == self.at {
                let here = vms.iter().any(|vm| {
                    vm.name == self.plan.name && vm.state == "running" && vm.trouble.is_none()
                });
                if !here {
                    return Ok(Some(format!("{} has {vms:?}", host.name())));
                }
            } else {
                let mut left = guests::left(host, &self.plan)?;
                if self.driver == Driver::Libvirt {
                    left.extend(self.left_of_domain(number)?);
                }
                if !left.is_empty() || !vms.is_empty() {
                    return Ok(Some(format!("left at {}: {left:?}, {vms:?}", host.name())));
                }
            }
        }
        Ok(None)
    }

    /// The newest event of each agent.
    pub(crate) async fn newest_events(&self) -> anyhow::Result<Vec<u64>> {
        let mut newest = Vec::new();
        for number in 0..self.hosts().len() {
            let filter = EventFilter { limit: Some(1), ..EventFilter::default() };
            let last = self.cluster.api(number).events(&filter).await?;
            newest.push(last.last().map_or(0, |event| event.seq));
        }
        Ok(newest)
    }

    /// Events of this step that an agent told after that one; none if it cannot be asked.
    pub(crate) async fn told_since(&self, number: usize, after: u64, step: Step) -> Vec<Event> {
        if !self.answers(number) {
            return Vec::new();
        }
        let limit = Some(api::EVENTS_MAX);
        let filter = EventFilter { after: Some(after), limit, ..EventFilter::default() };
        let told = self.cluster.api(number).events(&filter).await.unwrap_or_default();
        told.into_iter().filter(|event| event.step == step).collect()
    }

    /// Whether an agent is there to be asked.
    pub(crate) fn answers(&self, number: usize) -> bool {
        self.cluster.agent_pid(number).is_some_and(|pid| !super::look::stopped(pid))
    }

    /// What the logs of all agents end with.
    pub(crate) fn logs(&self, lines: usize) -> String {
        let mut text = String::new();
        for number in 0..self.hosts().len() {
            let log = fs::read_to_string(self.cluster.log(number)).unwrap_or_default();
            let all: Vec<&str> = log.lines().collect();
            let last = all[all.len().saturating_sub(lines)..].join("\n");
            text += &format!("---- {} ----\n{last}\n", self.cluster.host(number).name());
        }
        text
    }
}
