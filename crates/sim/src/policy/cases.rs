//! Cases beside a policy: given these figures, this is expected.

use std::collections::BTreeMap;

use decide::policy::expression::{Expression, Known, Place, Value};
use decide::policy::file::{self, Mistake};
use decide::policy::settings::Settings;
use serde::Deserialize;
use toml::Spanned;

/// The file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Spanned<Case>>,
}

/// One of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// For people.
    name: String,
    /// The key of the expression: `vm_policy.when`.
    of: String,
    /// The variables that are known, by their first part.
    #[serde(default)]
    given: BTreeMap<String, BTreeMap<String, Value>>,
    /// What it should give: true, false, a number, or `"fails"`.
    expect: Value,
}

/// What came of the cases.
#[derive(Debug, PartialEq, Eq)]
pub struct Cases {
    /// How many there are.
    pub count: usize,
    /// Those that do not hold.
    pub failed: Vec<Failed>,
}

/// A case that does not hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Failed {
    /// Its name, and the key of its expression.
    pub name: String,
    /// What was expected and what came, then what each part gives, line by line.
    pub words: String,
}

/// Tries all cases of a text.
///
/// # Errors
/// The first mistake in the text.
pub fn cases(text: &str, settings: &Settings) -> Result<Cases, Mistake> {
    let file: File = file::read(text)?;
    let count = file.case.len();
    let mut failed = Vec::new();
    for case in file.case {
        let at = case.span().start;
        let case = case.into_inner();
        let name = case.name.clone();
        let words = tried(case, settings).map_err(|(key, wrong)| {
            let (line, column) = file::position(text, at);
            let wrong = format!("case {name:?}: {wrong}");
            Mistake { line, column, key: Some(key), wrong, instead: None }
        })?;
        failed.extend(words.map(|words| Failed { name, words }));
    }
    Ok(Cases { count, failed })
}

/// What is not as expected, if anything; else the key that is wrong, and why.
fn tried(case: Case, settings: &Settings) -> Result<Option<String>, (String, String)> {
    let wrong = |key: &str, why: String| (format!("case.{key}"), why);
    let keys = || Place::ALL.map(Place::key).join(", ");
    let place = Place::of_key(&case.of).ok_or_else(|| {
        wrong("of", format!("{:?} is no expression; write one of {}", case.of, keys()))
    })?;
    let expression = settings.expressions().find(|expression| expression.place() == place);
    let expression =
        expression.ok_or_else(|| wrong("of", format!("{} is not set in the policy", case.of)))?;
    let mut known = Known::default();
    for (first, variables) in case.given {
        for (last, value) in variables {
            let name = format!("{first}.{last}");
            known.give(place, &name, value).map_err(|why| wrong("given", why))?;
        }
    }
    let expected = case.expect;
    let fails = expected == Value::Text("fails".to_owned());
    if !fails && expected.kind() != place.gives() {
        let why = format!("{expected} is expected, but {} gives {}", case.of, place.gives());
        return Err(wrong("expect", format!("{why}; write that, or \"fails\"")));
    }
    let expected = Some(expected).filter(|_| !fails);
    Ok(unlike(expression, &known, expected.as_ref()))
}

fn unlike(expression: &Expression, known: &Known, expected: Option<&Value>) -> Option<String> {
    let got = expression.value(known);
    if got.as_ref().ok() == expected {
        return None;
    }
    let expected = expected.map_or_else(|| "fails".to_owned(), Value::to_string);
    let got = got.map_or_else(|failure| format!("fails: {failure}"), |value| value.to_string());
    let key = expression.place().key();
    let mut words = format!("{key}: expected {expected}, got {got}\n");
    for (part, value) in expression.parts(known) {
        match value {
            Ok(value) => words += &format!("    {part} = {value}\n"),
            Err(failure) => words += &format!("    {part} fails: {failure}\n"),
        }
    }
    Some(words)
}
