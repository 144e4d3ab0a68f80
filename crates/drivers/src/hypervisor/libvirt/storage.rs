//! What a disk lies on: whether another host has the same one, who keeps two hosts from writing to it, and what is to be said of that to
//! people.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

use roxmltree::{Document, Node};
use tokio::time::{Instant, timeout_at};

use super::definition::child;
use super::fit::STORAGE_MAX;
use super::rpc::Rpc;
use super::{LibvirtConfig, daemon};

/// File systems that several hosts see, or may, by their kind (`statfs(2)`).
const SHARED_KINDS: [(i64, &str); 11] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x00c3_6400, "CephFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9p"),
    (0x0bd0_0bd0, "Lustre"),
    (0x1983_0326, "BeeGFS"),
    (0x4750_4653, "GPFS"),
];

/// Of these, those that a single host may have too: a file's number says nothing there of another host's.
const MAY_BE_LOCAL: [&str; 2] = ["FUSE", "9p"];

/// A disk of a running domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSeen {
    /// The domain and what its guest sees: `web1 vda`.
    pub disk: String,
    /// What it lies on, and who locks it.
    pub on: String,
    /// What is not safe about that, and what to do.
    pub doubt: Option<&'static str>,
}

/// The disks of all running domains that are written to. `locks` is libvirt's lock manager, if it was told of one.
///
/// # Errors
/// libvirt cannot be asked.
pub async fn storage(
    uri: &str,
    shared: &[PathBuf],
    locks: Option<&str>,
) -> Result<Vec<DiskSeen>, String> {
    let sockets = daemon::sockets(uri).map_err(|error| error.to_string())?;
    let max = LibvirtConfig::default().answer_max;
    let rpc = Rpc::connect(daemon::present(&sockets), max, None).await;
    let rpc = rpc.map_err(|error| error.to_string())?;
    let mut looks = Vec::new();
    for domain in rpc.domains().await.map_err(|error| error.to_string())? {
        // One that is shut off, or ended just now, has none in use.
        if !domain.is_active() {
            continue;
        }
        let Ok(live) = rpc.live(&domain).await else { continue };
        let (shared, locks) = (shared.to_vec(), locks.map(str::to_owned));
        let name = domain.name.clone();
        let look = move || disks_seen(&live, &name, &shared, locks.as_deref());
        looks.push((domain.name, tokio::task::spawn_blocking(look)));
    }
    let (mut found, until) = (Vec::new(), Instant::now() + STORAGE_MAX);
    for (disk, look) in looks {
        let on = "storage that does not answer".to_owned();
        let silent =
            DiskSeen { disk, on, doubt: Some("nothing can be said of it: see to it first") };
        let looked = timeout_at(until, look).await.ok().and_then(Result::ok);
        found.extend(looked.unwrap_or_else(|| vec![silent]));
    }
    Ok(found)
}

fn disks_seen(live: &str, name: &str, shared: &[PathBuf], locks: Option<&str>) -> Vec<DiskSeen> {
    let Ok(document) = Document::parse(live) else { return Vec::new() };
    let devices = child(document.root_element(), "devices");
    let disks = devices.into_iter().flat_map(|devices| devices.children());
    disks.filter_map(|disk| disk_seen(disk, name, shared, locks)).collect()
}

