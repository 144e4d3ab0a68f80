//! Disks that only one host has, and that go along with a move: libvirt copies them while the guest writes to them (NBD), before its memory.
//!
//! ```text
//!   source: reads which of a domain's disks may be its host's alone ─▶ target: which of these are not here; room? ─▶ volumes made, on record
//!           copied, memory last ◀───────────────────────────────────────────────────────────────────────────────── names them
//!           ├ moved:  the old volumes are removed, after the guest was seen running there
//!           └ failed: the new ones are removed, after the incoming side is proven gone
//! ```
//!
//! **Invariant:** a volume is removed only where this move made it (at the target) or copied it (at the source), and is the same file as then.
//! **Invariant:** what a source removes was copied to where there was nothing: storage that both share is never taken for two.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use decide::units::{Bytes, Mib, MoveId, VmId};
use roxmltree::{Document, Node};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::calls::{self, Flags, Pool};
use super::definition::child;
use super::files;
use super::rpc::{Event, Rpc, RpcError};
use super::storage::{file_number, may_be_alone};
use super::vm::VmTask;
use super::xdr::Value;

/// A disk in a file of a file system that may be its host's alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LocalDisk {
    /// What the guest sees, such as `vda`: by this libvirt names it.
    pub(super) target: String,
    /// Its file, here and there.
    pub(super) path: String,
    /// `raw` or `qcow2`.
    pub(super) format: String,
    /// What the guest sees of it.
    pub(super) capacity: Bytes,
    /// What its file takes.
    pub(super) allocated: Bytes,
}

/// What a move made or copied here: the mark `<uuid>.disks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marked {
    /// By which.
    move_id: String,
    /// Made at the target, not copied at the source.
    made: bool,
    /// Files, and what they were.
    files: BTreeMap<String, String>,
}

/// The disks of a definition that could be copied along; how large they are is not known yet. Those with a chain of files behind them, or
/// encrypted ones, cannot.
pub(super) fn candidates(devices: Node<'_, '_>) -> Vec<LocalDisk> {
    devices.children().filter_map(candidate).collect()
}

fn candidate(disk: Node<'_, '_>) -> Option<LocalDisk> {
    let is = |name: &str, wanted: &str| disk.attribute(name).is_none_or(|it| it == wanted);
    if !disk.has_tag_name("disk") || !is("type", "file") || !is("device", "disk") {
        return None;
    }
    let ruled_out = ["readonly", "shareable", "encryption", "transient"];
    let chain = child(disk, "backingStore").is_some_and(|it| it.has_children());
    let source = child(disk, "source")?;
    if chain || source.has_children() || ruled_out.iter().any(|name| child(disk, name).is_some()) {
        return None;
    }
    let format = child(disk, "driver")?.attribute("type")?;
    let path = source.attribute("file")?;
    (["raw", "qcow2"].contains(&format)).then_some(LocalDisk {
        target: child(disk, "target")?.attribute("dev")?.to_owned(),
        path: path.to_owned(),
        format: format.to_owned(),
        capacity: Bytes(0),
        allocated: Bytes(0),
    })
}

impl LocalDisk {
    /// Whether both say the same of one disk, sizes aside.
    pub(super) fn is_same(&self, other: &LocalDisk) -> bool {
        (&self.target, &self.path, &self.format) == (&other.target, &other.path, &other.format)
    }
}

/// Those that may be this host's alone, with what their files take.
pub(super) fn alone(candidates: Vec<LocalDisk>) -> Vec<LocalDisk> {
    let found = candidates.into_iter().filter(|disk| may_be_alone(Path::new(&disk.path)));
    found
        .filter_map(|disk| {
            let file = std::fs::metadata(&disk.path).ok().filter(std::fs::Metadata::is_file)?;
            Some(LocalDisk { allocated: Bytes(file.blocks().saturating_mul(512)), ..disk })
        })
        .collect()
}

/// Takes the sizes out of what libvirt's first step says (`<nbd><disk target='vda' capacity='…'/></nbd>`); disks that it does not name
/// are not copied.
pub(super) fn with_sizes(disks: Vec<LocalDisk>, cookie: &str) -> Vec<LocalDisk> {
    // It ends as texts do in C.
    let Ok(document) = Document::parse(cookie.trim_end_matches('\0')) else { return Vec::new() };
    let Some(nbd) = child(document.root_element(), "nbd") else { return Vec::new() };
    let size = |disk: &LocalDisk| {
        let named = nbd.children().find(|it| it.attribute("target") == Some(&disk.target))?;
        named.attribute("capacity")?.parse().ok().filter(|size| *size > 0).map(Bytes)
    };
    let sized = |disk: LocalDisk| Some(LocalDisk { capacity: size(&disk)?, ..disk });
    disks.into_iter().filter_map(sized).collect()
}

