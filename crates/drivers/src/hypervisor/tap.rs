//! Taps: made, attached to a bridge, taken off it, removed. All by name, in the agent's own network namespace.

use std::io;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use tokio::process::Command;
use tokio::time::timeout;

/// `ip` makes one system call or two; longer than this and the kernel hangs.
const IP_MAX: Duration = Duration::from_secs(5);

/// A tap and the bridge it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// The tap's name.
    pub(super) tap: String,
    /// The bridge's name.
    pub(super) bridge: String,
}

/// A tap could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("`{command}` failed: {reason}")]
pub(super) struct TapError {
    command: String,
    reason: String,
}

/// Whether a link of that name is there, tap or not.
pub(super) fn exists(link: &str) -> io::Result<bool> {
    let any_socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    match netdevice::name_to_index(any_socket, link) {
        Ok(_index) => Ok(true),
        Err(rustix::io::Errno::NODEV) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The MTU of a link; none if it cannot be told.
#[cfg(feature = "libvirt")]
pub(super) async fn mtu(link: &str) -> Option<u32> {
    let mut command = Command::new("ip");
    let output = command.args(["-o", "link", "show", "dev", link]).kill_on_drop(true).output();
    let told = timeout(IP_MAX, output).await.ok()?.ok()?.stdout;
    let told = String::from_utf8_lossy(&told).into_owned();
    told.split_once(" mtu ")?.1.split_whitespace().next()?.parse().ok()
}

/// Makes a tap on its bridge, up, for QEMUs of this process's user. A link of that name must not be there.
pub(super) async fn create(link: &Link) -> Result<(), TapError> {
    // Without a user anybody on this host could attach to it, and hear and speak for the VM.
    let user = rustix::process::geteuid().as_raw().to_string();
    ip(&["tuntap", "add", "dev", &link.tap, "mode", "tap", "user", &user]).await?;
    attach(link).await
}

/// Puts a tap on its bridge, up.
pub(super) async fn attach(link: &Link) -> Result<(), TapError> {
    ip(&["link", "set", "dev", &link.tap, "master", &link.bridge, "up"]).await
}

/// Takes a tap off whatever bridge it is on.
pub(super) async fn detach(link: &Link) -> Result<(), TapError> {
    ip(&["link", "set", "dev", &link.tap, "nomaster"]).await
}

/// Removes a tap.
pub(super) async fn delete(link: &Link) -> Result<(), TapError> {
    ip(&["link", "delete", "dev", &link.tap]).await
}

async fn ip(arguments: &[&str]) -> Result<(), TapError> {
    run("ip", arguments).await
}

/// Runs a program that configures the network.
pub(super) async fn run(program: &str, arguments: &[&str]) -> Result<(), TapError> {
    let failed =
        |reason: String| TapError { command: format!("{program} {}", arguments.join(" ")), reason };
    let output = Command::new(program).args(arguments).kill_on_drop(true).output();
    match timeout(IP_MAX, output).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            Err(failed(String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ")))
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(late) => Err(failed(late.to_string())),
    }
}
