//! The marks that the driver leaves beside libvirt, one file each: what libvirt itself does not keep.
//!
//! | file | meaning |
//! |---|---|
//! | `<uuid>.incoming` | what an incoming side was started from: it was never let run here |
//! | `<uuid>.arrived` | the same, of one that was let run, until its definition is kept and its autostart set |
//! | `<uuid>.fenced` | pid and start time of a QEMU that was stopped after its copy was complete elsewhere |
//! | `<uuid>.autostart` | its autostart was taken off for a move, and is to be set again if it stays |
//! | `<uuid>.copying` | where a copy from here goes |
//! | `<uuid>.disks` | volumes that a move made here, or copied from here |
//!
//! They are on tmpfs, as domains end with the machine; `<uuid>.arrived` also on disk from before the source gives its definition up, since
//! else nobody would have one if the machine ended just then.
//!
//! **Invariant:** `<uuid>.incoming` is gone before the guest may run here: as long as it is there, this copy never ran.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use decide::units::VmId;

use super::super::private;

const ARRIVED: &str = "arrived";

/// The marks of one VM.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) incoming: PathBuf,
    pub(super) arrived: PathBuf,
    /// The same on disk.
    pub(super) lasting: PathBuf,
    pub(super) fenced: PathBuf,
    pub(super) autostart: PathBuf,
    pub(super) copying: PathBuf,
    pub(super) disks: PathBuf,
}

impl Files {
    pub(super) fn new(dir: &Path, on_disk: &Path, vm: VmId) -> Files {
        let file = |extension: &str| dir.join(format!("{vm}.{extension}"));
        Files {
            incoming: file("incoming"),
            arrived: file(ARRIVED),
            lasting: on_disk.join(format!("{vm}.{ARRIVED}")),
            fenced: file("fenced"),
            autostart: file("autostart"),
            copying: file("copying"),
            disks: file("disks"),
        }
    }

    /// Whether the VM is an incoming side that was never let run.
    pub(super) fn is_incoming(&self) -> bool {
        self.incoming.exists()
    }

    /// Whether there is any mark.
    pub(super) fn any(&self) -> bool {
        let Files { incoming, arrived, lasting, fenced, autostart, copying, disks } = self;
        [incoming, arrived, lasting, fenced, autostart, copying, disks]
            .into_iter()
            .any(|file| file.exists())
    }

    /// From here on the guest may run here. Nothing happens if that was said before.
    pub(super) fn arrive(&self) -> io::Result<()> {
        match std::fs::rename(&self.incoming, &self.arrived) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    /// What came with a VM, as long as that is not kept by libvirt.
    pub(super) fn came_with(&self) -> Option<String> {
        let read = |file: &PathBuf| std::fs::read_to_string(file).ok();
        read(&self.arrived).or_else(|| read(&self.lasting))
    }

    /// Has it on disk too, where it outlives the machine's end.
    pub(super) fn make_lasting(&self) -> io::Result<()> {
        let Some(text) = self.came_with() else { return Ok(()) };
        let half = self.lasting.with_extension("half");
        private::write(&half, text.as_bytes())?;
        File::open(&half)?.sync_all()?;
        std::fs::rename(&half, &self.lasting)?;
        let folder = self.lasting.parent().unwrap_or(Path::new("/"));
        File::open(folder)?.sync_all()
    }

    /// libvirt keeps it from here on, or the VM is gone from here.
    pub(super) fn kept(&self) -> io::Result<()> {
        [&self.arrived, &self.lasting].into_iter().try_for_each(|file| remove(file))
    }
}

/// The VMs that came before this machine, or this driver, ended last, and are not kept by libvirt yet.
pub(super) fn still_to_be_kept(on_disk: &Path) -> Vec<VmId> {
    let files = std::fs::read_dir(on_disk).into_iter().flatten().flatten();
    let vm = |file: std::fs::DirEntry| {
        let path = file.path();
        let arrived = path.extension().is_some_and(|it| it == ARRIVED);
        path.file_stem().filter(|_| arrived)?.to_str()?.parse().ok()
    };
    files.filter_map(vm).collect()
}

/// Whether libvirt can save a definition in that folder. It forgets a running domain whose definition it cannot save (seen in 11.3), and
/// nobody could stop or move that any more.
pub(super) fn can_be_saved(folder: &Path) -> Result<(), String> {
    /// More than any definition takes.
    const FREE_MIN: u64 = 1 << 20;
    let shown = folder.display();
    // libvirt makes it where it is not there.
    let there = folder.ancestors().find(|it| it.exists()).filter(|it| it.is_dir());
    let there = there.ok_or_else(|| format!("{shown} is no folder"))?;
    let found = rustix::fs::statvfs(there).map_err(|error| format!("{shown}: {error}"))?;
    // Some file systems count no files.
    let files = found.f_files == 0 || found.f_favail > 0;
    if found.f_bavail.saturating_mul(found.f_frsize) < FREE_MIN || !files {
        return Err(format!("there is no room in {shown}"));
    }
    Ok(())
}

/// Leaves a mark: whole or not at all.
pub(super) fn leave(file: &Path, text: &str) -> io::Result<()> {
    let half = file.with_extension("half");
    private::write(&half, text.as_bytes())?;
    std::fs::rename(&half, file)
}

/// Removes a mark, if it is there.
pub(super) fn remove(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_can_be_saved_in_a_folder_with_room_or_where_one_can_be_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(can_be_saved(folder.path()), Ok(()));
        assert_eq!(can_be_saved(&folder.path().join("not/yet")), Ok(()));
        for wrong in [&file, &file.join("below")] {
            assert!(can_be_saved(wrong).unwrap_err().contains("is no folder"));
        }
        let full = can_be_saved(Path::new("/proc/self")).unwrap_err();
        assert!(full.starts_with("there is no room in /proc/self"), "{full}");
    }
}
