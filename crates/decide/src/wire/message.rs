//! What hosts say to each other, by the words of the method. Only durations cross the wire, never a clock reading.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::migrate::hypervisor::{CopyParameters, Endpoint, Needs, RunState, VmDefinition};
use crate::placement::exchange::Side;
use crate::policy::settings::Encryption;
use crate::units::{Cost, Epoch, HostId, JournalId, Mib, MoveId, VmId};
use crate::usage::history::aged::AgedHistory;
use crate::usage::load::Load;

/// A journal and how far it had come: a journal that is another, or has gone back, may not answer for this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JournalMark {
    /// Which.
    pub id: JournalId,
    /// Its durable writes so far.
    pub generation: u64,
    /// Its durable writes when the agent opened it. Less than another host has heard of before that: it was set back.
    pub opened: u64,
    /// Drawn by lot at that opening: tells two openings of one journal apart, also of its copies.
    pub life: u64,
}

impl JournalMark {
    /// Whether this is that journal, and has come at least as far.
    pub fn continues(&self, named: &JournalMark) -> bool {
        self.id == named.id && self.generation >= named.generation
    }
}

/// One message about one move.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub from: HostId,
    /// The move it is about.
    pub move_id: MoveId,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the words of the variant say what its fields are")]
pub enum Body {
    /// Source to many: who takes this VM?
    Request(Box<Request>),
    /// Target: I would, at this cost; room is reserved for so long; and this would come in return, if the source wishes for it.
    /// `encrypted`: whether the copy will be, by what both want.
    Acceptance {
        cost: Cost,
        reserved: Duration,
        in_return: Option<Box<Companion>>,
        #[serde(default)]
        encrypted: bool,
    },
    /// Target: no, and why; also late, instead of readiness. `known_epoch`: the VM's, where it is known here to be above
    /// the one that was asked under.
    Refusal { why: String, known_epoch: Option<u64> },
    /// Source: not you, or not any more; all that was kept or prepared for this move may go.
    Release,
    /// Source to the chosen target: you; here is what the VM is.
    Confirmation(Box<Confirmation>),
    /// Source to the chosen target: the VM's usage history.
    History(Box<AgedHistory>),
    /// Target: I have read the history and the VM may come.
    Readiness { cost: Cost, endpoint: Endpoint, journal: JournalMark },
    /// Source: it is yours as of this epoch. Repeated until answered.
    HandOver { vm: VmId, epoch: Epoch, run: RunState, journal: JournalMark },
    /// Source: what has become of it under that epoch? Promises nothing: our own copy died in the last round, and may have
    /// run on before. Repeated until answered.
    Inquiry { vm: VmId, epoch: Epoch, journal: JournalMark },
    /// Target: what has become of the VM under that epoch, by this journal.
    Standing { vm: VmId, epoch: Epoch, standing: Standing, journal: Option<JournalMark> },
    /// Target, some time after the VM has arrived: what it asks, as measured here. Repeated a few times until answered.
    Measured { vm: VmId, load: Load },
    /// Source: whether the move brought at least half of what was promised of it.
    PayBack { vm: VmId, paid: bool },
}

impl Body {
    /// The word for it in logs.
    pub fn name(&self) -> &'static str {
        match self {
            Body::Request(_) => "request",
            Body::Acceptance { .. } => "acceptance",
            Body::Refusal { .. } => "refusal",
            Body::Release => "release",
            Body::Confirmation(_) => "confirmation",
            Body::History(_) => "usage history",
            Body::Readiness { .. } => "readiness",
            Body::HandOver { .. } => "hand-over",
            Body::Inquiry { .. } => "inquiry",
            Body::Standing { .. } => "standing",
            Body::Measured { .. } => "measured figures",
            Body::PayBack { .. } => "pay-back",
        }
    }
}

/// Who takes this VM?
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Request {
    /// Counts the repetitions of this request from 1.
    pub attempt: u32,
    /// The VM.
    pub vm: VmId,
    /// Its name, for people.
    pub name: String,
    /// What it asks of its host; frozen for this move.
    pub demand: Load,
    /// Memory of the guest, without overhead.
    pub memory: Mib,
    /// What the target must offer.
    pub needs: Needs,
    /// A higher cost than this would be of no use; absent for a move by hand, where any cost will do.
    pub useful_max: Option<Cost>,
    /// Hash of the settings that all hosts must agree on.
    pub policy_hash: u64,
    /// Who should answer; empty: all.
    pub asked: Vec<HostId>,
    /// How long the source waits for answers, from when it sent.
    pub answer_within: Duration,
    /// The VM's epoch number, by the source's journal.
    pub epoch: u64,
    /// Those of its tags that say where it may be; at most `wire::limits::RULE_TAGS_BYTES_MAX` bytes together.
    #[serde(default)]
    pub tags: Vec<String>,
    /// A person overrides what rules say of where it may be; never room, nor what the target must offer.
    #[serde(default)]
    pub forced: bool,
    /// A VM may come in return; absent: the source wants none.
    #[serde(default)]
    pub exchange: Option<Exchange>,
    /// The move whose other half this is: what it asks for was agreed there.
    #[serde(default)]
    pub half_of: Option<MoveId>,
    /// The other VMs of its affinity groups: they follow to the same host, and room for all is asked for at once.
    #[serde(default)]
    pub followers: Vec<Companion>,
    /// It is to join its affinity group where that is: if it is refused there, the group may come to it.
    #[serde(default)]
    pub joins: bool,
    /// Whether the source wants the copy encrypted.
    #[serde(default)]
    pub encryption: Encryption,
}

/// What a target must know of the source to choose a VM to give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Exchange {
    /// What the source is, the VM that it asks about still there.
    pub side: Side,
    /// Memory that it may give to a guest once that VM is gone, the hypervisor's overhead included.
    pub room: Mib,
    /// A person has applied the move: a VM may be given back for it that waits for a person.
    #[serde(default)]
    pub applied: bool,
}

/// A VM that would come in return for another, or that follows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Companion {
    /// Which.
    pub vm: VmId,
    /// Its name, for people.
    pub name: String,
    /// What it is expected to ask of its host; frozen for this move. Its memory is that of the guest, without overhead.
    pub demand: Load,
    /// What its new host must offer.
    pub needs: Needs,
    /// Those of its tags that say where it may be; limited as a request's.
    pub tags: Vec<String>,
}

/// You; here is what the VM is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Confirmation {
    /// The VM's epoch now, under the source.
    pub epoch: Epoch,
    /// Enough to start the incoming side.
    pub definition: VmDefinition,
    /// How the memory will be copied.
    pub copy: CopyParameters,
    /// How many moves of the VM in a row did not pay.
    #[serde(default)]
    pub unpaid: u32,
    /// Whether the source wishes to hear [`Body::Measured`].
    #[serde(default)]
    pub measured: bool,
    /// How long the VM is to have been there before that, at the least.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub measured_after: Duration,
}

/// What has become of a VM at the target (DESIGN's lost answers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Standing {
    /// It is the owner and the guest was seen running there.
    Running,
    /// It is the owner on disk; the guest has not been resumed yet.
    OwnerNotResumed,
    /// It is the owner, and its copy is gone: the VM is down.
    OwnerCopyGone,
    /// It is not the owner and never will be under that epoch; its incoming side is proven gone.
    Void,
    /// Its copy is not complete yet.
    NotComplete,
    /// It cannot say: it has another journal than the one that promised. A person must look.
    Unknown,
}
