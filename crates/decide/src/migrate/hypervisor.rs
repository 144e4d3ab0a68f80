//! What `migrate` asks of a hypervisor and hears from it: the words shared by every driver.
//!
//! Each command and report goes with a `MoveId`, so that a report of an old move cannot be taken for a new one's.
//! A driver reports what it saw, never what it hopes; `migrate` alone decides what may follow.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{BitsPerSec, Bytes, Epoch, Mib, VmId};

/// What a VM is to its hypervisor; travels with the confirmation and is enough to start the incoming side.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VmDefinition {
    /// Its UUID.
    pub vm: VmId,
    /// Its name, unique on a host.
    pub name: String,
    /// Memory that the guest may use at most, without the hypervisor's own overhead.
    pub memory: Mib,
    /// Virtual processors.
    pub vcpus: u32,
    /// What a target must offer for the VM's state to load there.
    pub needs: Needs,
    /// How to start it, in the driver's own form (for `qemu`: the TOML text beside the socket). It may hold passwords.
    pub start: String,
    /// Its tags, sorted, none twice; at most `wire::limits::TAGS_MAX` of `wire::limits::TAG_MAX` bytes. Rules are read from them.
    #[serde(default)]
    pub tags: Vec<String>,
    /// What its disks take on storage that may be its host's alone. Copied along only where the VM consents, and its target has them not.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub local_disks: Mib,
    /// Who owns it, by what stands in its own definition, where its driver has a place for that: a witness, read when a VM is found. It never
    /// goes to another host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<Witness>,
}

/// Who owns a VM, as its own definition says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Witness {
    /// The owner, and since which hand-over.
    pub epoch: Epoch,
    /// The owner's name, for people: it may be one that no other host has heard of.
    pub name: String,
}

fn is_nothing(size: &Mib) -> bool {
    *size == Mib(0)
}

impl VmDefinition {
    /// The most that a copy so made sends in its first round.
    pub fn copied(&self, disks_too: bool) -> Mib {
        if disks_too { self.memory.plus(self.local_disks) } else { self.memory }
    }
}

impl fmt::Debug for VmDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VmDefinition { vm, name, memory, vcpus, needs, start, tags, local_disks, witness } =
            self;
        let mut shown = f.debug_struct("VmDefinition");
        shown
            .field("vm", vm)
            .field("name", name)
            .field("memory", memory)
            .field("vcpus", vcpus)
            .field("needs", needs)
            .field("start", &format_args!("{} bytes", start.len()))
            .field("tags", tags)
            .field("local_disks", local_disks);
        // Else digests in logs of versions that had none would differ.
        if let Some(witness) = witness {
            shown.field("witness", witness);
        }
        shown.finish()
    }
}

/// What a target must offer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Needs {
    /// `qemu`, `libvirt` or `sim`.
    pub driver: String,
    /// Machine type, fully named (`pc-i440fx-7.2`).
    pub machine: String,
    /// Accelerator (`kvm`, `tcg`).
    pub accelerator: String,
    /// The bridge that the VM's tap belongs to.
    pub bridge: String,
}

/// Whether the guest was executing when it was asked to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RunState {
    /// It ran; whoever owns it lets it run.
    Running,
    /// An operator had paused it; it stays paused wherever it goes.
    Paused,
}

/// How memory, and what goes along, is to be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CopyParameters {
    /// The most that the copy may use of the link.
    pub bandwidth: BitsPerSec,
    /// The longest pause that the last round may take, until [`HypervisorCommand::AllowPause`] says otherwise.
    pub downtime_max: Duration,
    /// Several connections side by side; used only if both sides can.
    pub multifd: bool,
    /// Encrypted, both sides known to each other by the cluster's keys: as both have agreed. A side that cannot fails.
    #[serde(default)]
    pub encrypted: bool,
    /// The guest may be slowed down while the copy does not follow. The source's alone: no target is told.
    #[serde(default)]
    pub auto_converge: bool,
    /// Disks that the target has not go along, where the driver can.
    #[serde(default)]
    pub copy_disks: bool,
}

/// Where the incoming side listens.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// In the hypervisor's own form: first where (`tcp:198.18.0.2:49152`); for `libvirt` then, after a space, its cookie: what the one has to
    /// tell the other, which may be secret.
    pub uri: String,
    /// Whether that side can do several connections.
    pub multifd: bool,
    /// The address that the certificate of whoever listens there must name: that of the target's agent, where copies come to another. The
    /// target says it, in a message that its certificate vouches for; what other hosts tell of its address is never asked. Absent: the one in `uri`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certified: Option<IpAddr>,
}

impl Endpoint {
    /// What may be shown of it: where it listens.
    pub fn shown(&self) -> &str {
        self.uri.split(char::is_whitespace).next().unwrap_or_default()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({:?}, multifd {})", self.shown(), self.multifd)
    }
}

/// What a VM gets of its host, as long as it is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VmShare {
    /// Of the processors when there is not enough for all, beside others with a weight: 1 to 10,000, 100 is usual.
    pub weight: Option<u32>,
    /// The most that it receives by its tap.
    pub rate: Option<BitsPerSec>,
    /// What it was reckoned from.
    pub why: String,
}

/// How far a copy has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CopyProgress {
    /// Sent so far, over all rounds.
    pub transferred: Bytes,
    /// Still to send in this round.
    pub remaining: Bytes,
    /// The guest's memory.
    pub total: Bytes,
    /// Rounds begun.
    pub rounds: u32,
}

