//! `cargo xtask newcomer`: from the package to the first recommendation on three clean Debian hosts, by docs/install.md as it stands;
//! then whatever the other pages have people type.
//!
//! ```text
//!   docs/install.md ─▶ its commands, its lines of configuration ─▶ three hosts, each with a Debian of its own ─▶ a recommendation
//!   docs/*.md ───────▶ their commands ─▶ the same hosts, and two without an agent
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
use machine::{Ends, Machine};

/// More commands than these no newcomer should have to type.
const COMMANDS_MAX: usize = 10;
const HOSTS: usize = 3;
/// Two more have the package, and nothing else: for what is done apart from the cluster.
const MACHINES: usize = 5;
/// Each with its host.
const GUESTS: [(&str, usize); 3] = [(FLOODED, 0), ("db1", 0), ("web2", 1)];
const FLOODED: &str = "web1";
/// By guest, in their order: together too much for a host, and each of them not.
const FLOODS: [PacketsPerSec; 2] = [PacketsPerSec(1500), PacketsPerSec(1000)];
/// Payload of each packet, in bytes.
const SIZE: usize = 200;
/// What is set besides what the guide says, by section. The hosts share one machine, so its processors and memory say nothing about any.
const SETTINGS: [(&str, &str, &str); 9] = [
    ("record", "folder", "\"/var/lib/evenkeel/record\""),
    ("hot", "for", "\"5s\""),
    ("hot", "packets_per_second", "2000"),
    ("hot", "cpu_used", "\"100%\""),
    ("hot", "cpu_pressure", "\"100%\""),
    ("hot", "memory_used", "\"100%\""),
    ("hot", "drops_per_second", "100000"),
    ("target", "cpu_used_max", "\"1000%\""),
    ("target", "memory_reserve", "\"256MiB\""),
];
/// Commands with these go on until they are ended: after so long, here.
const ENDLESS: [&str; 3] = ["events -f", "curl -N", "follow=true"];
const FOLLOWED: Duration = Duration::from_secs(3);
/// Says by code 1 that it names what it had to assume, as docs/lab.md has it.
const NOTES: &str = "lab dump";
const BOOT_MAX: Duration = Duration::from_secs(120);
const RECOMMENDED_MAX: Duration = Duration::from_secs(120);

/// What a host with QEMU has; and what people look at answers with.
const HAS: [&str; 7] =
    ["systemd", "libgcc-s1", "iproute2", "nftables", "qemu-system-x86", "curl", "jq"];

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
    /// How many of them lead to the recommendation.
    commands: usize,
    commands_max: usize,
    /// What the host recommends.
    recommended: String,
    /// From the first command to that.
    seconds: f64,
    ok: bool,
}

#[derive(Serialize)]
struct Typed {
    page: String,
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
            dist::packages()?;
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
        let others = guide::others()?;
        stage.others_may_be_typed()?;
        for step in guide.looks.iter().chain(&others) {
            stage.goes(step, &guide).await.with_context(|| format!("docs/{}", step.page))?;
        }
        stage.machines[..HOSTS].iter_mut().try_for_each(Machine::still_runs)?;
        let commands = guide.path.len();
        let recommended = stage.recommended.context("the guide asks for no plan")?;
        let ok = commands <= COMMANDS_MAX;
        let typed = stage.said;
        let report =
            Report { typed, commands, commands_max: COMMANDS_MAX, recommended, seconds, ok };
        print(&if self.json { serde_json::to_string_pretty(&report)? } else { in_words(&report) });
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn in_words(report: &Report) -> String {
    let line = |one: &Typed| {
        let Typed { page, host, command, seconds, said } = one;
        format!("{page:<14} {host}# {command:<60} {seconds:>5.1} s  {said}")
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
    let (root, made, has) = (root(), root().with_extension("made"), HAS.join("\n"));
    if fs::read_to_string(&made).is_ok_and(|said| said == has) {
        return Ok(());
    }
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
    }
    say("making a clean Debian folder with QEMU");
    lab::setup::debian(&root, &HAS)?;
    fs::write(&made, has).with_context(|| format!("writing {}", made.display()))
}

/// The hosts, and how far the newcomer is.
struct Stage {
    machines: Vec<Machine>,
    parts: Parts,
    /// Given by one command and asked for by another.
    tokens: VecDeque<String>,
    /// The API's, made last.
    api_token: String,
    floods: Vec<Flood>,
    network: Arc<Network>,
    said: Vec<Typed>,
    recommended: Option<String>,
}

impl Stage {
    fn set(package: &str) -> anyhow::Result<Stage> {
        say(&format!("making {MACHINES} hosts"));
        let network = Arc::new(Network::new(MACHINES).context("making hosts")?);
        let shared = network.folder().join("typed-in");
        fs::create_dir(&shared).with_context(|| shared.display().to_string())?;
        let from = dist::folder().join(package);
        fs::copy(&from, shared.join(package)).with_context(|| from.display().to_string())?;
        let lay_out = |number| Machine::lay_out(&network, number, &root(), &shared);
        let machines = (0..MACHINES).map(lay_out).collect::<anyhow::Result<Vec<Machine>>>()?;
        for machine in &machines[HOSTS..] {
            machine.typed(&format!("apt install ./{package}"), "")?;
        }
        let parts = Parts::load()?;
        let (tokens, said) = (VecDeque::new(), Vec::new());
        let (api_token, floods, recommended) = (String::new(), Vec::new(), None);
        Ok(Stage { machines, parts, tokens, api_token, floods, network, said, recommended })
    }

