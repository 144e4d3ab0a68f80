//! Which rules hold of which VM, and what they say of hosts.

use super::hours::LocalTimes;
use super::*;
use crate::policy::file;

const VM: VmId = VmId(1);

fn rules(text: &str) -> Rules {
    file::settings(text).unwrap().rules
}

fn tags(all: &[&str]) -> Vec<String> {
    all.iter().map(|tag| (*tag).to_owned()).collect()
}

fn of_tags(all: &[&str]) -> VmRules {
    Rules::default().of(VM, "web1", &tags(all))
}

fn names(all: &[&str]) -> BTreeSet<String> {
    tags(all).into_iter().collect()
}

#[test]
fn a_star_stands_for_any_text() {
    for (pattern, name, yes) in [
        ("web1", "web1", true),
        ("web1", "web10", false),
        ("web*", "web", true),
        ("web*", "web10", true),
        ("web*", "aweb", false),
        ("*-db", "a-db", true),
        ("a*b*c", "a-b-c", true),
        ("a*b*c", "a-c-b", false),
        // What the beginning took the end cannot have.
        ("ab*b", "ab", false),
        ("a*a", "a", false),
        ("*", "", true),
        ("", "x", false),
        ("a**b", "ab", true),
    ] {
        assert_eq!(covers(pattern, name), yes, "{pattern} {name}");
    }
}

#[test]
fn a_vm_has_the_rules_of_all_tables_that_name_it() {
    let rules = rules(
        r#"
        [[rules.group]]
        name = "web"
        kind = "anti-affinity"
        vms  = ["web*"]
        [[rules.group]]
        name = "shop"
        kind = "affinity"
        vms  = ["web1", "db1"]
        [[rules.pin]]
        vms    = ["web1"]
        labels = ["rack-a"]
        [[rules.pin]]
        vms    = ["00000000-0000-0000-0000-000000000001"]
        hosts  = ["host2"]
        should = true
        [[rules.exclude]]
        vms   = ["web1"]
        until = "2026-12-24T00:00Z"
        [[rules.vm]]
        vms      = ["*"]
        priority = 3
        downtime = "50ms"
        auto_converge = true
        copy_disks = true
        [[rules.vm]]
        vms      = ["web1"]
        priority = 5
        auto_converge = false
        copy_disks = false
        rest     = "1h"
        hours    = "Sun 00:00-24:00 UTC"
        "#,
    );
    let all = rules.of(VM, "web1", &[]);
    let place =
        |hosts: &[&str], labels: &[&str]| Places { hosts: names(hosts), labels: names(labels) };
    assert_eq!(
        all,
        VmRules {
            affinity: names(&["shop"]),
            anti_affinity: names(&["web"]),
            must: vec![place(&[], &["rack-a"])],
            should: vec![place(&["host2"], &[])],
            excluded: vec![Excluded::Until(Until::parse("2026-12-24").unwrap())],
            priority: 5,
            downtime: Some(Duration::from_millis(50)),
            auto_converge: false,
            copy_disks: false,
            rest: Some(Duration::from_hours(1)),
            hours: vec![Hours::parse("Sun 00:00-24:00 UTC").unwrap()],
            ..VmRules::default()
        }
    );
    let other = rules.of(VmId(2), "web2", &[]);
    assert_eq!((&other.anti_affinity, &other.affinity), (&all.anti_affinity, &names(&[])));
    assert_eq!((other.must, other.should, other.excluded), (Vec::new(), Vec::new(), Vec::new()));
    assert_eq!(
        rules.of(VmId(2), "mail", &[]),
        VmRules {
            priority: 3,
            downtime: all.downtime,
            auto_converge: true,
            copy_disks: true,
            ..VmRules::default()
        }
    );
}

#[test]
fn of_several_modes_of_a_vm_the_last_counts_and_the_file_before_its_tags() {
    let rules = rules(
        r#"
        [[rules.vm]]
        vms     = ["*"]
        balance = "automatic"
        rules   = "recommend"
        [[rules.vm]]
        vms     = ["web1"]
        balance = "off"
        "#,
    );
    let own = tags(&["evenkeel:balance=recommend", "evenkeel:rules=off"]);
    let all = rules.of(VM, "web1", &own);
    assert_eq!((all.balance, all.rules), (Some(Balance::Off), Some(Balance::Recommend)));
    let all = Rules::default().of(VM, "web1", &own);
    assert_eq!((all.balance, all.rules), (Some(Balance::Recommend), Some(Balance::Off)));
}

