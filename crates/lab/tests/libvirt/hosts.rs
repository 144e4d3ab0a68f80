//! Hosts of the lab with a libvirt daemon and a driver each. Their VMs are domains without a system, unless said otherwise.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use decide::migrate::hypervisor::{
    CopyParameters, Endpoint, HypervisorCommand, HypervisorReport, RunState, Seen, Sighting,
    VmDefinition,
};
use decide::units::{BitsPerSec, HostId, MoveId, VmId};
use drivers::hypervisor::libvirt::{Libvirt, LibvirtConfig};
use drivers::hypervisor::{FromHypervisor, Hypervisor};
use lab::hosts::{BRIDGE, Host, Network};
use lab::libvirt::{self, Daemon};
use lab::{guests, wait};
use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;

pub(crate) use crate::cases::FAST;

/// Longer than anything here takes, even on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);
pub(crate) const MOVE: MoveId = MoveId { host: HostId(1), incarnation: 1, counter: 1 };
/// As slow as libvirt can: 1 MiB/s, so that it stays in mid-copy until something happens to it.
pub(crate) const SLOW: CopyParameters = CopyParameters {
    bandwidth: BitsPerSec(1),
    downtime_max: Duration::from_millis(1),
    multifd: false,
    encrypted: false,
    auto_converge: false,
    copy_disks: false,
};

/// Two hosts, each with a daemon and a driver.
pub(crate) struct Pair {
    pub(crate) network: Network,
    pub(crate) a: Bed,
    pub(crate) b: Bed,
}

impl Pair {
    pub(crate) async fn start() -> anyhow::Result<Pair> {
        Pair::start_with(false).await
    }

    /// Whose daemons can be reached by each other, for libvirt's own migrations.
    pub(crate) async fn start_listening() -> anyhow::Result<Pair> {
        Pair::start_with(true).await
    }

    async fn start_with(listening: bool) -> anyhow::Result<Pair> {
        let network = Network::new(2)?;
        let a = Bed::start(&network, 0, listening).await?;
        let b = Bed::start(&network, 1, listening).await?;
        Ok(Pair { network, a, b })
    }

    pub(crate) fn host(&self, bed: &Bed) -> &Host {
        &self.network.hosts()[bed.number]
    }

    /// On how many hosts the VM's domain runs.
    pub(crate) fn running(&self, vm: VmId) -> usize {
        let runs = |host: &&Host| {
            let state = libvirt::virsh(host, &["domstate", &vm.to_string()]);
            state.is_ok_and(|state| state == "running")
        };
        self.network.hosts().iter().filter(runs).count()
    }
}

/// The driver of one host, in the host's network.
pub(crate) struct Bed {
    number: usize,
    config: LibvirtConfig,
    network: PathBuf,
    pub(crate) daemon: Option<Daemon>,
    driver: Option<(Libvirt, Runtime)>,
    heard: mpsc::Receiver<FromHypervisor>,
    reports: VecDeque<HypervisorReport>,
    sightings: VecDeque<Sighting>,
}

impl Bed {
    async fn start(network: &Network, number: usize, listening: bool) -> anyhow::Result<Bed> {
        let host = &network.hosts()[number];
        let daemon = if listening {
            Daemon::start_listening(host).await?
        } else {
            Daemon::start(host).await?
        };
        let config = LibvirtConfig {
            uri: libvirt::socket(host).display().to_string(),
            dir: host.path("/run/evenkeel/libvirt"),
            on_disk: host.path("/var/lib/evenkeel/libvirt"),
            definitions: host.path("/etc/libvirt/qemu"),
            listen: IpAddr::V4(host.address()),
            ..LibvirtConfig::default()
        };
        let network = PathBuf::from(format!("/proc/{}/ns/net", host.namespace().pid()));
        let (driver, runtime, heard) = drive(&config, &network)?;
        Ok(Bed {
            number,
            config,
            network,
            daemon: Some(daemon),
            driver: Some((driver, runtime)),
            heard,
            reports: VecDeque::new(),
            sightings: VecDeque::new(),
        })
    }

