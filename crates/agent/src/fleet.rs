//! Hosts that live in another loop than an agent's, as a simulation has them, answered for as agents answer for theirs: by the same
//! API, event logs and stores of histories, with this process as the network between them.
//!
//! ```text
//!   http, looks between hosts ─▶ questions of all hosts ─▶ [`Questions`] ────┐
//!                                                                          ├─ whoever has the hosts lends one for each
//!   what hosts note and keep ─▶ [`Fleet::tell`], [`Fleet::keep`] ──────────┘     and carries out what it wants then
//! ```
//!
//! A tool for development: `evenkeeld` uses none of it.
//!
//! **Boundary:** nothing is answered here that an agent would answer otherwise: only the loop is another.
//! **Invariant:** a host is lent for one answer at a time and is back when it is given.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc as threads;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use decide::host::story::Note;
use decide::host::{Action, Host, Start};
use decide::migrate::hypervisor::HypervisorCommand;
use decide::placement::admission::Offered;
use decide::policy::settings::Settings;
use decide::units::{HostId, JournalId, MoveId, VmId};
use decide::usage::history::Kept;
use decide::wire::message::JournalMark;
use drivers::hypervisor::{ChangedTags, Hypervisor, TagChange, TagsError, Watched};
use drivers::store::Events;
use tokio::sync::{mpsc, oneshot, watch};

use crate::answers::Answers;
use crate::clock::Clock;
use crate::config::{self, Record};
use crate::history::{self, Order};
use crate::http::{self, Admitted, Doors, Gate, Limits};
use crate::metrics::Totals;
use crate::net::{Authentication, Looker, Net, NetSettings, RequestMode};
use crate::posting::{Posts, Teller};
use crate::recording::Recording;
use crate::said::Said;
use crate::steering::{Hands, Question, Steering};

/// Events kept of each host.
const EVENTS_MAX: u64 = 100_000;
/// Questions that wait for one host.
const WAITING_MAX: usize = 1024;

/// A host that is to be answered for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// Which.
    pub id: HostId,
    /// Its name.
    pub name: String,
    /// Where the others know it to be.
    pub address: SocketAddr,
}

/// Where and when hosts are answered for.
#[derive(Clone, Debug)]
pub struct Place {
    /// Has a folder for the state of each host, by its name.
    pub folder: PathBuf,
    /// The cluster's name.
    pub cluster: String,
    /// All hosts' time.
    pub clock: Clock,
}

/// All hosts, without their loops.
#[derive(Debug)]
pub struct Fleet {
    desks: BTreeMap<HostId, Desk>,
}

/// What all hosts are asked, in its order.
#[derive(Debug)]
pub struct Questions(threads::Receiver<Asked>);

/// A question to one host.
pub struct Asked {
    /// Which.
    pub host: HostId,
    question: Question,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").field("host", &self.host).finish_non_exhaustive()
    }
}

/// What the API says of one host, to be served.
#[derive(Clone, Debug)]
pub struct Desktop {
    gate: Arc<Gate>,
    answers: Answers,
}

/// One agent without its loop.
#[derive(Debug)]
struct Desk {
    /// With a host of no meaning, in whose place the lent one steps.
    steering: Steering,
    history: JoinHandle<()>,
}

impl Fleet {
    /// Makes ready to answer for these hosts; within a runtime, by which they are asked.
    ///
    /// # Errors
    /// A folder or store cannot be made.
    pub async fn open(
        place: &Place,
        hosts: &[Whose],
    ) -> anyhow::Result<(Fleet, Questions, BTreeMap<HostId, Desktop>)> {
        let (say, asked) = threads::channel();
        let (mut desks, mut tops) = (BTreeMap::new(), BTreeMap::new());
        for whose in hosts {
            let (desk, top) = Desk::open(place, whose, say.clone())
                .await
                .with_context(|| format!("answering for {}", whose.name))?;
            desks.insert(whose.id, desk);
            tops.insert(whose.id, top);
        }
        let lookers: BTreeMap<HostId, Looker> =
            tops.iter().map(|(id, top)| (*id, top.looker())).collect();
        for (id, top) in &tops {
            let looks = top.answers.looks();
            looks.ask_near(lookers.clone());
            lookers.get(id).into_iter().for_each(|own| looks.answer_by(Arc::clone(own)));
        }
        Ok((Fleet { desks }, Questions(asked), tops))
    }

    /// Answers it with the host that is asked; gives what the host wants done about it, if anything.
    pub fn answer(&mut self, asked: Asked, host: &mut Host) -> Vec<Action> {
        self.lent(asked.host, host, asked.question)
    }

    /// Keeps and tells what a host has noted.
    pub fn tell(&mut self, id: HostId, host: &mut Host, notes: &[Note]) {
        self.lent(id, host, |at_work| at_work.tell(notes));
    }

    /// Looks why a host moves nothing, as an agent does after each reading.
    pub fn look(&mut self, id: HostId, host: &mut Host) {
        self.lent(id, host, Steering::note_doing);
    }

    /// Keeps parts of a host's histories; waits for the disk, so that none is lost however fast time goes.
    pub fn keep(&self, id: HostId, kept: Vec<Kept>) {
        if let Some(desk) = self.desks.get(&id) {
            desk.steering.history.send_waiting(Order::Keep(kept));
        }
    }

