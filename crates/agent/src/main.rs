//! `evenkeeld`, the agent.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use agent::certify;
use agent::doctor::{self, Verdict};
use agent::hook;
use agent::run::{Args, Command, admitted, check, run};
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// The configuration has a mistake.
const WRONG: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    match &args.command {
        Some(Command::Doctor { json }) => return examined(&args, *json),
        Some(Command::LibvirtHook { operation }) => {
            return hooked(hook::run(&args.config, operation));
        }
        Some(Command::Certify(command)) => return certified(certify::run(command, &args.config)),
        None => {}
    }
    if args.check {
        return checked(&args.config);
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    // Before anything is touched.
    let (config, keys) = match admitted(&args) {
        Ok(admitted) => admitted,
        Err(found) => {
            found.iter().for_each(|wrong| tracing::error!("{wrong}"));
            return ExitCode::from(WRONG);
        }
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(&args, config, keys)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What was found goes to standard output; the exit code says whether an agent could run.
fn examined(args: &Args, json: bool) -> ExitCode {
    let found = doctor::examine(args);
    let text = match json {
        true => serde_json::to_string_pretty(&found).unwrap_or_default(),
        false => doctor::table(&found),
    };
    let _ = writeln!(std::io::stdout(), "{text}");
    let wrong = found.iter().any(|one| one.verdict == Verdict::Wrong);
    if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What is wrong with the file goes to standard error, that nothing is to standard output.
fn checked(path: &Path) -> ExitCode {
    let found = check(path);
    for wrong in &found {
        // Where it is closed, the exit code alone must do.
        let _ = writeln!(std::io::stderr(), "{wrong}");
    }
    if !found.is_empty() {
        return ExitCode::from(WRONG);
    }
    let _ = writeln!(std::io::stdout(), "{}: no mistake found", path.display());
    ExitCode::SUCCESS
}

/// Nothing goes to standard output: libvirt takes that for another definition.
fn hooked(answer: Result<(), String>) -> ExitCode {
    match answer {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "{why}");
            ExitCode::FAILURE
        }
    }
}

/// What a command of `ca` or `keys` gives goes to standard output, and what went wrong to standard error.
fn certified(done: anyhow::Result<String>) -> ExitCode {
    match done {
        Ok(text) => {
            // Where it is closed nobody reads it.
            let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "evenkeel: {error:#}");
            ExitCode::FAILURE
        }
    }
}
