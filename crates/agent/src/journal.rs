//! The journal's thread: writes what `decide` wants on disk, in order, and says when it is there.
//!
//! **Invariant:** `Stored` is said only after the disk has it; `StoreFailed` only after a reread showed that it does not.

use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use decide::migrate::record::{MoveStage, Record};
use decide::wire;
use drivers::store::{Entry, Journal, StoreError};
use tokio::sync::mpsc;

/// Room kept on disk for the records of one move, and of what follows from it: four times the longest definition (`START_MAX`).
const ROOM_PER_MOVE: u64 = 256 * 1024;
/// Between two tries to reread a journal that cannot be read.
const REREAD: Duration = Duration::from_millis(500);

/// What is to be written.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) number: u64,
    pub(crate) records: Vec<Record>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) number: u64,
    /// The journal's generation since, or why it is not on disk.
    pub(crate) result: Result<u64, String>,
}

/// The thread, and the two ends of what is said to it and by it.
pub(crate) struct Thread {
    pub(crate) orders: mpsc::UnboundedSender<Write>,
    pub(crate) heard: mpsc::UnboundedReceiver<Written>,
    /// To be joined at the end, so that the file is closed in order.
    pub(crate) thread: JoinHandle<()>,
}

/// Starts the thread. It ends when nothing can be sent to it any more, and what was sent is written.
pub(crate) fn start(journal: Journal, open_moves: usize) -> anyhow::Result<Thread> {
    let (orders, received) = mpsc::unbounded_channel();
    let (said, heard) = mpsc::unbounded_channel();
    let thread = std::thread::Builder::new()
        .name("journal".to_owned())
        .spawn(move || write_all(journal, open_moves, received, &said))
        .context("starting the journal's thread")?;
    Ok(Thread { orders, heard, thread })
}

fn write_all(
    mut journal: Journal,
    open_moves: usize,
    mut orders: mpsc::UnboundedReceiver<Write>,
    said: &mpsc::UnboundedSender<Written>,
) {
    let mut open_moves = open_moves as u64;
    while let Some(Write { number, records }) = orders.blocking_recv() {
        let result = reserve(&mut journal, &records, &mut open_moves)
            .and_then(|()| write(&mut journal, &records, said));
        // Nobody listens any more: the agent is ending. What it still wanted written is written.
        let _ = said.send(Written { number, result });
    }
}

/// Before the first record of a move: room for all that may follow, so that a full disk stops it here and not half-way.
fn reserve(journal: &mut Journal, records: &[Record], open_moves: &mut u64) -> Result<(), String> {
    for record in records {
        match record {
            Record::Move(_, Some(record))
                if matches!(record.stage, MoveStage::Copying | MoveStage::Prepared) =>
            {
                journal
                    .reserve((*open_moves + 1) * ROOM_PER_MOVE)
                    .map_err(|error| chain(&error))?;
                *open_moves += 1;
            }
            Record::Move(_, None) => *open_moves = open_moves.saturating_sub(1),
            Record::Move(_, Some(_)) | Record::Vm(..) => {}
        }
    }
    Ok(())
}

fn write(
    journal: &mut Journal,
    records: &[Record],
    said: &mpsc::UnboundedSender<Written>,
) -> Result<u64, String> {
    let entries: Vec<Entry> = records.iter().map(entry).collect();
    let error = match journal.write(&entries) {
        Ok(generation) => return Ok(generation),
        Err(error) => error,
    };
    tracing::error!(error = chain(&error), "the journal was not written; rereading it");
    loop {
        match journal.reread() {
            Ok(found) if has(&found, &entries) => return Ok(found.generation),
            Ok(_) => return Err(chain(&error)),
            // It cannot be told what is on disk, so nothing is said: whoever waits goes on waiting.
            Err(again) if said.is_closed() => return Err(chain(&again)),
            Err(again) => {
                tracing::error!(
                    error = chain(&again),
                    "the journal cannot be reread; trying again"
                );
                std::thread::park_timeout(REREAD);
            }
        }
    }
}

fn has(found: &drivers::store::Records, entries: &[Entry]) -> bool {
    entries.iter().all(|entry| match entry {
        Entry::Vm(vm, bytes) => found.vms.get(vm) == Some(bytes),
        Entry::Move(id, bytes) => found.moves.get(id) == bytes.as_ref(),
    })
}

fn entry(record: &Record) -> Entry {
    match record {
        Record::Vm(vm, record) => Entry::Vm(*vm, wire::encode_vm_record(record)),
        Record::Move(id, record) => Entry::Move(*id, record.as_ref().map(wire::encode_move_record)),
    }
}

/// The error and what led to it.
pub(crate) fn chain(error: &StoreError) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}
