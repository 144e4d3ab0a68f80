//! `cargo xtask newcomer`: from the package to the first recommendation on three clean Debian hosts, by docs/install.md as it stands.
//!
//! ```text
//!   docs/install.md ─▶ its commands, its lines of configuration ─▶ three hosts, each with a Debian of its own ─▶ a recommendation
//! ```
//!
//! Hosts are namespaces, so nobody of them runs systemd: where a command has a unit started, that is done here, as the unit says. VMs are real
//! ones that ran before; so that one host gets hot in seconds and by packets alone, some thresholds are set.

mod guide;
mod machine;

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use decide::units::PacketsPerSec;
use lab::clients::Flood;
use lab::guests::{self, GuestPlan};
use lab::hosts::Network;
use lab::setup::Parts;
use lab::wait;
use serde::Serialize;
use tokio::time::Instant;

use crate::demo::prepare;
use crate::{dist, print, say};
use guide::{Guide, Step};
use machine::Machine;

/// More commands than these no newcomer should have to type.
const COMMANDS_MAX: usize = 10;
const HOSTS: usize = 3;
/// Each with its host.
const GUESTS: [(&str, usize); 3] = [(FLOODED, 0), ("db1", 0), ("web2", 1)];
const FLOODED: &str = "web1";
const FLOOD: PacketsPerSec = PacketsPerSec(2500);
/// Payload of each packet, in bytes.
const SIZE: usize = 200;
/// What is set besides what the guide says, by section. The hosts share one machine, so its processors and memory say nothing about any.
const THRESHOLDS: [(&str, &str, &str); 8] = [
    ("hot", "for", "\"5s\""),
    ("hot", "packets_per_second", "2000"),
    ("hot", "cpu_used", "\"100%\""),
    ("hot", "cpu_pressure", "\"100%\""),
    ("hot", "memory_used", "\"100%\""),
    ("hot", "drops_per_second", "100000"),
    ("target", "cpu_used_max", "\"1000%\""),
    ("target", "memory_reserve", "\"256MiB\""),
];
const BOOT_MAX: Duration = Duration::from_secs(120);
const RECOMMENDED_MAX: Duration = Duration::from_secs(120);

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Newcomer {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    /// What was typed, in order.
    typed: Vec<Typed>,
    commands: usize,
    commands_max: usize,
    /// What the host recommends.
    recommended: String,
    /// From the first command to the last.
    seconds: f64,
    ok: bool,
}

#[derive(Serialize)]
struct Typed {
    host: String,
    command: String,
    seconds: f64,
    /// The first line of what it said.
    said: String,
}

impl Newcomer {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let prepare = || {
            lab::setup::ensure(&mut |step| say(step)).context("setup")?;
            dist::package()?;
            clean_debian()
        };
        prepare::in_sandbox_after(prepare, async || self.inside().await)
    }

    async fn inside(&self) -> anyhow::Result<ExitCode> {
        let guide = Guide::read()?;
        let mut stage = Stage::set(guide.package())?;
        let began = Instant::now();
        for step in &guide.path {
            stage.goes(step, &guide).await?;
        }
        let seconds = tenths(began);
        for step in &guide.looks {
            stage.goes(step, &guide).await?;
        }
        stage.machines.iter_mut().try_for_each(Machine::still_runs)?;
        let commands = guide.path.len();
        let recommended = stage.recommended.context("the guide asks for no plan")?;
        let ok = commands <= COMMANDS_MAX;
        let typed = stage.typed;
        let report =
            Report { typed, commands, commands_max: COMMANDS_MAX, recommended, seconds, ok };
        print(&if self.json { serde_json::to_string_pretty(&report)? } else { in_words(&report) });
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn in_words(report: &Report) -> String {
    let line = |one: &Typed| {
        format!("{}# {:<60} {:>5.1} s  {}", one.host, one.command, one.seconds, one.said)
    };
    let mut lines: Vec<String> = report.typed.iter().map(line).collect();
    let Report { commands, commands_max, seconds, recommended, .. } = report;
    lines.push(format!(
        "{commands} commands of at most {commands_max}, {seconds} s to a recommendation: {recommended}"
    ));
    lines.join("\n")
}

fn tenths(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 10.0).round() / 10.0
}

/// A Debian that has what any host with QEMU has, and nothing of ours.
fn root() -> PathBuf {
    dist::folder().join("newcomer")
}

/// It stays clean, since what hosts change is laid over it: so it is made once.
fn clean_debian() -> anyhow::Result<()> {
    let (root, made) = (root(), root().with_extension("made"));
    if made.exists() {
        return Ok(());
    }
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
    }
    say("making a clean Debian folder with QEMU");
    lab::setup::debian(&root, &["systemd", "libgcc-s1", "iproute2", "qemu-system-x86"])?;
    fs::write(&made, "").with_context(|| format!("writing {}", made.display()))
}

