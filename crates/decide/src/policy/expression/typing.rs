//! What each operator and function takes and gives.

use cel::common::ast::operators;

use super::check::Part;
use super::tree::{Node, Operation, Relation, Search};
use super::{Fault, Type, Value};

/// What can be called.
pub(super) const FUNCTIONS: [&str; 5] = ["size", "startsWith", "endsWith", "contains", "has"];

/// Whether an operator of CEL is one here.
pub(super) fn is_operator(name: &str) -> bool {
    operation(name).is_some()
        || relation(name).is_some()
        || [
            operators::CONDITIONAL,
            operators::LOGICAL_AND,
            operators::LOGICAL_OR,
            operators::LOGICAL_NOT,
            operators::NEGATE,
            operators::INDEX,
            operators::IN,
        ]
        .contains(&name)
}

fn operation(name: &str) -> Option<Operation> {
    Some(match name {
        operators::ADD => Operation::Add,
        operators::SUBSTRACT => Operation::Subtract,
        operators::MULTIPLY => Operation::Multiply,
        operators::DIVIDE => Operation::Divide,
        _ => return None,
    })
}

fn relation(name: &str) -> Option<Relation> {
    Some(match name {
        operators::EQUALS => Relation::Equal,
        operators::NOT_EQUALS => Relation::Unequal,
        operators::LESS => Relation::Less,
        operators::LESS_EQUALS => Relation::LessOrEqual,
        operators::GREATER => Relation::Greater,
        operators::GREATER_EQUALS => Relation::GreaterOrEqual,
        _ => return None,
    })
}

fn search(name: &str) -> Option<Search> {
    [Search::StartsWith, Search::EndsWith, Search::Contains]
        .into_iter()
        .find(|search| search.name() == name)
}

/// An operator or function has too many parts, or too few.
pub(super) fn wrong_count(name: &str, at: usize) -> Fault {
    let instead = match name {
        "size" => "write size(TEXT)",
        "has" => "write has(vm.tags.KEY)",
        _ => "write TEXT.NAME(TEXT), as in vm.name.startsWith(\"db\")",
    };
    Fault::new(at, format!("{name} is given the wrong number of things"), instead)
}

/// That a part is of this type.
fn must(part: &Part, kind: Type, for_what: &str) -> Result<(), Fault> {
    if part.kind == kind {
        return Ok(());
    }
    let wrong = format!("{for_what} takes {kind}, but {} is {}", part.node, part.kind);
    let instead = match (kind, part.kind) {
        (Type::Truth, Type::Number) => "compare it: … > 0",
        (Type::Number, Type::Text) => "numbers are written without quotes",
        (Type::Text, Type::Number) => "texts are written in quotes",
        (Type::Number, Type::Truth) => "write … ? 1 : 0",
        _ => "look at the types in docs/policy.md",
    };
    Err(Fault::new(part.at, wrong, instead))
}

/// What an operator or function makes of one part.
pub(super) fn one(name: &str, at: usize, of: Part) -> Result<Part, Fault> {
    let (node, kind) = match name {
        operators::LOGICAL_NOT => {
            must(&of, Type::Truth, "!")?;
            (Node::Not(Box::new(of.node)), Type::Truth)
        }
        operators::NEGATE => {
            must(&of, Type::Number, "-")?;
            if let Node::Literal(Value::Number(number)) = of.node {
                return Ok(Part { node: Node::Literal(Value::Number(0.0 - number)), ..of });
            }
            (Node::Negate(Box::new(of.node)), Type::Number)
        }
        "size" => {
            if matches!(of.kind, Type::Truth | Type::Number) {
                must(&of, Type::Text, "size")?;
            }
            (Node::Size(Box::new(of.node)), Type::Number)
        }
        _ => return Err(wrong_count(name, at)),
    };
    Ok(Part { node, kind, at })
}

