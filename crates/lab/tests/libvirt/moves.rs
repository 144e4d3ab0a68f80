//! Adoption, and of moves what the contract leaves out: a guest with a system, its network, autostart and definition.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use decide::migrate::hypervisor::{
    HypervisorCommand as C, HypervisorReport as R, RunState, Seen, Sighting, VmDefinition,
};
use decide::units::VmId;
use drivers::hypervisor::Hypervisor;
use lab::clients::Pinger;
use lab::guests::{self, GuestPlan};
use lab::hosts::Host;
use lab::libvirt::{self, virsh};
use lab::sandbox;
use lab::setup::Parts;

use crate::hosts::{FAST, Pair, empty, start_empty, until};

#[test]
fn domains_are_found_watched_and_told_of() {
    sandbox::test_with(true, "moves::domains_are_found_watched_and_told_of", || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0x51);
        let tagged = empty(&pair.network, vm, 0)?.replace(
            "<memory",
            "<metadata><e:vm xmlns:e='urn:evenkeel:vm'><e:tag>plb_pin_host1</e:tag></e:vm></metadata><memory",
        );
        libvirt::start(pair.host(&pair.a), "vm-51", &tagged)?;
        let (found, run) = pair.a.finds(vm).await?;
        ensure!(run == RunState::Running && found.name == "vm-51", "{found:?}");
        ensure!(found.tags == ["plb_pin_host1"] && found.memory.0 == 64, "{found:?}");
        ensure!(found.needs.driver == "libvirt" && found.needs.bridge == "br0", "{found:?}");
        ensure!(found.needs.machine == guests::MACHINE, "{found:?}");
        let watched = pair.a.driver().watched();
        ensure!(watched.len() == 1 && watched[0].name == "vm-51", "{watched:?}");
        let pids = guests::qemus(pair.host(&pair.a), vm)?;
        ensure!(pids == [watched[0].pid] && watched[0].process_start > 0, "{watched:?}");
        let tap = watched[0].tap.clone().unwrap_or_default();
        ensure!(pair.host(&pair.a).path(&format!("/sys/class/net/{tap}/brport")).exists(), "{tap}");

        let host = &pair.network.hosts()[0];
        virsh(host, &["suspend", "vm-51"])?;
        ensure!(pair.a.sighting().await? == Sighting::RunStateChanged(vm, RunState::Paused));
        virsh(host, &["resume", "vm-51"])?;
        ensure!(pair.a.sighting().await? == Sighting::RunStateChanged(vm, RunState::Running));
        // Tags that are written to a running domain are read anew.
        let ours = ["metadata", "vm-51", "--uri", "urn:evenkeel:vm", "--key", "e", "--live"];
        let set = "--set=<vm><tag>plb_pin_host2</tag></vm>";
        virsh(host, &[&ours[..], &[set]].concat())?;
        while pair.a.finds(vm).await?.0.tags != ["plb_pin_host2"] {}
        virsh(host, &["destroy", "vm-51"])?;
        match pair.a.sighting().await? {
            Sighting::Gone(gone, how) => ensure!(gone == vm && how.contains("destroyed"), "{how}"),
            other => bail!("{other:?}"),
        }
        ensure!(pair.a.driver().watched().is_empty());
        let others = pair.a.driver().others();
        ensure!(others.len() == 1 && others[0].name == "vm-51" && !others[0].runs, "{others:?}");
        virsh(host, &["start", "vm-51"])?;
        pair.a.finds(vm).await?;
        Ok(())
    });
}

