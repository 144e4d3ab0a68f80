//! Real guests: a Linux kernel and a small program under QEMU, started as an operator would start a VM of ours.
//!
//! Beside the QMP socket `/run/evenkeel/qemu/<uuid>.sock` of a host lies `<uuid>.toml`: name, tap, bridge, size and the
//! command that started the VM, from which a target starts the incoming side. Its console goes to
//! `/run/evenkeel/console/<uuid>.log` of whichever host it runs on.
//!
//! A guest prints READY, then HEARTBEAT n each second; answers ping; echoes TCP port 7; swallows UDP port 9.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use decide::units::{Mib, VmId};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::hosts::{BRIDGE, Host, PREFIX};
use crate::setup::Parts;
use crate::wait;

/// The machine type: the newest that both QEMU 7.2 and 10 have.
pub const MACHINE: &str = "pc-i440fx-7.2";

/// Where a host keeps its VMs' QMP sockets and definitions.
const FOLDER: &str = "/run/evenkeel/qemu";
/// Where no agent looks.
const UNWATCHED: &str = "/run/evenkeel/unwatched";
/// Where guests' consoles are written to, on each host.
pub(crate) const CONSOLES: &str = "/run/evenkeel/console";
const TAP_MAX: usize = 15;
/// Where QEMU has a guest's balloon, if it has one.
pub const BALLOON: &str = "/machine/peripheral/balloon0";

/// The second line is there for the boot alone: it takes a quarter off (median of 8 under TCG: 1.8 CPU seconds, not 2.4).
const KERNEL_WORDS: &str = "console=ttyS0 quiet panic=-1 nokaslr mitigations=off ipv6.disable=1 \
    acpi=off tsc=reliable no_timer_check nowatchdog cryptomgr.notests init_on_alloc=0";

/// How a VM is started: the contract with the driver `qemu`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmFile {
    /// Unique on its host.
    pub name: String,
    /// Its tap, a persistent one on `bridge`, made by whoever starts the VM.
    pub tap: String,
    /// The bridge that the tap belongs to.
    pub bridge: String,
    /// Such as `160MiB`.
    pub memory: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// The command; `{tap}`, `{qmp}` and `{uuid}` are put in, and the incoming side adds `-incoming defer`.
    pub start: Vec<String>,
}

/// What a guest is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestPlan {
    /// Its name: at most 11 characters, since its tap is named after it.
    pub name: String,
    /// From 1; makes its UUID and address.
    pub number: u8,
    /// Memory, 128 MiB or more.
    pub memory: Mib,
    /// How fast it writes to how much of its memory, if it does.
    pub dirty: Option<Dirty>,
    /// Whether it lies where agents look. QEMU serves one QMP client: what is moved by hand must lie elsewhere.
    pub watched: bool,
    /// Whether it has a second QMP socket, [`operator_socket`], for whoever looks at it past its agent.
    pub operator: bool,
    /// Whether it has a virtio balloon, [`BALLOON`]: by that it tells its memory.
    pub balloon: bool,
    /// Whether it keeps writing to a disk of its own: under libvirt alone, which has it at [`crate::libvirt::disk`].
    pub disk: bool,
}

/// A guest's load on its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dirty {
    /// This much is written over and over,
    pub memory: Mib,
    /// this much each second; 0 for as fast as it can.
    pub per_second: Mib,
    /// Steps of reckoning before each page of 4 KiB is written to. Without any, a guest that is slowed down to a hundredth still writes as much.
    pub work: u32,
}

impl GuestPlan {
    /// A guest of 160 MiB that leaves its memory alone.
    pub fn new(name: &str, number: u8) -> GuestPlan {
        GuestPlan {
            name: name.to_owned(),
            number,
            memory: Mib(160),
            dirty: None,
            watched: true,
            operator: false,
            balloon: false,
            disk: false,
        }
    }

