//! A journal that outlives its agent: writes in the order of their numbers, which may fail.

use std::collections::BTreeMap;

use decide::host::Event;
use decide::migrate::record::{MoveRecord, Record, VmRecord};
use decide::units::{MoveId, VmId};

#[derive(Default)]
pub(crate) struct Journal {
    pub(crate) vms: BTreeMap<VmId, VmRecord>,
    pub(crate) moves: BTreeMap<MoveId, MoveRecord>,
    pub(crate) generation: u64,
    /// So many of the next writes fail.
    pub(crate) fails: u32,
    asked: BTreeMap<u64, Vec<Record>>,
}

impl Journal {
    pub(crate) fn ask(&mut self, number: u64, records: Vec<Record>) {
        self.asked.insert(number, records);
    }

    /// The write of this number ends.
    pub(crate) fn write(&mut self, number: u64) -> Event {
        let records = self.asked.remove(&number).expect("it was asked for");
        if self.fails > 0 {
            self.fails -= 1;
            return Event::StoreFailed { number, why: "no space left".to_owned() };
        }
        self.apply(records);
        Event::Stored { number, generation: self.generation }
    }

    /// The agent dies: of the writes under way the first `kept` were on disk already.
    pub(crate) fn crash(&mut self, kept: usize) {
        let asked = std::mem::take(&mut self.asked);
        asked.into_values().take(kept).for_each(|records| self.apply(records));
    }

    fn apply(&mut self, records: Vec<Record>) {
        self.generation += 1;
        for record in records {
            match record {
                Record::Vm(vm, record) => {
                    let before = self.vms.insert(vm, record);
                    let floor = before.map_or(0, |before| before.floor);
                    assert!(record.floor >= floor, "the floor of {vm} falls: {floor}, {record:?}");
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
