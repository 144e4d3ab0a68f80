//! What a person has said of this host, and how long VMs rest, kept over restarts of the agent and of the machine: one small document a file.
//!
//! **Invariant:** a file is replaced as a whole, and is on disk, its folder too, before what it says counts.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::marker::PhantomData;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One file, in the folder of the journal. Where it is not there it says what `Default` does.
#[derive(Clone, Debug)]
pub(crate) struct Kept<T> {
    folder: PathBuf,
    name: &'static str,
    /// Not read if others could.
    secret: bool,
    holds: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned + Default> Kept<T> {
    /// The file of this name in this folder, which is there.
    pub(crate) fn within(folder: &Path, name: &'static str) -> Kept<T> {
        Kept { folder: folder.to_owned(), name, secret: false, holds: PhantomData }
    }

    /// The same, and not read if others could. Both are written for their owner alone.
    pub(crate) fn secret(folder: &Path, name: &'static str) -> Kept<T> {
        Kept { secret: true, ..Kept::within(folder, name) }
    }

    /// What was kept.
    ///
    /// # Errors
    /// It cannot be read, or is not what this version keeps there.
    pub(crate) fn read(&self) -> anyhow::Result<T> {
        let file = self.folder.join(self.name);
        let text = match fs::read(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(T::default()),
            read => read.with_context(|| format!("reading {}", file.display()))?,
        };
        if self.secret {
            let found =
                fs::metadata(&file).with_context(|| format!("reading {}", file.display()))?;
            let mode = found.permissions().mode() & 0o777;
            ensure!(
                mode & 0o077 == 0,
                "{} can be read by others (mode {mode:o}): run chmod 600 on it",
                file.display()
            );
        }
        serde_json::from_slice(&text)
            .with_context(|| format!("reading {}: mend it, or remove it", file.display()))
    }

    /// Keeps what `change` makes of it; gives what that gives.
    ///
    /// # Errors
    /// It may be kept or not.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> anyhow::Result<R> {
        let mut kept = self.read()?;
        let given = change(&mut kept);
        self.put(&kept).map(|()| given)
    }

    /// Keeps this, whatever was kept before.
    ///
    /// # Errors
    /// It may be kept or not.
    pub(crate) fn put(&self, kept: &T) -> anyhow::Result<()> {
        let (file, half) =
            (self.folder.join(self.name), self.folder.join(format!("{}.new", self.name)));
        let text = serde_json::to_vec_pretty(kept).context("writing JSON")?;
        let write = |text: &[u8]| {
            if half.exists() {
                // One that was left over may have another mode.
                fs::remove_file(&half)?;
            }
            let mut options = OpenOptions::new();
            let mut written =
                options.write(true).create(true).truncate(true).mode(0o600).open(&half)?;
            written.write_all(text)?;
            written.sync_all()?;
            fs::rename(&half, &file)?;
            File::open(&self.folder)?.sync_all()
        };
        write(&text).with_context(|| format!("writing {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Words = BTreeMap<String, u32>;

    #[test]
    fn what_was_kept_last_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let kept = || Kept::<Words>::within(folder.path(), "words.json");
        assert_eq!(kept().read().unwrap(), Words::new(), "nothing was kept");
        assert_eq!(kept().change(|words| words.insert("a".to_owned(), 1)).unwrap(), None);
        assert_eq!(kept().change(|words| words.insert("a".to_owned(), 2)).unwrap(), Some(1));
        assert_eq!(kept().read().unwrap(), Words::from([("a".to_owned(), 2)]));
    }

    #[test]
    fn a_write_that_was_cut_off_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::<Words>::within(folder.path(), "words.json");
        kept.change(|words| words.insert("a".to_owned(), 1)).unwrap();
        fs::write(folder.path().join("words.json.new"), "{\"a\"").unwrap();
        assert_eq!(kept.read().unwrap().len(), 1);
        kept.change(|words| words.insert("b".to_owned(), 2)).unwrap();
        assert_eq!(kept.read().unwrap().len(), 2);
    }

    #[test]
    fn what_is_damaged_or_cannot_be_kept_is_told_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("words.json"), "not it").unwrap();
        let why =
            format!("{:#}", Kept::<Words>::within(folder.path(), "words.json").read().unwrap_err());
        assert!(why.contains("words.json: mend it, or remove it"), "{why}");
        let gone = Kept::<Words>::within(&folder.path().join("gone"), "words.json");
        let why = format!("{:#}", gone.change(|_| ()).unwrap_err());
        assert!(why.starts_with("writing ") && why.contains("/gone/words.json"), "{why}");
    }
}
