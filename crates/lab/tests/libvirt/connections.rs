//! Connections to libvirt that end alone, and QEMUs that hang: what is promised holds, and nobody else waits.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use decide::migrate::hypervisor::{
    HypervisorCommand as C, HypervisorReport as R, RunState, Sighting,
};
use decide::units::VmId;
use lab::hosts::Host;
use lab::libvirt::{self, virsh};
use lab::{guests, sandbox};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::hosts::{FAST, Pair, empty, start_empty, until};

/// Ends the newest connection to the daemon of a host, as its administrator can.
fn end_newest_connection(host: &Host) -> anyhow::Result<()> {
    let admin = |arguments: &[&str]| -> anyhow::Result<String> {
        let output = host.command("virt-admin").args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "virt-admin {arguments:?}: {said}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let clients = admin(&["client-list", "libvirtd"])?;
    let ids =
        clients.lines().filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    let newest = ids.max().with_context(|| format!("no connection in:\n{clients}"))?;
    admin(&["client-disconnect", "libvirtd", &newest.to_string()]).map(drop)
}

fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.contains(") T ")
}

#[test]
fn a_copy_whose_own_connection_ends_is_stopped_at_once_and_the_move_goes_on() {
    let name =
        "connections::a_copy_whose_own_connection_ends_is_stopped_at_once_and_the_move_goes_on";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        stops_at_once(&mut pair, VmId(0x71), RunState::Running).await?;
        // libvirt does not say of this one that a migration paused it.
        stops_at_once(&mut pair, VmId(0x72), RunState::Paused).await
    });
}

async fn stops_at_once(pair: &mut Pair, vm: VmId, run: RunState) -> anyhow::Result<()> {
    let name = format!("vm-{:x}", vm.0);
    let definition = start_empty(pair, vm, 0).await?;
    if run == RunState::Paused {
        virsh(pair.host(&pair.a), &["suspend", &name])?;
        ensure!(pair.a.sighting().await? == Sighting::RunStateChanged(vm, run));
    }
    let endpoint = pair.b.prepare(&definition, FAST).await?;
    pair.a.expect(vm, C::StartCopy(endpoint, FAST), R::PreSwitchover).await?;
    ensure!(matches!(pair.a.ask(vm, C::SwitchOver).await?, R::SourceCompleted(_)));
    pair.a.expect(vm, C::Fence, R::Fenced).await?;
    let pid = guests::qemus(pair.host(&pair.a), vm)?[0];
    ensure!(!is_stopped(pid), "libvirt holds it");
    end_newest_connection(pair.host(&pair.a))?;
    let ended = Instant::now();
    until("it is stopped", || is_stopped(pid)).await?;
    // By itself: not by the next look at all domains.
    ensure!(ended.elapsed() < Duration::from_millis(1500), "{:?}", ended.elapsed());
    ensure!(virsh(pair.host(&pair.a), &["domstate", &name])? == "paused", "nobody let it run");
    ensure!(pair.b.report().await? == R::IncomingCompleted);
    pair.b.expect(vm, C::Resume(run), R::Resumed).await?;
    pair.a.expect(vm, C::Discard, R::Discarded).await?;
    ensure!(guests::qemus(pair.host(&pair.a), vm)?.is_empty());
    ensure!(pair.running(vm) == usize::from(run == RunState::Running));
    Ok(())
}

#[test]
fn vms_that_hang_keep_nobody_from_the_others() {
    sandbox::test_with(true, "connections::vms_that_hang_keep_nobody_from_the_others", || async {
        let mut pair = Pair::start().await?;
        let (hang, well, comes) = (0x81..=0x86, VmId(0x91), VmId(0x92));
        start_empty(&mut pair, well, 0).await?;
        let mut asked = Vec::new();
        for number in hang {
            start_empty(&mut pair, VmId(number), 0).await?;
            let host = &pair.network.hosts()[0];
            let pid = guests::qemus(host, VmId(number))?[0];
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process")?;
            kill_process(pid, Signal::STOP)?;
            // Whoever asks it now waits, and with him all who ask libvirt for it.
            let name = format!("vm-{number:x}");
            let mut command = host.command("virsh");
            command.args([
                "-c",
                "qemu:///system",
                "qemu-monitor-command",
                &name,
                "--hmp",
                "info status",
            ]);
            asked.push(command.stdout(std::process::Stdio::null()).spawn()?);
        }
        pair.a.restart()?;
        let host = &pair.network.hosts()[0];
        let began = Instant::now();
        libvirt::start(host, "vm-92", &empty(&pair.network, comes, 0)?)?;
        let (mut found, mut paused) = (false, false);
        while !(found && paused) {
            match pair.a.sighting().await? {
                Sighting::Found(definition, _) if definition.vm == comes => found = true,
                Sighting::Found(definition, _) if definition.vm == well => {
                    virsh(host, &["suspend", "vm-91"])?;
                }
                Sighting::RunStateChanged(vm, RunState::Paused) if vm == well => paused = true,
                other => anyhow::bail!("{other:?}"),
            }
        }
        ensure!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        // And so it stays while they hang.
        for (word, state) in [("resume", RunState::Running), ("suspend", RunState::Paused)] {
            let began = Instant::now();
            virsh(host, &[word, "vm-91"])?;
            ensure!(pair.a.sighting().await? == Sighting::RunStateChanged(well, state));
            ensure!(began.elapsed() < Duration::from_secs(3), "{word}: {:?}", began.elapsed());
        }
        for mut asked in asked {
            asked.kill()?;
            asked.wait()?;
        }
        Ok(())
    });
}
