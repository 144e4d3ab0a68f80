//! One host's agent, as far as a move is concerned: the production machines, joined as `decide::host` joins them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use decide::membership::journals::Journals;
use decide::migrate::hypervisor::{
    CopyParameters, Endpoint, HypervisorCommand as Command, HypervisorReport as Report, RunState,
    VmDefinition,
};
use decide::migrate::record::{MoveRecord, MoveStage, Ownership, Record, VmRecord};
use decide::migrate::{source, target};
use decide::units::{BitsPerSec, Epoch, Mib, MoveId};
use decide::wire::message::{JournalMark, Standing};

use super::disk::Disk;
use super::letters::{Body, Letter};
use super::steps::RUNS;
use super::{VM, World, host_id, site_of};

/// What a journal has of a VM that it has never heard of.
const NEVER_HERE: VmRecord = VmRecord { floor: 0, ran: 0, ownership: Ownership::Away };
/// A timer that only says the same again is let end so often at once.
const PATIENCE: u32 = 30;

/// A timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    Out(MoveId, source::Timer),
    In(MoveId, target::Timer),
}

impl Key {
    /// Whether it is for saying or asking again.
    pub(crate) fn repeats(self) -> bool {
        matches!(self, Key::Out(_, source::Timer::Repeat) | Key::In(_, target::Timer::Repeat))
    }
}

/// Who waits for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Writer {
    Out(MoveId),
    In(MoveId),
    Adoption,
    Leftover(MoveId),
}

/// A move from here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Out {
    pub(crate) peer: u8,
    /// It was negotiated by this agent, not found open at its start.
    pub(crate) negotiated: bool,
    pub(crate) migrate: Option<source::Source>,
    gone: bool,
}

/// A move to here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct In {
    pub(crate) migrate: target::Target,
    pub(crate) recovered: bool,
    pub(crate) ended: bool,
    gone: bool,
}

/// What the agent knows of the VM here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Here {
    record: VmRecord,
    recorded: bool,
}

/// One agent at work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Agent {
    pub(crate) mark: JournalMark,
    incarnation: u32,
    first: u32,
    counter: u32,
    record: Option<VmRecord>,
    vm: Option<Here>,
    pub(crate) out: BTreeMap<MoveId, Out>,
    pub(crate) incoming: BTreeMap<MoveId, In>,
    /// Moves for which room is kept.
    offers: BTreeSet<MoveId>,
    pub(crate) timers: BTreeSet<Key>,
    /// Asked, not yet durable; whether somebody still waits for it.
    pub(crate) writes: VecDeque<(Writer, Vec<Record>, bool)>,
    pub(crate) reports: VecDeque<(MoveId, Report)>,
    /// The other hosts' journals, as heard.
    journals: Journals,
}

impl Agent {
    /// An agent that has just started with that journal.
    pub(crate) fn new(disk: &Disk, here: bool) -> Agent {
        let record = disk.vm;
        Agent {
            mark: disk.mark,
            incarnation: disk.incarnation,
            first: disk.first,
            counter: 0,
            record,
            vm: record.filter(|_| here).map(|record| Here { record, recorded: true }),
            out: BTreeMap::new(),
            incoming: BTreeMap::new(),
            offers: BTreeSet::new(),
            timers: BTreeSet::new(),
            writes: VecDeque::new(),
            reports: VecDeque::new(),
            journals: Journals::default(),
        }
    }

    /// Whether the VM may be moved from here.
    pub(crate) fn movable(&self) -> bool {
        let ours = |here: Here| here.recorded && here.record.ownership == Ownership::Owner;
        self.vm.is_some_and(ours) && self.out.is_empty()
    }

    /// Moves that a cancel would end.
    pub(crate) fn cancellable(&self) -> impl Iterator<Item = MoveId> {
        let early = |out: &Out| {
            out.migrate.as_ref().is_none_or(|migrate| migrate.phase().can_be_cancelled())
        };
        self.out.iter().filter(move |(_, out)| early(out)).map(|(id, _)| *id)
    }

    /// Whether a process that is seen here would be news to the agent.
    pub(crate) fn would_find(&self) -> bool {
        let down = |here: Here| here.record.ownership == Ownership::Down;
        self.vm.is_none_or(down) && self.incoming.values().all(|incoming| incoming.ended)
    }

