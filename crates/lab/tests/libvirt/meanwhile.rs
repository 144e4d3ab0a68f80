//! What an operator does by virsh before a move of ours and in its middle: one copy runs, or is paused as it was paused.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, Output, Stdio};

use anyhow::{Context, bail, ensure};
use decide::migrate::hypervisor::{
    Endpoint, HypervisorCommand as C, HypervisorReport as R, RunState, Seen, Sighting,
};
use decide::units::VmId;
use drivers::hypervisor::libvirt::{DiskSeen, storage};
use lab::hosts::Host;
use lab::libvirt::{self, virsh};
use lab::{guests, sandbox};

use crate::hosts::{FAST, Pair, empty, start_empty, until};

/// Lets a copy that is held up by its limit go on as fast as it can, as an operator may.
fn free(host: &Host, name: &str) -> anyhow::Result<()> {
    virsh(host, &["migrate-setspeed", name, "8000"]).map(drop)
}

/// A command of virsh's that takes long.
fn virsh_begun(host: &Host, arguments: &[&str]) -> anyhow::Result<Child> {
    let mut command = host.command("virsh");
    command.args(["-c", "qemu:///system"]).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().context("starting virsh")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// What libvirt does with a domain besides.
fn job(host: &Host, name: &str) -> String {
    virsh(host, &["domjobinfo", name]).unwrap_or_default()
}

/// Hands the VM over, whose copy is complete.
async fn hand_over(pair: &mut Pair, vm: VmId, run_state: RunState) -> anyhow::Result<()> {
    ensure!(pair.a.report().await? == R::PreSwitchover);
    ensure!(matches!(pair.a.ask(vm, C::SwitchOver).await?, R::SourceCompleted(_)));
    ensure!(pair.b.report().await? == R::IncomingCompleted);
    ensure!(pair.running(vm) == 0, "nobody runs before the hand-over");
    pair.a.expect(vm, C::Fence, R::Fenced).await?;
    pair.b.expect(vm, C::Resume(run_state), R::Resumed).await?;
    pair.a.expect(vm, C::Discard, R::Discarded).await?;
    ensure!(guests::qemus(pair.host(&pair.a), vm)?.is_empty());
    let left = virsh(pair.host(&pair.a), &["list", "--all", "--name"])?;
    ensure!(left.is_empty(), "{left} is still defined");
    Ok(())
}

/// A copy that stays in its middle.
async fn held_up(pair: &mut Pair, vm: VmId) -> anyhow::Result<()> {
    let definition = start_empty(pair, vm, 40).await?;
    let endpoint = pair.b.prepare(&definition, FAST).await?;
    pair.a.copy_until_progress(vm, endpoint).await
}

/// A copy is refused while libvirt has another job for the VM, which goes on; also when the move is cancelled then.
async fn refused(pair: &mut Pair, vm: VmId, to: &Endpoint) -> anyhow::Result<()> {
    let name = format!("vm-{:x}", vm.0);
    for command in [C::StartCopy(to.clone(), FAST), C::CancelCopy] {
        match pair.a.ask(vm, command).await? {
            R::CopyFailed(told, Seen::Running | Seen::Copying) => {
                ensure!(told.contains("libvirt has another job for it"), "{told}");
            }
            other => bail!("{other:?}"),
        }
        ensure!(pair.running(vm) == 1);
        ensure!(job(pair.host(&pair.a), &name).contains("Operation:"), "its job goes on");
    }
    Ok(())
}

#[test]
fn one_that_is_paused_before_its_move_is_paused_there() {
    let name = "meanwhile::one_that_is_paused_before_its_move_is_paused_there";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0xa1);
        let definition = start_empty(&mut pair, vm, 0).await?;
        virsh(pair.host(&pair.a), &["suspend", "vm-a1"])?;
        ensure!(
            pair.a.sighting().await? == Sighting::RunStateChanged(vm, RunState::Paused),
            "it is seen"
        );
        let endpoint = pair.b.prepare(&definition, FAST).await?;
        pair.a.order(vm, C::StartCopy(endpoint, FAST));
        hand_over(&mut pair, vm, RunState::Paused).await?;
        let state = || virsh(pair.host(&pair.b), &["domstate", "vm-a1"]);
        ensure!(state()? == "paused" && pair.running(vm) == 0);
        virsh(pair.host(&pair.b), &["resume", "vm-a1"])?;
        ensure!(pair.running(vm) == 1);
        Ok(())
    });
}

