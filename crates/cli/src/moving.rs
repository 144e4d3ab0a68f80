//! `evenkeel move`: starts, cancels or resolves a move and stays with it until it has ended.
//!
//! The steps and the copy's bar go to standard error, the result to standard output. The move is the agent's: it goes
//! on whatever becomes of this command.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use api::client::Client;
use api::{Decision, EVENTS_MAX, Event, EventFilter, MoveRequest, MoveView, Resolve};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::{MoveArgs, MoveCommand};
use crate::screen::Screen;
use crate::{REFUSED, show};

/// How often the agent is asked how far the copy has come.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Does what `wanted` says.
///
/// # Errors
///
/// When the agent says no or cannot be asked, or standard output cannot be written.
pub(crate) async fn run(
    client: &Client,
    screen: &mut Screen,
    wanted: MoveArgs,
) -> anyhow::Result<ExitCode> {
    match wanted.instead {
        Some(MoveCommand::Cancel { id, no_wait }) => cancel(client, screen, &id, no_wait).await,
        Some(MoveCommand::Resolve { id, keep_here, give_up, fenced }) => {
            let decision = match (keep_here, give_up) {
                (true, _) => Some(Decision::KeepHere),
                (false, true) => Some(Decision::GiveUp),
                (false, false) => None,
            };
            resolve(client, screen, &id, decision, fenced).await
        }
        None => {
            let vm = wanted.vm.expect("clap demands a VM where there is no subcommand");
            let request = MoveRequest { vm, to: wanted.to, force: wanted.force };
            start(client, screen, request, wanted.no_wait).await
        }
    }
}

async fn start(
    client: &Client,
    screen: &mut Screen,
    request: MoveRequest,
    no_wait: bool,
) -> anyhow::Result<ExitCode> {
    let started = client.start_move(&request).await?;
    if no_wait {
        screen.show(&started, |started, _| show::move_started(&request.vm, started))?;
        return Ok(ExitCode::SUCCESS);
    }
    let ended = until_ended(client, &started.move_id).await?;
    screen.show(&ended, |ended, _| show::move_ended(ended))?;
    Ok(if was_made(&ended) { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

async fn cancel(
    client: &Client,
    screen: &mut Screen,
    id: &str,
    no_wait: bool,
) -> anyhow::Result<ExitCode> {
    let told = client.cancel(id).await?;
    if no_wait {
        screen.show(&told, |told, _| show::cancel_told(told))?;
        return Ok(ExitCode::SUCCESS);
    }
    let ended = until_ended(client, id).await?;
    screen.show(&ended, |ended, _| show::move_ended(ended))?;
    Ok(if was_made(&ended) { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS })
}

/// What is known comes first, also where the decision is made already: on standard error then.
async fn resolve(
    client: &Client,
    screen: &mut Screen,
    id: &str,
    decision: Option<Decision>,
    fenced: Option<String>,
) -> anyhow::Result<ExitCode> {
    let unsettled = client.unsettled(id).await?;
    let Some(decision) = decision else {
        screen.show(&unsettled, |unsettled, _| show::unsettled(unsettled))?;
        return Ok(ExitCode::SUCCESS);
    };
    // Whoever cannot be told has said what is to be done all the same.
    let _ = writeln!(io::stderr(), "{}\n", show::unsettled(&unsettled));
    client.resolve(id, &Resolve { decision, fenced }).await?;
    let ended = until_ended(client, id).await?;
    screen.show(&ended, |ended, _| show::move_ended(ended))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn was_made(ended: &MoveView) -> bool {
    ended.phase == "done"
}

/// Shows how the move goes, until it has ended. How long that takes is bounded by the agent's deadlines.
pub(crate) async fn until_ended(client: &Client, id: &str) -> anyhow::Result<MoveView> {
    let lost = || format!("following move {id}, which goes on without this command");
    let bar = bar();
    let mut after = 0;
    loop {
        // Asked in this order, the events of a move that has ended are all there.
        let view = client.one_move(id).await.with_context(lost)?;
        let filter = EventFilter {
            after: Some(after),
            limit: Some(EVENTS_MAX),
            move_id: Some(id.to_owned()),
            follow: false,
        };
        let events = client.events(&filter).await.with_context(lost)?;
        after = events.last().map_or(after, |last| last.seq);
        tell(&bar, &view, &events);
        if view.ended {
            bar.finish_and_clear();
            return Ok(view);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The same, and until what was agreed in it is over too: else the host is not free for another.
pub(crate) async fn until_whole(client: &Client, id: &str) -> anyhow::Result<MoveView> {
    let ended = until_ended(client, id).await?;
    let mut view = ended.clone();
    if view.others_to_come {
        // As with progress: nobody need see it.
        let _ =
            writeln!(io::stderr(), "what was agreed with it is under way: see `evenkeel moves`");
    }
    while view.others_to_come {
        tokio::time::sleep(LOOK_EVERY).await;
        let lost = || {
            format!("waiting for what was agreed in move {id}, which goes on without this command")
        };
        view = client.one_move(id).await.with_context(lost)?;
    }
    Ok(ended)
}

/// Hidden where standard error is no terminal.
fn bar() -> ProgressBar {
    let style =
        "{msg:<16} [{bar:30}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}";
    let style = ProgressStyle::with_template(style).expect("the template is well-formed");
    ProgressBar::new(0).with_style(style.progress_chars("=> "))
}

fn tell(bar: &ProgressBar, view: &MoveView, events: &[Event]) {
    bar.suspend(|| {
        let mut err = io::stderr().lock();
        for event in events {
            // Progress that nobody can see is no reason to leave the move.
            let _ = writeln!(err, "{}", show::step(event));
        }
    });
    if view.total_bytes == 0 {
        return; // The copy has not begun.
    }
    bar.set_message(view.phase.clone());
    // Rounds send pages again, so more than was foreseen may be sent.
    bar.set_length(view.total_bytes.max(view.copied_bytes));
    bar.set_position(view.copied_bytes);
}
