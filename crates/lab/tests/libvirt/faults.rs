//! Daemons and drivers that end in the middle of moves: one copy runs, and what is seen is soon what is there.

use std::time::Duration;

use anyhow::{bail, ensure};
use decide::migrate::hypervisor::{
    HypervisorCommand as C, HypervisorReport as R, RunState, Seen, Sighting,
};
use decide::units::VmId;
use drivers::hypervisor::Hypervisor;
use lab::guests;
use lab::libvirt::{self, Daemon, virsh};
use lab::sandbox;
use tokio::time::Instant;

use crate::hosts::{FAST, Pair, empty, start_empty};

/// The views agree again within so long after a daemon has come back.
const AGREE_MAX: Duration = Duration::from_secs(5);

#[test]
fn a_target_whose_daemon_is_killed_in_mid_copy_gives_it_up_and_the_source_runs_on() {
    let name =
        "faults::a_target_whose_daemon_is_killed_in_mid_copy_gives_it_up_and_the_source_runs_on";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0x61);
        let definition = start_empty(&mut pair, vm, 40).await?;
        let endpoint = pair.b.prepare(&definition, FAST).await?;
        pair.a.copy_until_progress(vm, endpoint).await?;
        pair.b.kill_daemon()?;
        pair.b.daemon = Some(Daemon::start(&pair.network.hosts()[1]).await?);
        ensure!(matches!(pair.b.report().await?, R::IncomingFailed(_)));
        match pair.a.report().await? {
            R::CopyFailed(_, Seen::Running) => {}
            other => bail!("{other:?}"),
        }
        ensure!(pair.running(vm) == 1 && guests::qemus(pair.host(&pair.b), vm)?.is_empty());
        // And nothing of it stands in the way of the next.
        let endpoint = pair.b.prepare(&definition, FAST).await?;
        pair.b.expect(vm, C::DestroyIncoming, R::IncomingGone).await?;
        drop(endpoint);
        Ok(())
    });
}

#[test]
fn a_source_whose_daemon_is_killed_in_mid_copy_keeps_the_vm() {
    let name = "faults::a_source_whose_daemon_is_killed_in_mid_copy_keeps_the_vm";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0x62);
        let definition = start_empty(&mut pair, vm, 40).await?;
        let endpoint = pair.b.prepare(&definition, FAST).await?;
        pair.a.copy_until_progress(vm, endpoint).await?;
        pair.a.kill_daemon()?;
        ensure!(guests::qemus(pair.host(&pair.a), vm)?.len() == 1, "its guest goes on");
        pair.a.daemon = Some(Daemon::start(&pair.network.hosts()[0]).await?);
        match pair.a.report().await? {
            R::CopyFailed(_, Seen::Running) => {}
            other => bail!("{other:?}"),
        }
        ensure!(pair.running(vm) == 1);
        ensure!(matches!(pair.b.report().await?, R::IncomingFailed(_)));
        ensure!(guests::qemus(pair.host(&pair.b), vm)?.is_empty());
        Ok(())
    });
}

/// With libvirt's own hand-over this is where both copies run: its answer to the source is lost, so the source lets the guest run
/// on, and the target has done so already. Here nothing runs at the target before our hand-over, whatever is lost.
#[test]
fn a_target_that_falls_silent_in_mid_copy_never_makes_two_run() {
    let name = "faults::a_target_that_falls_silent_in_mid_copy_never_makes_two_run";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0x63);
        let definition = start_empty(&mut pair, vm, 8).await?;
        let endpoint = pair.b.prepare(&definition, FAST).await?;
        pair.a.copy_until_progress(vm, endpoint).await?;
        pair.b.stop();
        ensure!(pair.a.report().await? == R::PreSwitchover, "the copy itself goes on");
        ensure!(pair.running(vm) == 0);
        match pair.a.ask(vm, C::CancelCopy).await? {
            R::CopyFailed(_, Seen::Running) => {}
            other => bail!("{other:?}"),
        }
        ensure!(pair.running(vm) == 1 && guests::qemus(pair.host(&pair.a), vm)?.len() == 1);
        pair.b.restart()?;
        let seen = pair.b.looks(vm).await?;
        ensure!(matches!(seen, Seen::IncomingComplete | Seen::Gone), "{seen:?}");
        pair.b.expect(vm, C::DestroyIncoming, R::IncomingGone).await?;
        ensure!(pair.running(vm) == 1 && guests::qemus(pair.host(&pair.b), vm)?.is_empty());
        Ok(())
    });
}

#[test]
fn a_source_whose_agent_is_killed_after_the_copy_stays_stopped_until_it_is_told() {
    let name =
        "faults::a_source_whose_agent_is_killed_after_the_copy_stays_stopped_until_it_is_told";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0x64);
        let definition = start_empty(&mut pair, vm, 0).await?;
        let endpoint = pair.b.prepare(&definition, FAST).await?;
        pair.a.expect(vm, C::StartCopy(endpoint, FAST), R::PreSwitchover).await?;
        ensure!(matches!(pair.a.ask(vm, C::SwitchOver).await?, R::SourceCompleted(_)));
        ensure!(pair.b.report().await? == R::IncomingCompleted);
        pair.a.restart()?;
        ensure!(pair.a.looks(vm).await? == Seen::PostMigrate, "complete, and seen to be");
        pair.a.expect(vm, C::Fence, R::Fenced).await?;
        let pid = guests::qemus(pair.host(&pair.a), vm)?[0];
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        ensure!(stat.contains(") T "), "nobody can let it run: {stat}");
        pair.a.restart()?;
        ensure!(pair.a.looks(vm).await? == Seen::PostMigrate, "and so it stays");
        pair.b.restart()?;
        ensure!(pair.b.looks(vm).await? == Seen::IncomingComplete);
        pair.b.expect(vm, C::Resume(RunState::Running), R::Resumed).await?;
        pair.a.expect(vm, C::Discard, R::Discarded).await?;
        ensure!(pair.running(vm) == 1 && guests::qemus(pair.host(&pair.a), vm)?.is_empty());
        ensure!(virsh(pair.host(&pair.a), &["list", "--all", "--name"])?.is_empty());
        Ok(())
    });
}

