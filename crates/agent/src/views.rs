//! What `decide` knows, in the words of the API.

use std::time::Duration;

use api::{
    Balancer, BestHost, BestHostRequest, Choice, CopyView, Decision, Event, FlowView, HostView,
    MoveView, NextHourView, Plan, PlannedMove, Problem, QueueView, ShareView, Status, Step as Told,
    Unsettled, UplinkView, VmPlace, VmView,
};
use decide::host::Host;
use decide::host::best::{Judged, Wish};
use decide::host::inventory::TWO_COPIES;
use decide::host::plan::{Asked, Planned};
use decide::host::story::{Note, Step, Story};
use decide::membership::inventory::Listed;
use decide::membership::{Digest, Headroom, HostState, View};
use decide::migrate::Resolution;
use decide::migrate::hypervisor::RunState;
use decide::migrate::record::Ownership;
use decide::policy::rules::unreadable;
use decide::units::{Cost, Mib, MilliCores, MoveId, Share, Time, VmId};
use decide::usage::reading::End;
use decide::usage::traffic::FlowRate;
use drivers::hypervisor::{GivenShare, Watched};
use drivers::monitor::{Direction, Duplex, LosingQueue, Uplink};

use crate::clock::Clock;
use crate::steering::Steering;

pub(crate) fn status(at_work: &Steering) -> Status {
    let host = &at_work.host;
    let now = at_work.clock.now();
    let known = host.membership().hosts().count();
    let alive = host.membership().alive().count();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster: at_work.cluster.clone(),
        host: host.name().to_owned(),
        host_id: host.id().to_string(),
        balance: host.settings().mode.balance.name().to_owned(),
        balancer_on: host.balancer_on(),
        request: at_work.request.to_owned(),
        hosts_alive: count(alive + 1),
        hosts_known: count(known + 1),
        vms: count(host.vms().len()),
        moves_under_way: count(host.moves_under_way()),
        hot: host.hot(now).map(ToString::to_string),
        disk_bytes_per_second: host.usage().host().disk.map(|disk| disk.bytes().0),
        uplink: at_work.uplink.as_ref().map(uplink),
        doing: host.doing().to_owned(),
        config: at_work.config.clone(),
        // Told by whoever serves them.
        webhooks_failing: Vec::new(),
        traces_failing: None,
        alarms: alarms(host),
    }
}

fn uplink(uplink: &Uplink) -> UplinkView {
    UplinkView {
        name: uplink.name.clone(),
        driver: uplink.driver.clone(),
        speed_bits_per_second: uplink.modes.speed.map(|speed| speed.0),
        duplex: uplink.modes.duplex.map(|duplex| match duplex {
            Duplex::Half => "half".to_owned(),
            Duplex::Full => "full".to_owned(),
        }),
        up: uplink.modes.up,
        losing_queues: uplink.losing.iter().map(queue).collect(),
    }
}

fn queue(losing: &LosingQueue) -> QueueView {
    let direction = match losing.queue.direction {
        Direction::Received => "rx",
        Direction::Sent => "tx",
    };
    QueueView {
        queue: format!("{direction}-{}", losing.queue.number),
        drops_per_second: losing.drops,
        failed_allocations_per_second: losing.failed_allocations,
    }
}

/// Two running copies of a VM before all else, then the newest.
fn alarms(host: &Host) -> Vec<String> {
    let mut alarms: Vec<&Note> = host.alarms().iter().rev().collect();
    alarms.sort_by_key(|alarm| !alarm.reason.starts_with(TWO_COPIES));
    alarms.into_iter().map(|alarm| in_words(host, alarm)).collect()
}

/// An alarm with the VM that it is about.
pub(crate) fn in_words(host: &Host, alarm: &Note) -> String {
    match alarm.vm {
        Some(vm) => format!("{}: {}", host.vm_name(vm), alarm.reason),
        None => alarm.reason.clone(),
    }
}

