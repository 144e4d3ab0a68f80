//! The four questions on the terminal: commands of `evenkeel` alone, at the socket of one host.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::fleet::{Truth, Ways};

/// Commands for one answer.
const STEPS_MAX: usize = 3;

/// A question, by what it was answered, and what of the truth was not in the answer.
#[derive(Debug, Serialize)]
pub(super) struct Answered {
    pub(super) question: String,
    pub(super) steps: Vec<String>,
    pub(super) missing: Vec<String>,
}

impl Answered {
    pub(super) fn ok(&self) -> bool {
        self.missing.is_empty() && self.steps.len() <= STEPS_MAX
    }
}

/// One person who asks, and reads.
struct Asker<'a> {
    evenkeel: &'a Path,
    socket: &'a Path,
    answered: Answered,
}

pub(super) fn ask(evenkeel: &Path, ways: &Ways, truth: &Truth) -> anyhow::Result<Vec<Answered>> {
    let socket = ways.sockets.first().context("the fleet has a socket")?;
    let asker = |question: &str| {
        let (question, steps, missing) = (question.to_owned(), Vec::new(), Vec::new());
        Asker { evenkeel, socket, answered: Answered { question, steps, missing } }
    };
    let mut all = Vec::new();
    // Of each move: a person asks about one at a time.
    for moved in &truth.moves {
        let mut asker = asker(&format!("what moved and why there: {} to {}", moved.vm, moved.to));
        let listed = asker.run(&["moves", "--all"])?;
        asker.reads(line(&listed, &moved.id), &[&moved.vm, &moved.from, &moved.to]);
        let why = asker.run(&["--on", &moved.from, "why", &moved.id])?;
        for (host, cost) in &moved.costs {
            let chosen = if *host == moved.to { "chosen" } else { "not chosen" };
            asker.reads(&why, &[&format!("{host} accepted at {cost}: {chosen}")]);
        }
        let choice = if moved.costs.len() > 1 { "lowest cost of" } else { "the only acceptor" };
        asker.reads(&why, &[choice, &format!("chosen: {}", moved.to)]);
        all.push(asker.answered);
    }

    let mut quiet = asker("why nothing moved at 03:10");
    let told = quiet.run(&["why", "--at", "03:10"])?;
    for (host, doing) in &truth.doing {
        quiet.reads(&without_figures(line(&told, host)), &[&without_figures(doing)]);
    }
    all.push(quiet.answered);

    let kept = &truth.kept;
    let mut where_to =
        asker(&format!("what would have to change for {} to go to {}", kept.vm, kept.to));
    let places = where_to.run(&["vms", "--all"])?;
    where_to.reads(line(&places, &kept.vm), &[&kept.host]);
    let told = where_to.run(&["--on", &kept.host, "why", &kept.vm, &kept.to])?;
    for (words, change) in &kept.obstacles {
        where_to
            .reads(&without_figures(&told), &[&without_figures(words), &without_figures(change)]);
    }
    all.push(where_to.answered);

    let mut paid = asker("did the moves pay");
    let listed = paid.run(&["moves", "--all"])?;
    for moved in &truth.moves {
        let word = if moved.paid { " yes " } else { " no " };
        paid.reads(
            line(&listed, &moved.id),
            &[&rounded(&moved.promised), &rounded(&moved.measured), word],
        );
    }
    all.push(paid.answered);
    Ok(all)
}

impl Asker<'_> {
    fn run(&mut self, arguments: &[&str]) -> anyhow::Result<String> {
        self.answered.steps.push(format!("evenkeel {}", arguments.join(" ")));
        let mut command = Command::new(self.evenkeel);
        command.arg("--socket").arg(self.socket).args(arguments).stdin(Stdio::null());
        let output = command.output().context("running evenkeel")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "evenkeel {} ended with {}: {said}",
            arguments.join(" "),
            output.status
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn reads(&mut self, text: &str, wanted: &[&str]) {
        let missing = wanted.iter().filter(|wanted| !text.contains(**wanted));
        self.answered.missing.extend(missing.map(|wanted| format!("{wanted:?} in {text:?}")));
    }
}

/// The line that begins with this word.
fn line<'a>(text: &'a str, word: &str) -> &'a str {
    text.lines().find(|line| line.split_whitespace().next() == Some(word)).unwrap_or_default()
}

/// Figures change between two looks, and from the truth's to a table's digits.
fn without_figures(text: &str) -> String {
    text.chars().filter(|one| !one.is_ascii_digit() && !['.', ',', ' '].contains(one)).collect()
}

/// As tables have it: "37.42 %" is "37.4 %".
fn rounded(percent: &str) -> String {
    let figure: f64 = percent.trim_end_matches(" %").parse().unwrap_or_default();
    format!("{figure:.1} %")
}
