//! Files and folders that the driver makes beside QEMU's sockets: for its user alone, whatever the umask.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const FILE: u32 = 0o600;
const FOLDER: u32 = 0o700;

/// Makes the folder, unless it is there; those above it are as the umask says, since others may have business there.
pub(super) fn folder(path: &Path) -> io::Result<()> {
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above)?;
    }
    match DirBuilder::new().mode(FOLDER).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

/// The file, empty. One that is there is made private too.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE).open(path)?;
    file.set_permissions(Permissions::from_mode(FILE))?;
    Ok(file)
}

/// The file with this in it.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    create(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_for_its_user_alone_and_what_was_there_becomes_so() {
        let base = std::env::temp_dir().join(format!("ek-private-{}", std::process::id()));
        let inner = base.join("run/qemu");
        folder(&inner).unwrap();
        folder(&inner).unwrap();
        assert_eq!(mode(&inner), 0o700);
        let file = inner.join("a.share");
        std::fs::write(&file, "longer than what comes").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        write(&file, b"short").unwrap();
        assert_eq!((mode(&file), std::fs::read_to_string(&file).unwrap()), (0o600, "short".into()));
        let why = folder(&file).unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::AlreadyExists, "a file is no folder");
        std::fs::remove_dir_all(&base).unwrap();
    }
}
