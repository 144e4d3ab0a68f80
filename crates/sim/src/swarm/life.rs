//! The life of one seed's cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use decide::host::story::{Note, Step};
use decide::host::witness::DEFINITION_NAMES;
use decide::units::{MoveId, Time};

use super::{rules, scenario};
use crate::checks::{self, Half, NotYet, Property, Violation};
use crate::faults::Kind;
use crate::world::{World, host_id};

/// What every seed's cluster goes through.
#[derive(Clone, Debug)]
pub struct Options {
    /// Hosts of each cluster.
    pub hosts: u16,
    /// How long things go wrong.
    pub faulty: Duration,
    /// How long it may take after that until all is whole.
    pub healing_max: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            hosts: 12,
            faulty: Duration::from_secs(240),
            healing_max: Duration::from_secs(1800),
        }
    }
}

/// What came of one seed.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// The seed.
    pub seed: u64,
    /// Events that hosts and hypervisors had.
    pub events: u64,
    /// Moves begun.
    pub moves: u64,
    /// Moves by how they ended, by the source's word.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Faults by kind.
    pub faults: BTreeMap<Kind, u64>,
    /// Moves that a fault struck, by the phase that they were in.
    pub phases: BTreeMap<&'static str, u64>,
    /// Balancing moves that were judged by the sum of costs.
    pub judged: u64,
    /// Moves of VMs that some rule is about.
    pub judged_by_rules: u64,
    /// Moves that passed in which others were agreed: VMs in return, or the rest of a group.
    pub agreed: u64,
    /// Others that passed as agreed there.
    pub as_agreed: u64,
    /// The time that passed in the simulation.
    pub simulated: Duration,
    /// Hash of every action of every host, in order.
    pub hash: u64,
    /// What must hold and did not.
    pub violations: Vec<Violation>,
    /// What was noted of it, in words.
    pub story: String,
}

/// Between two things that operators or guests do.
const TURN_EVERY_MS: u32 = 2500;
/// Loads are known to all after this long: before, no host that has just become hot has been so for the whole window.
const STEADY_AFTER: Duration = Duration::from_secs(7);
/// How often it is looked whether all is whole.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Whole for as long as this.
const WHOLE_FOR: Duration = Duration::from_secs(20);

/// Lives one seed's life to its end, or to the first violation.
pub fn live(seed: u64, options: &Options) -> Life {
    let mut world = scenario::cluster(seed, options.hosts);
    // A failed assertion of the code under test is a finding like any other.
    let outcome = catch_unwind(AssertUnwindSafe(|| go(&mut world, options)));
    if let Err(panic) = outcome {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        let what = words.unwrap_or_else(|| "an assertion without words".to_owned());
        world.checks.fails(Property::NoAssertionFails, world.now, None, what);
    }
    told(seed, &world)
}

fn go(world: &mut World, options: &Options) {
    let began = world.now;
    world.run(Duration::from_secs(15));
    if options.faulty > Duration::ZERO {
        world.faults_begin();
    }
    let end = began.plus(Duration::from_secs(15) + options.faulty);
    while world.now < end && world.checks.violations().is_empty() {
        let after = world.draw(2 * TURN_EVERY_MS);
        world.run(Duration::from_millis(u64::from(after)));
        scenario::turn(world);
    }
    heal(world, options);
}

/// Everything works from now on, and nobody but the hosts does anything.
fn heal(world: &mut World, options: &Options) {
    world.heal();
    let healed = world.now;
    // The last agents are back; what is down is started again once its moves are over.
    world.run(Duration::from_secs(45));
    scenario::all_run_again(world);
    rules::lift(world);
    scenario::last_loads(world);
    steady(world);
    let end = healed.plus(options.healing_max);
    let mut whole_since: Option<Time> = None;
    while world.checks.violations().is_empty() {
        if scenario::all_run_again(world) {
            steady(world);
        }
        world.run(LOOK_EVERY);
        match whole(world) {
            Ok(()) => {
                let since = *whole_since.get_or_insert(world.now);
                if world.now.since(since) >= WHOLE_FOR {
                    break;
                }
            }
            Err((property, not_yet)) => {
                whole_since = None;
                if world.now >= end {
                    world.checks.fails(property, world.now, not_yet.vm, not_yet.what);
                }
            }
        }
    }
    checks::judge(world);
    no_witness_knows_better(world);
}

/// Nobody loses journals here, or moves a VM past its agents.
fn no_witness_knows_better(world: &mut World) {
    let mut notes = world.notes.iter();
    let told = notes.find(|(.., note)| note.reason.contains(DEFINITION_NAMES));
    if let Some((when, at, note)) = told.cloned() {
        let what = format!("host{at}: {}", note.reason);
        world.checks.fails(Property::NoFalseAlarm, when, note.vm, what);
    }
}

fn steady(world: &mut World) {
    checks::steady(world, world.now.plus(STEADY_AFTER));
}

fn whole(world: &World) -> Result<(), (Property, NotYet)> {
    checks::settled(world).map_err(|what| (Property::MovesEnd, what))?;
    checks::agreed(world).map_err(|what| (Property::AgentsAgree, what))?;
    checks::cool(world).map_err(|what| (Property::HotSpotsDissolve, what))
}

fn told(seed: u64, world: &World) -> Life {
    let own = |at: &u16, note: &Note| note.move_id.is_some_and(|id| id.host == host_id(*at));
    let notes = world.notes.iter().filter(|(_, at, note)| own(at, note)).map(|(.., note)| note);
    let moves: BTreeSet<Option<MoveId>> = notes.clone().map(|note| note.move_id).collect();
    let count = |step: Step| notes.clone().filter(|note| note.step == step).count() as u64;
    let ends = [(Step::Done, "done"), (Step::Abandoned, "abandoned"), (Step::VmDown, "down")];
    let passed = &world.checks.passed;
    let halves = |which: fn(Half) -> bool| passed.iter().filter(|it| which(it.half)).count() as u64;
    let violations = world.checks.violations().to_vec();
    let story = violations.first().map_or(String::new(), |first| world.tale(first.vm));
    Life {
        seed,
        events: world.events,
        moves: moves.len() as u64,
        outcomes: ends.into_iter().map(|(step, name)| (name, count(step))).collect(),
        faults: world.faults.counts().clone(),
        phases: world.faults.phases().clone(),
        judged: world.checks.judged,
        judged_by_rules: world.checks.judged_by_rules,
        agreed: halves(|half| matches!(half, Half::First(_))),
        as_agreed: halves(|half| matches!(half, Half::OtherOf(_))),
        simulated: world.now.since(Time(1_000_000)),
        hash: world.trace.finish(),
        violations,
        story,
    }
}
