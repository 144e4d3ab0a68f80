//! The words of a case: phase, fault, outcome, and what was found.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::phase::PhaseRead;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        pub enum $name { $($(#[$of])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            /// All of them, in order.
            pub const ALL: &[$name] = &[$($name::$variant,)*];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $($name::$variant => $word,)* })
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(word: &str) -> Result<$name, String> {
                let known = || $name::ALL.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let found = $name::ALL.iter().copied().find(|one| one.to_string() == word);
                found.ok_or_else(|| format!("{word:?} is none of: {}", known()))
            }
        }
    };
}

words! {
    /// Where a move stands when the fault comes.
    Phase {
        /// Decided at the source, nobody asked yet.
        Request = "request",
        /// The chosen target has been told.
        Confirmed = "confirmed",
        /// The target has read the usage history, nothing is on its disk yet.
        History = "history",
        /// The incoming side listens and the source knows; nothing is on the source's disk yet.
        Ready = "ready",
        /// Memory is being copied.
        Copying = "copying",
        /// The guest is paused for the last round, which was not begun.
        BeforeSwitchOver = "before switch-over",
        /// The copy is complete, `released` on disk, the source fenced; the hand-over was not sent.
        AfterSwitchOver = "after switch-over",
        /// The VM runs at the target, which has not said so.
        Done = "done",
    }
}

words! {
    /// What breaks.
    Fault {
        /// kill -9; restarted afterwards.
        SourceAgent = "source agent killed",
        /// kill -9; restarted afterwards.
        TargetAgent = "target agent killed",
        /// kill -9; restarted afterwards, the target's first.
        BothAgents = "both agents killed",
        /// kill -9.
        SourceQemu = "source's QEMU killed",
        /// kill -9.
        TargetQemu = "target's QEMU killed",
        /// Nothing that the target sends arrives anywhere.
        TargetUnheard = "target cannot be heard",
        /// Nothing arrives at the target.
        TargetDeaf = "target cannot hear",
        /// The target's cable is pulled.
        TargetCut = "target cut off",
        /// The disk of the source's journal is full.
        SourceDisk = "source's disk full",
        /// The disk of the target's journal is full.
        TargetDisk = "target's disk full",
        /// Of the copy's own connection, nothing that the target sends arrives.
        ReturnPath = "return path cut",
        /// Nothing that the target's agent says about moves arrives; gossip and copy pass.
        Replies = "target's replies dropped",
        /// Somebody tells the source's QEMU to let the guest run.
        Cont = "cont by hand at source",
        /// The source's agent ends, and comes back with a journal from before the move.
        SourceJournal = "source's journal set back",
        /// The target's agent ends, and comes back with a journal from before the move.
        TargetJournal = "target's journal set back",
        /// kill -9; restarted afterwards. Only where there is a libvirt.
        SourceLibvirt = "source's libvirtd killed",
        /// kill -9; restarted afterwards. Only where there is a libvirt.
        TargetLibvirt = "target's libvirtd killed",
    }
}

/// By what the guest is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// A bare QEMU, by its QMP socket.
    Qemu,
    /// A domain, by the libvirt of each host.
    Libvirt,
}

impl Fault {
    /// The faults that there can be under a driver, in order.
    pub fn of(driver: Driver) -> impl Iterator<Item = Fault> {
        let there = move |fault: &Fault| driver == Driver::Libvirt || !fault.kills_libvirt();
        Fault::ALL.iter().copied().filter(there)
    }

    /// Whether a libvirt daemon is killed.
    pub(crate) fn kills_libvirt(self) -> bool {
        matches!(self, Fault::SourceLibvirt | Fault::TargetLibvirt)
    }
}

words! {
    /// What became of the VM.
    Outcome {
        /// It runs at the target.
        Moved = "moved",
        /// It runs at the source, and the move is over there.
        Stays = "stays",
        /// It runs at the source, and the move goes on.
        GoesOn = "goes on",
        /// It is paused, and an alarm says so.
        Paused = "paused, alarm",
        /// It is paused until an agent, or a libvirt daemon, that is away comes back.
        Waits = "paused, agent away",
        /// Its only complete copy died: reported, definition kept, nothing started elsewhere.
        Down = "vm_down",
        /// None of these.
        Other = "other",
    }
}

/// What became of the VM at one time, and how many copies ran then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct State {
    /// In a word.
    pub outcome: Outcome,
    /// Copies that execute.
    pub running_copies: usize,
}

/// One case and what was found.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// Where the move stood.
    pub phase: Phase,
    /// What broke.
    pub fault: Fault,
    /// What became of the VM: while the fault lasts, or in the end where it ends by itself.
    pub outcome: Outcome,
    /// Copies that execute then; more than one if ever more were seen at once.
    pub running_copies: usize,
    /// Whether heartbeats came twice, went back, or from two hosts in turns.
    pub heartbeat_forked: bool,
    /// Whether the VM is gone without a word, or without its definition.
    pub lost: bool,
    /// Where the move stood, as read from the disks of the stopped agent and the other.
    pub phase_read: Option<PhaseRead>,
    /// While the fault lasts, where that is not what `outcome` says.
    pub while_it_lasts: Option<State>,
    /// After the fault has ended, where that is not what `outcome` says.
    pub healed: Option<State>,
    /// From the fault to the report that the VM is down.
    pub reported_ms: Option<u64>,
    /// Why `running_copies` is not 1.
    pub rule: Option<&'static str>,
    /// How long the case took.
    pub seconds: f64,
    /// Whether all came as the table has it.
    pub ok: bool,
    /// What did not.
    pub problem: Option<String>,
}
