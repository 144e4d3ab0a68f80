//! A checked expression as a tree, and its value.
//!
//! What it computes is what CEL says, with two differences: all numbers are doubles, and one without an end (a division by
//! zero) is a failure instead of infinity. As in CEL, `&&` and `||` have a value where one side decides it and the other fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::FpCategory;

use super::variables::Variable;
use super::{Failure, Value};

type Values = BTreeMap<&'static str, Value>;

/// One operation and what it works on. The checker alone makes them, and only of types that fit.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Literal(Value),
    Variable(&'static Variable),
    /// A map, and a key that must be there.
    Key(Box<Node>, Box<Node>),
    /// A map, and a key that may be there.
    HasKey(Box<Node>, Box<Node>),
    /// A list, and what may be in it.
    Member(Box<Node>, Box<Node>),
    Not(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Choice(Box<[Node; 3]>),
    Negate(Box<Node>),
    Compute(Operation, Box<Node>, Box<Node>),
    Compare(Relation, Box<Node>, Box<Node>),
    Size(Box<Node>),
    Search(Search, Box<Node>, Box<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search {
    StartsWith,
    EndsWith,
    Contains,
}

impl Operation {
    pub(super) fn sign(self) -> &'static str {
        match self {
            Operation::Add => "+",
            Operation::Subtract => "-",
            Operation::Multiply => "*",
            Operation::Divide => "/",
        }
    }
}

impl Relation {
    pub(super) fn sign(self) -> &'static str {
        match self {
            Relation::Equal => "==",
            Relation::Unequal => "!=",
            Relation::Less => "<",
            Relation::LessOrEqual => "<=",
            Relation::Greater => ">",
            Relation::GreaterOrEqual => ">=",
        }
    }
}

impl Search {
    pub(super) fn name(self) -> &'static str {
        match self {
            Search::StartsWith => "startsWith",
            Search::EndsWith => "endsWith",
            Search::Contains => "contains",
        }
    }
}

const CHECKED: &str = "the checker lets no other type through";

impl Node {
    pub(super) fn value(&self, known: &Values) -> Result<Value, Failure> {
        match self {
            Node::Literal(value) => Ok(value.clone()),
            Node::Variable(variable) => match known.get(variable.name) {
                Some(value) => Ok(value.clone()),
                None => Err(Failure(format!("{} is not known", variable.name))),
            },
            Node::Key(map, key) => self.at_key(&map.value(known)?, &key.text(known)?),
            Node::HasKey(map, key) => {
                let (map, key) = (map.value(known)?, key.text(known)?);
                let Value::Map(map) = map else { unreachable!("{CHECKED}") };
                Ok(Value::Truth(map.contains_key(&key)))
            }
            Node::Member(list, item) => {
                Ok(Value::Truth(is_member(&item.value(known)?, &list.value(known)?)))
            }
            Node::Not(a) => a.truth(known).map(|a| Value::Truth(!a)),
            Node::And(a, b) => both(a, b, known, false),
            Node::Or(a, b) => both(a, b, known, true),
            Node::Choice(parts) => {
                let [condition, yes, no] = parts.as_ref();
                if condition.truth(known)? { yes.value(known) } else { no.value(known) }
            }
            Node::Negate(a) => a.number(known).map(|a| Value::Number(-a)),
            Node::Compute(operation, a, b) => {
                self.computed(*operation, a.number(known)?, b.number(known)?)
            }
            Node::Compare(relation, a, b) => {
                Ok(Value::Truth(holds(*relation, &a.value(known)?, &b.value(known)?)))
            }
            Node::Size(of) => Ok(Value::Number(size(&of.value(known)?))),
            Node::Search(search, text, part) => {
                let (text, part) = (text.text(known)?, part.text(known)?);
                Ok(Value::Truth(match search {
                    Search::StartsWith => text.starts_with(&part),
                    Search::EndsWith => text.ends_with(&part),
                    Search::Contains => text.contains(&part),
                }))
            }
        }
    }

    pub(super) fn truth(&self, known: &Values) -> Result<bool, Failure> {
        let Value::Truth(truth) = self.value(known)? else { unreachable!("{CHECKED}") };
        Ok(truth)
    }

    pub(super) fn number(&self, known: &Values) -> Result<f64, Failure> {
        let Value::Number(number) = self.value(known)? else { unreachable!("{CHECKED}") };
        Ok(number)
    }

    fn text(&self, known: &Values) -> Result<String, Failure> {
        let Value::Text(text) = self.value(known)? else { unreachable!("{CHECKED}") };
        Ok(text)
    }

    fn at_key(&self, map: &Value, key: &str) -> Result<Value, Failure> {
        let Value::Map(map) = map else { unreachable!("{CHECKED}") };
        match map.get(key) {
            Some(text) => Ok(Value::Text(text.clone())),
            None => Err(Failure(format!("{self} is not there"))),
        }
    }

    fn computed(&self, operation: Operation, a: f64, b: f64) -> Result<Value, Failure> {
        let result = match operation {
            Operation::Add => a + b,
            Operation::Subtract => a - b,
            Operation::Multiply => a * b,
            Operation::Divide if b.classify() == FpCategory::Zero => {
                return Err(Failure(format!("{self} divides by zero")));
            }
            Operation::Divide => a / b,
        };
        if result.is_finite() {
            Ok(Value::Number(result))
        } else {
            Err(Failure(format!("{self} is too large a number")))
        }
    }

    /// What it works on, from left to right.
    fn children(&self) -> Vec<&Node> {
        match self {
            Node::Literal(_) | Node::Variable(_) => Vec::new(),
            Node::Not(a) | Node::Negate(a) | Node::Size(a) => vec![a],
            Node::Choice(parts) => parts.iter().collect(),
            Node::Member(list, item) => vec![item, list],
            Node::Key(a, b)
            | Node::HasKey(a, b)
            | Node::And(a, b)
            | Node::Or(a, b)
            | Node::Compute(_, a, b)
            | Node::Compare(_, a, b)
            | Node::Search(_, a, b) => vec![a, b],
        }
    }

