//! From a configuration file to an agent at work.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};
use decide::host::{Event, Host, Start};
use decide::migrate::record::{MoveRecord, VmRecord};
use decide::units::{JournalId, MoveId, VmId};
use decide::wire;
use decide::wire::message::JournalMark;
#[cfg(feature = "libvirt")]
use drivers::hypervisor::libvirt::{Libvirt, LibvirtConfig};
use drivers::hypervisor::qemu::{CopyKeys, Qemu, QemuConfig};
use drivers::hypervisor::{FromHypervisor, Hypervisor};
use drivers::store::{Entry, Events, Journal, Opened, Opening};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use trust::identity::subject;
use trust::keys::{CA_CERTIFICATE, HOST_CERTIFICATE, HOST_KEY, Keys};
use trust::window::Life;

use crate::answers::Answers;
use crate::certify;
use crate::clock::{Clock, unix_seconds};
use crate::config::{Config, Driver, RequestMode};
use crate::hold::Hold;
use crate::http::{self, Admitted, ApiSocket, Doors, Gate, Limits, TlsListener};
use crate::metrics::Totals;
use crate::net::{self, Authentication, Net, NetSettings, seal};
use crate::posting::{Posts, Ready, Teller, ready};
use crate::recording::Recording;
use crate::reload::Reload;
use crate::renewal::Renewal;
use crate::said::Said;
use crate::steering::{Ears, Hands, Question, Steering};
use crate::{history, journal, local, manager, monitoring};

/// Events kept in the log.
const EVENTS_MAX: u64 = 100_000;
/// Beside the API's socket: in a folder that is empty after a boot.
const WITNESS: &str = "journal-seen";
/// Beside the API's socket: links to this host's keys, by the names that QEMU wants.
const QEMU_TLS: &str = "qemu-tls";
/// In the folder of the journal: what was heard of each sender of datagrams.
const HEARD: &str = "heard.json";
/// What may wait to be heard from network, hypervisor and API before its sender waits.
const WAITING_MAX: usize = 1024;

/// The Evenkeel agent: watches this host's VMs and moves them to other hosts when this one is hot.
#[derive(Debug, Parser)]
#[command(
    name = "evenkeeld",
    version,
    after_help = "Example: evenkeeld --config /etc/evenkeel/evenkeel.toml"
)]
pub struct Args {
    /// What else to do than to run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The configuration file.
    #[arg(long, global = true, default_value = "/etc/evenkeel/evenkeel.toml")]
    pub config: PathBuf,
    /// Without keys: speak with the other hosts without authentication or encryption. Only accepted where every address lies in
    /// 127.0.0.0/8, ::1 or 198.18.0.0/15.
    #[arg(long)]
    pub insecure: bool,
    /// Only look for mistakes in the configuration file, rules that contradict each other included; exit code 2 if there are any.
    #[arg(long)]
    pub check: bool,
}

/// What to do instead of running, and to end.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Keys and certificates.
    #[command(flatten)]
    Certify(certify::Command),
    /// Asked by libvirt, by its hook, before a domain starts here: exit code 1, and why, if it is another host's.
    #[command(hide = true)]
    LibvirtHook {
        /// `migrate` or `prepare`.
        operation: String,
    },
    /// Whether this machine has what an agent needs, and how to mend what it has not; exit code 1 if something is wrong.
    #[command(after_help = "Example:\n  evenkeel doctor")]
    Doctor {
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
}

/// Looks for mistakes in the configuration file, for people: each on a line of its own. Gives none if there are none.
#[must_use]
pub fn check(path: &Path) -> Vec<String> {
    match Config::read(path) {
        Err(found) => found,
        Ok((config, doubtful)) => {
            let unread = ready(path, &config).err().unwrap_or_default();
            doubtful.into_iter().chain(unread).collect()
        }
    }
}

/// The configuration, if an agent may go by it.
///
/// # Errors
/// What is wrong, each on a line of its own.
pub fn admitted(args: &Args) -> Result<(Config, Option<Arc<Keys>>), Vec<String>> {
    if let Some(found) = manager::found(Path::new("/proc")) {
        return Err(vec![format!("{found}; {}", manager::MEND)]);
    }
    let (config, doubtful) = Config::read(&args.config)?;
    if let Some(doubtful) = doubtful {
        // It only balances badly.
        tracing::warn!("{doubtful}");
    }
    ready(&args.config, &config)?;
    match keys(args, &config) {
        Ok(keys) => Ok((config, keys)),
        Err(error) => Err(vec![format!("{error:#}")]),
    }
}

