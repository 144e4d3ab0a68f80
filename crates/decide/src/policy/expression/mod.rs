//! Conditions and orders that an operator writes in CEL, for what thresholds cannot say.
//!
//! `cel` reads the text into a tree. What follows is ours, since `cel` knows no types before it evaluates and no limits:
//! `scan` refuses what would cost its parser too much, `check` walks the whole tree by the types of `variables` and `typing` (both
//! sides of every `||`, `&&` and `?:`) and gives a tree of ours (`tree`), which alone is evaluated. There all numbers are of one kind, so
//! that `5` and `5.0` are the same.
//!
//! **Invariant:** what passes the check never meets a wrong type, whatever the figures are, and ends within as many steps as
//! its text has characters.
//! **Invariant:** no text makes the check panic, or use more than half a megabyte of stack.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use serde::{Deserialize, Deserializer, Serialize};

mod bounds;
mod check;
mod scan;
pub mod sections;
mod tree;
mod typing;
pub mod variables;

use tree::Node;
use variables::{VARIABLES, Variable};

use crate::policy::file::meant;
use crate::units::Rank;

/// The longest text, in bytes.
pub const TEXT_MAX: usize = 4096;
/// The most operations within each other.
pub const DEPTH_MAX: usize = 24;

/// What an expression decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Whether this host is hot.
    VmWhen,
    /// Which VM leaves first.
    VmOrder,
    /// Whether this host takes a VM.
    Accept,
    /// Which acceptor is chosen.
    MigrateOrder,
    /// Which acceptors are not chosen.
    Reject,
}

impl Place {
    /// All of them.
    pub const ALL: [Place; 5] =
        [Place::VmWhen, Place::VmOrder, Place::Accept, Place::MigrateOrder, Place::Reject];

    /// Its key in the file, with the section.
    pub fn key(self) -> &'static str {
        match self {
            Place::VmWhen => "vm_policy.when",
            Place::VmOrder => "vm_policy.order",
            Place::Accept => "admission.accept",
            Place::MigrateOrder => "migration_policy.order",
            Place::Reject => "migration_policy.reject",
        }
    }

    /// The place of this key.
    pub fn of_key(key: &str) -> Option<Place> {
        Place::ALL.into_iter().find(|place| place.key() == key)
    }

    /// What an expression there gives.
    pub fn gives(self) -> Type {
        match self {
            Place::VmWhen | Place::Accept | Place::Reject => Type::Truth,
            Place::VmOrder | Place::MigrateOrder => Type::Number,
        }
    }
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// True or false.
    Truth,
    /// Any number; whole ones are no kind of their own.
    Number,
    /// A text.
    Text,
    /// A list of numbers.
    Numbers,
    /// A list of texts.
    Texts,
    /// Texts by keys, which are texts.
    Map,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::Truth => "true or false",
            Type::Number => "a number",
            Type::Text => "a text",
            Type::Numbers => "a list of numbers",
            Type::Texts => "a list of texts",
            Type::Map => "a map",
        })
    }
}

/// A value of any type.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "they are the types")]
pub enum Value {
    Truth(bool),
    /// Always finite.
    Number(f64),
    Text(String),
    Numbers(Vec<f64>),
    Texts(Vec<String>),
    Map(BTreeMap<String, String>),
}

impl Value {
    /// Its type.
    pub fn kind(&self) -> Type {
        match self {
            Value::Truth(_) => Type::Truth,
            Value::Number(_) => Type::Number,
            Value::Text(_) => Type::Text,
            Value::Numbers(_) => Type::Numbers,
            Value::Texts(_) => Type::Texts,
            Value::Map(_) => Type::Map,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Truth(truth) => write!(f, "{truth}"),
            // Digits alone would be read as a whole number, of which CEL knows none as large.
            Value::Number(number) if number.abs() >= 1e16 => write!(f, "{number:?}"),
            Value::Number(number) => write!(f, "{number}"),
            Value::Text(text) => quoted(f, text),
            Value::Numbers(numbers) => write!(f, "{numbers:?}"),
            Value::Texts(texts) => {
                f.write_str("[")?;
                for (index, text) in texts.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { ", " })?;
                    quoted(f, text)?;
                }
                f.write_str("]")
            }
            Value::Map(map) => write!(f, "{map:?}"),
        }
    }
}

/// A text as it is written in an expression, all on one line.
fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for letter in text.chars() {
        match letter {
            '"' | '\\' => write!(f, "\\{letter}")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            // What cannot be seen.
            _ if letter != '\'' && letter.escape_debug().len() > 1 => {
                write!(f, "\\U{:08x}", u32::from(letter))?;
            }
            _ => f.write_char(letter)?,
        }
    }
    f.write_char('"')
}

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wrong}{}", instead.as_ref().map(|instead| format!("; {instead}")).unwrap_or_default())]
pub struct Fault {
    /// The byte of the text where it begins.
    pub at: usize,
    /// What is wrong.
    pub wrong: String,
    /// What to write instead.
    pub instead: Option<String>,
}