    /// The variables in it.
    pub(super) fn names(&self) -> BTreeSet<&'static str> {
        let mut names: BTreeSet<&'static str> =
            self.children().into_iter().flat_map(Node::names).collect();
        if let Node::Variable(variable) = self {
            names.insert(variable.name);
        }
        names
    }

    /// All in it that is no literal, outermost first.
    pub(super) fn parts(&self) -> Vec<&Node> {
        if matches!(self, Node::Literal(_)) {
            return Vec::new();
        }
        let inner = self.children().into_iter().flat_map(Node::parts);
        std::iter::once(self).chain(inner).collect()
    }

    /// How tightly it binds.
    fn level(&self) -> u8 {
        match self {
            Node::Choice(_) => 0,
            Node::Or(..) => 1,
            Node::And(..) => 2,
            Node::Compare(..) | Node::Member(..) | Node::HasKey(..) => 3,
            Node::Compute(Operation::Add | Operation::Subtract, ..) => 4,
            Node::Compute(Operation::Multiply | Operation::Divide, ..) => 5,
            Node::Literal(Value::Number(number)) if number.is_sign_negative() => 6,
            Node::Not(_) | Node::Negate(_) => 6,
            Node::Literal(_)
            | Node::Variable(_)
            | Node::Key(..)
            | Node::Size(_)
            | Node::Search(..) => 7,
        }
    }

    /// Writes a part of it, in brackets unless it binds at least as tightly as `level`.
    fn part(&self, f: &mut fmt::Formatter<'_>, level: u8) -> fmt::Result {
        if self.level() >= level { write!(f, "{self}") } else { write!(f, "({self})") }
    }

    fn infix(&self, f: &mut fmt::Formatter<'_>, sign: &str, a: &Node, b: &Node) -> fmt::Result {
        let level = self.level();
        // Relations are not chained; what else stands on the left is read first anyway.
        a.part(f, if level == 3 { 4 } else { level })?;
        write!(f, " {sign} ")?;
        b.part(f, if matches!(level, 1 | 2) { level } else { level + 1 })
    }
}

impl fmt::Display for Node {
    /// As an operator would write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Literal(value) => write!(f, "{value}"),
            Node::Variable(variable) => f.write_str(variable.name),
            Node::Key(map, key) => write!(f, "{map}[{key}]"),
            Node::HasKey(map, key) => self.infix(f, "in", key, map),
            Node::Member(list, item) => self.infix(f, "in", item, list),
            Node::Not(a) => f.write_str("!").and_then(|()| a.part(f, 7)),
            Node::And(a, b) => self.infix(f, "&&", a, b),
            Node::Or(a, b) => self.infix(f, "||", a, b),
            Node::Choice(parts) => {
                let [condition, yes, no] = parts.as_ref();
                condition.part(f, 1)?;
                f.write_str(" ? ")?;
                yes.part(f, 1)?;
                write!(f, " : {no}")
            }
            Node::Negate(a) => f.write_str("-").and_then(|()| a.part(f, 7)),
            Node::Compute(operation, a, b) => self.infix(f, operation.sign(), a, b),
            Node::Compare(relation, a, b) => self.infix(f, relation.sign(), a, b),
            Node::Size(of) => write!(f, "size({of})"),
            Node::Search(search, text, part) => {
                text.part(f, 7)?;
                write!(f, ".{}({part})", search.name())
            }
        }
    }
}

/// `&&` (where `false` decides) and `||` (where `true` does).
fn both(a: &Node, b: &Node, known: &Values, decides: bool) -> Result<Value, Failure> {
    let first = a.truth(known);
    if first == Ok(decides) {
        return Ok(Value::Truth(decides));
    }
    match (first, b.truth(known)) {
        (_, Ok(second)) if second == decides => Ok(Value::Truth(decides)),
        (Err(failure), _) | (Ok(_), Err(failure)) => Err(failure),
        (Ok(_), Ok(_)) => Ok(Value::Truth(!decides)),
    }
}

fn is_member(item: &Value, list: &Value) -> bool {
    match (item, list) {
        (Value::Number(item), Value::Numbers(list)) => {
            list.iter().any(|one| one.partial_cmp(item).is_some_and(std::cmp::Ordering::is_eq))
        }
        (Value::Text(item), Value::Texts(list)) => list.contains(item),
        _ => unreachable!("{CHECKED}"),
    }
}

fn holds(relation: Relation, a: &Value, b: &Value) -> bool {
    let order = match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.partial_cmp(b),
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        (Value::Truth(a), Value::Truth(b)) => Some(a.cmp(b)),
        _ => unreachable!("{CHECKED}"),
    };
    let order = order.expect("no number is without an order: all are finite");
    match relation {
        Relation::Equal => order.is_eq(),
        Relation::Unequal => order.is_ne(),
        Relation::Less => order.is_lt(),
        Relation::LessOrEqual => order.is_le(),
        Relation::Greater => order.is_gt(),
        Relation::GreaterOrEqual => order.is_ge(),
    }
}

/// Characters of a text, items of a list, keys of a map.
fn size(of: &Value) -> f64 {
    let size = match of {
        Value::Text(text) => text.chars().count(),
        Value::Numbers(list) => list.len(),
        Value::Texts(list) => list.len(),
        Value::Map(map) => map.len(),
        Value::Truth(_) | Value::Number(_) => unreachable!("{CHECKED}"),
    };
    u32::try_from(size).map_or(f64::MAX, f64::from)
}
