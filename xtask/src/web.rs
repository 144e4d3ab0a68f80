//! `cargo xtask web`: builds the dashboard by npm; with `--test` goes through it in a headless Chromium.
//!
//! ```text
//!   outside: npm ci, npm run build ─▶ setup ─▶ build of the agent ─▶ sandbox ─▶ inside: three hosts, VMs, traffic ─▶ web/tests
//! ```
//!
//! The browser runs in the network of the lab's clients and meets one agent over TLS, with tokens, as anybody would.
//! Its screenshots go to `target/screenshots`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use api::{Role, TokenRequest};
use clap::Args;
use decide::units::PacketsPerSec;
use lab::clients::Flood;
use lab::cluster::Cluster;
use lab::guests::{self, Guest, GuestPlan};
use lab::hosts::Network;
use lab::sandbox;
use lab::setup::{self, Parts};
use serde::Serialize;
use tokio::time::Instant;

use crate::demo::prepare;
use crate::{print, say};

/// What the tests meet: host2 is hot and recommends a move, so that nothing moves but by a person; copies can be watched.
const CONFIG: &str = r#"[mode]
balance = "recommend"
[hot]
for = "3s"
packets_per_second = 1500
# All hosts share one machine, so its processors and memory say nothing about any of them.
cpu_used = "100%"
cpu_pressure = "100%"
memory_used = "100%"
drops_per_second = 100000
[target]
cpu_used_max = "1000%"
memory_reserve = "256MiB"
[worth_it]
gain_min = "1%"
[copy]
bandwidth = "1%"
[api]
listen = "{address}:8443"
"#;
/// Name and host of each guest, and the packets per second that it gets.
const GUESTS: [(&str, usize, u64); 5] =
    [("web1", 0, 200), ("db1", 0, 0), ("web2", 1, 1400), ("db2", 1, 600), ("web3", 2, 100)];
const SIZE: usize = 200;
const HOT: usize = 1;
const BOOT_MAX: Duration = Duration::from_secs(120);
const HOT_MAX: Duration = Duration::from_secs(60);
/// Known to build the dashboard.
const NODE: (u32, u32) = (20, 19);

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Web {
    /// Go through the dashboard in a browser, on three hosts with real VMs
    #[arg(long)]
    test: bool,
    /// With --test: leave everything running until Ctrl-C, and say where it is
    #[arg(long, requires = "test")]
    keep: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Outcome {
    ok: bool,
    /// Of the script, by gzip.
    script_kib_gz: u64,
    /// The tests' own words; absent: they were not asked for.
    tests: Option<String>,
    seconds: f64,
}

impl Web {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        if !self.test || sandbox::outside() {
            build()?;
        }
        if !self.test {
            let outcome =
                Outcome { ok: true, script_kib_gz: script_kib()?, tests: None, seconds: 0.0 };
            return self.show(&outcome);
        }
        if sandbox::outside() {
            setup::browser(&mut |step| say(step)).context("the browser")?;
        }
        prepare::in_sandbox(async || self.inside().await)
    }

    async fn inside(&self) -> anyhow::Result<ExitCode> {
        let began = Instant::now();
        let stage = Stage::set().await.context("setting the stage")?;
        let tests = stage.tests();
        if self.keep {
            match &tests {
                Ok(said) => say(said),
                Err(error) => say(&format!("{error:#}")),
            }
            say(&stage.ways_in());
            std::future::pending::<()>().await;
        }
        let outcome = Outcome {
            ok: tests.is_ok(),
            script_kib_gz: script_kib()?,
            tests: Some(tests.unwrap_or_else(|error| format!("{error:#}"))),
            seconds: began.elapsed().as_secs_f64().round(),
        };
        self.show(&outcome)
    }

    fn show(&self, outcome: &Outcome) -> anyhow::Result<ExitCode> {
        let table = || {
            let tests = outcome.tests.as_ref().map(|tests| format!("tests        {tests}\n"));
            let script = outcome.script_kib_gz;
            format!("{}script       {script} KiB by gzip", tests.unwrap_or_default())
        };
        print(&if self.json { serde_json::to_string_pretty(outcome)? } else { table() });
        Ok(if outcome.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn web() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../web")
}

/// Builds `web/dist/site`. What npm fetches stays in `web/node_modules`.
pub(crate) fn build() -> anyhow::Result<()> {
    node()?;
    say("building the dashboard");
    finish(npm(&["ci"])).context("fetching what the dashboard is built with")?;
    finish(npm(&["run", "build"])).context("building the dashboard")
}

fn npm(arguments: &[&str]) -> Command {
    let mut command = Command::new("npm");
    command.args(arguments).current_dir(web());
    command
}

fn finish(mut command: Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let said = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
    ensure!(output.status.success(), "{command:?} ended with {}:\n{said}", output.status);
    Ok(())
}

fn node() -> anyhow::Result<()> {
    let (major, minor) = NODE;
    let wanted = format!("install Node.js {major}.{minor} or newer, with npm");
    let output = Command::new("node").arg("--version").output();
    let output = output.with_context(|| format!("starting node: {wanted}"))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let mut parts = version.trim_start_matches('v').split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(is)), Some(Ok(of))) if (is, of) >= NODE => Ok(()),
        _ => bail!("node is {version}: {wanted}"),
    }
}

