//! VMs that two hosts list as running: the highest alarm there is, and never to be given because of a move.
//!
//! ```text
//!   two lists say so ─▶ Waits ── longer than a hand-over takes ──▶ Asking: one, then the other, then the first again
//!                         ▲ ◀── no answer, or another epoch ──┘ │ all three: it runs here, the first twice under one epoch
//!   whenever a list says otherwise it is over                    └──▶ Told
//! ```
//!
//! Lists are of different instants, so a VM that moves is in two of them for a while. But a host that lists it as running
//! before *and* after the other did, under the same epoch, has never given it away in between: then both ran.
//!
//! **Invariant:** it is told only after these three answers, each asked for after the one before had come.
//! **Boundary:** it is told, nothing else follows from it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::units::{HostId, Time, VmId};

/// Before anybody is asked: hand-overs take less, and new lists mostly come by themselves.
const PAUSE: Duration = Duration::from_secs(10);

/// All VMs under suspicion.
#[derive(Clone, Debug, Default)]
pub struct Doubles {
    suspected: BTreeMap<VmId, Suspicion>,
}

/// A VM that seems to run on two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Suspicion {
    hosts: [HostId; 2],
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waits(Time),
    /// Which of the three answers is awaited, since when, and the epochs in those that came.
    Asking {
        step: usize,
        since: Time,
        epochs: [u64; 2],
    },
    Told,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// This host's list is wanted, asked for from now on.
    Ask(HostId),
    /// It runs at both, under these epochs.
    Tell(VmId, [(HostId, u64); 2]),
    /// It was told, and is over.
    Over(VmId),
}

impl Doubles {
    /// The VMs that two hosts list as running now; gives those of which it was told and which are over.
    pub fn seen(&mut self, now: Time, doubled: &BTreeMap<VmId, [HostId; 2]>) -> Vec<Wish> {
        let mut over = Vec::new();
        self.suspected.retain(|vm, suspicion| {
            let still = doubled.get(vm) == Some(&suspicion.hosts);
            if !still && suspicion.stage == Stage::Told {
                over.push(Wish::Over(*vm));
            }
            still
        });
        for (vm, hosts) in doubled {
            let stage = Stage::Waits(now.plus(PAUSE));
            self.suspected.entry(*vm).or_insert(Suspicion { hosts: *hosts, stage });
        }
        over
    }

    /// Whether there is any suspicion.
    pub fn any(&self) -> bool {
        !self.suspected.is_empty()
    }

    /// Whether it was told of this VM, and is not over.
    pub fn told(&self, vm: VmId) -> bool {
        self.suspected.get(&vm).is_some_and(|suspicion| suspicion.stage == Stage::Told)
    }

    /// Whom to ask first, of suspicions that have lasted.
    pub fn due(&mut self, now: Time) -> Vec<Wish> {
        let waiting = self.suspected.values_mut();
        let due = waiting.filter(|s| matches!(s.stage, Stage::Waits(until) if until <= now));
        due.map(|suspicion| {
            suspicion.stage = Stage::Asking { step: 0, since: now, epochs: [0; 2] };
            Wish::Ask(suspicion.hosts[0])
        })
        .collect()
    }

    /// A host's list has come, asked for at `asked`; `runs` gives the epoch of a VM that it lists as running.
    pub fn listed(
        &mut self,
        now: Time,
        host: HostId,
        asked: Time,
        runs: impl Fn(VmId) -> Option<u64>,
    ) -> Vec<Wish> {
        let mut wishes = Vec::new();
        for (vm, suspicion) in &mut self.suspected {
            let Stage::Asking { step, since, mut epochs } = suspicion.stage else { continue };
            let hosts = suspicion.hosts;
            if hosts[step % 2] != host || asked < since {
                continue;
            }
            let pause = Stage::Waits(now.plus(PAUSE));
            suspicion.stage = match (step, runs(*vm)) {
                // Not two any more, as the lists say by now; or it has moved meanwhile.
                (_, None) => pause,
                (0 | 1, Some(epoch)) => {
                    epochs[step] = epoch;
                    wishes.push(Wish::Ask(hosts[(step + 1) % 2]));
                    Stage::Asking { step: step + 1, since: now, epochs }
                }
                (_, Some(epoch)) if epoch == epochs[0] => {
                    wishes.push(Wish::Tell(*vm, [(hosts[0], epoch), (hosts[1], epochs[1])]));
                    Stage::Told
                }
                (_, Some(_)) => pause,
            };
        }
        wishes
    }

    /// A host did not answer: its suspicions wait once more.
    pub fn silent(&mut self, now: Time, host: HostId) {
        for suspicion in self.suspected.values_mut() {
            if matches!(suspicion.stage, Stage::Asking { step, .. } if suspicion.hosts[step % 2] == host)
            {
                suspicion.stage = Stage::Waits(now.plus(PAUSE));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: VmId = VmId(9);
    const A: HostId = HostId(1);
    const B: HostId = HostId(2);

    fn at(seconds: u64) -> Time {
        Time(seconds * 1_000_000)
    }

    /// Both seem to have it since the beginning, and the pause is over: the first is to be asked.
    fn suspected() -> Doubles {
        let mut doubles = Doubles::default();
        assert_eq!(doubles.seen(at(0), &BTreeMap::from([(VM, [A, B])])), []);
        assert_eq!(doubles.due(at(9)), []);
        assert_eq!(doubles.due(at(10)), [Wish::Ask(A)]);
        doubles
    }

    #[test]
    fn three_answers_in_their_order_tell() {
        let mut doubles = suspected();
        assert_eq!(doubles.listed(at(11), A, at(10), |_| Some(3)), [Wish::Ask(B)]);
        assert_eq!(doubles.listed(at(12), B, at(11), |_| Some(4)), [Wish::Ask(A)]);
        let told = doubles.listed(at(13), A, at(12), |_| Some(3));
        assert_eq!(told, [Wish::Tell(VM, [(A, 3), (B, 4)])]);
        assert!(doubles.told(VM));
        assert_eq!(doubles.seen(at(14), &BTreeMap::new()), [Wish::Over(VM)]);
    }

    #[test]
    fn a_move_between_the_answers_tells_nothing() {
        let mut doubles = suspected();
        doubles.listed(at(11), A, at(10), |_| Some(3));
        doubles.listed(at(12), B, at(11), |_| Some(4));
        assert_eq!(doubles.listed(at(13), A, at(12), |_| None), []);
        assert!(!doubles.told(VM));
        let mut there_and_back = suspected();
        there_and_back.listed(at(11), A, at(10), |_| Some(3));
        there_and_back.listed(at(12), B, at(11), |_| Some(4));
        assert_eq!(there_and_back.listed(at(13), A, at(12), |_| Some(5)), []);
        assert!(!there_and_back.told(VM));
    }

    #[test]
    fn an_answer_that_was_asked_for_before_does_not_count() {
        let mut doubles = suspected();
        assert_eq!(doubles.listed(at(11), A, at(9), |_| Some(3)), []);
        assert_eq!(doubles.listed(at(11), B, at(10), |_| Some(3)), [], "not its turn");
        assert_eq!(doubles.listed(at(11), A, at(10), |_| Some(3)), [Wish::Ask(B)]);
    }

    #[test]
    fn who_does_not_answer_is_asked_again_after_a_pause() {
        let mut doubles = suspected();
        doubles.silent(at(12), B);
        assert_eq!(doubles.due(at(30)), [], "it was not asked");
        doubles.silent(at(12), A);
        assert_eq!(doubles.due(at(30)), [Wish::Ask(A)]);
    }
}
