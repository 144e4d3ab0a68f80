//! What is told of a policy and of the cases beside it.

use decide::policy::file::Mistake;
use expect_test::expect;

use super::*;

const POLICY: &str = r#"
[host]
address = "198.18.0.1"
[vm_policy]
when = "host.vms > 40 && host.cpu_pressure > 0.1 || host.drops / host.vms > 10"
[migration_policy]
order = "answer.cost + answer.vms"
"#;

fn read_ok() -> Settings {
    read(POLICY).unwrap()
}

fn refused(text: &str) -> String {
    cases(text, &read_ok()).unwrap_err().to_string()
}

#[test]
fn what_was_understood_is_told_with_the_hash() {
    let settings = read_ok();
    expect![[r#"
        vm_policy.when = host.vms > 40 && host.cpu_pressure > 0.1 || host.drops / host.vms > 10
        migration_policy.order = answer.cost + answer.vms
        hash in requests: HASH
    "#]]
    .assert_eq(&understood(&settings).replace(&format!("{:016x}", settings.hash()), "HASH"));
}

#[test]
fn what_excludes_each_other_is_a_mistake() {
    let told = |text: &str| read(text).map_err(|mistake: Mistake| mistake.to_string()).unwrap_err();
    let all = [
        told("[vm_policy]\nfor = \"2min\"\n"),
        told("[hot]\ncpu_used = \"60%\"\n[target]\ncpu_used_max = \"65%\"\n"),
        told("hot.memory_used = \"85%\""),
        told("[vm_polcy]\nfor = \"2min\"\n"),
    ];
    expect![[r#"
        line 2, column 1, key vm_policy.for: it says for how long vm_policy.when must hold, which is not set; set that too, or leave this out
        line 4, column 1, key target.cpu_used_max: 65 % is not below hot.cpu_used, 60 %: a host that takes a VM would be hot itself; lower it, or raise the other
        line 1, column 1, key target.memory_used_max: 85 % is not below hot.memory_used, 85 %: a host that takes a VM would be hot itself; lower it, or raise the other
        line 1, column 2, key vm_polcy: unknown key "vm_polcy"; did you mean "vm_policy"?"#]].assert_eq(&all.join("\n"));
}

#[test]
fn a_case_that_does_not_hold_is_told_with_what_each_part_gives() {
    let text = r#"
[[case]]
name = "a full host that waits is hot"
of = "vm_policy.when"
given = { host.vms = 41, host.cpu_pressure = 0.2 }
expect = true
[[case]]
name = "a full host is hot"
of = "vm_policy.when"
given = { host.vms = 41, host.cpu_pressure = 0.05, host.drops = 41 }
expect = true
[[case]]
name = "an empty host"
of = "vm_policy.when"
given.host.vms = 0
given.host.drops = 0.0
expect = "fails"
[[case]]
name = "cost and VMs count"
of = "migration_policy.order"
given.answer = { cost = 12.5, vms = 7 }
expect = 19.5
[[case]]
name = "cost alone"
of = "migration_policy.order"
given.answer = { cost = 12.5 }
expect = 12.5
"#;
    let Cases { count, failed } = cases(text, &read_ok()).unwrap();
    let told: Vec<String> = failed.iter().map(|f| format!("{}\n{}", f.name, f.words)).collect();
    assert_eq!(count, 5);
    expect![[r#"
        a full host is hot
        vm_policy.when: expected true, got false
            host.vms > 40 && host.cpu_pressure > 0.1 || host.drops / host.vms > 10 = false
            host.vms > 40 && host.cpu_pressure > 0.1 = false
            host.vms > 40 = true
            host.vms = 41
            host.cpu_pressure > 0.1 = false
            host.cpu_pressure = 0.05
            host.drops / host.vms > 10 = false
            host.drops / host.vms = 1
            host.drops = 41
            host.vms = 41
        cost alone
        migration_policy.order: expected 12.5, got fails: answer.vms is not known
            answer.cost + answer.vms fails: answer.vms is not known
            answer.cost = 12.5
            answer.vms fails: answer.vms is not known
    "#]]
    .assert_eq(&told.concat());
}

#[test]
fn a_mistake_in_a_case_is_told_with_its_place() {
    let case = |of: &str, given: &str, expect: &str| {
        refused(&format!(
            "# cases\n[[case]]\nname = 'c'\nof = '{of}'\ngiven = {{ {given} }}\nexpect = {expect}\n"
        ))
    };
    let all = [
        case("vm_policy.wen", "", "true"),
        case("admission.accept", "", "true"),
        case("vm_policy.when", "host.vmss = 5", "true"),
        case("vm_policy.when", "answer.vms = 5", "true"),
        case("vm_policy.when", "host.vms = 'many'", "true"),
        case("vm_policy.when", "host.cpu_pressure = 80", "true"),
        case("vm_policy.when", "host.vms = 5", "5"),
        refused("[[case]]\nname = 'c'\nexpect = true\n"),
        refused("[[case]]\nname = 'c'\nof = 'a'\nexpects = true\n"),
    ];
    expect![[r#"
        line 2, column 1, key case.of: case "c": "vm_policy.wen" is no expression; write one of vm_policy.when, vm_policy.order, admission.accept, migration_policy.order, migration_policy.reject
        line 2, column 1, key case.of: case "c": admission.accept is not set in the policy
        line 2, column 1, key case.given: case "c": no variable host.vmss in vm_policy.when; did you mean "host.vms"?
        line 2, column 1, key case.given: case "c": no variable answer.vms in vm_policy.when; known are host.name, host.cpu_used, host.cpu_pressure, host.memory_used, host.memory_committed, host.nic_used, host.packets, host.bits, host.drops, host.vms, cluster.hosts, cluster.alive, cluster.mean_cpu_used, cluster.mean_memory_committed
        line 2, column 1, key case.given: case "c": host.vms is a number, not a text
        line 2, column 1, key case.given: case "c": host.cpu_pressure is a number from 0 to 1; write 0.8 for 80 %
        line 2, column 1, key case.expect: case "c": 5 is expected, but vm_policy.when gives true or false; write that, or "fails"
        line 1, column 1, key case: missing field "of"; add it
        line 4, column 1: unknown key "expects"; did you mean "expect"?"#]].assert_eq(&all.join("\n"));
}
