//! Debian's package, by dpkg.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::ensure;

use super::clean::Clean;
use super::{Pair, Step};

/// What dpkg, and the user that is made, leave at all times.
const LEFT: &[&str] = &[
    "/etc/passwd",
    "/etc/group",
    "/etc/shadow",
    "/etc/gshadow",
    "/var/",
    "/dev/",
    "/run/",
    "/tmp/",
];

pub(super) fn check(packages: &Pair, folder: &Path, step: Step<'_>) -> anyhow::Result<()> {
    let mut clean = Clean::make(folder.join("root"), &[])?;
    let before = clean.files()?;
    let _all_or_until_one_fails =
        step("installed", install(&clean, &packages.first).and_then(|()| clean.has_all()))
            && step(
                "without a configuration of its own it does not start",
                clean.refuses_to_start(),
            )
            && step("set up and started, it answers /healthz", clean.starts())
            && step("its metrics are what promtool accepts", clean.metrics())
            && step(
                "upgraded, with its state and what was changed in its configuration",
                install(&clean, &packages.later).and_then(|()| clean.goes_on()),
            )
            && step("removed, with its state kept", removed(&mut clean))
            && step("purged, with nothing left", purged(&clean, &before));
    Ok(())
}

fn install(clean: &Clean, package: &Path) -> anyhow::Result<()> {
    let package = clean.put(package)?;
    clean.said(&["dpkg", "--install", "--force-confold", &package]).map(drop)
}

fn removed(clean: &mut Clean) -> anyhow::Result<String> {
    clean.stop()?;
    clean.said(&["dpkg", "--remove", "evenkeel"])?;
    for kept in ["var/lib/evenkeel/keys/host.key", "etc/evenkeel/evenkeel.toml"] {
        ensure!(clean.at(kept).exists(), "{kept} is gone");
    }
    for gone in ["usr/bin/evenkeeld", "usr/lib/systemd/system/evenkeeld.service"] {
        ensure!(!clean.at(gone).exists(), "{gone} is still there");
    }
    Ok("keys and configuration are there".to_owned())
}

fn purged(clean: &Clean, before: &BTreeSet<PathBuf>) -> anyhow::Result<String> {
    clean.said(&["dpkg", "--purge", "evenkeel"])?;
    let after = clean.files()?;
    let ours =
        |path: &&PathBuf| !LEFT.iter().any(|left| path.starts_with(left.trim_end_matches('/')));
    let left: Vec<&PathBuf> = after.difference(before).filter(ours).collect();
    ensure!(left.is_empty(), "left: {left:?}");
    ensure!(!clean.at("/var/lib/evenkeel").exists(), "its state is still there");
    Ok(format!("{} files, as before", after.len()))
}
