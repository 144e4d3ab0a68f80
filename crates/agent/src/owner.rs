//! Root works on a folder of keys as the user whose it is, so that the agent, which runs as that user, can read what is left there.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context;
use rustix::fs::{Gid, Uid};
use rustix::process::{getegid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Does the work as whoever owns the folder, or the nearest one above that is there. Nothing is changed for anybody but root.
///
/// # Errors
/// If the folder cannot be looked at; or those of the work.
pub(crate) fn as_owner<T>(
    folder: &Path,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let _until_done = AsOwner::of(folder)?;
    work()
}

/// This thread is that user until the value goes; threads that it starts meanwhile are too.
///
/// Groups beyond the folder's own are given up for good.
struct AsOwner {
    was: Option<(Uid, Gid)>,
}

impl AsOwner {
    fn of(folder: &Path) -> anyhow::Result<AsOwner> {
        let whole = std::path::absolute(folder).with_context(|| folder.display().to_string())?;
        let there = whole.ancestors().find_map(|folder| fs::metadata(folder).ok());
        let there = there.with_context(|| format!("looking at {}", whole.display()))?;
        let was = (geteuid(), getegid());
        if !was.0.is_root() || there.uid() == 0 {
            return Ok(AsOwner { was: None });
        }
        let (user, group) = (Uid::from_raw(there.uid()), Gid::from_raw(there.gid()));
        let become_it = || {
            set_thread_groups(&[group])?;
            set_thread_res_gid(None, group, None)?;
            set_thread_res_uid(None, user, None)
        };
        become_it().with_context(|| format!("working as the owner of {}", whole.display()))?;
        Ok(AsOwner { was: Some(was) })
    }
}

impl Drop for AsOwner {
    fn drop(&mut self) {
        let Some((user, group)) = self.was else { return };
        // What was given up can be taken back: real and saved ids are as they were.
        let back = set_thread_res_uid(None, user, None)
            .and_then(|()| set_thread_res_gid(None, group, None));
        if let Err(error) = back {
            tracing::warn!("root is not root again: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_root_leaves_in_a_folder_belongs_to_its_owner_and_root_is_root_again() {
        let folder = tempfile::tempdir().unwrap();
        let before = geteuid();
        let owner = if before.is_root() { 65_534 } else { before.as_raw() };
        std::os::unix::fs::chown(folder.path(), Some(owner), None).unwrap();
        // It is made in there: the nearest folder that is there counts.
        let file = folder.path().join("keys/host.key");
        let work = || {
            fs::create_dir(file.parent().context("it has a folder")?)?;
            Ok(fs::write(&file, "")?)
        };
        as_owner(&folder.path().join("keys"), work).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().uid(), owner);
        assert_eq!(geteuid(), before);
        let failed = as_owner(folder.path(), || -> anyhow::Result<()> { anyhow::bail!("no") });
        assert!(failed.is_err());
        assert_eq!(geteuid(), before);
    }
}