/// Who has let it run and paused it again cannot be told from who never did.
#[test]
fn one_that_was_paused_before_and_whose_agent_is_killed_at_the_end_waits_for_a_person() {
    let name = "meanwhile::one_that_was_paused_before_and_whose_agent_is_killed_at_the_end_waits_for_a_person";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0xa9);
        let definition = start_empty(&mut pair, vm, 0).await?;
        virsh(pair.host(&pair.a), &["suspend", "vm-a9"])?;
        let endpoint = pair.b.prepare(&definition, FAST).await?;
        pair.a.expect(vm, C::StartCopy(endpoint, FAST), R::PreSwitchover).await?;
        ensure!(matches!(pair.a.ask(vm, C::SwitchOver).await?, R::SourceCompleted(_)));
        pair.a.restart()?;
        pair.a.order(vm, C::Fence);
        loop {
            match pair.a.sighting().await? {
                Sighting::Unusable(Some(about), why) if about == vm => {
                    ensure!(why.contains("only a person can say"), "{why}");
                    break;
                }
                _ => {}
            }
        }
        ensure!(pair.running(vm) == 0 && guests::qemus(pair.host(&pair.a), vm)?.len() == 1);
        ensure!(pair.b.report().await? == R::IncomingCompleted);
        ensure!(guests::qemus(pair.host(&pair.b), vm)?.len() == 1, "both copies are kept");
        Ok(())
    });
}

#[test]
fn one_that_is_paused_in_mid_copy_moves_all_the_same() {
    let name = "meanwhile::one_that_is_paused_in_mid_copy_moves_all_the_same";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0xa2);
        held_up(&mut pair, vm).await?;
        virsh(pair.host(&pair.a), &["suspend", "vm-a2"])?;
        ensure!(pair.running(vm) == 0, "libvirt lets it be paused");
        free(pair.host(&pair.a), "vm-a2")?;
        hand_over(&mut pair, vm, RunState::Running).await?;
        ensure!(pair.running(vm) == 1);
        Ok(())
    });
}

#[test]
fn one_that_is_destroyed_in_mid_copy_is_nowhere_and_starts_where_it_was() {
    let name = "meanwhile::one_that_is_destroyed_in_mid_copy_is_nowhere_and_starts_where_it_was";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0xa3);
        held_up(&mut pair, vm).await?;
        virsh(pair.host(&pair.a), &["destroy", "vm-a3"])?;
        match pair.a.report().await? {
            R::CopyFailed(_, Seen::Gone) => {}
            other => bail!("{other:?}"),
        }
        ensure!(matches!(pair.b.report().await?, R::IncomingFailed(_)));
        ensure!(guests::qemus(pair.host(&pair.b), vm)?.is_empty() && pair.running(vm) == 0);
        let there = virsh(pair.host(&pair.b), &["list", "--all", "--name"])?;
        ensure!(there.is_empty(), "{there} is left at the target");
        virsh(pair.host(&pair.a), &["start", "vm-a3"])?;
        ensure!(pair.running(vm) == 1);
        Ok(())
    });
}

