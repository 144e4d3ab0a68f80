//! Debian packages: which are missing, and how to get them without touching the machine's own package lists.
//!
//! apt runs with a private folder of sources and lists: the machine's own Debian sources and no others, so that a
//! foreign source that cannot be reached does no harm. Where qemu-utils of backports is installed, QEMU of the stable
//! release would conflict with it; then the same sources with the suite of backports are added, and preferred.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::{clear, finish};

/// gcc builds the guest's program (Rust's linker needs it anyhow); clang the program at the taps, and no other version makes
/// the same bytes; systemd judges the unit that is shipped; python3 runs what docs/ shows in that language.
const NEEDED: [&str; 10] = [
    QEMU,
    "busybox-static",
    "iproute2",
    "iputils-ping",
    "util-linux",
    "gcc",
    "libc6-dev",
    "clang-14",
    "systemd",
    "python3",
];

const QEMU: &str = "qemu-system-x86";

/// What comes with it, in versions that belong together.
const QEMU_PARTS: [&str; 3] = ["qemu-system-common", "qemu-system-data", "seabios"];

/// For the driver of libvirt's domains: the daemon with its drivers of QEMU and of storage, and virsh. Nothing to build against.
const LIBVIRT: [&str; 4] = [
    "libvirt-daemon",
    "libvirt-daemon-driver-qemu",
    "libvirt-daemon-driver-storage",
    "libvirt-clients",
];

const SOURCES: [&str; 2] = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];

/// What a browser's tests need besides.
pub(super) const BROWSER: [&str; 1] = ["chromium-headless-shell"];

/// Those of the needed packages that are not installed.
pub(super) fn missing(with_libvirt: bool) -> anyhow::Result<Vec<String>> {
    let of_libvirt = LIBVIRT.iter().filter(|_| with_libvirt);
    let needed: Vec<&str> = NEEDED.iter().chain(of_libvirt).copied().collect();
    missing_of(&needed)
}

/// Those of these packages that are not installed.
pub(super) fn missing_of(needed: &[&str]) -> anyhow::Result<Vec<String>> {
    // dpkg-query ends with 1 if it knows nothing of a package; what it does know it prints all the same.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(needed)
        .output()
        .with_context(|| {
            format!("asking dpkg-query (without Debian, install yourself: {})", needed.join(" "))
        })?;
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    let installed = |name: &str| listing.lines().any(|line| line == format!("{name} installed"));
    Ok(needed.iter().filter(|name| !installed(name)).map(|name| (*name).to_owned()).collect())
}

/// The command that a person would type as root.
pub(super) fn by_hand(missing: &[String]) -> String {
    let wanted = wanted(missing, preferred_suite().as_deref());
    format!("apt-get install --no-remove --no-install-recommends {}", wanted.join(" "))
}

/// Installs `missing`. Removes nothing: if something would have to go, it fails and says so.
pub(super) fn install(lab: &Path, missing: &[String]) -> anyhow::Result<()> {
    let apt = Apt::prepare(lab)?;
    // Ends what an interrupted dpkg left; does nothing otherwise.
    finish(Command::new("dpkg").args(["--configure", "-a"]))?;
    let mut command = apt.command("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.args(["install", "--yes", "--no-remove", "--no-install-recommends"]);
    finish(command.args(wanted(missing, preferred_suite().as_deref())))?;
    clear(&lab.join("apt"))
}

/// QEMU and libvirt from the suite that is preferred, with what they alone need of it; all else as the machine has it.
///
/// QEMU's parts are named one by one: apt follows a suite that is asked for only where the machine's own suite has
/// nothing that would do, and gives up over parts that must come together.
fn wanted(missing: &[String], suite: Option<&str>) -> Vec<String> {
    let Some(suite) = suite else { return missing.to_vec() };
    let of_suite = |name: &str| name.starts_with("qemu") || name.starts_with("libvirt");
    let (theirs, others): (Vec<&String>, Vec<&String>) =
        missing.iter().partition(|name| of_suite(name));
    let qemu = theirs.iter().any(|name| *name == QEMU);
    let parts = QEMU_PARTS.iter().copied().filter(|_| qemu);
    let of_suite = theirs.into_iter().map(String::as_str).chain(parts);
    of_suite.map(|name| format!("{name}/{suite}")).chain(others.into_iter().cloned()).collect()
}

/// apt with sources, lists and cache of its own, in the lab's folder.
pub(super) struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// Copies the sources and fetches the lists. Needs no root.
    pub(super) fn prepare(lab: &Path) -> anyhow::Result<Apt> {
        let own = lab.join("apt");
        clear(&own)?;
        for part in ["sources", "lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(own.join(part)).with_context(|| format!("making {part} for apt"))?;
        }
        let (path, text) = debian_sources()?;
        let extension = path.extension().and_then(OsStr::to_str).unwrap_or("list");
        fs::write(own.join("sources").join(format!("debian.{extension}")), &text)?;
        if preferred_suite().is_some() {
            let text = backports(&text)
                .with_context(|| format!("no suite found in {}", path.display()))?;
            fs::write(own.join("sources/backports.sources"), text)?;
        }
        let show = |part: &str| own.join(part).display().to_string();
        let apt = Apt {
            options: vec![
                format!("Dir::Etc::sourceparts={}", show("sources")),
                "Dir::Etc::sourcelist=/dev/null".to_owned(),
                format!("Dir::State::lists={}", show("lists")),
                format!("Dir::Cache={}", show("cache")),
                // The folder may lie where apt's own user cannot look.
                "APT::Sandbox::User=root".to_owned(),
                "DPkg::Lock::Timeout=300".to_owned(),
            ],
        };
        finish(apt.command("apt-get").arg("update"))?;
        Ok(apt)
    }

    /// `program` (of the apt family) with these options.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }
}

