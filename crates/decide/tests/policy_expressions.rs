//! Expressions in the settings file: where a mistake in one is told, who must have the same, and what the guide says of them.

use decide::policy::expression::variables::markdown;
use decide::policy::file;
use decide::policy::settings::Settings;
use expect_test::{Expect, expect, expect_file};

fn refused(text: &str, expected: &Expect) {
    expected.assert_eq(&file::settings(text).expect_err("it is wrong").to_string());
}

#[test]
fn every_key_is_taken() {
    let settings = file::settings(
        r#"
vm_policy = { when = "host.vms > 20", for = "30s", order = "vm.packets" }
admission.accept = 'vm.memory_gib <= 64 && !vm.name.startsWith("db")'
[migration_policy]
order = '''
  answer.cost                              // mostly
  + (answer.host == "old" ? 50 : 0)
'''
reject = "answer.vms >= 30"
"#,
    )
    .unwrap();
    expect![[r#"
        (
            VmPolicy {
                when: Some(
                    vm_policy.when = "host.vms > 20",
                ),
                window: Some(
                    30s,
                ),
                order: Some(
                    vm_policy.order = "vm.packets",
                ),
            },
            Admission {
                accept: Some(
                    admission.accept = "vm.memory_gib <= 64 && !vm.name.startsWith(\"db\")",
                ),
            },
            MigrationPolicy {
                order: Some(
                    migration_policy.order = "  answer.cost                              // mostly\n  + (answer.host == \"old\" ? 50 : 0)\n",
                ),
                reject: Some(
                    migration_policy.reject = "answer.vms >= 30",
                ),
            },
        )
    "#]]
    .assert_debug_eq(&(settings.vm_policy, settings.admission, settings.migration_policy));
}

#[test]
fn a_mistake_is_told_by_its_place_in_the_file() {
    refused(
        "[vm_policy]\nwhen = \"host.cpu_usd > 0.8\"\n",
        &expect![[
            r#"line 2, column 9, key vm_policy.when: unknown variable host.cpu_usd; did you mean "host.cpu_used"?"#
        ]],
    );
    refused(
        "[admission]\naccept = 'host.vms < 5 && vm.name > 2'\n",
        &expect![
            "line 2, column 27, key admission.accept: > compares vm.name (a text) with 2 (a number); numbers are written without quotes, texts in quotes"
        ],
    );
    refused(
        "# é\n[migration_policy]\nreject = '''\nanswer.cost > 5\n  || answer.hots'''\n",
        &expect![[
            r#"line 5, column 6, key migration_policy.reject: unknown variable answer.hots; did you mean "answer.bits"?"#
        ]],
    );
    refused(
        "[migration_policy]\r\norder = \"\"\"answer.cost\r\n  + answer.hots\"\"\"\r\n",
        &expect![[
            r#"line 3, column 5, key migration_policy.order: unknown variable answer.hots; did you mean "answer.bits"?"#
        ]],
    );
    refused(
        "migration_policy = { reject = 'answer.cost > 50', order = 'answer.cost > 5' }\n",
        &expect![
            "line 1, column 60, key migration_policy.order: it gives true or false, but migration_policy.order must give a number; write what is to be ordered by, or `CONDITION ? 1 : 0`"
        ],
    );
    // Behind an escape the place within the text is not the one in the file.
    refused(
        "[admission]\naccept = \"vm.name == \\\"a\\\" && vm.nam == 'a'\"\n",
        &expect![[
            r#"line 2, column 10, key admission.accept: unknown variable vm.nam; did you mean "vm.name"?"#
        ]],
    );
    refused(
        "[vm_policy]\nwhen = 5\n",
        &expect![[
            r#"line 2, column 8, key vm_policy.when: invalid type: integer "5", expected a string"#
        ]],
    );
    refused(
        "[vm_policy]\nwhen = \"host.vms > 5\n",
        &expect![[
            r#"line 2, column 21: invalid basic string; end the text with the quote that it began with: "…""#
        ]],
    );
    refused(
        "[vm_policy]\nwhen = \"host.name == 'a\"\n",
        &expect![
            "line 2, column 22, key vm_policy.when: the quote ' is not closed; write ' where the text ends"
        ],
    );
    refused(
        "[vm_policy]\nwhen = \"\"\n",
        &expect!["line 2, column 8, key vm_policy.when: it is empty; leave the key out"],
    );
    refused(
        "[vm_policy]\nwen = \"host.vms > 5\"\n",
        &expect![[
            r#"line 2, column 1, key vm_policy.wen: unknown key "wen"; did you mean "when"?"#
        ]],
    );
}

#[test]
fn hosts_must_share_what_makes_vms_leave_and_where_they_go_but_not_whom_they_take() {
    let of = |text: &str| file::settings(text).unwrap().hash();
    let bare = Settings::default().hash();
    assert_eq!(of("admission.accept = 'host.vms < 5'"), bare);
    let others = [
        "vm_policy.when = 'host.vms > 5'",
        "vm_policy.when = 'host.vms > 6'",
        "vm_policy.for = '1min'",
        "vm_policy.order = 'vm.cpu'",
        "migration_policy.order = 'answer.vms'",
        "migration_policy.reject = 'answer.vms > 5'",
    ];
    let hashes: std::collections::BTreeSet<u64> =
        others.iter().map(|text| of(text)).chain([bare]).collect();
    assert_eq!(hashes.len(), others.len() + 1);
}

const BEGINS: &str = "--test policy_expressions`. -->\n";
const ENDS: &str = "<!-- The table ends. -->";

#[test]
fn the_guide_has_the_table_of_variables() {
    let guide = include_str!("../../../docs/policy.md");
    let (before, rest) = guide.split_once(BEGINS).unwrap();
    let (_, after) = rest.split_once(ENDS).unwrap();
    let expected = format!("{before}{BEGINS}\n{}\n{ENDS}{after}", markdown());
    expect_file!["../../../docs/policy.md"].assert_eq(&expected);
}

#[test]
fn the_guides_examples_are_right() {
    let guide = include_str!("../../../docs/policy.md");
    let mut examples =
        guide.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let settings = file::settings(examples.next().expect("it has one")).unwrap();
    assert_eq!(settings.expressions().count(), 5);
    examples.for_each(|example| assert!(file::settings(example).is_ok(), "{example}"));
}
