//! The variables of expressions: one table for the checker, for whoever fills them in, and for docs/policy.md.

use std::fmt::Write as _;

use super::{Place, Type};

/// A name that an expression may use.
#[derive(Debug, PartialEq, Eq)]
pub struct Variable {
    /// With its first part: `vm.cpu`.
    pub name: &'static str,
    /// What it is.
    pub kind: Type,
    /// Of its figures.
    pub unit: Unit,
    /// For people.
    pub meaning: &'static str,
    /// Where it can be used.
    pub places: &'static [Place],
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// It is no number.
    None,
    /// A share of the whole, never more: 0 to 1.
    Share,
    /// A share that may exceed the whole.
    Overcommit,
    /// Cores, fully used.
    Cores,
    /// Gibibytes.
    Gib,
    /// Packets each second.
    Packets,
    /// Bits each second.
    Bits,
    /// Percent of pressure, as relief and cost are told.
    Percent,
    /// How many.
    Count,
}

impl Unit {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Unit::None => "",
            Unit::Share => "0 to 1",
            Unit::Overcommit => "share, 1 is all",
            Unit::Cores => "cores",
            Unit::Gib => "GiB",
            Unit::Packets => "packets/s",
            Unit::Bits => "bit/s",
            Unit::Percent => "percent",
            Unit::Count => "count",
        }
    }
}

const ORDER: &[Place] = &[Place::VmOrder];
const SOURCE: &[Place] = &[Place::VmOrder, Place::MigrateOrder, Place::Reject];
const VM: &[Place] = &[Place::VmOrder, Place::Accept, Place::MigrateOrder, Place::Reject];
const HOST: &[Place] = &[Place::VmWhen, Place::VmOrder, Place::Accept];
const ANSWER: &[Place] = &[Place::MigrateOrder, Place::Reject];
const CLUSTER: &[Place] = &[Place::VmWhen, Place::Accept, Place::MigrateOrder, Place::Reject];

const fn number(
    name: &'static str,
    unit: Unit,
    places: &'static [Place],
    meaning: &'static str,
) -> Variable {
    Variable { name, kind: Type::Number, unit, meaning, places }
}

const fn other(
    name: &'static str,
    kind: Type,
    places: &'static [Place],
    meaning: &'static str,
) -> Variable {
    Variable { name, kind, unit: Unit::None, meaning, places }
}

/// All of them, in the order in which they are told.
pub const VARIABLES: &[Variable] = &[
    other("vm.name", Type::Text, VM, "the VM's name"),
    number(
        "vm.cpu",
        Unit::Cores,
        VM,
        "processor time that it asks for: use and what it waited for",
    ),
    number(
        "vm.cpu_share",
        Unit::Overcommit,
        VM,
        "the same, as a share of all processors of the host that judges",
    ),
    number("vm.memory_gib", Unit::Gib, VM, "its memory at full size"),
    number("vm.packets", Unit::Packets, VM, "its packets, both directions"),
    number("vm.bits", Unit::Bits, VM, "its traffic, both directions"),
    number(
        "vm.next_hour_cpu",
        Unit::Cores,
        SOURCE,
        "the mean that its history says of the coming hour; not known of a VM that has no history",
    ),
    number("vm.relief", Unit::Percent, ORDER, "what this host would be rid of without it"),
    number("vm.copy_cost", Unit::Percent, ORDER, "what copying it would cost"),
    other("host.name", Type::Text, HOST, "this host's name"),
    number("host.cpu_used", Unit::Share, HOST, "use of all its processors"),
    number(
        "host.cpu_pressure",
        Unit::Share,
        HOST,
        "share of time in which something waits for a processor; not known where the kernel does not tell",
    ),
    number("host.memory_used", Unit::Share, HOST, "memory in use, page cache not counted"),
    number("host.memory_committed", Unit::Overcommit, HOST, "memory of its VMs at full size"),
    number(
        "host.nic_used",
        Unit::Share,
        HOST,
        "use of the uplink's speed in its busier direction; not known where the driver does not tell the speed",
    ),
    number("host.packets", Unit::Packets, HOST, "packets at all taps"),
    number("host.bits", Unit::Bits, HOST, "traffic at all taps"),
    number("host.drops", Unit::Packets, HOST, "packets to or from VMs that are dropped"),
    number("host.vms", Unit::Count, HOST, "its VMs"),
    other("answer.host", Type::Text, ANSWER, "the acceptor's name"),
    number("answer.cost", Unit::Percent, ANSWER, "what the VM would cost there"),
    number("answer.cpu_used", Unit::Share, ANSWER, "use of its processors, as it last said"),
    number(
        "answer.cpu_used_after",
        Unit::Overcommit,
        ANSWER,
        "what its VMs and this one ask, as a share of its processors",
    ),
    number(
        "answer.cpu_pressure",
        Unit::Share,
        ANSWER,
        "share of time in which something waits for a processor there",
    ),
    number("answer.cores", Unit::Cores, ANSWER, "all its processors"),
    number("answer.memory_committed", Unit::Overcommit, ANSWER, "memory of its VMs at full size"),
    number("answer.room_gib", Unit::Gib, ANSWER, "memory that it could still give to VMs"),
    number("answer.packets", Unit::Packets, ANSWER, "packets at its taps"),
    number("answer.bits", Unit::Bits, ANSWER, "traffic at its taps"),
    number("answer.vms", Unit::Count, ANSWER, "its VMs"),
    number("answer.moves", Unit::Count, ANSWER, "moves under way from and to it"),
    number("cluster.hosts", Unit::Count, CLUSTER, "hosts that are known, this one included"),
    number("cluster.alive", Unit::Count, CLUSTER, "those that answer, this one included"),
    number(
        "cluster.mean_cpu_used",
        Unit::Share,
        CLUSTER,
        "mean use of processors over those, as each last said",
    ),
    number(
        "cluster.mean_memory_committed",
        Unit::Overcommit,
        CLUSTER,
        "mean of memory given to VMs over those",
    ),
];

/// The variable of this name.
pub fn named(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}

/// The table as docs/policy.md has it.
pub fn markdown() -> String {
    let mut text = "| variable | type | unit | in | meaning |\n|---|---|---|---|---|\n".to_owned();
    for Variable { name, kind, unit, meaning, places } in VARIABLES {
        let kind = kind.to_string().trim_start_matches("a ").to_owned();
        let places: Vec<&str> = places.iter().map(|place| short(*place)).collect();
        let (unit, places) = (unit.name(), places.join(", "));
        writeln!(text, "| `{name}` | {kind} | {unit} | {places} | {meaning} |")
            .expect("a string takes all that is written");
    }
    text
}

fn short(place: Place) -> &'static str {
    match place {
        Place::VmWhen => "when",
        Place::VmOrder => "VM order",
        Place::Accept => "accept",
        Place::MigrateOrder => "host order",
        Place::Reject => "reject",
    }
}
