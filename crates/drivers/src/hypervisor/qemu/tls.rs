//! The encryption of a copy: what QEMU is given for it before, and what is taken from it after.
//!
//! ```text
//!   keys folder ◀─ links ─ folder for QEMU ◀─ dir ─ tls-creds-x509 ◀─ parameter tls-creds
//!     source: tls-hostname, the address of the target's agent, which its certificate must name
//!     target: tls-authz ─▶ authz-simple, the one subject that may send
//! ```
//!
//! The objects are made for each move, so that a renewed certificate holds from the next one on, and removed after it, however
//! it ended. A driver that was started anew does so when it adopts the VM, or when the copy that it found ends.
//!
//! QEMU reads the files as the user that it runs as: that of the agent, for what the agent starts. One that cannot refuses, and
//! the move fails with its words.
//!
//! **Invariant:** a copy that is to be encrypted is begun only with the objects in place, on either side.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use decide::units::HostId;

use super::handshake::{Ends, Handshakes};
use super::messages::{ObjectAddAuthz, ObjectAddTls, ObjectDel, QueryMigrateParameters, SetTls};
use super::process::Process;
use super::vm::VmTask;

/// Names of our objects in QEMU.
const CREDENTIALS: &str = "evenkeel-tls";
const ADMISSION: &str = "evenkeel-peer";
/// TLS 1.3 with a cipher that needs no new keys: with others GnuTLS takes new ones after 2^24 records, some tens of GiB, while
/// another thread of QEMU's reads from the same session, for which QEMU is not made before 10.1.
const PRIORITY: &str = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+CHACHA20-POLY1305";

/// The files by which copies are encrypted.
#[derive(Clone, Debug)]
pub struct CopyKeys {
    /// The CA's certificate (PEM).
    pub ca: PathBuf,
    /// This host's certificate (PEM), for servers and clients. It must name the address of this host's agent, and allow signatures and key
    /// encipherment: QEMU asks for both.
    pub certificate: PathBuf,
    /// Its key (PKCS#8, PEM).
    pub key: PathBuf,
    /// A folder to be made for QEMU, of links to these.
    pub dir: PathBuf,
    /// What a host's certificate has as subject, in the form of RFC 4514; no two hosts have the same.
    pub subject: fn(HostId) -> String,
}

impl CopyKeys {
    /// Makes the folder as QEMU wants it, or leaves it if it is so. No list of revocations is among them: GnuTLS looks for serial
    /// numbers, and ours means all that a host was given until then.
    pub(in crate::hypervisor) fn link(&self) -> io::Result<()> {
        // All VMs' tasks have the same folder.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        fs::set_permissions(&self.dir, Permissions::from_mode(0o700))?;
        let links = [
            ("ca-cert.pem", &self.ca),
            ("server-cert.pem", &self.certificate),
            ("server-key.pem", &self.key),
            ("client-cert.pem", &self.certificate),
            ("client-key.pem", &self.key),
        ];
        for (name, file) in links {
            let (link, half) = (self.dir.join(name), self.dir.join(format!("{name}.new")));
            let file = fs::canonicalize(file)?;
            if fs::read_link(&link).is_ok_and(|now| now == file) {
                continue;
            }
            remove(&half)?;
            symlink(&file, &half)?;
            // At once: another VM's QEMU may be reading.
            fs::rename(&half, &link)?;
        }
        remove(&self.dir.join("ca-crl.pem"))
    }
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Who must be at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    /// For the source: whoever listens there, and has a certificate that names it.
    At(IpAddr),
    /// For the target: that host.
    Is(HostId),
}

impl VmTask {
    /// Before a copy: gives QEMU what encrypts it, made anew. For one in the clear takes away whatever is there.
    pub(super) async fn begin_encryption(
        &mut self,
        encrypted: bool,
        peer: Peer,
    ) -> Result<(), String> {
        self.end_encryption().await?;
        if !encrypted {
            return Ok(());
        }
        let made = self.make_encryption(peer).await;
        if made.is_err() {
            // What was made of it; the reason is told already.
            drop(self.end_encryption().await);
        }
        made.map_err(|why| format!("its copy cannot be encrypted: {why}"))
    }

    async fn make_encryption(&mut self, peer: Peer) -> Result<(), String> {
        let keys = self.place.config.keys.clone().ok_or("this host has no keys for it")?;
        let place = keys.dir.display().to_string();
        keys.link().map_err(|error| format!("making {place}: {error}"))?;
        let endpoint = match peer {
            Peer::At(_) => "client",
            Peer::Is(_) => "server",
        };
        self.ask(ObjectAddTls {
            qom_type: "tls-creds-x509",
            id: CREDENTIALS,
            dir: place,
            endpoint,
            verify_peer: true,
            priority: PRIORITY,
        })
        .await?;
        let parameters = match peer {
            Peer::At(address) => {
                let tls_hostname = address.to_string();
                SetTls { tls_creds: CREDENTIALS, tls_hostname, tls_authz: "" }
            }
            Peer::Is(host) => {
                let identity = (keys.subject)(host);
                self.ask(ObjectAddAuthz { qom_type: "authz-simple", id: ADMISSION, identity })
                    .await?;
                let tls_hostname = String::new();
                SetTls { tls_creds: CREDENTIALS, tls_hostname, tls_authz: ADMISSION }
            }
        };
        self.ask(parameters).await.map(drop)
    }

