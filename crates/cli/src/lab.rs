//! `evenkeel lab`: hands over to `evenkeel-sim`, as git and cargo do with commands that are programs of their own.
//!
//! **Boundary:** nothing of simulation or decisions is linked here.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

const PROGRAM: &str = "evenkeel-sim";
/// It is not installed, or cannot be run: as shells say it.
const NO_PROGRAM: u8 = 127;

/// Becomes `evenkeel-sim` with these arguments. Gives an exit code only where that is not possible.
pub(crate) fn run(args: &[OsString]) -> ExitCode {
    let beside = beside();
    let found = beside.as_ref().filter(|path| path.is_file());
    let error =
        Command::new(found.map_or(OsStr::new(PROGRAM), |path| path.as_os_str())).args(args).exec();
    let words = if error.kind() == ErrorKind::NotFound {
        let folder = beside.as_deref().and_then(|path| path.parent());
        let folder = folder.map_or("this program".into(), |path| path.display().to_string());
        format!(
            "{PROGRAM} is not installed: it is neither in {folder} nor in PATH\n  \
             put it there; in the source tree `cargo build --release -p sim` makes it"
        )
    } else {
        format!("{PROGRAM} cannot be run: {error}")
    };
    // Where standard error is closed, the exit code alone must do.
    let _ = writeln!(io::stderr(), "evenkeel: {words}");
    ExitCode::from(NO_PROGRAM)
}

/// Where it is if it was installed with this program.
fn beside() -> Option<PathBuf> {
    Some(env::current_exe().ok()?.with_file_name(PROGRAM))
}
