//! `evenkeel`: asks the agent on this host, and shows its answers.
//!
//! Standard output holds what was asked for and nothing else; progress and errors go to standard error.
//!
//! **Boundary:** of this project only the crate `api` is used.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use anyhow::Context;
use api::client::{Client, ClientError};
use api::{BalancerRequest, Why};
use clap::Parser;

use crate::args::{Command, CommandLine, ConfigCommand, Format, OnOff};
use crate::dump::Dump;
use crate::screen::Screen;

mod applying;
mod args;
mod audit;
mod best;
mod draining;
mod dump;
mod events;
mod exclusions;
mod history;
mod looking_back;
mod moving;
mod pages;
mod program;
mod reaching;
mod screen;
mod show;
mod tokens;
mod top;
mod vm;
mod watching;

/// The agent said no, or the move was not made.
const REFUSED: u8 = 1;
/// The agent cannot be reached, or its answer was lost.
const NO_AGENT: u8 = 3;

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime.context("asking the system for an event queue") {
        Ok(runtime) => runtime.block_on(run(line)),
        Err(error) => Err(error),
    };
    ended.unwrap_or_else(|error| exit_code(&error))
}

async fn run(line: CommandLine) -> anyhow::Result<ExitCode> {
    let client = reaching::client(&line)?;
    let mut screen = Screen::new(line.output);
    match line.watch {
        Some(seconds) => watching::run(&client, &mut screen, line, seconds).await,
        None => once(&client, &mut screen, line).await,
    }
}

/// Does what the command says, once.
async fn once(client: &Client, screen: &mut Screen, line: CommandLine) -> anyhow::Result<ExitCode> {
    if line.output == Format::Csv && !matches!(line.command, Command::History(_)) {
        anyhow::bail!("only a history is printed as csv; use table, wide, json or yaml");
    }
    match line.command {
        Command::Status => screen.show(&client.status().await?, show::status)?,
        Command::Hosts => {
            screen.show(&client.hosts().await?, |hosts, look| show::hosts(hosts, look))?
        }
        Command::Vms { vm, all } => vms(client, screen, vm, all).await?,
        Command::Traffic => {
            screen.show(&client.traffic().await?, |flows, look| show::traffic(flows, look))?
        }
        Command::History(wanted) => history::run(client, screen, wanted).await?,
        Command::Moves { all: true } => {
            let moves = looking_back::all_moves(&looking_back::overview(client).await?);
            screen.show(&moves, |moves, look| show::all_moves(moves, look))?
        }
        Command::Moves { all: false } => {
            screen.show(&client.moves().await?, |moves, look| show::moves(moves, look))?
        }
        Command::Events(wanted) => events::run(client, screen, wanted).await?,
        Command::Why { at: Some(at), .. } => looking_back::why(client, screen, &at).await?,
        Command::Why { about, to, at: None } => {
            screen.show(&why(client, about, to).await?, show::why)?
        }
        Command::Plan => screen.show(&client.numbered_plan().await?, show::plan)?,
        Command::Apply { wanted, no_wait } => {
            return applying::run(client, screen, wanted, no_wait).await;
        }
        Command::Balancer { to } => {
            let balancer = match to {
                None => client.balancer().await?,
                Some(to) => client.switch_balancer(BalancerRequest { on: to == OnOff::On }).await?,
            };
            screen.show(&balancer, |balancer, _| show::balancer(balancer))?
        }
        Command::Exclude { vm, for_seconds } => {
            exclusions::exclude(client, screen, vm, for_seconds).await?
        }
        Command::Include { vm } => {
            screen.show(&client.include(&vm).await?, |included, _| show::exclusion(included))?
        }
        Command::Vm { what } => vm::run(client, screen, what).await?,
        Command::Drain(wanted) => return draining::run(client, screen, wanted).await,
        Command::Undrain(wanted) => draining::undrain(client, screen, wanted).await?,
        Command::BestHost(wanted) => return best::run(client, screen, wanted).await,
        Command::Move(wanted) => return moving::run(client, screen, wanted).await,
        Command::Token { what } => tokens::run(client, screen, what).await?,
        Command::Audit(wanted) => return audit::run(client, screen, wanted).await,
        Command::Config { what: ConfigCommand::Check { file } } => {
            return Ok(program::config_check(file));
        }
        Command::Top => top::run(client).await?,
        Command::Completion { shell } => pages::completion(shell)?,
        Command::Man { folder } => pages::man(&folder)?,
        Command::Daemon(command) => return Ok(program::of_agent(command)),
        Command::Lab { args } => match Dump::of(&args) {
            Some(wanted) => return dump::run(client, wanted).await,
            None => return Ok(program::lab(&args)),
        },
    }
    Ok(ExitCode::SUCCESS)
}

async fn vms(
    client: &Client,
    screen: &mut Screen,
    vm: Option<String>,
    all: bool,
) -> anyhow::Result<()> {
    let Some(wanted) = vm else {
        return match all {
            true => screen.show(&client.inventory().await?, |vms, look| show::all_vms(vms, look)),
            false => screen.show(&client.vms().await?, |vms, look| show::vms(vms, look)),
        };
    };
    let mut vms = client.vms().await?.into_iter();
    let found = vms.find(|vm| [&vm.name, &vm.id].contains(&&wanted));
    let vm = found
        .with_context(|| format!("no VM {wanted:?} on this host; `evenkeel vms` lists them"))?;
    screen.show(&vm, show::vm)
}

async fn why(
    client: &Client,
    about: Option<String>,
    to: Option<String>,
) -> Result<Why, ClientError> {
    match (about, to) {
        (Some(vm), Some(to)) => client.why_not(&vm, &to).await,
        (about, _) => client.why(about.as_deref()).await,
    }
}

/// Tells what went wrong, unless it is only that whoever read our output has ended (`evenkeel events -f | head`).
fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    {
        return ExitCode::SUCCESS;
    }
    // Where standard error is closed as well, the exit code alone must do.
    let _ = writeln!(io::stderr(), "evenkeel: {error:#}");
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Refused(_)) | None => ExitCode::from(REFUSED),
        Some(
            ClientError::Unreachable { .. }
            | ClientError::NoAnswer { .. }
            | ClientError::NotUnderstood { .. },
        ) => ExitCode::from(NO_AGENT),
    }
}
