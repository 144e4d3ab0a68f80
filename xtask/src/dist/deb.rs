//! Debian's package of such a tree.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use super::scripts::script;
use super::{CONFIGURATION, DESCRIPTION, PROGRAMS, SUMMARY};

/// Run by dpkg: before and after what happens to the files.
pub(super) const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];
const MAINTAINER: &str = "Evenkeel <evenkeel@localhost>";

/// Packs the tree into a package in `folder`; gives its path.
pub(super) fn pack(tree: &Path, folder: &Path, version: &str) -> anyhow::Result<PathBuf> {
    let control = tree.join("DEBIAN");
    fs::create_dir_all(&control)?;
    fs::create_dir_all(folder)?;
    let machine = said(Command::new("dpkg").arg("--print-architecture"))?;
    let machine = machine.trim();
    let needs = needs(tree, folder)?;
    let size = kib(&tree.join("usr"))? + kib(&tree.join("etc"))?;
    let lines = DESCRIPTION.lines();
    let lines =
        lines.map(|line| if line.is_empty() { " .".to_owned() } else { format!(" {line}") });
    let description = lines.collect::<Vec<_>>().join("\n");
    let text = format!(
        "Package: evenkeel\nVersion: {version}\nArchitecture: {machine}\nMaintainer: {MAINTAINER}\nInstalled-Size: {size}\n\
         Section: admin\nPriority: optional\nDepends: {needs}, systemd\nRecommends: qemu-system-x86\n\
         Suggests: libvirt-daemon-system (>= 7.0), prometheus\n\
         Description: {SUMMARY}\n{description}\n"
    );
    fs::write(control.join("control"), text)?;
    fs::write(control.join("conffiles"), CONFIGURATION.join("\n") + "\n")?;
    for name in SCRIPTS {
        let to = control.join(name);
        fs::write(&to, script("debian", name)?)?;
        fs::set_permissions(&to, Permissions::from_mode(0o755))?;
    }
    let package = folder.join(format!("evenkeel_{version}_{machine}.deb"));
    said(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(tree).arg(&package))?;
    fs::remove_dir_all(&control)?;
    Ok(package)
}

/// The packages whose libraries the programs use, as `dpkg-shlibdeps` finds them.
fn needs(tree: &Path, folder: &Path) -> anyhow::Result<String> {
    // It reads a source package's control file, of which only the names of packages count.
    let work = folder.join("shlibdeps");
    fs::create_dir_all(work.join("debian"))?;
    fs::write(
        work.join("debian/control"),
        "Source: evenkeel\n\nPackage: evenkeel\nArchitecture: any\n",
    )?;
    let programs = PROGRAMS.map(|program| tree.join("usr/bin").join(program));
    let found = said(Command::new("dpkg-shlibdeps").arg("-O").args(&programs).current_dir(&work))?;
    fs::remove_dir_all(&work)?;
    let needs = found.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    needs.map(str::to_owned).context("dpkg-shlibdeps found no library at all")
}

fn kib(folder: &Path) -> anyhow::Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        size += match entry.file_type()?.is_dir() {
            true => kib(&entry.path())?,
            false => entry.metadata()?.len().div_ceil(1024),
        };
    }
    Ok(size)
}

/// What a command says; its errors are shown.
pub(super) fn said(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("running {name}: is it installed?"))?;
    ensure!(output.status.success(), "{name} ended with {}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("what {name} says"))
}
