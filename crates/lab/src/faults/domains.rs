//! The guest as a domain of libvirt's: what a case does otherwise than with a bare QEMU.

use std::time::Duration;
use std::{fs, thread};

use anyhow::Context;

use super::bed::Bed;
use crate::hosts::Host;
use crate::libvirt::{self, Daemon, virsh};
use crate::wait;

/// Where the driver leaves its marks.
pub(crate) const MARKS: &str = "/run/evenkeel/libvirt";
/// What libvirt knows of domains, running or not.
const KNOWN: [&str; 2] = ["/run/libvirt/qemu", "/etc/libvirt/qemu"];
const NOTICED_MAX: Duration = Duration::from_secs(20);

impl Bed {
    /// Starts the guest's domain where the guest is, from the definition that is there, or anew.
    pub(crate) async fn start_domain(&self) -> anyhow::Result<()> {
        let (host, name) = (self.cluster.host(self.at), &*self.plan.name);
        let noticed = || Ok((state(host, name).as_deref() != Some("running")).then_some(()));
        wait::until(NOTICED_MAX, "libvirt sees that its QEMU ended", noticed).await?;
        if state(host, name).is_some() {
            return virsh(host, &["start", name]).map(drop);
        }
        libvirt::start(host, name, &libvirt::definition(&self.plan, &self.parts))
    }

    /// Has a host know of no domain, once its QEMUs are gone.
    pub(crate) async fn forget_domains(&mut self, number: usize) -> anyhow::Result<()> {
        self.kill_daemon(number)?;
        for folder in KNOWN {
            let folder = self.cluster.host(number).path(folder);
            if folder.exists() {
                fs::remove_dir_all(folder).context("forgetting domains")?;
            }
        }
        self.start_daemons().await
    }

    /// Ends the libvirt of a host at once, if it runs.
    pub(crate) fn kill_daemon(&mut self, number: usize) -> anyhow::Result<()> {
        self.daemons[number].take().map_or(Ok(()), |mut daemon| daemon.kill())
    }

    /// Starts every libvirt that was killed.
    pub(crate) async fn start_daemons(&mut self) -> anyhow::Result<()> {
        for (daemon, host) in self.daemons.iter_mut().zip(self.cluster.network.hosts()) {
            if daemon.is_none() {
                *daemon = Some(Daemon::start(host).await?);
            }
        }
        Ok(())
    }

    /// What is left of the guest's domain on a host; in words.
    pub(crate) fn left_of_domain(&self, number: usize) -> anyhow::Result<Vec<String>> {
        let host = self.cluster.host(number);
        let domain = state(host, &self.plan.name).map(|state| format!("the domain, {state}"));
        let mut left: Vec<String> = domain.into_iter().collect();
        for file in fs::read_dir(host.path(MARKS))? {
            left.push(format!("the mark {}", file?.file_name().to_string_lossy()));
        }
        Ok(left)
    }

    /// Whether a host keeps the definition of the guest's domain.
    pub(crate) fn keeps_domain(&self, number: usize) -> bool {
        let kept = virsh(self.cluster.host(number), &["dumpxml", "--inactive", &self.plan.name]);
        kept.is_ok()
    }

    /// Removes the guest's domain, whose QEMU is gone, and its marks, as a person would.
    pub(crate) async fn undefine_by_hand(&self, number: usize) -> anyhow::Result<()> {
        let (host, name) = (self.cluster.host(number), &*self.plan.name);
        let off = || Ok(state(host, name).is_none_or(|it| it == "shut off").then_some(()));
        wait::until(NOTICED_MAX, "libvirt sees that its QEMU ended", off).await?;
        if state(host, name).is_some() {
            virsh(host, &["undefine", name])?;
        }
        for file in fs::read_dir(host.path(MARKS))? {
            let file = file?;
            if file.file_name().to_string_lossy().starts_with(&self.plan.vm().to_string()) {
                fs::remove_file(file.path()).context("removing a mark")?;
            }
        }
        Ok(())
    }

    /// Has somebody tell libvirt to let the guest run. It may wait for as long as libvirt holds the domain; whether it obeys is
    /// seen by what runs.
    pub(crate) fn resume_by_hand(&self, number: usize) -> anyhow::Result<()> {
        let mut command = self.cluster.host(number).command("virsh");
        command.args(["-c", "qemu:///system", "resume", &self.plan.name]);
        let mut told = command.spawn().context("running virsh")?;
        thread::Builder::new().name("virsh".to_owned()).spawn(move || told.wait())?;
        Ok(())
    }

    /// Cancels a copy that no agent knows of, as a person would.
    pub(crate) fn abort_by_hand(&self, number: usize) -> anyhow::Result<()> {
        virsh(self.cluster.host(number), &["domjobabort", &self.plan.name]).map(drop)
    }
}

/// What libvirt says that a domain does; none if it does not know it, or is away.
fn state(host: &Host, name: &str) -> Option<String> {
    virsh(host, &["domstate", name]).ok()
}
