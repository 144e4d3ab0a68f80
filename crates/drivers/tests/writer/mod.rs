//! A writer that is killed: this test binary once more, in which one test alone finds [`FOLDER`] set and writes there for ever.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// Names the folder that the child writes to.
pub(crate) const FOLDER: &str = "EVENKEEL_TEST_WRITER";

/// Runs the child until it has said that number after that word, kills it, and gives the last number that it said.
pub(crate) fn killed(test: &str, folder: &Path, word: &str, until: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut last = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some((_, number)) = line.split_once(word) else { continue };
        last = number.trim().parse().unwrap();
        if last == until {
            // It is in the middle of the next.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(last >= until, "the child ended by itself at {last}");
    last
}
