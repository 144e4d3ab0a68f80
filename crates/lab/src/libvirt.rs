//! A libvirt daemon on each host of the lab, and guests that are its domains. To be called inside the sandbox.
//!
//! ```text
//!   host1: /run/libvirt/libvirt-sock ◀─ libvirtd ─▶ QEMU of each domain, its tap on br0
//! ```
//!
//! Each daemon has /run, /etc and /var/lib of its host; the network's own folder is storage that all share. What QEMU can is tried out once and kept in the lab's folder for all.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::guests::{CONSOLES, GuestPlan, MACHINE, operator_path};
use crate::hosts::{BRIDGE, Host};
use crate::setup::Parts;
use crate::{folder, wait};

/// The daemon's socket on its host.
pub const SOCKET: &str = "/run/libvirt/libvirt-sock";

/// A daemon comes up in less than a second, on a busy machine in some.
const START_MAX: Duration = Duration::from_secs(30);

/// By default no TCP and no TLS: agents carry what one libvirt has to say to another.
const DAEMON: &str = r#"
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
log_outputs = "3:stderr"
"#;

/// For libvirt's own migrations, by which each daemon speaks to the other.
const LISTENS: &str = r#"
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
"#;

/// Everything as root, without what needs systemd, SELinux or AppArmor: namespaces take their place here.
const QEMU: &str = r#"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
security_default_confined = 0
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
migrate_tls_x509_cert_dir = "/run/evenkeel/qemu-tls"
migrate_tls_x509_verify = 1
"#;

/// A second QMP socket, past libvirt.
const OPERATOR: &str = "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\
     <qemu:arg value='-qmp'/><qemu:arg value='unix:{operator_socket},server=on,wait=off'/></qemu:commandline>";

/// Runs in the host's namespaces, and then is the daemon.
const RUN: &str = r#"
mkdir -p /run/libvirt /run/lock /run/evenkeel/qemu-tls /var/cache/libvirt /var/lib/libvirt
exec unshare --mount sh -euc '
mount --make-rslave /
mount --bind "$LAB_CACHE" /var/cache/libvirt
exec libvirtd $LAB_LISTEN -f /etc/libvirt/libvirtd.conf -p /run/libvirt/libvirtd.pid'
"#;

/// A daemon. With this value it ends; its domains go on, as they would on a real host.
#[derive(Debug)]
pub struct Daemon {
    process: Child,
}

impl Daemon {
    /// Starts libvirtd on a host and waits until it listens.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn start(host: &Host) -> anyhow::Result<Daemon> {
        Daemon::start_with(host, false).await
    }

    /// As [`Daemon::start`]; also reached by TCP from other hosts, which no agent needs.
    ///
    /// # Errors
    /// As there.
    pub async fn start_listening(host: &Host) -> anyhow::Result<Daemon> {
        Daemon::start_with(host, true).await
    }

    async fn start_with(host: &Host, listens: bool) -> anyhow::Result<Daemon> {
        let etc = host.path("/etc/libvirt");
        fs::create_dir_all(&etc).context("making /etc/libvirt")?;
        let number = host.name().bytes().last().unwrap_or_default();
        let uuid = format!("6c61622d-0000-4000-8000-0000000000{number:02x}");
        let mut settings = format!("{DAEMON}host_uuid = \"{uuid}\"\n");
        if listens {
            settings += &format!("{LISTENS}listen_addr = \"{}\"\n", host.address());
        }
        fs::write(etc.join("libvirtd.conf"), settings)?;
        let shared = host.logs().ancestors().nth(2).context("logs are in the network's folder")?;
        let shared = format!("shared_filesystems = [ \"{}\" ]\n", shared.display());
        fs::write(etc.join("qemu.conf"), format!("{QEMU}{shared}"))?;
        let cache = folder::lab()?.join("libvirt-cache");
        fs::create_dir_all(&cache).context("making a folder for libvirt")?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(host.logs().join("libvirtd.log"))
            .context("opening libvirtd's log")?;
        // That of a daemon before this one, if it was killed.
        drop(fs::remove_file(socket(host)));
        let process = host
            .command("sh")
            .args(["-euc", RUN])
            .env("LAB_CACHE", &cache)
            .env("LAB_LISTEN", if listens { "--listen" } else { "" })
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting libvirtd")?;
        let mut daemon = Daemon { process };
        wait::until(START_MAX, &format!("libvirtd on {}", host.name()), || {
            let ended = daemon.process.try_wait()?;
            ensure!(ended.is_none(), "libvirtd ended: {}", log_of(host));
            Ok(std::os::unix::net::UnixStream::connect(socket(host)).ok().map(drop))
        })
        .await?;
        Ok(daemon)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ends it at once, as a crash would.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().context("killing libvirtd")?;
        self.process.wait().context("waiting for libvirtd")?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _reaped_already = self.process.wait();
    }
}

