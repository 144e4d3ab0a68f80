//! The package of Red Hat's kin, by Debian's rpm. Debian's packages are not in rpm's list: what ours needs is read, not asked for.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use super::super::deb::said;
use super::super::rpm::SCRIPTS;
use super::super::scripts::script;
use super::clean::Clean;
use super::{Pair, Step};

/// What must stand among the needs: no program runs without the C library, no script without a shell.
const NEEDED: [&str; 3] = ["libc.so.6()(64bit)", "/bin/sh", "systemd"];
const CONFIGURATION: &str = "/etc/evenkeel/evenkeel.toml";

pub(super) fn check(
    packages: &Pair,
    deb: &Path,
    folder: &Path,
    step: Step<'_>,
) -> anyhow::Result<()> {
    let mut clean = Clean::make(folder.join("root-rpm"), &["rpm"])?;
    let first = clean.put(&packages.first)?;
    let later = clean.put(&packages.later)?;
    let _all_or_until_one_fails = step("its digests are right", whole(&clean, &first))
        && step("it has the files of Debian's package", same_files(&clean, &first, deb))
        && step("it has its scripts, needs and configuration", described(&clean, &first))
        && step("installed", install(&clean, &first).and_then(|()| clean.has_all()))
        && step("nothing differs from the package", verified(&clean, &[]))
        && step("set up and started, it answers /healthz", clean.starts())
        && step("only its configuration differs", verified(&clean, &[CONFIGURATION]))
        && step(
            "upgraded, with its state and what was changed in its configuration",
            install(&clean, &later).and_then(|()| clean.goes_on()),
        )
        && step("removed, with its state kept", removed(&mut clean));
    Ok(())
}

fn rpm(clean: &Clean, words: &[&str]) -> anyhow::Result<String> {
    clean.said(&[&["rpm"], words].concat())
}

fn whole(clean: &Clean, package: &str) -> anyhow::Result<String> {
    let said = rpm(clean, &["--checksig", "--nosignature", package])?;
    ensure!(said.trim().ends_with("OK"), "{said}");
    Ok(said.trim().to_owned())
}

fn same_files(clean: &Clean, package: &str, deb: &Path) -> anyhow::Result<String> {
    // Names, modes and sizes of files; folders need not be named in both.
    let listed = rpm(
        clean,
        &[
            "--query",
            "--queryformat",
            "[%{FILENAMES} %{FILEMODES:perms} %{FILESIZES}\n]",
            "--package",
            package,
        ],
    )?;
    let ours: BTreeSet<String> =
        listed.lines().filter(|line| !line.contains(" d")).map(str::to_owned).collect();
    let listed = said(Command::new("dpkg-deb").arg("--contents").arg(deb))?;
    let of_debian = listed.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [mode, _owner, size, _day, _hour, path] if !mode.starts_with('d') => {
                Some(format!("{} {mode} {size}", path.trim_start_matches('.')))
            }
            _ => None,
        }
    });
    let theirs: BTreeSet<String> = of_debian.collect();
    let differ: Vec<&String> = ours.symmetric_difference(&theirs).collect();
    ensure!(!ours.is_empty() && differ.is_empty(), "these differ: {differ:?}");
    Ok(format!("{} files", ours.len()))
}

fn described(clean: &Clean, package: &str) -> anyhow::Result<String> {
    let query = |what: &str| rpm(clean, &["--query", what, "--package", package]);
    let scripts = query("--scripts")?;
    for name in SCRIPTS {
        ensure!(
            scripts.contains(script("rpm", name)?.trim()),
            "script {name} is not in: {scripts}"
        );
    }
    let needs = query("--requires")?;
    for needed in NEEDED {
        ensure!(needs.lines().any(|line| line == needed), "{needed} is not among: {needs}");
    }
    let configuration = query("--configfiles")?;
    ensure!(configuration.lines().any(|line| line == CONFIGURATION), "{configuration}");
    let versions = needs.lines().filter_map(|line| line.strip_prefix("libc.so.6(GLIBC_2."));
    let versions = versions.filter_map(|rest| rest.split([')', '.']).next()?.parse::<u32>().ok());
    let newest = versions.max().context("no version of the C library is named")?;
    Ok(format!("{} needs, the C library from 2.{newest} on", needs.lines().count()))
}

fn install(clean: &Clean, package: &str) -> anyhow::Result<()> {
    rpm(clean, &["--upgrade", "--nodeps", package]).map(drop)
}

/// Compares what is there with the package; only `changed` may differ.
fn verified(clean: &Clean, changed: &[&str]) -> anyhow::Result<String> {
    // rpm ends with an error where something differs, so what it says is what counts.
    let script = "rpm --verify --nodeps evenkeel || true";
    let said = clean.said(&["sh", "-c", script])?;
    let differ: Vec<&str> =
        said.lines().filter_map(|line| line.split_whitespace().last()).collect();
    ensure!(differ == changed, "{said}");
    Ok(format!("{} differ", differ.len()))
}

fn removed(clean: &mut Clean) -> anyhow::Result<String> {
    clean.stop()?;
    rpm(clean, &["--erase", "--nodeps", "evenkeel"])?;
    for gone in
        ["usr/bin/evenkeeld", "usr/lib/systemd/system/evenkeeld.service", "usr/share/doc/evenkeel"]
    {
        ensure!(!clean.at(gone).exists(), "{gone} is still there");
    }
    ensure!(clean.at("var/lib/evenkeel/keys/host.key").exists(), "its keys are gone");
    let kept = fs::read_to_string(clean.at(&format!("{CONFIGURATION}.rpmsave")))?;
    ensure!(kept.contains("address = \"127.0.0.1\""), "the configuration was lost");
    Ok("keys and configuration are there".to_owned())
}
