//! One life of a described cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use decide::host::Host;
use decide::host::story::Step;
use decide::migrate::hypervisor::HypervisorCommand;
use decide::policy::rules::{Group, Kind, Pin, Rules};
use decide::policy::settings::{Balance, Settings, Trigger};
use decide::units::{BitsPerSec, HostId, Mib, MoveId, Time, VmId};
use serde::{Deserialize, Serialize};

use super::cluster::{Cluster, RuleKind, Vm};
use super::figures::{Figures, Steps, figures, steps};
use crate::checks::Half;
use crate::hypervisor::Memory;
use crate::time::{ClockId, time};
use crate::world::scene::{Machine, vm_name};
use crate::world::{Clock, Ordered, World, host_name, number};

/// A round: each host has its turn to be read.
const ROUND: Duration = Duration::from_secs(10);
/// Longer than any rest of a host, the longest after a failure included.
const QUIET_ROUNDS: u64 = 100;
/// A guest writes over and over to this part of its memory: one of so many.
const WRITTEN: u64 = 10;
/// Packets of a guest in a second for each Mbit/s: 100 bytes each.
const PACKETS_PER_MBIT: f64 = 1250.0;

/// How the cluster is lived.
#[derive(Clone, Debug)]
pub struct Options {
    /// What all agents are set to. They act by themselves, whatever it says of that.
    pub settings: Settings,
    /// For all that is drawn.
    pub seed: u64,
    /// After so many rounds it ends, quiet or not.
    pub rounds_max: u64,
    /// It is quiet when nothing has moved for so many rounds.
    pub quiet_rounds: u64,
}

impl Default for Options {
    fn default() -> Options {
        let settings = Settings::default();
        Options { settings, seed: 1, rounds_max: 10_000, quiet_rounds: QUIET_ROUNDS }
    }
}

impl Options {
    /// Shipped settings with this trigger.
    pub fn of(trigger: Trigger, seed: u64) -> Options {
        let mut settings = Settings::default();
        settings.mode.trigger = trigger;
        Options { settings, seed, ..Options::default() }
    }
}

/// A migration that was made. Times are seconds since the beginning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// The VM.
    pub vm: String,
    /// From this node.
    pub from: String,
    /// To that one.
    pub to: String,
    /// When room was reserved there.
    pub t_reserve: f64,
    /// When the copy began.
    pub t_start: f64,
    /// When its copy at the source was ended.
    pub t_end: f64,
    /// Acceptances and refusals.
    pub acceptances: u32,
    /// Refusals.
    pub refusals: u32,
    /// The VM policy's words.
    pub why: String,
    /// The migration policy's words.
    pub choice: String,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// At first.
    pub before: Figures,
    /// In the end.
    pub after: Figures,
    /// The way there.
    pub steps: Steps,
    /// Moves, in the order in which their copies began.
    pub moves: Vec<Move>,
    /// Where each VM is in the end.
    pub placement: BTreeMap<String, String>,
    /// Rounds until the last move was over; a round is ten seconds, in which each host has its turn to be read.
    pub rounds: u64,
    /// Whether nothing moved any more in the end.
    pub quiet: bool,
    /// Messages between hosts, gossip left out.
    pub messages: u64,
    /// Nodes that are hot.
    pub hot: HotNodes,
    /// Processor seconds that it took.
    pub cpu_s: f64,
}

/// Nodes that are hot, by the agents' own word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotNodes {
    /// At first: once thresholds have been crossed for as long as it takes.
    pub before: usize,
    /// At any time later, of those that were not at first.
    pub made: usize,
    /// In the end.
    pub after: usize,
}

