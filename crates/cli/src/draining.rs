//! `evenkeel drain`: begins it, says first what stands in the way, and follows it until no more VM can leave.
//!
//! How it goes is told on standard error: as a bar on a terminal, else line by line. The drain is the agent's: it goes on
//! whatever becomes of this command.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use api::client::Client;
use api::{DrainRequest, DrainView, LeavingVm};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::{DrainArgs, UndrainArgs};
use crate::screen::Screen;
use crate::{REFUSED, show};

/// How often the agent is asked how it goes.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// As shells say it of a command that was interrupted.
const INTERRUPTED: u8 = 130;

/// Does what `wanted` says.
///
/// # Errors
///
/// When the agent says no or cannot be asked, or standard output cannot be written.
pub(crate) async fn run(
    client: &Client,
    screen: &mut Screen,
    wanted: DrainArgs,
) -> anyhow::Result<ExitCode> {
    let begun = client.set_drain(&DrainRequest { on: true, host: wanted.host }).await?;
    if wanted.no_wait {
        screen.show(&begun, |drain, _| show::drain(drain))?;
        return Ok(ExitCode::SUCCESS);
    }
    // Whoever cannot be told has said what is to be done all the same.
    let _ = writeln!(io::stderr(), "{}", show::drain_begins(&begun));
    let host = begun.host.clone();
    let ended = tokio::select! {
        ended = until_ended(client, begun) => ended?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("waiting for Ctrl-C")?;
            let _ = writeln!(io::stderr(), "\n{}", show::drain_goes_on(&host));
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    screen.show(&ended, |drain, _| show::drain(drain))?;
    let drained = ended.draining && !ended.looking && ended.here.is_empty();
    Ok(if drained { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

/// Ends a drain.
///
/// # Errors
///
/// When the agent says no or cannot be asked, or standard output cannot be written.
pub(crate) async fn undrain(
    client: &Client,
    screen: &mut Screen,
    wanted: UndrainArgs,
) -> anyhow::Result<()> {
    let ended = client.set_drain(&DrainRequest { on: false, host: wanted.host }).await?;
    screen.show(&ended, |drain, _| show::undrained(drain, wanted.bring_back))
}

/// Tells what changes until it was ended, or nobody is left who could go by itself.
async fn until_ended(client: &Client, begun: DrainView) -> anyhow::Result<DrainView> {
    let bar = bar();
    let mut view = begun;
    let mut told = Told::default();
    loop {
        told.tell(&bar, &view);
        let over = !view.looking && view.here.iter().all(|vm| vm.state == "stays");
        if over || !view.draining {
            bar.finish_and_clear();
            return Ok(view);
        }
        tokio::time::sleep(LOOK_EVERY).await;
        view = client
            .drain()
            .await
            .with_context(|| format!("following the drain: {}", show::drain_goes_on(&view.host)))?;
    }
}

/// Hidden where standard error is no terminal.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("[{bar:30}] {pos} of {len} VMs have left {msg}");
    let style = style.expect("the template is well-formed");
    ProgressBar::new(0).with_style(style.progress_chars("=> "))
}

/// What was told last of each VM, by its id.
#[derive(Debug, Default)]
struct Told {
    here: BTreeMap<String, String>,
}

impl Told {
    fn tell(&mut self, bar: &ProgressBar, view: &DrainView) {
        let mut lines = Vec::new();
        let new = |vm: &&api::LeftVm| self.here.remove(&vm.vm_id).is_some();
        let left: Vec<_> = view.left.iter().filter(new).collect();
        lines.extend(left.iter().map(|vm| show::has_left(vm)));
        for vm in view.here.iter().filter(|vm| vm.state != "next") {
            let seen = without_figures(vm);
            if self.here.insert(vm.vm_id.clone(), seen.clone()).as_ref() != Some(&seen) {
                lines.push(show::leaving(vm));
            }
        }
        for vm in view.here.iter().filter(|vm| vm.state == "next") {
            self.here.entry(vm.vm_id.clone()).or_default();
        }
        bar.suspend(|| {
            let mut err = io::stderr().lock();
            for line in lines {
                // Progress that nobody can see is no reason to leave the drain.
                let _ = writeln!(err, "{line}");
            }
        });
        let moving = view.here.iter().filter(|vm| vm.state == "moving");
        let moving: Vec<&str> = moving.map(|vm| &*vm.vm).collect();
        bar.set_length(u64::try_from(view.left.len() + view.here.len()).unwrap_or(u64::MAX));
        bar.set_position(u64::try_from(view.left.len()).unwrap_or(u64::MAX));
        bar.set_message(moving.join(", "));
    }
}

/// Seconds that are counted down are no news.
fn without_figures(vm: &LeavingVm) -> String {
    let why = vm.why.as_deref().unwrap_or_default();
    let words: String = why.chars().filter(|c| !c.is_ascii_digit()).collect();
    format!("{} {words}", vm.state)
}
