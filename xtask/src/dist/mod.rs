//! `cargo xtask dist`: packages, in `target/dist`.
//!
//! ```text
//!   dashboard, release builds, packaging/, man pages and completion by the programs themselves ─▶ a tree as installed ─▶ dpkg-deb
//! ```
//!
//! By Debian's own tools (`dpkg-deb`, and `dpkg-shlibdeps` for what the programs need), so what is installed is what stands here.

mod check;
mod deb;
mod pages;
mod tree;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use crate::ci::root;
use crate::demo::prepare;
use crate::{print, say};

/// The programs.
const PROGRAMS: [&str; 3] = ["evenkeeld", "evenkeel", "evenkeel-sim"];
/// What makes each: the crate, and what it is built with.
const BUILT: [&[&str]; 3] = [
    &["agent", "--bin", "evenkeeld"],
    &["cli", "--bin", "evenkeel"],
    &["sim", "--bin", "evenkeel-sim"],
];

/// What is installed, as it lies in the folder of packages.
const TREE: &str = "tree";

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Dist {
    /// Install, start, upgrade, remove and purge it in a clean Debian folder too; needs root
    #[arg(long)]
    check: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    packages: Vec<Package>,
    /// How it went in a clean Debian folder, if that was asked for.
    checks: Vec<check::Row>,
    ok: bool,
}

/// A package.
#[derive(Serialize)]
pub(crate) struct Package {
    pub(crate) path: PathBuf,
    bytes: u64,
    files: usize,
}

impl Dist {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let package = package()?;
        let checks = if self.check { checked(&package.path)? } else { Vec::new() };
        let ok = checks.iter().all(|row| row.ok);
        let report = Report { packages: vec![package], checks, ok };
        let line = |package: &Package| {
            let Package { path, bytes, files } = package;
            format!("{}  {} KiB, {files} files", path.display(), bytes / 1024)
        };
        let lines: Vec<String> = report.packages.iter().map(line).collect();
        let text =
            if self.json { serde_json::to_string_pretty(&report)? } else { lines.join("\n") };
        print(&text);
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Where packages, and the folders that they are tried in, are.
pub(crate) fn folder() -> PathBuf {
    root().join("target/dist")
}

/// Builds all of it, and packs it.
pub(crate) fn package() -> anyhow::Result<Package> {
    // Before the agent, which has it inside.
    crate::web::build()?;
    BUILT.into_iter().try_for_each(prepare::release)?;
    let folder = folder();
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let tree = folder.join(TREE);
    say("putting together what is installed");
    let files = tree::make(&tree)?;
    say("packing");
    let path = deb::pack(&tree, &folder, env!("CARGO_PKG_VERSION"))?;
    let bytes = std::fs::metadata(&path)?.len();
    Ok(Package { path, bytes, files })
}

/// The package and, for the upgrade, the same with a later version.
fn checked(package: &Path) -> anyhow::Result<Vec<check::Row>> {
    let (folder, version) = (folder(), concat!(env!("CARGO_PKG_VERSION"), "+later"));
    let later = deb::pack(&folder.join(TREE), &folder.join("later"), version)?;
    check::run([package, &later], &folder)
}