/// Lives the cluster until nothing moves; `told` hears of each simulated minute: rounds, moves.
pub fn simulate(cluster: &Cluster, options: &Options, told: &dyn Fn(u64, usize)) -> Report {
    let began = time(ClockId::ThreadCPUTime);
    let mut world = build(cluster, options);
    let began_at = world.now;
    let (mut rounds, mut busy) = (0, 0);
    let window = options.settings.hot.window;
    let (mut hot_before, mut hot_later) = (BTreeSet::new(), BTreeSet::new());
    while rounds < options.rounds_max && rounds - busy < options.quiet_rounds {
        let before = world.commands.len();
        world.run(ROUND);
        rounds += 1;
        let moving = world.hosts().any(|host| host.moves_agreed() > 0);
        if moving || world.commands.len() > before {
            busy = rounds;
        }
        // Two rounds more: what a monitor reads first is no rate yet.
        let beginning = world.now.since(began_at) <= window + ROUND * 2;
        (if beginning { &mut hot_before } else { &mut hot_later }).extend(hot(&world));
        if rounds.is_multiple_of(6) {
            told(rounds, world.checks.passed.len());
        }
    }
    let hot = HotNodes {
        before: hot_before.len(),
        made: hot_later.difference(&hot_before).count(),
        after: hot(&world).count(),
    };
    let moves = moves(&world, cluster);
    let placement: BTreeMap<&str, &str> = world
        .checks
        .places()
        .iter()
        .map(|(vm, at)| (&*cluster.vms[index(*vm)].id, name(cluster, *at)))
        .collect();
    Report {
        before: figures(cluster, &cluster.placement()),
        after: figures(cluster, &placement),
        steps: steps(cluster, &moves),
        placement: placement.iter().map(|(vm, at)| ((*vm).to_owned(), (*at).to_owned())).collect(),
        rounds: busy,
        quiet: rounds - busy >= options.quiet_rounds,
        messages: world.net.sent.messages,
        hot,
        cpu_s: (time(ClockId::ThreadCPUTime) - began).as_secs_f64(),
        moves,
    }
}

/// Nodes and VMs by their order in the file.
pub(crate) fn build(cluster: &Cluster, options: &Options) -> World {
    let mut settings = options.settings.clone();
    settings.mode.balance = Balance::Automatic;
    // It only spreads moves over days.
    settings.limits.moves_per_day = u32::MAX;
    add_rules(&mut settings.rules, cluster);
    let mut world = World::new(options.seed, settings);
    world.read_every = ROUND;
    world.spares_readings = true;
    world.traced = false;
    world.views_every = Some(views_every(cluster.nodes.len()));
    let mut sites = BTreeMap::new();
    for (n, node) in cluster.nodes.iter().enumerate() {
        let at = u16::try_from(n + 1).expect("nodes were counted when the file was read");
        let mut machine = Machine::new(node.cores, node.mem_mb, u64::from(u32::MAX));
        machine.link = BitsPerSec(node.net_mbps * 1_000_000);
        world.add(at, machine, Clock::default());
        sites.insert(&*node.id, at);
    }
    for (n, vm) in cluster.vms.iter().enumerate() {
        let id = u32::try_from(n + 1).expect("VMs were counted when the file was read");
        let size = Mib(vm.mem_mb);
        let dirty_rate = Mib(whole(vm.dirty_mbps / 8.0));
        let memory = Memory { size, working_set: Mib(size.0 / WRITTEN), dirty_rate };
        let packets = whole((vm.net_rx + vm.net_tx) * PACKETS_PER_MBIT);
        world.boot_with(sites[&*vm.host], id, memory, whole(vm.cpu * 1000.0), packets);
    }
    for at in sites.into_values() {
        world.checks.overfills(world.now, at);
        world.restart(at);
    }
    // What hosts say of themselves at first is nothing: they are told anew once they have been read twice.
    world.tell_views(ROUND * 2);
    world
}

/// Views are then half as old in the mean as gossip's were measured to be at the most: 10 s for up to 50 hosts, and so much
/// more for more (docs/benchmarks.md).
fn views_every(hosts: usize) -> Duration {
    let hosts = u32::try_from(hosts).unwrap_or(u32::MAX).max(50);
    Duration::from_secs(10).saturating_mul(hosts) / 50
}