    fn folder(&self) -> &'static str {
        if self.watched { FOLDER } else { UNWATCHED }
    }

    /// Its UUID.
    pub fn vm(&self) -> VmId {
        VmId(0x6576_656e_6b65_4c00_8000_0000_0000_0000 | u128::from(self.number))
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, 2, self.number)
    }

    /// Its tap's name, on every host.
    pub fn tap(&self) -> String {
        format!("tap-{}", self.name)
    }

    /// Its hardware address.
    pub(crate) fn mac(&self) -> String {
        let [.., a, b, c] = self.vm().0.to_be_bytes();
        format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
    }

    /// What its kernel is told.
    pub(crate) fn kernel_words(&self) -> String {
        let mut kernel = format!("{KERNEL_WORDS} lab.address={}/{PREFIX}", self.address());
        if let Some(dirty) = self.dirty {
            kernel +=
                &format!(" lab.dirty={}:{}:{}", dirty.memory.0, dirty.per_second.0, dirty.work);
        }
        if self.disk {
            kernel += " lab.disk=1";
        }
        kernel
    }

    /// How it is started with these parts.
    pub fn file(&self, parts: &Parts) -> VmFile {
        let accelerator = match &*parts.accelerator {
            // QEMU's default buffer for translated code grows to hundreds of MiB.
            "tcg" => "tcg,tb-size=16".to_owned(),
            other => other.to_owned(),
        };
        let kernel = self.kernel_words();
        let words = [
            ("", "qemu-system-x86_64".to_owned()),
            ("-name", self.name.clone()),
            ("-uuid", "{uuid}".to_owned()),
            ("-M", MACHINE.to_owned()),
            ("-accel", accelerator),
            ("-m", self.memory.0.to_string()),
            ("-smp", "1".to_owned()),
            ("-nodefaults", String::new()),
            ("-no-user-config", String::new()),
            ("-display", "none".to_owned()),
            ("-kernel", parts.kernel.display().to_string()),
            ("-initrd", parts.initramfs.display().to_string()),
            ("-append", kernel),
            ("-netdev", "tap,id=net0,ifname={tap},script=no,downscript=no".to_owned()),
            ("-device", format!("virtio-net-pci,netdev=net0,mac={},romfile=", self.mac())),
            // Appended to, since a VM may come back to a host where it was before.
            ("-chardev", format!("file,id=console,path={CONSOLES}/{{uuid}}.log,append=on")),
            ("-serial", "chardev:console".to_owned()),
            ("-qmp", "unix:{qmp},server=on,wait=off".to_owned()),
        ];
        let operator = ["-qmp", "unix:{qmp}-operator,server=on,wait=off"];
        let balloon = ["-device", "virtio-balloon-pci,id=balloon0"];
        let more = [(self.operator, operator), (self.balloon, balloon)];
        let more = more.into_iter().filter(|(wanted, _)| *wanted).flat_map(|(_, words)| words);
        VmFile {
            name: self.name.clone(),
            tap: self.tap(),
            bridge: BRIDGE.to_owned(),
            memory: format!("{}MiB", self.memory.0),
            vcpus: 1,
            start: words
                .into_iter()
                .flat_map(|(a, b)| [a.to_owned(), b])
                .filter(|word| !word.is_empty())
                .chain(more.map(str::to_owned))
                .collect(),
        }
    }
}

/// A QEMU process that the lab started. It is reaped as soon as it ends, so that its end can be seen in /proc.
#[derive(Debug)]
pub struct Guest {
    /// What it was to be.
    pub plan: GuestPlan,
    pid: u32,
    ended: Arc<OnceLock<ExitStatus>>,
    errors: PathBuf,
}

/// Makes a tap for the guest and starts it on `host`. It boots from here on: see [`Guest::ready`].
pub fn start(host: &Host, plan: &GuestPlan, parts: &Parts) -> anyhow::Result<Guest> {
    launch(host, plan, parts, &[])
}

/// Like [`start`], for an incoming side that waits for `migrate-incoming` and then runs by itself.
pub(crate) fn start_incoming(
    host: &Host,
    plan: &GuestPlan,
    parts: &Parts,
) -> anyhow::Result<Guest> {
    launch(host, plan, parts, &["-incoming", "defer"])
}