pub(crate) fn balancer(at_work: &Steering) -> Balancer {
    let host = &at_work.host;
    Balancer {
        host: host.name().to_owned(),
        on: host.balancer_on(),
        balance: host.settings().mode.balance.name().to_owned(),
    }
}

/// Which host would take a VM that is yet to be started.
pub(crate) fn best_hosts(
    at_work: &Steering,
    request: &BestHostRequest,
) -> Result<Vec<BestHost>, Problem> {
    let unreadable = unreadable(&request.tags);
    if !unreadable.is_empty() {
        let hint = "docs/configuration.md lists the words of tags";
        return Err(Problem::new(422, "bad-tags", unreadable.join("; "), hint));
    }
    let wish = Wish {
        name: request.name.clone(),
        tags: request.tags.clone(),
        memory: Mib(request.memory_mib),
        cpu: MilliCores(request.cpu_millicores),
    };
    let host = &at_work.host;
    let view = |judged: Judged| BestHost {
        host: host.name_of(judged.host),
        host_id: judged.host.to_string(),
        cost_percent: judged.verdict.as_ref().ok().map(|cost| cost_percent(*cost)),
        against: judged.verdict.err(),
        age_seconds: judged.age.map(|age| age.as_secs_f64()),
    };
    Ok(host.best_hosts(at_work.clock.now(), &wish).into_iter().map(view).collect())
}

/// What would be moved from here now; if `numbered`, from here on its numbers mean this.
pub(crate) fn plan(at_work: &mut Steering, numbered: bool) -> Plan {
    let now = at_work.clock.now();
    let plan = at_work.host.plan(now);
    let counted = (1..).zip(plan.moves);
    let moves = counted.map(|(n, planned)| planned_move(at_work, n, planned)).collect();
    let host = at_work.host.name().to_owned();
    let plan = Plan { host, moves, held: plan.held, end: plan.end };
    if numbered {
        at_work.shown.keep(now, &plan);
    }
    plan
}

fn planned_move(at_work: &Steering, number: u32, planned: Planned) -> PlannedMove {
    let host = &at_work.host;
    let (to, asked) = match planned.asked {
        Asked::Best(hosts) => {
            let asked = format!("{}, the best by what they said last", hosts.len());
            (hosts.into_iter().map(|it| host.name_of(it)).collect(), asked)
        }
        Asked::All(hosts) => (Vec::new(), format!("all {}", hosts.len())),
        Asked::Drawn { hosts, of } => (Vec::new(), format!("{hosts} of {of}, by lot")),
    };
    let milliseconds = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    PlannedMove {
        number,
        likely: planned.likely.map(|(likely, _)| host.name_of(likely)),
        cost_percent: planned.likely.map(|(_, cost)| cost_percent(cost)),
        vm: host.vm_name(planned.vm),
        vm_id: planned.vm.to_string(),
        from: host.name().to_owned(),
        to,
        asked,
        reason: planned.reason,
        choice: planned.choice,
        relief_percent: planned.relief.map(cost_percent),
        copy_cost_percent: cost_percent(planned.copy_cost),
        memory_mib: planned.memory.0,
        copy_ms: planned.foreseen.map(|foreseen| milliseconds(foreseen.copy)),
        downtime_ms: planned.foreseen.and_then(|foreseen| foreseen.pause).map(milliseconds),
        recommended: planned.recommended.map(|since| at_work.clock.wall(since)),
    }
}

/// This host first, then the others by name.
pub(crate) fn hosts(at_work: &Steering) -> Vec<HostView> {
    let (host, now) = (&at_work.host, at_work.clock.now());
    let mut others: Vec<HostView> =
        host.membership().hosts().map(|view| other(view, now)).collect();
    others.sort_by(|a, b| a.name.cmp(&b.name));
    let me = host.digest(now);
    let mut all = vec![HostView {
        name: host.name().to_owned(),
        id: host.id().to_string(),
        address: host.address().to_string(),
        state: "alive".to_owned(),
        local: true,
        age_seconds: Some(0.0),
        ..figures(&me)
    }];
    all.extend(others);
    all
}

