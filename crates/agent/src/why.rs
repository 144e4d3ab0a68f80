//! Why a VM moved, or why it does not: from the event log and what is known now.

use api::{Event, Problem, Why};
use decide::host::obstacles::Obstacle;
use decide::host::story::Story;
use decide::policy::settings::Trigger;
use decide::units::{Cost, HostId, Time, VmId};

use crate::steering::Steering;
use crate::views;

/// VMs that may not leave are told of up to so many.
const KEPT_TOLD: usize = 20;

/// What the answer is built on, taken from the host at one instant; the events come from the log.
pub(crate) struct Ground {
    about: String,
    verdict: String,
    because: Vec<String>,
    /// The move or VM whose events tell the story; neither: the newest of all.
    pub(crate) move_id: Option<String>,
    pub(crate) vm: Option<String>,
}

impl Ground {
    pub(crate) fn told(self, events: Vec<Event>) -> Why {
        let Ground { about, verdict, because, .. } = self;
        Why { about, verdict, because, events }
    }
}

/// Looks for a move, then for a VM, by name or id; about nothing: why nothing is being moved.
pub(crate) fn ground(at_work: &Steering, about: Option<&str>) -> Result<Ground, Problem> {
    let Some(about) = about else { return Ok(nothing_in_particular(at_work)) };
    let host = &at_work.host;
    if let Some(story) = host.stories().rev().find(|story| story.move_id.to_string() == about) {
        return Ok(of_move(at_work, story));
    }
    if let Some(vm) = find_vm(at_work, about) {
        return Ok(of_vm(at_work, vm));
    }
    if let Some(story) =
        host.stories().rev().find(|story| story.name == about || story.vm.to_string() == about)
    {
        return Ok(of_move(at_work, story));
    }
    Err(elsewhere(at_work, about).unwrap_or_else(|| no_such_vm(about)))
}

/// A VM that another host lists: that one's agent is to be asked.
pub(crate) fn elsewhere(at_work: &Steering, about: &str) -> Option<Problem> {
    let all = views::inventory(at_work);
    let there = all.iter().find(|place| place.name == about || place.id == about)?;
    let (host, age) = (&there.host, there.age_seconds);
    let title =
        format!("{about} is not on this host but on {host}, by what that said {age:.0} s ago");
    Some(Problem::new(404, "elsewhere", title, format!("ask the agent of {host}")))
}

/// A VM on this host, by name or UUID.
pub(crate) fn find_vm(at_work: &Steering, about: &str) -> Option<VmId> {
    let named = |(id, vm): &(&VmId, &decide::host::Vm)| {
        vm.definition.name == about || id.to_string() == about
    };
    at_work.host.vms().iter().find(named).map(|(id, _)| *id)
}

pub(crate) fn no_such_vm(about: &str) -> Problem {
    let title = format!("no VM or move {about:?} on this host");
    Problem::new(
        404,
        "not-found",
        title,
        "`evenkeel vms` and `evenkeel moves` list them; ask the agent of the host that it is on",
    )
}

fn nothing_in_particular(at_work: &Steering) -> Ground {
    let host = &at_work.host;
    let mode = &host.settings().mode;
    let trigger = match mode.trigger {
        Trigger::Hot => "hot",
        Trigger::Spread => "spread",
        Trigger::Packets => "packets",
        Trigger::Consolidate => "consolidate",
    };
    let balance = views::balancer(at_work).balance;
    let mut because = vec![format!("balance is {balance:?}, trigger is {trigger:?}")];
    if !host.balancer_on() {
        because.push(
            "the balancer is off on this host; `evenkeel balancer on` lets it go on".to_owned(),
        );
    }
    because.extend(host.crossed().map(|crossed| format!("over its threshold: {crossed}")));
    because.extend(kept(at_work));
    because.extend(
        host.alarms().iter().rev().map(|alarm| format!("alarm: {}", views::in_words(host, alarm))),
    );
    Ground {
        about: format!("host {}", host.name()),
        verdict: host.doing().to_owned(),
        because,
        move_id: None,
        vm: None,
    }
}

/// The VMs that may not leave by themselves, by name, and what keeps each.
fn kept(at_work: &Steering) -> Vec<String> {
    let (host, now) = (&at_work.host, at_work.clock.now());
    let mut kept: Vec<String> = host
        .vms()
        .iter()
        .filter_map(|(id, vm)| {
            let why = host.may_be_balanced(now, *id).err()?;
            Some(format!("{} may not leave: {why}", vm.definition.name))
        })
        .collect();
    kept.sort();
    let more = kept.len().saturating_sub(KEPT_TOLD);
    kept.truncate(KEPT_TOLD);
    if more > 0 {
        kept.push(format!("{more} more VMs may not leave; `evenkeel why VM` tells of each"));
    }
    kept
}

