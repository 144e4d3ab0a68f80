//! Goes through a recorded log again: the same events into a fresh `Host` must give the same actions, bit for bit.
//!
//! **Invariant:** no file, whatever it holds, makes the reader panic; what is whole before the damage is used.

use std::io::BufRead;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use decide::host::story::Note;
use decide::host::{Action, Host};
use decide::log::{Begin, Gave};
use decide::units::Time;

mod command;
mod lines;
mod show;

pub use command::Replay;
use lines::{Lines, Step};
pub use lines::{NotALog, unpacked};

/// What came of it.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The recorded host's name.
    pub host: String,
    /// The version of Evenkeel that recorded it.
    pub version: String,
    /// When the recording began, in microseconds since 1970.
    pub unix_us: u64,
    /// Events gone through.
    pub events: u64,
    /// Actions that they, and the host's beginning, gave.
    pub actions: u64,
    /// The first event that gave something else than when it was recorded. The replay ends there: what comes after would
    /// differ only because of it.
    pub difference: Option<Difference>,
    /// How the log ends, if the replay came to its end.
    pub ending: Option<Ending>,
    /// What was decided and seen, in order.
    pub decisions: Vec<Decision>,
}

impl Replayed {
    /// Whether every event gave the same, up to the log's end, and no damage hid any.
    #[must_use]
    pub fn same(&self) -> bool {
        self.difference.is_none() && !matches!(self.ending, Some(Ending::Damaged { .. }))
    }
}

/// How a log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In order, and why.
    Ended(String),
    /// In the midst: the agent was killed. What is there is whole.
    CutOff,
    /// In the midst, and the host panics at the last event: that is what ended the agent.
    Panics,
    /// A line is not what was written.
    Damaged {
        /// Which, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// Something that was decided or seen.
#[derive(Clone, Debug)]
pub struct Decision {
    /// By which event; 0: when the host began.
    pub event: u64,
    /// When, since the recording began.
    pub after: Duration,
    /// What, and why.
    pub note: Note,
    /// The VM's name.
    pub vm: Option<String>,
    /// The other host's name.
    pub peer: Option<String>,
}

/// An event that gave something else than when it was recorded.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Which; 0: the host's beginning.
    pub event: u64,
    /// When, since the recording began.
    pub after: Duration,
    /// The event itself.
    pub what: String,
    /// What it gave then.
    pub recorded: Gave,
    /// What it gives now; nothing, if the host panics at it.
    pub now: Option<Gave>,
    /// The actions of now, in full.
    pub actions: Vec<String>,
}

/// Goes through a log, up to its end or the first difference.
///
/// # Errors
/// If it is no log, or one of another form.
pub fn replay(log: impl BufRead) -> Result<Replayed, NotALog> {
    let (begin, gave, mut lines) = Lines::open(log)?;
    let mut run = Run::begin(begin, gave)?;
    while run.replayed.difference.is_none() {
        match lines.step() {
            Ok(step) => run.step(step),
            Err(ending) => {
                // An event that the host panics at was not followed by what it gave then, either.
                run.replayed.ending = Some(if run.panicked { Ending::Panics } else { ending });
                break;
            }
        }
    }
    Ok(run.replayed)
}

/// A host on its way through a log.
struct Run {
    host: Host,
    began: Time,
    panicked: bool,
    replayed: Replayed,
}

impl Run {
    fn begin(begin: Begin, recorded: Option<Gave>) -> Result<Run, NotALog> {
        let Begin { version, unix_us, now, start, .. } = begin;
        let replayed = Replayed {
            host: start.name.clone(),
            version,
            unix_us,
            events: 0,
            actions: 0,
            difference: None,
            ending: None,
            decisions: Vec::new(),
        };
        let mut actions = Vec::new();
        let new = catch_unwind(AssertUnwindSafe(|| Host::new(start, now, &mut actions)));
        let host = new.map_err(|_shown_already| NotALog::HostPanics)?;
        let mut run = Run { host, began: now, panicked: false, replayed };
        run.weigh(now, "the beginning", recorded, &actions);
        Ok(run)
    }

    fn step(&mut self, step: Step) {
        let Step { now, event, gave } = step;
        let what = event.clone();
        let mut actions = Vec::new();
        let host = &mut self.host;
        let handled =
            catch_unwind(AssertUnwindSafe(|| host.handle(now, event, &mut actions))).is_ok();
        self.panicked = !handled;
        self.replayed.events += 1;
        self.weigh(now, what, gave, &actions);
    }

    /// Keeps what was decided, and holds what was given against what is recorded.
    fn weigh(
        &mut self,
        at: Time,
        what: impl std::fmt::Debug,
        recorded: Option<Gave>,
        actions: &[Action],
    ) {
        let (event, after) = (self.replayed.events, at.since(self.began));
        self.replayed.actions += actions.len() as u64;
        for action in actions {
            if let Action::Note(note) = action {
                let (vm, peer) = (note.vm, note.peer);
                self.replayed.decisions.push(Decision {
                    event,
                    after,
                    note: note.clone(),
                    vm: vm.map(|vm| self.host.vm_name(vm)),
                    peer: peer.map(|peer| self.host.name_of(peer)),
                });
            }
        }
        let now = (!self.panicked).then(|| Gave::of(actions, self.host.deadline()));
        if let Some(recorded) = recorded.filter(|recorded| now.as_ref() != Some(recorded)) {
            let what = format!("{what:?}");
            let actions = actions.iter().map(|action| format!("{action:?}")).collect();
            self.replayed.difference =
                Some(Difference { event, after, what, recorded, now, actions });
        }
    }
}