#[test]
fn one_that_is_undefined_in_mid_copy_is_kept_where_it_comes_to() {
    let name = "meanwhile::one_that_is_undefined_in_mid_copy_is_kept_where_it_comes_to";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0xa4);
        held_up(&mut pair, vm).await?;
        // libvirt has it wait for the end of the copy, for as long as half a minute.
        let undefine = virsh_begun(pair.host(&pair.a), &["undefine", "vm-a4"])?;
        free(pair.host(&pair.a), "vm-a4")?;
        hand_over(&mut pair, vm, RunState::Running).await?;
        undefine.wait_with_output()?;
        ensure!(pair.running(vm) == 1);
        let host = pair.host(&pair.b);
        let kept = || {
            let info = virsh(host, &["dominfo", "vm-a4"]).unwrap_or_default();
            info.lines().any(|line| line.split_whitespace().eq(["Persistent:", "yes"]))
        };
        until("its definition is kept, as it was when it left", kept).await
    });
}

#[test]
fn one_that_is_undefined_before_its_move_is_transient_and_stays_so() {
    let name = "meanwhile::one_that_is_undefined_before_its_move_is_transient_and_stays_so";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0xaa);
        let mut definition = start_empty(&mut pair, vm, 0).await?;
        virsh(pair.host(&pair.a), &["undefine", "vm-aa"])?;
        while !definition.start.contains("\"kept\":null") {
            (definition, _) = pair.a.finds(vm).await?;
        }
        let endpoint = pair.b.prepare(&definition, FAST).await?;
        pair.a.order(vm, C::StartCopy(endpoint, FAST));
        hand_over(&mut pair, vm, RunState::Running).await?;
        pair.b.finds(vm).await?;
        let told = virsh(pair.host(&pair.b), &["dominfo", "vm-aa"])?;
        let transient = |line: &str| line.split_whitespace().eq(["Persistent:", "no"]);
        ensure!(told.lines().any(transient), "{told}");
        ensure!(pair.running(vm) == 1);
        Ok(())
    });
}

/// The file that a pipe's writer waits at: a job of libvirt's that writes to it lasts until it is read.
fn stopped_pipe(path: &Path) -> anyhow::Result<File> {
    let made = std::process::Command::new("mkfifo").arg(path).status()?;
    ensure!(made.success(), "mkfifo: {made}");
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits())?;
    let reader = OpenOptions::new().read(true).custom_flags(nonblock).open(path);
    reader.context("opening a pipe")
}

#[test]
fn while_a_snapshot_is_taken_a_copy_is_refused_and_afterwards_it_is_made() {
    let name = "meanwhile::while_a_snapshot_is_taken_a_copy_is_refused_and_afterwards_it_is_made";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0xa5);
        let definition = start_empty(&mut pair, vm, 8).await?;
        let endpoint = pair.b.prepare(&definition, FAST).await?;
        let pipe = pair.network.folder().join("memory");
        let mut reader = stopped_pipe(&pipe)?;
        let memory = format!("file={},snapshot=external", pipe.display());
        let words = ["snapshot-create-as", "vm-a5", "s1", "--live", "--memspec", &memory];
        let snapshot = virsh_begun(pair.host(&pair.a), &words)?;
        let begun = || reader.read(&mut [0]).is_ok_and(|read| read == 1);
        until("something of it is written", begun).await?;
        refused(&mut pair, vm, &endpoint).await?;
        virsh(pair.host(&pair.a), &["domjobabort", "vm-a5"])?;
        drop(reader);
        // As another move finds it, which knows nothing of that one.
        pair.a.restart()?;
        let ended = snapshot.wait_with_output()?;
        ensure!(!ended.status.success(), "it was given up");
        pair.a.order(vm, C::StartCopy(endpoint, FAST));
        hand_over(&mut pair, vm, RunState::Running).await?;
        ensure!(pair.running(vm) == 1);
        Ok(())
    });
}

/// That domain with a disk of 1 MiB, in that file.
fn with_disk(domain: &str, disk: &Path) -> anyhow::Result<String> {
    File::create(disk)?.set_len(1 << 20)?;
    let disk = format!(
        "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>\
         <source file='{}'/><target dev='vda' bus='virtio'/></disk></devices>",
        disk.display()
    );
    Ok(domain.replace("</devices>", &disk))
}