/// The hosts, and how far the newcomer is.
struct Stage {
    machines: Vec<Machine>,
    parts: Parts,
    /// Given by one command and asked for by another.
    tokens: VecDeque<String>,
    flood: Option<Flood>,
    network: Arc<Network>,
    typed: Vec<Typed>,
    recommended: Option<String>,
}

impl Stage {
    fn set(package: &str) -> anyhow::Result<Stage> {
        say(&format!("making {HOSTS} hosts"));
        let network = Arc::new(Network::new(HOSTS).context("making hosts")?);
        let package = dist::folder().join(package);
        let lay_out = |number| Machine::lay_out(&network, number, &root(), &package);
        let machines = (0..HOSTS).map(lay_out).collect::<anyhow::Result<Vec<Machine>>>()?;
        let parts = Parts::load()?;
        let (tokens, typed) = (VecDeque::new(), Vec::new());
        Ok(Stage { machines, parts, tokens, flood: None, network, typed, recommended: None })
    }

    /// Types one command of the guide, after what has to be so before it.
    async fn goes(&mut self, step: &Step, guide: &Guide) -> anyhow::Result<()> {
        let Step { host, words } = step;
        let name = format!("host{}", host + 1);
        ensure!(*host < HOSTS, "the guide has {name}, and there are {HOSTS}");
        let command = words.join(" ");
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["evenkeel", "ca", "init", ..] => self.hosts_with_vms(guide).await?,
            ["evenkeel", "plan"] => self.something_is_recommended(*host).await?,
            _ => {}
        }
        let input = match words.iter().any(|word| word == "join") {
            true => self.tokens.pop_front().context("the guide has made no token for it")?,
            false => String::new(),
        };
        let began = Instant::now();
        let machine = &mut self.machines[*host];
        let said = machine.typed(words, &input)?;
        say(&format!("{name}# {command}\n{}", said.trim_end()));
        if machine.is_to_start()? {
            machine.start().await?;
        }
        let first = said.lines().next().unwrap_or_default().to_owned();
        if command.contains("ca token") {
            self.tokens.push_back(said.clone());
        }
        let shown = if command.contains("ca token") { "a token".to_owned() } else { first };
        self.typed.push(Typed { host: name, command, seconds: tenths(began), said: shown });
        self.explained(words, &said)
    }

    /// The configuration of each host, as the guide says; and VMs, which ran before Evenkeel came.
    async fn hosts_with_vms(&mut self, guide: &Guide) -> anyhow::Result<()> {
        for machine in &self.machines {
            machine.configure(guide, &THRESHOLDS)?;
        }
        let mut plans = Vec::new();
        for (number, (name, host)) in (1..).zip(GUESTS) {
            let plan = GuestPlan::new(name, number);
            self.machines[host].start_vm(&plan, &self.parts)?;
            plans.push((plan, host));
        }
        for (plan, host) in &plans {
            let machine = &self.machines[*host];
            let host = &self.network.hosts()[*host];
            let ready = || Ok(guests::console(host, plan.vm()).contains("READY").then_some(()));
            let booted = wait::until(BOOT_MAX, &format!("guest {}", plan.name), ready).await;
            booted.with_context(|| machine.said_by_vm(plan))?;
        }
        let flooded = plans[0].0.address();
        self.flood = Some(Flood::start(self.network.client(), flooded, FLOOD, SIZE)?);
        Ok(())
    }

    async fn something_is_recommended(&mut self, host: usize) -> anyhow::Result<()> {
        let api = self.machines[host].api();
        let deadline = Instant::now() + RECOMMENDED_MAX;
        loop {
            let plan = api.plan().await?;
            if let Some(first) = plan.moves.first() {
                self.recommended = Some(format!("move {}", first.vm));
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "nothing is recommended: {plan:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What a person wants to learn of the last commands is in what they said.
    fn explained(&self, typed: &[String], said: &str) -> anyhow::Result<()> {
        let words: Vec<&str> = typed.iter().map(String::as_str).collect();
        let wanted: &[&str] = match words[..] {
            ["evenkeel", "plan"] => &[FLOODED, "host1"],
            ["evenkeel", "why", vm] => &[vm, "packets"],
            ["evenkeel", "hosts"] => &["host1", "host2", "host3"],
            _ => &[],
        };
        let missing: Vec<&&str> = wanted.iter().filter(|word| !said.contains(**word)).collect();
        ensure!(missing.is_empty(), "{}: nothing of {missing:?} in: {said}", typed.join(" "));
        Ok(())
    }
}
