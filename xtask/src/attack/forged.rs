//! Hosts of the cluster that say what is not theirs to say: stolen keys, before they are revoked.

use anyhow::{Context, ensure};
use api::{EventFilter, Step};
use decide::migrate::hypervisor::{CopyParameters, Endpoint, Needs, RunState, VmDefinition};
use decide::units::{BitsPerSec, Cost, Epoch, HostId, JournalId, Mib, MoveId};
use decide::wire::message::{Body, Confirmation, JournalMark, Message, Standing};
use rustix::process::Signal;
use std::time::Duration;
use tokio::time::sleep;
use trust::keys::Keys;

use super::bed::{Bed, VM};
use super::stranger::Mallory;

const JOURNAL: JournalMark =
    JournalMark { id: JournalId(7), generation: 1 << 40, opened: 0, life: 0 };

pub(super) async fn run(bed: &mut Bed) -> anyhow::Result<()> {
    bed.case("forged: a confirmation for another host's reservation", async |bed| {
        let (at, to) = (bed.at, (bed.at + 1) % 3);
        let id = bed.held(at, "acceptance", to).await?;
        let confirmation = Body::Confirmation(Box::new(confirmation(bed)));
        let said = told_by_thief(bed, to, &id, confirmation).await;
        bed.cluster.signal_agent(at, Signal::CONT)?;
        said?;
        // What the true source then confirms is what moves.
        let view = bed.arrived(&id, to).await?;
        Ok(format!(
            "the move went on to {} as if nothing had been said",
            view.to.unwrap_or_default()
        ))
    })
    .await?;
    bed.case("forged: a hand-over of another host's VM", async |bed| {
        let (at, to) = (bed.at, (bed.at + 1) % 3);
        let id = bed.held(at, "readiness", to).await?;
        let epoch = Epoch { number: 1000, owner: thief(bed, at, to)?.1 };
        let hand_over = Body::HandOver {
            vm: bed.guest.plan.vm(),
            epoch,
            run: RunState::Running,
            journal: JOURNAL,
        };
        let said = told_by_thief(bed, to, &id, hand_over).await;
        bed.cluster.signal_agent(at, Signal::CONT)?;
        said?;
        bed.arrived(&id, to).await?;
        Ok("the target waited for the true one".to_owned())
    })
    .await?;
    by_targets(bed).await
}

/// What only the chosen target may say, and what only a source may to it.
async fn by_targets(bed: &mut Bed) -> anyhow::Result<()> {
    bed.case("forged: that the VM runs elsewhere already", async |bed| {
        let (at, to) = (bed.at, (bed.at + 1) % 3);
        // The source has handed over, and the true target is kept from saying what came of it.
        let id = bed.held(to, "running", to).await?;
        let epoch = Epoch { number: 1000, owner: thief(bed, at, to)?.1 };
        let standing = Standing::Running;
        let standing =
            Body::Standing { vm: bed.guest.plan.vm(), epoch, standing, journal: Some(JOURNAL) };
        let said = told_by_thief(bed, at, &id, standing).await;
        let view = bed.cluster.api(at).one_move(&id).await;
        bed.cluster.signal_agent(to, Signal::CONT)?;
        said?;
        ensure!(!view?.ended, "the source believed it");
        bed.arrived(&id, to).await?;
        Ok("the source waited for the true one".to_owned())
    })
    .await?;
    bed.case("forged: readiness, with another place to send the memory to", async |bed| {
        let (at, to) = (bed.at, (bed.at + 1) % 3);
        // The true target has read the history, and is kept from saying that it is ready.
        let id = bed.held(to, "usage-history", to).await?;
        let endpoint =
            Endpoint { uri: "tcp:198.18.1.1:49152".to_owned(), multifd: false, certified: None };
        let readiness = Body::Readiness { cost: Cost::percent(1), endpoint, journal: JOURNAL };
        let said = told_by_thief(bed, at, &id, readiness).await;
        let copies = steps(bed, at, 0, Some(&id), Step::Copy).await;
        bed.cluster.signal_agent(to, Signal::CONT)?;
        said?;
        ensure!(copies? == 0, "the source began to copy");
        bed.arrived(&id, to).await?;
        Ok("the source waited for the true one".to_owned())
    })
    .await?;
    bed.case("forged: a usage history for a VM that was never confirmed", async |bed| {
        let to = (bed.at + 1) % 3;
        let id = "0-1-1".to_owned();
        let before = bed.newest(to).await?;
        let history = Body::History(Box::default());
        told_by_thief(bed, to, &id, history).await?;
        let read = steps(bed, to, before, None, Step::UsageHistory).await?;
        ensure!(read == 0, "it was read");
        let api = bed.cluster.api(to);
        let known = api.vms().await?.into_iter().any(|vm| vm.name == VM);
        ensure!(!known, "it is known there now");
        Ok("nothing came of it".to_owned())
    })
    .await
}