/// The keys to go by, or none where the operator accepts that and no stranger can come.
pub(crate) fn keys(args: &Args, config: &Config) -> anyhow::Result<Option<Arc<Keys>>> {
    let (folder, address) = (config.keys(), config.host.address);
    let there = folder.join(HOST_CERTIFICATE).exists();
    if args.insecure {
        let shown = folder.display();
        ensure!(!there, "--insecure, and there are keys in {shown}: start without it");
        config
            .suits(false)
            .map_err(|wrong| anyhow::anyhow!("{}, {wrong}", args.config.display()))?;
        ensure!(
            config.api.listen.is_none(),
            "{}, key api.listen: the API is served over TCP only with keys, and --insecure is without: take the key out, or make keys (docs/security.md)",
            args.config.display()
        );
        let place = || format!("{}, key host.address", args.config.display());
        seal::check_insecure(&[address]).with_context(place)?;
        let place = || format!("{}, key host.copy_address", args.config.display());
        return seal::check_insecure(&[config.copy_address()]).with_context(place).map(|()| None);
    }
    ensure!(
        there,
        "there are no keys in {}: run `evenkeel ca token` on the host that has the cluster's CA and `evenkeel join` here (in a new cluster \
         `evenkeel ca init --own` here first; docs/security.md); or, where every address lies in 127.0.0.0/8, ::1 or 198.18.0.0/15, start with --insecure",
        folder.display()
    );
    let keys = Keys::load(&folder)?;
    let (held, host) = (keys.held(), local::host_id(&local::machine_id()?));
    let identity = &held.identity;
    ensure!(
        identity.host == host,
        "{}/{HOST_CERTIFICATE} is for host {}, this machine is {host}: run `evenkeel keys request` here",
        folder.display(),
        identity.host
    );
    ensure!(
        identity.addresses.contains(&address),
        "{}/{HOST_CERTIFICATE} is not for host.address, {address}: run `evenkeel keys request` again",
        folder.display()
    );
    if let Some(listen) = config.api.listen.map(|listen| listen.ip()) {
        ensure!(
            listen.is_unspecified() || identity.addresses.contains(&listen),
            "{}, key api.listen: {}/{HOST_CERTIFICATE} is not for {listen}, so that no client would trust it: write {address} there, or 0.0.0.0",
            args.config.display(),
            folder.display()
        );
    }
    Ok(Some(Arc::new(keys)))
}

/// Runs the agent until it is told to stop by SIGTERM or SIGINT. VMs go on without it.
///
/// # Errors
/// Whatever keeps it from starting, named with its file, key or address.
pub async fn run(args: &Args, config: Config, keys: Option<Arc<Keys>>) -> anyhow::Result<()> {
    let reload = Reload::new(&args.config, &config, keys.is_some())?;
    let hooks = ready(&args.config, &config);
    let hooks = hooks.map_err(|wrong| anyhow::anyhow!(wrong.join("; ")))?;
    // From here on a signal waits until all is there that is to be ended in its order.
    let word = Word::listen()?;
    let agent = assemble(config, keys).await?;
    work(agent, reload, hooks, word).await
}

/// The word to stop: SIGTERM or SIGINT.
struct Word {
    term: Signal,
    int: Signal,
}

impl Word {
    fn listen() -> anyhow::Result<Word> {
        let (term, int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Word { term, int })
    }

