//! The file that defines a VM, and the files beside it.
//!
//! | file | meaning |
//! |---|---|
//! | `<uuid>.toml` | the definition of a VM that runs, or ran, on this host |
//! | `<uuid>.incoming` | the same text, of an incoming side that was never let run here |
//! | `<uuid>.sock` | QEMU's QMP socket |
//! | `<uuid>.log` | what QEMU said, where this driver started it |
//! | `<uuid>.share` | what share of this host which process was given, and why |
//! | `<uuid>.fenced` | pid and start time of a QEMU that was stopped after its copy was complete elsewhere |
//!
//! ```toml
//! name   = "web1"
//! tap    = "tap-web1"            # with `bridge`, or neither
//! bridge = "br0"
//! memory = "160MiB"
//! vcpus  = 1
//! tags   = ["plb_anti_affinity_web"]   # or absent; rules are read from them
//! start  = ["qemu-system-x86_64", "-uuid", "{uuid}", "-qmp", "unix:{qmp},server=on,wait=off", "…ifname={tap}…"]
//! ```
//!
//! **Invariant:** `<uuid>.incoming` becomes `<uuid>.toml` before the guest may run here: as long as the first is there
//! and the second is not, this copy never ran.

use std::io;
use std::path::{Path, PathBuf};

use decide::policy::rules::unreadable;
use decide::units::{Mib, VmId};
use decide::wire::limits::{TAG_MAX, TAGS_MAX};
use serde::Deserialize;

use super::private;
pub(super) use super::tap::Link;

/// A VM as its file defines it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Definition {
    /// Its name, unique on a host.
    pub(super) name: String,
    /// Its tap, where it has a network.
    pub(super) link: Option<Link>,
    /// The guest's memory.
    pub(super) memory: Mib,
    /// Virtual processors.
    pub(super) vcpus: u32,
    /// How to start it, with placeholders.
    start: Vec<String>,
    /// Sorted, none twice.
    pub(super) tags: Vec<String>,
    /// The file's own text: what travels to a target.
    pub(super) text: String,
}

/// The text does not define a VM; what to change.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Garbled(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    tap: Option<String>,
    bridge: Option<String>,
    memory: String,
    vcpus: u32,
    start: Vec<String>,
    #[serde(default)]
    tags: Vec<String>,
}

impl Definition {
    /// Reads the text of a definition.
    pub(super) fn parse(text: &str) -> Result<Definition, Garbled> {
        let garbled = |why: String| Garbled(why);
        let file: File = toml::from_str(text)
            .map_err(|error| garbled(error.to_string().trim().replace('\n', " ")))?;
        let link = match (file.tap, file.bridge) {
            (Some(tap), Some(bridge)) => {
                Some(Link { tap: link_name(tap)?, bridge: link_name(bridge)? })
            }
            (None, None) => None,
            _ => {
                return Err(garbled(
                    "`tap` and `bridge` belong together: give both or neither".to_owned(),
                ));
            }
        };
        let memory = mib(&file.memory).ok_or_else(|| {
            garbled(format!("memory = {:?}: write it as \"160MiB\" or \"2GiB\"", file.memory))
        })?;
        if file.name.is_empty() || file.vcpus == 0 {
            return Err(garbled("`name` must not be empty, `vcpus` not 0".to_owned()));
        }
        let names = |placeholder: &str| file.start.iter().any(|word| word.contains(placeholder));
        if file.start.is_empty() || !names("unix:{qmp}") {
            return Err(garbled(
                "`start` must contain \"-qmp\", \"unix:{qmp},server=on,wait=off\"".to_owned(),
            ));
        }
        if link.is_some() && !names("{tap}") {
            return Err(garbled(
                "`start` must contain ifname={tap}, since `tap` is given".to_owned(),
            ));
        }
        if let Some(word) =
            file.start.iter().find(|word| ["-daemonize", "-incoming"].contains(&word.as_str()))
        {
            return Err(garbled(format!("`start` must not contain {word:?}: take it out")));
        }
        let mut tags = file.tags;
        tags.sort_unstable();
        tags.dedup();
        if tags.len() > TAGS_MAX || tags.iter().any(|tag| tag.is_empty() || tag.len() > TAG_MAX) {
            return Err(garbled(format!(
                "`tags` may be {TAGS_MAX} at most, each of 1 to {TAG_MAX} bytes"
            )));
        }
        if let Some(why) = unreadable(&tags).into_iter().next() {
            return Err(garbled(why));
        }
        Ok(Definition {
            tags,
            name: file.name,
            link,
            memory,
            vcpus: file.vcpus,
            start: file.start,
            text: text.to_owned(),
        })
    }

    /// The command line, placeholders filled in.
    pub(super) fn command_line(&self, vm: VmId, paths: &Paths) -> Vec<String> {
        let tap = self.link.as_ref().map_or("", |link| &link.tap);
        let fill = |word: &String| {
            word.replace("{tap}", tap)
                .replace("{qmp}", &paths.socket.to_string_lossy())
                .replace("{uuid}", &vm.to_string())
        };
        self.start.iter().map(fill).collect()
    }

    /// The machine type by the command line: what follows `-M` or `-machine`, as far as the first comma.
    pub(super) fn machine_by_command_line(&self) -> String {
        let option = self.start.iter().position(|word| ["-M", "-machine"].contains(&word.as_str()));
        let value = option.and_then(|at| self.start.get(at + 1)).map_or("", String::as_str);
        let name = value.split(',').next().unwrap_or_default();
        name.strip_prefix("type=").unwrap_or(name).to_owned()
    }
}

