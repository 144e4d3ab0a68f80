//! Expressions that operators write: whatever the text is it is refused by a place in it, or has a value, soon.

use decide::policy::expression::variables::VARIABLES;
use decide::policy::expression::{Expression, Known, Place, TEXT_MAX, Type, Value};
use fuzz::Samples;

const GENUINE: [&str; 12] = [
    "host.vms > 20 && host.cpu_used > 0.8",
    "vm.memory_gib <= 64 && !vm.name.startsWith(\"db\")",
    "answer.cost + (answer.host == 'old' ? 50 : 0) // mostly",
    "answer.vms >= 30 || answer.cost > 5e1 || -answer.cost < -.5",
    "vm.packets / (vm.memory_gib + 1.0) * 2 - 7",
    "('db' in vm.tags) || vm.name in ['a', \"é\", 'c'] || size(vm.tags) != 3",
    "((((1 + 2) * 3) / 4) < 5) ? true : (false ? !true : !!false)",
    "vm.name.contains('x') == vm.name.endsWith('\\n\\u00e9') ",
    "true || 1 / 0 > 0",
    "\"a\" < 'b' && 'aa' != \"a\"",
    "has(vm.name)",
    "[1, 2.5, 3].exists(x, x > 1)",
];
const WORDS: [&str; 40] = [
    "&&", "||", "!", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "?", ":", "(", ")",
    "[", "]", "{", "}", ",", ".", "in", "true", "false", "null", "has(", "size(", "'", "\"", "'''",
    "r'", "b\"", "//", "\n", "\\x", "\u{0}", "é",
];

/// A value of each type, and what is at the ends of it.
fn value(kind: Type, round: usize) -> Option<Value> {
    let number = *[0.0, 1.0, -1.5, f64::MAX, 5e-324].get(round)?;
    Some(match kind {
        Type::Truth => Value::Truth(round.is_multiple_of(2)),
        Type::Number => Value::Number(number),
        Type::Text => Value::Text("é".repeat(round)),
        Type::Numbers => Value::Numbers(vec![number; round]),
        Type::Texts => Value::Texts(vec!["db".to_owned(); round]),
        Type::Map => Value::Map([("db".to_owned(), "é".to_owned())].into()),
    })
}

fn known(place: Place, round: usize) -> Known {
    let mut known = Known::default();
    for variable in VARIABLES.iter().filter(|variable| variable.places.contains(&place)) {
        if let Some(value) = value(variable.kind, round) {
            // A share that is none is refused.
            let _ = known.give(place, variable.name, value);
        }
    }
    known
}

#[test]
fn damaged_expressions_are_refused_by_their_place_or_have_a_value() {
    let names: Vec<&str> = VARIABLES.iter().map(|variable| variable.name).chain(WORDS).collect();
    let knowns = Place::ALL.map(|place| [0, 1, 2, 3, 4, 5].map(|round| known(place, round)));
    Samples { length_max: TEXT_MAX + 1, ..Samples::texts(GENUINE, &names) }.damaged(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        for (place, knowns) in Place::ALL.into_iter().zip(&knowns) {
            let expression = match Expression::new(place, &text) {
                Ok(expression) => expression,
                Err(fault) => {
                    assert!(text.is_char_boundary(fault.at), "{fault:?}");
                    continue;
                }
            };
            let understood = expression.understood();
            for known in knowns {
                let value = expression.value(known);
                if let Ok(value) = &value {
                    assert_eq!(value.kind(), place.gives());
                }
                assert_eq!(expression.parts(known)[0].1, value, "{understood}");
                if place.gives() == Type::Truth {
                    let _ = expression.holds(known);
                } else {
                    let _ = expression.rank(known);
                }
                let _ = expression.figures(known);
            }
            if understood.len() <= TEXT_MAX {
                let again = Expression::new(place, &understood);
                let again = again.map(|again| again.understood());
                assert_eq!(again, Ok(understood), "of {text:?}");
            }
        }
    });
}
