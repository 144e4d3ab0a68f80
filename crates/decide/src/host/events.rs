//! What goes into a host and what comes out of it: all that it is and does hangs on these.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::drain::Left;
use super::rests::Rests;
use super::story::Note;
use crate::log::form;
use crate::membership::Peer;
use crate::membership::inventory::Inventory;
use crate::migrate::Resolution;
use crate::migrate::hypervisor::{HypervisorCommand, HypervisorReport, Sighting, Witness};
use crate::migrate::record::{MoveRecord, Record, VmRecord};
use crate::placement::admission::Offered;
use crate::policy::rules::Excluded;
use crate::policy::rules::hours::LocalTimes;
use crate::policy::settings::Settings;
use crate::units::{HostId, MoveId, VmId};
use crate::usage::history::past::Past;
use crate::usage::history::quarters::Quarters;
use crate::usage::history::{Kept, Whose};
use crate::usage::reading::Reading;
use crate::wire::message::{JournalMark, Message};

/// Who this host is, and what its journal said when the agent started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// This host's id.
    pub id: HostId,
    /// This host's name.
    pub name: String,
    /// Where its agent is reached.
    #[serde(with = "form::address")]
    pub address: SocketAddr,
    /// Its journal.
    pub journal: JournalMark,
    /// What made its former state doubtful, if anything: it was set back, or is another one than before. The moves that it
    /// had open are marked so.
    pub doubt: Option<String>,
    /// How often the agent had started with this journal, this time included.
    pub incarnation: u32,
    /// The first incarnation of this journal: what happened before it does not know.
    pub first_incarnation: u32,
    /// The VMs that the journal knows.
    pub vms: BTreeMap<VmId, VmRecord>,
    /// The moves that were open.
    pub moves: BTreeMap<MoveId, MoveRecord>,
    /// What the hypervisor offers.
    pub offered: Offered,
    /// What the operator set.
    #[serde(with = "form::settings")]
    pub settings: Settings,
    /// For all that is drawn by lot.
    pub seed: u64,
}

impl Start {
    /// This host, as it tells others of itself.
    pub(super) fn peer(&self) -> Peer {
        Peer {
            host: self.id,
            name: self.name.clone(),
            address: self.address,
            incarnation: self.incarnation,
        }
    }
}

/// What happens to a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the words of the variant say what its fields are")]
pub enum Event {
    /// The deadline has come.
    Tick,
    /// Join the cluster through the agent at this address.
    Join(#[serde(with = "form::address")] SocketAddr),
    /// The monitor's reading of one cycle.
    Reading(Reading),
    /// A message from a host.
    Message(Message),
    /// A usage history came that is none, and why: of that move, by its source's word.
    BadHistory { from: HostId, move_id: MoveId, why: String },
    /// A message could not be delivered.
    Undelivered { to: HostId, message: Message, why: String },
    /// A membership datagram.
    Gossip {
        #[serde(with = "form::address")]
        from: SocketAddr,
        #[serde(with = "form::hex")]
        bytes: Vec<u8>,
    },
    /// The answer to `Fetch`: a host's VMs, or why there is none.
    Inventory { host: HostId, fetched: Result<Inventory, String> },
    /// Something that could not be read, and from where.
    BadInput(String),
    /// A VM seen outside of any move.
    Sighting(Sighting),
    /// The hypervisor reports about a move.
    Report(MoveId, VmId, HypervisorReport),
    /// The records of this number are on disk; the journal's generation since.
    Stored { number: u64, generation: u64 },
    /// The records of this number are not on disk: the journal was reopened and reread to make sure.
    StoreFailed { number: u64, why: String },
    /// A person asks; answered by `Reply` with the same number.
    Asked { number: u64, what: Ask },
    /// What was stored of a history that `Recall` asked for.
    Recalled { whose: Whose, quarters: Quarters, past: Past },
    /// Balancing moves may begin here, or may not; at first they may.
    Balancer { on: bool },
    /// A person has this host leave a VM where it is, or not any more.
    Excluded { vm: VmId, excluded: Option<Excluded> },
    /// A person has this host drained, of which these had left before; or not any more.
    Drain(Option<BTreeMap<VmId, Left>>),
    /// Rests and counts that were kept before the agent started.
    Rests(Rests),
    /// New settings.
    Settings(#[serde(with = "form::settings")] Box<Settings>),
    /// What the calendar says now; told about once a minute.
    LocalTimes(LocalTimes),
}

impl Event {
    /// Whether a VM may leave by it that could not, or was not there: persons speak of this host, or its VMs are not as they were.
    pub(super) fn frees(&self) -> bool {
        matches!(
            self,
            Event::Sighting(_) | Event::Balancer { .. } | Event::Excluded { .. } | Event::Drain(_)
        )
    }
}

/// What a person asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the words of the variant say what its fields are")]
pub enum Ask {
    /// Move a VM now, to that host if one is named.
    Move { vm: VmId, to: Option<HostId> },
    /// The same, whatever rules say of where VMs are.
    Force { vm: VmId, to: Option<HostId> },
    /// Move a VM as the policy would, if it still should leave.
    Apply { vm: VmId },
    /// Undo a move under way.
    Cancel(MoveId),
    /// End a move that cannot be settled without a person. `fenced`: the other side, of which the person has made sure that
    /// the VM does not run there and will not.
    Resolve { move_id: MoveId, resolution: Resolution, fenced: Option<HostId> },
}

/// What a host wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the words of the variant say what its fields are")]
pub enum Action {
    /// Send a message to one host.
    Send { to: HostId, address: SocketAddr, message: Message },
    /// Send a request to many: by multicast or broadcast, or to each of these addresses.
    Cast { message: Message, known: Vec<SocketAddr> },
    /// Send a membership datagram.
    Gossip { to: SocketAddr, bytes: Vec<u8> },
    /// Fetch a host's inventory; `Inventory` follows.
    Fetch { from: HostId, address: SocketAddr },
    /// Write these together; `Stored` or `StoreFailed` with this number follows, in the order of numbers.
    Persist { number: u64, records: Vec<Record> },
    /// Keep these parts of histories, sooner or later: nothing waits for it, and losing the newest minutes does little harm.
    Keep(Vec<Kept>),
    /// Give back what is stored of a history, what came with a move of the VM to here included; `Recalled` follows if there is
    /// something.
    Recall(Whose),
    /// What came of that VM's history with its move to here is not needed: the move was undone.
    DropHistory(VmId),
    /// Ask the hypervisor.
    Hypervisor(MoveId, VmId, HypervisorCommand),
    /// Have that VM's own definition say that this host owns it under this epoch, which the journal has: where the driver has a place for that.
    /// Nothing waits for it, and nothing follows.
    Testify(VmId, Witness),
    /// That VM has left this host, which is being drained: keep it, to be told at the next start.
    KeepLeft(VmId, Left),
    /// Keep these as a whole, sooner or later, to be told at the next start.
    KeepRests(Rests),
    /// Note what was decided or seen, for people.
    Note(Note),
    /// Answer to `Asked` of this number: the move, or why not.
    Reply { number: u64, answer: Result<MoveId, String> },
}
