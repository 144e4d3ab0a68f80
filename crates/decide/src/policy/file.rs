//! Settings from the text of a TOML file, and mistakes in it told so that they can be put right at once.
//!
//! `read` serves any file whose sections include ours: the agent's own struct takes `Mode`, `Hot`, `Target`, `WorthIt`, `Limits`
//! and `Copy` as fields beside its own sections, each with `#[serde(default)]` and the whole with `deny_unknown_fields`.
//!
//! **Invariant:** what is not understood is refused, never skipped.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use crate::policy::expression::{Expression, Place};
use crate::policy::settings::Settings;
use crate::units::Share;

/// Something in the file that cannot be used; nothing of the file was taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistake {
    /// Line, from 1.
    pub line: usize,
    /// Character of that line, from 1.
    pub column: usize,
    /// The key, with its section (`hot.for`), where it is about one.
    pub key: Option<String>,
    /// What is wrong.
    pub wrong: String,
    /// What to write instead, where that is not in `wrong`.
    pub instead: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)?;
        if let Some(key) = &self.key {
            write!(f, ", key {key}")?;
        }
        write!(f, ": {}", self.wrong)?;
        if let Some(instead) = &self.instead {
            write!(f, "; {instead}")?;
        }
        Ok(())
    }
}

/// Settings from a file that has no other sections.
pub fn settings(text: &str) -> Result<Settings, Mistake> {
    read(text)
}

/// Settings from a file that has other sections too, whose names these are: they are passed over.
pub fn settings_beside(text: &str, others: &[&str]) -> Result<Settings, Mistake> {
    let mut table = DeTable::parse(text).map_err(|error| mistake(text, &error))?;
    for other in others {
        table.get_mut().remove(*other);
    }
    let read = Settings::deserialize(toml::Deserializer::from(table));
    read.map_err(|error| mistake(text, &error))
}

/// What in these settings, read from this text, excludes each other, if anything.
pub fn contradiction(text: &str, settings: &Settings) -> Option<Mistake> {
    let Settings { hot, target, vm_policy, .. } = settings;
    let above = |key: &str, max: Share, hot_key: &str, limit: Share| {
        let wrong = format!(
            "{max} is not below {hot_key}, {limit}: a host that takes a VM would be hot itself"
        );
        (max >= limit).then(|| (key.to_owned(), wrong, "lower it, or raise the other".to_owned()))
    };
    let alone = vm_policy.window.is_some() && vm_policy.when.is_none();
    let alone = alone.then(|| {
        let wrong = "it says for how long vm_policy.when must hold, which is not set".to_owned();
        ("vm_policy.for".to_owned(), wrong, "set that too, or leave this out".to_owned())
    });
    let (key, wrong, instead) = alone
        .or_else(|| above("target.cpu_used_max", target.cpu_used_max, "hot.cpu_used", hot.cpu_used))
        .or_else(|| {
            above(
                "target.memory_used_max",
                target.memory_used_max,
                "hot.memory_used",
                hot.memory_used,
            )
            // Left out, it follows.
            .filter(|_| written(text, "hot.memory_used"))
        })?;
    Some(mistake_at(text, &key, wrong, &instead))
}

/// A mistake at this key, or else its section.
pub fn mistake_at(text: &str, key: &str, wrong: String, instead: &str) -> Mistake {
    let (line, column) = position(text, start_of(text, key));
    Mistake { line, column, key: Some(key.to_owned()), wrong, instead: Some(instead.to_owned()) }
}

fn written(text: &str, key: &str) -> bool {
    let Ok(table) = DeTable::parse(text) else { return false };
    let Some((section, name)) = key.split_once('.') else { return false };
    let inner = table.get_ref().get(section).and_then(|section| section.get_ref().as_table());
    inner.is_some_and(|inner| inner.contains_key(name))
}

/// The byte where a key, or else its section, begins.
fn start_of(text: &str, key: &str) -> usize {
    let Ok(table) = DeTable::parse(text) else { return 0 };
    let (section, name) = key.split_once('.').unwrap_or((key, ""));
    let Some((section, inner)) = table.get_ref().get_key_value(section) else { return 0 };
    let DeValue::Table(inner) = inner.get_ref() else { return section.span().start };
    inner.get_key_value(name).map_or(section.span().start, |(key, _)| key.span().start)
}

/// Any struct made of sections; the first mistake ends it.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, Mistake> {
    toml::from_str(text).map_err(|error| mistake(text, &error))
}

