//! What a VM's own tags say: words that ProxLB's users have on their VMs already, and our own.
//!
//! | tag | meaning |
//! |---|---|
//! | `plb_affinity_NAME`, `evenkeel:affinity=NAME` | member of that group |
//! | `plb_anti_affinity_NAME`, `evenkeel:anti-affinity=NAME` | member of that group |
//! | `plb_pin_HOST`, `evenkeel:pin=HOST`, `evenkeel:pin-label=LABEL` | must be there; several: at one of them |
//! | `evenkeel:prefer=HOST`, `evenkeel:prefer-label=LABEL` | should be there; several: at one of them |
//! | `plb_ignore_…`, `evenkeel:exclude`, `evenkeel:exclude=2026-12-24T00:00Z` | left where it is |
//! | `evenkeel:priority=N`, `evenkeel:downtime=200ms`, `evenkeel:rest=12h`, `evenkeel:hours=…`, `evenkeel:auto-converge=yes`, `evenkeel:copy-disks=yes`, `evenkeel:balance=MODE`, `evenkeel:rules=MODE` | as in `[[rules.vm]]` |
//!
//! Other tags are somebody else's. One of ours that cannot be read is passed over here, and [`unreadable`] tells it.

use super::hours::Hours;
use super::until::Until;
use super::{Excluded, Kind, Places, VmRules};
use crate::policy::quantity::parse_duration;
use crate::policy::settings::Balance;

/// What one tag says.
enum Word {
    Group(Kind, String),
    Host {
        name: String,
        should: bool,
    },
    Label {
        name: String,
        should: bool,
    },
    Excluded(Excluded),
    Priority(i32),
    Downtime(std::time::Duration),
    AutoConverge(bool),
    CopyDisks(bool),
    Rest(std::time::Duration),
    Hours(Hours),
    Balance(Balance),
    Rules(Balance),
    /// Somebody else's.
    Other,
}

/// All that a VM's tags say.
pub(super) fn read(tags: &[String]) -> VmRules {
    let mut all = VmRules::default();
    let (mut must, mut should) = (Places::default(), Places::default());
    for word in tags.iter().filter_map(|tag| word(tag).ok()) {
        match word {
            Word::Group(kind, name) => drop(all.groups_of(kind).insert(name)),
            Word::Host { name, should: false } => drop(must.hosts.insert(name)),
            Word::Host { name, should: true } => drop(should.hosts.insert(name)),
            Word::Label { name, should: false } => drop(must.labels.insert(name)),
            Word::Label { name, should: true } => drop(should.labels.insert(name)),
            Word::Excluded(how) => all.excluded.push(how),
            Word::Priority(priority) => all.priority = priority,
            Word::Downtime(downtime) => all.downtime = Some(downtime),
            Word::AutoConverge(consents) => all.auto_converge = consents,
            Word::CopyDisks(consents) => all.copy_disks = consents,
            Word::Rest(rest) => all.rest = Some(rest),
            Word::Hours(hours) => all.hours.push(hours),
            Word::Balance(mode) => all.balance = Some(mode),
            Word::Rules(mode) => all.rules = Some(mode),
            Word::Other => {}
        }
    }
    all.must.extend(Some(must).filter(|places| *places != Places::default()));
    all.should.extend(Some(should).filter(|places| *places != Places::default()));
    all
}

/// Those that say where a VM may be: what its target must know of it.
pub fn of_places(tags: &[String]) -> Vec<String> {
    let places = |word: &Word| {
        matches!(
            word,
            Word::Group(..) | Word::Host { should: false, .. } | Word::Label { should: false, .. }
        )
    };
    that(tags, places).cloned().collect()
}

/// Those that name groups.
pub fn of_groups(tags: &[String]) -> Vec<&str> {
    that(tags, |word| matches!(word, Word::Group(..))).map(String::as_str).collect()
}

fn that(tags: &[String], which: impl Fn(&Word) -> bool) -> impl Iterator<Item = &String> {
    tags.iter().filter(move |tag| word(tag).is_ok_and(|word| which(&word)))
}

/// Tags that are meant for us and cannot be read, and why.
pub fn unreadable(tags: &[String]) -> Vec<String> {
    tags.iter().filter_map(|tag| word(tag).err().map(|why| format!("tag {tag:?}: {why}"))).collect()
}

fn word(tag: &str) -> Result<Word, String> {
    if let Some(rest) = tag.strip_prefix("plb_") {
        return Ok(proxlb(rest));
    }
    let Some(rest) = tag.strip_prefix("evenkeel:") else { return Ok(Word::Other) };
    let (key, value) = rest.split_once('=').map_or((rest, None), |(key, value)| (key, Some(value)));
    let named = || match value {
        Some(value) if !value.is_empty() => Ok(value.to_owned()),
        Some(_) | None => Err(format!("write it as evenkeel:{key}=NAME")),
    };
    let text = |example: &str| value.ok_or_else(|| format!("write it as evenkeel:{key}={example}"));
    Ok(match key {
        "affinity" => Word::Group(Kind::Affinity, named()?),
        "anti-affinity" => Word::Group(Kind::AntiAffinity, named()?),
        "pin" => Word::Host { name: named()?, should: false },
        "pin-label" => Word::Label { name: named()?, should: false },
        "prefer" => Word::Host { name: named()?, should: true },
        "prefer-label" => Word::Label { name: named()?, should: true },
        "exclude" => Word::Excluded(match value {
            None => Excluded::Always,
            Some(until) => Excluded::Until(Until::parse(until).map_err(|e| e.to_string())?),
        }),
        "priority" => {
            let number = text("5")?.parse().ok().filter(|n| (-100..=100).contains(n));
            Word::Priority(number.ok_or("it takes a number from -100 to 100")?)
        }
        "downtime" => Word::Downtime(parse_duration(text("200ms")?).map_err(|e| e.to_string())?),
        "auto-converge" => Word::AutoConverge(consents(text("yes")?)?),
        "copy-disks" => Word::CopyDisks(consents(text("yes")?)?),
        "rest" => Word::Rest(parse_duration(text("12h")?).map_err(|e| e.to_string())?),
        "hours" => {
            let hours = text("Mon-Fri 20:00-06:00 UTC")?;
            Word::Hours(Hours::parse(hours).map_err(|e| e.to_string())?)
        }
        "balance" => Word::Balance(mode(text("recommend")?)?),
        "rules" => Word::Rules(mode(text("recommend")?)?),
        _ => return Err("this word is not known".to_owned()),
    })
}

fn consents(answer: &str) -> Result<bool, String> {
    match answer {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("it takes yes or no".to_owned()),
    }
}

fn mode(name: &str) -> Result<Balance, String> {
    let modes = [Balance::Off, Balance::Recommend, Balance::Automatic];
    let named = modes.into_iter().find(|mode| mode.name() == name);
    named.ok_or_else(|| "it takes off, recommend or automatic".to_owned())
}

/// ProxLB has no word that cannot be read: what it does not know it passes over.
fn proxlb(rest: &str) -> Word {
    let named =
        |prefix: &str| rest.strip_prefix(prefix).filter(|name| !name.is_empty()).map(str::to_owned);
    if let Some(name) = named("affinity_") {
        Word::Group(Kind::Affinity, name)
    } else if let Some(name) = named("anti_affinity_") {
        Word::Group(Kind::AntiAffinity, name)
    } else if let Some(name) = named("pin_") {
        Word::Host { name, should: false }
    } else if rest == "ignore" || rest.starts_with("ignore_") {
        Word::Excluded(Excluded::Always)
    } else {
        Word::Other
    }
}