fn host_state(state: HostState) -> &'static str {
    match state {
        HostState::Alive => "alive",
        HostState::Suspect => "suspect",
        HostState::Gone => "gone",
    }
}

fn other(view: &View, now: Time) -> HostView {
    let figures = view.digest.as_ref().map(figures).unwrap_or_else(unknown);
    HostView {
        name: view.peer.name.clone(),
        id: view.peer.host.to_string(),
        address: view.peer.address.to_string(),
        state: host_state(view.state).to_owned(),
        age_seconds: view.digest.is_some().then(|| now.since(view.heard).as_secs_f64()),
        ..figures
    }
}

fn figures(digest: &Digest) -> HostView {
    HostView {
        cpu_percent: percent(digest.cpu_used),
        memory_percent: percent(digest.memory_committed),
        packets_per_second: digest.packets.0,
        bits_per_second: digest.bits.0,
        vms: digest.vms,
        hot: digest.hot,
        room_mib: digest.headroom.map(|headroom| headroom.room.0),
        able: digest.headroom.as_ref().map(able).unwrap_or_default(),
        ..unknown()
    }
}

fn unknown() -> HostView {
    HostView {
        name: String::new(),
        id: String::new(),
        address: String::new(),
        state: String::new(),
        local: false,
        age_seconds: None,
        cpu_percent: 0.0,
        memory_percent: 0.0,
        packets_per_second: 0,
        bits_per_second: 0,
        vms: 0,
        hot: false,
        room_mib: None,
        able: Vec::new(),
    }
}

fn able(headroom: &Headroom) -> Vec<String> {
    let can = [(headroom.kvm, "kvm"), (headroom.tcg, "tcg"), (headroom.program, "program")];
    let can = can.into_iter().filter(|(can, _)| *can).map(|(_, word)| word);
    std::iter::once(headroom.driver.name()).chain(can).map(str::to_owned).collect()
}

/// The VMs of all hosts, by name.
pub(crate) fn inventory(at_work: &Steering) -> Vec<VmPlace> {
    let (host, now) = (&at_work.host, at_work.clock.now());
    let place = |listed: &Listed, of: &str, state: &str, age_seconds: f64| VmPlace {
        name: listed.name.clone(),
        id: listed.vm.to_string(),
        host: of.to_owned(),
        host_state: state.to_owned(),
        age_seconds,
        state: listed.state.name().to_owned(),
        epoch: listed.epoch,
        memory_mib: listed.memory.0,
    };
    let own = host.inventory();
    let mut all: Vec<VmPlace> =
        own.vms.iter().map(|listed| place(listed, host.name(), "alive", 0.0)).collect();
    for (view, asked, inventory) in host.inventories() {
        let (name, state) = (&view.peer.name, host_state(view.state));
        let age = now.since(asked).as_secs_f64();
        all.extend(inventory.vms.iter().map(|listed| place(listed, name, state, age)));
    }
    all.sort_by(|a, b| (&a.name, &a.host).cmp(&(&b.name, &b.host)));
    all
}

