//! Rules that cannot all be kept, as far as the file alone shows it, each told where it stands.
//!
//! Which VMs and hosts there are is not known here. So only VMs that are named are looked at, and hosts that a pin names; of a
//! pattern (`web*`) it is known only that it stands for several VMs if it stands for a name or is no name itself.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::{DeTable, DeValue};

use super::{Group, Kind, Pin, Rules, covers};
use crate::policy::file::{Mistake, position};

/// Which table of `[rules]`: its kind, and which of them from zero.
type Where = (&'static str, usize);

/// What cannot be kept in the rules of this file, in the order of the file's tables.
pub fn contradictions(text: &str, rules: &Rules) -> Vec<Mistake> {
    let mut found = Vec::new();
    empty(rules, &mut found);
    nowhere(rules, &mut found);
    crowded(rules, &mut found);
    both(rules, &mut found);
    found.sort_by_key(|(at, ..)| *at);
    found.into_iter().map(|(at, wrong, instead)| told(text, at, wrong, &instead)).collect()
}

type Found = Vec<(Where, String, String)>;

fn told(text: &str, (kind, n): Where, wrong: String, instead: &str) -> Mistake {
    let (line, column) = position(text, start_of(text, kind, n).unwrap_or(0));
    let key = Some(format!("rules.{kind}"));
    Mistake { line, column, key, wrong, instead: Some(instead.to_owned()) }
}

/// The first byte of that table.
fn start_of(text: &str, kind: &str, n: usize) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let rules = document.get_ref().get("rules")?;
    let DeValue::Table(rules) = rules.get_ref() else { return None };
    let DeValue::Array(tables) = rules.get(kind)?.get_ref() else { return None };
    Some(tables.get(n)?.span().start)
}

/// Tables that say nothing.
fn empty(rules: &Rules, found: &mut Found) {
    let vms = "name the VMs: vms = [\"web1\", \"db*\"]";
    for (n, pin) in rules.pin.iter().enumerate() {
        if pin.hosts.is_empty() && pin.labels.is_empty() {
            let instead = "name hosts = [\"host1\"] or labels = [\"rack-a\"], or take the pin out";
            found.push((("pin", n), "a pin to no host at all".to_owned(), instead.to_owned()));
        }
        if pin.vms.is_empty() {
            found.push((("pin", n), "a pin of no VM".to_owned(), vms.to_owned()));
        }
    }
    for (n, group) in rules.group.iter().enumerate() {
        if group.vms.is_empty() {
            let wrong = format!("group {} has no VM", group.name);
            found.push((("group", n), wrong, vms.to_owned()));
        }
    }
    for (n, exclude) in rules.exclude.iter().enumerate() {
        if exclude.vms.is_empty() {
            found.push((("exclude", n), "it excludes no VM".to_owned(), vms.to_owned()));
        }
    }
}

/// Two pins of one VM that have no host in common.
fn nowhere(rules: &Rules, found: &mut Found) {
    for (n, pin) in rules.pin.iter().enumerate().filter(|(_, pin)| by_hosts(pin)) {
        let earlier = rules.pin[..n].iter().filter(|other| by_hosts(other));
        for other in
            earlier.filter(|other| !pin.hosts.iter().any(|host| other.hosts.contains(host)))
        {
            if let Some(vm) = in_both(&pin.vms, &other.vms) {
                let (here, there) = (pin.hosts.join(", "), other.hosts.join(", "));
                let wrong = format!(
                    "{vm} is pinned to {here} here, and to {there} by another pin: it may be nowhere"
                );
                found.push((
                    ("pin", n),
                    wrong,
                    "pin it once, to all hosts that it may be at".to_owned(),
                ));
            }
        }
    }
}

