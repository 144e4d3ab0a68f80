//! What an agent for libvirt's domains needs besides.

#[cfg(feature = "libvirt")]
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

#[cfg(feature = "libvirt")]
use drivers::hypervisor::libvirt::DiskSeen;

use super::{Seen, doubtful, wrong};
use crate::config::Hypervisor;

/// Where the package puts it.
pub(super) const HOOK: &str = "/etc/libvirt/hooks/qemu.d/evenkeel";
/// What libvirt is told of its QEMUs.
pub(super) const QEMU_CONF: &str = "/etc/libvirt/qemu.conf";
/// Beyond those of every agent, of capabilities(7): their bits in `CapEff`.
pub(super) const CAPABILITIES: [(&str, u32); 3] =
    [("DAC_OVERRIDE", 1), ("KILL", 5), ("SYS_PTRACE", 19)];

/// What names the folder of keys in [`QEMU_CONF`].
const KEYS_KEY: &str = "migrate_tls_x509_cert_dir";
/// What names libvirt's lock manager in [`QEMU_CONF`].
#[cfg(feature = "libvirt")]
const LOCKS_KEY: &str = "lock_manager";
/// Disks that are named in one line.
#[cfg(feature = "libvirt")]
const NAMED_MAX: usize = 8;
/// Whether whoever sends a copy must show a certificate: this, else the one for all, else yes (libvirt 6.10 and newer).
const VERIFY: [&str; 2] = ["migrate_tls_x509_verify", "default_tls_x509_verify"];

/// Asks libvirt for its version.
#[cfg(feature = "libvirt")]
pub(super) fn answers(of: &Hypervisor) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| wrong(error.to_string(), "try again"))?;
    let asked = runtime.block_on(drivers::hypervisor::libvirt::probe(&of.uri));
    asked.map_err(|why| wrong(why, "no VM is seen, and none can come to this host"))
}

/// Such a configuration is refused before.
#[cfg(not(feature = "libvirt"))]
pub(super) fn answers(_of: &Hypervisor) -> Seen {
    Err(wrong("this evenkeeld was built without the driver of libvirt", "install the package"))
}

/// What the disks of running VMs lie on, those alike in one line; nothing where libvirt does not answer.
#[cfg(feature = "libvirt")]
pub(super) fn storage(of: &Hypervisor, file: &Path) -> Vec<Seen> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let locks = setting(&text, LOCKS_KEY).filter(|locks| *locks != "nop");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = runtime.map(|runtime| {
        let seen = drivers::hypervisor::libvirt::storage(&of.uri, &of.shared_storage, locks);
        let seen = runtime.block_on(seen).unwrap_or_default();
        // Storage that does not answer is not waited for.
        runtime.shutdown_background();
        seen
    });
    let mut alike: BTreeMap<(String, Option<&str>), Vec<String>> = BTreeMap::new();
    for DiskSeen { disk, on, doubt } in asked.unwrap_or_default() {
        alike.entry((on, doubt)).or_default().push(disk);
    }
    let line = |((on, doubt), disks): ((String, Option<&str>), Vec<String>)| {
        let more = disks.len().saturating_sub(NAMED_MAX);
        let named = disks[..disks.len() - more].join(", ");
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let seen = format!("{named}{more}: {on}");
        doubt.map_or(Ok(seen.clone()), |mend| Err(doubtful(seen, mend)))
    };
    alike.into_iter().map(line).collect()
}

/// Such a configuration is refused before.
#[cfg(not(feature = "libvirt"))]
pub(super) fn storage(_of: &Hypervisor, _file: &Path) -> Vec<Seen> {
    Vec::new()
}

/// libvirt asks nobody whether a domain may start where its hook is missing, or cannot be run.
pub(super) fn hook(file: &Path) -> Seen {
    let mend = "a VM that another host owns could be started here: install the package's hook (docs/libvirt.md), and restart libvirt";
    let shown = file.display();
    match fs::metadata(file) {
        Ok(found) if found.permissions().mode() & 0o111 != 0 => Ok(shown.to_string()),
        Ok(_) => Err(doubtful(format!("{shown} is not executable"), mend)),
        Err(error) => Err(doubtful(format!("{shown}: {error}"), mend)),
    }
}

