//! `cargo xtask bench dashboard`: what a dashboard of 50 hosts and 1,000 VMs costs, the agent and whoever looks.
//!
//! The hosts live in the simulator and are answered for by the agent's own API (`fleet`). One viewer is a page in headless Chromium,
//! the others ask what such a page asks. Processor time is that of the threads which answer, release build: HTTP, TLS and JSON of
//! the agent that is looked at, and what its loop reckons for that; besides, since hosts look at each other in one process, what
//! the agents of all other hosts do to be shown. Not in it: TLS and gRPC between hosts, and the hosts' own work, which is no viewer's.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use api::MoveRequest;
use api::client::Client;
use clap::Args;
use lab::setup;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::ci::root;
use crate::demo::prepare;
use crate::fleet::{Child, Ways};
use crate::{print, say, web};

const FIRST_PAINT_MAX: f64 = 1000.0;
const SCRIPT_KIB_MAX: u64 = 200;
/// How long viewers are counted.
const WATCHED: Duration = Duration::from_secs(30);
/// So often a VM is moved from the host that is looked at, so that there is something to see.
const MOVE_EVERY: Duration = Duration::from_secs(3);
/// Events at once.
const BURST: u32 = 5000;
/// The thread in which hosts are simulated; and what stands for all threads together.
const WORLD: &str = "world";
const WHOLE: &str = "all";

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Dashboard {
    /// Hosts
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(2..=200))]
    hosts: u16,
    /// VMs on all of them together
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=4000))]
    vms: u32,
    /// Viewers, one of them a browser
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=14))]
    viewers: u32,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    ok: bool,
    hosts: u16,
    vms: u32,
    viewers: u32,
    script_kib_gz: u64,
    script_kib_gz_max: u64,
    /// Of the page, in the median.
    first_paint_ms: f64,
    first_paint_ms_max: f64,
    /// From the token until all hosts and VMs are painted, in the median.
    cluster_painted_ms: f64,
    /// Events that reached one viewer in a second, while a VM was moved every three.
    events_per_second: f64,
    /// Those that reached all viewers in a second, when thousands came at once.
    pushed_per_second: f64,
    /// Answers with the whole cluster, of all viewers but the browser's, and how long one is.
    overviews_per_second: f64,
    overview_kib: u64,
    /// Of one processor, with all viewers: what answers, by thread; and what the simulated hosts take, which is not counted.
    cpu_percent: f64,
    cpu_percent_of: BTreeMap<String, f64>,
    /// The same without viewers.
    cpu_percent_idle: f64,
}

#[derive(Deserialize)]
struct Painted {
    first_paint_ms: f64,
    cluster_ms: f64,
}

#[derive(Deserialize)]
struct Watched {
    seconds: f64,
    events: Vec<u64>,
    overviews: u64,
    overview_bytes: u64,
}

#[derive(Deserialize)]
struct Pushed {
    seconds: f64,
    events: Vec<u64>,
}

impl Dashboard {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        web::build()?;
        setup::browser(&mut |step| say(step)).context("the browser")?;
        prepare::release(&["xtask"])?;
        let (hosts, vms) = (self.hosts.to_string(), self.vms.to_string());
        say(&format!("{hosts} hosts with {vms} VMs"));
        let mut fleet =
            Child::start(&prepare::released("xtask"), &["--hosts", &hosts, "--vms", &vms])?;
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build();
        let runtime = runtime.context("starting the runtime")?;
        let idle = used(fleet.pid())?;
        runtime.block_on(async { sleep(WATCHED / 3).await });
        let idle = percent(&idle, &used(fleet.pid())?, WATCHED / 3);

