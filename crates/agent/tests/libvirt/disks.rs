//! Disks that one host has and another has not go along, while the guest writes to them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use api::{VmTag, VmTagsRequest};
use lab::hosts::{Cut, Way};
use lab::libvirt::{self, Daemon, IMAGES, virsh};
use lab::{guests, wait};

use crate::{Bed, DAEMON, LONG, Set, with_guest_and};

/// It has one that it writes to, and one of the other format that it leaves alone.
fn with_disks(test: &str, rules: &str, body: impl AsyncFnOnce(&mut Bed) -> anyhow::Result<()>) {
    let set = Set { sections: rules, disk: true, ..Set::default() };
    with_guest_and(
        test,
        &set,
        |_network| Ok(PathBuf::from(DAEMON)),
        async |bed| {
            let host = bed.cluster.host(0);
            let spare = format!("{IMAGES}/spare.qcow2");
            virsh(host, &["vol-create-as", "images", "spare.qcow2", "8M", "--format", "qcow2"])?;
            let attach =
                ["attach-disk", "web1", &spare, "vdb", "--subdriver", "qcow2", "--persistent"];
            virsh(host, &attach)?;
            bed.writes_to_its_disk(0, 1).await?;
            body(bed).await
        },
    );
}

const CONSENTS: &str = "[[rules.vm]]\nvms = [\"web1\"]\ncopy_disks = true\n";

impl Bed {
    /// How often the guest has gone over its disk, and found all as it was, while it was on that host.
    fn rounds(&self, host: usize) -> anyhow::Result<usize> {
        let console = guests::console(self.cluster.host(host), self.plan.vm());
        ensure!(!console.contains("CORRUPT"), "{console}");
        Ok(console.lines().filter(|line| line.starts_with("DISK ")).count())
    }

    /// Waits until it has so many times more.
    async fn writes_to_its_disk(&self, host: usize, more: usize) -> anyhow::Result<()> {
        let wanted = self.rounds(host)? + more;
        wait::until(LONG, "the guest goes over its disk", || {
            Ok((self.rounds(host)? >= wanted).then_some(()))
        })
        .await
    }

    /// The files of its disks on that host.
    fn disks(&self, host: usize) -> anyhow::Result<Vec<String>> {
        let folder = self.cluster.host(host).path(IMAGES);
        let mut found: Vec<String> = std::fs::read_dir(folder)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<anyhow::Result<_>>()?;
        found.sort_unstable();
        Ok(found)
    }