#[test]
fn a_disk_that_a_snapshot_has_taken_the_place_of_is_not_the_one_that_the_guest_goes_on_with() {
    let name = "meanwhile::a_disk_that_a_snapshot_has_taken_the_place_of_is_not_the_one_that_the_guest_goes_on_with";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0xaf);
        let folder = pair.network.folder().to_owned();
        let (disk, overlay) = (folder.join("base.img"), folder.join("overlay.img"));
        let domain = with_disk(&empty(&pair.network, vm, 8)?, &disk)?;
        libvirt::start(pair.host(&pair.a), "vm-af", &domain)?;
        let (definition, _) = pair.a.finds(vm).await?;
        let uri = libvirt::socket(pair.host(&pair.a)).display().to_string();
        let seen = storage(&uri, &[], None).await.map_err(anyhow::Error::msg)?;
        let [DiskSeen { disk: of, on, .. }] = &seen[..] else { bail!("{seen:?}") };
        ensure!(of == "vm-af vda" && on.ends_with("file system, locked by QEMU"), "{seen:?}");

        let endpoint = pair.b.prepare(&definition, FAST).await?;
        // There is no event of it.
        let spec = format!("vda,snapshot=external,file={}", overlay.display());
        let words = ["--disk-only", "--no-metadata", "--diskspec", &spec];
        virsh(pair.host(&pair.a), &[&["snapshot-create-as", "vm-af"], &words[..]].concat())?;
        match pair.a.ask(vm, C::StartCopy(endpoint, FAST)).await? {
            R::CopyFailed(why, Seen::Running) => ensure!(why.contains("ask again"), "{why}"),
            other => bail!("{other:?}"),
        }
        pair.b.expect(vm, C::DestroyIncoming, R::IncomingGone).await?;
        let (definition, _) = pair.a.finds(vm).await?;
        ensure!(definition.start.contains("overlay.img"), "{}", definition.start);
        // As another move finds it, which knows nothing of that one.
        pair.a.restart()?;
        pair.a.finds(vm).await?;
        let endpoint = pair.b.prepare(&definition, FAST).await?;
        pair.a.order(vm, C::StartCopy(endpoint, FAST));
        hand_over(&mut pair, vm, RunState::Running).await?;
        ensure!(pair.running(vm) == 1);
        let there = virsh(pair.host(&pair.b), &["domblklist", "vm-af"])?;
        ensure!(there.contains("overlay.img"), "{there}");
        Ok(())
    });
}

#[test]
fn while_a_backup_is_made_a_copy_is_refused_and_while_a_copy_is_made_a_backup_is() {
    let name =
        "meanwhile::while_a_backup_is_made_a_copy_is_refused_and_while_a_copy_is_made_a_backup_is";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0xa6);
        let folder = pair.network.folder().to_owned();
        let (disk, order) = (folder.join("disk.img"), folder.join("backup.xml"));
        let domain = with_disk(&empty(&pair.network, vm, 40)?, &disk)?;
        fs::write(
            &order,
            format!(
                "<domainbackup mode='pull'><server transport='unix' socket='{0}/nbd'/>\
                 <disks><disk name='vda' backup='yes' type='file'><scratch file='{0}/scratch'/></disk></disks></domainbackup>",
                folder.display()
            ),
        )?;
        libvirt::start(pair.host(&pair.a), "vm-a6", &domain)?;
        let (definition, _) = pair.a.finds(vm).await?;
        let endpoint = pair.b.prepare(&definition, FAST).await?;
        let order = order.display().to_string();
        let backup = ["backup-begin", "vm-a6", &*order];
        virsh(pair.host(&pair.a), &backup)?;
        refused(&mut pair, vm, &endpoint).await?;
        virsh(pair.host(&pair.a), &["domjobabort", "vm-a6"])?;
        let (host, ended) = (pair.host(&pair.a), "vm-a6");
        until("the backup has ended", || job(host, ended).contains("None")).await?;
        pair.a.restart()?;
        pair.a.copy_until_progress(vm, endpoint).await?;
        let late = virsh_begun(pair.host(&pair.a), &backup)?;
        free(pair.host(&pair.a), "vm-a6")?;
        hand_over(&mut pair, vm, RunState::Running).await?;
        let ended = late.wait_with_output()?;
        ensure!(!ended.status.success(), "a backup of what has left");
        ensure!(pair.running(vm) == 1, "{}", said(&ended));
        Ok(())
    });
}