fn mistake(text: &str, error: &toml::de::Error) -> Mistake {
    let at = error.span().unwrap_or(0..0);
    let (line, column) = position(text, at.start);
    let key = DeTable::parse(text).ok().and_then(|table| key_at(table.get_ref(), &at));
    if let Some(mistake) = key.as_deref().and_then(|key| in_expression(text, key, &at)) {
        return mistake;
    }
    let wrong = error.message().replace('\n', "; ");
    let instead = nearest_known(&wrong);
    match instead {
        // Serde's own list of all keys is replaced by the one that was meant.
        Some(instead) => {
            let wrong = wrong.split(", expected").next().unwrap_or(&wrong).replace('`', "\"");
            let wrong = wrong
                .replace("unknown field", "unknown key")
                .replace("unknown variant", "unknown value");
            Mistake { line, column, key, wrong, instead: Some(instead) }
        }
        None => {
            let instead = as_toml(&wrong).map(str::to_owned);
            let said = wrong.split(", expected").next().filter(|_| instead.is_some());
            let wrong = said.unwrap_or(&wrong).replace('`', "\"");
            Mistake { line, column, key, wrong, instead }
        }
    }
}

/// What to write where the text is no TOML; its reader says what it expected, not what to do.
fn as_toml(wrong: &str) -> Option<&'static str> {
    let hints = [
        ("invalid basic string", "end the text with the quote that it began with: \"…\""),
        ("invalid literal string", "end the text with the quote that it began with: '…'"),
        ("invalid multi-line basic string", "end the text as it began: \"\"\"…\"\"\""),
        ("invalid multi-line literal string", "end the text as it began: '''…'''"),
        ("string values must be quoted", "put it between quotes: \"…\""),
        ("unclosed table", "close the section's name: [name]"),
        ("duplicate key", "a section or key may stand once: join the two"),
        ("missing field", "add it"),
    ];
    hints.into_iter().find(|(begins, _)| wrong.starts_with(begins)).map(|(_, instead)| instead)
}

/// What is wrong with the expression that stands `at`, by its place within the file.
fn in_expression(text: &str, key: &str, at: &Range<usize>) -> Option<Mistake> {
    let place = Place::of_key(key)?;
    let raw = text.get(at.clone())?;
    let quotes =
        ["\'\'\'", "\"\"\"", "\'", "\""].into_iter().find(|quotes| raw.starts_with(quotes))?;
    let inner = raw.strip_prefix(quotes)?.strip_suffix(quotes)?;
    // The first line of several begins after the one with the quotes.
    let first = inner.strip_prefix("\r\n").or_else(|| inner.strip_prefix('\n'));
    let inner = first.filter(|_| quotes.len() == 3).unwrap_or(inner);
    let value: String = match DeValue::parse(raw).ok()?.into_inner() {
        DeValue::String(value) => value.into_owned(),
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => return None,
    };
    let fault = Expression::new(place, &value).err()?;
    // What was written with escapes is told by where it begins.
    let offset = if inner == value { raw.find(inner).unwrap_or(0) + fault.at } else { 0 };
    let (line, column) = position(text, at.start + offset);
    let (wrong, instead) = (fault.wrong, fault.instead);
    Some(Mistake { line, column, key: Some(key.to_owned()), wrong, instead })
}

/// Line and column of a byte, both from 1; the column counts characters.
pub fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The dotted name of the innermost key whose name or value covers the start of `at`.
fn key_at(table: &DeTable<'_>, at: &Range<usize>) -> Option<String> {
    let covers = |span: Range<usize>| span.contains(&at.start);
    table.iter().find_map(|(key, value)| {
        let name = key.get_ref();
        let inner = match value.get_ref() {
            DeValue::Table(inner) => key_at(inner, at),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => None,
        };
        match inner {
            Some(inner) => Some(format!("{name}.{inner}")),
            None => (covers(key.span()) || covers(value.span())).then(|| name.to_string()),
        }
    })
}

/// For serde's "unknown field `x`, expected one of `a`, `b`" (and the same of variants): which of them was meant.
fn nearest_known(message: &str) -> Option<String> {
    let (unknown, expected) = message.split_once(", expected ")?;
    let unknown = unknown
        .strip_prefix("unknown field ")
        .or_else(|| unknown.strip_prefix("unknown variant "))?;
    let unknown = unknown.trim_matches('`');
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    if known.is_empty() { None } else { Some(meant(unknown, &known)) }
}

/// Which of the known words was meant, or all of them where none is near.
pub(crate) fn meant(unknown: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|name| (edits(unknown, name), *name)).min();
    match nearest {
        // More than a quarter of the word is no slip of the pen.
        Some((edits, nearest)) if edits * 4 <= unknown.chars().count().max(4) => {
            format!("did you mean \"{nearest}\"?")
        }
        Some(_) | None => format!("known are {}", known.join(", ")),
    }
}

/// The least number of letters to insert, remove or replace that turns `a` into `b` (Levenshtein 1966).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
