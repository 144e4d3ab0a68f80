//! `evenkeel-sim policy`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use decide::policy::file::Mistake;
use decide::policy::settings::Settings;
use sim::policy::{Cases, cases, read, understood};

use super::say;

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Policy {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Read the policy of a config, and say what was understood, or the first mistake
    #[command(after_help = "Exit code: 0 right, 2 a mistake, with its line and column.\n\n\
        Example: evenkeel lab policy check /etc/evenkeel/evenkeel.toml")]
    Check {
        /// The config; sections that are none of the policy may be in it
        file: PathBuf,
    },
    /// Try the cases beside a policy: for evenkeel.toml they are in evenkeel.cases.toml
    #[command(after_help = "Exit code: 0 all hold, 1 one does not, 2 a mistake in a file.\n\n\
        Example: evenkeel lab policy test policy.toml")]
    Test {
        /// The config
        file: PathBuf,
        /// The cases; default: FILE with .cases.toml for .toml
        #[arg(long)]
        cases: Option<PathBuf>,
    },
}

/// A file is wrong.
const WRONG: u8 = 2;

impl Policy {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let (file, beside) = match &self.what {
            What::Check { file } => (file, None),
            What::Test { file, cases } => {
                (file, Some(cases.clone().unwrap_or_else(|| file.with_extension("cases.toml"))))
            }
        };
        let Some(settings) = right(file, read)? else {
            return Ok(ExitCode::from(WRONG));
        };
        match beside {
            None => check(file, &settings),
            Some(beside) => test(&beside, &settings),
        }
    }
}

fn check(file: &Path, settings: &Settings) -> anyhow::Result<ExitCode> {
    print(&format!("{} is right\n{}", file.display(), understood(settings)))?;
    Ok(ExitCode::SUCCESS)
}

fn test(beside: &Path, settings: &Settings) -> anyhow::Result<ExitCode> {
    let Some(Cases { count, failed }) = right(beside, |text| cases(text, settings))? else {
        return Ok(ExitCode::from(WRONG));
    };
    for case in &failed {
        print(&format!("{}\n  {}", case.name, case.words))?;
    }
    print(&format!("{} of {count} cases hold\n", count - failed.len()))?;
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is in the file, or nothing if it cannot be read or has a mistake, which is told.
fn right<T>(
    file: &Path,
    read: impl FnOnce(&str) -> Result<T, Mistake>,
) -> anyhow::Result<Option<T>> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
    match text.and_then(|text| read(&text).map_err(|mistake| mistake.to_string())) {
        Ok(read) => Ok(Some(read)),
        Err(wrong) => say(&format!("{}: {wrong}\n", file.display())).map(|()| None),
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes()).context("writing to standard output")
}