#[test]
fn a_guest_moves_there_and_back_with_its_network_and_its_autostart() {
    let name = "moves::a_guest_moves_there_and_back_with_its_network_and_its_autostart";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let (plan, parts) = (GuestPlan::new("web1", 1), Parts::load()?);
        let vm = plan.vm();
        libvirt::start(pair.host(&pair.a), "web1", &libvirt::definition(&plan, &parts))?;
        let booted = || guests::console(pair.host(&pair.a), vm).contains("READY");
        until("the guest is ready", booted).await?;
        let pace = Duration::from_millis(10);
        let pinger = Pinger::start(pair.network.client(), plan.address(), pace)?;
        let (mut definition, _) = pair.a.finds(vm).await?;
        virsh(pair.host(&pair.a), &["autostart", "web1"])?;
        while !definition.start.contains("\"autostart\":true") {
            (definition, _) = pair.a.finds(vm).await?;
        }
        for _ in 0..2 {
            let tap = pair.a.driver().watched()[0].tap.clone().unwrap_or_default();
            let endpoint = pair.b.prepare(&definition, FAST).await?;
            pair.a.expect(vm, C::StartCopy(endpoint, FAST), R::PreSwitchover).await?;
            let R::SourceCompleted(figures) = pair.a.ask(vm, C::SwitchOver).await? else {
                bail!("not completed")
            };
            ensure!(figures.progress.total.0 >= 160 << 20, "{figures:?}");
            ensure!(figures.progress.transferred.0 > 0 && !figures.total.is_zero(), "{figures:?}");
            ensure!(pair.b.report().await? == R::IncomingCompleted);
            let seen = (pair.a.looks(vm).await?, pair.b.looks(vm).await?);
            ensure!(seen == (Seen::PostMigrate, Seen::IncomingComplete), "{seen:?}");
            ensure!(pair.running(vm) == 0, "nobody runs before the hand-over");
            pair.a.expect(vm, C::Fence, R::Fenced).await?;
            let port = pair.host(&pair.a).path(&format!("/sys/class/net/{tap}/brport"));
            ensure!(!port.exists(), "{tap} is still on its bridge");
            pair.b.expect(vm, C::Resume(RunState::Running), R::Resumed).await?;
            pair.a.expect(vm, C::Discard, R::Discarded).await?;
            ensure!(pair.running(vm) == 1 && guests::qemus(pair.host(&pair.a), vm)?.is_empty());
            let left = virsh(pair.host(&pair.a), &["list", "--all", "--name"])?;
            ensure!(left.is_empty(), "{left} is still defined");
            (definition, _) = pair.b.finds(vm).await?;
            let host = pair.host(&pair.b);
            let kept = || {
                let info = virsh(host, &["dominfo", "web1"]).unwrap_or_default();
                let says = |what: &str| {
                    info.lines().any(|line| line.split_whitespace().eq(what.split(' ')))
                };
                says("Persistent: yes") && says("Autostart: enable")
            };
            until("its definition is kept, with autostart", kept).await?;
            let Pair { a, b, .. } = &mut pair;
            std::mem::swap(a, b);
        }
        guests::one_life([&pair.network.hosts()[0], &pair.network.hosts()[1]], vm).or_else(
            |_| {
                // It went there and came back: each beat is from one host, in order.
                guests::each_once(&[
                    guests::heartbeats(&pair.network.hosts()[0], vm),
                    guests::heartbeats(&pair.network.hosts()[1], vm),
                ])
                .map(drop)
            },
        )?;
        let pings = pinger.stop().await?;
        // Two moves, each with less than two seconds without an answer.
        ensure!(pings.lost() < 400, "{pings:?}");
        Ok(())
    });
}

#[test]
fn a_vm_that_the_target_gave_up_is_taken_back_with_its_network() {
    let name = "moves::a_vm_that_the_target_gave_up_is_taken_back_with_its_network";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0x53);
        let definition = start_empty(&mut pair, vm, 0).await?;
        let tap = pair.a.driver().watched()[0].tap.clone().unwrap_or_default();
        // Once with the driver that made the copy, once with one that was started since.
        for restarts in [false, true] {
            let endpoint = pair.b.prepare(&definition, FAST).await?;
            pair.a.expect(vm, C::StartCopy(endpoint, FAST), R::PreSwitchover).await?;
            ensure!(matches!(pair.a.ask(vm, C::SwitchOver).await?, R::SourceCompleted(_)));
            ensure!(pair.b.report().await? == R::IncomingCompleted);
            pair.a.expect(vm, C::Fence, R::Fenced).await?;
            pair.b.expect(vm, C::DestroyIncoming, R::IncomingGone).await?;
            if restarts {
                pair.a.restart()?;
                ensure!(pair.a.looks(vm).await? == Seen::PostMigrate);
            }
            pair.a.expect(vm, C::TakeBack(RunState::Running), R::Resumed).await?;
            ensure!(pair.a.looks(vm).await? == Seen::Running && pair.running(vm) == 1);
            let port = pair.host(&pair.a).path(&format!("/sys/class/net/{tap}/brport"));
            ensure!(port.exists(), "{tap} is off its bridge");
        }
        Ok(())
    });
}

