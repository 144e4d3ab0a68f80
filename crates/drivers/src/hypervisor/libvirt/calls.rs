//! What is asked of libvirt, one function for each procedure: numbers, flags and forms are here alone.
//!
//! Source: libvirt's `remote_protocol.x` and its header `libvirt-domain.h`.

use std::collections::BTreeMap;
use std::time::Duration;

use decide::units::{Bytes, VmId};

use super::rpc::{Event, Rpc, RpcError};
use super::xdr::{Garbled, Reader, Value, Writer};

/// From this version on, 8.9, an undefine can be told to keep a guest's TPM; it would not by itself.
const KEEPS_TPM: u64 = 8_009_000;

/// Storage may be slow.
const STORAGE_MAX: Duration = Duration::from_secs(60);

type Result<T> = std::result::Result<T, RpcError>;
/// Figures by name.
pub(super) type Figures = BTreeMap<String, Value>;

/// How libvirt names a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Domain {
    /// Unique on a host.
    pub(super) name: String,
    /// Its UUID.
    pub(super) vm: VmId,
    /// Its number while it is active, else -1.
    id: i32,
}

/// What a domain does (`virDomainState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It runs, or is about to shut down by itself.
    Running,
    /// It is paused: by a person, at its start, by libvirt for an error.
    Paused,
    /// It is paused by a migration, in or out.
    PausedByMigration,
    /// It has no process.
    Off,
}

/// What a job of a domain is (`virDomainGetJobStats`).
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// Under way, not over.
    pub(super) active: bool,
    /// A migration to elsewhere.
    pub(super) leaves: bool,
    /// How far.
    pub(super) figures: Figures,
}

/// How a copy is to be made (`virDomainMigrateFlags`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flags(u32);

impl Flags {
    /// Live, paused at the target until we resume it, given up at an I/O error.
    pub(super) fn new(encrypted: bool, parallel: bool) -> Flags {
        const LIVE: u32 = 1;
        const PAUSED: u32 = 1 << 5;
        const ABORT_ON_ERROR: u32 = 1 << 12;
        const TLS: u32 = 1 << 16;
        const PARALLEL: u32 = 1 << 17;
        let or = |flag: u32, wanted: bool| if wanted { flag } else { 0 };
        Flags(LIVE | PAUSED | ABORT_ON_ERROR | or(TLS, encrypted) | or(PARALLEL, parallel))
    }

    /// The same, with disks that go along. Both sides must say so.
    pub(super) fn with_disks(self, any: bool) -> Flags {
        const NON_SHARED_DISK: u32 = 1 << 6;
        Flags(if any { self.0 | NON_SHARED_DISK } else { self.0 })
    }

    /// The same, with the guest slowed down while the copy does not follow: for the source alone.
    pub(super) fn slowing(self, consents: bool) -> Flags {
        const AUTO_CONVERGE: u32 = 1 << 13;
        Flags(if consents { self.0 | AUTO_CONVERGE } else { self.0 })
    }
}

/// A storage pool.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    name: String,
    uuid: [u8; 16],
}

/// A volume in one.
#[derive(Clone, Debug)]
pub(super) struct Volume {
    pool: String,
    name: String,
    key: String,
}

/// A processor as a definition shows it to its guest, and what is to show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CpuOf {
    /// QEMU's path; absent: libvirt's choice.
    pub(super) emulator: Option<String>,
    /// Such as `x86_64`.
    pub(super) arch: String,
    /// Machine type.
    pub(super) machine: String,
    /// `kvm` or `qemu`.
    pub(super) kind: String,
    /// The element `<cpu>`.
    pub(super) xml: String,
}

/// A domain's life has changed (`virDomainEventType` and its detail).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Of which.
    pub(super) domain: Domain,
    /// Its process ended, and how.
    pub(super) ended: Option<&'static str>,
}

const EVENT_LIFECYCLE: u32 = 318;
const EVENT_DEVICE_REMOVED: u32 = 333;
const EVENT_DEVICE_ADDED: u32 = 354;
const EVENT_METADATA: u32 = 379;
/// Of the program for QEMU: its own events, as they come.
const EVENT_OF_QEMU: u32 = 6;
/// The numbers by which these events are asked for.
const EVENTS: [u32; 4] = [0, 15, 19, 23];