#[test]
fn the_words_of_proxlb_are_understood() {
    let all = of_tags(&[
        "plb_affinity_shop",
        "plb_anti_affinity_web",
        "plb_pin_host1",
        "plb_pin_host2",
        "plb_other",
        "production",
    ]);
    assert_eq!((all.affinity, all.anti_affinity), (names(&["shop"]), names(&["web"])));
    assert_eq!(all.must, [Places { hosts: names(&["host1", "host2"]), labels: names(&[]) }]);
    assert_eq!((all.should, all.excluded), (Vec::new(), Vec::new()));
    assert_eq!(of_tags(&["plb_ignore_vm"]).excluded, [Excluded::Always]);
    assert_eq!(
        of_tags(&["plb_pin_", "plb_affinity_", "plb_ignored", "xplb_pin_a"]),
        VmRules::default()
    );
}

#[test]
fn our_own_words_are_understood_and_those_that_cannot_be_read_are_told() {
    let all = of_tags(&[
        "evenkeel:affinity=shop",
        "evenkeel:anti-affinity=web",
        "evenkeel:pin=host1",
        "evenkeel:pin-label=rack-a",
        "evenkeel:prefer=host1",
        "evenkeel:prefer-label=fast",
        "evenkeel:exclude=2026-12-24T00:00Z",
        "evenkeel:priority=-4",
        "evenkeel:downtime=200ms",
        "evenkeel:auto-converge=yes",
        "evenkeel:copy-disks=yes",
        "evenkeel:rest=2d",
        "evenkeel:hours=22:00-05:00 UTC",
        "evenkeel:balance=recommend",
        "evenkeel:rules=automatic",
    ]);
    assert_eq!((all.affinity, all.anti_affinity), (names(&["shop"]), names(&["web"])));
    assert_eq!(all.must, [Places { hosts: names(&["host1"]), labels: names(&["rack-a"]) }]);
    assert_eq!(all.should, [Places { hosts: names(&["host1"]), labels: names(&["fast"]) }]);
    assert_eq!(all.excluded, [Excluded::Until(Until::parse("2026-12-24").unwrap())]);
    assert_eq!((all.priority, all.downtime), (-4, Some(Duration::from_millis(200))));
    assert!(all.copy_disks && !of_tags(&["evenkeel:copy-disks=no"]).copy_disks);
    assert!(all.auto_converge && !of_tags(&["evenkeel:auto-converge=no"]).auto_converge);
    assert_eq!((all.rest, all.hours.len()), (Some(Duration::from_hours(48)), 1));
    assert_eq!((all.balance, all.rules), (Some(Balance::Recommend), Some(Balance::Automatic)));
    let bad = tags(&[
        "evenkeel:priorty=1",
        "evenkeel:pin=",
        "evenkeel:auto-converge",
        "evenkeel:auto-converge=maybe",
        "evenkeel:priority=500",
        "evenkeel:hours=night",
        "evenkeel:balance=manual",
        "plb_x",
        "x",
    ]);
    let told = unreadable(&bad);
    assert_eq!(told.len(), 7, "{told:?}");
    assert_eq!(told[0], "tag \"evenkeel:priorty=1\": this word is not known");
    assert_eq!(told[1], "tag \"evenkeel:pin=\": write it as evenkeel:pin=NAME");
    assert_eq!(told[2], "tag \"evenkeel:auto-converge\": write it as evenkeel:auto-converge=yes");
    assert_eq!(told[3], "tag \"evenkeel:auto-converge=maybe\": it takes yes or no");
    assert_eq!(told[6], "tag \"evenkeel:balance=manual\": it takes off, recommend or automatic");
    assert_eq!(Rules::default().of(VM, "web1", &bad), VmRules::default());
}

#[test]
fn a_pin_allows_its_hosts_and_those_with_its_labels() {
    let all = of_tags(&["evenkeel:pin=host1", "evenkeel:pin-label=rack-a"]);
    let labels = tags(&["pool-1", "rack-a"]);
    let at = |name, labels| all.allows(HostIs { name, labels });
    assert_eq!(at("host1", Some(&[])), Ok(()));
    assert_eq!(at("host9", Some(&labels)), Ok(()));
    assert_eq!(
        at("host9", Some(&[])),
        Err("pin: it may be at host1, hosts with label rack-a only".to_owned())
    );
    // Only that host itself knows.
    assert_eq!(at("host9", None), Ok(()));
    let by_name = of_tags(&["plb_pin_host1"]);
    assert!(by_name.allows(HostIs { name: "host9", labels: None }).is_err());
}

#[test]
fn an_exclusion_ends_at_its_time_and_not_while_the_time_is_unknown() {
    let at = |unix| LocalTimes { unix, ..LocalTimes::default() };
    let all = of_tags(&["evenkeel:exclude=1970-01-02"]);
    let why = Err("exclude: it is left where it is until 1970-01-02T00:00Z".to_owned());
    assert_eq!(all.may_leave(None), why);
    assert_eq!(all.may_leave(Some(&at(86_399))), why);
    assert_eq!(all.may_leave(Some(&at(86_400))), Ok(()));
    assert!(of_tags(&["plb_ignore_me"]).may_leave(Some(&at(u64::MAX))).is_err());
}