#[test]
fn a_definition_that_cannot_be_kept_is_told_of_once_and_goes_on_with_the_next_move() {
    let name =
        "moves::a_definition_that_cannot_be_kept_is_told_of_once_and_goes_on_with_the_next_move";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0x54);
        let definition = start_empty(&mut pair, vm, 0).await?;
        no_folder_for_definitions(pair.host(&pair.b))?;
        moves(&mut pair, vm, &definition).await?;
        let mut told = 0;
        let arrived = loop {
            match pair.b.sighting().await? {
                Sighting::Unusable(Some(of), why) if of == vm => {
                    ensure!(why.contains("is not kept here"), "{why}");
                    told += 1;
                }
                Sighting::Found(found, RunState::Running) if told > 0 => break found,
                _ => {}
            }
        };
        ensure!(!arrived.start.contains("\"kept\":null"), "{}", arrived.start);
        // Each other tag has it look again, and nothing but the tag is told of.
        let ours = ["metadata", "vm-54", "--uri", "urn:evenkeel:vm", "--key", "e", "--live"];
        let mut definition = *arrived;
        for tag in ["plb_pin_x", "plb_pin_y"] {
            let set = format!("--set=<vm><tag>{tag}</tag></vm>");
            virsh(pair.host(&pair.b), &[&ours[..], &[&set]].concat())?;
            definition = loop {
                match pair.b.sighting().await? {
                    Sighting::Found(found, _) if found.tags == [tag] => break *found,
                    Sighting::Found(..) => {}
                    other => bail!("said again: {other:?}"),
                }
            };
        }
        let Pair { a, b, .. } = &mut pair;
        std::mem::swap(a, b);
        moves(&mut pair, vm, &definition).await?;
        let host = pair.host(&pair.b);
        let kept = || {
            let info = virsh(host, &["dominfo", "vm-54"]).unwrap_or_default();
            info.lines().any(|line| line.split_whitespace().eq(["Persistent:", "yes"]))
        };
        until("its definition is kept where that can be", kept).await
    });
}

#[test]
fn a_definition_that_was_not_kept_yet_outlives_its_machine() {
    let name = "moves::a_definition_that_was_not_kept_yet_outlives_its_machine";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0x55);
        start_empty(&mut pair, vm, 0).await?;
        virsh(pair.host(&pair.a), &["autostart", "vm-55"])?;
        let mut definition = pair.a.finds(vm).await?.0;
        while !definition.start.contains("\"autostart\":true") {
            definition = pair.a.finds(vm).await?.0;
        }
        let folder = no_folder_for_definitions(pair.host(&pair.b))?;
        moves(&mut pair, vm, &definition).await?;

        // Its QEMU, the driver, and what is on tmpfs end with the machine.
        pair.b.stop();
        virsh(pair.host(&pair.b), &["destroy", "vm-55"])?;
        std::fs::remove_dir_all(pair.host(&pair.b).path("/run/evenkeel/libvirt"))?;
        let gone = virsh(pair.host(&pair.b), &["list", "--all", "--name"])?;
        ensure!(gone.is_empty(), "{gone} is known still");
        std::fs::remove_file(folder)?;
        pair.b.restart()?;
        let host = pair.host(&pair.b);
        let kept = || {
            let info = virsh(host, &["dominfo", "vm-55"]).unwrap_or_default();
            let says = |what: &[&str]| {
                info.lines().any(|line| line.split_whitespace().eq(what.iter().copied()))
            };
            says(&["Persistent:", "yes"]) && says(&["Autostart:", "enable"])
        };
        until("it is defined here, and started with its host", kept).await?;
        let marks = || {
            let left = std::fs::read_dir(host.path("/var/lib/evenkeel/libvirt"));
            left.is_ok_and(|mut left| left.next().is_none())
        };
        until("nothing is left to be kept", marks).await
    });
}

/// Where libvirt keeps definitions there is a file and no folder.
fn no_folder_for_definitions(host: &Host) -> anyhow::Result<PathBuf> {
    let folder = host.path("/etc/libvirt/qemu");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::write(&folder, "")?;
    Ok(folder)
}

/// From the first host to the second.
async fn moves(pair: &mut Pair, vm: VmId, definition: &VmDefinition) -> anyhow::Result<()> {
    let endpoint = pair.b.prepare(definition, FAST).await?;
    pair.a.expect(vm, C::StartCopy(endpoint, FAST), R::PreSwitchover).await?;
    ensure!(matches!(pair.a.ask(vm, C::SwitchOver).await?, R::SourceCompleted(_)));
    ensure!(pair.b.report().await? == R::IncomingCompleted);
    pair.a.expect(vm, C::Fence, R::Fenced).await?;
    pair.b.expect(vm, C::Resume(RunState::Running), R::Resumed).await?;
    pair.a.expect(vm, C::Discard, R::Discarded).await
}
