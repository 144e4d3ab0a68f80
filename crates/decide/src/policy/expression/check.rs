//! The check: from `cel`'s tree to ours, with the type of everything in it.
//!
//! Every branch is walked, those too that an evaluation may never take: `true || vm.cpus > 1` is a mistake.

use cel::common::ast::{CallExpr, Expr, IdedExpr, ListExpr, LiteralValue, SourceInfo};
use cel::parser::{ParseError, Parser};

use super::bounds;
use super::scan::too_deep;
use super::tree::{Node, Operation};
use super::typing::{FUNCTIONS, choice, is_operator, one, two, wrong_count};
use super::variables::{Unit, Variable};
use super::{DEPTH_MAX, Fault, Place, Type, Value};
use crate::policy::file::meant;

/// What walks through a list in CEL.
const COMPREHENSIONS: [&str; 5] = ["all", "exists", "exists_one", "map", "filter"];

struct Check<'a> {
    table: &'static [Variable],
    place: Place,
    source: &'a SourceInfo,
}

/// A part that was checked: what it is, and where it begins.
pub(super) struct Part {
    pub(super) node: Node,
    pub(super) kind: Type,
    pub(super) at: usize,
}

pub(super) fn check(table: &'static [Variable], place: Place, text: &str) -> Result<Node, Fault> {
    let parsed = Parser::new().parse_with_source_info(text);
    let (expr, source) = parsed.map_err(|errors| not_understood(text, errors.errors.first()))?;
    let check = Check { table, place, source: &source };
    let Part { node, kind, at } = check.part(&expr, 1)?;
    if kind != place.gives() {
        let wrong = format!("it gives {kind}, but {} must give {}", place.key(), place.gives());
        let instead = match place.gives() {
            Type::Truth => "compare it with something",
            Type::Number | Type::Text | Type::Numbers | Type::Texts | Type::Map => {
                "write what is to be ordered by, or `CONDITION ? 1 : 0`"
            }
        };
        return Err(Fault::new(at, wrong, instead));
    }
    if node.names().is_empty() {
        let wrong = "it names no variable, so it always says the same";
        return Err(Fault::new(at, wrong, "leave the key out, or say what it depends on"));
    }
    Ok(node)
}

/// A parser's error in words of ours: it names what a grammar knows, not what a person meant.
fn not_understood(text: &str, error: Option<&ParseError>) -> Fault {
    let Some(error) = error else {
        return Fault { at: 0, wrong: "it cannot be read".to_owned(), instead: None };
    };
    let at = byte_at(text, error.pos);
    let said = error.msg.strip_prefix("Syntax error: ").unwrap_or(&error.msg);
    let quoted = || said.split('\'').nth(1).unwrap_or_default().to_owned();
    if said.contains("input '<EOF>'") {
        return Fault::new(
            at,
            "it ends too soon",
            "write what is to follow, or take the last sign away",
        );
    }
    if said.contains("has() macro") {
        return Fault::new(
            at,
            "has() takes one key of a map",
            "write has(vm.tags.KEY), or \"KEY\" in vm.tags",
        );
    }
    if said.starts_with("invalid int")
        || said.starts_with("invalid double")
        || said.starts_with("invalid uint")
    {
        return Fault::new(at, "the number is too large", "write one that a float can hold");
    }
    if said.contains("input '") {
        return Fault::new(
            at,
            format!("{} is not expected here", quoted()),
            "join conditions with && or ||, and put texts in quotes",
        );
    }
    Fault { at, wrong: said.replace('\n', " "), instead: None }
}

/// The byte of a line and a character, both from 1; the end where there is none.
fn byte_at(text: &str, (line, column): (isize, isize)) -> usize {
    let (line, column) = (usize::try_from(line).unwrap_or(1), usize::try_from(column).unwrap_or(1));
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let rest = &text[start..];
    start + rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(at, _)| at)
}