    /// Waits for it; it may have come before.
    async fn came(mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// The parts, joined and ready to go.
struct Agent {
    steering: Steering,
    ears: Ears,
    asking: mpsc::WeakSender<Question>,
    answers: Answers,
    api: (Doors, Arc<Gate>),
    events: Arc<Events>,
    journal: JoinHandle<()>,
    history: JoinHandle<()>,
    recorder: Option<JoinHandle<()>>,
    renewal: Option<Renewal>,
}

async fn assemble(config: Config, keys: Option<Arc<Keys>>) -> anyhow::Result<Agent> {
    let clock = Clock::start();
    let machine_id = local::machine_id()?;
    let opened = Journal::open(Opening {
        dir: &config.host.state,
        witness: &config.host.api.with_file_name(WITNESS),
        machine_id: &machine_id,
        fresh_id: local::fresh_journal(unix_seconds())?,
        now: unix_seconds(),
    })?;
    let events = Arc::new(Events::open(&config.host.state, EVENTS_MAX)?);

    let (hypervisor_heard, hypervisor_ears) = mpsc::channel(WAITING_MAX);
    let hypervisor = hypervisor(&config, keys.is_some(), hypervisor_heard)?;
    let (net_heard, net_ears) = mpsc::channel(WAITING_MAX);
    let net_settings = net_settings(&config, keys.as_ref(), opened.incarnation)?;
    let request = net_settings.request.to_string();
    let net = Net::start(net_settings, net_heard).await?;
    let (spread, looks) = (net.spread(), net.looks());
    let api = doors(&config, keys.as_ref()).await?;

    let (start, journal) = start(&config, &machine_id, opened, keys.is_some()).await?;
    let journal::Thread { orders: journal, heard: journal_ears, thread: journal_thread } =
        journal::start(journal, start.moves.len())?;
    tracing::info!(host = start.name, id = %start.id, address = %start.address, "evenkeeld {} starts", env!("CARGO_PKG_VERSION"));

    let history::Thread { orders: history, heard: history_ears, thread: history_thread } =
        history::start(&config.host.state, &config.history)?;
    let (newest, newest_seen) = watch::channel(newest(&events)?);
    let (questions, question_ears) = mpsc::channel(WAITING_MAX);
    let readings = monitoring::start(config.host.uplink.clone(), Arc::clone(&hypervisor))?;
    let (now, name, mut actions) = (clock.now(), start.name.clone(), Vec::new());
    let (mut recording, recorder) = Recording::start(&config.record, now, &start);
    let host = Host::new(start, now, &mut actions);
    recording.gave(&actions, host.deadline());
    let (told, noted) = (Arc::clone(&events), Arc::clone(&events));
    let said = Said::within(&config.host.state);
    let drain = Arc::clone(&said.drain);
    let totals = Totals::new()?;
    let posts = posts(&config, &host, &events, &newest_seen, &totals);
    let hands = Hands {
        net,
        hypervisor,
        journal,
        history,
        events: told,
        newest,
        recording,
        hold: Hold::from_environment(),
        drain,
        totals,
    };
    let mut steering = Steering::new(host, clock, config.cluster.name.clone(), request, hands);
    steering.carry_out(actions);
    history::resume_rests(&config.host.state, &mut steering);
    said.resume(&mut steering).await?;
    config.seeds()?.into_iter().for_each(|seed| steering.handle(Event::Join(seed)));

    let ears = Ears {
        net: net_ears,
        hypervisor: hypervisor_ears,
        journal: journal_ears,
        history: history_ears,
        readings,
        questions: question_ears,
    };
    let (seeds, authority, lot) = (config.seeds()?, config.host.ca, local::lot()?);
    let renewal = keys.clone().map(|keys| Renewal { keys, spread, seeds, authority, name, lot });
    let asking = questions.downgrade();
    let answers = Answers::new(questions, noted, newest_seen, said, looks.clone(), posts, keys);
    looks.answer_by(http::looker(Arc::clone(&api.1), answers.clone()));
    let (journal, history) = (journal_thread, history_thread);
    Ok(Agent { steering, ears, asking, answers, api, events, journal, history, recorder, renewal })
}

/// Made before anything of this start is told: what is, they are to tell.
fn posts(
    config: &Config,
    host: &Host,
    events: &Arc<Events>,
    newest: &watch::Receiver<u64>,
    totals: &Totals,
) -> Arc<Posts> {
    let (cluster, host_id) = (config.cluster.name.clone(), host.id().to_string());
    let (teller, state) = (Teller { cluster, host_id }, &config.host.state);
    Arc::new(Posts::new(teller, state, Arc::clone(events), newest.clone(), totals))
}

/// The driver that the configuration names.
fn hypervisor(
    config: &Config,
    encrypts: bool,
    heard: mpsc::Sender<FromHypervisor>,
) -> anyhow::Result<Arc<dyn Hypervisor>> {
    match config.hypervisor.driver {
        #[cfg(feature = "libvirt")]
        Driver::Libvirt => {
            let libvirt = LibvirtConfig {
                uri: config.hypervisor.uri.clone(),
                on_disk: config.host.state.join("libvirt"),
                listen: config.copy_address(),
                certified: config.host.copy_address.map(|_| config.host.address),
                keys: encrypts.then(|| copy_keys(config)),
                shared_storage: config.hypervisor.shared_storage.clone(),
                ..LibvirtConfig::default()
            };
            Ok(Arc::new(Libvirt::start(libvirt, heard)?))
        }
        // Without that driver the configuration was refused.
        #[cfg(not(feature = "libvirt"))]
        Driver::Libvirt => anyhow::bail!("this evenkeeld was built without the driver of libvirt"),
        Driver::Qemu => Ok(Arc::new(Qemu::start(qemu_config(config, encrypts), heard)?)),
    }
}

fn qemu_config(config: &Config, encrypts: bool) -> QemuConfig {
    QemuConfig {
        dir: config.host.qemu.clone(),
        listen: config.copy_address(),
        certified: config.host.copy_address.map(|_| config.host.address),
        cgroup: config.host.cgroup.clone(),
        keys: encrypts.then(|| copy_keys(config)),
        ..QemuConfig::default()
    }
}

/// What QEMU encrypts copies by: this host's keys.
pub(crate) fn copy_keys(config: &Config) -> CopyKeys {
    let keys = config.keys();
    CopyKeys {
        ca: keys.join(CA_CERTIFICATE),
        certificate: keys.join(HOST_CERTIFICATE),
        key: keys.join(HOST_KEY),
        dir: config.host.api.with_file_name(QEMU_TLS),
        subject,
    }
}

/// Where the API is served, and to whom.
async fn doors(config: &Config, keys: Option<&Arc<Keys>>) -> anyhow::Result<(Doors, Arc<Gate>)> {
    let admitted = Admitted::of(&config.api.group);
    let socket = ApiSocket::bind(&config.host.api, admitted.gid).await?;
    let tls = match (config.api.listen, keys) {
        (Some(listen), Some(keys)) => Some(TlsListener::bind(listen, keys).await?),
        (Some(_), None) => bail!("the API is served over TCP only with keys"),
        (None, _) => None,
    };
    let gate = Gate::open(&config.host.state, admitted, Limits::default())?;
    Ok((Doors { socket, tls }, Arc::new(gate)))
}

/// Who this host is, and what its journal says.
async fn start(
    config: &Config,
    machine_id: &str,
    opened: Opened,
    keyed: bool,
) -> anyhow::Result<(Start, Journal)> {
    let Opened { journal, id, doubt, incarnation, found_at, generation, vms, moves, .. } = opened;
    let mut opened = Known { journal, id, generation, moves: decoded_moves(moves)? };
    if let Some(doubt) = doubt {
        opened.put_in_doubt().with_context(|| doubt.to_string())?;
    }
    let Known { journal, id, generation, moves } = opened;
    let start = Start {
        id: local::host_id(machine_id),
        name: config.host.name.clone().map_or_else(local::host_name, Ok)?,
        address: config.address(),
        journal: JournalMark { id, generation, opened: found_at, life: local::lot()? },
        doubt: doubt.map(|doubt| doubt.to_string()),
        incarnation,
        first_incarnation: local::born(id),
        vms: decoded_vms(vms)?,
        moves,
        offered: local::offered(config.hypervisor.driver, keyed).await,
        settings: config.settings(),
        seed: seed(id.0, incarnation),
    };
    Ok((start, journal))
}

/// A journal and what it had open.
struct Known {
    journal: Journal,
    id: JournalId,
    generation: u64,
    moves: BTreeMap<MoveId, MoveRecord>,
}

impl Known {
    /// What a journal in doubt had open is left to a person, also after the next start; and from now on it is another one.
    fn put_in_doubt(&mut self) -> anyhow::Result<()> {
        self.moves.values_mut().for_each(|record| record.doubtful = true);
        let entries: Vec<Entry> = self
            .moves
            .iter()
            .map(|(id, record)| Entry::Move(*id, Some(wire::encode_move_record(record))))
            .collect();
        self.id = local::fresh_journal(unix_seconds())?;
        self.generation = self.journal.renew(self.id, &entries)?;
        Ok(())
    }
}

/// Goes on until told to stop, or until a part fails.
async fn work(agent: Agent, reload: Reload, hooks: Vec<Ready>, word: Word) -> anyhow::Result<()> {
    let Agent {
        steering,
        ears,
        asking,
        answers,
        api: (doors, gate),
        events,
        journal,
        history,
        recorder,
        renewal,
    } = agent;
    let posts = Arc::clone(&answers.posts);
    let (stop_http, http_stopped) = oneshot::channel::<()>();
    let (serves, api_ended) = oneshot::channel::<()>();
    let serving = tokio::spawn(async {
        let _until_it_ends = serves;
        let stopped = async {
            // An error means that the sender is gone, which is the end too.
            let _ = http_stopped.await;
        };
        http::serve(doors, gate, answers, stopped).await
    });
    if let Some(renewal) = renewal {
        tokio::spawn(renewal.go(asking.clone()));
    }
    posts.serve_at_start(hooks).await;
    tokio::spawn(reload.go(asking, posts));
    let (stop, stopped) = oneshot::channel();
    let mut steering = tokio::spawn(steering.go(ears, stopped));
    let ended = tokio::select! {
        () = word.came() => {
            tracing::info!("told to stop; VMs and copies under way go on, and are taken up at the next start");
            // It may have ended by itself; the wait below tells.
            let _ = stop.send(());
            (&mut steering).await
        }
        ended = &mut steering => ended,
        // An agent that nobody can ask is started anew.
        _over = api_ended => {
            let _ = stop.send(());
            (&mut steering).await
        }
    };
    // The API may have ended by itself; the wait below tells.
    let _ = stop_http.send(());
    serving.await.context("the API")??;
    events.sync().context("keeping the last events")?;
    // Whatever was to be written is: a write takes milliseconds, and one that cannot succeed is given up.
    if journal.join().is_err() {
        bail!("the journal's thread panicked");
    }
    if history.join().is_err() {
        bail!("the histories' thread panicked");
    }
    if recorder.is_some_and(|recorder| recorder.join().is_err()) {
        bail!("the recorder's thread panicked");
    }
    ended.context("the loop")?.context("the loop")
}

fn net_settings(
    config: &Config,
    keys: Option<&Arc<Keys>>,
    incarnation: u32,
) -> anyhow::Result<NetSettings> {
    let authentication = match keys {
        None => Authentication::None,
        Some(keys) => Authentication::Keys {
            keys: Arc::clone(keys),
            life: Life { incarnation, lot: local::lot()? },
            heard: config.host.state.join(HEARD),
        },
    };
    let request = match config.cluster.request {
        RequestMode::Multicast => net::RequestMode::Multicast { group: config.cluster.group },
        RequestMode::Broadcast => net::RequestMode::BROADCAST,
        RequestMode::FanOut => net::RequestMode::FanOut,
    };
    Ok(NetSettings {
        address: config.host.address,
        port: config.host.port,
        request,
        multicast_ttl: 1,
        authentication,
        authority: config.host.ca.clone(),
    })
}

fn decoded_vms(stored: BTreeMap<VmId, Vec<u8>>) -> anyhow::Result<BTreeMap<VmId, VmRecord>> {
    let decode = |(vm, bytes): (VmId, Vec<u8>)| {
        let record = wire::decode_vm_record(&bytes)
            .with_context(|| format!("the journal's record of VM {vm}"))?;
        Ok((vm, record))
    };
    stored.into_iter().map(decode).collect()
}

fn decoded_moves(
    stored: BTreeMap<MoveId, Vec<u8>>,
) -> anyhow::Result<BTreeMap<MoveId, MoveRecord>> {
    let decode = |(id, bytes): (MoveId, Vec<u8>)| {
        let record = wire::decode_move_record(&bytes)
            .with_context(|| format!("the journal's record of move {id}"))?;
        Ok((id, record))
    };
    stored.into_iter().map(decode).collect()
}

/// Another seed at each start.
fn seed(journal: u128, incarnation: u32) -> u64 {
    let folded = journal ^ (journal >> 64) ^ u128::from(incarnation);
    u64::try_from(folded & u128::from(u64::MAX)).expect("the upper half was cut off")
}

fn newest(events: &Events) -> anyhow::Result<u64> {
    Ok(events.latest(1).context("reading the event log")?.last().map_or(0, |noted| noted.seq))
}
