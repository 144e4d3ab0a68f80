//! Conditions that cannot hold: bounds of one variable that exclude each other, within what `&&` joins.
//!
//! Only what surely is a slip of the pen is found: comparisons of a variable with a literal.

use std::collections::BTreeMap;

use super::Value;
use super::tree::{Node, Relation};

/// What comparisons leave of a variable's values.
struct Bounds<'a> {
    least: (f64, bool),
    most: (f64, bool),
    text: Option<&'a str>,
    said: Vec<String>,
}

/// The comparisons that exclude each other, in words.
pub(super) fn contradiction(and: &Node) -> Option<String> {
    let mut bounds: BTreeMap<&'static str, Bounds<'_>> = BTreeMap::new();
    let mut open = vec![and];
    while let Some(node) = open.pop() {
        let Node::And(a, b) = node else {
            if let Some(words) = narrow(&mut bounds, node) {
                return Some(words);
            }
            continue;
        };
        open.extend([b.as_ref(), a.as_ref()]);
    }
    None
}

fn narrow<'a>(bounds: &mut BTreeMap<&'static str, Bounds<'a>>, node: &'a Node) -> Option<String> {
    let (name, relation, value) = compared(node)?;
    let here = bounds.entry(name).or_insert_with(|| Bounds {
        least: (f64::NEG_INFINITY, true),
        most: (f64::INFINITY, true),
        text: None,
        said: Vec::new(),
    });
    here.said.push(node.to_string());
    let possible = match (relation, value) {
        (Relation::Equal, Value::Text(text)) => *here.text.get_or_insert(text) == text,
        (relation, Value::Number(number)) => {
            here.narrow(relation, *number);
            let ((least, with_least), (most, with_most)) = (here.least, here.most);
            least < most || (least <= most && with_least && with_most)
        }
        _ => true,
    };
    if possible { None } else { Some(here.said.join(" and ")) }
}

impl Bounds<'_> {
    fn narrow(&mut self, relation: Relation, number: f64) {
        let (least, most) = match relation {
            Relation::Equal => (Some((number, true)), Some((number, true))),
            Relation::Greater => (Some((number, false)), None),
            Relation::GreaterOrEqual => (Some((number, true)), None),
            Relation::Less => (None, Some((number, false))),
            Relation::LessOrEqual => (None, Some((number, true))),
            Relation::Unequal => (None, None),
        };
        // Of two equal bounds the one without its end is the narrower.
        let higher = |(a, a_in): (f64, bool)| a > self.least.0 || (a >= self.least.0 && !a_in);
        self.least = least.filter(|least| higher(*least)).unwrap_or(self.least);
        let lower = |(a, a_in): (f64, bool)| a < self.most.0 || (a <= self.most.0 && !a_in);
        self.most = most.filter(|most| lower(*most)).unwrap_or(self.most);
    }
}

/// A variable beside a literal, the variable on the left.
pub(super) fn compared(node: &Node) -> Option<(&'static str, Relation, &Value)> {
    let Node::Compare(relation, a, b) = node else { return None };
    match (a.as_ref(), b.as_ref()) {
        (Node::Variable(variable), Node::Literal(value)) => Some((variable.name, *relation, value)),
        (Node::Literal(value), Node::Variable(variable)) => {
            let turned = match relation {
                Relation::Less => Relation::Greater,
                Relation::LessOrEqual => Relation::GreaterOrEqual,
                Relation::Greater => Relation::Less,
                Relation::GreaterOrEqual => Relation::LessOrEqual,
                Relation::Equal | Relation::Unequal => *relation,
            };
            Some((variable.name, turned, value))
        }
        _ => None,
    }
}
