//! Installs and builds what lab guests need, once: packages, kernel, initramfs, and which accelerator to use.
//!
//! Everything is made under a lock and renamed into place, so a run that is killed leaves nothing half done, and two at
//! once do the work once. When all is there nothing is touched and no network is needed.

mod accelerator;
mod debian;
mod initramfs;
mod kernel;
mod packages;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde::Serialize;

use crate::folder;

/// What setup found and did; `cargo xtask setup --json` prints it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Whether guests can be started now.
    pub ready: bool,
    /// Installed or built by this run.
    pub installed: Vec<String>,
    /// Debian packages that are missing still.
    pub missing: Vec<String>,
    /// What to run as root to install them.
    pub command: Option<String>,
    /// Version of QEMU, in its own words.
    pub qemu: Option<String>,
    /// Version of libvirt, in its own words; where it was asked for.
    pub libvirt: Option<String>,
    /// Release of the guest's kernel.
    pub kernel: Option<String>,
    /// `kvm` or `tcg`.
    pub accelerator: Option<String>,
}

/// What every guest is started with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The kernel, as an ELF file with a PVH entry.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initramfs: PathBuf,
    /// `kvm` or `tcg`.
    pub accelerator: String,
}

impl Parts {
    /// Those that an earlier [`run`] made.
    pub fn load() -> anyhow::Result<Parts> {
        let lab = folder::lab()?;
        let parts = Parts {
            kernel: kernel::vmlinux(&lab),
            initramfs: initramfs::path(&lab),
            accelerator: accelerator::known(&lab)
                .context("no accelerator chosen yet: run `cargo xtask setup`")?,
        };
        for path in [&parts.kernel, &parts.initramfs] {
            if !path.is_file() {
                bail!("{} is missing: run `cargo xtask setup`", path.display());
            }
        }
        Ok(parts)
    }
}

/// Installs and builds what is missing, and libvirt where `with_libvirt`; `say` hears of each step that takes time.
///
/// If packages are missing and the caller is not root, the report names them and the command that installs them.
pub fn run(with_libvirt: bool, say: &mut dyn FnMut(&str)) -> anyhow::Result<Report> {
    let lab = folder::lab()?;
    let _one_at_a_time = folder::lock(&lab, "setup.lock")?;
    let mut report = Report { missing: packages::missing(with_libvirt)?, ..Report::default() };
    if !report.missing.is_empty() {
        if !rustix::process::geteuid().is_root() {
            report.command = Some(packages::by_hand(&report.missing));
            return Ok(report);
        }
        say(&format!("installing {}", report.missing.join(", ")));
        packages::install(&lab, &report.missing).context("installing packages")?;
        report.installed.append(&mut report.missing);
    }
    if !kernel::complete(&lab) {
        say("fetching the guest's kernel");
        let package = kernel::fetch(&lab).context("getting the guest's kernel")?;
        report.installed.push(format!("{package} (unpacked, not installed)"));
    }
    if !initramfs::current(&lab) {
        say("building the guest's initramfs");
        initramfs::build(&lab).context("building the guest's initramfs")?;
        report.installed.push("initramfs of the guests".to_owned());
    }
    report.qemu = Some(first_line(Command::new("qemu-system-x86_64").arg("--version"))?);
    if with_libvirt {
        report.libvirt = Some(first_line(Command::new("libvirtd").arg("--version"))?);
    }
    report.accelerator =
        Some(accelerator::choose(&lab, report.qemu.as_deref().unwrap_or_default(), say)?);
    report.kernel = kernel::release(&lab);
    report.ready = true;
    Ok(report)
}

/// Where `promtool` is, which judges metrics, rules and queries as Prometheus does; fetched if it is not there yet.
pub fn promtool() -> anyhow::Result<PathBuf> {
    let lab = folder::lab()?;
    let _one_at_a_time = folder::lock(&lab, "setup.lock")?;
    packages::program(&lab, "prometheus", "usr/bin/promtool").context("getting promtool")
}

/// Makes a folder with a clean Debian, as root: its essential packages, and those in `more`.
pub fn debian(root: &Path, more: &[&str]) -> anyhow::Result<()> {
    let lab = folder::lab()?;
    let _one_at_a_time = folder::lock(&lab, "setup.lock")?;
    debian::make(&lab, root, more).context("making a Debian folder")
}

/// Runs setup for a test or a demo: an error unless guests can be started afterwards.
pub fn ensure(say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    ensure_with(false, say)
}

/// As [`ensure`]; where `with_libvirt`, guests can be domains of libvirt too.
pub fn ensure_with(with_libvirt: bool, say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let report = run(with_libvirt, say)?;
    if let Some(command) = report.command {
        bail!("missing: {}; as root, run: {command}", report.missing.join(", "));
    }
    Ok(())
}

/// Installs the browser that the dashboard is tested in, where it is missing.
///
/// # Errors
/// If it is missing and cannot be installed; without root: with the command that does it.
pub fn browser(say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let lab = folder::lab()?;
    let _one_at_a_time = folder::lock(&lab, "setup.lock")?;
    let missing = packages::missing_of(&packages::BROWSER)?;
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(", ");
    if !rustix::process::geteuid().is_root() {
        bail!("missing: {names}; as root, run: {}", packages::by_hand(&missing));
    }
    say(&format!("installing {names}"));
    packages::install(&lab, &missing).context("installing packages")
}

/// Runs a command to its end; an error carries what it printed.
fn finish(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        bail!(
            "{program} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn first_line(command: &mut Command) -> anyhow::Result<String> {
    Ok(finish(command)?.lines().next().unwrap_or_default().to_owned())
}

/// Removes what an interrupted run left of `path`.
fn clear(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}