    /// Whether it has nothing left to do.
    pub(crate) fn idle(&self) -> bool {
        let open = self.incoming.values().any(|incoming| !incoming.ended);
        self.out.is_empty() && !open && self.writes.is_empty() && self.reports.is_empty()
    }

    /// The other side of a move from here.
    pub(crate) fn peer(&self, id: MoveId) -> Option<u8> {
        self.out.get(&id).map(|out| out.peer)
    }
}

impl World {
    fn agent(&mut self, site: u8) -> &mut Agent {
        self.at(site).agent.as_mut().expect("only who lives is given events")
    }

    /// Whether that host would offer to take the VM.
    pub(crate) fn would_offer(&self, to: u8) -> bool {
        let here = self.host(to).agent.as_ref();
        here.is_some_and(|agent| {
            agent.vm.is_none()
                && agent.offers.is_empty()
                && agent.incoming.values().all(|incoming| incoming.ended)
        })
    }

    pub(crate) fn begin(&mut self, from: u8, to: u8) {
        self.budget.moves -= 1;
        let agent = self.agent(from);
        agent.counter += 1;
        let (incarnation, counter) = (agent.incarnation, agent.counter);
        let id = MoveId { host: host_id(from), incarnation, counter };
        let out = Out { peer: to, negotiated: true, migrate: None, gone: false };
        agent.out.insert(id, out);
        let epoch = agent.vm.expect("only what is here moves").record.floor;
        self.agent(to).offers.insert(id);
        // Repeated, it asks what becomes of a move that is not known. Elsewhere a readiness asks the same.
        if self.forgetful {
            self.send(Letter { from: to, to: from, id, body: Body::Acceptance });
        }
        self.send(Letter { from, to, id, body: Body::Confirmation(epoch) });
    }

    pub(crate) fn deliver(&mut self, letter: Letter) {
        let Letter { from, to, id, body } = letter;
        match body {
            Body::Confirmation(epoch) => self.confirmed(to, id, epoch),
            Body::Readiness(journal) => self.ready(to, from, id, journal.into()),
            Body::Release => self.inward(to, id, target::Event::Release),
            Body::HandOver { epoch, run, journal } => {
                self.handed_over(to, id, epoch, Some(run), journal.into())
            }
            Body::Inquiry { epoch, journal } => {
                self.handed_over(to, id, epoch, None, journal.into())
            }
            Body::Standing { epoch, standing, journal } => {
                self.stands(to, from, id, epoch, (standing, journal.map(JournalMark::from)));
            }
            Body::Acceptance => self.accepted(to, from, id),
        }
    }

    fn handed_over(
        &mut self,
        site: u8,
        id: MoveId,
        epoch: Epoch,
        run: Option<RunState>,
        journal: JournalMark,
    ) {
        let mark = self.agent(site).mark;
        let same = target::answers_for(&mark, &journal);
        if !same || epoch.owner != host_id(site) {
            return self.say(site, id, epoch.number, Standing::Unknown);
        }
        let machine = self.agent(site).incoming.get(&id);
        if machine.is_some_and(|m| m.migrate.record().epoch + 1 == epoch.number) {
            let event = run.map_or(target::Event::Inquiry, target::Event::HandOver);
            return self.inward(site, id, event);
        }
        let record = self.agent(site).record.unwrap_or(NEVER_HERE);
        let standing = target::standing_without_move(record, epoch.number);
        self.say(site, id, epoch.number, standing);
    }

    /// The source chose this host. History and room are judged elsewhere: here it always fits.
    fn confirmed(&mut self, site: u8, id: MoveId, epoch: u64) {
        let agent = self.agent(site);
        let known = agent.record.unwrap_or(NEVER_HERE);
        if agent.incoming.contains_key(&id) || !agent.offers.contains(&id) || known.floor > epoch {
            return;
        }
        let (vm, peer, run, journal) = (VM, id.host, RUNS, agent.mark);
        let (stage, definition, doubtful) = (MoveStage::Prepared, None, false);
        let open = MoveRecord { vm, peer, epoch, run, journal, stage, definition, doubtful };
        let migrate = target::Target::new(id, open, known, Duration::ZERO);
        let incoming = In { migrate, recovered: false, ended: false, gone: false };
        agent.incoming.insert(id, incoming);
        self.inward(site, id, target::Event::Begin);
    }