/// A text, read from the live definition with what only its owner sees.
const SECURE: u32 = 1;
const INACTIVE: u32 = 2;

impl Rpc {
    /// The daemon's version, as major × 1,000,000 + minor × 1,000 + release.
    pub(super) async fn version(&self) -> Result<u64> {
        let answer = self.call(157, Writer::default()).await?;
        Ok(Reader(&answer).long()?)
    }

    /// The version of QEMU that it starts, counted likewise.
    pub(super) async fn hypervisor(&self) -> Result<u64> {
        let answer = self.call(4, Writer::default()).await?;
        Ok(Reader(&answer).long()?)
    }

    /// Whether a QEMU of this host can show that processor (`virConnectCompareHypervisorCPU`). What is missing comes as an error.
    pub(super) async fn compare_cpu(&self, of: &CpuOf) -> Result<bool> {
        const FAIL_INCOMPATIBLE: u32 = 1;
        let CpuOf { emulator, arch, machine, kind, xml } = of;
        let arguments = Writer::default().maybe(emulator.as_deref()).maybe(Some(arch));
        let arguments = arguments.maybe(Some(machine)).maybe(Some(kind)).text(xml);
        let answer = self.call(393, arguments.word(FAIL_INCOMPATIBLE)).await?;
        Ok(Reader(&answer).signed()? > 0)
    }

    /// What domains like that can have here (`virConnectGetDomainCapabilities`), as XML.
    pub(super) async fn domain_capabilities(&self, of: &CpuOf) -> Result<String> {
        let CpuOf { emulator, arch, machine, kind, .. } = of;
        let arguments = Writer::default().maybe(emulator.as_deref()).maybe(Some(arch));
        let arguments = arguments.maybe(Some(machine)).maybe(Some(kind)).word(0);
        let answer = self.call(342, arguments).await?;
        Ok(Reader(&answer).text()?)
    }

    /// Has events of all domains sent.
    pub(super) async fn register(&self) -> Result<()> {
        for event in EVENTS {
            self.call(316, Writer::default().word(event).word(0)).await?;
        }
        Ok(())
    }

    /// Has a domain's end told, and what QEMU says of its migrations.
    pub(super) async fn register_migrations(&self) -> Result<()> {
        self.call(316, Writer::default().word(0).word(0)).await?;
        let arguments = Writer::default().word(0).maybe(Some("MIGRATION")).word(0);
        self.call_qemu(4, arguments).await.map(drop)
    }

    /// All domains, running or not.
    pub(super) async fn domains(&self) -> Result<Vec<Domain>> {
        let answer = self.call(273, Writer::default().word(1).word(0)).await?;
        let mut reader = Reader(&answer);
        let mut domains = Vec::new();
        for _ in 0..reader.count()? {
            domains.push(domain(&mut reader)?);
        }
        Ok(domains)
    }

    /// The domain of that UUID.
    pub(super) async fn lookup(&self, vm: VmId) -> Result<Domain> {
        let answer = self.call(24, Writer::default().fixed(&vm.0.to_be_bytes())).await?;
        Ok(domain(&mut Reader(&answer))?)
    }

    /// What it does.
    pub(super) async fn state(&self, of: &Domain) -> Result<State> {
        let answer = self.call(212, of.write().word(0)).await?;
        let mut reader = Reader(&answer);
        Ok(match (reader.word()?, reader.word()?) {
            (3, 2) => State::PausedByMigration,
            // About to start.
            (3, 11) => State::Off,
            (3, _) => State::Paused,
            (1 | 2 | 4 | 7, _) => State::Running,
            _ => State::Off,
        })
    }

    /// Its live definition.
    pub(super) async fn live(&self, of: &Domain) -> Result<String> {
        self.definition(of, SECURE).await
    }

    /// The definition that is kept for its next start; absent if it is transient.
    pub(super) async fn kept(&self, of: &Domain) -> Result<Option<String>> {
        let answer = self.call(151, of.write()).await?;
        if Reader(&answer).word()? == 0 {
            return Ok(None);
        }
        self.definition(of, SECURE | INACTIVE).await.map(Some)
    }

