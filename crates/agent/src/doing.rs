//! Why nothing is being moved, noted when the reason becomes another: so that it can be told later why nothing moved then.
//!
//! **Invariant:** at most one note in [`EVERY`], however often the reason changes; figures in it do not make it another.

use std::time::Duration;

use decide::host::story::{Note, Step};
use decide::units::Time;

/// The least time between two notes.
const EVERY: Duration = Duration::from_mins(1);

/// What was noted last.
#[derive(Debug, Default)]
pub(crate) struct Doing {
    noted: Option<(Time, String)>,
}

impl Doing {
    /// The host says what it does, or why nothing; gives a note if that is worth one.
    pub(crate) fn heard(&mut self, now: Time, doing: &str) -> Option<Note> {
        if doing.is_empty() {
            return None;
        }
        let reason = without_figures(doing);
        if let Some((at, noted)) = &self.noted
            && (*noted == reason || now.since(*at) < EVERY)
        {
            return None;
        }
        self.noted = Some((now, reason));
        Some(Note::new(Step::Doing, doing))
    }
}

fn without_figures(words: &str) -> String {
    words.chars().filter(|one| !one.is_ascii_digit() && *one != '.' && *one != ',').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_noted_when_it_becomes_another_and_not_for_its_figures() {
        let mut all = Doing::default();
        let mut noted = Vec::new();
        for (second, doing) in [
            (0, ""),
            (1, "this host is not hot"),
            (2, "cpu 85.1% over 80%, not for 120 s yet"),
            (60, "this host is not hot"),
            (100, "this host rests for 90 s: a move"),
            (161, "this host rests for 29 s: a move"),
            (162, "this host rests for 28 s: a move"),
            (190, "this host is not hot"),
            (300, "this host is not hot"),
            (400, "this host is not hot"),
        ] {
            if let Some(note) = all.heard(Time(second * 1_000_000), doing) {
                noted.push((second, note.reason));
            }
        }
        let noted: Vec<(u64, &str)> = noted.iter().map(|(at, words)| (*at, &**words)).collect();
        assert_eq!(
            noted,
            [
                (1, "this host is not hot"),
                (100, "this host rests for 90 s: a move"),
                (190, "this host is not hot"),
            ]
        );
    }
}
