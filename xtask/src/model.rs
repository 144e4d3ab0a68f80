//! `cargo xtask model`: the model checks (`crates/sim/tests/model`), and what they checked.
//!
//! The tests leave a line of JSON per model; here it is made into a table, or one document.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::ci::{cargo, root};
use crate::{print, say};

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Model {
    /// Bigger budgets of faults: 7.8 million states, a quarter of an hour
    #[arg(long)]
    deep: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What one model came to, as its test tells it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Checked {
    pub(crate) model: String,
    pub(crate) states: u64,
    steps: u64,
    depth: u64,
    pub(crate) seconds: f64,
    pub(crate) properties: Vec<Property>,
}

/// One property, and the path that breaks it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Property {
    pub(crate) name: String,
    pub(crate) expects: String,
    pub(crate) holds: bool,
    pub(crate) path: Option<Vec<String>>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    states: u64,
    properties: Vec<Row>,
    violations: usize,
    models: Vec<Checked>,
}

/// One property over all models.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Row {
    model: String,
    name: String,
    expects: String,
    holds: bool,
}

impl Model {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let file = report_file("model")?;
        let mut tests =
            cargo(&["test", "--package", "sim", "--test", "model", "--", "--test-threads=1"]);
        tests.env("EVENKEEL_MODEL_REPORT", &file);
        if self.deep {
            tests.env("EVENKEEL_MODEL_DEEP", "1");
        }
        let status = tests.status().context("running cargo test")?;
        let models = read(&fs::read_to_string(&file).unwrap_or_default())?;
        ensure!(!models.is_empty(), "no model was checked: cargo test ended with {status}");
        let report = report(models);
        let text = table(&report);
        if self.json {
            say(&text);
            print(&serde_json::to_string_pretty(&report)?);
        } else {
            print(&text);
        }
        let ok = status.success() && report.violations == 0;
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A fresh file in the target folder for the tests to report to.
pub(crate) fn report_file(name: &str) -> anyhow::Result<PathBuf> {
    let folder = root().join("target/xtask");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let file = folder.join(format!("{name}.jsonl"));
    fs::write(&file, "").with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

/// One model per line.
pub(crate) fn read(lines: &str) -> anyhow::Result<Vec<Checked>> {
    let parsed = lines.lines().map(serde_json::from_str);
    parsed.collect::<Result<_, _>>().context("reading what the tests report")
}

fn report(models: Vec<Checked>) -> Report {
    let row = |model: &Checked, property: &Property| Row {
        model: model.model.clone(),
        name: property.name.clone(),
        expects: property.expects.clone(),
        holds: property.holds,
    };
    let rows = |model| {
        let model: &Checked = model;
        model.properties.iter().map(move |property| row(model, property))
    };
    let properties: Vec<Row> = models.iter().flat_map(rows).collect();
    Report {
        states: models.iter().map(|model| model.states).sum(),
        violations: properties.iter().filter(|row| !row.holds).count(),
        properties,
        models,
    }
}

/// Each model and its properties; a path for what was broken.
fn table(report: &Report) -> String {
    let mut lines = Vec::new();
    for model in &report.models {
        let Checked { model: name, states, steps, depth, seconds, properties } = model;
        lines.push(format!("{name}: {states} states, {steps} steps, depth {depth}, {seconds} s"));
        for property in properties {
            let word = match (property.holds, property.expects.as_str()) {
                (true, "always") => "always",
                (true, _) => "sometimes",
                (false, "always") => "VIOLATED",
                (false, _) => "NEVER",
            };
            lines.push(format!("  {word:<10} {}", property.name));
            let path = property.path.iter().flatten();
            lines.extend(path.map(|step| format!("               {step}")));
        }
    }
    lines.push(format!(
        "{} states in {} models, {} properties, {} violations",
        report.states,
        report.models.len(),
        report.properties.len(),
        report.violations
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"model":"m","states":7,"steps":9,"depth":3,"seconds":0.1,"properties":[{"name":"p","expects":"always","holds":false,"path":["a","b"]},{"name":"q","expects":"sometimes","holds":true,"path":null}]}
{"model":"n","states":5,"steps":5,"depth":2,"seconds":0.2,"properties":[{"name":"q","expects":"sometimes","holds":false,"path":null}]}"#;

    #[test]
    fn what_the_tests_report_is_summed() {
        let report = report(read(LINES).unwrap());
        assert_eq!((report.states, report.violations, report.properties.len()), (12, 2, 3));
    }

    #[test]
    fn a_violation_is_shown_with_its_path() {
        assert_eq!(
            table(&report(read(LINES).unwrap())),
            "m: 7 states, 9 steps, depth 3, 0.1 s\n  \
             VIOLATED   p\n               a\n               b\n  \
             sometimes  q\n\
             n: 5 states, 5 steps, depth 2, 0.2 s\n  \
             NEVER      q\n\
             12 states in 2 models, 3 properties, 2 violations"
        );
    }

    #[test]
    fn a_line_that_cannot_be_read_is_an_error() {
        assert!(read("{\"model\":").is_err());
    }
}
