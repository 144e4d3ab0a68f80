//! The test runner's closing line, read.

use serde::Serialize;

/// What a test run ended with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    /// The line itself.
    #[serde(skip)]
    line: String,
    run: u64,
    passed: u64,
    /// Failed, timed out, or not run although they should have been.
    failed: u64,
}

impl Summary {
    /// Reads nextest's line: `Summary [   1.5s] 9 tests run: 7 passed, 1 failed, 1 timed out, 3 skipped`.
    /// A run that was cut short has `5/9 tests run`. None: it is another line.
    pub(super) fn read(line: &str) -> Option<Summary> {
        let (_, figures) = line.trim().strip_prefix("Summary [")?.split_once(']')?;
        let (counts, verdicts) = figures.split_once(" run: ")?;
        let counts = counts.split_whitespace().next()?;
        let run: u64 = counts.rsplit('/').next()?.parse().ok()?;
        // `7 passed (1 slow)` begins with the figure too.
        let passed = verdicts.split(", ").find_map(|verdict| {
            let (count, word) = verdict.trim().split_once(' ')?;
            word.starts_with("passed").then(|| count.parse().ok())?
        });
        let passed: u64 = passed.unwrap_or(0);
        let line = line.trim().to_owned();
        Some(Summary { line, run, passed, failed: run.saturating_sub(passed) })
    }

    /// Whether every test passed, and there was one.
    pub(super) fn good(&self) -> bool {
        self.run > 0 && self.failed == 0
    }
}

/// All runs together.
pub(super) fn sum(summaries: &[Summary]) -> Summary {
    summaries.iter().fold(Summary::default(), |sum, one| Summary {
        line: String::new(),
        run: sum.run + one.run,
        passed: sum.passed + one.passed,
        failed: sum.failed + one.failed,
    })
}

/// The closing line of each run, and the sums alone on the last.
pub(crate) fn closing_lines(summaries: &[Summary]) -> String {
    let sum = sum(summaries);
    let lines = summaries.iter().map(|one| one.line.clone());
    let last = format!("{} passed, {} failed", sum.passed, sum.failed);
    lines.chain([last]).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, run: u64, passed: u64, failed: u64) {
        let read = Summary::read(line).expect(line);
        assert_eq!((read.run, read.passed, read.failed), (run, passed, failed), "{line}");
    }

    #[test]
    fn closing_lines_are_read() {
        check("     Summary [   0.12s] 5 tests run: 5 passed, 0 skipped", 5, 5, 0);
        check("     Summary [   0.12s] 1 test run: 1 passed (1 slow), 7 skipped", 1, 1, 0);
        check("Summary [ 9s] 9 tests run: 6 passed, 1 failed, 2 timed out, 0 skipped", 9, 6, 3);
        check("Summary [ 9s] 4 tests run: 0 passed, 4 failed, 0 skipped", 4, 0, 4);
    }

    #[test]
    fn tests_that_a_cut_run_left_out_count_as_failed() {
        check("Summary [ 9s] 3/10 tests run: 2 passed, 1 failed, 0 skipped", 10, 2, 8);
    }

    #[test]
    fn other_lines_are_no_closing_lines() {
        for line in ["", "    PASS [ 0.1s] xtask tests::one", "Summary", "Summary [1s] none"] {
            assert_eq!(Summary::read(line), None, "{line}");
        }
    }

    #[test]
    fn a_run_without_tests_is_not_good() {
        assert!(!Summary::read("Summary [ 0s] 0 tests run: 0 passed, 9 skipped").unwrap().good());
    }

    #[test]
    fn the_sums_stand_alone_at_the_end() {
        let lines = [
            "Summary [ 1s] 3 tests run: 3 passed, 0 skipped",
            "Summary [ 2s] 2 tests run: 1 passed, 1 failed, 3 skipped",
        ];
        let summaries: Vec<Summary> = lines.iter().filter_map(|line| Summary::read(line)).collect();
        let expected = format!("{}\n{}\n4 passed, 1 failed", lines[0], lines[1]);
        assert_eq!(closing_lines(&summaries), expected);
        assert_eq!(closing_lines(&[]), "0 passed, 0 failed");
    }
}