#[test]
fn what_was_released_and_ended_is_not_started_with_its_host() {
    let name = "faults::what_was_released_and_ended_is_not_started_with_its_host";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let (vm, later) = (VmId(0x68), VmId(0x6a));
        let mut definition = start_empty(&mut pair, vm, 0).await?;
        virsh(pair.host(&pair.a), &["autostart", "vm-68"])?;
        while !definition.start.contains("\"autostart\":true") {
            (definition, _) = pair.a.finds(vm).await?;
        }
        let endpoint = pair.b.prepare(&definition, FAST).await?;
        pair.a.expect(vm, C::StartCopy(endpoint, FAST), R::PreSwitchover).await?;
        ensure!(matches!(pair.a.ask(vm, C::SwitchOver).await?, R::SourceCompleted(_)));
        pair.a.expect(vm, C::Fence, R::Fenced).await?;
        guests::kill_qemu(pair.host(&pair.a), vm)?;
        match pair.a.sighting().await? {
            Sighting::Gone(gone, _) => ensure!(gone == vm),
            other => bail!("{other:?}"),
        }
        // Found when all were listed once more: so the other was looked at since it ended.
        start_empty(&mut pair, later, 0).await?;
        ensure!(pair.a.looks(vm).await? == Seen::Gone);
        let told = virsh(pair.host(&pair.a), &["dominfo", "vm-68"])?;
        let off =
            told.lines().any(|line| line.starts_with("Autostart:") && line.ends_with("disable"));
        ensure!(off, "{told}");
        Ok(())
    });
}

#[test]
fn a_copy_that_somebody_let_run_meanwhile_is_not_said_to_be_fenced() {
    let name = "faults::a_copy_that_somebody_let_run_meanwhile_is_not_said_to_be_fenced";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0x69);
        let definition = start_empty(&mut pair, vm, 0).await?;
        let endpoint = pair.b.prepare(&definition, FAST).await?;
        pair.a.expect(vm, C::StartCopy(endpoint, FAST), R::PreSwitchover).await?;
        ensure!(matches!(pair.a.ask(vm, C::SwitchOver).await?, R::SourceCompleted(_)));
        pair.a.stop();
        virsh(pair.host(&pair.a), &["resume", "vm-69"])?;
        pair.a.restart()?;
        ensure!(pair.a.looks(vm).await? == Seen::Running);
        pair.a.order(vm, C::Fence);
        loop {
            match pair.a.sighting().await? {
                Sighting::Unusable(Some(about), why) if about == vm => {
                    ensure!(why.contains("somebody has touched it since"), "{why}");
                    break;
                }
                _ => {}
            }
        }
        let pid = guests::qemus(pair.host(&pair.a), vm)?[0];
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        ensure!(!stat.contains(") T "), "it goes on: {stat}");
        ensure!(pair.running(vm) == 1);
        Ok(())
    });
}

#[test]
fn after_a_daemon_has_come_back_the_views_agree_within_seconds() {
    let name = "faults::after_a_daemon_has_come_back_the_views_agree_within_seconds";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let (stays, ends, comes) = (VmId(0x65), VmId(0x66), VmId(0x67));
        start_empty(&mut pair, stays, 0).await?;
        start_empty(&mut pair, ends, 0).await?;
        pair.a.kill_daemon()?;
        guests::kill_qemu(pair.host(&pair.a), ends)?;
        match pair.a.sighting().await? {
            Sighting::Gone(vm, _) => ensure!(vm == ends),
            other => bail!("{other:?}"),
        }
        let host = &pair.network.hosts()[0];
        pair.a.daemon = Some(Daemon::start(host).await?);
        let back = Instant::now();
        virsh(host, &["suspend", "vm-65"])?;
        libvirt::start(host, "vm-67", &empty(&pair.network, comes, 0)?)?;
        let (mut found, mut paused) = (false, false);
        while !(found && paused) {
            match pair.a.sighting().await? {
                Sighting::Found(definition, run) if definition.vm == comes => {
                    found = run == RunState::Running;
                }
                Sighting::Found(definition, RunState::Paused) if definition.vm == stays => {
                    paused = true;
                }
                Sighting::RunStateChanged(vm, RunState::Paused) if vm == stays => paused = true,
                // While it was away that was said, and nothing is lost by hearing it again.
                Sighting::Unusable(None, why) => ensure!(why.contains("libvirt cannot be used")),
                Sighting::Found(definition, _) if definition.vm == stays => {}
                other => bail!("{other:?}"),
            }
        }
        ensure!(back.elapsed() < AGREE_MAX, "{:?}", back.elapsed());
        let watched: Vec<VmId> = pair.a.driver().watched().iter().map(|it| it.vm).collect();
        ensure!(watched == [stays, comes], "{watched:?}");
        Ok(())
    });
}
