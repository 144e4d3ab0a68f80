//! Which agent is asked: this host's by its socket, or another's over TCP.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use api::client::{Client, Remote};

use crate::args::{Command, CommandLine};

const TOKEN: &str = "EVENKEEL_TOKEN";

/// A client of the agent that the command line names.
///
/// # Errors
///
/// When what another host's agent needs is missing, or cannot be used.
pub(crate) fn client(line: &CommandLine) -> anyhow::Result<Client> {
    let first = first(line)?;
    Ok(line.on.as_ref().map_or_else(|| first.clone(), |host| first.on(host)))
}

/// The agent that is reached from here.
fn first(line: &CommandLine) -> anyhow::Result<Client> {
    let here = || Client::new(&line.socket);
    let alone = matches!(line.command, Command::Config { .. } | Command::Daemon(_));
    if alone {
        // These ask no agent, so they need nothing for one.
        return Ok(here());
    }
    let Some(url) = &line.remote else {
        ensure!(
            line.token_file.is_none(),
            "--token-file is for --host: over the socket no token is asked for"
        );
        return Ok(here());
    };
    let Some(ca) = &line.ca else {
        bail!(
            "--host needs --ca FILE (or EVENKEEL_CA): ca.crt of any host's keys, by which the agent is known"
        );
    };
    let shown = ca.display();
    let ca = fs::read(ca).with_context(|| format!("reading {shown}"))?;
    let token = match &line.token_file {
        Some(file) => token(file)?,
        None => std::env::var(TOKEN).ok().with_context(|| {
            format!("--host needs a token: set {TOKEN}, or name a file with --token-file; `evenkeel token create` on that host makes one")
        })?,
    };
    let remote = Remote::new(url, &ca, &token).map_err(anyhow::Error::msg);
    Ok(Client::remote(remote.with_context(|| format!("--host {url} --ca {shown}"))?))
}

fn token(file: &Path) -> anyhow::Result<String> {
    let shown = file.display();
    let found = fs::metadata(file).with_context(|| format!("reading {shown}"))?;
    let mode = found.permissions().mode() & 0o777;
    ensure!(
        mode & 0o077 == 0,
        "{shown} can be read by others (mode {mode:o}): run chmod 600 on it, and if others may have read it, revoke the token"
    );
    fs::read_to_string(file).with_context(|| format!("reading {shown}"))
}