/// What an operator or function makes of two parts; `sign` is where it stands.
pub(super) fn two(name: &str, at: usize, sign: usize, a: Part, b: Part) -> Result<Part, Fault> {
    if let Some(operation) = operation(name) {
        must(&a, Type::Number, operation.sign())?;
        must(&b, Type::Number, operation.sign())?;
        let node = Node::Compute(operation, Box::new(a.node), Box::new(b.node));
        return Ok(Part { node, kind: Type::Number, at });
    }
    if let Some(relation) = relation(name) {
        comparable(relation, &a, &b)?;
        let node = Node::Compare(relation, Box::new(a.node), Box::new(b.node));
        return Ok(Part { node, kind: Type::Truth, at });
    }
    if let Some(search) = search(name) {
        must(&a, Type::Text, name)?;
        must(&b, Type::Text, name)?;
        let node = Node::Search(search, Box::new(a.node), Box::new(b.node));
        return Ok(Part { node, kind: Type::Truth, at });
    }
    let (kind, node) = match name {
        operators::LOGICAL_AND | operators::LOGICAL_OR => {
            let and = name == operators::LOGICAL_AND;
            let sign = if and { "&&" } else { "||" };
            must(&a, Type::Truth, sign)?;
            must(&b, Type::Truth, sign)?;
            let (a, b) = (Box::new(a.node), Box::new(b.node));
            (Type::Truth, if and { Node::And(a, b) } else { Node::Or(a, b) })
        }
        operators::IN => (Type::Truth, member(a, b)?),
        operators::INDEX => {
            must(&a, Type::Map, "[…]")?;
            must(&b, Type::Text, "[…]")?;
            (Type::Text, Node::Key(Box::new(a.node), Box::new(b.node)))
        }
        _ => return Err(wrong_count(name, sign)),
    };
    Ok(Part { node, kind, at })
}

fn comparable(relation: Relation, a: &Part, b: &Part) -> Result<(), Fault> {
    let sign = relation.sign();
    if a.kind != b.kind {
        let wrong = format!("{sign} compares {} ({}) with {} ({})", a.node, a.kind, b.node, b.kind);
        let instead = match (a.kind, b.kind) {
            (Type::Number, Type::Text) | (Type::Text, Type::Number) => {
                "numbers are written without quotes, texts in quotes"
            }
            (_, Type::Numbers | Type::Texts | Type::Map) => "write in",
            _ => "compare things of one kind",
        };
        return Err(Fault::new(a.at, wrong, instead));
    }
    match (a.kind, relation) {
        (Type::Number | Type::Text, _) | (Type::Truth, Relation::Equal | Relation::Unequal) => {
            Ok(())
        }
        (Type::Truth, _) => Err(Fault::new(
            a.at,
            format!("{sign} orders nothing that is true or false"),
            "write ==, or !",
        )),
        (Type::Numbers | Type::Texts | Type::Map, _) => Err(Fault::new(
            a.at,
            format!("{sign} does not compare {}", a.kind),
            "write ITEM in LIST",
        )),
    }
}

fn member(item: Part, list: Part) -> Result<Node, Fault> {
    match list.kind {
        Type::Numbers => must(&item, Type::Number, "in")?,
        Type::Texts => must(&item, Type::Text, "in")?,
        Type::Map => {
            must(&item, Type::Text, "in")?;
            return Ok(Node::HasKey(Box::new(list.node), Box::new(item.node)));
        }
        Type::Truth | Type::Number | Type::Text => {
            let wrong = format!("in takes a list or a map, but {} is {}", list.node, list.kind);
            return Err(Fault::new(list.at, wrong, "write [\"a\", \"b\"], or TEXT.contains(TEXT)"));
        }
    }
    Ok(Node::Member(Box::new(list.node), Box::new(item.node)))
}

/// What an operator makes of three parts.
pub(super) fn choice(
    name: &str,
    at: usize,
    condition: Part,
    yes: Part,
    no: Part,
) -> Result<Part, Fault> {
    if name != operators::CONDITIONAL {
        return Err(wrong_count(name, at));
    }
    must(&condition, Type::Truth, "?")?;
    if yes.kind != no.kind {
        let wrong = format!("? gives {} ({}) or {} ({})", yes.node, yes.kind, no.node, no.kind);
        return Err(Fault::new(yes.at, wrong, "give the same kind either way"));
    }
    let kind = yes.kind;
    let node = Node::Choice(Box::new([condition.node, yes.node, no.node]));
    Ok(Part { node, kind, at })
}
