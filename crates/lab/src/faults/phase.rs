//! The phase of a move as the disks have it: the journal's stage of the move, and the last event told of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use api::Event;
use decide::migrate::record::MoveStage;
use decide::units::JournalId;
use decide::wire;
use drivers::store::{Events, Journal, Opening};
use serde::Serialize;

use super::case::Phase;
use crate::hosts::Host;

/// Where an agent keeps its store.
pub(crate) const STATE: &str = "/var/lib/evenkeel";
const EVENTS_MAX: u64 = 100_000;

/// Which agent is held in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The source's.
    Source,
    /// The target's.
    Target,
}

/// Where a move stood when the fault came, as read from disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PhaseRead {
    /// Whose agent was stopped.
    pub stopped: Side,
    /// The last that it had told of the move.
    pub event: String,
    /// The move's stage in the source's journal; absent: it is not there.
    pub source_journal: Option<String>,
    /// The move's stage in the target's journal; absent: it is not there.
    pub target_journal: Option<String>,
}

impl Phase {
    /// Whose agent stops itself, and at which step; no step: the harness stops it, once memory is being copied.
    pub(crate) fn held(self) -> (Side, Option<&'static str>) {
        match self {
            Phase::Request => (Side::Source, Some("request")),
            Phase::Confirmed => (Side::Target, Some("confirmation")),
            Phase::History => (Side::Target, Some("usage-history")),
            Phase::Ready => (Side::Source, Some("readiness")),
            Phase::Copying => (Side::Source, None),
            Phase::BeforeSwitchOver => (Side::Source, Some("switch-over")),
            Phase::AfterSwitchOver => (Side::Source, Some("hand-over")),
            Phase::Done => (Side::Target, Some("running")),
        }
    }

    /// What must be read in this phase.
    pub(crate) fn read_as(self) -> PhaseRead {
        let (stopped, step) = self.held();
        let event = step.unwrap_or("copy").to_owned();
        let (source, target) = match self {
            Phase::Request | Phase::Confirmed | Phase::History => (None, None),
            Phase::Ready => (None, Some("prepared")),
            Phase::Copying | Phase::BeforeSwitchOver => (Some("copying"), Some("prepared")),
            Phase::AfterSwitchOver => (Some("handing-over"), Some("prepared")),
            Phase::Done => (Some("handing-over"), None),
        };
        let [source_journal, target_journal] = [source, target].map(|s| s.map(str::to_owned));
        PhaseRead { stopped, event, source_journal, target_journal }
    }
}

/// Of all moves in the store of a host's agent: the last that has an event, and that event. The agent must be stopped.
pub(crate) fn last_event(host: &Host, scratch: &Path) -> anyhow::Result<Event> {
    let copy = copied(host, scratch)?;
    let events = Events::open(&copy, EVENTS_MAX).context("opening a copy of the events")?;
    let newest = events.latest(50).context("reading a copy of the events")?;
    let told = newest.iter().rev().map(|noted| serde_json::from_slice::<Event>(&noted.record));
    for event in told {
        let event = event.context("an event that is not JSON")?;
        if event.move_id.is_some() {
            return Ok(event);
        }
    }
    anyhow::bail!("no event of any move in the store of {}", host.name())
}

/// The stage of a move in a host's journal.
pub(crate) fn stage(host: &Host, scratch: &Path, move_id: &str) -> anyhow::Result<Option<String>> {
    let copy = copied(host, scratch)?;
    let machine_id = fs::read_to_string(host.path("/etc/machine-id"))?;
    let opening = Opening {
        dir: &copy,
        witness: &copy.join("witness"),
        machine_id: &machine_id,
        fresh_id: JournalId(0),
        now: 0,
    };
    let opened = Journal::open(opening).context("a copy of a journal")?;
    ensure!(!opened.fresh, "{} has no journal", host.name());
    for (id, record) in opened.moves {
        if id.to_string() == move_id {
            let record = wire::decode_move_record(&record).context("a record of a move")?;
            return Ok(Some(word(record.stage).to_owned()));
        }
    }
    Ok(None)
}

/// A copy of a host's store, which may be opened and written.
fn copied(host: &Host, scratch: &Path) -> anyhow::Result<PathBuf> {
    let copy = scratch.join(format!("{}-store", host.name()));
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    fs::create_dir_all(&copy)?;
    for file in ["journal.redb", "events.redb"] {
        fs::copy(host.path(&format!("{STATE}/{file}")), copy.join(file))
            .with_context(|| format!("copying {file} of {}", host.name()))?;
    }
    Ok(copy)
}

fn word(stage: MoveStage) -> &'static str {
    match stage {
        MoveStage::Copying => "copying",
        MoveStage::HandingOver => "handing-over",
        MoveStage::TakingBack => "taking-back",
        MoveStage::Prepared => "prepared",
        MoveStage::Owning => "owning",
        MoveStage::Voiding => "voiding",
    }
}