fn launch(host: &Host, plan: &GuestPlan, parts: &Parts, more: &[&str]) -> anyhow::Result<Guest> {
    let (file, uuid) = (plan.file(parts), plan.vm().to_string());
    ensure!(file.tap.len() <= TAP_MAX, "tap name {} is longer than {TAP_MAX} characters", file.tap);
    host.ip(&format!(
        "tuntap add dev {tap} mode tap\nlink set {tap} master {BRIDGE}\nlink set {tap} up\n",
        tap = file.tap
    ))
    .with_context(|| format!("making {} on {}", file.tap, host.name()))?;
    let text = toml::to_string(&file).context("writing a VM's definition")?;
    let folder = plan.folder();
    fs::create_dir_all(host.path(folder)).with_context(|| format!("making {folder}"))?;
    fs::write(host.path(&format!("{folder}/{uuid}.toml")), text)
        .context("writing a VM's definition")?;

    let errors = host.logs().join(format!("{}.err", plan.name));
    let qmp = format!("{folder}/{uuid}.sock");
    let words = file.start.iter().map(|word| {
        word.replace("{tap}", &file.tap).replace("{qmp}", &qmp).replace("{uuid}", &uuid)
    });
    let mut words = words.chain(more.iter().map(|&word| word.to_owned()));
    let child = host
        .command(words.next().context("empty command")?)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&errors).with_context(|| format!("making {}", errors.display()))?)
        .spawn()
        .context("starting nsenter and QEMU")?;
    Ok(Guest { plan: plan.clone(), pid: child.id(), ended: reap(child)?, errors })
}

fn reap(mut child: Child) -> anyhow::Result<Arc<OnceLock<ExitStatus>>> {
    let ended = Arc::new(OnceLock::new());
    let tell = Arc::clone(&ended);
    thread::Builder::new().name("reaper".to_owned()).spawn(move || {
        if let Ok(status) = child.wait() {
            let _only_we_set_it = tell.set(status);
        }
    })?;
    Ok(ended)
}

impl Guest {
    /// Waits until the guest, started on `host`, has booted and serves.
    pub async fn ready(&self, host: &Host, within: Duration) -> anyhow::Result<()> {
        let what = format!("guest {} ready on {}", self.plan.name, host.name());
        wait::until(within, &what, || {
            self.alive()?;
            Ok(console(host, self.plan.vm()).contains("READY").then_some(()))
        })
        .await
    }

    /// Waits until its QMP socket can be reached on `host`; gives the socket's path as seen from here.
    pub async fn qmp(&self, host: &Host, within: Duration) -> anyhow::Result<PathBuf> {
        let path = host.path(&format!("{}/{}.sock", self.plan.folder(), self.plan.vm()));
        wait::until(within, "QEMU's QMP socket", || {
            self.alive()?;
            Ok(fs::metadata(&path).is_ok_and(|found| found.file_type().is_socket()).then_some(()))
        })
        .await?;
        Ok(path)
    }

    /// Its QEMU's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How its QEMU ended, once it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.ended.get().copied()
    }

    /// Ends its QEMU at once, as a crash would.
    pub fn kill(&self) -> anyhow::Result<()> {
        match i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            Some(pid) if self.ended().is_none() => {
                kill_process(pid, Signal::KILL).context("killing QEMU")
            }
            Some(_) | None => Ok(()),
        }
    }

    fn alive(&self) -> anyhow::Result<()> {
        if let Some(status) = self.ended() {
            let said = fs::read_to_string(&self.errors).unwrap_or_default();
            bail!("QEMU of {} ended with {status}: {}", self.plan.name, said.trim());
        }
        Ok(())
    }
}

/// The second QMP socket of a VM on `host`, as seen from here, where its plan has one.
pub fn operator_socket(host: &Host, vm: VmId) -> PathBuf {
    host.path(&operator_path(vm))
}

/// The same, as seen on the VM's host.
pub(crate) fn operator_path(vm: VmId) -> String {
    format!("{FOLDER}/{vm}.sock-operator")
}

/// The definition of a VM on `host`, as seen from here.
pub fn definition(host: &Host, vm: VmId) -> PathBuf {
    host.path(&format!("{FOLDER}/{vm}.toml"))
}

