//! What holds for all expressions and all texts.

use std::sync::Arc;
use std::thread;

use proptest::prelude::*;

use super::*;

/// An expression of each type, in one text for both: `\u{1}` … `\u{2}` stand around what is an integer in CEL, `\u{3}` after a
/// literal that is one here.
#[derive(Clone, Debug)]
struct Texts {
    truth: String,
    number: String,
    text: String,
}

impl Texts {
    fn ours(&self) -> String {
        self.truth.replace(['\u{1}', '\u{2}', '\u{3}'], "")
    }

    fn cels(&self) -> String {
        self.truth.replace('\u{1}', "double(").replace('\u{2}', ")").replace('\u{3}', ".0")
    }
}

fn leaves() -> impl Strategy<Value = Texts> {
    let truth = prop::sample::select(vec![
        "host.hot",
        "true",
        "false",
        "('team' in vm.tags)",
        "has(vm.tags.zone)",
        "(vm.name in ['db', 'é'])",
        "(vm.name in host.racks)",
        "(vm.cpu in host.slots)",
        "(vm.cpu in [1\u{3}, 2.5])",
    ]);
    let number = prop::sample::select(vec![
        "vm.cpu",
        "vm.memory_gib",
        "host.cpu_used",
        "1\u{3}",
        "0.25",
        "-3\u{3}",
        "7e2",
        "\u{1}size(vm.tags)\u{2}",
    ]);
    let text = prop::sample::select(vec![
        "vm.name",
        "host.zone",
        "'db'",
        "\"é\"",
        "vm.tags.team",
        "vm.tags['zone']",
        "''",
    ]);
    (truth, number, text).prop_map(|(truth, number, text)| Texts {
        truth: truth.to_owned(),
        number: number.to_owned(),
        text: text.to_owned(),
    })
}

fn texts() -> impl Strategy<Value = Texts> {
    leaves().prop_recursive(4, 24, 3, |inner| {
        let truth = prop::sample::select(vec![
            "(T && t)",
            "(T || t)",
            "!(T)",
            "(T ? t : T)",
            "(N < n)",
            "(N <= n)",
            "(N > n)",
            "(N >= n)",
            "(N == n)",
            "(N != n)",
            "(X == x)",
            "(X != x)",
            "(X < x)",
            "(T == t)",
            "(X).contains(x)",
            "(X).startsWith(x)",
            "(X).endsWith(x)",
            "(x in vm.tags)",
            "(X in ['db', \"a\"])",
        ]);
        let number = prop::sample::select(vec![
            "(N + n)",
            "(N - n)",
            "(N * n)",
            "(N / n)",
            "-(N)",
            "(t ? N : n)",
            "\u{1}size(X)\u{2}",
            "\u{1}(x).size()\u{2}",
        ]);
        let text = prop::sample::select(vec!["(T ? X : x)", "vm.tags[X]"]);
        (inner.clone(), inner, truth, number, text).prop_map(|(a, b, truth, number, text)| {
            let (truth, number, text) =
                (fill(truth, &a, &b), fill(number, &a, &b), fill(text, &a, &b));
            Texts { truth, number, text }
        })
    })
}

/// Puts expressions in the place of single letters that stand alone.
fn fill(form: &str, a: &Texts, b: &Texts) -> String {
    let letters: Vec<char> = form.chars().collect();
    let alone = |i: usize| {
        let word =
            |c: Option<&char>| c.is_some_and(|c| c.is_alphanumeric() || *c == '\'' || *c == '"');
        !word(i.checked_sub(1).and_then(|i| letters.get(i))) && !word(letters.get(i + 1))
    };
    let filled = letters.iter().enumerate().map(|(i, letter)| match letter {
        'T' if alone(i) => a.truth.clone(),
        't' if alone(i) => b.truth.clone(),
        'N' if alone(i) => a.number.clone(),
        'n' if alone(i) => b.number.clone(),
        'X' if alone(i) => a.text.clone(),
        'x' if alone(i) => b.text.clone(),
        other => other.to_string(),
    });
    filled.collect()
}

fn values() -> impl Strategy<Value = Known> {
    let number = prop_oneof![
        Just(0.0),
        Just(1.0),
        Just(2.5),
        Just(-0.0),
        -1e3..1e3,
        Just(f64::MAX),
        Just(5e-324)
    ];
    let text = || prop::sample::select(vec!["db", "db-1", "é", "", "a"]).prop_map(str::to_owned);
    let map = prop::collection::btree_map(
        prop::sample::select(vec!["team", "zone", "db"]).prop_map(str::to_owned),
        text(),
        0..3,
    );
    (
        prop::collection::vec(prop::option::weighted(0.8, number), 3),
        prop::collection::vec(prop::option::weighted(0.8, text()), 2),
        map,
        any::<bool>(),
        prop::collection::vec(text(), 0..3),
    )
        .prop_map(|(numbers, texts, map, hot, racks)| {
            let mut known = BTreeMap::from([
                ("vm.tags", Value::Map(map)),
                ("host.hot", Value::Truth(hot)),
                ("host.racks", Value::Texts(racks)),
                ("host.slots", Value::Numbers(vec![1.0, 2.5])),
            ]);
            for (name, number) in
                ["vm.cpu", "vm.memory_gib", "host.cpu_used"].into_iter().zip(numbers)
            {
                number.map(|number| known.insert(name, Value::Number(number)));
            }
            for (name, text) in ["vm.name", "host.zone"].into_iter().zip(texts) {
                text.map(|text| known.insert(name, Value::Text(text)));
            }
            Known(known)
        })
}

