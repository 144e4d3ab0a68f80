//! What Ganeti's `hbal` makes of the same clusters: run where it is installed, else as it was kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use sim::simulate::{Cluster, Figures, figures, ganeti};

use super::cases::Case;
use super::rows::mean;

/// What it gave: Debian's 3.0.2-3.
const KEPT: &str = include_str!("hbal.jsonl");

/// On one cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    case: String,
    seed: u64,
    after: Figures,
}

/// Over all seeds. A move is a VM that is not where it was, which is kind to hbal: it moves some twice.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Theirs {
    pub(crate) moves: f64,
    pub(crate) moved_gib: f64,
    pub(crate) after: Figures,
    seeds: Vec<Kept>,
}

/// Its version, where it is installed.
pub(crate) fn installed() -> Option<String> {
    let output = Command::new("hbal").arg("--version").stdin(Stdio::null()).output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    Some(version.lines().next().filter(|_| output.status.success())?.to_owned())
}

/// Of all these cases, run in `folder`, if it is to be run.
pub(crate) fn all(
    cases: &[&Case],
    folder: Option<&Path>,
    bar: &ProgressBar,
) -> anyhow::Result<BTreeMap<String, Theirs>> {
    let mut all = BTreeMap::new();
    for case in cases {
        let seeds = case.seeds().map(|seed| {
            bar.set_message(format!("hbal: {}, seed {seed}", case.name));
            let kept = match folder {
                Some(folder) => run(case, seed, folder),
                None => kept(case, seed),
            };
            bar.inc(1);
            kept
        });
        let seeds: Vec<Kept> = seeds.collect::<anyhow::Result<_>>()?;
        let of = |figure: fn(&Figures) -> f64| mean(seeds.iter().map(|kept| figure(&kept.after)));
        let theirs = Theirs {
            moves: of(|f| f.displaced as f64),
            moved_gib: of(|f| f.displaced_gib),
            after: Figures::mean(seeds.iter().map(|kept| &kept.after)),
            seeds,
        };
        all.insert(case.name.to_owned(), theirs);
    }
    Ok(all)
}

fn kept(case: &Case, seed: u64) -> anyhow::Result<Kept> {
    let all: Vec<Kept> = KEPT.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let this = all.into_iter().find(|kept| kept.case == case.name && kept.seed == seed);
    this.with_context(|| format!("no figures of hbal were kept for {}, seed {seed}", case.name))
}

fn run(case: &Case, seed: u64, folder: &Path) -> anyhow::Result<Kept> {
    let cluster = case.cluster(seed);
    let file = |ending: &str| folder.join(format!("hbal.{ending}"));
    let write = |ending: &str, text: &str| {
        fs::write(file(ending), text).with_context(|| format!("writing {}", file(ending).display()))
    };
    write("ganeti", &ganeti::state(&cluster))?;
    write("util", &ganeti::usage(&cluster))?;
    let output = Command::new("hbal")
        .arg("-t")
        .arg(file("ganeti"))
        .arg("-U")
        .arg(file("util"))
        .arg("-C")
        .arg("-S")
        .arg(file("out"))
        .stdin(Stdio::null())
        .output()
        .context("running hbal")?;
    ensure!(output.status.success(), "hbal: {}", String::from_utf8_lossy(&output.stderr).trim());
    let state = fs::read_to_string(file("out.balanced")).context("reading what hbal wrote")?;
    Ok(Kept { case: case.name.to_owned(), seed, after: after(&cluster, &state)? })
}

fn after(cluster: &Cluster, state: &str) -> anyhow::Result<Figures> {
    let placement = ganeti::placement(state);
    let (found, all) = (placement.len(), cluster.vms.len());
    ensure!(found == all, "hbal wrote where {found} VMs are, of {all}");
    Ok(figures(cluster, &placement))
}

#[cfg(test)]
impl Theirs {
    /// All alike, without a move.
    pub(crate) fn even() -> Theirs {
        Theirs { moves: 0.0, moved_gib: 0.0, after: Figures::default(), seeds: Vec::new() }
    }
}
