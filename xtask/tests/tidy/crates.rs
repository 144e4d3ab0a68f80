//! Rules between crates.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::tree::File;

/// Whom of ours each crate may depend on; a crate that is not here may not be.
const ARROWS: [(&str, &[&str]); 10] = [
    ("agent", &["drivers", "api", "decide", "trust"]),
    ("api", &[]),
    ("cli", &["api"]),
    ("decide", &[]),
    ("drivers", &["decide"]),
    ("fuzz", &[]),
    ("lab", &["drivers", "api", "decide"]),
    ("sim", &["decide"]),
    ("trust", &["decide"]),
    ("xtask", &["agent", "lab", "sim", "drivers", "api", "decide", "trust"]),
];
/// The same for their tests only.
const ARROWS_OF_TESTS: [(&str, &str); 6] = [
    ("agent", "fuzz"),
    ("agent", "lab"),
    ("agent", "sim"),
    ("decide", "fuzz"),
    ("drivers", "fuzz"),
    ("trust", "fuzz"),
];

/// What would let the world into `decide`.
const WORLD: [&str; 5] = ["tokio", "mio", "socket2", "getrandom", "chrono"];

pub(crate) fn arrows(metadata: &Value) -> Vec<String> {
    let packages = list(&metadata["packages"]);
    let ours: BTreeSet<&str> = packages.iter().map(|package| word(&package["name"])).collect();
    let mut complaints = Vec::new();
    for package in packages {
        let from = word(&package["name"]);
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == from) else {
            complaints.push(format!("{from}: no arrows are drawn for this crate"));
            continue;
        };
        for dependency in list(&package["dependencies"]) {
            let to = word(&dependency["name"]);
            let of_tests = dependency["kind"] == "dev" && ARROWS_OF_TESTS.contains(&(from, to));
            if ours.contains(to) && !allowed.contains(&to) && !of_tests {
                complaints.push(format!("{from} → {to}: not an arrow"));
            }
        }
    }
    complaints
}

pub(crate) fn lints(manifest: &File) -> Vec<String> {
    let parsed: toml::Table = manifest.text.parse().expect("cargo has read it");
    let taken = parsed.get("lints").and_then(|lints| lints.get("workspace")?.as_bool());
    let complaint = || format!("{}: does not take the workspace's lints", manifest.path);
    (taken != Some(true)).then(complaint).into_iter().collect()
}

/// Who turns on the bugs that are planted on purpose: only the simulator may pass the feature on, and nobody by default.
pub(crate) fn planted(manifest: &File) -> Vec<String> {
    let parsed: toml::Table = manifest.text.parse().expect("cargo has read it");
    let name = parsed.get("package").and_then(|p| p.get("name")?.as_str()).unwrap_or_default();
    let features = parsed.get("features").and_then(|features| features.as_table());
    let mut complaints = Vec::new();
    for (feature, enables) in features.into_iter().flatten() {
        let own = matches!((name, feature.as_str()), ("decide" | "sim", "planted"));
        let enables = enables.to_string();
        if !own && (feature == "planted" || enables.contains("planted")) {
            complaints.push(format!("{}: feature `{feature}` plants bugs", manifest.path));
        }
    }
    let rest: toml::Table = parsed.into_iter().filter(|(key, _)| key != "features").collect();
    if rest.to_string().contains("planted") {
        complaints.push(format!("{}: a dependency with planted bugs", manifest.path));
    }
    complaints
}

/// Compares what `cargo tree` prints with the committed list.
pub(crate) fn dependencies(tree: &str, list: &str) -> Vec<String> {
    let (found, listed) = (names(tree), names(list));
    let more = found.difference(&listed).map(|name| format!("{name}: not in the list"));
    let less = listed.difference(&found).map(|name| format!("{name}: in the list, not used"));
    more.chain(less).collect()
}

pub(crate) fn world(tree: &str) -> Vec<String> {
    let found = names(tree);
    WORLD
        .iter()
        .filter(|name| found.contains(*name))
        .map(|name| format!("decide → {name}"))
        .collect()
}

/// The first word of each line, but for `decide` itself.
fn names(lines: &str) -> BTreeSet<&str> {
    let names = lines.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "decide").collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("cargo prints a list")
}

fn word(value: &Value) -> &str {
    value.as_str().expect("cargo prints a word")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(from: &str, to: &str, kind: Option<&str>) -> usize {
        let package =
            |name: &str, dependencies: Value| json!({ "name": name, "dependencies": dependencies });
        let there = package(to, json!([]));
        let here =
            package(from, json!([{ "name": to, "kind": kind }, { "name": "serde", "kind": null }]));
        arrows(&json!({ "packages": [here, there] })).len()
    }

    #[test]
    fn arrows_that_are_not_drawn_are_found() {
        assert_eq!(check("decide", "api", None), 1);
        assert_eq!(check("cli", "decide", Some("dev")), 1);
        assert_eq!(check("agent", "lab", None), 1, "the lab is for tests only");
        assert_eq!(check("agent", "decide", None), 0);
        assert_eq!(check("agent", "lab", Some("dev")), 0);
    }

    #[test]
    fn a_crate_that_is_not_drawn_is_found() {
        assert_eq!(check("web", "decide", None), 1);
    }

    #[test]
    fn a_crate_without_the_lints_is_found() {
        let check = |text: &str| lints(&File::new("crates/x/Cargo.toml", text)).len();
        assert_eq!(check("[package]\nname = \"x\"\n"), 1);
        assert_eq!(check("[lints]\nworkspace = false\n"), 1);
        assert_eq!(check("[lints]\nworkspace = true\n"), 0);
    }

    #[test]
    fn planted_bugs_are_found_wherever_they_could_be_shipped() {
        let check = |text: &str| planted(&File::new("crates/x/Cargo.toml", text)).len();
        let agent = "[package]\nname = \"agent\"\n";
        let with = "[dependencies]\ndecide = { path = \"../decide\", features = [\"planted\"] }\n";
        assert_eq!(check(&format!("{agent}{with}")), 1);
        assert_eq!(check(&format!("{agent}[features]\nplanted = [\"decide/planted\"]\n")), 1);
        assert_eq!(check(&format!("{agent}[features]\ndefault = [\"decide/planted\"]\n")), 1);
        let sim = "[package]\nname = \"sim\"\n";
        assert_eq!(check(&format!("{sim}[features]\nplanted = [\"decide/planted\"]\n")), 0);
        assert_eq!(check(&format!("{sim}[features]\ndefault = [\"planted\"]\nplanted = []\n")), 1);
        assert_eq!(check(&format!("{sim}{with}")), 1);
        assert_eq!(check("[workspace.dependencies]\ndecide = { features = [\"planted\"] }\n"), 1);
        assert_eq!(check(agent), 0);
    }

    #[test]
    fn a_dependency_too_many_or_too_few_is_found() {
        let tree = "decide v0.1.0 (somewhere)\nfoca v2.0.0\nbytes v1.0.0\nbytes v1.0.0 (*)\n";
        assert_eq!(dependencies(tree, "bytes\nfoca\n").len(), 0);
        assert_eq!(dependencies(tree, "bytes\n"), ["foca: not in the list"]);
        assert_eq!(dependencies(tree, "bytes\nfoca\nserde\n"), ["serde: in the list, not used"]);
    }

    #[test]
    fn the_world_is_found() {
        for name in WORLD {
            assert_eq!(world(&format!("decide v0.1.0\n{name} v1.0.0\n")).len(), 1, "{name}");
        }
        assert_eq!(world("decide v0.1.0\nfoca v2.0.0\n").len(), 0);
    }
}
