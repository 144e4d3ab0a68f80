//! libvirt's hook: what another host owns is not started here; all other tests of this program have it too.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context, ensure};
use lab::guests::{self, GuestPlan};
use lab::hosts::Host;
use lab::libvirt::{self, virsh};
use lab::setup::Parts;

use crate::{DAEMON, with_guest};

const SCRIPT: &str = include_str!("../../../../packaging/libvirt/qemu-hook");

/// As the package does it, with this agent's program.
pub(crate) fn install(host: &Host) -> anyhow::Result<()> {
    let script = SCRIPT.replace("/usr/bin/evenkeeld", DAEMON);
    ensure!(script != SCRIPT, "the hook names the program");
    let folder = host.path("/etc/libvirt/hooks/qemu.d");
    fs::create_dir_all(&folder).context("making libvirt's folder of hooks")?;
    let file = folder.join("evenkeel");
    fs::write(&file, script)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

#[test]
fn what_another_host_owns_is_not_started_here_unless_a_person_says_so() {
    with_guest(
        "hook::what_another_host_owns_is_not_started_here_unless_a_person_says_so",
        async |bed| {
            let parts = Parts::load()?;
            let id = bed.send(0, 1).await?;
            bed.ended(&id).await?;
            bed.runs_only(1).await?;
            let (here, there) = (bed.cluster.host(0), bed.cluster.host(1));
            // The definition was kept, or put back from a backup.
            let file = "/run/evenkeel/again.xml";
            fs::write(here.path(file), libvirt::definition(&bed.plan, &parts))?;
            virsh(here, &["define", file])?;
            let start = || virsh(here, &["start", "web1", "--paused"]);
            let refused = start().err().context("it was started a second time")?.to_string();
            ensure!(refused.contains("this VM is another host's"), "{refused}");
            ensure!(guests::qemus(here, bed.plan.vm())?.is_empty());
            // What nobody has heard of starts.
            let other = GuestPlan::new("web2", 2);
            fs::write(here.path(file), libvirt::definition(&other, &parts))?;
            virsh(here, &["define", file])?;
            virsh(here, &["start", "web2", "--paused"])?;
            virsh(here, &["destroy", "web2"])?;
            // A person ends it there and says so: once.
            virsh(there, &["destroy", "web1"])?;
            let allowed = format!("/run/evenkeel/libvirt/{}.allowed", bed.plan.vm());
            fs::write(here.path(&allowed), "")?;
            start()?;
            ensure!(!here.path(&allowed).exists(), "it holds once");
            virsh(here, &["destroy", "web1"])?;
            Ok(())
        },
    );
}
