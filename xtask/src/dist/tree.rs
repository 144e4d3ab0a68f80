//! A tree of files as they are installed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use super::{PROGRAMS, pages};
use crate::ci::root;
use crate::demo::prepare;

/// What is copied, from this repository to where it is installed.
const COPIED: &[(&str, &str)] = &[
    ("packaging/evenkeeld.service", "usr/lib/systemd/system/evenkeeld.service"),
    ("packaging/sysusers.d/evenkeel.conf", "usr/lib/sysusers.d/evenkeel.conf"),
    ("packaging/tmpfiles.d/evenkeel.conf", "usr/lib/tmpfiles.d/evenkeel.conf"),
    ("packaging/evenkeel.toml", "etc/evenkeel/evenkeel.toml"),
    ("packaging/examples/policy.toml", "usr/share/doc/evenkeel/examples/policy.toml"),
    ("packaging/examples/policy.cases.toml", "usr/share/doc/evenkeel/examples/policy.cases.toml"),
    ("packaging/examples/firewall.nft", "usr/share/doc/evenkeel/examples/firewall.nft"),
    ("packaging/libvirt/evenkeeld.conf", "usr/share/evenkeel/libvirt/evenkeeld.conf"),
    ("packaging/libvirt/tmpfiles.conf", "usr/share/evenkeel/libvirt/tmpfiles.conf"),
    ("packaging/prometheus/evenkeel.rules.yml", "usr/share/evenkeel/prometheus/evenkeel.rules.yml"),
    ("packaging/prometheus/scrape.yml", "usr/share/evenkeel/prometheus/scrape.yml"),
    ("packaging/grafana/evenkeel.json", "usr/share/evenkeel/grafana/evenkeel.json"),
    ("LICENSE", "usr/share/doc/evenkeel/copyright"),
    ("NOTICE", "usr/share/doc/evenkeel/NOTICE"),
    ("README.md", "usr/share/doc/evenkeel/README.md"),
    ("CHANGELOG.md", "usr/share/doc/evenkeel/CHANGELOG.md"),
];

/// Where libvirt is, it asks this before it starts a domain.
const HOOK: (&str, &str) = ("packaging/libvirt/qemu-hook", "etc/libvirt/hooks/qemu.d/evenkeel");
/// Where libvirt is, people call this once.
const SETUP: (&str, &str) = ("packaging/libvirt/setup", "usr/share/evenkeel/libvirt/setup");

/// Makes it anew; gives how many files are in it.
pub(super) fn make(tree: &Path) -> anyhow::Result<usize> {
    if tree.exists() {
        fs::remove_dir_all(tree).with_context(|| format!("removing {}", tree.display()))?;
    }
    for program in PROGRAMS {
        let to = tree.join("usr/bin").join(program);
        copy(&prepare::released(program), &to, 0o755)?;
        // Names of functions stay, so that a backtrace says something.
        let stripped = Command::new("strip").arg("--strip-debug").arg(&to).status();
        ensure!(stripped.context("running strip")?.success(), "strip {program} failed");
    }
    for (from, to) in [HOOK, SETUP] {
        copy(&root().join(from), &tree.join(to), 0o755)?;
    }
    for (from, to) in COPIED {
        copy(&root().join(from), &tree.join(to), 0o644)?;
    }
    let docs = root().join("docs");
    for entry in fs::read_dir(&docs).with_context(|| docs.display().to_string())? {
        let from = entry?.path();
        let name = from.file_name().context("a file has a name")?;
        copy(&from, &tree.join("usr/share/doc/evenkeel").join(name), 0o644)?;
    }
    pages::make(tree)?;
    count(tree)
}

fn copy(from: &Path, to: &Path, mode: u32) -> anyhow::Result<()> {
    let copied = || {
        fs::create_dir_all(to.parent().unwrap_or(to))?;
        fs::copy(from, to)?;
        fs::set_permissions(to, Permissions::from_mode(mode))
    };
    copied().with_context(|| format!("copying {} to {}", from.display(), to.display()))
}

fn count(folder: &Path) -> anyhow::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        files += if path.is_dir() { count(&path)? } else { 1 };
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hook_refuses_only_what_the_program_refuses() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("evenkeeld");
        let (from, _) = HOOK;
        let script = fs::read_to_string(root().join(from)).unwrap();
        let script = script.replace("/usr/bin/evenkeeld", program.to_str().unwrap());
        let asked = |operation: &str| {
            let words = ["-c", &script, "qemu", "web1", operation, "begin", "-"];
            Command::new("sh").args(words).stderr(std::process::Stdio::null()).status().unwrap()
        };
        assert!(asked("prepare").success(), "there is no program");
        for (code, starts) in [(0, true), (1, false), (2, true), (101, true)] {
            fs::write(&program, format!("#!/bin/sh\nexit {code}\n")).unwrap();
            fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
            assert_eq!(asked("prepare").success(), starts, "{code}");
            assert_eq!(asked("migrate").success(), starts, "{code}");
            assert!(asked("release").success(), "it is not asked");
        }
    }
}
