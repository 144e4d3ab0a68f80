//! Which accelerator guests use: KVM where it is proven to run ordinary guests, else TCG.
//!
//! That /dev/kvm opens proves nothing: inside some VMs it opens and makes VMs that crawl, hang or die. So a probe guest
//! must come to its end within three seconds. The answer is kept beside the QEMU version and kernel it was found with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use super::finish;
use crate::folder;

const PROBE: &str = include_str!("../../guest/probe.S");
/// QEMU ends with (value << 1) | 1 when a guest writes a value to isa-debug-exit; the probe writes 0.
const PROBE_DONE: i32 = 1;

/// The accelerator that was chosen before.
pub(super) fn known(lab: &Path) -> Option<String> {
    let (accelerator, _found_with) = read(lab)?;
    Some(accelerator)
}

/// The accelerator to use with this `qemu` on this kernel.
pub(super) fn choose(lab: &Path, qemu: &str, say: &mut dyn FnMut(&str)) -> anyhow::Result<String> {
    let kernel =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel's release")?;
    let device = Path::new("/dev/kvm").exists();
    let found_with = format!("{qemu}, {}, /dev/kvm {device}", kernel.trim());
    if let Some((accelerator, before)) = read(lab)
        && before == found_with
    {
        return Ok(accelerator);
    }
    let proven = device && {
        say("trying whether KVM runs guests");
        kvm_runs(lab)?
    };
    let accelerator = if proven { "kvm" } else { "tcg" };
    folder::write_whole(&path(lab), format!("{accelerator}\n{found_with}").as_bytes())?;
    Ok(accelerator.to_owned())
}

fn path(lab: &Path) -> PathBuf {
    lab.join("accelerator")
}

fn read(lab: &Path) -> Option<(String, String)> {
    let text = fs::read_to_string(path(lab)).ok()?;
    let (accelerator, found_with) = text.split_once('\n')?;
    Some((accelerator.to_owned(), found_with.to_owned()))
}

fn kvm_runs(lab: &Path) -> anyhow::Result<bool> {
    let (source, object, probe) = (lab.join("probe.S"), lab.join("probe.o"), lab.join("probe"));
    fs::write(&source, PROBE)?;
    finish(Command::new("as").arg("--64").arg(&source).arg("-o").arg(&object))?;
    finish(Command::new("ld").arg("-Ttext=0x100000").arg(&object).arg("-o").arg(&probe))?;
    let status = Command::new("timeout")
        .args([
            "--signal=KILL",
            "3",
            "qemu-system-x86_64",
            "-M",
            "pc",
            "-accel",
            "kvm",
            "-m",
            "32",
            "-nodefaults",
        ])
        .args(["-display", "none", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel"])
        .arg(&probe)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("starting the probe guest")?;
    Ok(status.code() == Some(PROBE_DONE))
}