/// What a completed copy took, by the source's own count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CopyFigures {
    /// Sent and rounds made.
    pub progress: CopyProgress,
    /// From the start of the copy to its end.
    pub total: Duration,
    /// From the pause of the guest to the end of the copy.
    pub downtime: Duration,
}

/// Asked of the hypervisor, for one move of one VM. Every command is idempotent: asked twice, it is done once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HypervisorCommand {
    /// Target: start the incoming side, paused, never to run by itself, and give it its share, where there is one; answered by
    /// `Prepared` or `PrepareFailed`. A share that cannot be set stops no move.
    Prepare(Box<VmDefinition>, CopyParameters, Option<Box<VmShare>>),
    /// Source: begin the copy, to stop at `pre-switchover`; answered by `Progress` …, then `PreSwitchover` or `CopyFailed`.
    StartCopy(Endpoint, CopyParameters),
    /// Source: let the last round take so long from now on, where the copy is still under way. Nothing is answered: a hypervisor that does not
    /// take it goes on as before.
    AllowPause(Duration),
    /// Source: go past `pre-switchover`; answered by `SourceCompleted` or `CopyFailed`.
    SwitchOver,
    /// Source: cancel the copy; settled only by `CopyFailed` or `SourceCompleted`, and the latter may win.
    CancelCopy,
    /// Source, after `released` is on disk: take the VM's tap off the bridge and its autostart off, then stop its process,
    /// so that nobody can let the copy run past us; answered by `Fenced`.
    Fence,
    /// Source, after the target was seen running: end the stopped copy and its tap; answered by `Discarded`.
    Discard,
    /// Source, after the target gave up the VM for good: let the process go on, put the tap back, let the copy run on (if it ran before) and
    /// announce its address; answered by `Resumed` or `ResumeFailed`.
    TakeBack(RunState),
    /// Target, after `owner` is on disk: let the complete copy run (if it ran before) and announce its address;
    /// refused before the incoming side is `completed` and `paused`; answered by `Resumed` or `ResumeFailed`, or by
    /// `IncomingGone` if the copy died before it was ever let run.
    Resume(RunState),
    /// Target: end the incoming side; answered by `IncomingGone` once it is proven gone, also when it never was there.
    DestroyIncoming,
    /// Target, after it has waited in vain: end the incoming side unless its copy is complete; answered by `IncomingGone`, or
    /// by `Looked` with what is there.
    DestroyIncomplete,
    /// Either side, after a restart: look, take up following what is under way, and answer with `Looked`.
    Look,
}

/// What a hypervisor process of a VM is doing, as seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Seen {
    /// No process, proven.
    Gone,
    /// The guest executes here.
    Running,
    /// Stopped, not by a migration.
    Paused,
    /// Incoming side, not complete.
    Incoming,
    /// Incoming side, complete and paused, never resumed.
    IncomingComplete,
    /// A copy to elsewhere is under way (setup, active, pre-switchover, device).
    Copying,
    /// A copy to elsewhere is complete; stopped since.
    PostMigrate,
    /// The process is there but does not answer.
    Unknown,
}

/// Heard from the hypervisor about one move of one VM.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HypervisorReport {
    /// Target: the incoming side listens, paused.
    Prepared(Endpoint),
    /// Target: it could not be started, and why; nothing of it is left.
    PrepareFailed(String),
    /// Source: the copy goes on.
    Progress(CopyProgress),
    /// Source: the guest is paused, the last round waits for `SwitchOver`.
    PreSwitchover,
    /// Source: the copy failed or was cancelled, and why: a terminal state. What the VM does here now.
    CopyFailed(String, Seen),
    /// Source: `completed` and `postmigrate`; the guest is stopped here for good unless taken back.
    SourceCompleted(CopyFigures),
    /// Target: incoming `completed`, guest paused.
    IncomingCompleted,
    /// Target: the incoming side failed or died before it was complete, and why; nothing of it is left.
    IncomingFailed(String),
    /// Source: the tap is off the bridge, and the copy's process stopped.
    Fenced,
    /// Source: the stopped copy is gone.
    Discarded,
    /// The guest was *seen* running (or, if it was paused before the move, is in place and paused).
    Resumed,
    /// It did not come up, and why; what is there.
    ResumeFailed(String, Seen),
    /// Target: the incoming side is proven gone.
    IncomingGone,
    /// What `Look` found.
    Looked(Seen),
}

/// Seen of a VM outside of any move.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Sighting {
    /// A VM was found here, at start or later, in this state.
    Found(Box<VmDefinition>, RunState),
    /// A definition or socket is here but the VM cannot be watched or moved; the text names the file and what to do.
    Unusable(Option<VmId>, String),
    /// A VM's process ended; the text says how.
    Gone(VmId, String),
    /// An operator paused or resumed the guest.
    RunStateChanged(VmId, RunState),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_where_an_endpoint_listens_is_ever_shown() {
        let uri = "tcp:198.18.0.2:49152 <cookie>secret</cookie>".to_owned();
        let endpoint = Endpoint { uri, multifd: true, certified: None };
        assert_eq!(endpoint.shown(), "tcp:198.18.0.2:49152");
        assert!(!format!("{endpoint:?}").contains("secret"), "{endpoint:?}");
    }
}
