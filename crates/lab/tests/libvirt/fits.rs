//! What keeps a VM from a host is said before anything is started there, each by name.

use anyhow::{Context, bail, ensure};
use decide::migrate::hypervisor::{
    CopyParameters, HypervisorCommand as C, HypervisorReport as R, RunState, Seen, VmDefinition,
};
use decide::units::VmId;
use lab::libvirt::{self, virsh};
use lab::{guests, sandbox};
use serde_json::{Value, json};

use crate::hosts::{FAST, Pair, empty, start_empty, until};

/// The definition as it would be if that were changed in it.
fn with(of: &VmDefinition, change: impl FnOnce(&mut Value)) -> anyhow::Result<VmDefinition> {
    let mut start: Value = serde_json::from_str(&of.start)?;
    change(&mut start);
    Ok(VmDefinition { start: start.to_string(), ..of.clone() })
}

fn in_place(start: &mut Value, what: &str, by: &str) {
    start["live"] = json!(start["live"].as_str().unwrap_or_default().replacen(what, by, 1));
}

fn in_live(start: &mut Value, before: &str, what: &str) {
    let live = start["live"].as_str().unwrap_or_default();
    start["live"] = json!(live.replacen(before, &format!("{what}{before}"), 1));
}

#[test]
fn each_thing_that_a_target_lacks_is_named_before_anything_is_started() {
    let name = "fits::each_thing_that_a_target_lacks_is_named_before_anything_is_started";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0xb1);
        let good = start_empty(&mut pair, vm, 0).await?;
        let wrong = wrong(&good)?;
        for (said, definition) in wrong {
            refused(&mut pair, said, &definition, FAST).await?;
        }
        let keyless = CopyParameters { encrypted: true, ..FAST };
        refused(&mut pair, "this host has no keys to encrypt a copy", &good, keyless).await?;
        what_is_there_already_is_named(&mut pair, &good).await?;
        let simple = with(&good, ensure_cpu)?;
        pair.b.prepare(&simple, FAST).await.context("what fits is taken")?;
        pair.b.expect(vm, C::DestroyIncoming, R::IncomingGone).await
    });
}

/// A domain to which its host's processor is passed through: under TCG that is called `maximum`.
#[test]
fn a_processor_that_is_passed_through_must_be_the_same_there() {
    let name = "fits::a_processor_that_is_passed_through_must_be_the_same_there";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0xb3);
        let through =
            empty(&pair.network, vm, 0)?.replace("<devices>", "<cpu mode='maximum'/><devices>");
        libvirt::start(pair.host(&pair.a), "vm-b3", &through)?;
        let (good, _) = pair.a.finds(vm).await?;
        let start: Value = serde_json::from_str(&good.start)?;
        let own = start["processor"].as_str().context("it says which it is")?.to_owned();
        let (_, rest) = own.split_once("<model").context("a model")?;
        let model = rest.split_once('>').and_then(|(_, rest)| rest.split_once("</model>"));
        let model = model.context("it is named")?.0;
        let other = own.replace(&format!(">{model}</model>"), ">Genoa-like</model>");
        let more = own.replace("</cpu>", "<feature policy='require' name='avx512-4vnniw'/></cpu>");
        for (said, processor) in [
            (format!("Genoa-like where it runs, {model} here"), json!(other)),
            ("required features: avx512-4vnniw".to_owned(), json!(more)),
            ("libvirt there does not say which".to_owned(), Value::Null),
            ("no model is named".to_owned(), json!("<cpu/>")),
        ] {
            let changed = with(&good, |start| start["processor"] = processor)?;
            refused(&mut pair, &said, &changed, FAST).await?;
        }
        let passed = with(&good, |start| {
            in_place(start, "<cpu mode='maximum'", "<cpu mode='host-passthrough'");
            start["processor"] = json!(other);
        })?;
        refused(&mut pair, "Genoa-like where it runs", &passed, FAST).await?;

        let endpoint = pair.b.prepare(&good, FAST).await.context("the same fits")?;
        pair.a.expect(vm, C::StartCopy(endpoint, FAST), R::PreSwitchover).await?;
        ensure!(matches!(pair.a.ask(vm, C::SwitchOver).await?, R::SourceCompleted(_)));
        ensure!(pair.b.report().await? == R::IncomingCompleted);
        pair.a.expect(vm, C::Fence, R::Fenced).await?;
        pair.b.expect(vm, C::Resume(RunState::Running), R::Resumed).await?;
        pair.a.expect(vm, C::Discard, R::Discarded).await?;
        ensure!(pair.running(vm) == 1 && guests::qemus(pair.host(&pair.a), vm)?.is_empty());
        Ok(())
    });
}