    /// What pages take for granted: a person's account, a passphrase, and the CA's certificate beside what is typed.
    fn others_may_be_typed(&self) -> anyhow::Result<()> {
        let keys = "/var/lib/evenkeel/keys";
        let line = format!(
            "cp {keys}/ca.crt . && echo correct horse battery staple > pass.txt && chmod 600 pass.txt && useradd anna"
        );
        self.machines[0].typed(&line, "").map(drop)
    }

    /// Types one command, after what has to be so before it.
    async fn goes(&mut self, step: &Step, guide: &Guide) -> anyhow::Result<()> {
        let Step { host, line, .. } = step;
        let name = format!("host{}", host + 1);
        ensure!(*host < MACHINES, "the guide has {name}, and there are {MACHINES}");
        let words = step.words();
        match words[..] {
            ["evenkeel", "ca", "init", ..] if *host < HOSTS => self.hosts_with_vms(guide).await?,
            ["evenkeel", "plan"] if self.recommended.is_none() => {
                self.something_is_recommended(*host).await?;
            }
            _ => {}
        }
        let input = match words.contains(&"join") {
            true => self.tokens.pop_front().context("the guide has made no token for it")?,
            false => String::new(),
        };
        let began = Instant::now();
        let said = match words[..] {
            ["ssh", "-fNL", sockets, to] => self.forward(*host, sockets, to)?,
            _ => self.machines[*host].typed_for(line, &input, &self.api_token, &ends(line))?,
        };
        say(&format!("{name}# {line}\n{}", said.trim_end()));
        let machine = &mut self.machines[*host];
        if machine.is_to_start()? {
            machine.start().await?;
        }
        let secret = words.contains(&"token");
        if line.contains("ca token") {
            self.tokens.push_back(said.clone());
        } else if secret {
            let token = said.split_whitespace().find(|word| word.starts_with("evk_"));
            self.api_token = token.context("no token was said")?.to_owned();
        }
        let first = said.lines().next().unwrap_or_default().to_owned();
        let shown = if secret { "a token".to_owned() } else { first };
        let (page, command) = (step.page.clone(), line.clone());
        self.said.push(Typed { page, host: name, command, seconds: tenths(began), said: shown });
        explained(step, &said)
    }

    fn forward(&self, host: usize, sockets: &str, to: &str) -> anyhow::Result<String> {
        let (link, _api) = sockets.split_once(':').context("ssh -L takes two sockets")?;
        let number = to.strip_prefix("host").and_then(|number| number.parse::<usize>().ok());
        let to = number.and_then(|number| self.machines.get(number.checked_sub(1)?));
        self.machines[host].forward(link, to.context("ssh to no host")?)?;
        Ok(String::new())
    }

    /// The configuration of each host, as the guide says; and VMs, which ran before Evenkeel came.
    async fn hosts_with_vms(&mut self, guide: &Guide) -> anyhow::Result<()> {
        for machine in &self.machines[..HOSTS] {
            machine.configure(guide, &SETTINGS)?;
            machine.has_what_vms_need(&self.parts)?;
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
        for ((plan, _), flood) in plans.iter().zip(FLOODS) {
            self.floods.push(Flood::start(self.network.client(), plan.address(), flood, SIZE)?);
        }
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
}

fn ends(line: &str) -> Ends {
    let after = ENDLESS.iter().any(|endless| line.contains(endless)).then_some(FOLLOWED);
    Ends { after, noted: line.contains(NOTES) }
}

/// What a person wants to learn of a command is in what it said, and tables have the columns that the page shows.
fn explained(step: &Step, said: &str) -> anyhow::Result<()> {
    let wanted = match step.words()[..] {
        ["evenkeel", "plan"] => vec![FLOODED, "host1"],
        ["evenkeel", "why", vm] => vec![vm, "packets"],
        ["evenkeel", "hosts"] => vec!["host1", "host2", "host3"],
        _ => Vec::new(),
    };
    let wanted = [wanted, step.columns()].concat();
    let missing: Vec<&&str> = wanted.iter().filter(|word| !said.contains(**word)).collect();
    ensure!(missing.is_empty(), "{}: nothing of {missing:?} in: {said}", step.line);
    Ok(())
}