fn disk_seen(
    disk: Node<'_, '_>,
    name: &str,
    shared: &[PathBuf],
    locks: Option<&str>,
) -> Option<DiskSeen> {
    if !disk.has_tag_name("disk") || child(disk, "readonly").is_some() {
        return None;
    }
    let (source, target) = (child(disk, "source")?, child(disk, "target")?.attribute("dev")?);
    if disk.attribute("type") == Some("volume") {
        let doubt = Some("it cannot be moved: name the disk by its path");
        let (disk, on) =
            (format!("{name} {target}"), "a volume, named by pool and not by path".to_owned());
        return Some(DiskSeen { disk, on, doubt });
    }
    let path = source.attribute("file").or(source.attribute("dev"));
    let is_file = path.is_some_and(|path| Path::new(path).is_file());
    let (kind, told_apart) = match path {
        Some(path) => kind_of(path),
        None => (source.attribute("protocol").unwrap_or("what is not known here").to_owned(), true),
    };
    let same = told_apart || path.is_some_and(|path| is_shared(path, shared));
    let shareable = child(disk, "shareable").is_some();
    let lock = match locks {
        _ if shareable => "locked by nobody (shareable)".to_owned(),
        // libvirt's lock manager is asked about files and devices alone.
        Some("lockd") if path.is_some() && !is_file => {
            "locked by libvirt's lockd (across hosts only with a lockspace folder, qemu-lockd.conf)"
                .to_owned()
        }
        Some(locks) if path.is_some() => format!("locked by libvirt's {locks}"),
        None if is_file => "locked by QEMU".to_owned(),
        _ => "locked by nobody".to_owned(),
    };
    let doubt = if !same {
        Some(
            "no other host has it, or none can be seen to: the VM stays; the rule `copy-disks` takes a file along, \
             hypervisor.shared_storage says that all hosts have it",
        )
    } else if shareable || is_file || lock.starts_with("locked by libvirt") {
        None
    } else if path.is_some() {
        Some(
            "past Evenkeel two hosts could write to it: give libvirt a lock manager (lock_manager in /etc/libvirt/qemu.conf)",
        )
    } else {
        Some("past Evenkeel two hosts could write to it, and libvirt locks no disk of that kind")
    };
    Some(DiskSeen { disk: format!("{name} {target}"), on: format!("{kind}, {lock}"), doubt })
}

/// What a file or device lies on, and whether that tells it apart from another host's.
fn kind_of(path: &str) -> (String, bool) {
    let path = Path::new(path);
    if path.is_file() {
        return match shared_kind(path) {
            Some(kind) => (format!("a file on {kind}"), !MAY_BE_LOCAL.contains(&kind)),
            None => ("a file on this host's own file system".to_owned(), false),
        };
    }
    let world = wwid(path);
    let name = device(path)
        .and_then(|device| fs::canonicalize(device).ok()?.file_name()?.to_str().map(str::to_owned));
    let name = name.unwrap_or_default();
    let kind = match world.as_deref() {
        Some(id) if id.starts_with("LVM-") => "LVM",
        Some(id) if id.starts_with("mpath-") => "multipath",
        Some(_) => "a device with WWID",
        None if name.starts_with("rbd") => "RBD of the kernel",
        None if name.starts_with("drbd") => "DRBD",
        None if name.starts_with("zd") => "a zvol",
        None if name.is_empty() => "what cannot be looked at",
        None => "a device without WWID",
    };
    (kind.to_owned(), world.is_some())
}

/// The kind of file system that others see too; none if it may be this host's alone.
fn shared_kind(path: &Path) -> Option<&'static str> {
    // The lower 32 bits are the kind, whatever its sign.
    let kind = rustix::fs::statfs(path).ok()?.f_type & 0xffff_ffff;
    SHARED_KINDS.iter().find(|(shared, _)| *shared == kind).map(|(_, name)| *name)
}

/// Whether a file is on a file system that other hosts do not see by its kind.
pub(super) fn may_be_alone(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok() && shared_kind(path).is_none()
}

/// What a disk is that the operator says to be the same on all hosts (`hypervisor.shared_storage`).
pub(super) const SHARED: &str = "shared";

pub(super) fn is_shared(disk: &str, shared: &[PathBuf]) -> bool {
    let disk = Path::new(disk);
    let back = disk.components().any(|part| part == Component::ParentDir);
    !back && shared.iter().any(|path| disk.starts_with(path))
}

/// What a disk is, whichever host it is seen from: a file's number in its file system, a device's name in the world. What only this machine
/// can tell apart is another on any other machine.
pub(super) fn identity(disk: &str, path: &Path, shared: &[PathBuf]) -> Option<String> {
    let kind = fs::metadata(path).ok()?.file_type();
    if is_shared(disk, shared) {
        return Some(SHARED.to_owned());
    }
    // Of this start of this kernel: no other machine has it.
    let machine = || {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(boot.trim().to_owned())
    };
    if kind.is_file() {
        let number = file_number(path)?;
        let seen_by_all = shared_kind(path).is_some_and(|kind| !MAY_BE_LOCAL.contains(&kind));
        let local = || Some(format!("{number}, local to {}", machine()?));
        return if seen_by_all { Some(number.clone()) } else { local() };
    }
    if !kind.is_block_device() {
        return None;
    }
    wwid(path).or_else(|| Some(format!("a device without WWID, of {}", machine()?)))
}

