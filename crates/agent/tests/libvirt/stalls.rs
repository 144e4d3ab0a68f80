//! Copies that do not follow their guest: each round leaves the 32 MiB that it writes to, for which the link takes 0.9 s.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use api::{EventFilter, MoveView};
use decide::units::{BitsPerSec, Mib};

use crate::{Bed, DAEMON, LONG, Set, with_guest_and};

const LINK: BitsPerSec = BitsPerSec(300_000_000);
const ALLOWED: &str = "at its end is allowed now";

fn with_writer(test: &str, copy: &str, body: impl AsyncFnOnce(&mut Bed) -> anyhow::Result<()>) {
    let set = Set { sections: copy, writes: Mib(45), ..Set::default() };
    with_guest_and(test, &set, |_network| Ok(PathBuf::from(DAEMON)), body);
}

/// Moves the guest over that link; gives the move as it ended, and what was told of its pauses.
async fn moved(bed: &Bed) -> anyhow::Result<(MoveView, Vec<String>)> {
    bed.cluster.host(1).limit_uplink(Some(LINK))?;
    let id = bed.send(0, 1).await?;
    let view = bed.cluster.ended(0, &id, LONG).await?;
    let filter = EventFilter { move_id: Some(id), ..EventFilter::default() };
    let told = bed.cluster.api(0).events(&filter).await?.into_iter();
    let told = told.map(|event| event.reason).filter(|reason| reason.contains(ALLOWED)).collect();
    println!("{} rounds, pause {:?} ms, {}: {told:?}", view.rounds, view.downtime_ms, view.phase);
    Ok((view, told))
}

#[test]
fn a_longer_pause_is_allowed_step_by_step_until_it_suffices() {
    let test = "stalls::a_longer_pause_is_allowed_step_by_step_until_it_suffices";
    with_writer(test, "[copy]\ndowntime_max = \"2.1s\"\n", async |bed| {
        let (view, told) = moved(bed).await?;
        ensure!(view.phase == "done", "{view:?}");
        ensure!(told.first().is_some_and(|first| first.contains("600ms")), "{told:?}");
        ensure!(told.len() <= 3, "no longer than it needs: {told:?}");
        ensure!(view.downtime_ms.is_some_and(|pause| pause > 300), "{view:?}");
        bed.runs_only(1).await
    });
}

#[test]
fn where_it_never_suffices_the_move_is_given_up_with_what_would_help() {
    let test = "stalls::where_it_never_suffices_the_move_is_given_up_with_what_would_help";
    with_writer(test, "[copy]\ndowntime_max = \"300ms\"\n", async |bed| {
        let (view, told) = moved(bed).await?;
        ensure!(view.phase == "abandoned", "{view:?}");
        let why = view.outcome.context("it ended")?;
        ensure!(why.contains("faster than the copy follows"), "{why}");
        ensure!(why.contains("300ms") && why.contains("auto-converge"), "{why}");
        ensure!(told.len() == 4, "{told:?}");
        bed.runs_only(0).await
    });
}

#[test]
fn a_guest_that_consents_is_slowed_down_until_the_copy_follows() {
    let test = "stalls::a_guest_that_consents_is_slowed_down_until_the_copy_follows";
    // The same as where it is given up, but for the rule.
    let rule =
        "[copy]\ndowntime_max = \"300ms\"\n[[rules.vm]]\nvms = [\"web1\"]\nauto_converge = true\n";
    with_writer(test, rule, async |bed| {
        let (view, _told) = moved(bed).await?;
        ensure!(view.phase == "done", "{view:?}");
        bed.runs_only(1).await
    });
}
