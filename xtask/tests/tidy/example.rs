//! The config that operators copy: what it sets is what an empty file means, and nothing is left out of it.
//!
//! `[api]`, `[cluster]`, `[history]`, `[host]`, `[hypervisor]` and `[record]` are the agent's own; a test of the agent reads them with the agent's reader.

use std::collections::BTreeSet;

use decide::policy::file;
use decide::policy::settings::Settings;

pub(crate) fn check(text: &str) -> Vec<String> {
    let mut sections: toml::Table = match text.parse() {
        Ok(sections) => sections,
        Err(error) => return vec![format!("it is no TOML: {error}")],
    };
    let agents = ["api", "cluster", "history", "host", "hypervisor", "record"];
    let agents = agents.map(|name| sections.remove(name).is_some());
    let mut complaints = Vec::new();
    if agents != [true; 6] {
        complaints.push(
            "it lacks [api], [cluster], [history], [host], [hypervisor] or [record]".to_owned(),
        );
    }
    match file::settings(&sections.to_string()) {
        Ok(settings) if settings == Settings::default() => {}
        Ok(settings) => complaints.push(format!("it sets more than the defaults: {settings:?}")),
        Err(mistake) => complaints.push(mistake.to_string()),
    }
    let shown = keys_shown(text);
    let missing = keys_of_settings().into_iter().filter(|key| !shown.contains(key.as_str()));
    complaints.extend(missing.map(|key| format!("it does not show `{key}`")));
    complaints
}

/// Every `key = …`, also of those commented out.
fn keys_shown(text: &str) -> BTreeSet<&str> {
    let keys = text.lines().filter_map(|line| {
        let (key, _) = line.trim_start_matches(['#', ' ']).split_once('=')?;
        Some(key.trim()).filter(|key| !key.contains(' '))
    });
    keys.collect()
}

/// The names of the settings, as their own `Debug` form has them.
fn keys_of_settings() -> Vec<String> {
    let shown = format!("{:#?}", Settings::default());
    let fields =
        shown.lines().filter(|line| line.starts_with("        ") && !line.starts_with("         "));
    let names = fields.filter_map(|line| line.trim().split_once(": "));
    // In the file a Rust keyword serves.
    names.map(|(name, _)| if name == "window" { "for" } else { name }.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> String {
        let keys: Vec<String> =
            keys_of_settings().iter().map(|key| format!("# {key} = ?\n")).collect();
        format!("{}[api]\n[cluster]\n[history]\n[host]\n[hypervisor]\n[record]\n", keys.concat())
    }

    #[test]
    fn settings_have_names() {
        let keys = keys_of_settings();
        for key in ["balance", "for", "cpu_used", "memory_reserve", "gain_min", "downtime"] {
            assert!(keys.iter().any(|known| known == key), "{key} in {keys:?}");
        }
    }

    #[test]
    fn an_example_that_changes_nothing_is_fine() {
        let none: [String; 0] = [];
        assert_eq!(check(&shown()), none);
    }

    #[test]
    fn an_example_that_is_wrong_is_found() {
        assert_eq!(
            check(&shown().replace("# cpu_used =", "# cpu_usd =")),
            ["it does not show `cpu_used`"]
        );
        assert_eq!(check(&(shown() + "[hot]\ncpu_used = \"70%\"\n")).len(), 1, "no default");
        assert_eq!(check(&(shown() + "[hot]\ncpu_usd = \"80%\"\n")).len(), 1, "unknown key");
        assert_eq!(check(&shown().replace("[host]", "")).len(), 1, "section missing");
        assert_eq!(check("[hot").len(), 1, "no TOML");
    }
}