        let mut node = self.node(&fleet.ways).spawn().context("starting node")?;
        let mut orders = node.stdin.take().context("its input is a pipe")?;
        let said = node.stdout.take().context("its output is a pipe")?;
        let mut said = BufReader::new(said).lines();
        let mut next = || said.next().context("node ended")?.context("reading what node says");
        say("first paint");
        let painted: Painted = read(&next()?)?;
        next()?;
        say(&format!("{} viewers", self.viewers));
        let moving = Moving::start(&runtime, &fleet.ways)?;
        writeln!(orders, "go").context("telling node")?;
        let (before, began) = (used(fleet.pid())?, Instant::now());
        let watched: Watched = read(&next()?)?;
        let cpu = percent(&before, &used(fleet.pid())?, began.elapsed());
        moving.end(&runtime)?;
        next()?;
        say("events at once");
        writeln!(orders, "go").context("telling node")?;
        fleet.burst(BURST)?;
        let pushed: Pushed = read(&next()?)?;
        ensure!(node.wait()?.success(), "the page failed, or asked something elsewhere");
        let report = self.report(&painted, &watched, &pushed, cpu, &idle)?;
        print(&if self.json { serde_json::to_string_pretty(&report)? } else { table(&report) });
        Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn node(&self, ways: &Ways) -> Command {
        let mut node = Command::new("node");
        node.arg("tests/dashboard.bench.mjs")
            .current_dir(root().join("web"))
            .env("EVENKEEL_URL", &ways.url)
            .env("EVENKEEL_OPERATOR", &ways.operator)
            .env("EVENKEEL_VIEWER", &ways.viewer)
            .env("EVENKEEL_VIEWERS", self.viewers.to_string())
            .env("EVENKEEL_TILES", self.vms.to_string())
            .env("EVENKEEL_SECONDS", WATCHED.as_secs().to_string())
            .env("EVENKEEL_BURST", BURST.to_string())
            .env("EVENKEEL_SCREENSHOTS", root().join("target/screenshots"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        node
    }

    fn report(
        &self,
        painted: &Painted,
        watched: &Watched,
        pushed: &Pushed,
        cpu: BTreeMap<String, f64>,
        idle: &BTreeMap<String, f64>,
    ) -> anyhow::Result<Report> {
        let least = |events: &[u64]| events.iter().min().copied().unwrap_or_default();
        let (seen, came) = (least(&watched.events), least(&pushed.events));
        let script = web::script_kib()?;
        let of = |all: &BTreeMap<String, f64>, name: &str| all.get(name).copied().unwrap_or(0.0);
        // All but the simulation: threads that have ended meanwhile are in the whole alone.
        let answering = |all: &BTreeMap<String, f64>| of(all, WHOLE) - of(all, WORLD);
        let all_came = came >= u64::from(BURST);
        Ok(Report {
            ok: painted.first_paint_ms <= FIRST_PAINT_MAX
                && script <= SCRIPT_KIB_MAX
                && seen > 0
                && all_came,
            hosts: self.hosts,
            vms: self.vms,
            viewers: self.viewers,
            script_kib_gz: script,
            script_kib_gz_max: SCRIPT_KIB_MAX,
            first_paint_ms: painted.first_paint_ms.round(),
            first_paint_ms_max: FIRST_PAINT_MAX,
            cluster_painted_ms: painted.cluster_ms.round(),
            events_per_second: tenths(seen as f64 / watched.seconds),
            pushed_per_second: (pushed.events.iter().sum::<u64>() as f64 / pushed.seconds).round(),
            overviews_per_second: tenths(watched.overviews as f64 / watched.seconds),
            overview_kib: watched.overview_bytes / 1024,
            cpu_percent: tenths(answering(&cpu)),
            cpu_percent_of: cpu.into_iter().map(|(name, cpu)| (name, tenths(cpu))).collect(),
            cpu_percent_idle: tenths(answering(idle)),
        })
    }
}

fn table(report: &Report) -> String {
    let Report { hosts, vms, viewers, .. } = report;
    let of: Vec<String> =
        report.cpu_percent_of.iter().map(|(name, cpu)| format!("{name} {cpu} %")).collect();
    format!(
        "{hosts} hosts, {vms} VMs, {viewers} viewers\n\
         script           {} KiB by gzip, {} allowed\n\
         first paint      {} ms, {} allowed; all tiles {} ms after the token\n\
         events           {} in a second reach a viewer; when many come at once, {} in a second reach all viewers together\n\
         overviews        {} in a second, {} KiB each\n\
         what answers     {} % of a processor, {} % without viewers ({})",
        report.script_kib_gz,
        report.script_kib_gz_max,
        report.first_paint_ms,
        report.first_paint_ms_max,
        report.cluster_painted_ms,
        report.events_per_second,
        report.pushed_per_second,
        report.overviews_per_second,
        report.overview_kib,
        report.cpu_percent,
        report.cpu_percent_idle,
        of.join(", ")
    )
}

fn read<T: for<'a> Deserialize<'a>>(line: &str) -> anyhow::Result<T> {
    serde_json::from_str(line).with_context(|| format!("node said {line:?}"))
}

/// Somebody who moves VMs from the host that is looked at, one after another.
struct Moving {
    stop: Arc<AtomicBool>,
    moves: tokio::task::JoinHandle<anyhow::Result<u32>>,
}

impl Moving {
    fn start(runtime: &tokio::runtime::Runtime, ways: &Ways) -> anyhow::Result<Moving> {
        let client = Client::new(ways.sockets.first().context("the fleet has a socket")?);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let moves = runtime.spawn(async move {
            let mut begun = 0;
            while !stopped.load(Ordering::Relaxed) {
                for vm in client.vms().await? {
                    let request = MoveRequest { vm: vm.id, to: None, force: false };
                    // One that may not leave, or while another is under way, is passed over.
                    if client.start_move(&request).await.is_ok() {
                        begun += 1;
                        break;
                    }
                }
                sleep(MOVE_EVERY).await;
            }
            Ok(begun)
        });
        Ok(Moving { stop, moves })
    }

    fn end(self, runtime: &tokio::runtime::Runtime) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let begun = runtime.block_on(self.moves)??;
        ensure!(begun > 0, "no move could be begun");
        say(&format!("{begun} moves were begun meanwhile"));
        Ok(())
    }
}

/// Ticks of processor time so far, by the names of threads, and of the whole process.
fn used(pid: u32) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut all = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("the fleet's threads")? {
        // One that has just ended is in the whole.
        let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else { continue };
        let (name, ticks) = ticks(&stat)?;
        *all.entry(name).or_default() += ticks;
    }
    let whole = fs::read_to_string(format!("/proc/{pid}/stat")).context("the fleet's process")?;
    all.insert(WHOLE.to_owned(), ticks(&whole)?.1);
    Ok(all)
}

/// Name and ticks, of a process or thread.
fn ticks(stat: &str) -> anyhow::Result<(String, u64)> {
    let (head, tail) = stat.rsplit_once(") ").context("fields")?;
    let name = head.split_once('(').context("a name")?.1;
    // After the name come the third field and so on; 14 and 15 are user's and system's time.
    let times = tail.split(' ').skip(11).take(2).map(str::parse::<u64>);
    Ok((name.to_owned(), times.sum::<Result<u64, _>>()?))
}

/// Of one processor, by the names of threads.
fn percent(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
    within: Duration,
) -> BTreeMap<String, f64> {
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    let share = |(name, ticks): (&String, &u64)| {
        let more = ticks.saturating_sub(before.get(name).copied().unwrap_or_default());
        (name.clone(), more as f64 / per_second / within.as_secs_f64() * 100.0)
    };
    after.iter().map(share).collect()
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
