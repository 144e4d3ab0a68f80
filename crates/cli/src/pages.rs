//! What a package has beside the program: completion for shells, and pages for `man`, both of the command line as it is.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::CommandLine;

/// Prints what this shell reads to complete command lines.
pub(crate) fn completion(shell: Shell) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "evenkeel", &mut text);
    Ok(std::io::stdout().write_all(&text)?)
}

/// Writes one page for `evenkeel`, and one for each of its commands.
pub(crate) fn man(folder: &PathBuf) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    clap_mangen::generate_to(CommandLine::command(), folder)
        .with_context(|| format!("writing pages to {}", folder.display()))
}