/// The QEMU processes of a VM on a host.
pub fn qemus(host: &Host, vm: VmId) -> anyhow::Result<Vec<u32>> {
    let network = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net"));
    let here = network(host.namespace().pid())?;
    let uuid = vm.to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        // A process that ended meanwhile has no network to compare.
        let program = line.split('\0').next().unwrap_or_default();
        if program.rsplit('/').next().unwrap_or_default().starts_with("qemu-system")
            && line.contains(&uuid)
            && network(pid).is_ok_and(|n| n == here)
        {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Ends the QEMU of a VM on a host at once, as a crash would.
pub fn kill_qemu(host: &Host, vm: VmId) -> anyhow::Result<()> {
    let pids = qemus(host, vm)?;
    let [pid] = pids[..] else { bail!("not one QEMU on {}: {pids:?}", host.name()) };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process has a number")?;
    kill_process(pid, Signal::KILL).context("killing QEMU")
}

/// What is left of a VM on a host: processes, tap, files; in words.
pub fn left(host: &Host, plan: &GuestPlan) -> anyhow::Result<Vec<String>> {
    let mut left: Vec<String> =
        qemus(host, plan.vm())?.iter().map(|pid| format!("QEMU's process {pid}")).collect();
    let tap = plan.tap();
    if host.path("/sys/class/net").join(&tap).exists() {
        left.push(format!("the tap {tap}"));
    }
    for file in fs::read_dir(host.path(FOLDER))? {
        let name = file?.file_name().to_string_lossy().into_owned();
        if name.starts_with(&plan.vm().to_string()) && !name.ends_with("-operator") {
            left.push(format!("the file {name}"));
        }
    }
    Ok(left)
}

/// Removes all files of a VM on a host.
pub fn remove_files(host: &Host, vm: VmId) -> anyhow::Result<()> {
    for file in fs::read_dir(host.path(FOLDER))? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(&vm.to_string()) {
            fs::remove_file(&path).with_context(|| format!("removing {name}"))?;
        }
    }
    Ok(())
}

/// Where that is kept which the VM prints on its console while on `host`, as seen from here.
pub fn console_file(host: &Host, vm: VmId) -> PathBuf {
    host.path(&format!("{CONSOLES}/{vm}.log"))
}

/// What the VM printed on its console while on `host`; empty if it never was there.
pub fn console(host: &Host, vm: VmId) -> String {
    let bytes = fs::read(console_file(host, vm)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The heartbeats that the VM printed while on `host`, in order.
pub fn heartbeats(host: &Host, vm: VmId) -> Vec<u64> {
    let complete = console(host, vm);
    let complete = complete.rsplit_once('\n').map_or("", |(lines, _partial)| lines);
    complete
        .lines()
        .filter_map(|line| line.trim().strip_prefix("HEARTBEAT ")?.parse().ok())
        .collect()
}

/// Which host each heartbeat came from; `beats` has those of each host, in order.
///
/// # Errors
/// In words: on one host they went back, or one came from two hosts.
pub fn each_once(beats: &[Vec<u64>]) -> anyhow::Result<BTreeMap<u64, usize>> {
    let mut seen = BTreeMap::new();
    for (host, all) in beats.iter().enumerate() {
        ensure!(
            all.is_sorted_by(|a, b| a < b),
            "heartbeats went back on host{}: {all:?}",
            host + 1
        );
        for beat in all {
            let other = seen.insert(*beat, host);
            ensure!(other.is_none(), "heartbeat {beat} came from two hosts: {beats:?}");
        }
    }
    Ok(seen)
}

/// Whether the VM lived one life on the hosts that it was on, in that order: its heartbeats went on where they were.
///
/// # Errors
/// In words: a heartbeat that came twice or went back (two running copies, or an old one), or several that are missing.
pub fn one_life<'a>(hosts: impl IntoIterator<Item = &'a Host>, vm: VmId) -> anyhow::Result<()> {
    let mut before: Option<(u64, String)> = None;
    for host in hosts {
        for beat in heartbeats(host, vm) {
            if let Some((last, on)) = &before {
                ensure!(
                    beat > *last,
                    "heartbeat {beat} on {} came after {last} on {on}: two copies ran, or an old one",
                    host.name()
                );
                // One may be lost to the eye: its line was begun on one host and ended on the other.
                ensure!(
                    beat <= last + 2,
                    "heartbeats {} to {} are missing between {on} and {}",
                    last + 1,
                    beat - 1,
                    host.name()
                );
            }
            before = Some((beat, host.name()));
        }
    }
    Ok(())
}
