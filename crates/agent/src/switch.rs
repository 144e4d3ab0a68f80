//! Whether the balancer is off on this host, kept over restarts of the agent and of the machine.
//!
//! **Invariant:** it is one file that is there or not, so it is never half written; its folder is on disk before it counts.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// In the folder of the journal.
const FILE: &str = "balancer-off";

/// Where it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Switch {
    folder: PathBuf,
}

impl Switch {
    /// In this folder, which is there.
    pub(crate) fn within(folder: &Path) -> Switch {
        Switch { folder: folder.to_owned() }
    }

    /// What was kept; on, if nothing was.
    ///
    /// # Errors
    /// It cannot be told.
    pub(crate) fn is_on(&self) -> anyhow::Result<bool> {
        let file = self.folder.join(FILE);
        let off = file.try_exists().with_context(|| format!("looking for {}", file.display()))?;
        Ok(!off)
    }

    /// Keeps it.
    ///
    /// # Errors
    /// It may be kept or not.
    pub(crate) fn turn(&self, on: bool) -> anyhow::Result<()> {
        let file = self.folder.join(FILE);
        if on {
            match fs::remove_file(&file) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                removed => removed,
            }
            .with_context(|| format!("removing {}", file.display()))?;
        } else {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            options.open(&file).with_context(|| format!("creating {}", file.display()))?;
        }
        let folder = File::open(&self.folder).and_then(|folder| folder.sync_all());
        folder.with_context(|| format!("syncing {}", self.folder.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_last_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let found = || Switch::within(folder.path()).is_on().unwrap();
        assert!(found(), "on, where nothing was kept");
        for on in [true, false, false, true, true, false] {
            Switch::within(folder.path()).turn(on).unwrap();
            assert_eq!(found(), on);
        }
    }

    #[test]
    fn what_cannot_be_kept_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let gone = Switch::within(&folder.path().join("gone"));
        let why = format!("{:#}", gone.turn(false).unwrap_err());
        assert!(why.contains("gone/balancer-off: No such file or directory"), "{why}");
    }
}