/// The port at which the target's QEMU takes disks, by what its libvirt says (`<nbd port='…'/>`).
pub(super) fn port(cookie: &str) -> Option<u16> {
    let document = Document::parse(cookie.trim_end_matches('\0')).ok()?;
    child(document.root_element(), "nbd")?.attribute("port")?.parse().ok().filter(|port| *port > 0)
}

/// What they take in all.
pub(super) fn allocated(disks: &[LocalDisk]) -> Mib {
    let bytes = disks.iter().fold(0_u64, |sum, disk| sum.saturating_add(disk.allocated.0));
    Mib(bytes.div_ceil(1 << 20))
}

/// Which disks to copy, for libvirt's steps.
pub(super) fn named(targets: &[String]) -> Vec<(&'static str, Value)> {
    targets.iter().map(|target| ("migrate_disks", Value::Text(target.clone()))).collect()
}

/// Whether there is a pool of libvirt's with room for each of these here.
pub(super) async fn room(rpc: &Rpc, disks: &[LocalDisk]) -> Result<(), String> {
    let mut needed: BTreeMap<PathBuf, u64> = BTreeMap::new();
    for disk in disks {
        let sum = needed.entry(folder(disk)).or_default();
        *sum = sum.saturating_add(disk.capacity.0);
    }
    for (folder, needed) in needed {
        let pool = pool(rpc, &folder).await?;
        let available = rpc.pool_available(&pool).await.map_err(|error| error.to_string())?;
        if available.0 < needed {
            return Err(format!(
                "its disks take up to {} MiB in {}, and {} MiB are free there",
                needed.div_ceil(1 << 20),
                folder.display(),
                available.0 >> 20
            ));
        }
    }
    Ok(())
}

fn folder(disk: &LocalDisk) -> PathBuf {
    Path::new(&disk.path).parent().unwrap_or(Path::new("/")).to_owned()
}

async fn pool(rpc: &Rpc, folder: &Path) -> Result<Pool, String> {
    let folder = folder.display().to_string();
    let pool = rpc.pool_at(&folder).await.map_err(|error| {
        format!(
            "no storage pool of libvirt's is active at {folder} here ({error}): `virsh pool-define-as NAME dir --target {folder}`, pool-start, pool-autostart"
        )
    })?;
    // What others made or removed there is not known to it by itself.
    rpc.pool_refresh(&pool).await.map_err(|error| error.to_string())?;
    Ok(pool)
}

fn volume(disk: &LocalDisk) -> Result<String, String> {
    let name = Path::new(&disk.path).file_name().and_then(|name| name.to_str());
    let name = name.filter(|name| !name.contains(['<', '>', '&', '\'', '"']));
    let name = name.ok_or_else(|| format!("{} cannot be the name of a volume", disk.path))?;
    let LocalDisk { format, capacity: Bytes(capacity), .. } = disk;
    let compat = if format == "qcow2" { "<compat>1.1</compat>" } else { "" };
    Ok(format!(
        "<volume><name>{name}</name><allocation>0</allocation><capacity>{capacity}</capacity>\
         <target><format type='{format}'/>{compat}</target></volume>"
    ))
}

impl VmTask {
    /// Makes the volumes of an incoming side, each put on record as soon as it is there.
    pub(super) async fn make_volumes(
        &self,
        rpc: &Rpc,
        move_id: MoveId,
        disks: &[LocalDisk],
    ) -> Result<(), String> {
        let move_id = move_id.to_string();
        let mut marked = Marked { move_id, made: true, files: BTreeMap::new() };
        for disk in disks {
            let pool = pool(rpc, &folder(disk)).await?;
            let made = rpc.make_volume(&pool, &volume(disk)?).await;
            made.map_err(|error| format!("{} cannot be made here: {error}", disk.path))?;
            let what = file_number(Path::new(&disk.path));
            let what = what.ok_or_else(|| {
                format!(
                    "libvirt made {}, which is not seen: run the agent where libvirt runs",
                    disk.path
                )
            })?;
            marked.files.insert(disk.path.clone(), what);
            self.mark_disks(&marked)?;
        }
        Ok(())
    }

