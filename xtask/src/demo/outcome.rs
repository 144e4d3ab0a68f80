//! What came of a demo: the document that `--json` prints, and the table for people.

use api::{Event, MoveView, Step};
use serde::Serialize;

use super::stage::{CONFIG, FLOODED, Noticed};

/// The one document.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Outcome {
    /// All moves, oldest first.
    pub(crate) moves: Vec<Moved>,
    /// The flooded guest's move as its source and targets told it, by time; each host's events in its own order.
    pub(crate) steps: Vec<Event>,
    /// The operator's part of the agents' configuration.
    pub(crate) config: &'static str,
    /// Who accepted, and at which cost.
    pub(crate) answers: Vec<Answer>,
    /// From the first namespace to the last figure.
    pub(crate) seconds: f64,
    /// Whether all held.
    pub(crate) ok: bool,
    /// What did not.
    pub(crate) failures: Vec<String>,
}

/// One move, by the agents' count and, if it is the flooded guest's, as its clients saw it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Moved {
    pub(crate) move_id: String,
    pub(crate) vm: String,
    pub(crate) from: String,
    pub(crate) to: Option<String>,
    pub(crate) phase: String,
    pub(crate) acceptances: u32,
    pub(crate) refusals: u32,
    pub(crate) reason: String,
    pub(crate) bytes: u64,
    pub(crate) rounds: u32,
    pub(crate) total_ms: Option<u64>,
    pub(crate) downtime_ms: Option<u64>,
    /// Longest silence that a client noticed, pinging each 20 ms.
    pub(crate) client_gap_ms: Option<u64>,
    pub(crate) pings_sent: Option<u32>,
    pub(crate) pings_lost: Option<u32>,
    pub(crate) tcp_alive: Option<bool>,
}

/// An acceptance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Answer {
    pub(crate) host: String,
    pub(crate) cost_percent: f64,
}

impl Outcome {
    /// From what the agents keep (`moves` in any order, `events` of each host in its own) and what the clients noticed.
    pub(crate) fn new(
        mut moves: Vec<MoveView>,
        events: &[Vec<Event>],
        noticed: Option<&Noticed>,
    ) -> Outcome {
        moves.sort_by(|a, b| a.began.cmp(&b.began));
        let moves: Vec<Moved> = moves.into_iter().map(|one| moved(one, noticed)).collect();
        let steps = moves
            .iter()
            .find(|one| one.vm == FLOODED)
            .map_or_else(Vec::new, |one| story(one, events));
        let answers = moves
            .iter()
            .find(|one| one.vm == FLOODED)
            .map_or_else(Vec::new, |one| answers(one, &steps));
        Outcome { moves, steps, config: CONFIG, answers, ..Outcome::default() }
    }

    /// The flooded guest's move.
    pub(crate) fn flooded(&self) -> Option<&Moved> {
        self.moves.iter().find(|one| one.vm == FLOODED)
    }
}

fn moved(view: MoveView, noticed: Option<&Noticed>) -> Moved {
    let noticed = noticed.filter(|_| view.vm == FLOODED);
    Moved {
        move_id: view.id,
        vm: view.vm,
        from: view.from,
        to: view.to,
        phase: view.phase,
        acceptances: view.acceptances,
        refusals: view.refusals,
        reason: view.reason,
        bytes: view.copied_bytes,
        rounds: view.rounds,
        total_ms: view.total_ms,
        downtime_ms: view.downtime_ms,
        client_gap_ms: noticed.map(|seen| seen.gap_ms),
        pings_sent: noticed.map(|seen| seen.pings.sent),
        pings_lost: noticed.map(|seen| seen.pings.lost()),
        tcp_alive: noticed.map(|seen| seen.line.alive()),
    }
}

/// The move's events on all hosts by time. What made the host hot may have been noted before there was a move: then the
/// last such events before the request are taken.
fn story(one: &Moved, events: &[Vec<Event>]) -> Vec<Event> {
    let mut told: Vec<(String, Event)> = Vec::new();
    for of_host in events {
        let request =
            of_host.iter().position(|event| is_of(event, one) && event.step == Step::Request);
        let mut before = Vec::new();
        for step in [Step::Monitoring, Step::VmPolicy] {
            let mut all = of_host.iter().take(request.unwrap_or(0));
            before.extend(all.rfind(|event| event.step == step).map(|event| event.seq));
        }
        // A host's own order is the truth, whatever its clock says.
        let mut latest = String::new();
        for event in of_host.iter().filter(|event| is_of(event, one) || before.contains(&event.seq))
        {
            latest = latest.max(event.time.clone());
            told.push((latest.clone(), event.clone()));
        }
    }
    told.sort_by(|(a, _), (b, _)| a.cmp(b));
    told.into_iter().map(|(_, event)| event).collect()
}

fn is_of(event: &Event, one: &Moved) -> bool {
    event.move_id.as_ref() == Some(&one.move_id)
}

fn answers(one: &Moved, steps: &[Event]) -> Vec<Answer> {
    let accepted =
        steps.iter().filter(|event| event.host == one.from && event.step == Step::Acceptance);
    accepted
        .filter_map(|event| {
            Some(Answer { host: event.peer.clone()?, cost_percent: event.cost_percent? })
        })
        .collect()
}

/// The table for people.
pub(crate) fn table(outcome: &Outcome) -> String {
    let mut rows: Vec<(&str, String)> = Vec::new();
    if let Some(one) = outcome.flooded() {
        let to = one.to.as_deref().unwrap_or("nowhere");
        rows.push((
            "move",
            format!("{}: {} to {to} ({}), {}", one.vm, one.from, one.reason, one.phase),
        ));
        let answers = outcome.answers.iter().map(|a| format!("{} {:.2} %", a.host, a.cost_percent));
        rows.push(("acceptances", answers.collect::<Vec<_>>().join(", ")));
        rows.push(("refusals", one.refusals.to_string()));
        rows.push(("copied", format!("{:.1} MiB in {} rounds", mib(one.bytes), one.rounds)));
        rows.push(("total time", milliseconds(one.total_ms)));
        rows.push((
            "downtime",
            format!(
                "{} measured by the client, {} by the agent",
                milliseconds(one.client_gap_ms),
                milliseconds(one.downtime_ms)
            ),
        ));
        if let (Some(sent), Some(lost)) = (one.pings_sent, one.pings_lost) {
            rows.push(("pings lost", format!("{lost} of {sent}")));
        }
        if let Some(alive) = one.tcp_alive {
            rows.push(("TCP connection", (if alive { "alive" } else { "broken" }).to_owned()));
        }
    }
    rows.push(("demo", format!("{:.0} s", outcome.seconds)));
    let lines = rows.into_iter().map(|(name, value)| format!("{name:<15} {value}"));
    let failures = outcome.failures.iter().map(|why| format!("FAILED          {why}"));
    lines.chain(failures).collect::<Vec<_>>().join("\n")
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn milliseconds(time: Option<u64>) -> String {
    time.map_or_else(|| "unknown".to_owned(), |ms| format!("{ms} ms"))
}