    async fn consents(&self) -> anyhow::Result<()> {
        let (key, values) = ("copy-disks".to_owned(), vec!["yes".to_owned()]);
        let request = VmTagsRequest { set: vec![VmTag { key: key.clone(), values }] };
        self.cluster.api(0).set_vm_tags("web1", &request).await?;
        let deadline = tokio::time::Instant::now() + LONG;
        while !self.cluster.api(0).vms().await?.iter().any(|vm| vm.rules.contains(&key)) {
            ensure!(tokio::time::Instant::now() < deadline, "its tags are not read");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Whether `why VM HOST` says so of the other host.
    async fn refused_for(&self, words: &str) -> anyhow::Result<()> {
        let why = self.cluster.api(0).why_not("web1", &self.cluster.host(1).name()).await?;
        ensure!(format!("{why:?}").contains(words), "{why:?}");
        Ok(())
    }

    async fn disks_end_up_on(&self, host: usize) -> anyhow::Result<()> {
        wait::until(LONG, "what is not needed is removed", || {
            Ok(self.disks_are_only(host).is_ok().then_some(()))
        })
        .await
    }

    fn disks_are_only(&self, on: usize) -> anyhow::Result<()> {
        let (here, there) = (self.disks(on)?, self.disks(1 - on)?);
        ensure!(here == ["spare.qcow2", "web1.raw"], "{here:?} on the host where it runs");
        ensure!(there.is_empty(), "{there:?} on the other");
        Ok(())
    }
}

#[test]
fn disks_go_along_there_and_back_while_the_guest_writes_to_them() {
    let test = "disks::disks_go_along_there_and_back_while_the_guest_writes_to_them";
    with_disks(test, CONSENTS, async |bed| {
        for (from, to) in [(0, 1), (1, 0)] {
            let id = bed.send(from, to).await?;
            let view = bed.cluster.ended(from, &id, LONG).await?;
            ensure!(view.phase == "done", "{view:?}");
            bed.runs_only(to).await?;
            // One round may have begun before; the next reads each block that came along or was written since.
            bed.writes_to_its_disk(to, 2).await?;
            bed.disks_are_only(to)?;
            let spare = virsh(bed.cluster.host(to), &["vol-dumpxml", "spare.qcow2", "images"])?;
            ensure!(spare.contains("<format type='qcow2'/>"), "{spare}");
            bed.cluster.watches(to, "web1").await?;
        }
        Ok(())
    });
}

#[test]
fn what_was_made_for_a_move_that_fails_is_removed_again() {
    let test = "disks::what_was_made_for_a_move_that_fails_is_removed_again";
    with_disks(test, CONSENTS, async |bed| {
        let id = bed.copying().await?;
        ensure!(bed.disks(1)? == ["spare.qcow2", "web1.raw"], "made before the copy");
        bed.cluster.api(0).cancel(&id).await?;
        let view = bed.ended(&id).await?;
        ensure!(view.phase != "done", "{view:?}");
        bed.runs_only(0).await?;
        bed.disks_are_only(0)?;

        for killed in [0, 1] {
            let id = bed.copying().await?;
            bed.cluster.kill_agent(killed)?;
            bed.cluster.start_agent(killed)?;
            bed.cluster.host(1).limit_uplink(None)?;
            bed.cluster.settled().await?;
            let view = bed.ended(&id).await?;
            ensure!(view.phase != "done", "{view:?}");
            bed.runs_only(0).await?;
            bed.disks_end_up_on(0).await?;
            bed.cluster.watches(0, "web1").await?;
        }
        bed.writes_to_its_disk(0, 2).await
    });
}

#[test]
fn a_target_whose_libvirt_is_killed_in_mid_copy_keeps_no_disk() {
    let test = "disks::a_target_whose_libvirt_is_killed_in_mid_copy_keeps_no_disk";
    with_disks(test, CONSENTS, async |bed| {
        let id = bed.copying().await?;
        bed.daemons[1].kill()?;
        bed.daemons[1] = Daemon::start(bed.cluster.host(1)).await?;
        bed.cluster.host(1).limit_uplink(None)?;
        let view = bed.ended(&id).await?;
        ensure!(view.phase != "done", "{view:?}");
        bed.runs_only(0).await?;
        bed.disks_end_up_on(0).await?;
        bed.writes_to_its_disk(0, 2).await
    });
}

#[test]
fn without_its_consent_a_disk_stays_and_the_vm_with_it() {
    let test = "disks::without_its_consent_a_disk_stays_and_the_vm_with_it";
    with_disks(test, "", async |bed| {
        let id = bed.send(0, 1).await?;
        let view = bed.ended(&id).await?;
        ensure!(view.phase != "done", "{view:?}");
        bed.refused_for("the rule `copy-disks`").await?;
        bed.runs_only(0).await?;
        bed.disks_are_only(0)?;

        // One of the same name lies there: it is not touched.
        bed.consents().await?;
        let theirs = bed.cluster.host(1).path(&libvirt::disk(&bed.plan));
        std::fs::write(&theirs, "somebody else's")?;
        let id = bed.send(0, 1).await?;
        let view = bed.ended(&id).await?;
        ensure!(view.phase != "done", "{view:?}");
        bed.refused_for("is not the same here").await?;
        bed.runs_only(0).await?;
        ensure!(std::fs::read_to_string(&theirs)? == "somebody else's", "it was touched");
        Ok(())
    });
}

/// The port at which the target's QEMU takes disks: the one after that of memory.
const DISKS_PORT: u16 = 49153;
/// A guest that stands still for longer is not served any more. It says a heartbeat every second.
const STILL_MAX: Duration = Duration::from_secs(6);

/// Waits until the move has failed; the guest goes on meanwhile.
async fn fails_and_the_guest_goes_on(bed: &Bed, id: &str) -> anyhow::Result<()> {
    let beats = || guests::heartbeats(bed.cluster.host(0), bed.plan.vm()).len();
    let deadline = tokio::time::Instant::now() + LONG;
    let mut last = (beats(), tokio::time::Instant::now());
    loop {
        let view = bed.cluster.api(0).one_move(id).await?;
        let now = (beats(), tokio::time::Instant::now());
        if now.0 > last.0 {
            last = now;
        }
        ensure!(last.1.elapsed() < STILL_MAX, "the guest stands still: {view:?}");
        if view.ended {
            ensure!(view.phase != "done", "{view:?}");
            return Ok(());
        }
        ensure!(now.1 < deadline, "it does not end: {view:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn a_firewall_before_the_port_for_disks_ends_the_move_and_not_the_guest() {
    let test = "disks::a_firewall_before_the_port_for_disks_ends_the_move_and_not_the_guest";
    with_disks(test, CONSENTS, async |bed| {
        bed.cluster.host(1).cut(Way::In, Cut::Tcp(DISKS_PORT))?;
        let id = bed.send(0, 1).await?;
        fails_and_the_guest_goes_on(bed, &id).await?;
        bed.runs_only(0).await?;
        bed.disks_end_up_on(0).await?;
        bed.cluster.host(1).heal(Way::In)?;
        let id = bed.send(0, 1).await?;
        let view = bed.ended(&id).await?;
        ensure!(view.phase == "done", "{view:?}");
        bed.runs_only(1).await?;
        bed.disks_end_up_on(1).await
    });
}

#[test]
fn an_agent_that_is_killed_while_a_disks_connection_opens_breaks_it_off_when_it_is_back() {
    let test = "disks::an_agent_that_is_killed_while_a_disks_connection_opens_breaks_it_off_when_it_is_back";
    with_disks(test, CONSENTS, async |bed| {
        bed.cluster.host(1).cut(Way::In, Cut::Tcp(DISKS_PORT))?;
        let id = bed.send(0, 1).await?;
        bed.until_phase(&id, "copying").await?;
        bed.cluster.kill_agent(0)?;
        bed.cluster.start_agent(0)?;
        bed.cluster.settled().await?;
        fails_and_the_guest_goes_on(bed, &id).await?;
        bed.cluster.host(1).heal(Way::In)?;
        bed.runs_only(0).await?;
        bed.disks_end_up_on(0).await?;
        bed.writes_to_its_disk(0, 2).await
    });
}

#[test]
fn a_target_that_is_cut_off_while_disks_are_copied_ends_the_move_and_not_the_guest() {
    let test =
        "disks::a_target_that_is_cut_off_while_disks_are_copied_ends_the_move_and_not_the_guest";
    with_disks(test, CONSENTS, async |bed| {
        let id = bed.copying().await?;
        let sent = async || anyhow::Ok(bed.cluster.api(0).one_move(&id).await?.copied_bytes > 0);
        while !sent().await? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bed.cluster.host(1).link_down()?;
        fails_and_the_guest_goes_on(bed, &id).await?;
        bed.cluster.host(1).link_up()?;
        bed.runs_only(0).await?;
        bed.disks_end_up_on(0).await?;
        bed.writes_to_its_disk(0, 2).await
    });
}