    fn ready(&mut self, site: u8, from: u8, id: MoveId, journal: JournalMark) {
        let agent = self.agent(site);
        let here = agent.vm;
        let Some(out) = agent.out.get_mut(&id) else {
            if source::may_let_go(id, agent.first) {
                self.send(Letter { from: site, to: from, id, body: Body::Release });
            }
            return;
        };
        if !out.negotiated || out.peer != from || out.migrate.is_some() {
            return;
        }
        let Some(here) = here.filter(|here| here.record.ownership == Ownership::Owner) else {
            self.send(Letter { from: site, to: from, id, body: Body::Release });
            return self.abandon(site, id);
        };
        let (vm, peer, epoch, run) = (VM, host_id(from), here.record.floor, RUNS);
        let (stage, definition, doubtful) = (MoveStage::Copying, None, false);
        let open = MoveRecord { vm, peer, epoch, run, journal, stage, definition, doubtful };
        let copy = CopyParameters {
            bandwidth: BitsPerSec(1),
            downtime_max: Duration::ZERO,
            multifd: false,
            encrypted: false,
            auto_converge: false,
            copy_disks: false,
        };
        let to = (Endpoint::default(), copy);
        out.migrate =
            Some(source::Source::new(id, open, here.record, to, Duration::ZERO, Duration::ZERO));
        self.outward(site, id, source::Event::Begin);
    }

    pub(crate) fn cancel(&mut self, site: u8, id: MoveId) {
        let out = &self.agent(site).out[&id];
        if out.migrate.is_some() {
            return self.outward(site, id, source::Event::Cancel(String::new()));
        }
        let to = out.peer;
        self.send(Letter { from: site, to, id, body: Body::Release });
        self.abandon(site, id);
    }

    /// The negotiation is over without a copy; the confirmed target may have voided the next epoch.
    fn abandon(&mut self, site: u8, id: MoveId) {
        let agent = self.agent(site);
        agent.out.remove(&id);
        if let Some(here) = &mut agent.vm {
            here.record.floor += 1;
            here.record.ran = here.record.floor;
            here.recorded = false;
        }
        self.record_vm(site);
    }

    fn record_vm(&mut self, site: u8) {
        let agent = self.agent(site);
        let Some(here) = agent.vm.filter(|here| !here.recorded) else { return };
        agent.record = Some(here.record);
        let under_way = agent.writes.iter().any(|(w, _, waits)| *w == Writer::Adoption && *waits);
        if !under_way {
            self.persist(site, Writer::Adoption, vec![Record::Vm(VM, here.record)]);
        }
    }

    pub(crate) fn find(&mut self, site: u8) {
        let agent = self.agent(site);
        let record = match agent.record {
            None => VmRecord { floor: 1, ran: 1, ownership: Ownership::Owner },
            Some(record) => match record.ownership {
                Ownership::Owner | Ownership::Released(..) => record,
                Ownership::Down => {
                    VmRecord { ran: record.floor, ownership: Ownership::Owner, ..record }
                }
                Ownership::Away => {
                    let floor = record.floor + 1;
                    VmRecord { floor, ran: floor, ownership: Ownership::Owner }
                }
            },
        };
        let recorded = agent.record == Some(record);
        agent.vm = Some(Here { record, recorded });
        self.record_vm(site);
    }

    /// A process ended that was no side of a copy under way.
    pub(crate) fn vm_gone(&mut self, site: u8) {
        let Some(agent) = &mut self.at(site).agent else { return };
        let coming = agent.incoming.iter_mut().find(|(_, incoming)| !incoming.ended);
        if let Some((id, incoming)) = coming {
            let id = *id;
            incoming.gone = true;
            return self.report(site, id, Report::IncomingFailed(String::new()));
        }
        if let Some((id, out)) = agent.out.iter_mut().next() {
            out.gone = out.migrate.is_some();
            if out.migrate.is_none() {
                let (id, to) = (*id, out.peer);
                self.send(Letter { from: site, to, id, body: Body::Release });
                self.abandon(site, id);
                self.agent(site).vm = None;
            }
            return;
        }
        agent.vm = None;
    }

