//! What is told to people: notes as things happen, and each move as one story.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::migrate::hypervisor::CopyProgress;
use crate::units::{Cost, HostId, MoveId, Time, VmId};

/// The steps of the method, and what else is worth noting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The monitor saw a threshold crossed.
    Monitoring,
    /// The VM policy says that a VM should leave, and which.
    VmPolicy,
    /// The other hosts were asked.
    Request,
    /// A target accepts.
    Acceptance,
    /// A target refuses.
    Refusal,
    /// The migration policy chose.
    Choice,
    /// The chosen target was told.
    Confirmation,
    /// The others were told.
    Release,
    /// The VM's usage history went to, or came to, the chosen target.
    UsageHistory,
    /// The chosen target is ready.
    Readiness,
    /// The memory copy began.
    Copy,
    /// The copy does not follow its guest: a longer pause is allowed at its end.
    Stall,
    /// The guest is paused for the last round.
    SwitchOver,
    /// Ownership passes.
    HandOver,
    /// The VM was seen running at the target.
    Running,
    /// The move is over and was made.
    Done,
    /// What the move has brought, against what was promised.
    PayBack,
    /// The move is over and was not made; the VM stays.
    Abandoned,
    /// Something was undone.
    Undo,
    /// A VM was found and is watched now.
    Adopted,
    /// A VM's process ended.
    VmDown,
    /// Something needs a person.
    Alarm,
    /// A host came, went, or is suspected.
    Membership,
    /// The operator's settings were read anew.
    Settings,
    /// Why nothing is being moved, or what is, where that became another reason: noted by the agent.
    Doing,
    /// A message or file could not be used.
    BadInput,
}

impl fmt::Display for Step {
    /// Its name in kebab case, as in JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Something that was decided or seen, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Note {
    /// The move it belongs to.
    pub move_id: Option<MoveId>,
    /// The VM it is about.
    pub vm: Option<VmId>,
    /// What happened.
    pub step: Step,
    /// Why, in words.
    pub reason: String,
    /// The other host.
    pub peer: Option<HostId>,
    /// The cost or relief that was judged.
    pub cost: Option<Cost>,
}

impl Note {
    /// A note about nothing in particular.
    pub fn new(step: Step, reason: impl Into<String>) -> Note {
        Note { move_id: None, vm: None, step, reason: reason.into(), peer: None, cost: None }
    }

    /// A message or file that could not be used.
    pub fn bad_input(what: String) -> Note {
        Note::new(Step::BadInput, what)
    }

    /// About this move of this VM.
    #[must_use]
    pub fn of(self, move_id: MoveId, vm: VmId) -> Note {
        Note { move_id: Some(move_id), vm: Some(vm), ..self }
    }

    /// About this VM.
    #[must_use]
    pub fn about(self, vm: VmId) -> Note {
        Note { vm: Some(vm), ..self }
    }

    /// With this other host.
    #[must_use]
    pub fn with(self, peer: HostId) -> Note {
        Note { peer: Some(peer), ..self }
    }

    /// At this cost.
    #[must_use]
    pub fn at(self, cost: Cost) -> Note {
        Note { cost: Some(cost), ..self }
    }
}

/// One move from beginning to end, as seen from here.
#[derive(Clone, Debug, PartialEq)]
pub struct Story {
    /// The move.
    pub move_id: MoveId,
    /// The VM.
    pub vm: VmId,
    /// The VM's name.
    pub name: String,
    /// The chosen target, once there is one.
    pub to: Option<HostId>,
    /// Where it stands, in a word.
    pub phase: &'static str,
    /// Why the VM should leave.
    pub reason: String,
    /// What stands against it that a person overrides, in words.
    pub overridden: Vec<String>,
    /// When it began.
    pub began: Time,
    /// When it was over.
    pub ended: Option<Time>,
    /// How it ended.
    pub outcome: Option<String>,
    /// Acceptances so far.
    pub acceptances: u32,
    /// Refusals so far.
    pub refusals: u32,
    /// What each asked host answered last, and when: a cost, or why not; the newest, a few of many.
    pub answers: Vec<(HostId, Time, Result<Cost, String>)>,
    /// How far the copy has come.
    pub progress: CopyProgress,
    /// Whether the copy is encrypted, once that is settled.
    pub encrypted: Option<bool>,
    /// When the copy began.
    pub copy_began: Option<Time>,
    /// When the guest was paused for the last round.
    pub paused: Option<Time>,
    /// When the source heard that the guest was seen running at the target.
    pub running: Option<Time>,
    /// What this host was to be rid of by it, as reckoned just before the copy; absent: not the policy's move, or not from here.
    pub promised: Option<Cost>,
    /// The same by what the VM asked once it was measured at its new host.
    pub measured: Option<Cost>,
    /// Whether that paid.
    pub paid: Option<bool>,
}

impl Story {
    /// A move that begins now.
    pub fn new(move_id: MoveId, vm: VmId, name: String, reason: String, now: Time) -> Story {
        Story {
            move_id,
            vm,
            name,
            to: None,
            phase: "asking",
            reason,
            overridden: Vec::new(),
            began: now,
            ended: None,
            outcome: None,
            acceptances: 0,
            refusals: 0,
            answers: Vec::new(),
            progress: CopyProgress::default(),
            encrypted: None,
            copy_began: None,
            paused: None,
            running: None,
            promised: None,
            measured: None,
            paid: None,
        }
    }
}

/// Answers kept of one move.
const ANSWERS_MAX: usize = 32;

impl Story {
    /// Keeps what an asked host has answered, in place of what it had before.
    pub(super) fn answered(&mut self, from: HostId, now: Time, answer: Result<Cost, String>) {
        match answer {
            Ok(_) => self.acceptances += 1,
            Err(_) => self.refusals += 1,
        }
        self.answers.retain(|(host, ..)| *host != from);
        if self.answers.len() >= ANSWERS_MAX {
            drop(self.answers.remove(0));
        }
        self.answers.push((from, now, answer));
    }
}

/// Stories kept.
const STORIES_MAX: usize = 200;

/// The newest stories. A story under way is never dropped.
#[derive(Clone, Debug, Default)]
pub(super) struct Tales {
    /// By order of beginning.
    stories: BTreeMap<u64, Story>,
    began: u64,
}

impl Tales {
    pub(super) fn all(&self) -> impl DoubleEndedIterator<Item = &Story> {
        self.stories.values()
    }

    pub(super) fn begin(&mut self, story: Story) {
        if self.stories.len() >= STORIES_MAX {
            let oldest = self.stories.iter().find(|(_, s)| s.ended.is_some()).map(|(n, _)| *n);
            oldest.map(|n| self.stories.remove(&n));
        }
        self.began += 1;
        self.stories.insert(self.began, story);
    }

    /// Changes the story of a move, if it is (still) told.
    pub(super) fn tell(&mut self, move_id: MoveId, change: impl FnOnce(&mut Story)) {
        if let Some(story) = self.stories.values_mut().rev().find(|s| s.move_id == move_id) {
            change(story);
        }
    }

    pub(super) fn end(&mut self, now: Time, move_id: MoveId, phase: &'static str, outcome: &str) {
        self.tell(move_id, |story| {
            (story.phase, story.ended, story.outcome) =
                (phase, Some(now), Some(outcome.to_owned()));
        });
    }
}
