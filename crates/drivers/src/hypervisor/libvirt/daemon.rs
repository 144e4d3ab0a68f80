//! Which daemon of this host is meant, and what is to be done where it cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use super::rpc::{ConnectError, Rpc};
use super::{LIBVIRT_RUN, LibvirtConfig, LibvirtError};

/// The oldest libvirt that this driver was made for: 7.0 of January 2021, as the library counts.
const OLDEST: u64 = 7_000_000;
/// The daemon of QEMU alone, and that of all, in the order in which they are tried.
const SOCKETS: [&str; 2] = ["virtqemud-sock", "libvirt-sock"];

/// Whether this URI names a daemon of this host.
///
/// # Errors
/// If it does not; says what to write.
pub fn check_uri(uri: &str) -> Result<(), LibvirtError> {
    sockets(uri).map(drop)
}

/// Which libvirt answers to that URI, asked once: its socket and version.
///
/// # Errors
/// Why none does, and what to do.
pub async fn probe(uri: &str) -> Result<String, String> {
    let sockets = sockets(uri).map_err(|error| error.to_string())?;
    let socket = present(&sockets);
    let asked = async {
        let rpc = Rpc::connect(socket, LibvirtConfig::default().answer_max, None).await?;
        Ok((version(&rpc).await?, rpc.hypervisor().await.map_err(ConnectError::from)?))
    };
    let (libvirt, qemu) = asked.await.map_err(|error| unusable(socket, &error))?;
    Ok(format!("libvirt {}, QEMU {}, by {}", shown(libvirt), shown(qemu), socket.display()))
}

/// The daemon's version, if it is one that this driver was made for.
pub(super) async fn version(rpc: &Rpc) -> Result<u64, ConnectError> {
    let version = rpc.version().await?;
    if version < OLDEST {
        return Err(ConnectError::Old { version: shown(version), needed: shown(OLDEST) });
    }
    Ok(version)
}

/// A version, as the library counts, for people.
fn shown(version: u64) -> String {
    format!("{}.{}.{}", version / 1_000_000, version / 1000 % 1000, version % 1000)
}

/// That libvirt cannot be used, and what to do.
pub(super) fn unusable(socket: &Path, error: &ConnectError) -> String {
    let mend = match error {
        ConnectError::Absent(why) if why.kind() == io::ErrorKind::NotFound => {
            "install it (Debian: apt install libvirt-daemon-system; Red Hat's kin: dnf install libvirt-daemon-kvm), start it (systemctl \
             start libvirtd, or virtqemud), or name its socket by [hypervisor] uri"
        }
        ConnectError::Absent(why) if why.kind() == io::ErrorKind::ConnectionRefused => {
            "start it: systemctl start libvirtd, or virtqemud"
        }
        ConnectError::Old { .. } => "bring it up to date",
        ConnectError::Password => "then restart it",
        ConnectError::Absent(_) | ConnectError::Rpc(_) => {
            "look at its log (journalctl -u libvirtd -u virtqemud); the agent must be root (sh /usr/share/evenkeel/libvirt/setup)"
        }
    };
    format!("{}: libvirt cannot be used: {error}: {mend}", socket.display())
}

/// The socket that is there; the last of those named if none is.
pub(super) fn present(sockets: &[PathBuf]) -> &Path {
    let there = sockets.iter().find(|socket| socket.exists());
    there.or(sockets.last()).map_or(Path::new(LIBVIRT_RUN), PathBuf::as_path)
}

/// The sockets that a URI may mean; the first that is there is used.
pub(super) fn sockets(uri: &str) -> Result<Vec<PathBuf>, LibvirtError> {
    let wrong = || LibvirtError::Uri(uri.to_owned());
    let absolute = |path: &str| {
        if path.starts_with('/') { Ok(vec![PathBuf::from(path)]) } else { Err(wrong()) }
    };
    match uri.strip_prefix("qemu+unix:///system?socket=") {
        Some(path) => absolute(path),
        None if uri == "qemu:///system" || uri == "qemu+unix:///system" => {
            Ok(SOCKETS.map(|name| Path::new(LIBVIRT_RUN).join(name)).to_vec())
        }
        None => absolute(uri),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_libvirt_that_is_not_there_is_told_with_what_to_install_and_one_that_sleeps_with_how_to_start_it()
     {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("libvirt-sock");
        let asked = async || probe(socket.to_str().unwrap()).await.unwrap_err();
        let why = asked().await;
        assert!(why.starts_with(socket.to_str().unwrap()), "{why}");
        assert!(why.contains("apt install libvirt-daemon-system"), "{why}");
        assert!(why.contains("[hypervisor] uri"), "{why}");
        // Its listener has ended, and the file stayed.
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let why = asked().await;
        assert!(why.contains("systemctl start libvirtd") && !why.contains("install"), "{why}");
    }

    #[test]
    fn versions_are_shown_as_people_write_them() {
        assert_eq!((shown(11_003_000), shown(7_000_012)), ("11.3.0".into(), "7.0.12".into()));
    }

    #[test]
    fn a_uri_names_a_daemon_of_this_host_or_is_refused_with_what_to_write() {
        let first = |uri: &str| sockets(uri).map(|all| all[0].display().to_string());
        assert_eq!(first("qemu:///system").unwrap(), "/run/libvirt/virtqemud-sock");
        assert_eq!(first("qemu+unix:///system?socket=/x/sock").unwrap(), "/x/sock");
        assert_eq!(first("/run/libvirt/libvirt-sock").unwrap(), "/run/libvirt/libvirt-sock");
        for wrong in ["qemu+ssh://host2/system", "qemu:///session", "", "xen:///system", "host2"] {
            let why = first(wrong).unwrap_err().to_string();
            assert!(why.contains("write \"qemu:///system\""), "{why}");
        }
    }
}
