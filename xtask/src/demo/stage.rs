//! Hosts, guests and clients of the demo, and the figures that make the story come out the same each time.
//!
//! ```text
//!            flood 1500/s ─▶ web1 ┐                                   threshold 2000/s
//!   host1                         ├ 2500/s and more: hot    ──▶  host2: 1500 + 100 and little else
//!       background 1000/s ─▶ db1  ┘                              host3: 1500 + 300: room too, but dearer
//! ```
//!
//! The source is a quarter over the threshold and each target stays a tenth below it, also while a busy machine delays
//! packets. web1 and db1 are of one size, and web1 asks for half as much again: the VM policy takes web1.

use std::time::Duration;

use anyhow::{Context, ensure};
use decide::units::PacketsPerSec;
use lab::clients::{Flood, Pinger, Pings, TcpLine, TcpProbe};
use lab::cluster::Cluster;
use lab::guests::{self, Guest, GuestPlan};
use lab::hosts::{Host, Network};
use lab::libvirt::{self, Daemon};
use lab::setup::Parts;
use tokio::time::{Instant, sleep};

use super::prepare::{self, Driver};
use crate::say;

/// The operator's part of the agents' configuration.
pub(crate) const CONFIG: &str = r#"[mode]
balance = "automatic"
[hot]
for = "5s"
packets_per_second = 2000
# The demo's hosts share one machine, so its processors and memory say nothing about any of them.
cpu_used = "100%"
cpu_pressure = "100%"
memory_used = "100%"
drops_per_second = 100000
[target]
cpu_used_max = "1000%"
memory_reserve = "256MiB"
[copy]
bandwidth = "2%"   # slow enough to be watched
downtime = "100ms"
"#;

/// The host that gets hot, by its number.
pub(crate) const SOURCE: usize = 0;
/// The guest that is flooded.
pub(crate) const FLOODED: &str = "web1";

const HOSTS: usize = 3;
/// Name and host of each guest, and the packets per second that it gets all the time.
const GUESTS: [(&str, usize, u64); 6] = [
    (FLOODED, SOURCE, 0),
    ("db1", SOURCE, 1000),
    ("web2", 1, 100),
    ("db2", 1, 0),
    ("web3", 2, 300),
    ("db3", 2, 0),
];
const FLOOD: PacketsPerSec = PacketsPerSec(1500);
/// Payload of each packet, in bytes.
const SIZE: usize = 200;

const BOOT_MAX: Duration = Duration::from_secs(120);
const ARRIVED_MAX: Duration = Duration::from_secs(30);
/// The pace by which lost pings are counted.
const PING_PACE: Duration = Duration::from_millis(200);
/// The pace by which the longest silence is measured.
const FINE_PACE: Duration = Duration::from_millis(20);

/// What the demo runs on. Everything of it ends with the sandbox.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    plans: Vec<GuestPlan>,
    background: Vec<Flood>,
    _guests: Vec<Guest>,
    /// After the agents: they need not be told that these end.
    _daemons: Vec<Daemon>,
}

impl Stage {
    /// Makes hosts, starts guests and agents, and waits until all know each other.
    pub(crate) async fn set(driver: Driver) -> anyhow::Result<Stage> {
        let parts = Parts::load()?;
        say(&format!("making {HOSTS} hosts, each with an agent; configuration of each:"));
        let config = format!("{CONFIG}{}", driver.section());
        config.lines().for_each(|line| say(&format!("    {line}")));
        let network = Network::new(HOSTS).context("making hosts")?;
        let mut daemons = Vec::new();
        if driver == Driver::Libvirt {
            for host in network.hosts() {
                daemons.push(Daemon::start(host).await?);
            }
        }
        let mut cluster = Cluster::start(network, &prepare::daemon()?, &config).await?;
        let accelerator = driver.accelerator(&parts);
        say(&format!("booting {} guests under {accelerator}", GUESTS.len()));
        let (mut plans, mut started) = (Vec::new(), Vec::new());
        for (number, (name, host, _)) in (1..).zip(GUESTS) {
            let (plan, host) = (GuestPlan::new(name, number), cluster.host(host));
            match driver {
                Driver::Qemu => started.push(guests::start(host, &plan, &parts)?),
                Driver::Libvirt => {
                    libvirt::start(host, name, &libvirt::definition(&plan, &parts))?;
                }
            }
            plans.push(plan);
        }
        for (plan, (name, host, _)) in plans.iter().zip(GUESTS) {
            let ready = || {
                let ready = guests::console(cluster.host(host), plan.vm()).contains("READY");
                Ok(ready.then_some(()))
            };
            lab::wait::until(BOOT_MAX, &format!("guest {name}"), ready).await?;
            cluster.watches(host, name).await?;
        }
        cluster.settled().await?;
        for host in 0..HOSTS {
            say(&format!("host{}: {}", host + 1, names_on(host)));
        }
        let background = Vec::new();
        Ok(Stage { cluster, plans, background, _guests: started, _daemons: daemons })
    }