/// A name that the kernel takes and that a command line cannot misread.
fn link_name(name: String) -> Result<String, Garbled> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if (1..=15).contains(&name.len()) && name.chars().all(plain) && !name.starts_with(['-', '.']) {
        Ok(name)
    } else {
        Err(Garbled(format!(
            "{name:?} is no name for a link: 1 to 15 letters, digits, '-', '_', '.'"
        )))
    }
}

fn mib(text: &str) -> Option<Mib> {
    let (digits, factor) = text
        .strip_suffix("MiB")
        .map(|d| (d, 1))
        .or_else(|| text.strip_suffix("GiB").map(|d| (d, 1024)))?;
    digits.trim_end().parse::<u64>().ok()?.checked_mul(factor).filter(|mib| *mib > 0).map(Mib)
}

/// Where the files of one VM are.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    /// The definition of a VM that runs, or ran, here.
    pub(super) definition: PathBuf,
    /// The definition of an incoming side.
    pub(super) incoming: PathBuf,
    /// QEMU's QMP socket.
    pub(super) socket: PathBuf,
    /// What QEMU said.
    pub(super) log: PathBuf,
    /// Which process was stopped when the VM was released.
    pub(super) fenced: PathBuf,
    /// Which share it was given.
    pub(super) share: PathBuf,
}

/// Which definition is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// None.
    Absent,
    /// That of an incoming side that never ran here.
    Incoming,
    /// That of a VM that runs, or ran, here.
    Own,
}

impl Paths {
    /// The files of a VM in that folder.
    pub(super) fn new(dir: &Path, vm: VmId) -> Paths {
        let file = |extension: &str| dir.join(format!("{vm}.{extension}"));
        Paths {
            definition: file("toml"),
            incoming: file("incoming"),
            socket: file("sock"),
            log: file("log"),
            fenced: file("fenced"),
            share: file("share"),
        }
    }

    /// Which definition is there.
    pub(super) fn stage(&self) -> Stage {
        if self.definition.exists() {
            Stage::Own
        } else if self.incoming.exists() {
            Stage::Incoming
        } else {
            Stage::Absent
        }
    }

    /// Writes the definition of an incoming side: whole or not at all.
    pub(super) fn write_incoming(&self, text: &str) -> io::Result<()> {
        let half = self.incoming.with_extension("incoming~");
        private::write(&half, text.as_bytes())?;
        std::fs::rename(&half, &self.incoming)
    }

    /// From here on the guest may run here. Nothing happens if that was said before.
    pub(super) fn make_own(&self) -> io::Result<()> {
        match std::fs::rename(&self.incoming, &self.definition) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.definition.exists() => {
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Removes all of them, the definitions last: they name what else there is to remove.
    pub(super) fn remove(&self) -> io::Result<()> {
        for file in
            [&self.socket, &self.log, &self.share, &self.fenced, &self.incoming, &self.definition]
        {
            match std::fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The last thing that QEMU said, where it was kept.
    pub(super) fn last_words(&self) -> Option<String> {
        let log = std::fs::read(&self.log).ok()?;
        let log = String::from_utf8_lossy(&log);
        let line = log.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(line.trim().chars().take(300).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        name = "web1"
        tap = "tap0"
        bridge = "br0"
        memory = "2GiB"
        vcpus = 2
        start = ["qemu", "-M", "type=pc,usb=off", "-uuid", "{uuid}", "-qmp", "unix:{qmp},server=on", "ifname={tap}"]
    "#;

    #[test]
    fn placeholders_are_filled_in() {
        let definition = Definition::parse(GOOD).expect("good");
        assert_eq!(definition.memory, Mib(2048));
        assert_eq!(definition.machine_by_command_line(), "pc");
        let vm = VmId(7);
        let line = definition.command_line(vm, &Paths::new(Path::new("/d"), vm));
        assert_eq!(line[4], "00000000-0000-0000-0000-000000000007");
        assert_eq!(line[6], "unix:/d/00000000-0000-0000-0000-000000000007.sock,server=on");
        assert_eq!(line[7], "ifname=tap0");
    }

    #[test]
    fn tags_are_sorted_and_none_comes_twice() {
        let tags = "vcpus = 2\ntags = [\"b\", \"plb_pin_host1\", \"a\", \"b\"]";
        let definition = Definition::parse(&GOOD.replace("vcpus = 2", tags)).expect("good");
        assert_eq!(definition.tags, ["a", "b", "plb_pin_host1"]);
        assert_eq!(Definition::parse(GOOD).expect("good").tags, [""; 0]);
    }

    #[test]
    fn each_mistake_is_named() {
        for (from, to, said) in [
            ("vcpus = 2", "vcpus = 2\ncpus = 3", "unknown field `cpus`"),
            ("vcpus = 2", "", "missing field `vcpus`"),
            ("vcpus = 2", "vcpus = 0", "`vcpus` not 0"),
            ("vcpus = 2", "vcpus = 2\ntags = [\"\"]", "each of 1 to 63 bytes"),
            ("vcpus = 2", "vcpus = 2\ntags = [\"evenkeel:pin\"]", "write it as evenkeel:pin=NAME"),
            ("\"2GiB\"", "\"2G\"", "memory = \"2G\""),
            ("bridge = \"br0\"", "", "belong together"),
            ("tap0", "a name with blanks", "is no name for a link"),
            ("unix:{qmp}", "unix:/tmp/x", "-qmp"),
            ("ifname={tap}", "", "ifname={tap}"),
            ("\"-M\"", "\"-daemonize\"", "-daemonize"),
            ("name =", "name", "expected"),
        ] {
            let error = Definition::parse(&GOOD.replace(from, to)).expect_err(to).to_string();
            assert!(error.contains(said), "{to}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
