//! What each host's journal was last heard to be, so that one that was lost or set back is noticed.
//!
//! An agent says of its journal which it is, how far it has come, how far it had come when it was opened, and the lot drawn at
//! that opening. All that it ever says is on its disk before. So if it was opened at a lower generation than somebody had heard
//! of in an earlier life of it, what came in between is missing.
//!
//! **Invariant:** news of a life that is over, however late, is passed over.

use std::collections::{BTreeMap, VecDeque};

use crate::units::HostId;
use crate::wire::message::JournalMark;

/// Lives of one host that are remembered as over.
const LIVES_MAX: usize = 8;

/// What became of a host's journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// It has another one: the former was lost, or moved away.
    Replaced,
    /// It is a former state of the one that it had.
    SetBack {
        /// The generation that had been heard of.
        from: u64,
        /// The one at which it was opened since.
        to: u64,
    },
}

/// The journals of all other hosts, as heard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Journals {
    hosts: BTreeMap<HostId, Heard>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Heard {
    mark: JournalMark,
    /// Lots of former openings, newest last.
    over: VecDeque<u64>,
    set_back: bool,
}

impl Journals {
    /// A host says this of its journal; gives what has become of the former, the first time it shows.
    pub fn hear(&mut self, host: HostId, mark: JournalMark) -> Option<Loss> {
        if mark.life == 0 {
            // A host of the version before, which does not tell its openings apart.
            return None;
        }
        let Some(heard) = self.hosts.get_mut(&host) else {
            let (over, set_back) = (VecDeque::new(), false);
            self.hosts.insert(host, Heard { mark, over, set_back });
            return None;
        };
        if mark.life == heard.mark.life {
            heard.mark.generation = heard.mark.generation.max(mark.generation);
            return None;
        }
        if heard.over.contains(&mark.life) {
            return None;
        }
        let before = std::mem::replace(&mut heard.mark, mark);
        heard.over.push_back(before.life);
        if heard.over.len() > LIVES_MAX {
            heard.over.pop_front();
        }
        if before.id != mark.id {
            heard.set_back = false;
            return Some(Loss::Replaced);
        }
        if mark.opened < before.generation {
            heard.set_back = true;
            return Some(Loss::SetBack { from: before.generation, to: mark.opened });
        }
        None
    }

    /// Whether the host's journal was set back and is still in use.
    pub fn set_back(&self, host: HostId) -> bool {
        self.hosts.get(&host).is_some_and(|heard| heard.set_back)
    }

    /// Nothing more is kept of hosts that are not in `known`.
    pub fn keep(&mut self, known: impl Fn(HostId) -> bool) {
        self.hosts.retain(|host, _| known(*host));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::JournalId;

    const HOST: HostId = HostId(1);

    fn mark(id: u128, opened: u64, generation: u64, life: u64) -> JournalMark {
        JournalMark { id: JournalId(id), generation, opened, life }
    }

    fn heard(marks: &[JournalMark]) -> (Option<Loss>, bool) {
        let mut journals = Journals::default();
        let last = marks.iter().map(|mark| journals.hear(HOST, *mark)).last().flatten();
        (last, journals.set_back(HOST))
    }

    #[test]
    fn a_journal_that_goes_on_is_no_loss() {
        let marks = [mark(1, 0, 5, 10), mark(1, 0, 9, 10), mark(1, 9, 10, 11), mark(1, 12, 14, 12)];
        assert_eq!(heard(&marks), (None, false));
    }

    #[test]
    fn one_that_was_opened_before_what_had_been_heard_was_set_back_however_far_it_has_come_since() {
        let marks = [mark(1, 0, 50, 10), mark(1, 20, 70, 11)];
        assert_eq!(heard(&marks), (Some(Loss::SetBack { from: 50, to: 20 }), true));
        let again = [mark(1, 20, 50, 10), mark(1, 20, 21, 11), mark(1, 20, 22, 11)];
        assert_eq!(heard(&again), (None, true), "told once, but kept in mind");
    }

    #[test]
    fn another_journal_is_a_loss_and_news_of_a_former_life_is_none() {
        let marks = [mark(1, 0, 50, 10), mark(2, 0, 1, 11)];
        assert_eq!(heard(&marks), (Some(Loss::Replaced), false));
        let late = [mark(1, 0, 50, 10), mark(1, 50, 60, 11), mark(1, 0, 49, 10)];
        assert_eq!(heard(&late), (None, false));
    }
}