    /// Ends the driver at once and starts another, as an agent that is killed and comes back.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        self.stop();
        let (driver, runtime, heard) = drive(&self.config, &self.network)?;
        self.driver = Some((driver, runtime));
        self.heard = heard;
        self.reports.clear();
        self.sightings.clear();
        Ok(())
    }

    pub(crate) fn stop(&mut self) {
        if let Some((driver, runtime)) = self.driver.take() {
            drop(driver);
            runtime.shutdown_background();
        }
    }

    /// Kills the daemon; its domains go on.
    pub(crate) fn kill_daemon(&mut self) -> anyhow::Result<()> {
        let mut daemon = self.daemon.take().context("a daemon runs")?;
        daemon.kill()
    }

    pub(crate) fn driver(&self) -> &Libvirt {
        &self.driver.as_ref().expect("it runs").0
    }

    pub(crate) fn order(&self, vm: VmId, command: HypervisorCommand) {
        self.driver().order(MOVE, vm, command);
    }

    /// The next that the driver says.
    pub(crate) async fn next(&mut self) -> anyhow::Result<FromHypervisor> {
        let heard = timeout(LONG, self.heard.recv()).await.context("nothing is heard")?;
        heard.context("the driver has ended")
    }

    async fn hear(&mut self) -> anyhow::Result<()> {
        match self.next().await? {
            FromHypervisor::Report(move_id, _, report) => {
                ensure!(move_id == MOVE, "a report of another move");
                self.reports.push_back(report);
            }
            FromHypervisor::Sighting(sighting) => self.sightings.push_back(sighting),
        }
        Ok(())
    }

    /// The next report, progress or not.
    pub(crate) async fn any_report(&mut self) -> anyhow::Result<HypervisorReport> {
        loop {
            if let Some(report) = self.reports.pop_front() {
                return Ok(report);
            }
            self.hear().await?;
        }
    }

    /// The next report that is not mere progress.
    pub(crate) async fn report(&mut self) -> anyhow::Result<HypervisorReport> {
        loop {
            match self.any_report().await? {
                HypervisorReport::Progress(_) => {}
                report => return Ok(report),
            }
        }
    }

    pub(crate) async fn sighting(&mut self) -> anyhow::Result<Sighting> {
        loop {
            if let Some(sighting) = self.sightings.pop_front() {
                return Ok(sighting);
            }
            self.hear().await?;
        }
    }

    /// Orders, and returns the next report.
    pub(crate) async fn ask(
        &mut self,
        vm: VmId,
        command: HypervisorCommand,
    ) -> anyhow::Result<HypervisorReport> {
        self.order(vm, command);
        self.report().await
    }

    /// Orders, and expects that report.
    pub(crate) async fn expect(
        &mut self,
        vm: VmId,
        command: HypervisorCommand,
        expected: HypervisorReport,
    ) -> anyhow::Result<()> {
        let said = format!("{command:?}").chars().take(60).collect::<String>();
        let report = self.ask(vm, command).await?;
        ensure!(report == expected, "{said}: {report:?}, not {expected:?}");
        Ok(())
    }

    /// What is there now.
    pub(crate) async fn looks(&mut self, vm: VmId) -> anyhow::Result<Seen> {
        loop {
            match self.ask(vm, HypervisorCommand::Look).await? {
                HypervisorReport::Looked(Seen::Unknown) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                HypervisorReport::Looked(seen) => return Ok(seen),
                other => bail!("{other:?}"),
            }
        }
    }

    pub(crate) async fn prepare(
        &mut self,
        definition: &VmDefinition,
        copy: CopyParameters,
    ) -> anyhow::Result<Endpoint> {
        let command = HypervisorCommand::Prepare(Box::new(definition.clone()), copy, None);
        match self.ask(definition.vm, command).await? {
            HypervisorReport::Prepared(endpoint) => Ok(endpoint),
            other => bail!("{other:?}"),
        }
    }

    /// Starts a copy and waits until something of it was sent.
    pub(crate) async fn copy_until_progress(
        &mut self,
        vm: VmId,
        endpoint: Endpoint,
    ) -> anyhow::Result<()> {
        self.order(vm, HypervisorCommand::StartCopy(endpoint, SLOW));
        match self.any_report().await? {
            HypervisorReport::Progress(_) => Ok(()),
            other => bail!("{other:?}"),
        }
    }

    /// Waits until the VM is found, and nothing else is.
    pub(crate) async fn finds(&mut self, vm: VmId) -> anyhow::Result<(VmDefinition, RunState)> {
        match self.sighting().await? {
            Sighting::Found(definition, run) if definition.vm == vm => Ok((*definition, run)),
            other => bail!("{other:?}"),
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.stop();
    }
}

type Driven = (Libvirt, Runtime, mpsc::Receiver<FromHypervisor>);

/// A driver whose threads, and what they start, are in that network.
fn drive(config: &LibvirtConfig, network: &std::path::Path) -> anyhow::Result<Driven> {
    let network = File::open(network).context("opening a network")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .on_thread_start(move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may enter a network");
        })
        .build()?;
    let (heard, hears) = mpsc::channel(256);
    let driver = {
        let _inside = runtime.enter();
        Libvirt::start(config.clone(), heard)?
    };
    Ok((driver, runtime, hears))
}

/// A domain without a system: 64 MiB, of which so many MiB do not compress, and a network card.
pub(crate) fn empty(network: &Network, vm: VmId, full: u64) -> anyhow::Result<String> {
    let (name, mut loader) = (format!("vm-{:x}", vm.0), String::new());
    if full > 0 {
        let file = network.folder().join(format!("{name}.memory"));
        let mut bytes = vec![0; usize::try_from(full << 20)?];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        fs::write(&file, bytes)?;
        let word = format!("loader,file={},addr=0x100000,force-raw=on", file.display());
        loader = format!(
            "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\
             <qemu:arg value='-device'/><qemu:arg value='{word}'/></qemu:commandline>"
        );
    }
    Ok(format!(
        "<domain type='qemu'><name>{name}</name><uuid>{vm}</uuid>\
         <memory unit='MiB'>64</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='{}'>hvm</type></os>\
         <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>\
         <controller type='usb' model='none'/>\
         <interface type='bridge'><source bridge='{BRIDGE}'/><model type='virtio'/><rom enabled='no'/></interface>\
         <memballoon model='none'/></devices>{loader}</domain>",
        guests::MACHINE
    ))
}

/// Starts such a domain on the first host, and waits until it is found.
pub(crate) async fn start_empty(
    pair: &mut Pair,
    vm: VmId,
    full: u64,
) -> anyhow::Result<VmDefinition> {
    let definition = empty(&pair.network, vm, full)?;
    libvirt::start(pair.host(&pair.a), &format!("vm-{:x}", vm.0), &definition)?;
    let (definition, run) = pair.a.finds(vm).await?;
    ensure!(run == RunState::Running, "{run:?}");
    Ok(definition)
}

/// Waits for what no event tells.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    wait::until(LONG, what, || Ok(holds().then_some(()))).await
}