#[test]
fn hosts_agree_by_groups_and_pins_alone() {
    let hash = |text: &str| file::settings(text).unwrap().hash();
    let group = "[[rules.group]]\nname = \"web\"\nkind = \"affinity\"\nvms = [\"a\", \"b\"]\n";
    let pin = "[[rules.pin]]\nvms = [\"a\"]\nhosts = [\"host1\"]\n";
    let all = [
        "",
        group,
        &group.replace("affinity", "anti-affinity"),
        &group.replace("\"a\"", "\"c\""),
        pin,
        &pin.replace("hosts", "labels"),
        &format!("{group}{pin}"),
    ];
    let hashes: BTreeSet<u64> = all.iter().map(|text| hash(text)).collect();
    assert_eq!(hashes.len(), all.len());
    for own in [
        "[[rules.exclude]]\nvms = [\"a\"]\n",
        "[[rules.vm]]\nvms = [\"a\"]\npriority = 1\n",
        &format!("{pin}should = true\n"),
    ] {
        assert_eq!(hash(own), hash(""), "{own}");
    }
}

fn contradictions_in(text: &str) -> Vec<String> {
    contradictions::contradictions(text, &rules(text)).iter().map(ToString::to_string).collect()
}

fn apart(vms: &str) -> String {
    format!("[[rules.group]]\nname = \"web\"\nkind = \"anti-affinity\"\nvms = {vms}\n")
}

fn pin(vms: &str, hosts: &str) -> String {
    format!("[[rules.pin]]\nvms = {vms}\nhosts = {hosts}\n")
}

#[test]
fn a_group_apart_that_is_pinned_together_is_found_with_its_line() {
    let text = format!(
        "[mode]\nbalance = \"off\"\n{}{}",
        pin(r#"["web1", "web2"]"#, r#"["host1"]"#),
        apart(r#"["web*"]"#)
    );
    assert_eq!(
        contradictions_in(&text),
        [
            "line 6, column 1, key rules.group: anti-affinity group web: no two may share a host, but the pins of web1, web2 leave too few (host1): web2 has none; pin them to more hosts, or take one out of the group"
        ]
    );
    let text = format!("{}{}", apart(r#"["web*"]"#), pin(r#"["we*"]"#, r#"["host1"]"#));
    assert_eq!(
        contradictions_in(&text),
        [
            "line 1, column 1, key rules.group: anti-affinity group web: no two may share a host, but all of web* are pinned to host1; pin them to more hosts, or take one out of the group"
        ]
    );
}

#[test]
fn a_group_larger_than_its_hosts_is_found_though_no_two_pins_are_alike() {
    let vms = r#"["a", "b", "c"]"#;
    let pins = |c: &str| {
        [pin(r#"["a"]"#, r#"["h1", "h2"]"#), pin(r#"["b"]"#, r#"["h2", "h1"]"#), pin(r#"["c"]"#, c)]
            .concat()
    };
    assert_eq!(contradictions_in(&format!("{}{}", apart(vms), pins(r#"["h1"]"#))).len(), 1);
    // The first takes h1 and must give way for c.
    assert_eq!(contradictions_in(&format!("{}{}", apart(vms), pins(r#"["h1", "h3"]"#))), [""; 0]);
    assert_eq!(
        contradictions_in(&format!("{}{}", apart(r#"["a", "b"]"#), pins(r#"["h1"]"#))),
        [""; 0]
    );
}

#[test]
fn vms_that_are_to_be_together_and_apart_are_found() {
    let together =
        "[[rules.group]]\nname = \"shop\"\nkind = \"affinity\"\nvms = [\"web1\", \"web2\"]\n";
    let found = contradictions_in(&format!("{together}{}", apart(r#"["web*"]"#)));
    assert_eq!(
        found,
        [
            "line 5, column 1, key rules.group: web1 and web2: the anti-affinity group web keeps them apart, the affinity group shop together; take them out of one of the two"
        ]
    );
    assert_eq!(contradictions_in(&format!("{together}{}", apart(r#"["web2", "web3"]"#))), [""; 0]);
}

#[test]
fn pins_to_nowhere_are_found() {
    let found = contradictions_in("[[rules.pin]]\nvms = [\"a\"]\n");
    assert_eq!(
        found,
        [
            "line 1, column 1, key rules.pin: a pin to no host at all; name hosts = [\"host1\"] or labels = [\"rack-a\"], or take the pin out"
        ]
    );
    let two = format!("{}{}", pin(r#"["a*"]"#, r#"["h1"]"#), pin(r#"["a1"]"#, r#"["h2"]"#));
    assert_eq!(
        contradictions_in(&two),
        [
            "line 4, column 1, key rules.pin: a1 is pinned to h2 here, and to h1 by another pin: it may be nowhere; pin it once, to all hosts that it may be at"
        ]
    );
    let preferred = format!("{two}should = true\n");
    assert_eq!(contradictions_in(&preferred), [""; 0]);
}
