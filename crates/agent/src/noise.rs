//! Keeps noise on the wire from washing everything else out of the event log.
//!
//! Whatever comes by network and cannot be read is told, but of one period only the first few; what was left out is
//! counted, and the count told with the next. What concerns a VM is always told.

use std::time::Duration;

use decide::host::story::{Note, Step};
use decide::units::Time;

/// Told within one period.
const TOLD_MAX: u32 = 20;
/// How long a period is.
const PERIOD: Duration = Duration::from_secs(10);

/// How much was told in this period.
#[derive(Debug, Default)]
pub(crate) struct Noise {
    began: Time,
    told: u32,
    left_out: u64,
}

impl Noise {
    /// The notes that are to be told, in order.
    pub(crate) fn quieted(&mut self, now: Time, notes: Vec<Note>) -> Vec<Note> {
        notes.into_iter().flat_map(|note| self.one(now, note)).flatten().collect()
    }

    fn one(&mut self, now: Time, note: Note) -> [Option<Note>; 2] {
        if note.step != Step::BadInput || note.vm.is_some() {
            return [None, Some(note)];
        }
        if now.since(self.began) < PERIOD && self.told >= TOLD_MAX {
            self.left_out += 1;
            return [None, None];
        }
        let mut before = None;
        if now.since(self.began) >= PERIOD {
            let left_out = std::mem::take(&mut self.left_out);
            before = (left_out > 0).then(|| {
                Note::bad_input(format!("{left_out} more like those before were left out"))
            });
            (self.began, self.told) = (now, 0);
        }
        self.told += 1;
        [before, Some(note)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time(1_000_000_000);

    fn noise(count: usize) -> Vec<Note> {
        (0..count).map(|n| Note::bad_input(format!("garbled {n}"))).collect()
    }

    #[test]
    fn of_much_noise_the_first_is_told_and_the_rest_counted() {
        let mut quiet = Noise::default();
        assert_eq!(quiet.quieted(START, noise(500)).len(), 20);
        assert!(quiet.quieted(START.plus(PERIOD / 2), noise(7)).is_empty());
        let later = quiet.quieted(START.plus(PERIOD), noise(2));
        let words: Vec<&str> = later.iter().map(|note| &*note.reason).collect();
        assert_eq!(words, ["487 more like those before were left out", "garbled 0", "garbled 1"]);
    }

    #[test]
    fn what_is_no_noise_is_always_told() {
        let mut quiet = Noise::default();
        assert_eq!(quiet.quieted(START, noise(500)).len(), 20);
        let vm = decide::units::VmId(1);
        let notes = vec![
            Note::bad_input("no tap".to_owned()).about(vm),
            Note::new(Step::Alarm, "look".to_owned()),
        ];
        assert_eq!(quiet.quieted(START, notes.clone()), notes);
    }
}