/// The daemon's socket, as seen from here.
pub fn socket(host: &Host) -> PathBuf {
    host.path(SOCKET)
}

fn log_of(host: &Host) -> String {
    fs::read_to_string(host.logs().join("libvirtd.log")).unwrap_or_default()
}

/// Where hosts keep disks: each has a folder of its own there.
pub const IMAGES: &str = "/var/lib/libvirt/images";

/// The file of a guest's disk.
pub fn disk(plan: &GuestPlan) -> String {
    format!("{IMAGES}/{}.raw", plan.name)
}

/// Has libvirt keep disks at [`IMAGES`] on a host.
///
/// # Errors
/// If it refuses.
pub fn keep_disks(host: &Host) -> anyhow::Result<()> {
    virsh(host, &["pool-define-as", "images", "dir", "--target", IMAGES])?;
    for step in ["pool-build", "pool-start", "pool-autostart"] {
        virsh(host, &[step, "images"])?;
    }
    Ok(())
}

/// What virsh prints on a host.
///
/// # Errors
/// If it fails, with what it says.
pub fn virsh(host: &Host, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = host.command("virsh");
    let output = command.args(["-c", "qemu:///system"]).args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "virsh {arguments:?} on {}: {}", host.name(), said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Defines a domain on a host, and starts it.
///
/// # Errors
/// If libvirt refuses.
pub fn start(host: &Host, name: &str, definition: &str) -> anyhow::Result<()> {
    let file = format!("/run/evenkeel/{name}.xml");
    fs::write(host.path(&file), definition).context("writing a domain's definition")?;
    virsh(host, &["define", &file])?;
    virsh(host, &["start", name])?;
    Ok(())
}

/// The guest's definition as a domain. Under TCG always: what libvirt shows of a processor under KVM is the machine's.
pub fn definition(plan: &GuestPlan, parts: &Parts) -> String {
    let (vm, memory, mac) = (plan.vm(), plan.memory.0, plan.mac());
    let (kernel, initramfs) = (parts.kernel.display(), parts.initramfs.display());
    let (name, words) = (&plan.name, plan.kernel_words());
    let disk = if plan.disk {
        format!(
            "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{}'/><target dev='vda' bus='virtio'/></disk>",
            disk(plan)
        )
    } else {
        String::new()
    };
    let balloon = if plan.balloon { "virtio" } else { "none" };
    let operator = if plan.operator { OPERATOR } else { "" };
    format!(
        "<domain type='qemu'><name>{name}</name><uuid>{vm}</uuid>\
         <memory unit='MiB'>{memory}</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='{MACHINE}'>hvm</type>\
         <kernel>{kernel}</kernel><initrd>{initramfs}</initrd><cmdline>{words}</cmdline></os>\
         <features><acpi/></features><devices>\
         <emulator>/usr/bin/qemu-system-x86_64</emulator>\
         <controller type='usb' model='none'/>\
         <interface type='bridge'><source bridge='{BRIDGE}'/><mac address='{mac}'/>\
         <model type='virtio'/><rom enabled='no'/></interface>\
         <serial type='file'><source path='{CONSOLES}/{vm}.log' append='on'/></serial>\
         {disk}<memballoon model='{balloon}'/></devices>{operator}</domain>\n"
    )
    .replace("{operator_socket}", &operator_path(vm))
}
