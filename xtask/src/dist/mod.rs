//! `cargo xtask dist`: packages, in `target/dist`.
//!
//! ```text
//!   dashboard, release builds, packaging/, man pages and completion by the programs themselves ─▶ a tree as installed ─┬▶ dpkg-deb
//!                                                                                                                    └▶ rpm
//! ```
//!
//! Debian's by its own tools (`dpkg-deb`, and `dpkg-shlibdeps` for what the programs need), so what is installed is what stands here.

mod check;
mod deb;
mod pages;
mod rpm;
mod scripts;
mod tree;

use std::path::PathBuf;
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
    &["agent", "--features", "libvirt", "--bin", "evenkeeld"],
    &["cli", "--bin", "evenkeel"],
    &["sim", "--bin", "evenkeel-sim"],
];

/// Kept as a person has changed them.
const CONFIGURATION: [&str; 2] =
    ["/etc/evenkeel/evenkeel.toml", "/etc/libvirt/hooks/qemu.d/evenkeel"];
const SUMMARY: &str = "live migration of virtual machines that goes by itself";
const DESCRIPTION: &str = "\
An agent on every KVM host watches its VMs at the network device driver, decides
which VM should leave a host that is short of something, asks the other hosts,
and moves the VM to one that accepts. There is no central server.

This is no high-availability manager: a VM whose host has died is not started
elsewhere.";

/// What is installed, as it lies in the folder of packages.
const TREE: &str = "tree";

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Dist {
    /// Install, start, upgrade and remove each in a clean Debian folder too; needs root
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
    /// How it went in clean Debian folders, if that was asked for.
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
        let packages = packages()?;
        let checks = if self.check { checked(&packages)? } else { Vec::new() };
        let ok = checks.iter().all(|row| row.ok);
        let report = Report { packages: packages.into(), checks, ok };
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

/// Builds all of it, and packs it: for Debian, and for Red Hat's kin.
pub(crate) fn packages() -> anyhow::Result<[Package; 2]> {
    // Before the agent, which has it inside.
    crate::web::build()?;
    BUILT.into_iter().try_for_each(prepare::release)?;
    let folder = folder();
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let tree = folder.join(TREE);
    say("putting together what is installed");
    let files = tree::make(&tree)?;
    say("packing");
    let version = env!("CARGO_PKG_VERSION");
    let packed = |path: PathBuf| {
        let bytes = std::fs::metadata(&path)?.len();
        anyhow::Ok(Package { path, bytes, files })
    };
    Ok([packed(deb::pack(&tree, &folder, version)?)?, packed(rpm::pack(&tree, &folder, version)?)?])
}

/// The packages and, for the upgrade, the same with a later version.
fn checked([deb, rpm]: &[Package; 2]) -> anyhow::Result<Vec<check::Row>> {
    let (folder, version) = (folder(), concat!(env!("CARGO_PKG_VERSION"), "+later"));
    let (tree, later) = (folder.join(TREE), folder.join("later"));
    let deb = check::Pair { first: deb.path.clone(), later: deb::pack(&tree, &later, version)? };
    let rpm = check::Pair { first: rpm.path.clone(), later: rpm::pack(&tree, &later, version)? };
    check::run(&deb, &rpm, &folder)
}
