//! What keeps a VM from a host is said before anything is started there, each by name.

use anyhow::{Context, bail, ensure};
use decide::migrate::hypervisor::{HypervisorCommand as C, HypervisorReport as R, VmDefinition};
use decide::units::VmId;
use lab::libvirt::virsh;
use lab::{guests, sandbox};
use serde_json::{Value, json};

use crate::hosts::{FAST, Pair, empty, start_empty};

/// The definition as it would be if that were changed in it.
fn with(of: &VmDefinition, change: impl FnOnce(&mut Value)) -> anyhow::Result<VmDefinition> {
    let mut start: Value = serde_json::from_str(&of.start)?;
    change(&mut start);
    Ok(VmDefinition { start: start.to_string(), ..of.clone() })
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
        let clash = empty(&pair.network, VmId(0xb2), 0)?.replace("<name>vm-b2<", "<name>vm-b1<");
        let there = &pair.network.hosts()[1];
        std::fs::write(there.path("/run/evenkeel/clash.xml"), clash)?;
        let wrong = wrong(&good)?;
        for (said, definition) in wrong {
            let command = C::Prepare(Box::new(definition), FAST, None);
            match pair.b.ask(vm, command).await? {
                R::PrepareFailed(why) => ensure!(why.contains(said), "{said}: {why}"),
                other => bail!("{said}: {other:?}"),
            }
            ensure!(guests::qemus(pair.host(&pair.b), vm)?.is_empty(), "{said}");
        }
        virsh(pair.host(&pair.b), &["define", "/run/evenkeel/clash.xml"])?;
        match pair.b.ask(vm, C::Prepare(Box::new(good.clone()), FAST, None)).await? {
            R::PrepareFailed(why) => ensure!(why.contains("another domain here is named"), "{why}"),
            other => bail!("{other:?}"),
        }
        virsh(pair.host(&pair.b), &["undefine", "vm-b1"])?;
        let simple = with(&good, ensure_cpu)?;
        pair.b.prepare(&simple, FAST).await.context("what fits is taken")?;
        pair.b.expect(vm, C::DestroyIncoming, R::IncomingGone).await
    });
}

/// Definitions that do not fit the target, and what must be said of each.
fn wrong(good: &VmDefinition) -> anyhow::Result<Vec<(&'static str, VmDefinition)>> {
    let cases = [
        (
            "<devices>",
            "the processor here is not enough",
            "<cpu mode='custom' match='exact'><model fallback='forbid'>EPYC-Milan</model></cpu>",
        ),
        ("</devices>", "a device of its host's", "<hostdev mode='subsystem' type='pci'/>"),
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
    ];
    let newer = with(good, |start| start["qemu"] = json!(99_000_000))?;
    let mut wrong = vec![("QEMU is 99.0 where it runs", newer)];
    for (before, said, what) in cases {
        // libvirt may show a processor in the live definition: another takes its place.
        let changed = with(good, |start| {
            let live = start["live"].as_str().unwrap_or_default().to_owned();
            if what.starts_with("<cpu")
                && let Some((head, rest)) = live.split_once("<cpu ")
                && let Some((_, tail)) = rest.split_once("</cpu>")
            {
                start["live"] = json!(format!("{head}{tail}"));
            }
            in_live(start, before, what);
        })?;
        wrong.push((said, changed));
    }
    Ok(wrong)
}

/// One that every QEMU can show, where none is named.
fn ensure_cpu(start: &mut Value) {
    if !start["live"].as_str().unwrap_or_default().contains("<cpu ") {
        let cpu = "<cpu mode='custom' match='exact'><model fallback='forbid'>qemu64</model></cpu>";
        in_live(start, "<devices>", cpu);
    }
}
