//! `cargo xtask bench monitor`: what watching costs.
//!
//! Two parts. 500 taps at four levels of traffic: a reading cycle, beside the same by sysfs and by `ip -s link`, and what the
//! programs at the taps take a packet, by the kernel's run-time statistics (`crates/drivers/examples/cycle.rs`). And a real
//! agent that watches 100 VMs each second: its share of a core, and its memory. Those VMs are stand-ins,
//! processes that answer at a QMP socket, each with a tap of its own on the bridge.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use decide::units::VmId;
use lab::cluster::Cluster;
use lab::hosts::{BRIDGE, Network};
use lab::sandbox;
use serde::{Deserialize, Serialize};

use crate::demo::prepare;
use crate::{print, say};

/// Milliseconds of processor time for a cycle of 500 interfaces.
const CYCLE_MS_MAX: f64 = 2.0;
/// Of one core, for 100 VMs.
const CORE_SHARE_MAX: f64 = 0.01;
const RSS_MIB_MAX: f64 = 40.0;
const NS_PER_PACKET_MAX: u64 = 200;

const VMS: u32 = 100;
const ADOPTED_MAX: Duration = Duration::from_secs(60);
/// Adoption is over, and what is done once a VM too.
const SETTLE: Duration = Duration::from_secs(10);
const MEASURED: Duration = Duration::from_secs(30);
const FOLDER: &str = "/run/evenkeel/qemu";

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Monitor {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// A process that stands for a QEMU; started by the benchmark itself.
#[derive(Args)]
pub(crate) struct StandIn {
    socket: PathBuf,
    vm: VmId,
}

impl StandIn {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        lab::stand_in::serve(&self.socket, self.vm)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What the task prints.
#[derive(Debug, Default, Serialize)]
struct Figures {
    ok: bool,
    taps: u64,
    /// The costliest of the levels.
    cpu_ms_per_cycle: f64,
    /// Of the agent, with `vms` VMs.
    core_share: f64,
    rss_mib: f64,
    /// At the level with the most packets, for each run of a program: a packet that passes two taps takes two.
    ns_per_packet: u64,
    cycle: Cycle,
    vms: u32,
    failures: Vec<String>,
}

/// What the example prints.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Cycle {
    taps: u64,
    levels: Vec<Level>,
    cpu_ms_with_processes: f64,
    cpu_ms_links_only: f64,
    cpu_ms_by_sysfs: f64,
    cpu_ms_by_ip: f64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Level {
    packets_per_second: f64,
    cpu_ms_per_cycle: f64,
    ns_per_packet: Option<u64>,
}

impl Monitor {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        if sandbox::outside() {
            sandbox::allowed()?;
            for what in [["drivers", "--example", "cycle"], ["agent", "--bin", "evenkeeld"]] {
                prepare::release(&what)?;
            }
        }
        prepare::in_sandbox(async || self.inside().await)
    }

    async fn inside(&self) -> anyhow::Result<ExitCode> {
        let mut figures = Figures { vms: VMS, ..Figures::default() };
        say("reading 500 taps at four levels of traffic");
        match cycle() {
            Ok(cycle) => figures.cycle = cycle,
            Err(error) => figures.failures.push(format!("the cycle: {error:#}")),
        }
        if let Err(error) = agent(&mut figures).await {
            figures.failures.push(format!("the agent: {error:#}"));
        }
        figures.judge();
        let document = || serde_json::to_string_pretty(&figures);
        print(&if self.json { document()? } else { figures.table() });
        Ok(if figures.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Runs the example in a network of its own.
fn cycle() -> anyhow::Result<Cycle> {
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c"])
        .arg("mount -t sysfs sysfs /sys && mount -t bpf bpf /sys/fs/bpf && exec \"$0\"")
        .arg(prepare::released("examples/cycle"))
        .output()
        .context("running unshare")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    serde_json::from_slice(&output.stdout).context("reading what it printed")
}

/// Measures the agent of one host while it watches the stand-ins.
async fn agent(figures: &mut Figures) -> anyhow::Result<()> {
    say(&format!("an agent with {VMS} VMs, which are stand-ins"));
    let config = "[mode]\nbalance = \"off\"\n";
    let mut cluster =
        Cluster::start(Network::new(1)?, &prepare::released("evenkeeld"), config).await?;
    let mut stand_ins = StandIns(Vec::new());
    for number in 1..=VMS {
        stand_ins.0.push(stand_in(&cluster, number)?);
    }
    let deadline = tokio::time::Instant::now() + ADOPTED_MAX;
    loop {
        cluster.all_run()?;
        let vms = cluster.api(0).vms().await.unwrap_or_default();
        if vms.iter().filter(|vm| vm.trouble.is_none()).count() == VMS as usize {
            break;
        }
        let late = tokio::time::Instant::now() > deadline;
        ensure!(!late, "it adopted {} only: {:?}", vms.len(), vms.first());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster.api(0).traffic().await.context("frames must be counted too")?;
    let pid = cluster.agent_pid(0).context("the agent runs")?;
    tokio::time::sleep(SETTLE).await;
    let began = (cpu_seconds(pid)?, tokio::time::Instant::now());
    tokio::time::sleep(MEASURED).await;
    let used = cpu_seconds(pid)? - began.0;
    figures.core_share = rounded(used / began.1.elapsed().as_secs_f64(), 10_000.0);
    figures.rss_mib = rounded(resident_mib(pid)?, 10.0);
    cluster.all_run()
}

/// A VM with a tap: its files, and the process that stands for its QEMU.
fn stand_in(cluster: &Cluster, number: u32) -> anyhow::Result<Child> {
    let host = cluster.host(0);
    let (vm, tap) = (VmId(u128::from(number)), format!("tap{number}"));
    host.ip(&format!("tuntap add dev {tap} mode tap\nlink set {tap} master {BRIDGE} up\n"))?;
    let socket = Path::new(FOLDER).join(format!("{vm}.sock"));
    let program = std::env::current_exe().context("finding this program")?;
    let child = host
        .command(program)
        .arg("stand-in")
        .arg(&socket)
        .arg(vm.to_string())
        .stdin(Stdio::null())
        .spawn()
        .context("starting a stand-in")?;
    let definition = format!(
        "name = \"vm{number}\"\ntap = \"{tap}\"\nbridge = \"{BRIDGE}\"\nmemory = \"128MiB\"\nvcpus = 1\n\
         start = [\"a-stand-in\", \"-qmp\", \"unix:{{qmp}}\", \"ifname={{tap}}\"]\n"
    );
    fs::write(host.path(&format!("{FOLDER}/{vm}.toml")), definition)
        .context("writing a VM's file")?;
    Ok(child)
}

/// Ended with the benchmark.
struct StandIns(Vec<Child>);

impl Drop for StandIns {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Processor time of a process so far.
fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the agent's figures")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    // User and system time; the kernel counts hundredths of a second here, on every machine of ours.
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}

fn resident_mib(pid: u32) -> anyhow::Result<f64> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).context("the agent's figures")?;
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB"));
    let kib: f64 = kib.context("VmRSS of the agent")?.trim().parse().context("VmRSS")?;
    Ok(kib / 1024.0)
}

fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

impl Figures {
    /// Fills in what is made of the rest, and what was missed.
    fn judge(&mut self) {
        self.taps = self.cycle.taps;
        let levels = self.cycle.levels.iter();
        self.cpu_ms_per_cycle = levels.map(|level| level.cpu_ms_per_cycle).fold(0.0, f64::max);
        let busiest = self.cycle.levels.last().and_then(|level| level.ns_per_packet);
        self.ns_per_packet = busiest.unwrap_or_default();
        let mut miss = |what: &str, missed: bool, value: String, wanted: String| {
            if missed {
                self.failures.push(format!("{what}: {value}, at most {wanted}"));
            }
        };
        // Nothing measured is a miss as well.
        let over = |value: f64, max: f64| value <= 0.0 || value > max;
        let (cycle, share) = (self.cpu_ms_per_cycle, self.core_share);
        miss(
            "a cycle",
            over(cycle, CYCLE_MS_MAX),
            format!("{cycle} ms"),
            format!("{CYCLE_MS_MAX} ms"),
        );
        let percent = |share: f64| format!("{:.2} % of a core", share * 100.0);
        miss("the agent", over(share, CORE_SHARE_MAX), percent(share), percent(CORE_SHARE_MAX));
        let rss = self.rss_mib;
        miss(
            "its memory",
            over(rss, RSS_MIB_MAX),
            format!("{rss} MiB"),
            format!("{RSS_MIB_MAX} MiB"),
        );
        let ns = self.ns_per_packet;
        let slow = ns == 0 || ns > NS_PER_PACKET_MAX;
        miss("a packet", slow, format!("{ns} ns"), format!("{NS_PER_PACKET_MAX} ns"));
        self.ok = self.failures.is_empty();
    }

    fn table(&self) -> String {
        let cycle = &self.cycle;
        let mut lines = vec![
            format!("| {} taps | processor time a cycle | program, a packet |", cycle.taps),
            "|---|---|---|".to_owned(),
        ];
        for level in &cycle.levels {
            let ns = level.ns_per_packet.map_or_else(|| "-".to_owned(), |ns| format!("{ns} ns"));
            let (rate, cpu) = (level.packets_per_second, level.cpu_ms_per_cycle);
            lines.push(format!("| {rate} packets/s | {cpu} ms | {ns} |"));
        }
        let rows = [
            ("links alone", cycle.cpu_ms_links_only),
            ("with a process for each tap", cycle.cpu_ms_with_processes),
            ("by sysfs", cycle.cpu_ms_by_sysfs),
            ("by `ip -s link`", cycle.cpu_ms_by_ip),
        ];
        lines.extend(rows.map(|(what, ms)| format!("| {what} | {ms} ms | |")));
        lines.push(format!(
            "\nagent with {} stand-ins for VMs: {:.2} % of a core, {} MiB",
            self.vms,
            self.core_share * 100.0,
            self.rss_mib
        ));
        lines.extend(self.failures.iter().map(|why| format!("FAILED: {why}")));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Figures {
        let level = |cpu_ms_per_cycle, ns| Level {
            cpu_ms_per_cycle,
            ns_per_packet: Some(ns),
            ..Level::default()
        };
        let cycle = Cycle { levels: vec![level(1.9, 900), level(1.0, 150)], ..Cycle::default() };
        Figures { cycle, core_share: 0.005, rss_mib: 20.0, ..Figures::default() }
    }

    #[test]
    fn the_costliest_level_and_the_busiest_program_are_judged() {
        let mut figures = good();
        figures.judge();
        assert!(figures.ok, "{figures:?}");
        assert_eq!(figures.ns_per_packet, 150);
    }

    #[test]
    fn each_target_that_is_missed_is_named() {
        let mut figures = Figures { core_share: 0.02, rss_mib: 41.0, ..good() };
        figures.cycle.levels[0].cpu_ms_per_cycle = 2.5;
        figures.cycle.levels[1].ns_per_packet = None;
        figures.judge();
        let expected = [
            "a cycle: 2.5 ms, at most 2 ms",
            "the agent: 2.00 % of a core, at most 1.00 % of a core",
            "its memory: 41 MiB, at most 40 MiB",
            "a packet: 0 ns, at most 200 ns",
        ];
        assert_eq!(figures.failures, expected);
        assert!(!figures.ok);
    }
}
