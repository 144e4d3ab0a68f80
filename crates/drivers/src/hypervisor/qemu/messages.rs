//! QMP messages as types: what we send, and of the answers only what we use. Unknown fields and words are ignored, so
//! that newer versions of QEMU do no harm.
//!
//! Source: QEMU's `qapi/migration.json`, `qapi/run-state.json`, `qapi/net.json`, `qapi/machine.json`, `qapi/block-core.json`,
//! `qapi/qom.json`, versions 7.2 to 10.0.

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A command with its answer.
pub(super) trait Command: Serialize + Sync {
    /// Its name on the wire.
    const NAME: &'static str;
    /// What it answers.
    type Answer: DeserializeOwned;
}

macro_rules! command {
    ($(#[$doc:meta])* $name:ident { $($(#[$attr:meta])* $field:ident: $type:ty),* }, $wire:literal, $answer:ty) => {
        $(#[$doc])*
        #[derive(Debug, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub(super) struct $name { $($(#[$attr])* pub(super) $field: $type),* }

        impl Command for $name {
            const NAME: &'static str = $wire;
            type Answer = $answer;
        }
    };
}

command!(/// Ends the negotiation that begins every connection.
    AcceptCapabilities { enable: Vec<&'static str> }, "qmp_capabilities", IgnoredAny);
command!(/// What the guest's processors do.
    QueryStatus {}, "query-status", RunStateAnswer);
command!(/// The last migration, out or in.
    QueryMigrate {}, "query-migrate", Migration);
command!(/// The UUID that QEMU was started with.
    QueryUuid {}, "query-uuid", UuidAnswer);
command!(/// Whether KVM is used.
    QueryKvm {}, "query-kvm", KvmAnswer);
command!(/// One property of one object.
    QomGet { path: &'static str, property: &'static str }, "qom-get", String);
command!(/// Which migration capabilities this QEMU offers.
    QueryMigrateCapabilities {}, "query-migrate-capabilities", Vec<OfferedCapability>);
command!(/// Switches migration capabilities.
    SetCapabilities { capabilities: Vec<Capability> }, "migrate-set-capabilities", IgnoredAny);
command!(/// Sets migration parameters; absent ones stay as they are.
    SetParameters {
        #[serde(skip_serializing_if = "Option::is_none")]
        max_bandwidth: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        downtime_limit: Option<u64>,
        multifd_channels: u8
    }, "migrate-set-parameters", IgnoredAny);
command!(/// How long the last round may take from now on, in milliseconds.
    SetDowntime { downtime_limit: u64 }, "migrate-set-parameters", IgnoredAny);
command!(/// What the parameters are.
    QueryMigrateParameters {}, "query-migrate-parameters", MigrateParameters);
command!(/// Sets what encrypts a migration; an empty text stands for none.
    SetTls { tls_creds: &'static str, tls_hostname: String, tls_authz: &'static str },
    "migrate-set-parameters", IgnoredAny);
command!(/// Makes the object that holds certificates and a key.
    ObjectAddTls {
        qom_type: &'static str, id: &'static str, dir: String, endpoint: &'static str, verify_peer: bool,
        priority: &'static str
    }, "object-add", IgnoredAny);
command!(/// Makes the object that lets in one peer.
    ObjectAddAuthz { qom_type: &'static str, id: &'static str, identity: String }, "object-add", IgnoredAny);
command!(/// Removes an object.
    ObjectDel { id: &'static str }, "object-del", IgnoredAny);
command!(/// Starts to listen for a migration.
    MigrateIncoming { uri: String }, "migrate-incoming", IgnoredAny);
command!(/// Starts a migration to elsewhere.
    Migrate { uri: String }, "migrate", IgnoredAny);
command!(/// Goes on from the state named.
    MigrateContinue { state: &'static str }, "migrate-continue", IgnoredAny);
command!(/// Asks for the end of a migration; only a terminal state settles it.
    MigrateCancel {}, "migrate_cancel", IgnoredAny);
command!(/// Closes the connections of a migration at once, which a cancel alone may wait on for as long as TCP does. To be sent
    /// out of band: QEMU may hang with all else.
    Yank { instances: [YankInstance; 1] }, "yank", IgnoredAny);
command!(/// Lets the guest run.
    Cont {}, "cont", IgnoredAny);
command!(/// Ends QEMU.
    Quit {}, "quit", IgnoredAny);
command!(/// Tells the network where the guest's addresses are; times in milliseconds.
    AnnounceSelf { initial: u32, max: u32, rounds: u32, step: u32 }, "announce-self", IgnoredAny);

command!(/// The guest's processors, without a word to them.
    QueryCpusFast {}, "query-cpus-fast", Vec<CpuFast>);
command!(/// What the disks did.
    QueryBlockstats {}, "query-blockstats", Vec<BlockStats>);
command!(/// What there is below a path.
    QomList { path: &'static str }, "qom-list", Vec<QomChild>);
command!(/// One property of one object that was found.
    QomGetAt { path: String, property: &'static str }, "qom-get", Value);
command!(/// Sets a property that is a number.
    QomSet { path: String, property: &'static str, value: u64 }, "qom-set", IgnoredAny);
command!(/// Measures how fast the guest writes to its memory.
    CalcDirtyRate { calc_time: u32, mode: &'static str }, "calc-dirty-rate", IgnoredAny);
command!(/// The last measurement.
    QueryDirtyRate {}, "query-dirty-rate", DirtyRate);

impl CalcDirtyRate {
    /// The shortest that QEMU takes. By looking at samples of pages: other ways slow the guest down, or need KVM.
    pub(super) const ONE_SECOND: CalcDirtyRate =
        CalcDirtyRate { calc_time: 1, mode: "page-sampling" };
}

impl Yank {
    /// The migration's.
    pub(super) const MIGRATION: Yank = Yank { instances: [YankInstance { kind: "migration" }] };
}

/// What has connections that can be closed.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct YankInstance {
    #[serde(rename = "type")]
    kind: &'static str,
}

impl AnnounceSelf {
    /// QEMU's own defaults.
    pub(super) const DEFAULT: AnnounceSelf =
        AnnounceSelf { initial: 50, max: 550, rounds: 5, step: 100 };
}

/// One of the answers to `query-cpus-fast`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct CpuFast {
    /// The kernel's number of the thread that runs it.
    pub(super) thread_id: u32,
}

/// One of the answers to `query-blockstats`: what a device sees. What lies below it (`parent`, `backing`) is the same again.
#[derive(Debug, Deserialize)]
pub(super) struct BlockStats {
    /// Its counters.
    pub(super) stats: BlockDeviceStats,
}

/// Counters of one disk.
#[derive(Debug, Deserialize)]
pub(super) struct BlockDeviceStats {
    /// Bytes read.
    pub(super) rd_bytes: u64,
    /// Bytes written.
    pub(super) wr_bytes: u64,
    /// Reads.
    pub(super) rd_operations: u64,
    /// Writes.
    pub(super) wr_operations: u64,
}

/// One of the answers to `qom-list`.
#[derive(Debug, Deserialize)]
pub(super) struct QomChild {
    /// Its name.
    pub(super) name: String,
    /// Its type; of a device `child<TYPE>`.
    #[serde(rename = "type")]
    pub(super) kind: String,
}

/// A balloon's `guest-stats`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct GuestStats {
    /// What the guest told last.
    pub(super) stats: GuestMemory,
    /// When, in seconds since 1970; 0 while it has told nothing.
    pub(super) last_update: u64,
}

/// Bytes; all ones where the guest does not tell.
#[derive(Debug, Deserialize)]
pub(super) struct GuestMemory {
    /// All that the guest has.
    #[serde(rename = "stat-total-memory")]
    pub(super) total: u64,
    /// What it could give to a new program without swapping.
    #[serde(rename = "stat-available-memory")]
    pub(super) available: u64,
}

/// Answer to `query-dirty-rate`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct DirtyRate {
    /// MiB per second, once measured.
    pub(super) dirty_rate: Option<i64>,
    /// How far it is.
    pub(super) status: DirtyStatus,
}

/// How far a measurement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DirtyStatus {
    /// Under way.
    Measuring,
    /// Made, or none was begun.
    #[serde(other)]
    Other,
}

/// Answer to `query-migrate-parameters`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct MigrateParameters {
    /// The object that holds certificates; empty or absent: none.
    pub(super) tls_creds: Option<String>,
}

/// A migration capability and whether it is, or shall be, on.
#[derive(Debug, Serialize)]
pub(super) struct Capability {
    /// Its name.
    pub(super) capability: &'static str,
    /// On or off.
    pub(super) state: bool,
}

/// A migration capability that this QEMU knows.
#[derive(Debug, Deserialize)]
pub(super) struct OfferedCapability {
    /// Its name.
    pub(super) capability: String,
}

/// Answer to `query-status`.
#[derive(Debug, Deserialize)]
pub(super) struct RunStateAnswer {
    /// The run state.
    pub(super) status: Status,
}

/// Answer to `query-uuid`.
#[derive(Debug, Deserialize)]
pub(super) struct UuidAnswer {
    /// In the usual form.
    #[serde(rename = "UUID")]
    pub(super) uuid: String,
}

/// Answer to `query-kvm`.
#[derive(Debug, Deserialize)]
pub(super) struct KvmAnswer {
    /// Whether it is in use.
    pub(super) enabled: bool,
}

/// A run state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Status {
    /// The guest executes.
    Running,
    /// The guest sleeps by its own wish; nobody paused it.
    Suspended,
    /// Stopped by `stop`, or an incoming copy complete under `-S`.
    Paused,
    /// Started with `-S` and never let run.
    Prelaunch,
    /// Incoming side, not complete.
    Inmigrate,
    /// Stopped for the last round of a migration.
    FinishMigrate,
    /// Stopped since a migration completed.
    Postmigrate,
    /// Stopped for another reason (shut down, I/O error, panic …).
    #[serde(other)]
    Stopped,
}

impl Status {
    /// Whether nobody keeps the guest from executing.
    pub(super) fn executes(self) -> bool {
        matches!(self, Status::Running | Status::Suspended)
    }
}

/// Where a migration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum MigrationStatus {
    /// There was none.
    None,
    /// Preparing, or listening.
    Setup,
    /// Memory is being copied.
    Active,
    /// The source is paused and waits for `migrate-continue`.
    PreSwitchover,
    /// The devices' state is being copied.
    Device,
    /// A cancel is under way.
    Cancelling,
    /// Terminal: cancelled.
    Cancelled,
    /// Terminal: made.
    Completed,
    /// Terminal: not made.
    Failed,
    /// Another state that is not terminal.
    #[serde(other)]
    Other,
}

impl MigrationStatus {
    /// Whether nothing more will come of it.
    pub(super) fn settled(self) -> bool {
        matches!(
            self,
            MigrationStatus::None
                | MigrationStatus::Cancelled
                | MigrationStatus::Completed
                | MigrationStatus::Failed
        )
    }
}

/// Answer to `query-migrate`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Migration {
    status: Option<MigrationStatus>,
    /// What was sent of the memory.
    pub(super) ram: Option<Ram>,
    /// Milliseconds since the start, or that it took.
    pub(super) total_time: Option<u64>,
    /// Milliseconds from the pause to the end.
    pub(super) downtime: Option<u64>,
    /// Why it failed.
    pub(super) error_desc: Option<String>,
    /// Where the incoming side listens.
    #[serde(default)]
    pub(super) socket_address: Vec<SocketAddress>,
}

impl Migration {
    /// Where it stands.
    pub(super) fn status(&self) -> MigrationStatus {
        self.status.unwrap_or(MigrationStatus::None)
    }
}

/// How far the memory is copied.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Ram {
    /// Bytes sent.
    pub(super) transferred: u64,
    /// Bytes left in this round.
    pub(super) remaining: u64,
    /// Bytes in all.
    pub(super) total: u64,
    /// Rounds begun.
    #[serde(default)]
    pub(super) dirty_sync_count: u64,
}

/// A listening address.
#[derive(Debug, Deserialize)]
pub(super) struct SocketAddress {
    /// The port, for TCP.
    pub(super) port: Option<String>,
}

/// What QEMU says unasked, as far as we use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A migration, out or in, reached this state.
    Migration(MigrationStatus),
    /// The guest was stopped.
    Stop,
    /// The guest runs on.
    Resume,
    /// QEMU is about to end, and why.
    Shutdown(String),
    /// The connection is lost, and why; nothing follows.
    Lost(String),
}