/// Of all scripts together, by gzip.
pub(crate) fn script_kib() -> anyhow::Result<u64> {
    let assets = web().join("dist/site/assets");
    let mut bytes = 0;
    for entry in std::fs::read_dir(&assets).context("the dashboard is built")? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(".js.gz") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes.div_ceil(1024))
}

/// Runs tests in a browser by node; gives how many passed, in its own words.
pub(crate) fn tested(mut node: Command) -> anyhow::Result<String> {
    let output = node.output().context("starting node")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let sums = said.lines().filter(|line| {
        ["# pass", "# fail", "ℹ pass", "ℹ fail"].iter().any(|sum| line.starts_with(sum))
    });
    Ok(sums.collect::<Vec<_>>().join(", "))
}

struct Stage {
    cluster: Cluster,
    _guests: Vec<Guest>,
    _floods: Vec<Flood>,
    tokens: [String; 2],
}

impl Stage {
    async fn set() -> anyhow::Result<Stage> {
        let parts = Parts::load()?;
        let mut cluster = Cluster::start(Network::new(3)?, &prepare::daemon()?, CONFIG).await?;
        say(&format!("booting {} guests under {}", GUESTS.len(), parts.accelerator));
        let mut started = Vec::new();
        for (number, (name, host, _)) in (1..).zip(GUESTS) {
            let plan = GuestPlan::new(name, number);
            started.push(guests::start(cluster.host(host), &plan, &parts)?);
        }
        let mut floods = Vec::new();
        for (guest, (name, host, rate)) in started.iter().zip(GUESTS) {
            guest.ready(cluster.host(host), BOOT_MAX).await?;
            cluster.watches(host, name).await?;
            if rate > 0 {
                let (client, to) = (cluster.network.client(), guest.plan.address());
                floods.push(Flood::start(client, to, PacketsPerSec(rate), SIZE)?);
            }
        }
        cluster.settled().await?;
        let deadline = Instant::now() + HOT_MAX;
        while cluster.api(HOT).plan().await?.moves.is_empty() {
            ensure!(
                Instant::now() < deadline,
                "host2 plans nothing: {:?}",
                cluster.api(HOT).plan().await?
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let token = async |role: Role| -> anyhow::Result<String> {
            let wish = TokenRequest { name: format!("a {role}"), role, days: 1 };
            Ok(cluster.api(0).make_token(&wish).await?.token)
        };
        let tokens = [token(Role::Operator).await?, token(Role::Viewer).await?];
        Ok(Stage { cluster, _guests: started, _floods: floods, tokens })
    }

    fn url(&self) -> String {
        format!("https://{}:8443", self.cluster.host(0).address())
    }

    /// What `node --test` says in the end.
    fn tests(&self) -> anyhow::Result<String> {
        say(&format!("going through {} in a browser", self.url()));
        let [operator, viewer] = &self.tokens;
        let mut node = self.cluster.network.client().command("node");
        node.args(["--test", "tests/dashboard.test.mjs"])
            .current_dir(web())
            .env("EVENKEEL_URL", self.url())
            .env("EVENKEEL_OPERATOR", operator)
            .env("EVENKEEL_VIEWER", viewer)
            .env("EVENKEEL_AGENT_3", self.cluster.agent_pid(2).unwrap_or_default().to_string())
            .env("EVENKEEL_SCREENSHOTS", web().join("../target/screenshots"));
        tested(node)
    }

    fn ways_in(&self) -> String {
        let pid = sandbox::pid_outside(self.cluster.network.client().pid());
        let pid = pid.map_or_else(|error| error.to_string(), |pid| pid.to_string());
        let [operator, viewer] = &self.tokens;
        format!(
            "Left running until Ctrl-C: {} in the network of process {pid} (nsenter -n -t {pid})\n  operator {operator}\n  viewer   {viewer}",
            self.url()
        )
    }
}