/// What keeps a VM here from going to that host: the first obstacle, then the others, each with what would have to change.
pub(crate) fn why_not(at_work: &Steering, vm: VmId, to: HostId) -> Ground {
    let (host, now) = (&at_work.host, at_work.clock.now());
    let (name, target) = (host.vm_name(vm), host.name_of(to));
    let obstacles = host.obstacles(now, vm, to);
    let verdict = match obstacles.first() {
        None => format!("nothing that is known here; {target} has the last word when it is asked"),
        Some(Obstacle { words, by_hand: true, .. }) => words.clone(),
        Some(Obstacle { words, .. }) => format!("{words}; by hand it can be tried"),
    };
    let mut because: Vec<String> = obstacles.iter().map(in_the_way).collect();
    if let Some((at, why)) = host.last_refusal(vm, to) {
        let ago = now.since(at).as_secs();
        because.push(format!("when it was asked last, {ago} s ago, {target} refused: {why}"));
    }
    let about = format!("VM {name} to {target}");
    Ground { about, verdict, because, move_id: None, vm: Some(name) }
}

fn in_the_way(obstacle: &Obstacle) -> String {
    let Obstacle { words, change, by_hand } = obstacle;
    let whom = if *by_hand { "" } else { " (not by hand)" };
    format!("{words}{whom}; {change}")
}

fn of_vm(at_work: &Steering, vm: VmId) -> Ground {
    let host = &at_work.host;
    let now = at_work.clock.now();
    let here = &host.vms()[&vm];
    let name = here.definition.name.clone();
    let rest = here.rest_until.since(now);
    let verdict = match host.movable(vm) {
        Err(why) => format!("{name} cannot be moved now: {why}"),
        Ok(()) if host.exclusion(vm).is_some() => {
            let why = host.is_excluded(vm).err().unwrap_or_default();
            format!("{name} stays: {why}; a person can move it")
        }
        Ok(()) if !rest.is_zero() => {
            format!("{name} rests for {} s more; by hand it can be moved", rest.as_secs())
        }
        Ok(()) => {
            let why = host.keeps(now, vm).unwrap_or_else(|| host.doing().to_owned());
            format!("{name} stays: {why}")
        }
    };
    let demand = host.demand(now, vm);
    let mut because = vec![
        format!("it asks {} packets/s, {} bit/s, {}", demand.packets.0, demand.bits.0, demand.cpu),
        format!("epoch {}, memory {}", here.record.floor, here.definition.memory),
    ];
    if let Some(story) =
        host.stories().rev().find(|story| story.vm == vm && story.move_id.host == host.id())
    {
        let how = story.outcome.clone().unwrap_or_else(|| story.phase.to_owned());
        because.push(format!("last asked about as move {}: {how}", story.move_id));
        because.extend(answered(at_work, story));
        because.extend(pay_back(story));
    }
    Ground { about: format!("VM {name}"), verdict, because, move_id: None, vm: Some(name) }
}

/// What each host that was asked has answered, and what came of it.
fn answered(at_work: &Steering, story: &Story) -> Vec<String> {
    let host = &at_work.host;
    let told = |(from, at, answer): &(HostId, Time, Result<Cost, String>)| {
        let name = host.name_of(*from);
        let words = match answer {
            Ok(cost) if story.to == Some(*from) => format!("accepted at {cost}: chosen"),
            Ok(cost) => format!("accepted at {cost}: not chosen"),
            Err(why) => format!("refused: {why}"),
        };
        format!("{name} {words} ({})", at_work.clock.wall(*at))
    };
    story.answers.iter().map(told).collect()
}

fn of_move(at_work: &Steering, story: &Story) -> Ground {
    let view = views::one_move(at_work, story);
    let to = view.to.clone().unwrap_or_else(|| "no host".to_owned());
    let how = view.outcome.clone().unwrap_or_else(|| view.phase.clone());
    let mut because = vec![
        format!("{} should leave {}: {}", view.vm, view.from, view.reason),
        format!("{} accepted, {} refused; chosen: {to}", view.acceptances, view.refusals),
    ];
    if let Some(encrypted) = view.encrypted {
        let how = if encrypted { "encrypted" } else { "in the clear" };
        because.push(format!("the copy: {how}"));
    }
    if let (Some(total), Some(downtime)) = (view.total_ms, view.downtime_ms) {
        because.push(format!(
            "{} bytes in {} rounds, {total} ms in all, {downtime} ms paused",
            view.copied_bytes, view.rounds
        ));
    }
    because.extend(answered(at_work, story));
    because.extend(pay_back(story));
    Ground {
        about: format!("move {} of {}", view.id, view.vm),
        verdict: how,
        because,
        move_id: Some(view.id),
        vm: None,
    }
}

/// What a move was to bring, and what it has brought.
fn pay_back(story: &Story) -> Option<String> {
    let promised = story.promised?;
    let brought = match (story.measured, story.paid) {
        (Some(measured), Some(true)) => format!("measured {measured}: it paid"),
        (Some(measured), _) => format!("measured {measured}: it did not pay"),
        (None, _) => "not measured there".to_owned(),
    };
    Some(format!("promised {promised} less, {brought}"))
}