    /// An acceptance, repeated: the negotiation itself is not part of this model, but a host that does not know the move
    /// any more says so.
    fn accepted(&mut self, site: u8, from: u8, id: MoveId) {
        let agent = self.agent(site);
        if !agent.out.contains_key(&id) && source::may_let_go(id, agent.first) {
            self.send(Letter { from: site, to: from, id, body: Body::Release });
        }
    }

    fn stands(
        &mut self,
        site: u8,
        from: u8,
        id: MoveId,
        epoch: Epoch,
        (standing, journal): (Standing, Option<JournalMark>),
    ) {
        if let Some(journal) = journal {
            self.agent(site).journals.hear(host_id(from), journal);
        }
        let set_back = self.agent(site).journals.set_back(host_id(from));
        let migrate = self.agent(site).out.get(&id).and_then(|out| out.migrate.as_ref());
        let Some(migrate) = migrate else { return };
        let record = migrate.record();
        if record.peer != host_id(from) || epoch.number != record.epoch + 1 {
            return;
        }
        let standing = source::taken_for(standing, journal, &record.journal, set_back);
        self.outward(site, id, source::Event::Standing(standing));
    }

    pub(crate) fn hear(&mut self, site: u8) {
        let (id, report) = self.agent(site).reports.pop_front().expect("one waits in line");
        if self.agent(site).out.contains_key(&id) {
            return self.outward(site, id, source::Event::Report(report));
        }
        match report {
            Report::Prepared(_) => {
                let agent = self.agent(site);
                let open = agent.incoming.get(&id).is_some_and(|incoming| !incoming.ended);
                if open && agent.offers.contains(&id) {
                    let journal = agent.mark.into();
                    let (to, body) = (site_of(id.host), Body::Readiness(journal));
                    self.send(Letter { from: site, to, id, body });
                }
            }
            Report::PrepareFailed(why) => {
                let failed = Report::IncomingFailed(why);
                self.inward(site, id, target::Event::Report(failed));
            }
            report => self.inward(site, id, target::Event::Report(report)),
        }
    }

    pub(crate) fn write_ends(&mut self, site: u8, durable: bool) {
        let (writer, records, awaited) =
            self.agent(site).writes.pop_front().expect("one is under way");
        if durable {
            let disk = &mut self.at(site).disk;
            disk.write(&records);
            let mark = disk.mark;
            self.agent(site).mark = mark;
        }
        if !awaited {
            return;
        }
        match (writer, durable) {
            (Writer::Out(id), true) => self.outward(site, id, source::Event::Stored),
            (Writer::Out(id), false) => {
                self.outward(site, id, source::Event::StoreFailed(String::new()))
            }
            (Writer::In(id), true) => self.inward(site, id, target::Event::Stored),
            (Writer::In(id), false) => {
                self.inward(site, id, target::Event::StoreFailed(String::new()))
            }
            (Writer::Adoption, true) => {
                if let Some(here) = &mut self.agent(site).vm {
                    here.recorded = true;
                }
            }
            (Writer::Adoption, false) | (Writer::Leftover(_), _) => {}
        }
    }

    pub(crate) fn timeout(&mut self, site: u8, key: Key) {
        let phases = |world: &mut World| match key {
            Key::Out(id, _) => {
                let out = world.agent(site).out.get(&id).and_then(|out| out.migrate.as_ref());
                (out.map(source::Source::phase), None)
            }
            Key::In(id, _) => {
                (None, world.agent(site).incoming.get(&id).map(|m| m.migrate.phase()))
            }
        };
        let before = self.clone();
        let phase = phases(self);
        for _ in 0..PATIENCE {
            self.agent(site).timers.remove(&key);
            match key {
                Key::Out(id, timer) => self.outward(site, id, source::Event::Timeout(timer)),
                Key::In(id, timer) => self.inward(site, id, target::Event::Timeout(timer)),
            }
            if phases(self) != phase || self.differs(site, &before) {
                return;
            }
        }
        *self = before;
    }

    /// Whether more than a count of repetitions has changed.
    fn differs(&self, site: u8, before: &World) -> bool {
        let parts = |world: &World| {
            let agent = world.host(site).agent.as_ref().expect("it lives");
            (agent.writes.len(), agent.reports.len(), agent.timers.clone(), world.net.len())
        };
        parts(self) != parts(before) || self.host(site).qemu != before.host(site).qemu
    }