    /// Puts on record which disks a copy from here takes along, if it does any.
    pub(super) fn mark_copied(&self, move_id: MoveId, disks: &[LocalDisk]) -> Result<(), String> {
        if disks.is_empty() {
            return self.forget_disks();
        }
        let what = |disk: &LocalDisk| {
            let what = file_number(Path::new(&disk.path));
            let what = what.ok_or_else(|| format!("{} is not here any more", disk.path))?;
            Ok((disk.path.clone(), what))
        };
        let files = disks.iter().map(what).collect::<Result<_, String>>()?;
        self.mark_disks(&Marked { move_id: move_id.to_string(), made: false, files })
    }

    fn mark_disks(&self, marked: &Marked) -> Result<(), String> {
        let mark = &self.files.disks;
        let text = serde_json::to_string(marked).map_err(|error| error.to_string())?;
        files::leave(mark, &text).map_err(|error| format!("{}: {error}", mark.display()))
    }

    /// What is on record stays where it is.
    pub(super) fn forget_disks(&self) -> Result<(), String> {
        let mark = &self.files.disks;
        files::remove(mark).map_err(|error| format!("{}: {error}", mark.display()))
    }

    /// The VM stays after that move, and its disks with it. A record that cannot be removed does no harm: no other move's end goes by it.
    pub(super) fn keep_disks(&self, move_id: MoveId) {
        let of_it = self.marked().is_ok_and(|marked| {
            marked.is_some_and(|it| !it.made && it.move_id == move_id.to_string())
        });
        if of_it && let Err(why) = self.forget_disks() {
            tracing::warn!(vm = %self.vm, why, "left over from a move that failed");
        }
    }

    /// What is on record.
    fn marked(&self) -> Result<Option<Marked>, String> {
        let mark = &self.files.disks;
        let Ok(text) = std::fs::read_to_string(mark) else { return Ok(None) };
        let marked = serde_json::from_str(&text);
        marked.map(Some).map_err(|error| format!("{}: {error}", mark.display()))
    }

    /// Removes what was made for an incoming side that is gone.
    pub(super) async fn remove_made(&mut self) -> Result<(), String> {
        self.remove_disks(|marked| marked.made).await
    }

    /// Removes what that move copied from here, once its guest was seen running elsewhere.
    pub(super) async fn remove_copied(&mut self, move_id: MoveId) -> Result<(), String> {
        self.remove_disks(|marked| !marked.made && marked.move_id == move_id.to_string()).await
    }

    /// Removes files that are on record and still what they were, if these are the ones; else they stay.
    async fn remove_disks(&mut self, these: impl Fn(&Marked) -> bool) -> Result<(), String> {
        let Some(marked) = self.marked()? else { return Ok(()) };
        if !these(&marked) {
            return self.forget_disks();
        }
        let rpc = self.place.connected_soon().await.ok_or("libvirt cannot be reached here")?;
        for (path, what) in &marked.files {
            let file = Path::new(path);
            if file_number(file).as_ref() != Some(what) {
                tracing::warn!(vm = %self.vm, path, "another file by now, or none: left alone");
                continue;
            }
            match remove_volume(&rpc, file).await {
                Ok(()) => {}
                Err(RpcError::Refused { message, .. }) => {
                    self.say_problem(format!(
                        "{path} is not needed any more, and is still here: {message}"
                    ))
                    .await;
                }
                // It is tried again.
                Err(error) => return Err(format!("{path} is still here: {error}")),
            }
        }
        self.forget_disks()
    }
}

async fn remove_volume(rpc: &Rpc, file: &Path) -> Result<(), RpcError> {
    if let Some(folder) = file.parent() {
        // Where there is no pool, its volume is not found either.
        drop(pool(rpc, folder).await);
    }
    let volume = rpc.volume_at(&file.display().to_string()).await?;
    rpc.remove_volume(&volume).await
}

/// What libvirt's last step takes for word that disks came along: of the first step's cookie what any step wants.
pub(super) fn last_cookie(first: &str) -> Result<String, String> {
    let garbled =
        |error: roxmltree::Error| format!("libvirt's first step is not understood: {error}");
    let document = Document::parse(first.trim_end_matches('\0')).map_err(garbled)?;
    let root = document.root_element();
    let kept = ["name", "uuid", "hostname", "hostuuid"].into_iter().filter_map(|name| {
        let range = child(root, name)?.range();
        first.get(range)
    });
    Ok(format!("<qemu-migration>{}<nbd/></qemu-migration>\0", kept.collect::<String>()))
}

