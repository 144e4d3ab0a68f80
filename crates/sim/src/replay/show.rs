//! A replay for people, and for programs.

use std::time::Duration;

use decide::log::Gave;
use decide::units::Cost;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Decision, Difference, Ending, Replayed};

/// One JSON document, and the end of its line.
pub(super) fn document(replayed: &Replayed) -> serde_json::Result<String> {
    let decisions: Vec<Value> =
        replayed.decisions.iter().map(|decision| of_decision(replayed, decision)).collect();
    let difference = replayed.difference.as_ref().map(|it| of_difference(replayed, it));
    let document = json!({
        "host": replayed.host,
        "version": replayed.version,
        "began": time(replayed, Duration::ZERO),
        "events": replayed.events,
        "actions": replayed.actions,
        "same": replayed.same(),
        "ending": replayed.ending.as_ref().map(words),
        "difference": difference,
        "decisions": decisions,
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn of_decision(replayed: &Replayed, decision: &Decision) -> Value {
    let note = &decision.note;
    json!({
        "event": decision.event,
        "time": time(replayed, decision.after),
        "step": note.step,
        "vm": decision.vm,
        "peer": decision.peer,
        "cost_percent": note.cost.map(percent),
        "move": note.move_id.map(|id| id.to_string()),
        "reason": note.reason,
    })
}

fn of_difference(replayed: &Replayed, it: &Difference) -> Value {
    let gave = |gave: &Gave| {
        let digests: Vec<String> = gave.actions.iter().map(|one| digest_text(*one)).collect();
        json!({ "actions": digests, "deadline": gave.deadline })
    };
    json!({
        "event": it.event,
        "time": time(replayed, it.after),
        "what": it.what,
        "recorded": gave(&it.recorded),
        "now": it.now.as_ref().map(gave),
        "actions": it.actions,
    })
}

/// The decisions as a table, then what came of it all.
pub(super) fn table(replayed: &Replayed) -> String {
    let mut rows = vec![
        ["EVENT", "TIME (UTC)", "STEP", "VM", "PEER", "COST", "MOVE", "WHY"].map(str::to_owned),
    ];
    rows.extend(replayed.decisions.iter().map(|decision| row(replayed, decision)));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..8).filter_map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let fill = " ".repeat(widths[column] - cell.chars().count());
            // Figures end alike, words begin alike.
            line += &if matches!(column, 0 | 5) { fill + cell } else { cell.clone() + &fill };
            line += "  ";
        }
        text = text + line.trim_end() + "\n";
    }
    text + "\n" + &verdict(replayed)
}

fn row(replayed: &Replayed, decision: &Decision) -> [String; 8] {
    let note = &decision.note;
    let time = time(replayed, decision.after).replace('T', " ").replace('Z', "");
    [
        decision.event.to_string(),
        time,
        note.step.to_string(),
        decision.vm.clone().unwrap_or_default(),
        decision.peer.clone().unwrap_or_default(),
        note.cost.map(|cost| cost.to_string()).unwrap_or_default(),
        note.move_id.map(|id| id.to_string()).unwrap_or_default(),
        note.reason.clone(),
    ]
    .map(|cell| cell.replace(char::is_control, " "))
}

fn verdict(replayed: &Replayed) -> String {
    let Replayed { host, version, events, actions, .. } = replayed;
    let began = time(replayed, Duration::ZERO);
    let mut text = format!(
        "{host}, recorded by Evenkeel {version} from {began}: {events} events, {actions} actions"
    );
    match &replayed.difference {
        None if replayed.same() => text += ": the same, bit for bit.\n",
        None => text += ": the same up to the damage.\n",
        Some(difference) => {
            text += ".\n";
            tell(&mut text, replayed, difference);
        }
    }
    if let Some(ending) = &replayed.ending {
        text = text + "The log ends: " + &words(ending) + ".\n";
    }
    let this = env!("CARGO_PKG_VERSION");
    if replayed.difference.is_some() && version != this {
        text = text + "This is version " + this + ", which may decide otherwise on purpose.\n";
    }
    text
}

fn tell(text: &mut String, replayed: &Replayed, it: &Difference) {
    let mut line = |words: String| {
        *text = std::mem::take(text) + &words.replace(char::is_control, " ") + "\n";
    };
    line(format!("Event {} at {} DIFFERS: {}", it.event, time(replayed, it.after), it.what));
    let Some(now) = &it.now else {
        return line("  now the host panics at it".to_owned());
    };
    let count = it.recorded.actions.len().max(now.actions.len());
    for n in 0..count {
        let then = it.recorded.actions.get(n);
        match (then, now.actions.get(n), it.actions.get(n)) {
            (Some(then), Some(now), Some(action)) if then == now => {
                line(format!("  action {}  the same      {action}", n + 1));
            }
            (Some(then), Some(now), Some(action)) => {
                let (then, now) = (digest_text(*then), digest_text(*now));
                line(format!("  action {}  was {then}, now {now}: {action}", n + 1));
            }
            (None, _, Some(action)) => {
                line(format!("  action {}  was not given   {action}", n + 1))
            }
            (Some(then), _, _) => {
                line(format!("  action {}  was {}, now is not given", n + 1, digest_text(*then)));
            }
            (None, _, None) => {}
        }
    }
    if it.recorded.deadline != now.deadline {
        line(format!("  deadline  was {:?}, now {:?}", it.recorded.deadline, now.deadline));
    }
}

fn words(ending: &Ending) -> String {
    match ending {
        Ending::Ended(why) => why.clone(),
        Ending::CutOff => "cut off, as by the agent's being killed".to_owned(),
        Ending::Panics => "the host panics at the last event".to_owned(),
        Ending::Damaged { line, why } => format!("line {line} is damaged: {why}"),
    }
}

/// RFC 3339 in UTC with milliseconds.
fn time(replayed: &Replayed, after: Duration) -> String {
    let micros = i64::try_from(replayed.unix_us).ok();
    let began = micros.and_then(|micros| Timestamp::from_microsecond(micros).ok());
    let at = began.unwrap_or(Timestamp::UNIX_EPOCH).checked_add(after);
    format!("{:.3}", at.unwrap_or(Timestamp::MAX))
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn percent(cost: Cost) -> f64 {
    (cost.0 / 10_000) as f64 / 100.0
}

/// As people compare it.
fn digest_text(digest: u64) -> String {
    format!("{digest:016x}")
}
