//! The policy of a config, looked at and tried by the person who writes it, before any agent goes by it.

mod cases;

use std::fmt::Write as _;

use decide::policy::file::{Mistake, contradiction, settings_beside};
use decide::policy::rules::contradictions::contradictions;
use decide::policy::settings::Settings;

pub use cases::{Cases, Failed, cases};

/// Sections of the agent's config that are none of the policy.
pub const OTHERS: [&str; 6] = ["api", "cluster", "history", "host", "hypervisor", "record"];

/// Reads the policy of a config.
///
/// # Errors
/// The first mistake.
pub fn read(text: &str) -> Result<Settings, Mistake> {
    let settings = settings_beside(text, &OTHERS)?;
    let of_rules = || contradictions(text, &settings.rules).into_iter().next();
    match contradiction(text, &settings).or_else(of_rules) {
        Some(mistake) => Err(mistake),
        None => Ok(settings),
    }
}

/// What was understood, for people.
pub fn understood(settings: &Settings) -> String {
    let mut text = String::new();
    for expression in settings.expressions() {
        let key = expression.place().key();
        writeln!(text, "{key} = {}", expression.understood())
            .expect("a string takes all that is written");
    }
    if text.is_empty() {
        text = "no expression is set: thresholds and costs decide alone\n".to_owned();
    }
    let hash = settings.hash();
    text + &format!("hash in requests: {hash:016x}\n")
}

#[cfg(test)]
mod tests;