/// One program of a package that is downloaded and unpacked, but not installed: it is `lab`'s from then on.
pub(super) fn program(lab: &Path, package: &str, path: &str) -> anyhow::Result<PathBuf> {
    let name = Path::new(path).file_name().context("a program has a name")?;
    let (program, work) = (lab.join(name), lab.join("package.work"));
    if program.is_file() {
        return Ok(program);
    }
    clear(&work)?;
    fs::create_dir(&work)?;
    let apt = Apt::prepare(lab)?;
    finish(apt.command("apt-get").args(["download", package]).current_dir(&work))?;
    let archive = fs::read_dir(&work)?.next().context("apt-get downloaded nothing")??.path();
    finish(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(work.join("root")))?;
    fs::rename(work.join("root").join(path), &program)
        .with_context(|| format!("{package} has no {path}"))?;
    clear(&work)?;
    clear(&lab.join("apt"))?;
    Ok(program)
}

/// The machine's own Debian sources.
pub(super) fn sources() -> anyhow::Result<&'static Path> {
    Ok(debian_sources()?.0)
}

fn debian_sources() -> anyhow::Result<(&'static Path, String)> {
    for path in SOURCES.map(Path::new) {
        match fs::read_to_string(path) {
            Ok(text)
                if text.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#')) =>
            {
                return Ok((path, text));
            }
            Ok(_) | Err(_) => {}
        }
    }
    bail!("no Debian sources for apt in {}", SOURCES.join(" or "))
}

/// The suite that QEMU must come from, if not the default one: that of backports, where qemu-utils came from there.
fn preferred_suite() -> Option<String> {
    let version = finish(Command::new("dpkg-query").args([
        "--show",
        "--showformat",
        "${Version}",
        "qemu-utils",
    ]))
    .ok()?;
    version.contains("~bpo").then_some(())?;
    let (_path, text) = debian_sources().ok()?;
    text.split("\n\n").find_map(stanza_suite).map(|suite| format!("{suite}-backports"))
}

/// The main suite that a stanza of a `.sources` file names; none for a stanza of security updates.
fn stanza_suite(stanza: &str) -> Option<&str> {
    let suites = stanza.lines().find_map(|line| line.strip_prefix("Suites:"))?;
    suites.split_whitespace().next().filter(|suite| !suite.ends_with("-security"))
}

/// The same sources, but for the suite of backports. None if the text is not of the `.sources` form.
fn backports(sources: &str) -> Option<String> {
    let stanza = sources.split("\n\n").find(|stanza| stanza_suite(stanza).is_some())?;
    let suite = stanza_suite(stanza)?;
    let lines = stanza.lines().map(|line| match line.strip_prefix("Suites:") {
        Some(_) => format!("Suites: {suite}-backports\n"),
        None => format!("{line}\n"),
    });
    Some(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_qemu_and_libvirt_come_from_the_preferred_suite() {
        let missing = ["qemu-system-x86", "gcc", "libvirt-daemon"].map(str::to_owned);
        assert_eq!(wanted(&missing, None), missing);
        let there = [
            "qemu-system-x86/s",
            "libvirt-daemon/s",
            "qemu-system-common/s",
            "qemu-system-data/s",
            "seabios/s",
            "gcc",
        ];
        assert_eq!(wanted(&missing, Some("s")), there);
        let only = ["libvirt-daemon", "gcc"].map(str::to_owned);
        assert_eq!(wanted(&only, Some("s")), ["libvirt-daemon/s", "gcc"]);
    }

    #[test]
    fn backports_come_from_the_same_archive_but_not_from_security() {
        let sources = "Types: deb\nURIs: http://a.test/debian-security\nSuites: bookworm-security\nComponents: main\n\n\
                       Types: deb\nURIs: http://a.test/debian\nSuites: bookworm bookworm-updates\nComponents: main\n";
        let expected = "Types: deb\nURIs: http://a.test/debian\nSuites: bookworm-backports\nComponents: main\n";
        assert_eq!(backports(sources).as_deref(), Some(expected));
        assert_eq!(backports("deb http://a.test/debian bookworm main\n"), None);
    }
}