/// libvirt 11.3 ends at an incoming VM without the words of the libvirt that it comes from.
#[test]
fn what_libvirt_would_not_move_is_refused_with_its_words_and_the_targets_libvirt_goes_on() {
    let name = "fits::what_libvirt_would_not_move_is_refused_with_its_words_and_the_targets_libvirt_goes_on";
    sandbox::test_with(true, name, || async {
        let mut pair = Pair::start().await?;
        let vm = VmId(0xb4);
        let movable = start_empty(&mut pair, vm, 0).await?;
        let memory = format!("file={}", pair.network.folder().join("memory").display());
        let words = ["snapshot-create-as", "vm-b4", "s1", "--live", "--memspec", &memory];
        virsh(pair.host(&pair.a), &words)?;
        // Of a snapshot there is no event: where it is not known yet the source says so.
        let endpoint = pair.b.prepare(&movable, FAST).await?;
        match pair.a.ask(vm, C::StartCopy(endpoint, FAST)).await? {
            R::CopyFailed(why, Seen::Running) => ensure!(why.contains("snapshot"), "{why}"),
            other => bail!("{other:?}"),
        }
        pair.b.expect(vm, C::DestroyIncoming, R::IncomingGone).await?;
        pair.a.restart()?;
        let (found, _) = pair.a.finds(vm).await?;
        let said = "libvirt would not move it where it runs: ";
        refused(&mut pair, said, &found, FAST).await?;
        refused(&mut pair, "snapshot", &found, FAST).await?;
        let silent = with(&found, |start| start["refused"] = Value::Null)?;
        refused(&mut pair, "it said nothing that the target needs", &silent, FAST).await?;
        virsh(pair.host(&pair.b), &["list"])?;
        let daemon = pair.b.daemon.as_ref().context("it runs")?.pid();
        ensure!(std::path::Path::new(&format!("/proc/{daemon}")).exists(), "it is still the same");
        ensure!(pair.running(vm) == 1);
        // It is asked again by itself, and would move now.
        virsh(pair.host(&pair.a), &["snapshot-delete", "vm-b4", "s1", "--metadata"])?;
        let mut found = found;
        while found.start.contains("\"refused\"") {
            (found, _) = pair.a.finds(vm).await?;
        }
        pair.b.prepare(&found, FAST).await?;
        pair.b.expect(vm, C::DestroyIncoming, R::IncomingGone).await
    });
}

/// Has the target asked, and expects that it refuses with these words, and starts nothing.
async fn refused(
    pair: &mut Pair,
    said: &str,
    definition: &VmDefinition,
    copy: CopyParameters,
) -> anyhow::Result<()> {
    let before = guests::qemus(pair.host(&pair.b), definition.vm)?;
    let command = C::Prepare(Box::new(definition.clone()), copy, None);
    match pair.b.ask(definition.vm, command).await? {
        R::PrepareFailed(why) => ensure!(why.contains(said), "{said}: {why}"),
        other => bail!("{said}: {other:?}"),
    }
    ensure!(guests::qemus(pair.host(&pair.b), definition.vm)? == before, "{said}");
    Ok(())
}

/// What is at the target that stands against the VM: its name, its UUID, its QEMU, its port.
async fn what_is_there_already_is_named(
    pair: &mut Pair,
    good: &VmDefinition,
) -> anyhow::Result<()> {
    let own = empty(&pair.network, good.vm, 0)?;
    let other = empty(&pair.network, VmId(0xb2), 0)?;
    for (said, there) in [
        ("another domain here is named", other.replace("<name>vm-b2<", "<name>vm-b1<")),
        ("this VM is defined here already", own),
    ] {
        let host = pair.host(&pair.b);
        std::fs::write(host.path("/run/evenkeel/clash.xml"), there)?;
        virsh(host, &["define", "/run/evenkeel/clash.xml"])?;
        refused(pair, said, good, FAST).await?;
        virsh(pair.host(&pair.b), &["undefine", "vm-b1"])?;
    }
    let words = ["-M", "none", "-display", "none", "-nodefaults", "-S", "-uuid"];
    let mut by_hand = pair.host(&pair.b).command("qemu-system-x86_64");
    let mut by_hand = by_hand.args(words).arg(good.vm.to_string()).spawn()?;
    let (host, vm) = (pair.host(&pair.b), good.vm);
    until("it is there", || guests::qemus(host, vm).is_ok_and(|all| all.len() == 1)).await?;
    let refusal = refused(pair, "a QEMU with its UUID runs here already", good, FAST).await;
    by_hand.kill()?;
    by_hand.wait()?;
    refusal?;
    let any = (std::net::Ipv4Addr::UNSPECIFIED, 0);
    let taken =
        pair.host(&pair.b).namespace().inside(move || std::net::TcpListener::bind(any))??;
    let port = taken.local_addr()?.port();
    let graphics = format!("<graphics type='vnc' port='{port}' autoport='no'/>");
    let fixed = with(good, |start| in_live(start, "</devices>", &graphics))?;
    refused(pair, &format!("its port {port} (graphics) is taken here"), &fixed, FAST).await
}

