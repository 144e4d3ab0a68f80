//! Clean Debian folders, to install packages in, by `mmdebstrap` of Debian's package, unpacked but not installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use super::{finish, packages};

/// Makes the folder `root`, with Debian's essential packages and those in `more`, of the release that this machine has.
pub(super) fn make(lab: &Path, root: &Path, more: &[&str]) -> anyhow::Result<()> {
    let program = packages::program(lab, "mmdebstrap", "usr/bin/mmdebstrap")?;
    let release = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let release = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let release = release.context("/etc/os-release names no release of Debian")?;
    let sources = packages::sources()?;
    finish(
        Command::new(program)
            .args(["--variant=minbase", "--mode=root", "--quiet"])
            .arg(format!("--include={}", more.join(",")))
            .arg(release)
            .arg(root)
            .arg(sources),
    )?;
    ensure!(root.join("usr/bin/dpkg").is_file(), "no Debian folder came of it: {}", root.display());
    Ok(())
}
