//! Runs one model to its end, and tells what came of it.
//!
//! Variables of the environment, set by `cargo xtask`: `EVENKEEL_MODEL_REPORT` names a file to which one line of JSON is
//! added per model; `EVENKEEL_MODEL_DEEP` chooses the bigger budgets; `EVENKEEL_PLANTED` plants a bug, where the feature `planted` is on, and the first violation ends the run.

use std::fmt::Debug;
use std::hash::Hash;
use std::io::Write;
use std::time::SystemTime;

use serde_json::{Value, json};
use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// Whether the bigger budgets are asked for, of which the count of states is not pinned.
pub(crate) fn deep() -> bool {
    std::env::var_os("EVENKEEL_MODEL_DEEP").is_some()
}

/// Checks a model: nothing that must always hold is broken, all that should be possible is, and its states are `states`.
#[expect(clippy::disallowed_methods, reason = "how long it took is told, nothing depends on it")]
pub(crate) fn check<M>(name: &str, model: M, states: usize)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let planted = plant();
    let began = SystemTime::now();
    let enough = if planted { HasDiscoveries::AnyFailures } else { HasDiscoveries::All };
    let checker = model.checker().threads(2).finish_when(enough).spawn_bfs().join();
    let seconds = began.elapsed().map_or(0.0, |took| took.as_secs_f64());
    let discoveries = checker.discoveries();
    let (mut properties, mut wrong) = (Vec::new(), Vec::new());
    for property in checker.model().properties() {
        let path = discoveries.get(property.name).map(|path| {
            let steps = path.clone().into_actions();
            steps.iter().map(|step| checker.model().format_action(step)).collect::<Vec<_>>()
        });
        let always = property.expectation == Expectation::Always;
        match (always, &path) {
            (true, Some(path)) => {
                wrong.push(format!("violated: {}\n    {}", property.name, path.join("\n    ")));
            }
            (false, None) if !planted => wrong.push(format!("never: {}", property.name)),
            _ => {}
        }
        properties.push(json!({
            "name": property.name,
            "expects": if always { "always" } else { "sometimes" },
            "holds": always == path.is_none(),
            "path": path.filter(|_| always),
        }));
    }
    let found = checker.unique_state_count();
    report(&json!({
        "model": name,
        "states": found,
        "steps": checker.state_count(),
        "depth": checker.max_depth(),
        "seconds": (seconds * 10.0).round() / 10.0,
        "properties": properties,
    }));
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    assert!(
        planted || deep() || found == states,
        "{name} has {found} states, {states} are pinned: if the change is meant, pin the new count"
    );
}

fn report(line: &Value) {
    let Some(path) = std::env::var_os("EVENKEEL_MODEL_REPORT") else { return };
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    writeln!(file.expect("the report can be written"), "{line}").expect("it is written");
}

#[cfg(feature = "planted")]
fn plant() -> bool {
    use decide::planted::{Bug, plant};
    let Ok(name) = std::env::var("EVENKEEL_PLANTED") else { return false };
    let bug = Bug::ALL.iter().find(|bug| bug.name() == name);
    plant(Some(*bug.expect("EVENKEEL_PLANTED names a bug")));
    true
}

#[cfg(not(feature = "planted"))]
fn plant() -> bool {
    false
}
