//! A host's journal: what is durable, and what was asked to be.

use std::collections::BTreeMap;

use decide::migrate::record::{MoveRecord, Record, VmRecord};
use decide::units::{JournalId, MoveId};
use decide::wire::message::JournalMark;

/// What is on one host's disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    /// Which journal, and its writes so far.
    pub(crate) mark: JournalMark,
    /// How often it was opened.
    pub(crate) incarnation: u32,
    /// The first incarnation of this journal.
    pub(crate) first: u32,
    /// What it has of the VM.
    pub(crate) vm: Option<VmRecord>,
    /// The moves it has open.
    pub(crate) moves: BTreeMap<MoveId, MoveRecord>,
}

impl Disk {
    /// A journal that has just been made; those made later are told apart by `first`.
    pub(crate) fn new(site: u8, first: u32) -> Disk {
        let id = JournalId(u128::from(site) * 100 + u128::from(first));
        let mark = JournalMark { id, ..JournalMark::default() };
        Disk { mark, incarnation: first - 1, first, vm: None, moves: BTreeMap::new() }
    }

    /// An agent opens it.
    pub(crate) fn open(&mut self) {
        self.incarnation += 1;
        (self.mark.opened, self.mark.life) = (self.mark.generation, u64::from(self.incarnation));
        self.mark.generation += 1;
    }

    /// Writes these together.
    pub(crate) fn write(&mut self, records: &[Record]) {
        self.mark.generation += 1;
        for record in records {
            match record {
                Record::Vm(_, vm) => self.vm = Some(*vm),
                Record::Move(id, Some(open)) => drop(self.moves.insert(*id, open.clone())),
                Record::Move(id, None) => drop(self.moves.remove(id)),
            }
        }
    }
}

impl Disk {
    /// As the agent does with a journal that its witness contradicts: it becomes another one, and what it has open is left
    /// to a person.
    pub(crate) fn put_in_doubt(&mut self, site: u8, first: u32) {
        let fresh = Disk::new(site, first);
        self.mark.id = fresh.mark.id;
        (self.incarnation, self.first) = (fresh.incarnation, fresh.first);
        self.moves.values_mut().for_each(|open| open.doubtful = true);
        self.mark.generation += 1;
    }
}
