//! Agents on hosts with libvirt: moves of real guests, encrypted, and what is broken in their middle. However it ends, one copy
//! runs, and the guest has lived one life.

#![expect(clippy::print_stdout, reason = "logs of agents are read by people, after a failure")]

mod apart;
mod disks;
mod docs;
mod hook;
mod least;
mod meanwhile;
#[path = "../real/stalling.rs"]
mod stalling;
mod stalls;
mod witness;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::{MoveRequest, MoveView};
use decide::units::{BitsPerSec, Mib};
use lab::cluster::{CALM, Cluster};
use lab::guests::{self, Dirty, GuestPlan};
use lab::hosts::{Cut, Network, Way};
use lab::libvirt::{self, Daemon, virsh};
use lab::setup::Parts;
use lab::{sandbox, wait};

const DAEMON: &str = env!("CARGO_BIN_EXE_evenkeeld");
const LONG: Duration = Duration::from_secs(60);
const LIBVIRT: &str =
    "[hypervisor]\ndriver = \"libvirt\"\n[migration]\nencryption = \"required\"\n";
/// The agents' port.
const PORT: u16 = 7946;

/// Two hosts, each with libvirt and an agent, and a guest on the first.
struct Bed {
    cluster: Cluster,
    plan: GuestPlan,
    daemons: Vec<Daemon>,
}

fn with_guest(test: &str, body: impl AsyncFnOnce(&mut Bed) -> anyhow::Result<()>) {
    with_guest_and(test, &Set::default(), |_network| Ok(PathBuf::from(DAEMON)), body);
}

/// What is not as it is in most tests.
struct Set<'a> {
    /// More lines of the section `[host]`.
    host: &'a str,
    /// More sections.
    sections: &'a str,
    /// What the guest writes; by default faster than a slow link carries, slower than a free one.
    writes: Dirty,
    /// Whether the guest has a disk of its own host's, and writes to it; its memory it leaves alone then.
    disk: bool,
    /// Whether each libvirt can be reached by the other, for an operator's own migrations.
    listening: bool,
}

impl Default for Set<'_> {
    fn default() -> Self {
        Set {
            host: "",
            sections: "",
            writes: Dirty { memory: Mib(32), per_second: Mib(20), work: 0 },
            disk: false,
            listening: false,
        }
    }
}

/// The same, set so, and with what stands for the agent on these hosts.
fn with_guest_and(
    test: &str,
    set: &Set<'_>,
    agent: impl FnOnce(&Network) -> anyhow::Result<PathBuf>,
    body: impl AsyncFnOnce(&mut Bed) -> anyhow::Result<()>,
) {
    sandbox::test_with(true, test, async || {
        let (parts, network) = (Parts::load()?, Network::new(2)?);
        let mut daemons = Vec::new();
        for host in network.hosts() {
            // libvirt looks for it when it starts.
            hook::install(host)?;
            daemons.push(if set.listening {
                Daemon::start_listening(host).await?
            } else {
                Daemon::start(host).await?
            });
        }
        let agent = agent(&network)?;
        let cluster = Cluster::start(
            network,
            &agent,
            &format!("{}{CALM}{LIBVIRT}{}", set.host, set.sections),
        )
        .await?;
        let dirty = Some(set.writes).filter(|_| !set.disk);
        let plan = GuestPlan { dirty, disk: set.disk, ..GuestPlan::new("web1", 1) };
        if set.disk {
            [0, 1].into_iter().try_for_each(|number| libvirt::keep_disks(cluster.host(number)))?;
            let volume = ["vol-create-as", "images", "web1.raw", "16M", "--format", "raw"];
            virsh(cluster.host(0), &volume)?;
        }
        let mut bed = Bed { cluster, plan, daemons };
        let done = async {
            let definition = libvirt::definition(&bed.plan, &parts);
            libvirt::start(bed.cluster.host(0), "web1", &definition)?;
            let ready = || {
                let console = guests::console(bed.cluster.host(0), bed.plan.vm());
                Ok(console.contains("READY").then_some(()))
            };
            wait::until(LONG, "the guest is ready", ready).await?;
            bed.cluster.watches(0, "web1").await?;
            bed.cluster.settled().await?;
            body(&mut bed).await?;
            bed.lived_one_life()?;
            bed.cluster.all_run()
        }
        .await;
        if done.is_err() {
            for number in 0..2 {
                let log = std::fs::read_to_string(bed.cluster.log(number)).unwrap_or_default();
                println!("---- {} ----\n{log}", bed.cluster.host(number).name());
            }
        }
        done
    });
}

impl Bed {
    async fn send(&self, from: usize, to: usize) -> anyhow::Result<String> {
        let to = Some(self.cluster.host(to).name());
        let request = MoveRequest { vm: "web1".to_owned(), to, force: false };
        Ok(self.cluster.api(from).start_move(&request).await?.move_id)
    }