/// What `cel` itself makes of a text; none where it fails.
fn by_cel(text: &str, known: &Known) -> Option<bool> {
    let value = |value: &Value| match value.clone() {
        Value::Truth(truth) => cel::Value::Bool(truth),
        Value::Number(number) => cel::Value::Float(number),
        Value::Text(text) => cel::Value::String(Arc::new(text)),
        Value::Numbers(numbers) => cel::Value::from(numbers),
        Value::Texts(texts) => cel::Value::from(texts),
        Value::Map(map) => {
            let pairs =
                map.into_iter().map(|(key, text)| (key.into(), cel::Value::String(Arc::new(text))));
            cel::Value::Map(cel::objects::Map { map: Arc::new(pairs.collect()) })
        }
    };
    let mut context = cel::Context::default();
    for first in ["vm", "host"] {
        let here = known
            .0
            .iter()
            .filter_map(|(name, of)| Some((name.strip_prefix(first)?.strip_prefix('.')?, of)));
        let pairs = here.map(|(name, of)| (name.into(), value(of)));
        let map = cel::objects::Map { map: Arc::new(pairs.collect()) };
        context.add_variable_from_value(first, cel::Value::Map(map));
    }
    match cel::Program::compile(text).unwrap().execute(&context) {
        Ok(cel::Value::Bool(truth)) => Some(truth),
        Ok(other) => panic!("{text} gives {other:?}"),
        Err(_) => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_passes_the_check_never_meets_a_wrong_type_and_gives_what_cel_gives(texts in texts(), known in values()) {
        let ours = texts.ours();
        match truth(&ours) {
            Err(fault) => {
                // The grammar makes no other mistakes.
                let meant = ["exclude each other", "divides by zero", "from 0 to 1", "names no variable", "within each other", "bytes long"];
                prop_assert!(meant.iter().any(|meant| fault.wrong.contains(meant)), "{ours}\n{fault}");
            }
            Ok(expression) => {
                let value = expression.holds(&known);
                for (_, part) in expression.parts(&known) {
                    prop_assert!(!matches!(part, Ok(Value::Number(number)) if !number.is_finite()));
                }
                if let Ok(value) = value {
                    prop_assert_eq!(by_cel(&texts.cels(), &known), Some(value), "{}", texts.cels());
                }
                // What was understood is what was written.
                let again = truth(&expression.understood());
                prop_assert_eq!(again.map(|again| again.understood()), Ok(expression.understood()));
            }
        }
    }

    #[test]
    fn no_text_makes_the_check_panic_or_need_much_stack(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "(", ")", "[", "]", "{", "}", "!", "-", "+", "*", "/", "<", "==", "&&", "||", "?", ":", ",", ".", "\"", "'", "'''",
                "`", "\\", "\\q", "\\'", "\r", "rb'", "R\"", "BR'''", "\u{c}", "@", "~", "a", "vm.cpu", "host.hot", "1", "2.5", "1e", "0x", "u", "in", "has(", "size(", ".exists(x,", "true", "null",
                " ", "\n", "//", "é", "\u{0}", "\u{202e}", "%", "=", "vm.tags", "r'", "b\"", "..", ".5", ";", "#", "T{a:1}",
            ]),
            0..60,
        ),
        again in 1_usize..80,
    ) {
        let text = parts.concat().repeat(again);
        in_half_a_megabyte(text);
    }
}

/// Checks a text where there is no more stack; it may be right or wrong.
fn in_half_a_megabyte(text: String) {
    let check = move || {
        if let Ok(expression) = truth(&text) {
            let _ = (expression.value(&known()), expression.parts(&known()));
        }
    };
    thread::Builder::new().stack_size(512 * 1024).spawn(check).unwrap().join().unwrap();
}

#[test]
fn the_deepest_texts_need_little_stack() {
    let fill = |part: &str| part.repeat(4096 / part.len());
    for part in [
        "(", "[", "!", "-", "!-", "a?", "a?b:", "a+", "a<", "a.", "a[", "a||", "a&&", "f(", "{",
        "'", "\"\"\"", "a ", "+ ", ",", "a?(", "!(", "-(a+",
    ] {
        in_half_a_megabyte(fill(part));
        in_half_a_megabyte(format!("{}a", fill(part).split_at(3900).0));
    }
    for n in [24, 400] {
        in_half_a_megabyte(format!("{}vm.cpu{}", "(vm.cpu + ".repeat(n), ")".repeat(n)));
        in_half_a_megabyte(format!(
            "{}host.hot{}",
            "(host.hot ? host.hot : ".repeat(n),
            ")".repeat(n)
        ));
        in_half_a_megabyte(format!("{}host.hot", "host.hot ? host.hot : ".repeat(n / 3)));
        in_half_a_megabyte(format!("0 < {}", vec!["vm.cpu"; n].join("*")));
    }
}

/// What the parser would mend to calls within each other.
#[test]
fn what_lacks_values_between_brackets_needs_not_much_stack() {
    in_half_a_megabyte("has(&& !vm.tags-)".repeat(66));
}