/// How often a host has told of this step, of a move or of any.
async fn steps(
    bed: &Bed,
    host: usize,
    after: u64,
    id: Option<&str>,
    step: Step,
) -> anyhow::Result<usize> {
    let (after, move_id) = (Some(after), id.map(str::to_owned));
    let filter = EventFilter { after, move_id, limit: Some(1000), ..EventFilter::default() };
    let all = bed.cluster.api(host).events(&filter).await?;
    Ok(all.iter().filter(|event| event.step == step).count())
}

/// The host that is neither, and its id: its keys were stolen.
fn thief(bed: &Bed, at: usize, to: usize) -> anyhow::Result<(usize, HostId)> {
    let third = 3 - at - to;
    Ok((third, Keys::load(&bed.keys(third))?.held().identity.host))
}

/// Says this of a move to a host, with the keys of the third one.
async fn told_by_thief(bed: &Bed, to: usize, id: &str, body: Body) -> anyhow::Result<()> {
    let at = if bed.at == to { (to + 1) % 3 } else { bed.at };
    let (third, from) = thief(bed, at, to)?;
    let source = Keys::load(&bed.keys(bed.at))?.held().identity.host;
    let move_id = move_id(id, source).unwrap_or(MoveId { host: from, incarnation: 1, counter: 1 });
    let (keys, heard) = (bed.stolen(third)?, bed.folder("heard")?.join("heard.json"));
    let agent = bed.to(to)?;
    bed.outside(async || {
        let mallory = Mallory::start(&keys, heard).await?;
        mallory.net.send(agent, Message { from, move_id, body });
        // It is taken, or not, within this time: nothing tells which.
        sleep(Duration::from_secs(1)).await;
        mallory.net.stop().await;
        Ok(())
    })
    .context("speaking as a host whose keys were stolen")
}

/// The move that is told to people by this: only the beginning of the host's id is in it.
fn move_id(told: &str, host: HostId) -> Option<MoveId> {
    let mut parts = told.split('.').skip(1).map(str::parse);
    let (incarnation, counter) = (parts.next()?.ok()?, parts.next()?.ok()?);
    Some(MoveId { host, incarnation, counter })
}

fn confirmation(bed: &Bed) -> Confirmation {
    let plan = &bed.guest.plan;
    let needs = Needs {
        driver: "qemu".to_owned(),
        machine: lab::guests::MACHINE.to_owned(),
        accelerator: "tcg".to_owned(),
        bridge: "br0".to_owned(),
    };
    let definition = VmDefinition {
        vm: plan.vm(),
        name: VM.to_owned(),
        memory: Mib(128),
        vcpus: 1,
        needs,
        start: "tap = \"tap7\"\n".to_owned(),
        tags: Vec::new(),
        local_disks: Mib(0),
        witness: None,
    };
    Confirmation {
        epoch: Epoch { number: 1000, owner: HostId(1) },
        definition,
        copy: CopyParameters {
            bandwidth: BitsPerSec(500_000_000),
            downtime_max: Duration::from_millis(100),
            multifd: false,
            encrypted: true,
            auto_converge: false,
            copy_disks: false,
        },
        unpaid: 0,
        measured: false,
        measured_after: Duration::ZERO,
    }
}
