//! Man pages and shell completion, as the programs themselves give them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use clap::CommandFactory as _;

use crate::demo::prepare;

/// The shells, and where each looks.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/evenkeel"),
    ("zsh", "usr/share/zsh/vendor-completions/_evenkeel"),
    ("fish", "usr/share/fish/vendor_completions.d/evenkeel.fish"),
];

pub(super) fn make(tree: &Path) -> anyhow::Result<()> {
    let (users, admins) = (tree.join("usr/share/man/man1"), tree.join("usr/share/man/man8"));
    evenkeel(&["man", users.to_str().context("a path that is text")?])?;
    fs::create_dir_all(&admins)?;
    let mut page = Vec::new();
    let agent = agent::run::Args::command().name("evenkeeld");
    clap_mangen::Man::new(agent).section("8").render(&mut page)?;
    fs::write(admins.join("evenkeeld.8"), page)?;
    for folder in [&users, &admins] {
        // Of the programs themselves there are hundreds of lines: Debian wants pages packed, without a date.
        for entry in fs::read_dir(folder)? {
            let packed = Command::new("gzip").args(["-9", "--no-name"]).arg(entry?.path()).status();
            ensure!(packed.context("running gzip")?.success(), "gzip failed");
        }
    }
    for (shell, place) in COMPLETIONS {
        let (text, place) = (evenkeel(&["completion", shell])?, tree.join(place));
        fs::create_dir_all(place.parent().unwrap_or(&place))?;
        fs::write(&place, text).with_context(|| place.display().to_string())?;
    }
    Ok(())
}

fn evenkeel(arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let said = Command::new(prepare::released("evenkeel")).args(arguments).output();
    let said = said.context("running evenkeel")?;
    let words = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.success(), "evenkeel {}: {words}", arguments.join(" "));
    Ok(said.stdout)
}