pub(crate) fn vms(at_work: &Steering) -> Vec<VmView> {
    let watched = at_work.hypervisor.watched();
    let ids = at_work.host.vms().keys();
    let mut all: Vec<VmView> = ids.map(|vm| one_vm(at_work, &watched, *vm)).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn one_vm(at_work: &Steering, watched: &[Watched], id: VmId) -> VmView {
    let host = &at_work.host;
    let vm = &host.vms()[&id];
    let history = host.usage().history(id);
    let told = host.usage().told(id);
    let now = history.and_then(decide::usage::history::History::newest).unwrap_or_default();
    let moving = host.stories().any(|story| story.vm == id && story.ended.is_none());
    let state = match (vm.record.ownership, vm.run) {
        (Ownership::Down, _) => "down",
        (Ownership::Released(..) | Ownership::Away, _) => "released",
        (Ownership::Owner, _) if moving => "moving",
        (Ownership::Owner, RunState::Running) => "running",
        (Ownership::Owner, RunState::Paused) => "paused",
    };
    VmView {
        name: vm.definition.name.clone(),
        id: id.to_string(),
        host: host.name().to_owned(),
        state: state.to_owned(),
        epoch: vm.record.floor,
        memory_mib: vm.definition.memory.0,
        cpu_percent: of_a_core(now.cpu),
        vcpu_percent: told.vcpus.map(|vcpus| of_a_core(vcpus.ran)),
        cpu_wait_percent: told.vcpus.map(|vcpus| of_a_core(vcpus.waited)),
        guest_memory_mib: told.guest_memory.map(|memory| memory.0),
        dirty_mib_per_second: told.dirty.map(|rate| rate.0),
        disk_bytes_per_second: told.disk.map(|disk| disk.bytes().0),
        disk_requests_per_second: told.disk.map(|disk| disk.requests),
        share: watched.iter().find(|one| one.vm == id).and_then(|one| one.share.clone()).map(share),
        sent_packets_per_second: now.sent_packets.0,
        received_packets_per_second: now.received_packets.0,
        bits_per_second: now.bits().0,
        history_seconds: history.map_or(0, |history| history.span().as_secs()),
        next_hour: host.usage().next_hour(id).map(|next| NextHourView {
            cpu_mean_percent: of_a_core(next.mean.cpu),
            cpu_peak_percent: of_a_core(next.peak.cpu),
            mean_bits_per_second: next.mean.bits.0,
            peak_bits_per_second: next.peak.bits.0,
        }),
        excluded: host.exclusion(id),
        rules: vm.rules.told(),
        trouble: vm.trouble.clone(),
    }
}

/// The most first; none if it is not counted.
pub(crate) fn traffic(host: &Host) -> Option<Vec<FlowView>> {
    let mut rates = host.usage().traffic().rates()?;
    rates.sort_by_key(|rate| std::cmp::Reverse((rate.bits, rate.packets)));
    let named = |end: End| match end {
        End::Vm(vm) => (host.vm_name(vm), Some(vm.to_string())),
        End::Outside => ("outside".to_owned(), None),
        End::Many => ("many".to_owned(), None),
    };
    let view = |rate: FlowRate| {
        let ((from, from_id), (to, to_id)) = (named(rate.from), named(rate.to));
        FlowView {
            from,
            from_id,
            to,
            to_id,
            packets_per_second: rate.packets.0,
            bits_per_second: rate.bits.0,
        }
    };
    Some(rates.into_iter().map(view).collect())
}

/// Newest first.
pub(crate) fn moves(at_work: &Steering) -> Vec<MoveView> {
    at_work.host.stories().rev().map(|story| one_move(at_work, story)).collect()
}

pub(crate) fn one_move(at_work: &Steering, story: &Story) -> MoveView {
    let host = &at_work.host;
    let between = |from: Option<Time>, to: Option<Time>| {
        let passed = to?.since(from?);
        u64::try_from(passed.as_millis()).ok()
    };
    MoveView {
        id: story.move_id.to_string(),
        vm: story.name.clone(),
        vm_id: story.vm.to_string(),
        from: host.name_of(story.move_id.host),
        to: story.to.map(|to| host.name_of(to)),
        phase: story.phase.to_owned(),
        reason: story.reason.clone(),
        overridden: story.overridden.clone(),
        began: at_work.clock.wall(story.began),
        ended: story.ended.is_some(),
        others_to_come: host.awaits_others(story.move_id),
        outcome: story.outcome.clone(),
        acceptances: story.acceptances,
        refusals: story.refusals,
        copied_bytes: story.progress.transferred.0,
        total_bytes: story.progress.transferred.plus(story.progress.remaining).0,
        rounds: story.progress.rounds,
        encrypted: story.encrypted,
        total_ms: between(story.copy_began, story.running),
        downtime_ms: between(story.paused, story.running),
        promised_percent: story.promised.map(cost_percent),
        measured_percent: story.measured.map(cost_percent),
        paid: story.paid,
    }
}

/// What is known of an open move; absent if it is not open.
pub(crate) fn unsettled(at_work: &Steering, id: MoveId) -> Option<Unsettled> {
    let host = &at_work.host;
    let unsettled = host.unsettled(at_work.clock.now(), id)?;
    let choice = |(resolution, may): (Resolution, Result<(), String>)| {
        let decision = match resolution {
            Resolution::KeepHere => Decision::KeepHere,
            Resolution::GiveUp => Decision::GiveUp,
        };
        Choice { decision, against: may.err() }
    };
    Some(Unsettled {
        move_id: id.to_string(),
        vm: host.vm_name(unsettled.vm),
        peer: host.name_of(unsettled.peer),
        known: unsettled.known,
        choices: unsettled.choices.into_iter().map(choice).collect(),
    })
}

pub(crate) fn resolution(decision: Decision) -> Resolution {
    match decision {
        Decision::KeepHere => Resolution::KeepHere,
        Decision::GiveUp => Resolution::GiveUp,
    }
}

/// A note as an event. Its `seq` is given by the log.
pub(crate) fn event(host: &Host, clock: Clock, now: Time, note: &Note) -> Event {
    Event {
        seq: 0,
        time: clock.wall(now),
        host: host.name().to_owned(),
        move_id: note.move_id.map(|id| id.to_string()),
        vm: note.vm.map(|vm| host.vm_name(vm)),
        step: step(note.step),
        reason: note.reason.clone(),
        peer: note.peer.map(|peer| host.name_of(peer)),
        cost_percent: note.cost.map(cost_percent),
        copy: None,
    }
}

/// What a move's copy has taken.
pub(crate) fn copy(moved: &MoveView) -> CopyView {
    let MoveView { copied_bytes, rounds, total_ms, downtime_ms, .. } = *moved;
    CopyView { copied_bytes, rounds, total_ms, downtime_ms }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn cost_percent(cost: Cost) -> f64 {
    (cost.0 / 10_000) as f64 / 100.0
}

fn share(given: GivenShare) -> ShareView {
    let GivenShare { share, trouble } = given;
    ShareView {
        cpu_weight: share.weight,
        receives_bits_per_second_max: share.rate.map(|rate| rate.0),
        why: share.why,
        trouble,
    }
}

fn of_a_core(cpu: MilliCores) -> f64 {
    percent(Share(u32::try_from(cpu.0).unwrap_or(u32::MAX)))
}

fn percent(share: Share) -> f64 {
    f64::from(share.0) / 10.0
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

pub(crate) fn step(step: Step) -> Told {
    match step {
        Step::Monitoring => Told::Monitoring,
        Step::VmPolicy => Told::VmPolicy,
        Step::Request => Told::Request,
        Step::Acceptance => Told::Acceptance,
        Step::Refusal => Told::Refusal,
        Step::Choice => Told::Choice,
        Step::Confirmation => Told::Confirmation,
        Step::Release => Told::Release,
        Step::UsageHistory => Told::UsageHistory,
        Step::Readiness => Told::Readiness,
        Step::Copy => Told::Copy,
        Step::Stall => Told::Stall,
        Step::SwitchOver => Told::SwitchOver,
        Step::HandOver => Told::HandOver,
        Step::Running => Told::Running,
        Step::Done => Told::Done,
        Step::PayBack => Told::PayBack,
        Step::Abandoned => Told::Abandoned,
        Step::Undo => Told::Undo,
        Step::Adopted => Told::Adopted,
        Step::VmDown => Told::VmDown,
        Step::Alarm => Told::Alarm,
        Step::Membership => Told::Membership,
        Step::Settings => Told::Settings,
        Step::Doing => Told::Doing,
        Step::BadInput => Told::BadInput,
    }
}