/// The cluster's rules as an operator would write them, by the names that VMs and hosts have in the simulator.
fn add_rules(rules: &mut Rules, cluster: &Cluster) {
    let vms: BTreeMap<&str, String> =
        (1..).zip(&cluster.vms).map(|(n, vm)| (&*vm.id, vm_name(n))).collect();
    let hosts: BTreeMap<&str, String> =
        (1..).zip(&cluster.nodes).map(|(n, node)| (&*node.id, host_name(n))).collect();
    for (n, rule) in cluster.rules.iter().enumerate() {
        let vms = rule.vms.iter().map(|vm| vms[&**vm].clone()).collect();
        let group = |kind, vms| Group { name: format!("rule{}", n + 1), kind, vms };
        match rule.kind {
            RuleKind::AntiAffinity => rules.group.push(group(Kind::AntiAffinity, vms)),
            RuleKind::Affinity => rules.group.push(group(Kind::Affinity, vms)),
            RuleKind::Pin => {
                let hosts = rule.hosts.iter().map(|host| hosts[&**host].clone()).collect();
                rules.pin.push(Pin { vms, hosts, ..Pin::default() });
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked when read")]
fn whole(figure: f64) -> u64 {
    (figure + 0.5) as u64
}

fn index(vm: VmId) -> usize {
    usize::try_from(vm.0).unwrap_or(usize::MAX) - 1
}

fn name(cluster: &Cluster, at: u16) -> &str {
    &cluster.nodes[usize::from(at) - 1].id
}

/// What was noted of one move.
#[derive(Default)]
struct Noted {
    reserved: BTreeMap<u16, Time>,
    acceptances: u32,
    refusals: u32,
    why: String,
    choice: String,
}

fn moves(world: &World, cluster: &Cluster) -> Vec<Move> {
    let noted = noted(world);
    let mut began: BTreeMap<MoveId, Time> = BTreeMap::new();
    let mut ended: BTreeMap<MoveId, Time> = BTreeMap::new();
    for Ordered { when, id, command, .. } in &world.commands {
        if matches!(command, HypervisorCommand::StartCopy(..)) {
            began.entry(*id).or_insert(*when);
        } else if *command == HypervisorCommand::Discard {
            ended.insert(*id, *when);
        }
    }
    let mut at: BTreeMap<VmId, u16> = BTreeMap::new();
    let first: BTreeMap<&str, u16> =
        (1..).zip(&cluster.nodes).map(|(n, node)| (&*node.id, n)).collect();
    let mut moves: Vec<Move> = Vec::new();
    for passed in &world.checks.passed {
        let vm: &Vm = &cluster.vms[index(passed.vm)];
        let from = at.insert(passed.vm, passed.to).unwrap_or(first[&*vm.host]);
        let of = &noted[&passed.id];
        // Room for those that follow was kept when the first of their group was asked about.
        let first = match passed.half {
            Half::OtherOf(first) if followed(world, first) => &noted[&first],
            Half::OtherOf(_) | Half::First(_) | Half::Alone => of,
        };
        let reserved = first.reserved[&passed.to];
        moves.push(Move {
            vm: vm.id.clone(),
            from: name(cluster, from).to_owned(),
            to: name(cluster, passed.to).to_owned(),
            t_reserve: seconds(reserved),
            t_start: seconds(began[&passed.id]),
            t_end: seconds(ended.get(&passed.id).copied().unwrap_or(world.now)),
            acceptances: of.acceptances,
            refusals: of.refusals,
            why: of.why.clone(),
            choice: of.choice.clone(),
        });
    }
    moves.sort_by(|a, b| a.t_start.total_cmp(&b.t_start));
    moves
}

/// Whether others of its affinity group followed in that move, to the same host.
fn followed(world: &World, first: MoveId) -> bool {
    let mut passed = world.checks.passed.iter();
    let to = passed.find(|it| it.id == first).map(|it| it.to);
    let others = passed.filter(|it| it.half == Half::OtherOf(first));
    others.map(|it| Some(it.to)).all(|other| other == to)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "few steps are reported")]
fn noted(world: &World) -> BTreeMap<MoveId, Noted> {
    let mut all: BTreeMap<MoveId, Noted> = BTreeMap::new();
    for (when, at, note) in &world.notes {
        let Some(id) = note.move_id else { continue };
        let of = all.entry(id).or_default();
        let at_source = number(id.host) == *at;
        match note.step {
            Step::Acceptance if at_source => of.acceptances += 1,
            Step::Acceptance => drop(of.reserved.entry(*at).or_insert(*when)),
            Step::Refusal if at_source => of.refusals += 1,
            Step::VmPolicy => of.why.clone_from(&note.reason),
            Step::Choice => of.choice.clone_from(&note.reason),
            _ => {}
        }
    }
    all
}

fn hot(world: &World) -> impl Iterator<Item = HostId> {
    world.hosts().filter(|host| host.hot(world.now).is_some()).map(Host::id)
}

fn seconds(time: Time) -> f64 {
    Duration::from_micros(time.0).as_secs_f64()
}

impl World {
    fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.sites.values().filter_map(|site| site.host.as_ref())
    }
}
