//! Debian's package, by dpkg.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::ensure;

use super::clean::{Clean, SETUP};
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
            && step("its unit is sound, and so it is with what libvirt's hosts get", units(&clean))
            && step("without libvirt it says what to install", clean.misses_libvirt())
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

/// By systemd's own reading, without and with the drop-in; what else is on the machine does not count.
fn units(clean: &Clean) -> anyhow::Result<String> {
    const UNIT: &str = "evenkeeld.service";
    let verified = || {
        // Its exit code also speaks of others' units.
        let said = clean.said(&[
            "sh",
            "-c",
            &format!("systemd-analyze --man=no verify {UNIT} || true"),
        ])?;
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("evenkeeld")).collect();
        ensure!(ours.is_empty(), "{ours:?}");
        clean.said(&["systemd-analyze", "cat-config", &format!("systemd/system/{UNIT}")])
    };
    ensure!(!verified()?.contains("User=root"), "it is for libvirt already");
    let said = clean.said(&["sh", SETUP])?;
    ensure!(said.contains("driver = \"libvirt\""), "it does not say what is left to do: {said}");
    ensure!(clean.at("/run/evenkeel/qemu-tls").is_dir(), "no folder for the keys of copies");
    ensure!(verified()?.contains("User=root"), "its drop-in is not read");
    clean.said(&["sh", SETUP, "undo"])?;
    ensure!(!verified()?.contains("User=root"), "undo leaves it");
    // Once more, and it stays: the removal of the package is to take it away.
    clean.said(&["sh", SETUP])?;
    // A mistake in it would be seen.
    let drop_in = clean.at("/etc/systemd/system/evenkeeld.service.d/wrong.conf");
    std::fs::write(&drop_in, "[Service]\nUsr=root\n")?;
    let seen = verified();
    std::fs::remove_file(&drop_in)?;
    ensure!(seen.is_err(), "systemd-analyze passes over mistakes");
    Ok("both".to_owned())
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