    /// Brings what hosts noted to the disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn sync(&self) -> anyhow::Result<()> {
        self.desks.values().try_for_each(|desk| Ok(desk.steering.events.sync()?))
    }

    /// Ends the threads behind it, once what they have is on disk.
    pub fn end(self) {
        for Desk { steering, history } in self.desks.into_values() {
            drop(steering);
            // One that panicked has nothing more to write.
            let _ = history.join();
        }
    }

    fn lent(
        &mut self,
        id: HostId,
        host: &mut Host,
        what: impl FnOnce(&mut Steering),
    ) -> Vec<Action> {
        let Some(Desk { steering, .. }) = self.desks.get_mut(&id) else { return Vec::new() };
        std::mem::swap(&mut steering.host, host);
        what(steering);
        std::mem::swap(&mut steering.host, host);
        steering.take_lent()
    }
}

impl Questions {
    /// The next question, if one comes within this time.
    #[must_use]
    pub fn next(&self, within: Duration) -> Option<Asked> {
        self.0.recv_timeout(within).ok()
    }
}

impl Desktop {
    /// Serves the API and the dashboard there until `stop` is ready, as an agent does.
    ///
    /// # Errors
    /// None in practice.
    pub async fn serve(
        self,
        doors: Doors,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<()> {
        http::serve(doors, self.gate, self.answers, stop).await
    }

    fn looker(&self) -> Looker {
        http::looker(Arc::clone(&self.gate), self.answers.clone())
    }
}

impl Desk {
    async fn open(
        place: &Place,
        whose: &Whose,
        say: threads::Sender<Asked>,
    ) -> anyhow::Result<(Desk, Desktop)> {
        let Place { folder, cluster, clock } = place;
        let state = folder.join(&whose.name);
        fs::create_dir_all(&state).with_context(|| format!("making {}", state.display()))?;
        let gate = Gate::open(&state, Admitted::of("evenkeel"), Limits::default())?;
        let events = Arc::new(Events::open(&state, EVENTS_MAX)?);
        let newest = events.latest(1)?.last().map_or(0, |noted| noted.seq);
        let (newest, newest_seen) = watch::channel(newest);
        let history::Thread { orders, heard: _nothing_is_recalled, thread } =
            history::start(&state, &config::History::default())?;
        // Nobody knows its ports, and the loop that has the host sends nothing by it.
        let (heard, _unheard) = mpsc::channel(1);
        let net = Net::start(silent(&state), heard).await?;
        let looks = net.looks();
        let (journal, _unwritten) = mpsc::unbounded_channel();
        let said = Said::within(&state);
        let start = start(whose);
        let (recording, _) = Recording::start(&Record::default(), clock.now(), &start);
        let totals = Totals::new()?;
        let teller = Teller { cluster: cluster.clone(), host_id: whose.id.to_string() };
        let (noted, until) = (Arc::clone(&events), newest_seen.clone());
        // None is served: whoever looks is told that none fails.
        let posts = Arc::new(Posts::new(teller, &state, noted, until, &totals));
        let hands = Hands {
            net,
            hypervisor: Arc::new(Elsewhere),
            journal,
            history: orders,
            events: Arc::clone(&events),
            newest,
            hold: None,
            drain: Arc::clone(&said.drain),
            recording,
            totals,
        };
        let host = Host::new(start, clock.now(), &mut Vec::new());
        let mut steering =
            Steering::new(host, *clock, cluster.clone(), "the simulated network".to_owned(), hands);
        steering.driven_elsewhere();
        let (questions, mut ears) = mpsc::channel::<Question>(WAITING_MAX);
        let host = whose.id;
        tokio::spawn(async move {
            while let Some(question) = ears.recv().await {
                // Whoever had the hosts has ended: so do the answers.
                if say.send(Asked { host, question }).is_err() {
                    return;
                }
            }
        });
        let answers = Answers::new(questions, events, newest_seen, said, looks, posts, None);
        let top = Desktop { gate: Arc::new(gate), answers };
        Ok((Desk { steering, history: thread }, top))
    }
}

/// A network that no other host speaks to.
fn silent(state: &Path) -> NetSettings {
    NetSettings {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 0,
        request: RequestMode::FanOut,
        multicast_ttl: 1,
        authentication: Authentication::None,
        authority: state.join("ca"),
    }
}

fn start(whose: &Whose) -> Start {
    Start {
        id: whose.id,
        name: whose.name.clone(),
        address: whose.address,
        journal: JournalMark { id: JournalId(whose.id.0), generation: 0, opened: 0, life: 1 },
        doubt: None,
        incarnation: 1,
        first_incarnation: 1,
        vms: BTreeMap::new(),
        moves: BTreeMap::new(),
        offered: Offered::default(),
        settings: Settings::default(),
        seed: 1,
    }
}

/// The hypervisor of a host that lives elsewhere: what it is ordered goes there, and its processes are not on this machine.
#[derive(Debug)]
struct Elsewhere;

impl Hypervisor for Elsewhere {
    fn order(&self, move_id: MoveId, vm: VmId, command: HypervisorCommand) {
        tracing::error!(%move_id, %vm, ?command, "ordered of a hypervisor that is elsewhere");
    }

    fn watched(&self) -> Vec<Watched> {
        Vec::new()
    }

    fn change_tags(&self, _vm: VmId, _change: TagChange) -> oneshot::Receiver<ChangedTags> {
        let (say, hear) = oneshot::channel();
        let why = "tags of simulated VMs are not changed this way".to_owned();
        // Nobody waits any more only if the client went away.
        let _ = say.send(Err(TagsError::Refused(why)));
        hear
    }
}