/// An operator's own `virsh migrate` of it to the other host, limited or not.
fn theirs(pair: &Pair, name: &str, mib_per_second: u32) -> anyhow::Result<Child> {
    let to = format!("qemu+tcp://{}/system", pair.host(&pair.b).address());
    let at = format!("tcp:{}", pair.host(&pair.b).address());
    let limit = mib_per_second.to_string();
    let words = ["migrate", "--live", "--p2p", "--persistent", "--undefinesource"];
    let words = [&words[..], &["--bandwidth", &limit, name, &to, &at]].concat();
    virsh_begun(pair.host(&pair.a), &words)
}

#[test]
fn while_an_operators_own_migration_is_under_way_ours_is_refused_and_theirs_goes_on() {
    let name = "meanwhile::while_an_operators_own_migration_is_under_way_ours_is_refused_and_theirs_goes_on";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start_listening().await?;
        let vm = VmId(0xa7);
        let definition = start_empty(&mut pair, vm, 40).await?;
        let theirs = theirs(&pair, "vm-a7", 1)?;
        let sends = || {
            let job = job(pair.host(&pair.a), "vm-a7");
            job.lines()
                .any(|line| line.starts_with("Data processed:") && !line.ends_with("0.000 B"))
        };
        until("theirs is under way", sends).await?;
        let there = Endpoint {
            uri: format!("tcp:{}:49152 <qemu-migration/>", pair.host(&pair.b).address()),
            multifd: false,
            certified: None,
        };
        refused(&mut pair, vm, &there).await?;
        // And the target has it already: there is no place for ours.
        match pair.b.ask(vm, C::Prepare(Box::new(definition), FAST, None)).await? {
            R::PrepareFailed(why) => ensure!(why.contains("somebody migrates it here"), "{why}"),
            other => bail!("{other:?}"),
        }
        // Nothing of that move is there, and what is there is none of its.
        pair.b.expect(vm, C::DestroyIncoming, R::IncomingGone).await?;
        // Of a job that is not ours the driver keeps out: it goes on, and tells what it finds in the end.
        free(pair.host(&pair.a), "vm-a7")?;
        let ended = theirs.wait_with_output()?;
        ensure!(ended.status.success(), "{}", said(&ended));
        ensure!(pair.running(vm) == 1 && guests::qemus(pair.host(&pair.a), vm)?.is_empty());
        match pair.a.sighting().await? {
            Sighting::Gone(gone, _) => ensure!(gone == vm),
            other => bail!("{other:?}"),
        }
        while pair.b.finds(vm).await?.1 != RunState::Running {}
        ensure!(pair.running(vm) == 1);
        Ok(())
    });
}

#[test]
fn while_ours_is_under_way_an_operators_own_migration_fails_and_ours_goes_on() {
    let name =
        "meanwhile::while_ours_is_under_way_an_operators_own_migration_fails_and_ours_goes_on";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start_listening().await?;
        let vm = VmId(0xa8);
        held_up(&mut pair, vm).await?;
        let theirs = theirs(&pair, "vm-a8", 8000)?;
        free(pair.host(&pair.a), "vm-a8")?;
        hand_over(&mut pair, vm, RunState::Running).await?;
        let ended = theirs.wait_with_output()?;
        ensure!(!ended.status.success(), "theirs was done as well");
        ensure!(pair.running(vm) == 1, "{}", said(&ended));
        Ok(())
    });
}