    async fn definition(&self, of: &Domain, flags: u32) -> Result<String> {
        let answer = self.call(14, of.write().word(flags)).await?;
        Ok(Reader(&answer).text()?)
    }

    /// Whether it is started with its host.
    pub(super) async fn autostart(&self, of: &Domain) -> Result<bool> {
        let answer = self.call(15, of.write()).await?;
        Ok(Reader(&answer).word()? != 0)
    }

    /// Sets whether it is. Not possible while a copy is under way.
    pub(super) async fn set_autostart(&self, of: &Domain, on: bool) -> Result<()> {
        self.call(29, of.write().word(u32::from(on))).await.map(drop)
    }

    /// Keeps a definition for the next start.
    pub(super) async fn define(&self, definition: &str) -> Result<Domain> {
        let answer = self.call(11, Writer::default().text(definition)).await?;
        Ok(domain(&mut Reader(&answer))?)
    }

    /// Removes the definition that is kept, not what belongs to the guest: its firmware's variables and its TPM. A libvirt before
    /// [`KEEPS_TPM`] cannot be told about the latter.
    pub(super) async fn undefine(&self, of: &Domain) -> Result<()> {
        const MANAGED_SAVE: u32 = 1;
        const SNAPSHOTS: u32 = 1 << 1;
        const KEEP_NVRAM: u32 = 1 << 3;
        const CHECKPOINTS: u32 = 1 << 4;
        const KEEP_TPM: u32 = 1 << 6;
        let tpm = if self.version().await? >= KEEPS_TPM { KEEP_TPM } else { 0 };
        let flags = MANAGED_SAVE | SNAPSHOTS | KEEP_NVRAM | CHECKPOINTS | tpm;
        self.call(231, of.write().word(flags)).await.map(drop)
    }

    /// Writes what stands of one namespace in its `<metadata>`, now and, if `kept`, for its next start; nothing takes that out. What others
    /// keep there is not touched.
    pub(super) async fn set_metadata(
        &self,
        of: &Domain,
        (prefix, namespace): (&str, &str),
        element: Option<&str>,
        kept: bool,
    ) -> Result<()> {
        const ELEMENT: u32 = 2;
        const LIVE: u32 = 1;
        const CONFIG: u32 = 2;
        let arguments = of.write().word(ELEMENT).maybe(element).maybe(Some(prefix));
        let flags = if kept { LIVE | CONFIG } else { LIVE };
        self.call(264, arguments.maybe(Some(namespace)).word(flags)).await.map(drop)
    }

    /// Lets it run.
    pub(super) async fn resume(&self, of: &Domain) -> Result<()> {
        self.call(28, of.write()).await.map(drop)
    }

    /// Ends its process. Returns once it is gone, or could not be ended.
    pub(super) async fn destroy(&self, of: &Domain) -> Result<()> {
        self.call_within(Duration::from_secs(60), 12, of.write()).await.map(drop)
    }

    /// Its job; the last one that ended if `over`.
    pub(super) async fn job(&self, of: &Domain, over: bool) -> Result<Job> {
        const COMPLETED: u32 = 1;
        const KEEP: u32 = 2;
        let flags = if over { COMPLETED | KEEP } else { 0 };
        let answer = self.call(298, of.write().word(flags)).await?;
        let mut reader = Reader(&answer);
        let kind = reader.word()?;
        let figures = reader.parameters()?;
        let leaves = figures.get("operation") == Some(&Value::Number(5));
        Ok(Job { active: matches!(kind, 1 | 2), leaves, figures })
    }

    /// Cancels its job.
    pub(super) async fn abort(&self, of: &Domain) -> Result<()> {
        self.call(164, of.write()).await.map(drop)
    }

    /// How long the last round of a copy may take.
    pub(super) async fn set_downtime(&self, of: &Domain, max: Duration) -> Result<()> {
        let milliseconds = u64::try_from(max.as_millis()).unwrap_or(u64::MAX).max(1);
        self.call(166, of.write().long(milliseconds).word(0)).await.map(drop)
    }

