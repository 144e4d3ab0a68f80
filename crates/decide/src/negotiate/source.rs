//! The source's side of one move, from request to readiness.
//!
//! ```text
//!  Asking ── enough answers, or the deadline ──▶ Confirmed(T) ── Readiness from T, still worth it ──▶ Ready(T)
//!    │  ▲ repeats the request once                  │  refusal, silence or unreachable: the next-best acceptor
//!    └──┴── none left ──▶ Over ◀──────────────────────┘
//! ```
//!
//! **Invariant:** at most one target is confirmed at any time; before another is, the former was released.
//! **Invariant:** every phase but the ends has an armed timer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Limits;
use crate::migrate::hypervisor::Endpoint;
use crate::units::{Cost, HostId, Rank};
use crate::wire::message::JournalMark;

/// A target's answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the words of the variant say what its fields are")]
pub enum Answer {
    /// It takes the VM at this cost; the parent's migration policy gives it this rank, the lowest of which is chosen.
    Acceptance { cost: Cost, rank: Rank },
    /// It does not, and why.
    Refusal(String),
}

impl Answer {
    /// An acceptance that is ranked by its cost.
    pub fn acceptance(cost: Cost) -> Answer {
        Answer::Acceptance { cost, rank: Rank::by_cost(cost) }
    }
}

/// Where the negotiation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The request is out.
    Asking,
    /// This target was confirmed and has the history; its readiness is awaited.
    Confirmed(HostId),
    /// This target is ready; the copy may begin.
    Ready(HostId),
    /// No target: the VM stays.
    Over,
}

/// What the machine waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// Half of the time to answer has passed: ask again, for a datagram may be lost.
    Repeat,
    /// The time to answer has passed.
    Answers,
    /// The time for readiness has passed.
    Readiness,
}

/// What happens to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the words of the variant say what its fields are")]
pub enum Event {
    /// The move begins.
    Begin,
    /// A target answers.
    Answered(HostId, Answer),
    /// A target could not be reached with what was sent to it, or is gone from the cluster.
    Unreachable(HostId),
    /// The target is ready; `worth_it` is the parent's judgement of its new cost, or why not.
    Readiness {
        from: HostId,
        cost: Cost,
        endpoint: Endpoint,
        journal: JournalMark,
        worth_it: Result<(), String>,
    },
    /// A timer ended.
    Timeout(Timer),
    /// The parent or a person gives up.
    Cancel(String),
}

/// What it wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the words of the variant say what its fields are")]
pub enum Action {
    /// Send the request, for the n-th time.
    Request(u32),
    /// This target was chosen: tell it, and send it the history.
    Confirm { target: HostId, cost: Cost, why: String },
    /// Tell this target that it is not, or no longer, wanted.
    Release(HostId),
    /// Begin the copy to this target.
    Ready { target: HostId, cost: Cost, endpoint: Endpoint, journal: JournalMark },
    /// The move is over, and why.
    Abandon(String),
    /// Wait for so long.
    Arm(Timer, Duration),
    /// Do not wait any more.
    Disarm(Timer),
}

/// The source's side of one move.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    limits: Limits,
    /// Costs above this are of no use; absent: any will do.
    useful_max: Option<Cost>,
    asked: BTreeSet<HostId>,
    answers: BTreeMap<HostId, Answer>,
    /// Confirmed once and failed: not tried again in this move.
    failed: BTreeSet<HostId>,
    phase: Phase,
}

impl Source {
    /// A move that will ask these hosts.
    pub fn new(limits: Limits, useful_max: Option<Cost>, asked: BTreeSet<HostId>) -> Source {
        Source {
            limits,
            useful_max,
            asked,
            answers: BTreeMap::new(),
            failed: BTreeSet::new(),
            phase: Phase::Asking,
        }
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The hosts that are asked.
    pub fn asked(&self) -> &BTreeSet<HostId> {
        &self.asked
    }

    /// The highest cost that would be of use; absent: any is.
    pub fn useful_max(&self) -> Option<Cost> {
        self.useful_max
    }

    /// The answers so far.
    pub fn answers(&self) -> &BTreeMap<HostId, Answer> {
        &self.answers
    }

    /// Takes one event; late and repeated ones do no harm.
    pub fn handle(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Begin => self.begin(actions),
            Event::Answered(from, answer) => self.answered(from, answer, actions),
            Event::Unreachable(host) => {
                // What it answers may be lost, not what it heard.
                if self.phase == Phase::Confirmed(host) {
                    actions.push(Action::Release(host));
                }
                self.answered(host, Answer::Refusal("cannot be reached".to_owned()), actions)
            }
            Event::Readiness { from, cost, endpoint, journal, worth_it } => {
                self.readiness(from, cost, endpoint, journal, worth_it, actions);
            }
            Event::Timeout(timer) => self.timeout(timer, actions),
            Event::Cancel(why) => self.give_up(why, actions),
        }
    }

    fn begin(&mut self, actions: &mut Vec<Action>) {
        if self.asked.is_empty() {
            return self.give_up("no other host is alive".to_owned(), actions);
        }
        actions.push(Action::Request(1));
        actions.push(Action::Arm(Timer::Repeat, self.limits.answer_within / 2));
        actions.push(Action::Arm(Timer::Answers, self.limits.answer_within));
    }

