//! Commands that are programs of their own, as those of git and cargo are: this process becomes them.
//!
//! **Boundary:** nothing of simulation or decisions is linked here.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::args::{DaemonCommand, HostCommand};

/// It is not installed, or cannot be run: as shells say it.
const NO_PROGRAM: u8 = 127;

/// Becomes `evenkeel-sim` with these arguments. Gives an exit code only where that is not possible.
pub(crate) fn lab(args: &[OsString]) -> ExitCode {
    become_program("evenkeel-sim", args, "sim")
}

/// Becomes `evenkeeld` with this command of it and its arguments. Gives an exit code only where that is not possible.
pub(crate) fn of_agent(command: DaemonCommand) -> ExitCode {
    let (words, args) = match command {
        DaemonCommand::Ca { args } => (&["ca"][..], args),
        DaemonCommand::Join { args } => (&["join"][..], args),
        DaemonCommand::Doctor { args } => (&["doctor"][..], args),
        DaemonCommand::Keys { args } => (&["keys"][..], args),
        DaemonCommand::Host(HostCommand::Revoke { args }) => (&["ca", "revoke"][..], args),
    };
    let all: Vec<OsString> = words.iter().map(OsString::from).chain(args).collect();
    become_program("evenkeeld", &all, "agent")
}

/// Becomes `evenkeeld`, which reads the file as it would at its start, and ends.
pub(crate) fn config_check(file: PathBuf) -> ExitCode {
    become_program("evenkeeld", &["--check".into(), "--config".into(), file.into()], "agent")
}

/// `of` is the crate that makes it.
fn become_program(program: &str, args: &[OsString], of: &str) -> ExitCode {
    let beside = beside(program);
    let found = beside.as_ref().filter(|path| path.is_file());
    let error =
        Command::new(found.map_or(OsStr::new(program), |path| path.as_os_str())).args(args).exec();
    let words = if error.kind() == ErrorKind::NotFound {
        let folder = beside.as_deref().and_then(|path| path.parent());
        let folder = folder.map_or("this program".into(), |path| path.display().to_string());
        format!(
            "{program} is not installed: it is neither in {folder} nor in PATH\n  \
             put it there; in the source tree `cargo build --release -p {of}` makes it"
        )
    } else {
        format!("{program} cannot be run: {error}")
    };
    // Where standard error is closed, the exit code alone must do.
    let _ = writeln!(io::stderr(), "evenkeel: {words}");
    ExitCode::from(NO_PROGRAM)
}

/// Where it is if it was installed with this program.
fn beside(program: &str) -> Option<PathBuf> {
    Some(env::current_exe().ok()?.with_file_name(program))
}