/// A file's number in its file system.
pub(super) fn file_number(path: &Path) -> Option<String> {
    let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some(format!("inode {}", found.ino()))
}

/// A block device's name in the world; a partition's is its disk's, and its number there.
fn wwid(path: &Path) -> Option<String> {
    let device = device(path)?;
    let read = |name: &str| {
        let text = fs::read_to_string(device.join(name)).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    if let Some(number) = read("partition") {
        // Beside a link the disk is found only once that is followed.
        let disk = fs::canonicalize(&device).ok()?;
        let of_disk = ["wwid", "device/wwid"]
            .iter()
            .find_map(|name| fs::read_to_string(disk.parent()?.join(name)).ok())?;
        return Some(format!("{}, partition {number}", of_disk.trim()));
    }
    let mapped = || read("dm/uuid").filter(|uuid| names_one(uuid));
    read("wwid").or_else(|| read("device/wwid")).or_else(mapped)
}

/// Whether a mapped device of that UUID is the same wherever it is seen; others are named by whoever made them.
fn names_one(uuid: &str) -> bool {
    let of_partition =
        uuid.strip_prefix("part").map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    let of = of_partition.and_then(|rest| rest.strip_prefix('-')).unwrap_or(uuid);
    of.starts_with("mpath-") || ["LVM-", "CRYPT-LUKS"].iter().any(|kind| uuid.starts_with(kind))
}

/// Where the kernel tells of a block device.
fn device(path: &Path) -> Option<PathBuf> {
    let found = fs::metadata(path).ok().filter(|found| found.file_type().is_block_device())?;
    let (major, minor) = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
    Some(format!("/sys/dev/block/{major}:{minor}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_safe_about_a_disk_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("web1.raw");
        fs::write(&file, "").unwrap();
        let path = file.display();
        let xml = |inside: &str| format!("<domain><devices>{inside}</devices></domain>");
        let disk = |inside: &str| format!("<disk>{inside}<target dev='vda'/></disk>");
        let own = xml(&disk(&format!("<source file='{path}'/>")));
        let seen = |xml: &str, shared: &[PathBuf], locks| {
            let mut seen = disks_seen(xml, "web1", shared, locks);
            assert_eq!(seen.len(), 1, "{seen:?}");
            let DiskSeen { disk, on, doubt } = seen.remove(0);
            assert_eq!(disk, "web1 vda");
            (on, doubt.unwrap_or_default())
        };
        let (on, doubt) = seen(&own, &[], None);
        assert_eq!(on, "a file on this host's own file system, locked by QEMU");
        assert!(doubt.contains("copy-disks"), "{doubt}");
        assert_eq!(seen(&own, &[folder.path().to_owned()], None).1, "");

        let rbd = xml(&disk("<source protocol='rbd' name='pool/web1'/>"));
        let (on, doubt) = seen(&rbd, &[], None);
        assert!(doubt.contains("libvirt locks no disk of that kind"), "{doubt}");
        assert!(on.starts_with("rbd"), "{on}");
        assert_eq!(seen(&rbd, &[], Some("sanlock")).0, "rbd, locked by nobody");
        assert!(seen(&own, &[], Some("sanlock")).0.ends_with("locked by libvirt's sanlock"));
        let gone = xml(&disk("<source dev='/dev/nowhere/at/all'/>"));
        assert!(seen(&gone, &[], None).0.contains("cannot be looked at"));
        for none in ["<source file='/x'/><readonly/>", ""] {
            assert_eq!(disks_seen(&xml(&disk(none)), "web1", &[], None), [], "{none}");
        }
        assert_eq!(disks_seen("no XML", "web1", &[], None), []);
    }

    #[test]
    fn mapped_devices_are_named_by_what_they_are_or_by_whoever_made_them() {
        for (uuid, one) in [
            ("LVM-uVzT3m", true),
            ("mpath-3600a0b80", true),
            ("part12-mpath-3600a0b80", true),
            ("CRYPT-LUKS2-0f", true),
            ("CRYPT-PLAIN-disk", false),
            ("part1-devnode_7:0_x", false),
            ("mine", false),
        ] {
            assert_eq!(names_one(uuid), one, "{uuid}");
        }
    }

    #[test]
    fn a_file_system_of_this_host_alone_is_told_from_none() {
        assert!(may_be_alone(Path::new("/proc")));
        assert!(!may_be_alone(Path::new("/nowhere/at/all")));
    }
}
