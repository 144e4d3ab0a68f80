//! What the simulation knows of a night, to hold against what people are told of it.

use std::collections::BTreeMap;

use anyhow::Context;
use decide::host::story::Step;
use decide::units::MoveId;
use serde::{Deserialize, Serialize};
use sim::world::{host_id, number};

use super::{PINNED, Stage};

/// Of a whole night.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Truth {
    /// The moves that were made, in their order.
    pub(crate) moves: Vec<Moved>,
    /// What each host did at ten past three, or why nothing.
    pub(crate) doing: BTreeMap<String, String>,
    pub(crate) kept: Kept,
}

/// A move that was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Moved {
    pub(crate) id: String,
    pub(crate) vm: String,
    pub(crate) from: String,
    pub(crate) to: String,
    /// At what cost each host would have taken it.
    pub(crate) costs: BTreeMap<String, String>,
    pub(crate) promised: String,
    pub(crate) measured: String,
    pub(crate) paid: bool,
}

/// A VM that cannot go to some host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) vm: String,
    pub(crate) host: String,
    pub(crate) to: String,
    /// What is in its way, and what would have to change.
    pub(crate) obstacles: Vec<(String, String)>,
}

impl Truth {
    /// Once the night is over; `doing` was looked at in it.
    pub(crate) fn of(stage: &Stage, doing: BTreeMap<String, String>) -> anyhow::Result<Truth> {
        let moves = stage.world.checks.passed.iter();
        let moves: anyhow::Result<Vec<Moved>> =
            moves.map(|passed| moved(stage, passed.id, passed.to)).collect();
        Ok(Truth { moves: moves?, doing, kept: kept(stage)? })
    }
}

fn moved(stage: &Stage, id: MoveId, to: u16) -> anyhow::Result<Moved> {
    let from = number(id.host);
    let source = stage.host(from)?;
    let story = source.stories().find(|story| story.move_id == id);
    let story = story.with_context(|| format!("host{from} knows nothing of its move {id}"))?;
    let accepted = stage.told.iter().filter(|(_, at, note)| {
        *at == from && note.move_id == Some(id) && note.step == Step::Acceptance
    });
    let costs = accepted.filter_map(|(_, _, note)| {
        Some((format!("host{}", number(note.peer?)), note.cost?.to_string()))
    });
    let pay = || format!("the move {id} ended so late that nothing was measured");
    Ok(Moved {
        id: id.to_string(),
        vm: story.name.clone(),
        from: format!("host{from}"),
        to: format!("host{to}"),
        costs: costs.collect(),
        promised: story.promised.with_context(pay)?.to_string(),
        measured: story.measured.with_context(pay)?.to_string(),
        paid: story.paid.with_context(pay)?,
    })
}

/// The VM that is pinned, and the last host, where it may not be.
fn kept(stage: &Stage) -> anyhow::Result<Kept> {
    let mut guests = stage.world.guests.iter();
    let (vm, _) = guests
        .find(|(_, guest)| guest.definition.name == PINNED)
        .context("the pinned VM is there")?;
    let at = *stage.world.runs_at(vm).first().context("it runs")?;
    let to = *stage.world.sites.keys().last().context("there are hosts")?;
    let now = stage.clock();
    let obstacles = stage.host(at)?.obstacles(now, vm, host_id(to));
    Ok(Kept {
        vm: PINNED.to_owned(),
        host: format!("host{at}"),
        to: format!("host{to}"),
        obstacles: obstacles.into_iter().map(|one| (one.words, one.change)).collect(),
    })
}