    /// Sees to it that its handshakes end, as long as what is given is kept.
    pub(super) fn look_after_handshakes(&self, ends: Ends) -> Option<Handshakes> {
        let process = Process::open(self.process.as_ref()?.pid()).ok().flatten()?;
        Some(Handshakes::look_after(process, ends))
    }

    /// Takes away what encrypted a copy.
    pub(super) async fn end_encryption(&mut self) -> Result<(), String> {
        self.ask(SetTls { tls_creds: "", tls_hostname: String::new(), tls_authz: "" }).await?;
        for id in [CREDENTIALS, ADMISSION] {
            if let Err(why) = self.ask(ObjectDel { id }).await {
                // It was not there.
                tracing::trace!(vm = %self.vm, id, why, "not removed");
            }
        }
        Ok(())
    }

    /// Takes away what a move has left, if one has; what an operator has set stays.
    pub(super) async fn end_what_is_left(&mut self) {
        if let Err(why) = self.try_end_what_is_left().await {
            // The next move, or the next agent, does it.
            tracing::debug!(vm = %self.vm, why, "what encrypted its copy was not removed");
        }
    }

    async fn try_end_what_is_left(&mut self) -> Result<(), String> {
        let ours = self.ask(QueryMigrateParameters {}).await?.tls_creds;
        if ours.as_deref() == Some(CREDENTIALS) && self.migration().await?.status().settled() {
            self.end_encryption().await?;
        }
        Ok(())
    }
}

/// Address and port in `tcp:ADDRESS:PORT`, and nothing else: no name, no option, no other way to send.
pub(super) fn socket(uri: &str) -> Option<SocketAddr> {
    uri.strip_prefix("tcp:")?.parse().ok().filter(|to: &SocketAddr| to.port() != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_goes_to_an_address_and_a_port_and_nowhere_else() {
        assert_eq!(socket("tcp:198.18.0.2:49152"), "198.18.0.2:49152".parse().ok());
        assert_eq!(socket("tcp:[fd00::2]:49152"), "[fd00::2]:49152".parse().ok());
        for none in [
            "",
            "exec:touch /tmp/here",
            "file:/tmp/here",
            "fd:3",
            "unix:/run/x",
            "rdma:198.18.0.2:49152",
            "198.18.0.2:49152",
            "tcp:198.18.0.2",
            "tcp:198.18.0.2:0",
            "tcp:host2:49152",
            "tcp:198.18.0.2:49152,to=9",
            "tcp:198.18.0.2:49152 ",
            "TCP:198.18.0.2:49152",
        ] {
            assert_eq!(socket(none), None, "{none}");
        }
    }

    #[test]
    fn the_folder_for_qemu_is_private_follows_the_files_and_holds_no_list() {
        let base = std::env::temp_dir().join(format!("ek-tls-{}", std::process::id()));
        let keys = base.join("keys");
        fs::create_dir_all(&keys).unwrap();
        for name in ["ca.crt", "host.crt", "host.key"] {
            fs::write(keys.join(name), "old").unwrap();
        }
        let files = CopyKeys {
            ca: keys.join("ca.crt"),
            certificate: keys.join("host.crt"),
            key: keys.join("host.key"),
            dir: base.join("run/qemu-tls"),
            subject: |host| format!("CN={host}"),
        };
        files.link().unwrap();
        fs::write(files.dir.join("ca-crl.pem"), "left").unwrap();
        remove(&files.dir.join("server-key.pem")).unwrap();
        fs::write(files.dir.join("server-key.pem"), "another's").unwrap();
        files.link().unwrap();
        assert_eq!(fs::metadata(&files.dir).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(keys.join("host.key.new"), "renewed").unwrap();
        fs::rename(keys.join("host.key.new"), keys.join("host.key")).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&files.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        let wanted = [
            "ca-cert.pem",
            "client-cert.pem",
            "client-key.pem",
            "server-cert.pem",
            "server-key.pem",
        ];
        assert_eq!(names, wanted);
        for name in ["client-key.pem", "server-key.pem"] {
            assert_eq!(fs::read_to_string(files.dir.join(name)).unwrap(), "renewed");
        }
        fs::remove_file(keys.join("host.key")).unwrap();
        remove(&files.dir.join("client-key.pem")).unwrap();
        assert_eq!(files.link().unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn the_folder_for_qemu_is_made_by_several_vms_at_once() {
        let base = tempfile::tempdir().unwrap();
        let file = |name: &str| base.path().join(name);
        for name in ["a", "b"] {
            fs::write(file(name), name).unwrap();
        }
        let files = |name: &str| CopyKeys {
            ca: file(name),
            certificate: file(name),
            key: file(name),
            dir: file("qemu-tls"),
            subject: |host| format!("CN={host}"),
        };
        // Each time other files than before, so that links are to be replaced.
        let make = || (0..300).try_for_each(|turn| files(["a", "b"][turn % 2]).link());
        let made = std::thread::scope(|scope| {
            [(); 4].map(|()| scope.spawn(make)).map(|one| one.join().unwrap())
        });
        for made in made {
            made.unwrap();
        }
    }
}