    /// Sends every guest its everyday packets, and waits until the agents have seen them.
    pub(crate) async fn everyday(&mut self) -> anyhow::Result<()> {
        for (plan, (name, host, rate)) in self.plans.iter().zip(GUESTS) {
            if rate == 0 {
                continue;
            }
            let client = self.cluster.network.client();
            let to = plan.address();
            self.background.push(Flood::start(client, to, PacketsPerSec(rate), SIZE)?);
            say(&format!("{rate} packets/s to {name} on host{}", host + 1));
        }
        for (name, host, rate) in GUESTS {
            self.receives(host, name, rate / 2).await?;
        }
        Ok(())
    }

    async fn receives(&self, host: usize, name: &str, least: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + ARRIVED_MAX;
        loop {
            let vms = self.cluster.api(host).vms().await?;
            let vm =
                vms.iter().find(|vm| vm.name == name).context("a guest that is not watched")?;
            if vm.received_packets_per_second >= least {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{name} does not get its packets: {vm:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// How many hosts there are.
    pub(crate) fn hosts(&self) -> usize {
        self.cluster.network.hosts().len()
    }

    /// The host of that name.
    pub(crate) fn host(&self, name: &str) -> Option<&Host> {
        self.cluster.network.hosts().iter().find(|host| host.name() == name)
    }

    /// The flooded guest.
    pub(crate) fn flooded(&self) -> &GuestPlan {
        &self.plans[0]
    }
}

fn names_on(host: usize) -> String {
    let names: Vec<&str> =
        GUESTS.iter().filter(|(_, on, _)| *on == host).map(|(name, ..)| *name).collect();
    names.join(", ")
}

/// The flooded guest's clients: one that floods it, and those that notice how it fares.
#[derive(Debug)]
pub(crate) struct Clients {
    flood: Flood,
    pinger: Pinger,
    fine: Pinger,
    tcp: TcpProbe,
}

/// What the clients noticed.
#[derive(Clone, Debug)]
pub(crate) struct Noticed {
    pub(crate) pings: Pings,
    pub(crate) gap_ms: u64,
    pub(crate) line: TcpLine,
}

impl Clients {
    /// Starts them, the flood last.
    pub(crate) async fn start(stage: &Stage) -> anyhow::Result<Clients> {
        let (client, to) = (stage.cluster.network.client(), stage.flooded().address());
        let pinger = Pinger::start(client, to, PING_PACE)?;
        let fine = Pinger::start(client, to, FINE_PACE)?;
        let tcp = TcpProbe::start(client, to)?;
        let answered = || Ok((pinger.so_far().answered >= 3).then_some(()));
        lab::wait::until(ARRIVED_MAX, "answers to ping", answered).await?;
        let flood = Flood::start(client, to, FLOOD, SIZE)?;
        say(&format!(
            "flood: {} packets/s to {FLOODED} at {to}; it is pinged each {} ms and has one TCP connection",
            FLOOD.0,
            PING_PACE.as_millis()
        ));
        Ok(Clients { flood, pinger, fine, tcp })
    }

    /// Waits until so many more pings have been sent, answered or not.
    pub(crate) async fn ping_more(&self, count: u32) -> anyhow::Result<()> {
        let enough = self.pinger.so_far().sent + count;
        let sent = || Ok((self.pinger.so_far().sent >= enough).then_some(()));
        lab::wait::until(PING_PACE * count * 4, "pings", sent).await
    }

    /// Stops them.
    pub(crate) async fn stop(self) -> anyhow::Result<Noticed> {
        self.flood.stop()?;
        let (pings, fine) = (self.pinger.stop().await?, self.fine.stop().await?);
        Ok(Noticed { pings, gap_ms: fine.gap_ms, line: self.tcp.stop().await? })
    }
}

/// How another terminal looks around on each host.
pub(crate) fn ways_in(cluster: &Cluster) -> anyhow::Result<String> {
    let cli = prepare::cli()?;
    let mut text = String::new();
    for host in cluster.network.hosts() {
        let pid = lab::sandbox::pid_outside(host.namespace().pid())?;
        text += &format!(
            "  nsenter -t {pid} -n -m -u -- {} status   # {}\n",
            cli.display(),
            host.name()
        );
    }
    Ok(text)
}