    /// Drives a move from here, and does what it wants.
    fn outward(&mut self, site: u8, id: MoveId, event: source::Event) {
        let Some(out) = self.agent(site).out.get_mut(&id) else { return };
        let Some(migrate) = out.migrate.as_mut() else { return };
        let to = out.peer;
        let mut wanted = Vec::new();
        migrate.handle(event, &mut wanted);
        let record = migrate.record();
        let epoch = Epoch { number: record.epoch + 1, owner: record.peer };
        let (run, journal) = (record.run, record.journal.into());
        for action in wanted {
            match action {
                source::Action::Persist(records) => self.persist(site, Writer::Out(id), records),
                source::Action::Hypervisor(command) => self.order(site, id, &command),
                source::Action::HandOver => {
                    let body = Body::HandOver { epoch, run, journal };
                    self.send(Letter { from: site, to, id, body });
                }
                source::Action::Inquire => {
                    self.send(Letter {
                        from: site,
                        to,
                        id,
                        body: Body::Inquiry { epoch, journal },
                    });
                }
                source::Action::Release => {
                    self.send(Letter { from: site, to, id, body: Body::Release });
                }
                source::Action::Arm(timer, _) => {
                    self.agent(site).timers.insert(Key::Out(id, timer));
                }
                source::Action::Disarm(timer) => {
                    self.agent(site).timers.remove(&Key::Out(id, timer));
                }
                source::Action::Alarm(_) => self.ghost.alarm = true,
                source::Action::Over(outcome) => self.out_over(site, id, &outcome),
            }
        }
    }

    fn out_over(&mut self, site: u8, id: MoveId, outcome: &source::Outcome) {
        let agent = self.agent(site);
        let out = agent.out.remove(&id).expect("its machine has just spoken");
        match outcome {
            source::Outcome::Done | source::Outcome::GivenUp(_) => agent.vm = None,
            source::Outcome::Undone(_) if out.gone => agent.vm = None,
            source::Outcome::Undone(_) | source::Outcome::Down(_) => {}
        }
        self.ghost.source_ends(outcome, !out.negotiated);
    }

    /// Drives a move to here, and does what it wants.
    fn inward(&mut self, site: u8, id: MoveId, event: target::Event) {
        let Some(incoming) = self.agent(site).incoming.get_mut(&id) else { return };
        let (to, recovered) = (site_of(id.host), incoming.recovered);
        let mut wanted = Vec::new();
        incoming.migrate.handle(event, &mut wanted);
        let epoch = incoming.migrate.record().epoch + 1;
        for action in wanted {
            match action {
                target::Action::Persist(records) => self.persist(site, Writer::In(id), records),
                target::Action::Hypervisor(command) => {
                    if matches!(command, Command::Resume(_)) {
                        self.ghost.resumes(site, epoch);
                    }
                    self.order(site, id, &command);
                }
                target::Action::Recorded => {
                    let copy = CopyParameters {
                        bandwidth: BitsPerSec(1),
                        downtime_max: Duration::ZERO,
                        multifd: false,
                        encrypted: false,
                        auto_converge: false,
                        copy_disks: false,
                    };
                    self.order(site, id, &Command::Prepare(Box::new(definition()), copy, None));
                }
                target::Action::Remind => {
                    let journal = self.agent(site).mark.into();
                    self.send(Letter { from: site, to, id, body: Body::Readiness(journal) });
                }
                target::Action::Standing(standing) => self.say(site, id, epoch, standing),
                target::Action::Arm(timer, _) => {
                    self.agent(site).timers.insert(Key::In(id, timer));
                }
                target::Action::Disarm(timer) => {
                    self.agent(site).timers.remove(&Key::In(id, timer));
                }
                target::Action::Alarm(_) => self.ghost.alarm = true,
                target::Action::Over(outcome) => self.in_over(site, id, &outcome, recovered),
            }
        }
    }