/// Ends a copy that brings disks along: waits until QEMU says that its state has come in, or is gone, and only then asks for libvirt's
/// last step, which closes what disks come in by.
pub(super) async fn finish(
    rpc: Rpc,
    mut events: mpsc::Receiver<Event>,
    (vm, name): (VmId, String),
    cookie: String,
    flags: Flags,
) -> Result<(), RpcError> {
    while let Some(event) = events.recv().await {
        if calls::migration_over(&event, vm) {
            break;
        }
    }
    rpc.finish(&name, cookie.as_bytes(), flags).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(disk: &str) -> Vec<String> {
        let xml = format!("<devices>{disk}</devices>");
        let document = Document::parse(&xml).unwrap();
        let found = candidates(document.root_element());
        found
            .into_iter()
            .map(|disk| format!("{} {} {}", disk.target, disk.format, disk.path))
            .collect()
    }

    #[test]
    fn the_port_for_disks_is_taken_from_the_targets_word() {
        let cookie =
            |nbd: &str| format!("<qemu-migration><name>web1</name>{nbd}</qemu-migration>\n\0");
        assert_eq!(port(&cookie("<nbd port='49153'/>")), Some(49153));
        for none in ["", "<nbd/>", "<nbd port='0'/>", "<nbd port='70000'/>", "<nbd port='x'/>"] {
            assert_eq!(port(&cookie(none)), None, "{none}");
        }
        assert_eq!(port("no XML"), None);
    }

    #[test]
    fn only_plain_files_that_are_written_to_can_go_along() {
        let plain = "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\
             <source file='/d.img'/><target dev='vda' bus='virtio'/></disk>";
        assert_eq!(of(plain), ["vda qcow2 /d.img"]);
        for (from, to) in [
            ("type='file'", "type='block'"),
            ("device='disk'", "device='cdrom'"),
            ("type='qcow2'", "type='vmdk'"),
            ("<target", "<readonly/><target"),
            ("<target", "<shareable/><target"),
            ("<target", "<backingStore type='file'><source file='/b'/></backingStore><target"),
            (
                "<source file='/d.img'/>",
                "<source file='/d.img'><encryption format='luks'/></source>",
            ),
        ] {
            assert!(of(&plain.replace(from, to)).is_empty(), "{to}");
        }
        assert_eq!(of(&plain.replace("<target", "<backingStore/><target")).len(), 1);
    }

    #[test]
    fn sizes_are_those_that_libvirt_says() {
        let disk = |target: &str| LocalDisk {
            target: target.to_owned(),
            path: format!("/{target}"),
            format: "raw".to_owned(),
            capacity: Bytes(0),
            allocated: Bytes(3 << 20),
        };
        let cookie = "<qemu-migration><nbd port='0'><disk target='vda' capacity='1048576'/>\
             <disk target='vdb' capacity='many'/></nbd></qemu-migration>\n\0";
        let sized = with_sizes(vec![disk("vda"), disk("vdb"), disk("vdc")], cookie);
        assert_eq!(sized, [LocalDisk { capacity: Bytes(1 << 20), ..disk("vda") }]);
        assert!(with_sizes(vec![disk("vda")], "<qemu-migration/>").is_empty());
        assert_eq!(allocated(&[disk("vda"), disk("vdb")]), Mib(6));
    }

    #[test]
    fn the_last_step_hears_who_sent_and_that_disks_came() {
        let first = "<qemu-migration><name>a&amp;b</name><uuid>u</uuid><hostname>h</hostname><hostuuid>i</hostuuid>\
             <feature name='lockstate'/><nbd><disk target='vda' capacity='7'/></nbd></qemu-migration>\n\0";
        let last = "<qemu-migration><name>a&amp;b</name><uuid>u</uuid><hostname>h</hostname><hostuuid>i</hostuuid>\
             <nbd/></qemu-migration>\0";
        assert_eq!(last_cookie(first).as_deref(), Ok(last));
        assert!(last_cookie("").is_err());
    }

    #[test]
    fn a_volume_is_described_as_the_disk_is() {
        let disk = LocalDisk {
            target: "vda".into(),
            path: "/images/web1.qcow2".into(),
            format: "qcow2".into(),
            capacity: Bytes(7),
            allocated: Bytes(0),
        };
        let text = volume(&disk).unwrap();
        assert!(
            text.contains("<name>web1.qcow2</name>") && text.contains("<capacity>7</capacity>")
        );
        let odd = LocalDisk { path: "/images/<a>".into(), ..disk };
        assert!(volume(&odd).unwrap_err().contains("/images/<a>"));
    }
}