    fn answered(&mut self, from: HostId, answer: Answer, actions: &mut Vec<Action>) {
        if !self.asked.contains(&from) {
            return;
        }
        let accepts = matches!(answer, Answer::Acceptance { .. });
        match self.phase {
            Phase::Asking => {
                self.answers.insert(from, answer);
                if self.acceptors().count() >= self.limits.answers_wanted as usize
                    || self.answers.len() == self.asked.len()
                {
                    self.choose(actions);
                }
            }
            Phase::Confirmed(target) if target == from => {
                if !accepts {
                    self.answers.insert(from, answer);
                    self.next_best(from, actions);
                }
            }
            // A late acceptor is the reserve for the case that the chosen target fails.
            Phase::Confirmed(_) => {
                self.answers.insert(from, answer);
            }
            Phase::Ready(target) if target == from => {}
            Phase::Ready(_) | Phase::Over if accepts => actions.push(Action::Release(from)),
            Phase::Ready(_) | Phase::Over => {}
        }
    }

    fn timeout(&mut self, timer: Timer, actions: &mut Vec<Action>) {
        match (timer, self.phase) {
            (Timer::Repeat, Phase::Asking) => actions.push(Action::Request(2)),
            (Timer::Answers, Phase::Asking) => self.choose(actions),
            (Timer::Readiness, Phase::Confirmed(target)) => {
                self.answers.insert(
                    target,
                    Answer::Refusal("fell silent after the confirmation".to_owned()),
                );
                actions.push(Action::Release(target));
                self.next_best(target, actions);
            }
            _ => {}
        }
    }

    /// Useful acceptances that have not failed, best first: the lowest rank, then the lowest cost, then the lowest id.
    fn acceptors(&self) -> impl Iterator<Item = (Rank, Cost, HostId)> {
        let mut found: Vec<(Rank, Cost, HostId)> = self
            .answers
            .iter()
            .filter_map(|(host, answer)| match answer {
                Answer::Acceptance { cost, rank } => Some((*rank, *cost, *host)),
                Answer::Refusal(_) => None,
            })
            .filter(|(_, cost, host)| {
                self.useful_max.is_none_or(|max| *cost <= max) && !self.failed.contains(host)
            })
            .collect();
        found.sort();
        found.into_iter()
    }

    fn choose(&mut self, actions: &mut Vec<Action>) {
        let acceptors: Vec<(Rank, Cost, HostId)> = self.acceptors().collect();
        if self.failed.is_empty() && acceptors.len() < self.limits.answers_min as usize {
            let why = match self.answers.len() {
                0 => "nobody answered".to_owned(),
                n => format!("{n} answered, {} accepted", acceptors.len()),
            };
            return self.give_up(why, actions);
        }
        let Some((rank, cost, target)) = acceptors.first().copied() else {
            return self.give_up("every acceptor fell away".to_owned(), actions);
        };
        let why = match acceptors.get(1) {
            Some((_, next, _)) if rank != Rank::by_cost(cost) => format!(
                "first of {} by the migration policy, at a cost of {cost}; the next {next}",
                acceptors.len()
            ),
            Some((_, next, _)) => {
                format!("lowest cost of {}: {cost}, the next {next}", acceptors.len())
            }
            None => format!("the only acceptor: {cost}"),
        };
        self.phase = Phase::Confirmed(target);
        actions.push(Action::Disarm(Timer::Repeat));
        actions.push(Action::Disarm(Timer::Answers));
        actions.push(Action::Confirm { target, cost, why });
        actions.push(Action::Arm(Timer::Readiness, self.limits.readiness_within));
    }

    fn next_best(&mut self, failed: HostId, actions: &mut Vec<Action>) {
        self.failed.insert(failed);
        actions.push(Action::Disarm(Timer::Readiness));
        self.choose(actions);
    }

    fn readiness(
        &mut self,
        from: HostId,
        cost: Cost,
        endpoint: Endpoint,
        journal: JournalMark,
        worth_it: Result<(), String>,
        actions: &mut Vec<Action>,
    ) {
        match self.phase {
            Phase::Confirmed(target) if target == from => {}
            Phase::Ready(target) if target == from => return,
            Phase::Asking | Phase::Confirmed(_) | Phase::Ready(_) | Phase::Over => {
                return actions.push(Action::Release(from));
            }
        }
        if let Err(why) = worth_it {
            actions.push(Action::Release(from));
            self.answers.insert(from, Answer::Refusal(why));
            return self.next_best(from, actions);
        }
        actions.push(Action::Disarm(Timer::Readiness));
        self.release_others(Some(from), actions);
        self.phase = Phase::Ready(from);
        actions.push(Action::Ready { target: from, cost, endpoint, journal });
    }

    /// Every acceptor but `kept` may give its room to others.
    fn release_others(&mut self, kept: Option<HostId>, actions: &mut Vec<Action>) {
        let others = self.answers.iter().filter(|(host, _)| Some(**host) != kept);
        let acceptors = others.filter(|(_, answer)| matches!(answer, Answer::Acceptance { .. }));
        actions.extend(acceptors.map(|(host, _)| Action::Release(*host)));
    }

    fn give_up(&mut self, why: String, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Over | Phase::Ready(_)) {
            return;
        }
        self.phase = Phase::Over;
        actions.extend([Timer::Repeat, Timer::Answers, Timer::Readiness].map(Action::Disarm));
        self.release_others(None, actions);
        actions.push(Action::Abandon(why));
    }
}