/// Whether libvirt was told where the keys of copies are, in `folder`, which is there.
pub(super) fn keys(file: &Path, folder: &Path, encrypts: bool) -> Seen {
    if !encrypts {
        return Ok("not needed: [migration] encryption is \"off\"".to_owned());
    }
    let (shown, wanted) = (file.display(), folder.display());
    let mend = format!(
        "copies that must be encrypted fail, or come from whoever connects: say there {KEYS_KEY} = \"{wanted}\" and {} = 1, have the folder made \
         (sh /usr/share/evenkeel/libvirt/setup), and restart libvirt; or write [migration] encryption = \"off\"",
        VERIFY[0]
    );
    let text =
        fs::read_to_string(file).map_err(|error| doubtful(format!("{shown}: {error}"), &mend))?;
    let verify = VERIFY.iter().find_map(|key| Some((key, setting(&text, key)?)));
    let seen = match (setting(&text, KEYS_KEY), verify) {
        (None, _) => format!("{shown}: no {KEYS_KEY}"),
        (Some(other), _) if Path::new(other) != folder => format!("{shown}: {KEYS_KEY} is {other}"),
        (_, Some((key, verify))) if verify != "1" => format!("{shown}: {key} is {verify}"),
        _ if !folder.is_dir() => {
            format!("{wanted} is not there: libvirt does not start without it")
        }
        _ => return Ok(format!("libvirt has them by {wanted}")),
    };
    Err(doubtful(seen, &mend))
}

/// What the first line that sets this key says, which is the one that libvirt takes; without quotes.
fn setting<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix(key));
    let value = lines.filter_map(|rest| rest.trim_start().strip_prefix('=')).next()?.trim();
    match value.chars().next().filter(|first| "\"'".contains(*first)) {
        Some(quote) => value[1..].split(quote).next(),
        None => value.split_whitespace().next(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_hook_that_libvirt_cannot_run_is_doubtful() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("evenkeel");
        let verdict = || hook(&file).map_err(|bad| (bad.verdict, bad.seen));
        assert!(verdict().unwrap_err().1.contains("No such file"));
        fs::write(&file, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let found = verdict().unwrap_err();
        assert!(
            found.0 == Verdict::Doubtful && found.1.ends_with("is not executable"),
            "{found:?}"
        );
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(verdict(), Ok(file.display().to_string()));
    }

    #[test]
    fn libvirt_must_know_of_the_keys_of_copies_unless_none_is_encrypted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("qemu.conf");
        let there = folder.path().join("qemu-tls");
        let look = |text: &str| {
            fs::write(&file, text).unwrap();
            keys(&file, &there, true).map_err(|bad| bad.seen)
        };
        assert!(keys(&file, &there, false).is_ok_and(|seen| seen.contains("off")));
        assert!(keys(&file, &there, true).is_err(), "there is no file");
        let set = format!("{KEYS_KEY} = {there:?}\n{} = 1\n", VERIFY[0]);
        assert!(look(&set).unwrap_err().contains("is not there"));
        fs::create_dir(&there).unwrap();
        assert!(look(&format!("#{set}")).unwrap_err().contains("no migrate_tls"));
        assert_eq!(look(&set), Ok(format!("libvirt has them by {}", there.display())));
        assert!(
            look(&format!("{KEYS_KEY} = {there:?}\n")).is_ok(),
            "they are asked for by default"
        );
        assert!(look(&set.replace("= 1", "= 0 # for now")).unwrap_err().ends_with("is 0"));
        let for_all = format!("{KEYS_KEY} = '{}'\ndefault_tls_x509_verify=0\n", there.display());
        assert!(look(&for_all).unwrap_err().ends_with("default_tls_x509_verify is 0"));
        assert!(
            look(&format!("{KEYS_KEY}=\"/etc/pki/qemu\" # x\n"))
                .unwrap_err()
                .ends_with("/etc/pki/qemu")
        );
        assert!(
            look(&format!("{KEYS_KEY}=\"/etc/pki/qemu\"\n  {set}")).is_err(),
            "the first one holds"
        );
    }
}