    fn in_over(&mut self, site: u8, id: MoveId, outcome: &target::Outcome, recovered: bool) {
        let agent = self.agent(site);
        agent.offers.remove(&id);
        match outcome {
            target::Outcome::Void(_) => {
                agent.incoming.get_mut(&id).expect("it has just spoken").ended = true;
            }
            target::Outcome::Arrived | target::Outcome::Down(_) => {
                let incoming = agent.incoming.remove(&id).expect("it has just spoken");
                let record = incoming.migrate.vm_record();
                agent.vm = Some(Here { record, recorded: true });
                if incoming.gone && matches!(outcome, target::Outcome::Arrived) {
                    agent.vm = None;
                }
            }
        }
        self.ghost.target_ends(outcome, recovered);
    }

    fn say(&mut self, site: u8, id: MoveId, number: u64, standing: Standing) {
        let epoch = Epoch { number, owner: host_id(site) };
        if standing == Standing::Void {
            let copy = self.host(site).qemu.and_then(|qemu| qemu.copy);
            self.ghost.void_early |= copy.is_some_and(|copy| copy.id == id);
            self.ghost.voids.insert((site, number));
            let now = self.agent(site).mark.id;
            let another = |said: &Letter| match said.body {
                Body::Readiness(named) => JournalMark::from(named).id != now,
                _ => false,
            };
            let mut said = self.net.iter().filter(|said| said.from == site && said.id == id);
            let forgetful = said.any(another);
            self.ghost.forgetful_void |= forgetful;
        }
        let journal = self.forgetful.then(|| self.agent(site).mark.into());
        let (to, body) = (site_of(id.host), Body::Standing { epoch, standing, journal });
        self.send(Letter { from: site, to, id, body });
    }

    fn persist(&mut self, site: u8, writer: Writer, records: Vec<Record>) {
        let agent = self.agent(site);
        for record in &records {
            if let Record::Vm(_, record) = record {
                agent.record = Some(*record);
                if let Some(here) = &mut agent.vm {
                    here.record = *record;
                }
            }
        }
        let earlier = agent.writes.iter_mut().filter(|(other, ..)| *other == writer);
        earlier.for_each(|(_, _, awaited)| *awaited = false);
        agent.writes.push_back((writer, records, true));
    }

    pub(crate) fn start(&mut self, site: u8) {
        let host = self.at(site);
        host.disk.open();
        host.died_between = false;
        host.agent = Some(Agent::new(&host.disk, false));
        let known = host.disk.vm.unwrap_or(NEVER_HERE);
        for (id, open) in host.disk.moves.clone() {
            if !fits(id, &open, known) {
                self.persist(site, Writer::Leftover(id), vec![Record::Move(id, None)]);
                continue;
            }
            let agent = self.agent(site);
            match open.stage {
                MoveStage::Copying | MoveStage::HandingOver | MoveStage::TakingBack => {
                    agent.vm = Some(Here { record: known, recorded: true });
                    let peer = site_of(open.peer);
                    let migrate = Some(source::Source::recovered(id, open, known));
                    let out = Out { peer, negotiated: false, migrate, gone: false };
                    agent.out.insert(id, out);
                    self.outward(site, id, source::Event::Begin);
                }
                MoveStage::Prepared | MoveStage::Owning | MoveStage::Voiding => {
                    let migrate = target::Target::recovered(id, open, known, Duration::ZERO);
                    let incoming = In { migrate, recovered: true, ended: false, gone: false };
                    agent.incoming.insert(id, incoming);
                    self.inward(site, id, target::Event::Begin);
                }
            }
        }
    }
}

fn fits(id: MoveId, record: &MoveRecord, vm: VmRecord) -> bool {
    let next = record.epoch.saturating_add(1);
    match record.stage {
        MoveStage::Copying => vm.ownership == Ownership::Owner && vm.floor == record.epoch,
        MoveStage::HandingOver => vm.ownership == Ownership::Released(record.peer, id),
        MoveStage::TakingBack => vm.ownership == Ownership::Owner && vm.floor > record.epoch,
        MoveStage::Prepared => vm.floor <= record.epoch && vm.ownership != Ownership::Owner,
        MoveStage::Owning => vm.ownership == Ownership::Owner && vm.floor == next,
        MoveStage::Voiding => vm.ownership == Ownership::Away && vm.floor >= next,
    }
}

fn definition() -> VmDefinition {
    VmDefinition {
        vm: VM,
        name: String::new(),
        memory: Mib(1),
        vcpus: 1,
        needs: Default::default(),
        start: String::new(),
        tags: Vec::new(),
        local_disks: Mib(0),
        witness: None,
    }
}
