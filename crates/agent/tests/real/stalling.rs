//! What comes of copies that do not follow their guest, under whatever driver: the same guest, link and settings, the same judgement.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use api::{EventFilter, MoveView, Step};
use decide::units::{BitsPerSec, Mib};
use lab::cluster::Cluster;
use lab::guests::Dirty;

/// Each round leaves all that the guest writes to, for which the link takes 0.9 s. It has to reckon for that, so that it writes less when it is
/// slowed down.
pub(crate) const WRITES: Dirty = Dirty { memory: Mib(32), per_second: Mib(45), work: 10_000 };
const LINK: BitsPerSec = BitsPerSec(300_000_000);

/// A pause that suffices can be reached: 100 ms, 600 ms, 1.1 s, …
pub(crate) const SUFFICES: &str = "[copy]\ndowntime_max = \"2.1s\"\n";
/// None can.
pub(crate) const NEVER_SUFFICES: &str = "[copy]\ndowntime_max = \"300ms\"\n";
/// The same, but the guest may be slowed down.
pub(crate) const CONSENTS: &str =
    "[copy]\ndowntime_max = \"300ms\"\n[[rules.vm]]\nvms = [\"web1\"]\nauto_converge = true\n";

/// A move over that link: how it ended, and what was told of its pauses.
pub(crate) struct Stalled {
    view: MoveView,
    told: Vec<String>,
}

/// Narrows the link to the second host, on which copies go.
pub(crate) fn narrow(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.host(1).limit_uplink(Some(LINK))
}

/// Waits until the move of this id from the first host is over.
pub(crate) async fn ended(cluster: &Cluster, id: String, max: Duration) -> anyhow::Result<Stalled> {
    let view = cluster.ended(0, &id, max).await?;
    let filter = EventFilter { move_id: Some(id), ..EventFilter::default() };
    let told = cluster.api(0).events(&filter).await?.into_iter();
    let told: Vec<String> =
        told.filter(|event| event.step == Step::Stall).map(|event| event.reason).collect();
    ensure!(told.iter().all(|words| words.contains("at its end is allowed now")), "{told:?}");
    println!("{} rounds, pause {:?} ms, {}: {told:?}", view.rounds, view.downtime_ms, view.phase);
    Ok(Stalled { view, told })
}

impl Stalled {
    /// A longer pause was allowed step by step until it sufficed.
    pub(crate) fn sufficed(self) -> anyhow::Result<()> {
        let Stalled { view, told } = self;
        ensure!(view.phase == "done", "{view:?}");
        ensure!(told.first().is_some_and(|first| first.contains("600ms")), "{told:?}");
        ensure!(told.len() <= 3, "no longer than it needs: {told:?}");
        ensure!(view.downtime_ms.is_some_and(|pause| pause > 300), "{view:?}");
        Ok(())
    }

    /// It was given up, with what would help.
    pub(crate) fn given_up(self) -> anyhow::Result<()> {
        let Stalled { view, told } = self;
        ensure!(view.phase == "abandoned", "{view:?}");
        let why = view.outcome.context("it ended")?;
        ensure!(why.contains("faster than the copy follows"), "{why}");
        ensure!(why.contains("300ms") && why.contains("auto-converge"), "{why}");
        ensure!(told.len() == 4, "{told:?}");
        Ok(())
    }

    /// The guest was slowed down until the copy followed: without its consent this one is given up.
    pub(crate) fn slowed_down(self) -> anyhow::Result<()> {
        ensure!(self.view.phase == "done", "{:?}", self.view);
        Ok(())
    }
}
