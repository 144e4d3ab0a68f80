//! A seam for tests of faults: the agent stops itself at a step of a move, between deciding and acting.
//!
//! ```text
//!   event ─▶ Host::handle ─▶ notes of the named step? ─ no ─▶ actions
//!                                  └ yes ─▶ notes told and on disk ─▶ SIGSTOP … SIGCONT ─▶ actions
//! ```
//!
//! The environment variable `EVENKEEL_HOLD_FILE` names a file. While that file is there and holds the name of a step
//! (`hand-over`), the next event of a move with that step is held: all that was decided before has been acted on, what
//! follows from this event has not. The file is removed first, so an agent is held once. Whoever made the file waits
//! until the process is stopped, does the damage, and lets it go on, or kills it.
//!
//! **Invariant:** without the variable nothing here does anything.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use rustix::process::{Signal, getpid, kill_process};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::block_in_place;

const VARIABLE: &str = "EVENKEEL_HOLD_FILE";

/// Where it is said at which step to hold.
#[derive(Debug)]
pub(crate) struct Hold {
    file: PathBuf,
}

impl Hold {
    /// As the environment has it; none where the variable is not set.
    pub(crate) fn from_environment() -> Option<Hold> {
        let file = PathBuf::from(std::env::var_os(VARIABLE)?);
        tracing::warn!(file = %file.display(), "{VARIABLE} is set: this agent stops itself where that file says; for tests only");
        Some(Hold { file })
    }

    /// Whether to hold at one of these steps; if so it will not be asked for again.
    pub(crate) fn wanted(&self, steps: &[String]) -> bool {
        let wanted = fs::read_to_string(&self.file).unwrap_or_default();
        steps.iter().any(|step| step == wanted.trim()) && fs::remove_file(&self.file).is_ok()
    }

    /// Stops this process, and comes back once it was told to go on: a signal to a process may be taken by any of its
    /// threads, so the one that sent it could run on for a while.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        let mut told = signal(SignalKind::from_raw(Signal::CONT.as_raw()))?;
        kill_process(getpid(), Signal::STOP).context("stopping this process")?;
        block_in_place(|| Handle::current().block_on(told.recv()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_wanted_once_and_only_where_the_file_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let hold = Hold { file: dir.path().join("hold") };
        let steps = ["copy".to_owned(), "hand-over".to_owned()];
        assert!(!hold.wanted(&steps), "there is no file");
        fs::write(&hold.file, "request\n").unwrap();
        assert!(!hold.wanted(&steps));
        fs::write(&hold.file, "hand-over\n").unwrap();
        assert!(!hold.wanted(&steps[..1]));
        assert!(hold.wanted(&steps));
        assert!(!hold.wanted(&steps), "held once");
    }
}
