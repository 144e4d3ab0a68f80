//! A host's disk with the journal on it, which outlives its agent: writes in the order of their numbers, which may fail.
//!
//! What is written together is on disk together or not at all (`redb` sees to that). Of the writes under way when an agent or
//! its host dies, some first ones are on disk and the rest is not: a torn write is a prefix of writes.

use std::collections::BTreeMap;

use decide::host::Event;
use decide::migrate::record::{MoveRecord, Record, VmRecord};
use decide::units::{MoveId, VmId};

/// One host's journal.
#[derive(Debug, Default)]
pub struct Journal {
    /// What it has of VMs.
    pub vms: BTreeMap<VmId, VmRecord>,
    /// What it has of open moves.
    pub moves: BTreeMap<MoveId, MoveRecord>,
    /// Writes so far.
    pub generation: u64,
    /// So many of the next writes fail.
    pub fails: u32,
    asked: BTreeMap<u64, Vec<Record>>,
    /// VMs of which a record with a lower floor than the one before was written.
    pub(crate) fell: Vec<(VmId, String)>,
}

impl Journal {
    pub(super) fn ask(&mut self, number: u64, records: Vec<Record>) {
        self.asked.insert(number, records);
    }

    /// The write of this number ends.
    pub(super) fn write(&mut self, number: u64) -> Option<Event> {
        let records = self.asked.remove(&number)?;
        if self.fails > 0 {
            self.fails -= 1;
            return Some(Event::StoreFailed { number, why: "no space left".to_owned() });
        }
        self.apply(records);
        Some(Event::Stored { number, generation: self.generation })
    }

    /// Writes that are under way.
    pub(super) fn under_way(&self) -> usize {
        self.asked.len()
    }

    /// The agent dies: of the writes under way the first `kept` were on disk already.
    pub(super) fn crash(&mut self, kept: usize) {
        let asked = std::mem::take(&mut self.asked);
        asked.into_values().take(kept).for_each(|records| self.apply(records));
    }

    fn apply(&mut self, records: Vec<Record>) {
        self.generation += 1;
        for record in records {
            match record {
                Record::Vm(vm, record) => {
                    let before = self.vms.insert(vm, record);
                    if let Some(before) = before.filter(|before| before.floor > record.floor) {
                        self.fell.push((vm, format!("{before:?} was followed by {record:?}")));
                    }
                }
                Record::Move(id, Some(record)) => {
                    self.moves.insert(id, record);
                }
                Record::Move(id, None) => {
                    self.moves.remove(&id);
                }
            }
        }
    }
}
