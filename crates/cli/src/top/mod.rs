//! `evenkeel top`: hosts, VMs and moves, live on a terminal.
//!
//! ```text
//!   every second: status, hosts, inventory, VMs, moves ─▶ Seen ─┐
//!   keys ─▶ View: what is sorted, filtered, chosen ─────────────┴─▶ draw
//! ```
//!
//! What is seen and how it is shown are values, and drawing is pure; only this file knows a clock and a terminal.

mod draw;
mod seen;
mod view;

use std::io::{IsTerminal as _, stdout};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use api::client::Client;
use crossterm::event::{self, Event};
use ratatui::style::Color;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use self::seen::Seen;
use self::view::{Next, View};

/// How often the agent is asked: five short questions.
const EVERY: Duration = Duration::from_secs(1);

/// Shows it until a key ends it.
///
/// # Errors
/// If there is no terminal, or no agent at the start. An agent that goes away later is told on the screen.
pub(crate) async fn run(client: &Client) -> anyhow::Result<()> {
    if !stdout().is_terminal() {
        bail!(
            "`evenkeel top` needs a terminal; for programs: `evenkeel hosts -o json`, `evenkeel vms -o json`"
        );
    }
    let mut seen = Seen::of(client).await?;
    let mut view = View::new(colours());
    let mut keys = keys()?;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut terminal = ratatui::try_init().context("taking the terminal")?;
    let shown = async {
        loop {
            terminal.draw(|frame| draw::draw(frame, &view, &seen)).context("drawing")?;
            tokio::select! {
                _ = ticks.tick() => seen.renew(client).await,
                key = keys.recv() => match key {
                    Some(Event::Key(key)) if view.key(key, &seen) == Next::End => return Ok(()),
                    Some(_) => {}
                    None => return Ok(()),
                },
            }
        }
    };
    let ended = shown.await;
    ratatui::restore();
    ended
}

/// Whether there are to be colours: none where `NO_COLOR` is set.
fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

/// What is typed, read on a thread of its own since that blocks; it ends with the program.
fn keys() -> anyhow::Result<mpsc::Receiver<Event>> {
    let (typed, keys) = mpsc::channel(64);
    thread::Builder::new()
        .name("keys".to_owned())
        .spawn(move || {
            while let Ok(event) = event::read() {
                if typed.blocking_send(event).is_err() {
                    return;
                }
            }
        })
        .context("starting a thread for the keys")?;
    Ok(keys)
}

/// The colour of what is at `percent` of what it may be.
fn heat(percent: f64) -> Color {
    match percent {
        p if p >= 90.0 => Color::Red,
        p if p >= 75.0 => Color::Yellow,
        _ => Color::Green,
    }
}

#[cfg(test)]
mod tests;