    /// First step of a move, at the source: whether it can be moved at all. Gives a cookie for the target and the definition.
    pub(super) async fn begin(
        &self,
        of: &Domain,
        parameters: &[(&str, Value)],
        flags: Flags,
    ) -> Result<(Vec<u8>, String)> {
        let answer = self.call(302, of.write().parameters(parameters).word(flags.0)).await?;
        let mut reader = Reader(&answer);
        Ok((reader.opaque()?.to_vec(), reader.text()?))
    }

    /// Second step, at the target: starts the incoming side. Gives a cookie for the source and where it listens.
    pub(super) async fn prepare(
        &self,
        max: Duration,
        parameters: &[(&str, Value)],
        cookie: &[u8],
        flags: Flags,
    ) -> Result<(Vec<u8>, Option<String>)> {
        let arguments = Writer::default().parameters(parameters).opaque(cookie).word(flags.0);
        let answer = self.call_within(max, 303, arguments).await?;
        let mut reader = Reader(&answer);
        Ok((reader.opaque()?.to_vec(), reader.maybe()?))
    }

    /// Third step, at the source: the copy. Ends once it is complete; the guest is paused then.
    pub(super) async fn perform(
        &self,
        of: &Domain,
        parameters: &[(&str, Value)],
        cookie: &[u8],
        flags: Flags,
    ) -> Result<()> {
        let arguments = of.write().word(0).parameters(parameters).opaque(cookie).word(flags.0);
        self.call_for_ever(305, arguments).await.map(drop)
    }

    /// Fourth step, at the target: ends once the copy is complete, and leaves the guest paused; at an error nothing is left of it.
    /// It may be called before the copy begins, without a cookie: with one that names disks it ends their copy first.
    pub(super) async fn finish(&self, name: &str, cookie: &[u8], flags: Flags) -> Result<()> {
        let name = [("destination_name", Value::Text(name.to_owned()))];
        let arguments = Writer::default().parameters(&name).opaque(cookie).word(flags.0).word(0);
        self.call_for_ever(306, arguments).await.map(drop)
    }

    /// Last step, at the source: ends the copy that stayed; or, if `back`, lets it run on if it ran before.
    pub(super) async fn confirm(&self, of: &Domain, flags: Flags, back: bool) -> Result<()> {
        let arguments = of.write().parameters(&[]).opaque(&[]).word(flags.0).word(u32::from(back));
        self.call_within(Duration::from_secs(60), 307, arguments).await.map(drop)
    }

    /// The active pool at that folder.
    pub(super) async fn pool_at(&self, folder: &str) -> Result<Pool> {
        let answer = self.call(391, Writer::default().text(folder)).await?;
        let mut reader = Reader(&answer);
        let name = reader.text()?;
        let uuid = reader.fixed(16)?.try_into().map_err(|_never| Garbled("a UUID"))?;
        Ok(Pool { name, uuid })
    }

    /// What may still be written to it.
    pub(super) async fn pool_available(&self, pool: &Pool) -> Result<Bytes> {
        let answer = self.call(87, pool.write()).await?;
        let mut reader = Reader(&answer);
        let (_state, _capacity, _allocation) = (reader.word()?, reader.long()?, reader.long()?);
        Ok(Bytes(reader.long()?))
    }

    /// Has it look what is there.
    pub(super) async fn pool_refresh(&self, pool: &Pool) -> Result<()> {
        self.call_within(STORAGE_MAX, 83, pool.write().word(0)).await.map(drop)
    }

    /// Makes a volume, of which there is none of that name.
    pub(super) async fn make_volume(&self, pool: &Pool, definition: &str) -> Result<()> {
        let arguments = pool.write().text(definition).word(0);
        self.call_within(STORAGE_MAX, 93, arguments).await.map(drop)
    }

    /// The volume that is that file.
    pub(super) async fn volume_at(&self, path: &str) -> Result<Volume> {
        let answer = self.call(97, Writer::default().text(path)).await?;
        let mut reader = Reader(&answer);
        Ok(Volume { pool: reader.text()?, name: reader.text()?, key: reader.text()? })
    }

