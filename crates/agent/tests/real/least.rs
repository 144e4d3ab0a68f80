//! The unit that is shipped: how much it leaves open, and that an agent with no more rights than it gives does all of its work.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use lab::cluster::Cluster;
use lab::guests::{GuestPlan, VmFile, console, qemus};
use lab::hosts::{BRIDGE, Host, Network};
use lab::sandbox;
use lab::setup::{self, Parts};
use lab::wait;

use crate::bed::{BOOT_MAX, DAEMON, SOON, idle, moved, roomy};
use crate::sight::{owned, runs_only};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/evenkeeld.service");
/// The highest exposure, of 0 (best) to 10, in tenths.
const EXPOSURE_MAX: u32 = 25;
/// What it is with the drop-in for libvirt's hosts, whose agent is root.
const LIBVIRT: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/libvirt/evenkeeld.conf");
const EXPOSURE_MAX_LIBVIRT: u32 = 35;
/// Of nobody else.
const USER: &str = "64990";
/// Where a host has what its agent may not reach where it lies.
const PLACE: &str = "/run/lab";

/// What systemd, its sysusers, tmpfiles and udev do before they start the agent: `packaging/`.
const PREPARE: &str = r#"
chown "$USER:$USER" /etc/evenkeel /var/lib/evenkeel
chmod 700 /var/lib/evenkeel
chown -R "$USER:$USER" /run/evenkeel
chmod 750 /run/evenkeel
chmod 700 /run/evenkeel/qemu
chmod 711 /sys/fs/bpf
mkdir -m 700 /sys/fs/bpf/evenkeel
chown "$USER:$USER" /sys/fs/bpf/evenkeel
touch "$PLACE/evenkeeld"
mount --bind "$DAEMON" "$PLACE/evenkeeld"
cp "$KERNEL" "$PLACE/kernel"
cp "$INITRAMFS" "$PLACE/initramfs"
chmod 644 "$PLACE/kernel" "$PLACE/initramfs"
for device in "kvm 232" "net/tun 200"; do
    set -- $device
    [ -e "/dev/$1" ] || continue
    mknod -m 666 "$PLACE/device-$2" c 10 "$2"
    mount --bind "$PLACE/device-$2" "/dev/$1"
done
"#;

#[test]
fn the_unit_leaves_little_open() {
    setup::ensure(&mut |_step| {}).expect("setup");
    let exposure = exposure(Path::new(UNIT)).expect("judged");
    println!("exposure {}.{}", exposure / 10, exposure % 10);
    assert!(exposure <= EXPOSURE_MAX, "docs/security.md says what may be open");

    // Without what it forbids it is found to be open: the look is not blind.
    let folder = tempfile::tempdir().expect("a folder");
    let bare = folder.path().join("evenkeeld.service");
    fs::write(&bare, "[Service]\nExecStart=/usr/bin/evenkeeld\n").expect("written");
    assert!(self::exposure(&bare).expect("judged") > 90);
}

#[test]
fn the_drop_in_for_libvirt_leaves_no_more_open_than_was_reckoned() {
    setup::ensure(&mut |_step| {}).expect("setup");
    let folder = tempfile::tempdir().expect("a folder");
    let unit = folder.path().join("evenkeeld.service");
    fs::copy(UNIT, &unit).expect("copied");
    let bare = exposure(&unit).expect("judged");
    let drop_ins = folder.path().join("evenkeeld.service.d");
    fs::create_dir(&drop_ins).expect("made");
    fs::copy(LIBVIRT, drop_ins.join("libvirt.conf")).expect("copied");
    let exposure = exposure(&unit).expect("judged");
    println!("exposure {}.{}", exposure / 10, exposure % 10);
    assert!(exposure > bare, "it was not read");
    assert!(exposure <= EXPOSURE_MAX_LIBVIRT, "docs/security.md says what may be open");
}