impl Fault {
    fn new(at: usize, wrong: impl Into<String>, instead: impl Into<String>) -> Fault {
        Fault { at, wrong: wrong.into(), instead: Some(instead.into()) }
    }
}

/// Why an expression has no value, in words without figures, so that the same failure always says the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub(super) String);

/// What the variables are; one that is left out is not known, and whatever needs it fails.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known(BTreeMap<&'static str, Value>);

impl Known {
    /// Sets a variable of the table.
    pub fn set(&mut self, name: &'static str, value: Value) {
        let variable = variables::named(name);
        assert!(variable.is_some_and(|v| v.kind == value.kind()), "{name} is no {}", value.kind());
        self.0.insert(name, value);
    }

    /// Sets what a person gives for an expression of this place.
    ///
    /// # Errors
    /// If there is no such variable, it is not known there, or is of another type or size.
    pub fn give(&mut self, place: Place, name: &str, value: Value) -> Result<(), String> {
        let here = || VARIABLES.iter().filter(|variable| variable.places.contains(&place));
        let Some(variable) = here().find(|variable| variable.name == name) else {
            let known: Vec<&str> = here().map(|variable| variable.name).collect();
            let known = meant(name, &known);
            return Err(format!("no variable {name} in {}; {known}", place.key()));
        };
        if variable.kind != value.kind() {
            return Err(format!("{name} is {}, not {}", variable.kind, value.kind()));
        }
        let share = variable.unit == variables::Unit::Share;
        if let Value::Number(number) = value
            && (!number.is_finite() || share && !(0.0..=1.0).contains(&number))
        {
            let range = if share { "from 0 to 1; write 0.8 for 80 %" } else { "of digits" };
            return Err(format!("{name} is a number {range}"));
        }
        self.0.insert(variable.name, value);
        Ok(())
    }

    /// Sets a number of the table, where it is known.
    pub fn number(&mut self, name: &'static str, number: impl Into<Option<f64>>) {
        if let Some(number) = number.into().filter(|number| number.is_finite()) {
            self.set(name, Value::Number(number));
        }
    }
}

/// An expression that was checked.
#[derive(Clone)]
pub struct Expression {
    place: Place,
    text: String,
    root: Node,
}

impl Expression {
    /// Reads and checks a text.
    ///
    /// # Errors
    /// The first mistake, by its place in the text.
    pub fn new(place: Place, text: &str) -> Result<Expression, Fault> {
        Expression::with(VARIABLES, place, text)
    }

    fn with(table: &'static [Variable], place: Place, text: &str) -> Result<Expression, Fault> {
        scan::scan(text)?;
        let root = check::check(table, place, text)?;
        Ok(Expression { place, text: text.to_owned(), root })
    }

    /// What it decides.
    pub fn place(&self) -> Place {
        self.place
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// As it was understood: on one line, without comments.
    pub fn understood(&self) -> String {
        self.root.to_string()
    }

    /// Its value.
    ///
    /// # Errors
    /// If a variable that it needs is not known, a map lacks a key, or a number has no end.
    pub fn value(&self, known: &Known) -> Result<Value, Failure> {
        self.root.value(&known.0)
    }

    /// Whether it holds; for places that say yes or no.
    ///
    /// # Errors
    /// As `value`.
    pub fn holds(&self, known: &Known) -> Result<bool, Failure> {
        self.root.truth(&known.0)
    }

    /// Its number, in a form that is ordered as the numbers are; for places that say how much.
    ///
    /// # Errors
    /// As `value`.
    pub fn rank(&self, known: &Known) -> Result<Rank, Failure> {
        self.root.number(&known.0).map(Rank::of)
    }

    /// The variables in it and what they are: `host.vms 12, vm.memory_gib 64`.
    pub fn figures(&self, known: &Known) -> String {
        let figure = |name: &&'static str| match known.0.get(name) {
            Some(value) => format!("{name} {value}"),
            None => format!("{name} not known"),
        };
        self.root.names().iter().map(figure).collect::<Vec<String>>().join(", ")
    }

    /// Each operation in it, outermost first, and what it gives.
    pub fn parts(&self, known: &Known) -> Vec<(String, Result<Value, Failure>)> {
        self.root.parts().iter().map(|part| (part.to_string(), part.value(&known.0))).collect()
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Expression) -> bool {
        (self.place, &self.text) == (other.place, &other.text)
    }
}

impl Eq for Expression {}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:?}", self.place.key(), self.text)
    }
}

impl Serialize for Expression {
    /// Its key and its text.
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (self.place.key(), &self.text).serialize(to)
    }
}

impl<'de> Deserialize<'de> for Expression {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Expression, D::Error> {
        let (key, text) = <(String, String)>::deserialize(from)?;
        let place = Place::of_key(&key);
        let place = place.ok_or_else(|| serde::de::Error::custom(format!("no place {key}")))?;
        Expression::new(place, &text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
