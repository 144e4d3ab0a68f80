//! Files that hold secrets: written whole and for their owner alone, and not read if others could.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use anyhow::{Context, ensure};

/// Makes a folder that only its owner may enter, if it is not there.
pub(crate) fn make(folder: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("making the folder {}", folder.display()))
}

/// Keeps others from changing a folder until what this gives is dropped: an agent and a command, or two commands. Waits for them.
pub(crate) fn lock(folder: &Path) -> anyhow::Result<File> {
    let locked = File::open(folder).and_then(|open| open.lock().map(|()| open));
    locked.with_context(|| format!("locking the folder {}", folder.display()))
}

/// Replaces a file as a whole; it is on disk when this returns.
pub(crate) fn write(folder: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let (file, half) = (folder.join(name), folder.join(format!("{name}.new")));
    let write = || {
        // One that was left over may have another mode.
        match fs::remove_file(&half) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _gone => {}
        }
        let mut written =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half)?;
        // Root may write here for the user whose folder it is, and who has to read it.
        let (owner, own) = (fs::metadata(folder)?, written.metadata()?);
        if (owner.uid(), owner.gid()) != (own.uid(), own.gid()) {
            fchown(&written, Some(owner.uid()), Some(owner.gid()))?;
        }
        written.write_all(bytes)?;
        written.sync_all()?;
        fs::rename(&half, &file)?;
        File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("writing {}", file.display()))
}

/// Puts one file in the place of another; that is on disk when this returns.
pub(crate) fn rename(folder: &Path, from: &str, to: &str) -> anyhow::Result<()> {
    let (from, to) = (folder.join(from), folder.join(to));
    fs::rename(&from, &to)
        .and_then(|()| File::open(folder)?.sync_all())
        .with_context(|| format!("renaming {} to {}", from.display(), to.display()))
}

/// A file that may be known to all.
pub(crate) fn read(folder: &Path, name: &str) -> anyhow::Result<Vec<u8>> {
    let file = folder.join(name);
    fs::read(&file).with_context(|| format!("reading {}", file.display()))
}

/// A file that only its owner may read.
pub(crate) fn read_secret(folder: &Path, name: &str) -> anyhow::Result<Vec<u8>> {
    let file = folder.join(name);
    let found = fs::metadata(&file).with_context(|| format!("reading {}", file.display()))?;
    let mode = found.permissions().mode() & 0o777;
    ensure!(
        mode & 0o077 == 0,
        "{} can be read by others (mode {mode:o}): run chmod 600 on it, and if others may have read it, make new keys",
        file.display()
    );
    read(folder, name)
}

/// The text of a file.
pub(crate) fn text(folder: &Path, name: &str) -> anyhow::Result<String> {
    as_text(read(folder, name)?, folder, name)
}

/// The text of a file that only its owner may read.
pub(crate) fn secret_text(folder: &Path, name: &str) -> anyhow::Result<String> {
    as_text(read_secret(folder, name)?, folder, name)
}

fn as_text(bytes: Vec<u8>, folder: &Path, name: &str) -> anyhow::Result<String> {
    // The bytes may be a secret: they are not shown.
    String::from_utf8(bytes)
        .map_err(|_bytes| anyhow::anyhow!("{} is no text", folder.join(name).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_for_its_owner_alone_and_refused_if_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        make(&keys).unwrap();
        make(&keys).unwrap();
        assert_eq!(fs::metadata(&keys).unwrap().permissions().mode() & 0o777, 0o700);
        // A leftover that others may read is not written into.
        fs::write(keys.join("k.new"), "left").unwrap();
        write(&keys, "k", b"one").unwrap();
        write(&keys, "k", b"two").unwrap();
        let file = keys.join("k");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_secret(&keys, "k").unwrap(), b"two");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let why = format!("{:#}", read_secret(&keys, "k").unwrap_err());
        assert!(why.contains("/keys/k can be read by others (mode 640): run chmod 600"), "{why}");
        let why = format!("{:#}", text(&keys, "none").unwrap_err());
        assert!(why.starts_with("reading ") && why.contains("/keys/none"), "{why}");
    }
}