impl Check<'_> {
    fn part(&self, expr: &IdedExpr, depth: usize) -> Result<Part, Fault> {
        let at = self.begins(expr);
        if depth > DEPTH_MAX {
            return Err(too_deep(at));
        }
        match &expr.expr {
            Expr::Literal(literal) => self.literal(literal, at),
            Expr::Ident(name) => Err(self.unknown(name, at)),
            Expr::Select(select) => {
                let text = Box::new(Node::Literal(Value::Text(select.field.clone())));
                if let Some(variable) = self.variable(expr)? {
                    return Ok(Part { node: Node::Variable(variable), kind: variable.kind, at });
                }
                let map = self.part(&select.operand, depth + 1)?;
                if map.kind != Type::Map {
                    let wrong =
                        format!("{} is {} and has no part {}", map.node, map.kind, select.field);
                    return Err(Fault::new(at, wrong, self.known_words()));
                }
                let map = Box::new(map.node);
                Ok(if select.test {
                    Part { node: Node::HasKey(map, text), kind: Type::Truth, at }
                } else {
                    Part { node: Node::Key(map, text), kind: Type::Text, at }
                })
            }
            Expr::Call(call) => self.call(call, expr, at, depth),
            Expr::List(list) => self.list(list, at, depth),
            Expr::Comprehension(_) => Err(comprehension(self.offset(expr))),
            Expr::Map(_) | Expr::Struct(_) => Err(Fault::new(
                at,
                "{ … } makes a map, which has no use here",
                "compare keys one by one",
            )),
            Expr::Unspecified => {
                Err(Fault { at, wrong: "it cannot be read".to_owned(), instead: None })
            }
        }
    }

    /// Where a part's own sign stands.
    fn offset(&self, expr: &IdedExpr) -> usize {
        let offset = self.source.offset_for(expr.id).map_or(0, |(start, _)| start);
        usize::try_from(offset).unwrap_or(0)
    }

    /// Where a part's text begins.
    fn begins(&self, expr: &IdedExpr) -> usize {
        let own = self.offset(expr);
        match &expr.expr {
            Expr::Select(select) if select.test => {
                // The sign is the bracket of `has(`.
                self.source.source[..own].trim_end().rfind("has").unwrap_or(own)
            }
            Expr::Select(select) => self.begins(&select.operand),
            Expr::Call(call) => {
                let first = call.target.as_deref().or(call.args.first());
                // The sign of a call is its bracket: the name stands before it.
                let word = call.func_name.starts_with(|c: char| c.is_ascii_alphabetic());
                if word && call.target.is_none() {
                    return self.source.source[..own]
                        .trim_end()
                        .len()
                        .saturating_sub(call.func_name.len());
                }
                first.map_or(own, |first| self.begins(first).min(own))
            }
            Expr::Unspecified
            | Expr::Comprehension(_)
            | Expr::Ident(_)
            | Expr::List(_)
            | Expr::Literal(_)
            | Expr::Map(_)
            | Expr::Struct(_) => own,
        }
    }

    fn literal(&self, literal: &LiteralValue, at: usize) -> Result<Part, Fault> {
        let (node, kind) = match literal {
            LiteralValue::Boolean(truth) => (Value::Truth(*truth.inner()), Type::Truth),
            // There is one zero: that with a sign would be shown, and read again, as another number.
            LiteralValue::Double(number) => (Value::Number(0.0 + number.inner()), Type::Number),
            #[expect(
                clippy::cast_precision_loss,
                reason = "who writes that many digits means about that many"
            )]
            LiteralValue::Int(number) => (Value::Number(*number.inner() as f64), Type::Number),
            LiteralValue::String(text) => (Value::Text(text.inner().to_owned()), Type::Text),
            LiteralValue::UInt(number) => {
                let number = number.inner();
                return Err(Fault::new(
                    at,
                    format!("{number}u is a kind of number of its own"),
                    format!("write {number}"),
                ));
            }
            LiteralValue::Bytes(_) => {
                return Err(Fault::new(at, "b\"…\" is no text", "write it without the b"));
            }
            LiteralValue::Null => {
                return Err(Fault::new(
                    at,
                    "null is no value here",
                    "what is not known makes the expression fail",
                ));
            }
        };
        Ok(Part { node: Node::Literal(node), kind, at })
    }

    /// The variable that a selection names, if it begins as one does.
    fn variable(&self, expr: &IdedExpr) -> Result<Option<&'static Variable>, Fault> {
        let Expr::Select(select) = &expr.expr else { return Ok(None) };
        let Expr::Ident(first) = &select.operand.expr else { return Ok(None) };
        let at = self.begins(&select.operand);
        let name = format!("{first}.{}", select.field);
        let Some(variable) = self.table.iter().find(|variable| variable.name == name) else {
            return Err(self.unknown(&name, at));
        };
        if !variable.places.contains(&self.place) {
            return Err(Fault::new(
                at,
                format!("{name} is not known in {}", self.place.key()),
                self.known_words(),
            ));
        }
        if select.test {
            return Err(Fault::new(
                at,
                format!("{name} is no key of a map"),
                "has() takes one: has(vm.tags.KEY)",
            ));
        }
        Ok(Some(variable))
    }

    fn unknown(&self, name: &str, at: usize) -> Fault {
        let visible: Vec<&str> = self.visible().collect();
        let wrong = format!("unknown variable {name}");
        let prefix = format!("{name}.");
        if visible.iter().any(|known| known.starts_with(&prefix)) {
            let parts: Vec<&str> =
                visible.into_iter().filter(|known| known.starts_with(&prefix)).collect();
            return Fault::new(
                at,
                format!("{name} is no value by itself"),
                format!("write one of {}", parts.join(", ")),
            );
        }
        let last = visible.iter().find(|known| known.split('.').nth(1) == Some(name));
        if let Some(whole) = last {
            return Fault::new(at, wrong, format!("did you mean \"{whole}\"?"));
        }
        Fault::new(at, wrong, meant(name, &visible))
    }

    fn visible(&self) -> impl Iterator<Item = &'static str> {
        self.table
            .iter()
            .filter(|variable| variable.places.contains(&self.place))
            .map(|variable| variable.name)
    }

    fn known_words(&self) -> String {
        format!("known are {}", self.visible().collect::<Vec<&str>>().join(", "))
    }

    fn call(
        &self,
        call: &CallExpr,
        expr: &IdedExpr,
        at: usize,
        depth: usize,
    ) -> Result<Part, Fault> {
        let name = call.func_name.as_str();
        let sign = self.offset(expr);
        if !is_operator(name) && !FUNCTIONS.contains(&name) {
            // Its own name first: what it was given matters less.
            return Err(unknown_function(name, if call.target.is_some() { sign } else { at }));
        }
        let given = call.target.as_deref().into_iter().chain(&call.args);
        let mut parts: Vec<Part> =
            given.map(|arg| self.part(arg, depth + 1)).collect::<Result<_, _>>()?;
        let part = match (parts.len(), parts.pop()) {
            (1, Some(only)) => one(name, at, only),
            (2, Some(right)) => {
                let left = parts.pop().expect("there are two");
                two(name, at, sign, left, right)
            }
            (3, Some(no)) => {
                let yes = parts.pop().expect("there are three");
                choice(name, at, parts.pop().expect("there are three"), yes, no)
            }
            _ => None.ok_or_else(|| wrong_count(name, at)),
        }?;
        self.sensible(&part)?;
        Ok(part)
    }

    /// Comparisons and conditions that can never hold.
    fn sensible(&self, part: &Part) -> Result<(), Fault> {
        if let Some((name, _, Value::Number(number))) = bounds::compared(&part.node) {
            let variable = self.table.iter().find(|variable| variable.name == name);
            if variable.is_some_and(|v| v.unit == Unit::Share) && !(0.0..=1.0).contains(number) {
                let wrong = format!("{name} is a share from 0 to 1 and is compared with {number}");
                return Err(Fault::new(part.at, wrong, "write 0.8 for 80 %"));
            }
        }
        if let Node::Compute(Operation::Divide, _, by) = &part.node
            && matches!(**by, Node::Literal(Value::Number(0.0)))
        {
            return Err(Fault::new(part.at, "it divides by zero", "divide by something else"));
        }
        if let Some(words) = bounds::contradiction(&part.node) {
            let wrong = format!("it can never hold: {words} exclude each other");
            return Err(Fault::new(part.at, wrong, "write || if one of them is enough"));
        }
        Ok(())
    }

    fn list(&self, list: &ListExpr, at: usize, depth: usize) -> Result<Part, Fault> {
        let parts: Vec<Part> = list
            .elements
            .iter()
            .map(|item| self.part(item, depth + 1))
            .collect::<Result<_, _>>()?;
        let first = parts.first().map(|first| first.kind);
        if let Some(other) = parts.iter().find(|part| Some(part.kind) != first) {
            let wrong = format!(
                "{} is {}, but the list begins with {}",
                other.node, other.kind, parts[0].kind
            );
            return Err(Fault::new(other.at, wrong, "write all of one kind"));
        }
        match first {
            None => Err(Fault::new(at, "an empty list holds nothing", "write what is to be in it")),
            Some(Type::Number) => {
                let numbers = parts.iter().map(|part| {
                    let Node::Literal(Value::Number(number)) = part.node else {
                        return Err(no_literal(part));
                    };
                    Ok(number)
                });
                let numbers = Value::Numbers(numbers.collect::<Result<_, Fault>>()?);
                Ok(Part { node: Node::Literal(numbers), kind: Type::Numbers, at })
            }
            Some(Type::Text) => {
                let texts = parts.iter().map(|part| {
                    let Node::Literal(Value::Text(text)) = &part.node else {
                        return Err(no_literal(part));
                    };
                    Ok(text.clone())
                });
                let texts = Value::Texts(texts.collect::<Result<_, Fault>>()?);
                Ok(Part { node: Node::Literal(texts), kind: Type::Texts, at })
            }
            Some(kind @ (Type::Truth | Type::Numbers | Type::Texts | Type::Map)) => {
                let wrong = format!("{kind} cannot stand in a list");
                Err(Fault::new(at, wrong, "a list holds numbers or texts"))
            }
        }
    }
}

fn no_literal(part: &Part) -> Fault {
    let wrong = format!("{} cannot stand in a list", part.node);
    Fault::new(part.at, wrong, "compare it with ==")
}

fn unknown_function(name: &str, at: usize) -> Fault {
    if COMPREHENSIONS.contains(&name) {
        return comprehension(at);
    }
    Fault::new(at, format!("unknown function {name}"), meant(name, &FUNCTIONS))
}

fn comprehension(at: usize) -> Fault {
    let wrong = format!(
        "{} walk through lists, and there is no limit to what they cost",
        COMPREHENSIONS.join(", ")
    );
    Fault::new(at, wrong, "say it with ==, in, && and ||")
}
