//! `cargo xtask night`: *three in the morning*. A fleet of twelve hosts lives a night in the simulator: a few moves, then hours of
//! quiet. Then a script on the terminal and one in the browser ask one host's agent what a person would, in at most three steps each, and
//! what they are told is held against what the simulation knows.

mod terminal;

use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use clap::Args;
use lab::setup;
use serde::Serialize;
use tokio::time::Instant;

use crate::ci::{cargo, root};
use crate::demo::prepare;
use crate::fleet::{Child, Truth, Ways};
use crate::{print, say, web};

use terminal::Answered;

/// Fewer moves, and there would be little to ask about.
const MOVES_MIN: usize = 2;

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Night {
    /// Leave out the browser, and what it needs
    #[arg(long)]
    terminal: bool,
    /// For all that is drawn of the night
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Outcome {
    ok: bool,
    moves: usize,
    /// The questions, and the commands by which they were answered.
    terminal: Vec<Answered>,
    /// The browser tests' own words; absent: left out.
    browser: Option<String>,
    seconds: f64,
}

impl Night {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        if !self.terminal {
            web::build()?;
            setup::browser(&mut |step| say(step)).context("the browser")?;
        }
        say("building the fleet and evenkeel");
        let status = cargo(&["build", "--quiet", "-p", "xtask", "-p", "cli"]).status();
        ensure!(status.context("running cargo")?.success(), "they cannot be built (see above)");
        let began = Instant::now();
        let program = root().join("target/debug/xtask");
        let seed = self.seed.to_string();
        let night = ["--night", "--hosts", "12", "--vms", "120", "--seed", &seed];
        let fleet = Child::start(&program, &night)?;
        let truth = fleet.ways.truth.as_ref().context("a night has its truth")?;
        worth_asking(truth)?;
        say(&format!("{} moves in the night; asking on the terminal", truth.moves.len()));
        let terminal = terminal::ask(&prepare::cli()?, &fleet.ways, truth)?;
        let browser = if self.terminal { None } else { Some(in_browser(&fleet.ways, truth)) };
        let outcome = Outcome {
            ok: terminal.iter().all(Answered::ok) && !matches!(browser, Some(Err(_))),
            moves: truth.moves.len(),
            terminal,
            browser: browser.map(|said| said.unwrap_or_else(|error| format!("{error:#}"))),
            seconds: began.elapsed().as_secs_f64().round(),
        };
        print(&if self.json { serde_json::to_string_pretty(&outcome)? } else { table(&outcome) });
        Ok(if outcome.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A night of which everything can be asked.
fn worth_asking(truth: &Truth) -> anyhow::Result<()> {
    let moves = truth.moves.len();
    ensure!(moves >= MOVES_MIN, "only {moves} moves were made in the night");
    ensure!(truth.doing.len() == 12, "at ten past three only {:?} did something", truth.doing);
    ensure!(!truth.kept.obstacles.is_empty(), "nothing keeps {} from anywhere", truth.kept.vm);
    Ok(())
}

/// What `node --test` says in the end.
fn in_browser(ways: &Ways, truth: &Truth) -> anyhow::Result<String> {
    say(&format!("asking in a browser at {}", ways.url));
    let mut node = Command::new("node");
    node.args(["--test", "tests/night.test.mjs"])
        .current_dir(root().join("web"))
        .env("TZ", "UTC")
        .env("EVENKEEL_URL", &ways.url)
        .env("EVENKEEL_OPERATOR", &ways.operator)
        .env("EVENKEEL_VIEWER", &ways.viewer)
        .env("EVENKEEL_TRUTH", serde_json::to_string(truth)?)
        .env("EVENKEEL_SCREENSHOTS", root().join("target/screenshots"));
    web::tested(node)
}

fn table(outcome: &Outcome) -> String {
    let mut lines = vec![format!("{} moves in the night", outcome.moves)];
    for Answered { question, steps, missing } in &outcome.terminal {
        lines.push(format!(
            "{} {question}",
            if missing.is_empty() { "answered" } else { "NOT ANSWERED" }
        ));
        lines.extend(steps.iter().map(|step| format!("           {step}")));
        lines.extend(missing.iter().map(|one| format!("           not told: {one}")));
    }
    lines.extend(outcome.browser.iter().map(|said| format!("in the browser: {said}")));
    lines.join("\n")
}
