//! The hypervisor of one host as an actor of its own: it obeys orders, and goes on when nobody watches.
//!
//! It is QEMU as it was seen to be, without the driver's own refusals: a `cont` sent to an incoming side before its copy
//! is complete arms it to run by itself later; a copy that fails lets the guest run on at the source by itself, or leaves it
//! paused; a target may be complete while the source still waits for its word.

use decide::migrate::hypervisor::Seen;
use decide::units::MoveId;

/// One VM's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Qemu {
    pub(crate) state: State,
    /// Its memory is complete and no other copy may have run since.
    pub(crate) fresh: bool,
    /// An early `cont` will let it run when its copy is complete.
    pub(crate) armed: bool,
    /// Its tap is on the bridge.
    pub(crate) tap: bool,
    /// Its definition says that it lives here: what is no incoming side.
    pub(crate) own: bool,
    /// The move whose copy it is, or was last, a part of.
    pub(crate) copy: Option<Copied>,
}

/// The copy that a process is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Copied {
    pub(crate) id: MoveId,
    /// The other side.
    pub(crate) peer: u8,
    /// Source: a cancel was asked for.
    pub(crate) cancelled: bool,
    /// Source: the target has said that it has all. Target: the source's connection came.
    pub(crate) heard: bool,
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Running,
    Paused,
    /// The memory is being copied, the guest runs.
    Active,
    /// The guest is stopped, the last round waits for leave.
    PreSwitchover,
    /// The last round.
    Device,
    PostMigrate,
    Incoming,
    IncomingComplete,
}

impl Qemu {
    /// A VM that lives here and runs.
    pub(crate) fn running() -> Qemu {
        let (fresh, armed, tap, own, copy) = (true, false, true, true, None);
        Qemu { state: State::Running, fresh, armed, tap, own, copy }
    }

    /// An incoming side that listens.
    pub(crate) fn incoming(id: MoveId, peer: u8) -> Qemu {
        let copy = Some(Copied { id, peer, cancelled: false, heard: false });
        let (fresh, armed, tap, own) = (false, false, true, false);
        Qemu { state: State::Incoming, fresh, armed, tap, own, copy }
    }

    /// Whether the guest executes, or may begin to without anybody's leave.
    pub(crate) fn may_run(&self) -> bool {
        matches!(self.state, State::Running | State::Active) || self.armed
    }

    /// What a look from outside shows.
    pub(crate) fn seen(&self) -> Seen {
        match self.state {
            State::Running => Seen::Running,
            State::Paused => Seen::Paused,
            State::Active | State::PreSwitchover | State::Device => Seen::Copying,
            State::PostMigrate => Seen::PostMigrate,
            State::Incoming => Seen::Incoming,
            State::IncomingComplete => Seen::IncomingComplete,
        }
    }

    /// Whether a copy to elsewhere is under way.
    pub(crate) fn copying(&self) -> bool {
        matches!(self.state, State::Active | State::PreSwitchover | State::Device)
    }
}
