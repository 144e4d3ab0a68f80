//! What each text is answered with, and that what passes the check never meets a wrong type.

use expect_test::{Expect, expect};

use super::variables::{Unit, VARIABLES, named};
use super::*;

mod properties;

const ANY: &[Place] = &Place::ALL;

/// Of each type, whatever the real table has.
const TABLE: &[Variable] = &[
    of("vm.cpu", Type::Number, Unit::Cores),
    of("vm.memory_gib", Type::Number, Unit::Gib),
    of("vm.name", Type::Text, Unit::None),
    of("vm.tags", Type::Map, Unit::None),
    of("host.cpu_used", Type::Number, Unit::Share),
    of("host.zone", Type::Text, Unit::None),
    of("host.hot", Type::Truth, Unit::None),
    of("host.racks", Type::Texts, Unit::None),
    of("host.slots", Type::Numbers, Unit::None),
];

const fn of(name: &'static str, kind: Type, unit: Unit) -> Variable {
    Variable { name, kind, unit, meaning: "", places: ANY }
}

fn truth(text: &str) -> Result<Expression, Fault> {
    Expression::with(TABLE, Place::Accept, text)
}

/// What each line is answered with, with the column.
fn told(texts: &[&str], expected: &Expect) {
    let one = |text: &&str| match truth(text) {
        Ok(expression) => format!("{text}\n    is {}\n", expression.understood()),
        Err(fault) => format!("{text}\n    {}: {fault}\n", fault.at + 1),
    };
    expected.assert_eq(&texts.iter().map(one).collect::<String>());
}