/// Pins that leave an anti-affinity group fewer hosts than it has VMs.
fn crowded(rules: &Rules, found: &mut Found) {
    for (n, group) in rules.group.iter().enumerate().filter(|(_, g)| g.kind == Kind::AntiAffinity) {
        let instead = "pin them to more hosts, or take one out of the group".to_owned();
        let whole =
            rules.pin.iter().filter(|pin| by_hosts(pin) && pin.hosts.len() == 1).find_map(|pin| {
                group
                    .vms
                    .iter()
                    .find(|vms| vms.contains('*') && pin.vms.iter().any(|p| covers(p, vms)))
                    .zip(pin.hosts.first())
            });
        if let Some((vms, host)) = whole {
            let wrong = format!(
                "anti-affinity group {}: no two may share a host, but all of {vms} are pinned to {host}",
                group.name
            );
            found.push((("group", n), wrong, instead));
            continue;
        }
        let allowed = allowed(rules, group);
        if let Some(vm) = without_host(&allowed) {
            let hosts: BTreeSet<&str> = allowed.values().flatten().copied().collect();
            let hosts: Vec<&str> = hosts.into_iter().collect();
            let vms: Vec<&str> = allowed.keys().copied().collect();
            let wrong = format!(
                "anti-affinity group {}: no two may share a host, but the pins of {} leave too few ({}): {vm} has none",
                group.name,
                vms.join(", "),
                hosts.join(", ")
            );
            found.push((("group", n), wrong, instead));
        }
    }
}

/// The pinned VMs of a group that are known by name, and the hosts that their pins leave them.
fn allowed<'a>(rules: &'a Rules, group: &Group) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let members = named(rules).into_iter().filter(|vm| group.vms.iter().any(|p| covers(p, vm)));
    let of = |vm: &'a str| {
        let pins =
            rules.pin.iter().filter(|pin| by_hosts(pin) && pin.vms.iter().any(|p| covers(p, vm)));
        let hosts =
            pins.map(|pin| pin.hosts.iter().map(String::as_str).collect::<BTreeSet<&str>>());
        hosts.reduce(|a, b| a.intersection(&b).copied().collect()).map(|hosts| (vm, hosts))
    };
    members.filter_map(of).collect()
}

/// All VMs that some rule names.
fn named(rules: &Rules) -> BTreeSet<&str> {
    let groups = rules.group.iter().flat_map(|group| &group.vms);
    let all = groups.chain(rules.pin.iter().flat_map(|pin| &pin.vms));
    all.map(String::as_str).filter(|name| !name.contains('*')).collect()
}

/// A VM that is left over when as many as possible have a host of their own (augmenting paths, Kuhn 1955).
fn without_host<'a>(allowed: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Option<&'a str> {
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    allowed.keys().copied().find(|vm| !seat(vm, allowed, &mut taken, &mut BTreeSet::new()))
}

fn seat<'a>(
    vm: &'a str,
    allowed: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    taken: &mut BTreeMap<&'a str, &'a str>,
    tried: &mut BTreeSet<&'a str>,
) -> bool {
    for host in &allowed[vm] {
        if !tried.insert(host) {
            continue;
        }
        let sits = taken.get(host).copied();
        if sits.is_none_or(|other| seat(other, allowed, taken, tried)) {
            taken.insert(host, vm);
            return true;
        }
    }
    false
}

/// VMs that are to be together and apart.
fn both(rules: &Rules, found: &mut Found) {
    for (n, apart) in rules.group.iter().enumerate().filter(|(_, g)| g.kind == Kind::AntiAffinity) {
        for together in rules.group.iter().filter(|group| group.kind == Kind::Affinity) {
            let shared =
                |vm: &&str| [apart, together].iter().all(|g| g.vms.iter().any(|p| covers(p, vm)));
            let vms: Vec<&str> = named(rules).into_iter().filter(shared).collect();
            let several = apart
                .vms
                .iter()
                .find(|vms| vms.contains('*') && together.vms.iter().any(|p| covers(p, vms)));
            let words = match (several, &vms[..]) {
                (Some(pattern), _) => format!("all of {pattern}"),
                (None, [a, b, ..]) => format!("{a} and {b}"),
                (None, _) => continue,
            };
            let wrong = format!(
                "{words}: the anti-affinity group {} keeps them apart, the affinity group {} together",
                apart.name, together.name
            );
            found.push((("group", n), wrong, "take them out of one of the two".to_owned()));
        }
    }
}

/// Whether the hosts of a pin are all known: labels are told by hosts alone. What is only preferred contradicts nothing.
fn by_hosts(pin: &Pin) -> bool {
    pin.labels.is_empty() && !pin.hosts.is_empty() && !pin.should
}

/// A VM, or a pattern, that both lists stand for.
fn in_both<'a>(a: &'a [String], b: &'a [String]) -> Option<&'a str> {
    let covered =
        |of: &'a [String], by: &[String]| of.iter().find(|vm| by.iter().any(|p| covers(p, vm)));
    covered(a, b).or_else(|| covered(b, a)).map(String::as_str)
}
