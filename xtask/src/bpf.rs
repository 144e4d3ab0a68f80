//! `cargo xtask bpf`: builds the program that counts frames at taps, whose object is committed.
//!
//! **Invariant:** the committed object is what the pinned compiler makes of the committed source, byte for byte; the gate
//! checks it. The source includes nothing, so that no header of the machine goes into it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use clap::Args;
use lab::setup;
use serde::Serialize;

use crate::ci::root;
use crate::{print, say};

/// The package of the compiler bears its name; another version makes other bytes.
const CLANG: &str = "clang-14";
const FOLDER: &str = "crates/drivers/src/monitor/ebpf";
const SOURCE: &str = "nic.bpf.c";
const OBJECT: &str = "nic.bpf.o";

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Bpf {
    /// Only compare what the compiler makes with what is committed
    #[arg(long)]
    check: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What the task prints.
#[derive(Serialize)]
struct Report {
    compiler: String,
    bytes: usize,
    same: bool,
}

impl Bpf {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        setup::ensure(&mut |step| say(step))?;
        let made = compile()?;
        let object = folder().join(OBJECT);
        if !self.check {
            fs::write(&object, &made).with_context(|| format!("writing {}", object.display()))?;
        }
        let same = is_committed(&made)?;
        let report = Report { compiler: compiler()?, bytes: made.len(), same };
        print(&if self.json { serde_json::to_string_pretty(&report)? } else { report.table() });
        Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Report {
    fn table(&self) -> String {
        let verdict = if self.same {
            format!("{OBJECT} is what it makes of {SOURCE}")
        } else {
            format!("{OBJECT} is not what it makes of {SOURCE}: run `cargo xtask bpf`")
        };
        format!("compiler  {}\nobject    {} bytes\n          {verdict}", self.compiler, self.bytes)
    }
}

/// Fails unless the committed object is what its source gives.
pub(crate) fn check() -> anyhow::Result<()> {
    ensure!(
        is_committed(&compile()?)?,
        "{FOLDER}/{OBJECT} is not what {} makes of {SOURCE}: run `cargo xtask bpf`",
        compiler()?
    );
    Ok(())
}

fn folder() -> PathBuf {
    root().join(FOLDER)
}

fn is_committed(made: &[u8]) -> anyhow::Result<bool> {
    let object = folder().join(OBJECT);
    Ok(fs::read(&object).with_context(|| format!("reading {}", object.display()))? == made)
}

fn compile() -> anyhow::Result<Vec<u8>> {
    let output = Command::new(CLANG)
        .current_dir(folder())
        .args(["-target", "bpf", "-mcpu=v3", "-O2", "-nostdinc"])
        .args(["-Wall", "-Wextra", "-Werror", "-c", SOURCE, "-o", "-"])
        .output()
        .with_context(|| format!("running {CLANG} (`cargo xtask setup` installs it)"))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

fn compiler() -> anyhow::Result<String> {
    let output = Command::new(CLANG).arg("--version").output().context("asking for its version")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
