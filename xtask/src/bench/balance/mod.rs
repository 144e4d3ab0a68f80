//! `cargo xtask bench balance`: described clusters, evened out or relieved by the production agents in the simulator, and what
//! Ganeti's `hbal` makes of the smaller ones.
//!
//! All sizes are lived with the same shipped settings; only where hosts are to be filled up is the limit of that raised. Clusters are generated here, alike on every machine; means are over seeds.
//! Where `hbal` is not installed, what it gave on the same clusters stands in (`hbal.jsonl`): it draws nothing by lot.
//!
//! **Invariant:** simulations run one after the other and `hbal` after them, so that processor times can be compared.

mod cases;
mod hbal;
mod judge;
mod rows;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, ensure};
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use sim::simulate::{Cluster, Report};

use self::cases::{Case, Kind};
use self::judge::Check;
use self::rows::{Lived, Row};
use crate::ci::{cargo, root};
use crate::{print, say};

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Balance {
    /// Leave out 1,000 nodes, which take minutes a seed, and take what hbal gave before
    #[arg(long)]
    quick: bool,
    /// Live these described clusters instead, to even them out
    #[arg(long, num_args = 1..)]
    cluster: Vec<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What the task prints.
#[derive(Serialize)]
struct Document {
    ok: bool,
    /// Where hbal's figures are from: its version, or that they were kept.
    hbal: String,
    rows: Vec<Row>,
    checks: Vec<Check>,
}

impl Balance {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        say("building evenkeel-sim for release");
        let build = ["build", "--quiet", "--release", "-p", "sim", "--bin", "evenkeel-sim"];
        let status = cargo(&build).status().context("running cargo")?;
        ensure!(status.success(), "evenkeel-sim cannot be built (see above)");
        let folder = root().join("target/bench/balance");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let document =
            if self.cluster.is_empty() { self.generated(&folder)? } else { given(&self.cluster)? };
        let table = || rows::table(&document.rows, &document.checks, &document.hbal);
        print(&if self.json { serde_json::to_string_pretty(&document)? } else { table() });
        Ok(if document.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn generated(&self, folder: &Path) -> anyhow::Result<Document> {
        let cases: Vec<Case> =
            cases::all().into_iter().filter(|case| !self.quick || !case.is_slow()).collect();
        let installed = if self.quick { None } else { hbal::installed() };
        let against = cases.iter().filter(|case| case.kind == Kind::AgainstHbal);
        let against: Vec<&Case> = against.collect();
        let bars = MultiProgress::new();
        let own = bar(&bars, cases.iter().map(|case| case.seeds().count()).sum(), "evenkeel");
        let other = bar(&bars, against.iter().map(|case| case.seeds().count()).sum(), "hbal");
        let rows: anyhow::Result<Vec<Row>> =
            cases.iter().map(|case| live(case, folder, &own)).collect();
        let mut rows = rows?;
        let theirs = hbal::all(&against, installed.is_some().then_some(folder), &other)?;
        for row in &mut rows {
            row.hbal = theirs.get(&row.case).cloned();
        }
        let checks = judge::all(&cases, &rows);
        let kept = || "not run; kept figures stand in (3.0.2-3 on the same clusters)".to_owned();
        let hbal = installed.unwrap_or_else(kept);
        Ok(Document { ok: checks.iter().all(|check| check.held), hbal, rows, checks })
    }
}

/// Clusters that somebody else has described: what must hold everywhere is all that is known of them.
fn given(files: &[PathBuf]) -> anyhow::Result<Document> {
    let bar = bar(&MultiProgress::new(), files.len(), "evenkeel");
    let mut rows = Vec::new();
    for file in files {
        let name = file.display().to_string();
        let text = fs::read_to_string(file).with_context(|| format!("reading {name}"))?;
        let cluster = Cluster::read(&text).with_context(|| name.clone())?;
        bar.set_message(name.clone());
        let lived = Lived { seed: 1, report: simulate(file, None, "spread", 1)? };
        rows.push(Row::of(name, &cluster, "spread", &[lived]));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let checks: Vec<Check> = rows.iter().flat_map(judge::everywhere).collect();
    let ok = checks.iter().all(|check| check.held);
    Ok(Document { ok, hbal: "not asked".to_owned(), rows, checks })
}

/// All seeds of a case.
fn live(case: &Case, folder: &Path, bar: &ProgressBar) -> anyhow::Result<Row> {
    let file = |ending: &str| {
        folder.join(format!("{}.{ending}", case.name.replace(", ", "-").replace(' ', "-")))
    };
    let write = |ending: &str, text: &str| {
        fs::write(file(ending), text).with_context(|| format!("writing {}", file(ending).display()))
    };
    write("toml", case.policy)?;
    let mut lived = Vec::new();
    let mut last = None;
    for seed in case.seeds() {
        bar.set_message(format!("evenkeel: {}, seed {seed}", case.name));
        let cluster = case.cluster(seed);
        write("json", &serde_json::to_string(&cluster)?)?;
        let report = simulate(&file("json"), Some(&file("toml")), case.trigger, seed)
            .with_context(|| format!("{}, seed {seed}", case.name))?;
        lived.push(Lived { seed, report });
        last = Some(cluster);
        bar.inc(1);
    }
    let cluster = last.expect("there are seeds");
    Ok(Row::of(case.name.to_owned(), &cluster, case.trigger, &lived))
}

/// One life in a process of its own, which shares no memory with those before.
fn simulate(
    cluster: &Path,
    policy: Option<&Path>,
    trigger: &str,
    seed: u64,
) -> anyhow::Result<Report> {
    let output = Command::new(root().join("target/release/evenkeel-sim"))
        .arg("simulate")
        .arg(cluster)
        .args(policy.iter().flat_map(|policy| [Path::new("--policy"), policy]))
        .args(["--json", "--trigger", trigger, "--seed", &seed.to_string()])
        .stdin(Stdio::null())
        .output()
        .context("running evenkeel-sim")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", said.trim());
    serde_json::from_slice(&output.stdout).context("reading what evenkeel-sim printed")
}

/// Drawn only where there is a terminal.
fn bar(bars: &MultiProgress, steps: usize, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}")
        .expect("the template is right");
    let bar = ProgressBar::new(u64::try_from(steps).unwrap_or(u64::MAX)).with_style(style);
    bars.add(bar).with_message(what)
}