    /// Begins a move over a link that is too slow for the guest, and waits until memory is being copied.
    async fn copying(&self) -> anyhow::Result<String> {
        self.cluster.host(1).limit_uplink(Some(BitsPerSec(60_000_000)))?;
        let id = self.send(0, 1).await?;
        self.until_phase(&id, "copying").await?;
        Ok(id)
    }

    async fn until_phase(&self, id: &str, phase: &str) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + LONG;
        loop {
            let view = self.cluster.api(0).one_move(id).await?;
            if view.phase == phase {
                return Ok(());
            }
            ensure!(!view.ended && tokio::time::Instant::now() < deadline, "{phase}: {view:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The hosts on which the guest runs, by what libvirt says.
    fn running(&self) -> Vec<usize> {
        let vm = self.plan.vm().to_string();
        let state = |host: &usize| virsh(self.cluster.host(*host), &["domstate", &vm]);
        (0..2).filter(|host| state(host).is_ok_and(|state| state == "running")).collect()
    }

    fn lived_one_life(&self) -> anyhow::Result<()> {
        let beats = [0, 1].map(|host| guests::heartbeats(self.cluster.host(host), self.plan.vm()));
        guests::each_once(&beats).map(drop)
    }

    /// Waits until the guest runs on that host alone, and nothing of it is left on the other.
    async fn runs_only(&self, on: usize) -> anyhow::Result<()> {
        let other = self.cluster.host(1 - on);
        wait::until(LONG, "the guest runs on one host alone", || {
            let alone = self.running() == [on] && guests::qemus(other, self.plan.vm())?.is_empty();
            Ok(alone.then_some(()))
        })
        .await
        .with_context(|| format!("running on {:?}", self.running()))
    }

    async fn ended(&self, id: &str) -> anyhow::Result<MoveView> {
        self.cluster.ended(0, id, LONG).await
    }

    /// Moves the guest to the second host and back.
    async fn goes_there_and_back(&mut self) -> anyhow::Result<()> {
        for (from, to) in [(0, 1), (1, 0)] {
            let id = self.send(from, to).await?;
            let view = self.cluster.ended(from, &id, LONG).await?;
            ensure!(view.phase == "done", "{view:?}");
            self.runs_only(to).await?;
            self.cluster.watches(to, "web1").await?;
        }
        Ok(())
    }
}

#[test]
fn a_guest_moves_there_and_back_encrypted() {
    with_guest("a_guest_moves_there_and_back_encrypted", async |bed| {
        bed.goes_there_and_back().await
    });
}

/// What makes two copies run under libvirt's own hand-over: what the target says to the source is lost in mid-copy.
#[test]
fn when_the_targets_words_are_lost_in_mid_copy_one_copy_runs() {
    with_guest("when_the_targets_words_are_lost_in_mid_copy_one_copy_runs", async |bed| {
        let id = bed.copying().await?;
        let target = bed.cluster.host(1);
        target.cut(Way::Out, Cut::Tcp(PORT))?;
        target.limit_uplink(None)?;
        // The copy completes, and the source hands over again and again, unheard or unanswered.
        let until = tokio::time::Instant::now() + Duration::from_secs(12);
        while tokio::time::Instant::now() < until {
            let running = bed.running();
            ensure!(running.len() <= 1, "two copies run");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        target.heal(Way::Out)?;
        let view = bed.ended(&id).await?;
        bed.runs_only(usize::from(view.phase == "done")).await?;
        Ok(())
    });
}

#[test]
fn agents_that_are_killed_in_mid_copy_leave_one_copy() {
    with_guest("agents_that_are_killed_in_mid_copy_leave_one_copy", async |bed| {
        for killed in [0, 1] {
            let id = bed.copying().await?;
            bed.cluster.kill_agent(killed)?;
            bed.cluster.start_agent(killed)?;
            bed.cluster.host(1).limit_uplink(None)?;
            bed.cluster.settled().await?;
            let view = bed.ended(&id).await?;
            println!("agent of host{} killed: {view:?}", killed + 1);
            let at = usize::from(view.phase == "done");
            bed.runs_only(at).await?;
            if at == 1 {
                let id = bed.send(1, 0).await?;
                bed.cluster.ended(1, &id, LONG).await?;
                bed.runs_only(0).await?;
            }
            bed.cluster.watches(0, "web1").await?;
        }
        Ok(())
    });
}

#[test]
fn a_target_whose_libvirt_is_killed_in_mid_copy_loses_nothing() {
    with_guest("a_target_whose_libvirt_is_killed_in_mid_copy_loses_nothing", async |bed| {
        let id = bed.copying().await?;
        bed.daemons[1].kill()?;
        bed.daemons[1] = Daemon::start(bed.cluster.host(1)).await?;
        bed.cluster.host(1).limit_uplink(None)?;
        let view = bed.ended(&id).await?;
        ensure!(view.phase != "done", "{view:?}");
        bed.runs_only(0).await?;
        // And the next one is done.
        let id = bed.send(0, 1).await?;
        let view = bed.ended(&id).await?;
        ensure!(view.phase == "done", "{view:?}");
        bed.runs_only(1).await
    });
}