/// Definitions that do not fit the target, and what must be said of each.
fn wrong(good: &VmDefinition) -> anyhow::Result<Vec<(&'static str, VmDefinition)>> {
    let mut wrong = vec![
        ("QEMU is 99.0 where it runs", with(good, |start| start["qemu"] = json!(99_000_000))?),
        ("its definition: ", VmDefinition { start: "{".to_owned(), ..good.clone() }),
        ("speaks of another VM", VmDefinition { name: "other".to_owned(), ..good.clone() }),
    ];
    for (said, from, to) in REPLACED {
        let changed = with(good, |start| in_place(start, from, to))?;
        ensure!(changed.start != good.start, "{from} is not in {}", good.start);
        wrong.push((said, changed));
    }
    for (before, said, what) in ADDED {
        // libvirt may show a processor in the live definition: another takes its place.
        let changed = with(good, |start| {
            if what.starts_with("<cpu") {
                take_cpu_out(start);
            }
            in_live(start, before, what);
        })?;
        wrong.push((said, changed));
    }
    Ok(wrong)
}

/// What must be said where the first of the two stands no more in the definition, but the second.
const REPLACED: [(&str, &str, &str); 6] = [
    ("is of type \"lxc\", not kvm or qemu", "<domain type='qemu'", "<domain type='lxc'"),
    ("has no memory", "<memory unit='KiB'>65536<", "<memory unit='KiB'>0<"),
    ("/no/qemu cannot be had here", ">/usr/bin/qemu-system-x86_64<", ">/no/qemu<"),
    ("/no/kernel cannot be had here", "<os>", "<os><kernel>/no/kernel</kernel>"),
    // These are libvirt's own words, when the incoming side is to start.
    ("does not support machine type", "machine='pc-i440fx-", "machine='pc-i440fx-9"),
    (
        "Maximum CPUs greater than specified",
        "<vcpu placement='static'>1<",
        "<vcpu placement='static'>4000<",
    ),
];

/// Before what, what must be said, and what is put there.
const ADDED: [(&str, &str, &str); 11] = [
    (
        "<devices>",
        "the processor here is not enough",
        "<cpu mode='custom' match='exact'><model fallback='forbid'>EPYC-Milan</model></cpu>",
    ),
    (
        "</devices>",
        "a device of its host's (hostdev, subsystem)",
        "<hostdev mode='subsystem' type='pci'/>",
    ),
    (
        "</devices>",
        "a device of its host's (hostdev, mdev)",
        "<hostdev mode='subsystem' type='mdev'/>",
    ),
    ("</devices>", "a network card of its host's", "<interface type='hostdev'/>"),
    ("</devices>", "an interface of type vhostuser", "<interface type='vhostuser'/>"),
    ("</devices>", "a folder of its host's", "<filesystem type='mount'/>"),
    (
        "</devices>",
        "no network br9 here",
        "<interface type='bridge'><source bridge='br9'/></interface>",
    ),
    (
        "</devices>",
        "carries an MTU of 1500",
        "<interface type='bridge'><source bridge='br0'/><mtu size='9000'/></interface>",
    ),
    (
        "</devices>",
        "/no/such.img cannot be had here",
        "<disk type='file'><source file='/no/such.img'/></disk>",
    ),
    ("<devices>", "NUMA node 99", "<numatune><memory mode='strict' nodeset='99'/></numatune>"),
    (
        "<devices>",
        "MiB are free here in huge pages of 1048576 KiB",
        "<memoryBacking><hugepages><page size='1' unit='GiB'/></hugepages></memoryBacking>",
    ),
];

fn take_cpu_out(start: &mut Value) {
    let live = start["live"].as_str().unwrap_or_default().to_owned();
    if let Some((head, rest)) = live.split_once("<cpu ")
        && let Some((_, tail)) = rest.split_once("</cpu>")
    {
        start["live"] = json!(format!("{head}{tail}"));
    }
}

/// One that every QEMU can show, where none is named.
fn ensure_cpu(start: &mut Value) {
    if !start["live"].as_str().unwrap_or_default().contains("<cpu ") {
        let cpu = "<cpu mode='custom' match='exact'><model fallback='forbid'>qemu64</model></cpu>";
        in_live(start, "<devices>", cpu);
    }
}
