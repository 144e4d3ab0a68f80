//! The unix socket that the API is served on.
//!
//! A lock beside the socket (`api.sock.lock`) says who may listen; the kernel drops it when an agent is killed, so that
//! a socket left behind never stands in the way, and of two agents started at once exactly one gets it. The lock's file
//! stays: removing it would let a third agent lock another file of the same name.
//!
//! **Invariant:** at its path the socket only ever appears with mode 0660 and listening: it is made under another name,
//! and before `listen` nobody can connect.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tokio::net::{UnixListener, UnixSocket, UnixStream};

/// Owner and group may connect; the gate looks once more who they are.
const MODE: u32 = 0o660;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;

/// A socket that listens; removed when dropped.
#[derive(Debug)]
pub struct ApiSocket {
    listener: UnixListener,
    place: Place,
}

/// The socket's path, ours while the lock is held.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    _lock: File,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Gone already is as well, and the next agent replaces what cannot be removed now.
        let _ = fs::remove_file(&self.path);
    }
}

impl ApiSocket {
    /// Listens at `path`, whose folder must exist, for the owner and for `group`; without one, for the agent's own group. What a
    /// killed agent left there is replaced.
    ///
    /// # Errors
    ///
    /// When another agent listens there, something that is no socket lies there, or the system refuses; then nothing
    /// there was changed. The error names the path.
    pub async fn bind(path: &Path, group: Option<u32>) -> anyhow::Result<ApiSocket> {
        Self::try_bind(path, group)
            .await
            .with_context(|| format!("making the API's socket {}", path.display()))
    }

    async fn try_bind(path: &Path, group: Option<u32>) -> anyhow::Result<ApiSocket> {
        let lock = lock(&beside(path, ".lock"))?;
        see_that_nobody_listens(path).await?;
        let new = beside(path, ".new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| {
                    format!("removing {} of an agent that was killed", new.display())
                });
            }
            Ok(()) | Err(_) => {}
        }
        let socket = UnixSocket::new_stream().context("asking the system for a socket")?;
        socket
            .bind(&new)
            .with_context(|| format!("binding {} (a path has 107 bytes at most)", new.display()))?;
        // From here on `place` removes whatever was made, should a step fail.
        let mut place = Place { path: new, _lock: lock };
        if let Some(group) = group
            && let Err(error) = chown(&place.path, None, Some(group))
        {
            // Its members cannot connect then; root and the agent's own user can.
            tracing::warn!("giving the API's socket to group {group}: {error}");
        }
        fs::set_permissions(&place.path, Permissions::from_mode(MODE))
            .context("setting its mode to 0660")?;
        let listener = socket.listen(BACKLOG).context("listening")?;
        fs::rename(&place.path, path).context("putting it in place")?;
        path.clone_into(&mut place.path);
        Ok(ApiSocket { listener, place })
    }

    pub(super) fn into_parts(self) -> (UnixListener, Place) {
        (self.listener, self.place)
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.with_context(|| {
        format!("opening {}: its folder must exist and be writable for evenkeeld", path.display())
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!(
                "another evenkeeld runs here and holds {}: stop it, or give this one a socket of its own",
                path.display()
            )
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("locking {}", path.display()))
        }
    }
}

/// The lock keeps agents apart; this sees what else may be there.
async fn see_that_nobody_listens(path: &Path) -> anyhow::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            bail!(
                "something that is not a socket lies there: move it away, or configure another path"
            )
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context("looking whether a socket is there"),
    }
    match UnixStream::connect(path).await {
        Err(error)
            if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) =>
        {
            Ok(())
        }
        Err(error) => Err(error).context("trying whether somebody listens there"),
        Ok(_) => bail!("another process listens there: stop it, or configure another path"),
    }
}