    /// Removes it, for good.
    pub(super) async fn remove_volume(&self, volume: &Volume) -> Result<()> {
        let Volume { pool, name, key } = volume;
        let arguments = Writer::default().text(pool).text(name).text(key).word(0);
        self.call_within(STORAGE_MAX, 94, arguments).await.map(drop)
    }

    /// Figures of these domains, in one call: state, processors, balloon, disks. What would have to wait is left out.
    pub(super) async fn figures(&self, of: &[Domain]) -> Result<BTreeMap<VmId, Figures>> {
        const STATE: u32 = 1;
        const BALLOON: u32 = 1 << 2;
        const BLOCK: u32 = 1 << 5;
        const NOWAIT: u32 = 1 << 29;
        let count = u32::try_from(of.len()).unwrap_or(u32::MAX);
        let domains = of.iter().fold(Writer::default().word(count), |out, of| of.add_to(out));
        let arguments = domains.word(STATE | BALLOON | BLOCK).word(NOWAIT);
        let answer = self.call(344, arguments).await?;
        let mut reader = Reader(&answer);
        let mut all = BTreeMap::new();
        for _ in 0..reader.count()? {
            let domain = domain(&mut reader)?;
            all.insert(domain.vm, reader.parameters()?);
        }
        Ok(all)
    }
}

impl Pool {
    fn write(&self) -> Writer {
        Writer::default().text(&self.name).fixed(&self.uuid)
    }
}

impl Domain {
    /// Whether it has a process, or is about to.
    pub(super) fn is_active(&self) -> bool {
        self.id >= 0
    }

    fn write(&self) -> Writer {
        self.add_to(Writer::default())
    }

    fn add_to(&self, out: Writer) -> Writer {
        out.text(&self.name).fixed(&self.vm.0.to_be_bytes()).signed(self.id)
    }
}

fn domain(reader: &mut Reader<'_>) -> std::result::Result<Domain, Garbled> {
    let name = reader.text()?;
    let uuid: [u8; 16] = reader.fixed(16)?.try_into().map_err(|_never| Garbled("a UUID"))?;
    Ok(Domain { name, vm: VmId(u128::from_be_bytes(uuid)), id: reader.signed()? })
}

/// What an event says; absent where it is not one of ours.
pub(super) fn change((procedure, body): &Event) -> Option<Change> {
    let mut reader = Reader(body);
    let _callback = reader.word().ok()?;
    let domain = domain(&mut reader).ok()?;
    let ended = match *procedure {
        EVENT_LIFECYCLE => ended(reader.word().ok()?, reader.word().ok()?),
        EVENT_DEVICE_ADDED | EVENT_DEVICE_REMOVED | EVENT_METADATA => None,
        _ => return None,
    };
    Some(Change { domain, ended })
}

/// Whether an event says that a domain's migration is over, well or not, or the domain has ended.
pub(super) fn migration_over(event: &Event, vm: VmId) -> bool {
    if let Some(change) = change(event) {
        return change.domain.vm == vm && change.ended.is_some();
    }
    let (procedure, body) = event;
    let read = || {
        let mut reader = Reader(body);
        let _callback = reader.word()?;
        let of = domain(&mut reader)?;
        let (name, _seconds, _micros) = (reader.text()?, reader.long()?, reader.word()?);
        Ok::<_, Garbled>((of.vm, name, reader.maybe()?.unwrap_or_default()))
    };
    let over =
        |details: &str| ["\"completed\"", "\"failed\""].iter().any(|it| details.contains(it));
    *procedure == EVENT_OF_QEMU
        && read().is_ok_and(|(of, name, told)| of == vm && name == "MIGRATION" && over(&told))
}

/// How a process ended, by event and detail (`virDomainEventStoppedDetailType`).
fn ended(event: u32, detail: u32) -> Option<&'static str> {
    const STOPPED: u32 = 5;
    const DETAILS: [&str; 7] = [
        "it was shut down",
        "it was destroyed",
        "it crashed",
        "it was migrated",
        "it was saved",
        "its process failed",
        "it was reverted to a snapshot",
    ];
    let detail = usize::try_from(detail).unwrap_or(usize::MAX);
    (event == STOPPED).then(|| DETAILS.get(detail).copied().unwrap_or("it ended"))
}
