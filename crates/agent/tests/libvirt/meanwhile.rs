//! What an operator does by virsh before and while the agents move the guest: one copy runs, on the host whose journal has it.

use std::fs::{self, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use api::EventFilter;
use lab::hosts::Host;
use lab::libvirt::virsh;
use lab::{guests, wait};

use crate::{Bed, DAEMON, LONG, Set, with_guest, with_guest_and};

/// A command of virsh's that takes long.
fn begun(host: &Host, arguments: &[&str]) -> anyhow::Result<Child> {
    let mut command = host.command("virsh");
    command.args(["-c", "qemu:///system"]).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().context("starting virsh")
}

fn ended(command: Child) -> anyhow::Result<(bool, String)> {
    let output = command.wait_with_output()?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

impl Bed {
    /// Waits until something of it was sent by a migration that the agents know nothing of.
    async fn sends(&self, on: usize) -> anyhow::Result<()> {
        let host = self.cluster.host(on);
        wait::until(LONG, "theirs is under way", || {
            let job = virsh(host, &["domjobinfo", "web1"]).unwrap_or_default();
            let word = "Data processed:";
            let has = job.lines().any(|line| line.starts_with(word) && !line.ends_with("0.000 B"));
            Ok(has.then_some(()))
        })
        .await
    }

    /// Waits until the guest runs on that host alone, whose agent has it as its own, and the other's has none.
    async fn is_only(&self, on: usize) -> anyhow::Result<()> {
        self.runs_only(on).await?;
        self.cluster.watches(on, "web1").await?;
        let deadline = tokio::time::Instant::now() + LONG;
        loop {
            let other = self.cluster.api(1 - on).vms().await?;
            if !other.iter().any(|vm| vm.name == "web1") {
                return Ok(());
            }
            ensure!(tokio::time::Instant::now() < deadline, "{other:?}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Waits until the agent of a host sees the guest in that state.
    async fn seen(&self, on: usize, state: &str) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + LONG;
        loop {
            let vms = self.cluster.api(on).vms().await?;
            if vms.iter().any(|vm| vm.name == "web1" && vm.state == state) {
                return Ok(());
            }
            ensure!(tokio::time::Instant::now() < deadline, "{state}: {vms:?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// A move that is refused, and all that is told of it.
    async fn refused(&self, from: usize, to: usize) -> anyhow::Result<String> {
        let id = self.send(from, to).await?;
        let view = self.cluster.ended(from, &id, LONG).await?;
        ensure!(view.phase != "done", "{view:?}");
        let filter = EventFilter { move_id: Some(id), ..EventFilter::default() };
        let told = self.cluster.api(from).events(&filter).await?;
        Ok(serde_json::to_string(&told)?)
    }

    async fn moves(&self, from: usize, to: usize) -> anyhow::Result<()> {
        let id = self.send(from, to).await?;
        let view = self.cluster.ended(from, &id, LONG).await?;
        ensure!(view.phase == "done", "{view:?}");
        Ok(())
    }

    /// An operator's own `virsh migrate` of the guest.
    fn theirs(&self, from: usize, to: usize) -> anyhow::Result<Child> {
        let at = self.cluster.host(to).address();
        let (to, at) = (format!("qemu+tcp://{at}/system"), format!("tcp:{at}"));
        let words = ["migrate", "--live", "--p2p", "--persistent", "--undefinesource", "web1"];
        begun(self.cluster.host(from), &[&words[..], &[&to, &at]].concat())
    }
}

#[test]
fn an_operators_own_migration_and_ours_leave_one_copy_whichever_is_first() {
    let name = "meanwhile::an_operators_own_migration_and_ours_leave_one_copy_whichever_is_first";
    let set = Set { listening: true, ..Set::default() };
    with_guest_and(
        name,
        &set,
        |_network| Ok(PathBuf::from(DAEMON)),
        async |bed| {
            let id = bed.copying().await?;
            let theirs = bed.theirs(0, 1)?;
            bed.cluster.host(1).limit_uplink(None)?;
            let view = bed.ended(&id).await?;
            ensure!(view.phase == "done", "{view:?}");
            let (done, said) = ended(theirs)?;
            ensure!(!done, "both were done: {said}");
            bed.is_only(1).await?;

            bed.cluster.host(0).limit_uplink(Some(decide::units::BitsPerSec(60_000_000)))?;
            let theirs = bed.theirs(1, 0)?;
            bed.sends(1).await?;
            let why = bed.refused(1, 0).await?;
            println!("refused: {why}");
            ensure!(bed.running() == [1], "it runs on, and so does their migration");
            bed.cluster.host(0).limit_uplink(None)?;
            let (done, said) = ended(theirs)?;
            ensure!(done, "{said}");
            bed.is_only(0).await?;
            // And the agents agree whose it is.
            bed.moves(0, 1).await?;
            bed.is_only(1).await
        },
    );
}

#[test]
fn a_guest_that_is_paused_meanwhile_is_in_one_place() {
    with_guest("meanwhile::a_guest_that_is_paused_meanwhile_is_in_one_place", async |bed| {
        // In mid-copy: it runs on where it comes to, as after a migration of libvirt's own.
        let id = bed.copying().await?;
        virsh(bed.cluster.host(0), &["suspend", "web1"])?;
        bed.cluster.host(1).limit_uplink(None)?;
        let view = bed.ended(&id).await?;
        ensure!(view.phase == "done", "{view:?}");
        bed.is_only(1).await?;
        // Before: it stays paused.
        virsh(bed.cluster.host(1), &["suspend", "web1"])?;
        bed.seen(1, "paused").await?;
        bed.moves(1, 0).await?;
        bed.seen(0, "paused").await?;
        let state = virsh(bed.cluster.host(0), &["domstate", "web1"])?;
        ensure!(state == "paused" && bed.running().is_empty(), "{state}");
        ensure!(guests::qemus(bed.cluster.host(1), bed.plan.vm())?.is_empty());
        virsh(bed.cluster.host(0), &["resume", "web1"])?;
        bed.is_only(0).await
    });
}

#[test]
fn a_guest_that_is_destroyed_in_mid_copy_starts_where_the_journal_has_it() {
    let name = "meanwhile::a_guest_that_is_destroyed_in_mid_copy_starts_where_the_journal_has_it";
    with_guest(name, async |bed| {
        let id = bed.copying().await?;
        virsh(bed.cluster.host(0), &["destroy", "web1"])?;
        bed.cluster.host(1).limit_uplink(None)?;
        let view = bed.ended(&id).await?;
        ensure!(view.phase != "done" && bed.running().is_empty(), "{view:?}");
        let target = bed.cluster.host(1);
        wait::until(LONG, "nothing is left at the target", || {
            let none = guests::qemus(target, bed.plan.vm())?.is_empty()
                && virsh(target, &["list", "--all", "--name"])?.is_empty();
            Ok(none.then_some(()))
        })
        .await?;
        // Its first life is over.
        bed.lived_one_life()?;
        fs::write(guests::console_file(bed.cluster.host(0), bed.plan.vm()), "")?;
        virsh(bed.cluster.host(0), &["start", "web1"])?;
        bed.is_only(0).await
    });
}

#[test]
fn a_guest_that_is_undefined_in_mid_copy_is_kept_where_it_comes_to() {
    let name = "meanwhile::a_guest_that_is_undefined_in_mid_copy_is_kept_where_it_comes_to";
    with_guest(name, async |bed| {
        let id = bed.copying().await?;
        // libvirt has it wait for the copy's end.
        let undefine = begun(bed.cluster.host(0), &["undefine", "web1"])?;
        bed.cluster.host(1).limit_uplink(None)?;
        let view = bed.ended(&id).await?;
        ensure!(view.phase == "done", "{view:?}");
        ended(undefine)?;
        bed.is_only(1).await?;
        let left = virsh(bed.cluster.host(0), &["list", "--all", "--name"])?;
        ensure!(left.is_empty(), "{left} is left");
        Ok(())
    });
}

#[test]
fn a_snapshot_in_progress_comes_first_and_a_move_afterwards() {
    let name = "meanwhile::a_snapshot_in_progress_comes_first_and_a_move_afterwards";
    with_guest(name, async |bed| {
        // A pipe that nobody reads: the snapshot's memory waits in it.
        let pipe = bed.cluster.network.folder().join("memory");
        let made = Command::new("mkfifo").arg(&pipe).status()?;
        ensure!(made.success(), "mkfifo: {made}");
        let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits())?;
        let mut reader = OpenOptions::new().read(true).custom_flags(nonblock).open(&pipe)?;
        let memory = format!("file={},snapshot=external", pipe.display());
        let words = ["snapshot-create-as", "web1", "s1", "--live", "--memspec", &memory];
        let snapshot = begun(bed.cluster.host(0), &words)?;
        wait::until(LONG, "something of it is written", || {
            Ok(reader.read(&mut [0]).is_ok_and(|read| read == 1).then_some(()))
        })
        .await?;
        let why = bed.refused(0, 1).await?;
        ensure!(why.contains("libvirt has another job for it"), "{why}");
        let job = virsh(bed.cluster.host(0), &["domjobinfo", "web1"])?;
        ensure!(job.contains("Operation:"), "the snapshot goes on: {job}");
        bed.is_only(0).await?;
        virsh(bed.cluster.host(0), &["domjobabort", "web1"])?;
        drop(reader);
        let (done, said) = ended(snapshot)?;
        ensure!(!done, "it was given up: {said}");
        fs::remove_file(&pipe)?;
        bed.moves(0, 1).await?;
        bed.is_only(1).await
    });
}
