//! From a configuration file to an agent at work.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, bail};
use clap::Parser;
use decide::host::{Event, Host, Start};
use decide::migrate::record::{MoveRecord, VmRecord};
use decide::units::{JournalId, MoveId, VmId};
use decide::wire;
use decide::wire::message::JournalMark;
use drivers::hypervisor::Hypervisor;
use drivers::hypervisor::qemu::{Qemu, QemuConfig};
use drivers::store::{Entry, Events, Journal, Opened, Opening};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::answers::Answers;
use crate::clock::{Clock, unix_seconds};
use crate::config::{Config, RequestMode};
use crate::hold::Hold;
use crate::http::{self, ApiSocket};
use crate::net::{self, Net, NetSettings, seal};
use crate::recording::Recording;
use crate::reload::Reload;
use crate::said::Said;
use crate::steering::{Ears, Hands, Question, Steering};
use crate::{history, journal, local, monitoring};

/// Events kept in the log.
const EVENTS_MAX: u64 = 100_000;
/// Beside the API's socket: in a folder that is empty after a boot.
const WITNESS: &str = "journal-seen";
/// What may wait to be heard from network, hypervisor and API before its sender waits.
const WAITING_MAX: usize = 1024;

/// The Evenkeel agent: watches this host's VMs and moves them to other hosts when this one is hot.
#[derive(Debug, Parser)]
#[command(
    name = "evenkeeld",
    version,
    after_help = "Example: evenkeeld --config /etc/evenkeel/evenkeel.toml --insecure"
)]
pub struct Args {
    /// The configuration file.
    #[arg(long, default_value = "/etc/evenkeel/evenkeel.toml")]
    pub config: PathBuf,
    /// Speak with the other hosts without authentication or encryption. Only accepted where every address lies in
    /// 127.0.0.0/8, ::1 or 198.18.0.0/15.
    #[arg(long)]
    pub insecure: bool,
    /// Only look for mistakes in the configuration file, rules that contradict each other included; exit code 2 if there are any.
    #[arg(long)]
    pub check: bool,
}

/// Looks for mistakes in the configuration file, for people: each on a line of its own. Gives none if there are none.
#[must_use]
pub fn check(path: &Path) -> Vec<String> {
    match Config::read(path) {
        Err(found) => found,
        Ok((_, doubtful)) => doubtful.into_iter().collect(),
    }
}

/// The configuration, if an agent may go by it.
///
/// # Errors
/// What is wrong, each on a line of its own.
pub fn admitted(args: &Args) -> Result<Config, Vec<String>> {
    let (config, doubtful) = Config::read(&args.config)?;
    if let Some(doubtful) = doubtful {
        // It only balances badly.
        tracing::warn!("{doubtful}");
    }
    let admitted = seal::admit(args.insecure, &[config.host.address]);
    let place = || format!("{}, key host.address", args.config.display());
    admitted.map(|()| config).map_err(|error| vec![format!("{}: {error:#}", place())])
}

/// Runs the agent until it is told to stop by SIGTERM or SIGINT. VMs go on without it.
///
/// # Errors
/// Whatever keeps it from starting, named with its file, key or address.
pub async fn run(args: &Args, config: Config) -> anyhow::Result<()> {
    let reload = Reload::new(&args.config, &config)?;
    let agent = assemble(config, args.insecure).await?;
    work(agent, reload).await
}

/// The parts, joined and ready to go.
struct Agent {
    steering: Steering,
    ears: Ears,
    asking: mpsc::WeakSender<Question>,
    answers: Answers,
    socket: ApiSocket,
    events: Arc<Events>,
    journal: JoinHandle<()>,
    history: JoinHandle<()>,
    recorder: Option<JoinHandle<()>>,
}

async fn assemble(config: Config, insecure: bool) -> anyhow::Result<Agent> {
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
    let qemu = QemuConfig {
        dir: config.host.qemu.clone(),
        listen: config.host.address,
        cgroup: config.host.cgroup.clone(),
        ..QemuConfig::default()
    };
    let hypervisor: Arc<dyn Hypervisor> = Arc::new(Qemu::start(qemu, hypervisor_heard)?);
    let (net_heard, net_ears) = mpsc::channel(WAITING_MAX);
    let net_settings = net_settings(&config, insecure);
    let request = net_settings.request.to_string();
    let net = Net::start(net_settings, net_heard).await?;
    let socket = ApiSocket::bind(&config.host.api).await?;

    let (start, journal) = start(&config, &machine_id, opened).await?;
    let journal::Thread { orders: journal, heard: journal_ears, thread: journal_thread } =
        journal::start(journal, start.moves.len())?;
    tracing::info!(host = start.name, id = %start.id, address = %start.address, "evenkeeld {} starts", env!("CARGO_PKG_VERSION"));

    let history::Thread { orders: history, heard: history_ears, thread: history_thread } =
        history::start(&config.host.state, &config.history)?;
    let (newest, newest_seen) = watch::channel(newest(&events)?);
    let (questions, question_ears) = mpsc::channel(WAITING_MAX);
    let readings = monitoring::start(config.host.uplink.clone(), Arc::clone(&hypervisor))?;
    let (now, mut actions) = (clock.now(), Vec::new());
    let (mut recording, recorder) = Recording::start(&config.record, now, &start);
    let host = Host::new(start, now, &mut actions);
    recording.gave(&actions, host.deadline());
    let hold = Hold::from_environment();
    let told = Arc::clone(&events);
    let said = Said::within(&config.host.state);
    let drain = Arc::clone(&said.drain);
    let hands =
        Hands { net, hypervisor, journal, history, events: told, newest, recording, hold, drain };
    let mut steering = Steering::new(host, clock, config.cluster.name.clone(), request, hands);
    steering.carry_out(actions);
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
    let asking = questions.downgrade();
    let answers = Answers::new(questions, Arc::clone(&events), newest_seen, said);
    let (journal, history) = (journal_thread, history_thread);
    Ok(Agent { steering, ears, asking, answers, socket, events, journal, history, recorder })
}

/// Who this host is, and what its journal says.
async fn start(
    config: &Config,
    machine_id: &str,
    opened: Opened,
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
        offered: local::offered().await,
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
async fn work(agent: Agent, reload: Reload) -> anyhow::Result<()> {
    let Agent { steering, ears, asking, answers, socket, events, journal, history, recorder } =
        agent;
    let (stop_http, http_stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(http::serve(socket, answers, async {
        // An error means that the sender is gone, which is the end too.
        let _ = http_stopped.await;
    }));
    tokio::spawn(reload.go(asking));
    let (stop, stopped) = oneshot::channel();
    let mut steering = tokio::spawn(steering.go(ears, stopped));
    let ended = tokio::select! {
        told = told_to_stop() => {
            told?;
            tracing::info!("told to stop; VMs and copies under way go on, and are taken up at the next start");
            // It may have ended by itself; the wait below tells.
            let _ = stop.send(());
            (&mut steering).await
        }
        ended = &mut steering => ended,
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

async fn told_to_stop() -> anyhow::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

fn net_settings(config: &Config, insecure: bool) -> NetSettings {
    let request = match config.cluster.request {
        RequestMode::Multicast => net::RequestMode::Multicast { group: config.cluster.group },
        RequestMode::Broadcast => net::RequestMode::BROADCAST,
        RequestMode::FanOut => net::RequestMode::FanOut,
    };
    NetSettings {
        address: config.host.address,
        port: config.host.port,
        request,
        multicast_ttl: 1,
        insecure,
    }
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