fn known() -> Known {
    let map = |pairs: &[(&str, &str)]| {
        Value::Map(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    };
    Known(BTreeMap::from([
        ("vm.cpu", Value::Number(2.5)),
        ("vm.name", Value::Text("db-1".to_owned())),
        ("vm.tags", map(&[("team", "data")])),
        ("host.cpu_used", Value::Number(0.0)),
        ("host.hot", Value::Truth(true)),
        ("host.racks", Value::Texts(vec!["a".to_owned()])),
        ("host.slots", Value::Numbers(vec![1.0, 2.5])),
    ]))
}

/// It is shown to people, who may copy it.
#[test]
fn what_was_understood_can_be_read_again_and_is_the_same() {
    for text in [
        "vm.cpu < 18446744073709551616.0 || vm.cpu > -9.3e18",
        "vm.cpu in [1e300, 5e-324, 0.1, 9223372036854775807, 12345678901234567]",
        "vm.name == '\u{ad}\u{200b}\u{7f}\u{0}\\n\\t\\r\"\\\'\\\\é'",
        "vm.name in ['\u{2028}', 'b']",
        "-vm.cpu < -.0 || vm.cpu > -0.0 || vm.cpu < -0",
    ] {
        let understood = truth(text).unwrap().understood();
        let again = truth(&understood).map(|again| again.understood());
        assert_eq!(again, Ok(understood), "of {text:?}");
    }
    let values = [1e15, 1e16, -1e16, 9.2e18, f64::MAX, f64::MIN_POSITIVE, 0.1 + 0.2];
    for value in values {
        let shown = Value::Number(value).to_string();
        let read = truth(&format!("vm.cpu == {shown}")).unwrap();
        assert!(read.holds(&Known(BTreeMap::from([("vm.cpu", Value::Number(value))]))).unwrap());
    }
}

#[test]
fn what_is_right_is_understood() {
    told(
        &[
            "host.cpu_used > 0.8 && vm.cpu >= 4",
            "vm.name.startsWith('db-') || vm.tags.team == \"data\" // theirs",
            "'team' in vm.tags && has(vm.tags.zone) && vm.tags['zone'] != host.zone",
            "vm.cpu in [1, 2.5] || vm.name in ['a', r'\\b'] || vm.cpu in host.slots",
            "!host.hot ? vm.cpu * (2 + 1) - -3 / vm.cpu > 0x10 : size(vm.name) + vm.tags.size() < 1e3",
            "-(vm.cpu - (1 - 2)) < 0 == host.hot",
            "(((vm.name.contains('é'))))",
            "vm.cpu > 1 && vm.cpu < 3 && vm.cpu != 2 && vm.cpu >= 1",
            r#"vm.name in ["\n\\\"'\x41\101\u00e9\U0001f600\?", '''a'b''', r"a\d"]"#,
        ],
        &expect![[r#"
            host.cpu_used > 0.8 && vm.cpu >= 4
                is host.cpu_used > 0.8 && vm.cpu >= 4
            vm.name.startsWith('db-') || vm.tags.team == "data" // theirs
                is vm.name.startsWith("db-") || vm.tags["team"] == "data"
            'team' in vm.tags && has(vm.tags.zone) && vm.tags['zone'] != host.zone
                is "team" in vm.tags && "zone" in vm.tags && vm.tags["zone"] != host.zone
            vm.cpu in [1, 2.5] || vm.name in ['a', r'\b'] || vm.cpu in host.slots
                is vm.cpu in [1.0, 2.5] || vm.name in ["a", "\\b"] || vm.cpu in host.slots
            !host.hot ? vm.cpu * (2 + 1) - -3 / vm.cpu > 0x10 : size(vm.name) + vm.tags.size() < 1e3
                is !host.hot ? vm.cpu * (2 + 1) - -3 / vm.cpu > 16 : size(vm.name) + size(vm.tags) < 1000
            -(vm.cpu - (1 - 2)) < 0 == host.hot
                is (-(vm.cpu - (1 - 2)) < 0) == host.hot
            (((vm.name.contains('é'))))
                is vm.name.contains("é")
            vm.cpu > 1 && vm.cpu < 3 && vm.cpu != 2 && vm.cpu >= 1
                is vm.cpu > 1 && vm.cpu < 3 && vm.cpu != 2 && vm.cpu >= 1
            vm.name in ["\n\\\"'\x41\101\u00e9\U0001f600\?", '''a'b''', r"a\d"]
                is vm.name in ["\n\\\"'AAé😀?", "a'b", "a\\d"]
        "#]],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of mistakes")]
fn each_kind_of_mistake_is_told_with_its_place_and_a_hint() {
    told(
        &[
            // Nothing, or not the whole.
            "",
            "  // nothing",
            "vm.cpu >",
            "vm.cpu > 1 vm.cpu",
            "vm.cpu > > 1",
            "vm.name == \"db",
            "vm.name == 'db && true",
            "(vm.cpu > 1",
            "vm.cpu > 1)",
            "vm.cpu in [1)",
            "vm.cpu $ 1",
            "vm.cpu ∨ host.hot",
            "`vm.cpu` > 1",
            "vm.name == 'a\\d'",
            "vm.name == 'a\\u00'",
            "vm.name == 'a\nb'",
            "vm..cpu > 1",
            // Other languages' words.
            "vm.cpu = 1",
            "vm.cpu > 1 and host.hot",
            "not host.hot",
            "host.hot & true",
            "host.cpu_used > 80%",
            "vm.memory_gib > 4GiB",
            // Names.
            "vm.cpus > 1",
            "cpu_used > 0.5",
            "vm > 1",
            "cluster.x > 1",
            "vm.cpu.cores > 1",
            "startWith(vm.name, 'a')",
            "vm.name.matches('a')",
            "vm.name.startsWith()",
            "size(1)",
            "has(vm.cpu)",
            "has(vm)",
            // Types.
            "vm.cpu",
            "vm.cpu > '1'",
            "vm.name + 1 > 2",
            "vm.cpu && host.hot",
            "!vm.cpu",
            "-vm.name == 'a'",
            "host.hot > true",
            "vm.tags == vm.tags",
            "vm.name in vm.name",
            "1 in vm.tags",
            "vm.cpu in ['a']",
            "vm.cpu in [1, 'a']",
            "vm.cpu in [vm.cpu]",
            "vm.cpu in []",
            "host.hot in [true]",
            "vm.tags[0] == 'a'",
            "host.racks[0] == 'a'",
            "(host.hot ? 1 : 'a') == 1",
            "vm.cpu > 1u",
            "vm.name == b'a'",
            "vm.name == null",
            "vm.tags == {'a': 'b'}",
            "vm.cpu > 99999999999999999999",
            // Both sides.
            "true || vm.cpus > 1",
            "false && vm.name > 1",
            "host.hot ? true : vm.cpu",
            // Cost.
            "host.racks.exists(rack, rack == 'a')",
            "host.racks.all(rack, rack == 'a')",
            "host.racks.map(1)",
            // What can never be otherwise.
            "1 < 2",
            "host.cpu_used > 80",
            "-1 <= host.cpu_used",
            "vm.cpu > 5 && host.hot && vm.cpu < 3",
            "vm.cpu >= 5 && vm.cpu < 5",
            "vm.name == 'a' && 'b' == vm.name",
            "vm.cpu / 0 > 1",
        ],
        &expect![[r#"

                1: it is empty; leave the key out
              // nothing
                1: it is empty; leave the key out
            vm.cpu >
                9: it ends too soon; write what is to follow, or take the last sign away
            vm.cpu > 1 vm.cpu
                12: an operator is missing here; join conditions with && or ||, and put texts in quotes
            vm.cpu > > 1
                10: a value is missing here; write it
            vm.name == "db
                12: the quote " is not closed; write " where the text ends
            vm.name == 'db && true
                12: the quote ' is not closed; write ' where the text ends
            (vm.cpu > 1
                1: the bracket ( is not closed; write ) where it ends
            vm.cpu > 1)
                11: ) closes no bracket; take it away
            vm.cpu in [1)
                13: ) does not close the bracket [; write ]
            vm.cpu $ 1
                8: $ has no meaning here; texts are written in quotes
            vm.cpu ∨ host.hot
                8: ∨ has no meaning here; texts are written in quotes
            `vm.cpu` > 1
                1: ` has no meaning here; texts are written in quotes
            vm.name == 'a\d'
                14: \d stands for no letter; write \\ for a backslash, or r in front of the quote
            vm.name == 'a\u00'
                14: \u stands for no letter; write \\ for a backslash, or r in front of the quote
            vm.name == 'a
            b'
                12: the quote ' is not closed; write ' where the text ends
            vm..cpu > 1
                4: .. is not expected here; join conditions with && or ||, and put texts in quotes
            vm.cpu = 1
                8: one = compares nothing; write ==
            vm.cpu > 1 and host.hot
                12: and is no word here; write &&
            not host.hot
                1: not is no word here; write !
            host.hot & true
                10: one & joins nothing; write &&
            host.cpu_used > 80%
                19: % has no meaning here: shares go from 0 to 1; write 0.8 for 80 %
            vm.memory_gib > 4GiB
                17: 4GiB: figures carry no unit here, each variable has its own; write 4, or what it is in the variable's unit
            vm.cpus > 1
                1: unknown variable vm.cpus; did you mean "vm.cpu"?
            cpu_used > 0.5
                1: unknown variable cpu_used; did you mean "host.cpu_used"?
            vm > 1
                1: vm is no value by itself; write one of vm.cpu, vm.memory_gib, vm.name, vm.tags
            cluster.x > 1
                1: unknown variable cluster.x; known are vm.cpu, vm.memory_gib, vm.name, vm.tags, host.cpu_used, host.zone, host.hot, host.racks, host.slots
            vm.cpu.cores > 1
                1: vm.cpu is a number and has no part cores; known are vm.cpu, vm.memory_gib, vm.name, vm.tags, host.cpu_used, host.zone, host.hot, host.racks, host.slots
            startWith(vm.name, 'a')
                1: unknown function startWith; did you mean "startsWith"?
            vm.name.matches('a')
                16: unknown function matches; known are size, startsWith, endsWith, contains, has
            vm.name.startsWith()
                1: startsWith is given the wrong number of things; write TEXT.NAME(TEXT), as in vm.name.startsWith("db")
            size(1)
                6: size takes a text, but 1 is a number; texts are written in quotes
            has(vm.cpu)
                5: vm.cpu is no key of a map; has() takes one: has(vm.tags.KEY)
            has(vm)
                5: has() takes one key of a map; write has(vm.tags.KEY), or "KEY" in vm.tags
            vm.cpu
                1: it gives a number, but admission.accept must give true or false; compare it with something
            vm.cpu > '1'
                1: > compares vm.cpu (a number) with "1" (a text); numbers are written without quotes, texts in quotes
            vm.name + 1 > 2
                1: + takes a number, but vm.name is a text; numbers are written without quotes
            vm.cpu && host.hot
                1: && takes true or false, but vm.cpu is a number; compare it: … > 0
            !vm.cpu
                2: ! takes true or false, but vm.cpu is a number; compare it: … > 0
            -vm.name == 'a'
                2: - takes a number, but vm.name is a text; numbers are written without quotes
            host.hot > true
                1: > orders nothing that is true or false; write ==, or !
            vm.tags == vm.tags
                1: == does not compare a map; write ITEM in LIST
            vm.name in vm.name
                12: in takes a list or a map, but vm.name is a text; write ["a", "b"], or TEXT.contains(TEXT)
            1 in vm.tags
                1: in takes a text, but 1 is a number; texts are written in quotes
            vm.cpu in ['a']
                1: in takes a text, but vm.cpu is a number; texts are written in quotes
            vm.cpu in [1, 'a']
                15: "a" is a text, but the list begins with a number; write all of one kind
            vm.cpu in [vm.cpu]
                12: vm.cpu cannot stand in a list; compare it with ==
            vm.cpu in []
                11: an empty list holds nothing; write what is to be in it
            host.hot in [true]
                13: true or false cannot stand in a list; a list holds numbers or texts
            vm.tags[0] == 'a'
                9: […] takes a text, but 0 is a number; texts are written in quotes
            host.racks[0] == 'a'
                1: […] takes a map, but host.racks is a list of texts; look at the types in docs/policy.md
            (host.hot ? 1 : 'a') == 1
                13: ? gives 1 (a number) or "a" (a text); give the same kind either way
            vm.cpu > 1u
                10: 1u is a kind of number of its own; write 1
            vm.name == b'a'
                12: b"…" is no text; write it without the b
            vm.name == null
                12: null is no value here; what is not known makes the expression fail
            vm.tags == {'a': 'b'}
                12: { … } makes a map, which has no use here; compare keys one by one
            vm.cpu > 99999999999999999999
                10: the number is too large; write one that a float can hold
            true || vm.cpus > 1
                9: unknown variable vm.cpus; did you mean "vm.cpu"?
            false && vm.name > 1
                10: > compares vm.name (a text) with 1 (a number); numbers are written without quotes, texts in quotes
            host.hot ? true : vm.cpu
                12: ? gives true (true or false) or vm.cpu (a number); give the same kind either way
            host.racks.exists(rack, rack == 'a')
                18: all, exists, exists_one, map, filter walk through lists, and there is no limit to what they cost; say it with ==, in, && and ||
            host.racks.all(rack, rack == 'a')
                15: all, exists, exists_one, map, filter walk through lists, and there is no limit to what they cost; say it with ==, in, && and ||
            host.racks.map(1)
                15: all, exists, exists_one, map, filter walk through lists, and there is no limit to what they cost; say it with ==, in, && and ||
            1 < 2
                1: it names no variable, so it always says the same; leave the key out, or say what it depends on
            host.cpu_used > 80
                1: host.cpu_used is a share from 0 to 1 and is compared with 80; write 0.8 for 80 %
            -1 <= host.cpu_used
                2: host.cpu_used is a share from 0 to 1 and is compared with -1; write 0.8 for 80 %
            vm.cpu > 5 && host.hot && vm.cpu < 3
                1: it can never hold: vm.cpu > 5 and vm.cpu < 3 exclude each other; write || if one of them is enough
            vm.cpu >= 5 && vm.cpu < 5
                1: it can never hold: vm.cpu >= 5 and vm.cpu < 5 exclude each other; write || if one of them is enough
            vm.name == 'a' && 'b' == vm.name
                1: it can never hold: vm.name == "a" and "b" == vm.name exclude each other; write || if one of them is enough
            vm.cpu / 0 > 1
                1: it divides by zero; divide by something else
        "#]],
    );
}

#[test]
fn the_column_is_right_after_letters_of_several_bytes_and_on_later_lines() {
    let text = "vm.name == 'é' &&\n  vm.nam == 'é'";
    assert_eq!(&text[truth(text).unwrap_err().at..], "vm.nam == 'é'");
    let text = "vm.name == 'é' 'ü'";
    assert_eq!(&text[truth(text).unwrap_err().at..], "'ü'");
}

#[test]
fn a_variable_is_known_only_where_it_means_something() {
    let fault = Expression::new(Place::VmWhen, "answer.cost > 1").unwrap_err();
    assert!(fault.wrong.starts_with("answer.cost is not known in vm_policy.when"), "{fault}");
    Expression::new(Place::Reject, "answer.cost > 1").unwrap();
    let fault = Expression::new(Place::MigrateOrder, "answer.cost > 1").unwrap_err();
    assert!(fault.wrong.contains("gives true or false"), "{fault}");
}

#[test]
fn four_kibibytes_and_a_depth_of_24_are_the_limits() {
    let long = |len: usize| format!("vm.name == '{}'", "x".repeat(len - 13));
    truth(&long(4096)).unwrap();
    assert!(truth(&long(4097)).unwrap_err().wrong.contains("4097 bytes"));

    // A sum of n is n − 1 operations within each other, and holds its last number; the comparison holds the sum.
    let sum = |n: usize| format!("0 < {}", vec!["vm.cpu"; n].join(" + "));
    truth(&sum(23)).unwrap();
    let fault = truth(&sum(24)).unwrap_err();
    assert!(fault.wrong.contains("more than 24 operations within each other"), "{fault}");
    let brackets = |n: usize| format!("{}host.hot{}", "(".repeat(n), ")".repeat(n));
    truth(&brackets(24)).unwrap();
    assert_eq!(truth(&brackets(25)).unwrap_err().at, 24);
    // What `||` joins lies beside each other, however many there are.
    truth(&vec!["vm.cpu > 1"; 200].join(" || ")).unwrap();
}

#[test]
fn what_cannot_be_computed_fails_in_words() {
    let fails = |text: &str| truth(text).unwrap().holds(&known()).unwrap_err().0;
    assert_eq!(fails("1 / host.cpu_used > 2"), "1 / host.cpu_used divides by zero");
    assert_eq!(fails("vm.memory_gib > 2"), "vm.memory_gib is not known");
    assert_eq!(fails("vm.tags.zone == 'a'"), "vm.tags[\"zone\"] is not there");
    assert_eq!(fails("1e300 * 1e300 * vm.cpu > 1"), "1e300 * 1e300 is too large a number");
}

#[test]
fn a_side_that_decides_does_so_whatever_the_other_fails_of() {
    let holds = |text: &str| truth(text).unwrap().holds(&known());
    assert_eq!(holds("vm.memory_gib > 2 || host.hot"), Ok(true));
    assert_eq!(holds("host.hot || vm.memory_gib > 2"), Ok(true));
    assert_eq!(holds("vm.memory_gib > 2 && !host.hot"), Ok(false));
    assert!(holds("vm.memory_gib > 2 && host.hot").is_err());
    assert_eq!(holds("has(vm.tags.zone) && vm.tags.zone == 'a'"), Ok(false));
}

#[test]
fn it_says_the_figures_of_its_variables_and_what_each_part_gives() {
    let text = "vm.cpu * 2 > 5 && vm.name.startsWith('web') || vm.memory_gib > 1";
    let expression = truth(text).unwrap();
    assert_eq!(
        expression.figures(&known()),
        "vm.cpu 2.5, vm.memory_gib not known, vm.name \"db-1\""
    );
    let part = |(text, value): (String, Result<Value, Failure>)| match value {
        Ok(value) => format!("{text} = {value}\n"),
        Err(failure) => format!("{text}: {failure}\n"),
    };
    let parts: String = expression.parts(&known()).into_iter().map(part).collect();
    expect![[r#"
        vm.cpu * 2 > 5 && vm.name.startsWith("web") || vm.memory_gib > 1: vm.memory_gib is not known
        vm.cpu * 2 > 5 && vm.name.startsWith("web") = false
        vm.cpu * 2 > 5 = false
        vm.cpu * 2 = 5
        vm.cpu = 2.5
        vm.name.startsWith("web") = false
        vm.name = "db-1"
        vm.memory_gib > 1: vm.memory_gib is not known
        vm.memory_gib: vm.memory_gib is not known
    "#]]
    .assert_eq(&parts);
}

#[test]
fn ranks_are_ordered_as_numbers_are() {
    let numbers = [f64::MIN, -2.5, -1.0, -1e-300, 0.0, 1e-300, 0.5, 1.0, 3.0, f64::MAX];
    let ranks: Vec<Rank> = numbers.into_iter().map(Rank::of).collect();
    assert!(ranks.is_sorted() && ranks.windows(2).all(|two| two[0] != two[1]), "{ranks:?}");
    assert_eq!(Rank::of(-0.0), Rank::of(0.0));
    assert!(Rank::of(f64::MAX) < Rank::LAST);
}

#[test]
fn an_expression_is_written_down_as_its_text_and_read_again() {
    let expression = Expression::new(Place::Accept, "host.vms < 20").unwrap();
    let json = serde_json::to_string(&expression).unwrap();
    assert_eq!(json, r#"["admission.accept","host.vms < 20"]"#);
    assert_eq!(serde_json::from_str::<Expression>(&json).unwrap(), expression);
}

#[test]
fn every_variable_has_a_place_and_one_name() {
    for variable in VARIABLES {
        assert!(!variable.places.is_empty(), "{}", variable.name);
        assert_eq!(named(variable.name), Some(variable), "{}", variable.name);
        assert_eq!(variable.unit == Unit::None, variable.kind != Type::Number, "{}", variable.name);
    }
}
