//! `--watch`: a command that only looks, again and again.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use api::client::{Client, ClientError};
use clap::Parser;
use tokio::time::{MissedTickBehavior, interval};

use crate::args::{Command, CommandLine};
use crate::once;
use crate::screen::Screen;

/// Looks every so many seconds until it is ended from outside; an agent that is away for a while is waited for.
///
/// # Errors
/// The command does more than to look, or the agent refuses.
pub(crate) async fn run(
    client: &Client,
    screen: &mut Screen,
    line: CommandLine,
    seconds: u64,
) -> anyhow::Result<ExitCode> {
    if !only_looks(&line.command) {
        bail!(
            "--watch is for commands that only look: status, hosts, vms, traffic, history, moves, why, plan, exclude and balancer \
             without more words; `evenkeel events -f` goes on by itself"
        );
    }
    let mut ticks = interval(Duration::from_secs(seconds));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = Some(line);
    loop {
        ticks.tick().await;
        screen.anew(next.is_some());
        // The same words mean the same again.
        let line = next.take().unwrap_or_else(CommandLine::parse);
        match once(client, screen, line).await {
            Ok(_) => {}
            Err(error) => match error.downcast_ref::<ClientError>() {
                Some(ClientError::Unreachable { .. } | ClientError::NoAnswer { .. }) => {
                    screen.nothing_came(&format!("evenkeel: {error:#}"))?;
                }
                _ => return Err(error),
            },
        }
    }
}

fn only_looks(command: &Command) -> bool {
    matches!(
        command,
        Command::Status
            | Command::Hosts
            | Command::Vms { .. }
            | Command::Traffic
            | Command::History(_)
            | Command::Moves { .. }
            | Command::Why { .. }
            | Command::Plan
            | Command::Balancer { to: None }
            | Command::Exclude { vm: None, .. }
    )
}
