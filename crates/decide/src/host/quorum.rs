//! Whether this host sees enough of the cluster to begin moves by itself.
//!
//! A host that is cut off with few others sees little of what it would decide about: the others may be up, with VMs that it takes
//! for lost neighbours of its own, and two parts that both balance undo each other's work when they meet again. So less than half
//! waits. Exactly half goes on: of two hosts one alone has nobody to move to, and who owns a VM does not hang on this.
//!
//! **Invariant:** moves by hand, and answers to others, do not depend on it.

use std::time::Duration;

use super::story::{Note, Step};
use super::{Action, Host};
use crate::membership::{HostState, View};
use crate::units::{Mib, Time};

/// A host that is gone is a part of the cluster for so long: then it is taken for given up.
const GONE_COUNTED: Duration = Duration::from_hours(1);

/// Hosts of the cluster, this one included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sight {
    seen: usize,
    suspect: usize,
    gone: usize,
}

impl Host {
    /// Looks how many of the hosts answer; says so when it comes to less than half, and when it is enough again.
    pub(super) fn look_around(&mut self, now: Time, actions: &mut Vec<Action>) {
        // Those who are told of the others from outside see all there are.
        if self.membership.is_told() {
            return;
        }
        let Sight { seen, suspect, gone } = self.sight(now);
        let all = seen + suspect + gone;
        let few = (seen * 2 < all).then(|| {
            format!(
                "sees {seen} of {all} hosts ({suspect} suspected, {gone} gone within the hour): less than half, so it begins no move by itself"
            )
        });
        let words = match (&self.sees_few, &few) {
            (None, Some(few)) => few.clone(),
            (Some(_), None) => format!("sees {seen} of {all} hosts: enough to go on"),
            (None, None) | (Some(_), Some(_)) => String::new(),
        };
        if !words.is_empty() {
            actions.push(Action::Note(Note::new(Step::Membership, words)));
        }
        self.sees_few = few;
    }

    /// Whether this host sees half of the cluster, as of the last reading.
    ///
    /// # Errors
    /// What it sees, in figures.
    pub fn sees_enough(&self) -> Result<(), String> {
        self.sees_few.clone().map_or(Ok(()), Err)
    }

    fn sight(&self, now: Time) -> Sight {
        let mut sight = Sight { seen: 1, suspect: 0, gone: 0 };
        for view in self.membership.hosts() {
            match view.state {
                HostState::Alive => sight.seen += 1,
                HostState::Suspect => sight.suspect += 1,
                HostState::Gone if now.since(view.heard) < GONE_COUNTED && !emptied(view) => {
                    sight.gone += 1;
                }
                HostState::Gone => {}
            }
        }
        sight
    }
}

/// Whether a host left in good order: its last word was that it has no VM and takes none.
fn emptied(view: &View) -> bool {
    view.digest.as_ref().is_some_and(|digest| {
        digest.vms == 0 && digest.headroom.is_some_and(|headroom| headroom.room == Mib(0))
    })
}
