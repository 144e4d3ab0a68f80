//! What this machine is: its id, its name, what its hypervisor offers.

use std::path::Path;

use crate::config::Driver;
use anyhow::{Context, bail};
use decide::placement::admission::Offered;
use decide::units::{HostId, JournalId};
use sha2::{Digest, Sha256};

const MACHINE_ID: &str = "/etc/machine-id";
const QEMU: &str = "qemu-system-x86_64";
/// Where Red Hat's kin have it; libvirt finds it there.
const QEMU_KVM: &str = "/usr/libexec/qemu-kvm";

/// The machine's own id (machine-id(5)).
pub(crate) fn machine_id() -> anyhow::Result<String> {
    let id =
        std::fs::read_to_string(MACHINE_ID).with_context(|| format!("reading {MACHINE_ID}"))?;
    let id = id.trim();
    if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        bail!(
            "{MACHINE_ID} holds no machine-id (32 hexadecimal digits): run systemd-machine-id-setup"
        );
    }
    Ok(id.to_owned())
}

/// The host's id: a hash of the machine's, since machine-id(5) asks not to pass that on.
pub(crate) fn host_id(machine_id: &str) -> HostId {
    let hash = Sha256::new().chain_update(b"evenkeel host\n").chain_update(machine_id).finalize();
    let first: [u8; 16] = hash[..16].try_into().expect("the hash has 32 bytes");
    HostId(u128::from_be_bytes(first).max(1))
}

/// The machine's name.
pub(crate) fn host_name() -> anyhow::Result<String> {
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").context("reading the host's name")?;
    Ok(name.trim().to_owned())
}

/// An id for a new journal. Its upper 32 bits are the second of its birth, so that what is counted from there on
/// (`incarnation`) is higher than under any journal before it; the rest is drawn from the kernel.
pub(crate) fn fresh_journal(born: u32) -> anyhow::Result<JournalId> {
    Ok(JournalId(u128::from_be_bytes(drawn()?) >> 32 | u128::from(born) << 96))
}

/// A number that nobody else has drawn.
pub(crate) fn lot() -> anyhow::Result<u64> {
    Ok(u64::from_be_bytes(drawn()?))
}

/// Bytes that nobody can guess.
pub(crate) fn drawn<const N: usize>() -> anyhow::Result<[u8; N]> {
    use std::io::Read;
    let mut drawn = [0; N];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut drawn))
        .context("reading /dev/urandom")?;
    Ok(drawn)
}

/// The second of a journal's birth.
pub(crate) fn born(journal: JournalId) -> u32 {
    u32::try_from(journal.0 >> 96).expect("32 bits are left")
}

/// What QEMU offers here to VMs from elsewhere. Without QEMU nothing: this host then refuses, with that reason. Copies can be
/// encrypted on a host with keys.
pub(crate) async fn offered(driver: Driver, keyed: bool) -> Offered {
    let machines = machines(driver).await;
    let driver = match driver {
        Driver::Qemu => "qemu",
        Driver::Libvirt => "libvirt",
    };
    Offered {
        driver: driver.to_owned(),
        machines,
        accelerators: accelerators(),
        bridges: bridges(),
        encrypts: keyed,
    }
}

async fn machines(driver: Driver) -> Vec<String> {
    let named: &[&str] = match driver {
        Driver::Qemu => &[QEMU],
        Driver::Libvirt => &[QEMU, QEMU_KVM],
    };
    for program in named {
        match tokio::process::Command::new(program).args(["-machine", "help"]).output().await {
            Ok(output) => return machine_names(&String::from_utf8_lossy(&output.stdout)),
            Err(error) => tracing::debug!(%error, "{program} cannot be run"),
        }
    }
    tracing::warn!("{} cannot be run: this host takes no VMs", named.join(" or "));
    Vec::new()
}

/// The first word of each line but the heading.
fn machine_names(help: &str) -> Vec<String> {
    help.lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

fn accelerators() -> Vec<String> {
    let kvm = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    let all = [("kvm", kvm), ("tcg", true)];
    all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name.to_owned()).collect()
}

fn bridges() -> Vec<String> {
    let Ok(links) = std::fs::read_dir("/sys/class/net") else { return Vec::new() };
    let bridge = |path: &Path| path.join("bridge").is_dir();
    let mut found: Vec<String> = links
        .filter_map(Result::ok)
        .filter(|link| bridge(&link.path()))
        .map(|link| link.file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_journal_counts_higher() {
        let (older, newer) =
            (fresh_journal(1_700_000_000).unwrap(), fresh_journal(1_700_000_001).unwrap());
        assert_eq!((born(older), born(newer)), (1_700_000_000, 1_700_000_001));
        assert_ne!(older.0 << 32, newer.0 << 32);
    }

    #[test]
    fn machine_types_are_read_from_the_help() {
        let help = "Supported machines are:\nmicrovm              microvm (i386)\npc-i440fx-7.2        Standard PC\n";
        assert_eq!(machine_names(help), ["microvm", "pc-i440fx-7.2"]);
    }
}
