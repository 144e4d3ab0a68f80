//! Whether a demo showed what it is to show.

use api::{Event, Step};

use super::outcome::{Moved, Outcome};
use super::stage::FLOODED;

const ACCEPTANCES_MIN: usize = 2;
const PINGS_LOST_MAX: u32 = 2;

/// The steps of the method, in order, as the source tells them.
const METHOD: [Step; 11] = [
    Step::Monitoring,
    Step::VmPolicy,
    Step::Request,
    Step::Acceptance,
    Step::Choice,
    Step::Confirmation,
    Step::UsageHistory,
    Step::Readiness,
    Step::Copy,
    Step::HandOver,
    Step::Done,
];

/// What did not hold, in words; nothing if all held.
pub(crate) fn failures(outcome: &Outcome) -> Vec<String> {
    let mut failures: Vec<String> = outcome
        .moves
        .iter()
        .filter(|one| one.vm != FLOODED)
        .map(|one| format!("{} was moved, and nobody flooded it ({})", one.vm, one.reason))
        .collect();
    match outcome.flooded() {
        None => {
            failures.push(format!("{FLOODED} was flooded, but its host never asked who takes it"))
        }
        Some(one) => {
            failures.extend(of_move(one));
            failures.extend(in_order(one, &outcome.steps));
            failures.extend(cheapest(one, outcome));
        }
    }
    failures
}

fn of_move(one: &Moved) -> Vec<String> {
    let mut failures = Vec::new();
    if one.phase != "done" {
        failures.push(format!("the move of {} was not made: it is {}", one.vm, one.phase));
    }
    let acceptances = usize::try_from(one.acceptances).unwrap_or(usize::MAX);
    if acceptances < ACCEPTANCES_MIN {
        failures.push(format!("{acceptances} acceptances only, wanted {ACCEPTANCES_MIN}"));
    }
    match one.pings_lost {
        None => failures.push("nobody pinged it to the end".to_owned()),
        Some(lost) if lost > PINGS_LOST_MAX => {
            failures.push(format!("{lost} pings lost, at most {PINGS_LOST_MAX} allowed"));
        }
        Some(_) => {}
    }
    match one.tcp_alive {
        None => failures.push("nobody kept a TCP connection to the end".to_owned()),
        Some(false) => failures.push("the TCP connection broke".to_owned()),
        Some(true) => {}
    }
    failures
}

fn in_order(one: &Moved, steps: &[Event]) -> Option<String> {
    let mut own = steps.iter().filter(|event| event.host == one.from).map(|event| event.step);
    for step in METHOD {
        let times = if step == Step::Acceptance { ACCEPTANCES_MIN } else { 1 };
        for _ in 0..times {
            if !own.any(|told| told == step) {
                return Some(format!("{} does not tell {step} where the method has it", one.from));
            }
        }
    }
    None
}

fn cheapest(one: &Moved, outcome: &Outcome) -> Option<String> {
    let Some(lowest) =
        outcome.answers.iter().min_by(|a, b| a.cost_percent.total_cmp(&b.cost_percent))
    else {
        return Some("no acceptance tells its cost".to_owned());
    };
    let chosen = outcome.answers.iter().find(|answer| Some(&answer.host) == one.to.as_ref());
    if chosen.is_some_and(|chosen| chosen.cost_percent <= lowest.cost_percent) {
        return None;
    }
    let to = one.to.as_deref().unwrap_or("nobody");
    Some(format!("{to} was chosen, though {} costs {:.2} % only", lowest.host, lowest.cost_percent))
}

#[cfg(test)]
mod tests;
