//! The marks that the driver leaves beside libvirt, one file each: what libvirt itself does not keep.
//!
//! | file | meaning |
//! |---|---|
//! | `<uuid>.incoming` | what an incoming side was started from: it was never let run here |
//! | `<uuid>.arrived` | the same, of one that was let run, until its definition is kept and its autostart set |
//! | `<uuid>.fenced` | pid and start time of a QEMU that was stopped after its copy was complete elsewhere |
//! | `<uuid>.autostart` | its autostart was taken off for a move, and is to be set again if it stays |
//! | `<uuid>.disks` | volumes that a move made here, or copied from here |
//!
//! **Invariant:** `<uuid>.incoming` is gone before the guest may run here: as long as it is there, this copy never ran.

use std::io;
use std::path::{Path, PathBuf};

use decide::units::VmId;

use super::super::private;

/// The marks of one VM.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) incoming: PathBuf,
    pub(super) arrived: PathBuf,
    pub(super) fenced: PathBuf,
    pub(super) autostart: PathBuf,
    pub(super) disks: PathBuf,
}

impl Files {
    pub(super) fn new(dir: &Path, vm: VmId) -> Files {
        let file = |extension: &str| dir.join(format!("{vm}.{extension}"));
        Files {
            incoming: file("incoming"),
            arrived: file("arrived"),
            fenced: file("fenced"),
            autostart: file("autostart"),
            disks: file("disks"),
        }
    }

    /// Whether the VM is an incoming side that was never let run.
    pub(super) fn is_incoming(&self) -> bool {
        self.incoming.exists()
    }

    /// Whether there is any mark.
    pub(super) fn any(&self) -> bool {
        [&self.incoming, &self.arrived, &self.fenced, &self.autostart, &self.disks]
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