/// In tenths.
fn exposure(unit: &Path) -> anyhow::Result<u32> {
    let arguments = ["security", "--offline=true", "--no-pager"];
    let mut analyze = Command::new("systemd-analyze");
    // Drop-ins lie beside it; the empty rest stands for where this machine has its own.
    let mut path = unit.parent().context("a unit lies in a folder")?.as_os_str().to_owned();
    path.push(":");
    analyze.env("SYSTEMD_UNIT_PATH", path);
    let output = analyze.args(arguments).arg(unit).env("LC_ALL", "C").output();
    let output = output.context("running systemd-analyze (package systemd)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.contains("Overall exposure level"));
    let line =
        line.with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))?;
    let level = line.rsplit_once(": ").and_then(|(_, level)| level.split_whitespace().next());
    let (whole, tenths) = level.and_then(|level| level.split_once('.')).context("no level")?;
    Ok(whole.parse::<u32>()? * 10 + tenths.parse::<u32>()?)
}

#[test]
fn an_agent_with_the_rights_of_the_unit_alone_does_its_work() {
    let test = "least::an_agent_with_the_rights_of_the_unit_alone_does_its_work";
    sandbox::test(test, async || {
        let (network, parts) = (Network::new(2)?, Parts::load()?);
        for host in network.hosts() {
            prepare(host, &parts)?;
        }
        let at = |name: &str| PathBuf::from(PLACE).join(name);
        let parts = Parts { kernel: at("kernel"), initramfs: at("initramfs"), ..Parts::load()? };
        let daemon = network.folder().join("evenkeeld");
        let rights = setpriv(&capabilities()?).join(" ");
        fs::write(&daemon, format!("#!/bin/sh\nexec setpriv {rights} {PLACE}/evenkeeld \"$@\"\n"))?;
        fs::set_permissions(&daemon, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;

        let mut cluster = Cluster::start(network, &daemon, &roomy("off")).await?;
        let plan = idle("web1", 1);
        let mut guest = boot(cluster.host(0), &plan, &parts)?;
        let done = async {
            let ready = || Ok(console(cluster.host(0), plan.vm()).contains("READY").then_some(()));
            wait::until(BOOT_MAX, "the guest's boot", ready).await?;
            cluster.watches(0, &plan.name).await?;
            cluster.settled().await?;
            // Encrypted: with keys that is the default.
            moved(&cluster, &plan.name, 0, 1).await?;
            runs_only(&cluster, &plan, 1).await?;

            // An agent that was started anew finds a QEMU that is no child of its.
            cluster.stop_agent(1)?;
            cluster.start_agent(1)?;
            cluster.watches(1, &plan.name).await?;
            cluster.settled().await?;
            owned(&cluster, &plan.name, 1, 2).await?;
            qemu_has_no_rights(cluster.host(1), &plan)?;
            moved(&cluster, &plan.name, 1, 0).await?;
            runs_only(&cluster, &plan, 0).await?;
            for number in 0..2 {
                frames_are_counted(&cluster, number).await?;
            }
            cluster.all_run()
        }
        .await;
        // It ended when the VM had left, if all went well.
        let _gone_already = guest.kill();
        guest.wait()?;
        if done.is_err() {
            for number in 0..2 {
                let log = fs::read_to_string(cluster.log(number)).unwrap_or_default();
                println!("---- {} ----\n{log}", cluster.host(number).name());
            }
        }
        done
    });
}

fn prepare(host: &Host, parts: &Parts) -> anyhow::Result<()> {
    let mut shell = host.command("sh");
    shell.args(["-euc", PREPARE]).env("USER", USER).env("PLACE", PLACE).env("DAEMON", DAEMON);
    shell.env("KERNEL", &parts.kernel).env("INITRAMFS", &parts.initramfs);
    ensure!(shell.status()?.success(), "{} could not be prepared", host.name());
    Ok(())
}

/// Those that the unit gives, in the words of setpriv.
fn capabilities() -> anyhow::Result<Vec<String>> {
    let unit = fs::read_to_string(UNIT)?;
    let of = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let bounding = of("CapabilityBoundingSet").context("the unit bounds capabilities")?;
    ensure!(of("AmbientCapabilities") == Some(bounding), "the agent has what it may have");
    let named = bounding
        .split_whitespace()
        .map(|name| Some(name.strip_prefix("CAP_")?.to_ascii_lowercase()));
    named.collect::<Option<_>>().context("they are named CAP_…")
}

fn setpriv(capabilities: &[String]) -> Vec<String> {
    let set: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
    let mut words = vec![format!("--reuid={USER}"), format!("--regid={USER}")];
    words.extend(["--clear-groups", "--no-new-privs"].map(str::to_owned));
    words
        .extend(["inh-caps", "ambient-caps", "bounding-set"].map(|of| format!("--{of}=-all{set}")));
    words
}

/// Starts a guest as an operator does as the agent's user: without any capability.
fn boot(host: &Host, plan: &GuestPlan, parts: &Parts) -> anyhow::Result<Child> {
    let (file, uuid) = (plan.file(parts), plan.vm().to_string());
    let (tap, qmp) = (&file.tap, format!("/run/evenkeel/qemu/{uuid}.sock"));
    host.ip(&format!(
        "tuntap add dev {tap} mode tap user {USER}\nlink set {tap} master {BRIDGE}\nlink set {tap} up\n"
    ))?;
    let definition = format!("/run/evenkeel/qemu/{uuid}.toml");
    fs::write(host.path(&definition), text(&file)?)?;
    let owned = host.command("chown").args([USER, &definition]).status()?;
    ensure!(owned.success(), "{definition} is not the user's");
    let words = file
        .start
        .iter()
        .map(|word| word.replace("{tap}", tap).replace("{qmp}", &qmp).replace("{uuid}", &uuid));
    let mut command = host.command("setpriv");
    command.args(setpriv(&[])).args(words).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(fs::File::create(host.logs().join("web1.err"))?);
    command.spawn().context("starting QEMU")
}

/// A definition. Texts and lists of texts are written in TOML as in JSON.
fn text(file: &VmFile) -> anyhow::Result<String> {
    let VmFile { name, tap, bridge, memory, vcpus, start } = file;
    let mut text = format!("vcpus = {vcpus}\nstart = {}\n", serde_json::to_string(start)?);
    for (key, value) in [("name", name), ("tap", tap), ("bridge", bridge), ("memory", memory)] {
        text += &format!("{key} = {}\n", serde_json::to_string(value)?);
    }
    Ok(text)
}

/// What the agent itself may do, a guest that breaks out of the QEMU that it started may not.
fn qemu_has_no_rights(host: &Host, plan: &GuestPlan) -> anyhow::Result<()> {
    let pids = qemus(host, plan.vm())?;
    ensure!(pids.len() == 1, "{pids:?}");
    let status = fs::read_to_string(format!("/proc/{}/status", pids[0]))?;
    // Inheritable ones may be left: nothing that QEMU could execute makes them effective.
    for set in ["CapPrm", "CapEff", "CapAmb"] {
        let none = format!("{set}:\t0000000000000000");
        ensure!(status.lines().any(|line| line == none), "{set}: {status}");
    }
    ensure!(status.contains("NoNewPrivs:\t1"), "{status}");
    Ok(())
}

/// Needs all three capabilities.
async fn frames_are_counted(cluster: &Cluster, number: usize) -> anyhow::Result<()> {
    let pins = cluster.host(number).path("/sys/fs/bpf/evenkeel");
    let pinned = || Ok(fs::read_dir(&pins)?.next().map(|_entry| ()));
    wait::until(SOON, "pinned counters of frames", pinned).await?;
    let log = fs::read_to_string(cluster.log(number))?;
    ensure!(!log.contains("this process lacks"), "{log}");
    Ok(())
}
