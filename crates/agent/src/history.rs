//! The histories' thread: writes what has closed, once a minute, and reads what is asked for; and writes what of rests is to last.
//!
//! **Invariant:** whatever becomes of the disk, the agent goes on: what cannot be written is left out, which is said once.
//! **Invariant:** no more than [`ORDERS_MAX`] orders wait, also while a disk hangs.

use std::cell::Cell;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread::JoinHandle;

use anyhow::Context;
use decide::host::Event;
use decide::host::rests::Rests;
use decide::units::{Time, VmId};
use decide::usage::history::aged::AgedLevel;
use decide::usage::history::levels::{Closed, Level};
use decide::usage::history::{Kept, Whose};
use drivers::store::StoreError;
use drivers::store::history::{Histories, travel};
use tokio::sync::{mpsc as ears, oneshot};

use crate::config;
use crate::journal::chain;
use crate::kept::Kept as File;
use crate::steering::Steering;

/// What is kept in mind between two writes at the most: a minute of a thousand VMs.
const WAITING_MAX: usize = 10_000;

/// Orders that may wait: some minutes of what closes each second.
const ORDERS_MAX: usize = 256;

/// What the thread is told.
pub(crate) enum Order {
    /// Keep this.
    Keep(Vec<Kept>),
    /// Keep these, in place of those before.
    KeepRests(Rests),
    /// Give back what a host must know to go on.
    Recall(Whose),
    /// Give what is stored of a history, to be sent at that time.
    Gather(Whose, Time, oneshot::Sender<Vec<AgedLevel>>),
    /// Set aside what came of a VM's history at that time.
    Stage(VmId, Time, Vec<u8>),
    /// Forget what was set aside of it.
    Unstage(VmId),
    /// One level of a history, oldest first, from a time on.
    Read(Whose, Level, Time, oneshot::Sender<Result<Vec<Closed>, String>>),
}

/// The way to the thread. What finds no room is dropped: a history has gaps where a disk hung.
pub(crate) struct Orders {
    sender: SyncSender<Order>,
    /// Something was dropped, and that was said.
    full: Cell<bool>,
}

impl Orders {
    pub(crate) fn send(&self, order: Order) {
        let full = match self.sender.try_send(order) {
            Ok(()) => false,
            Err(TrySendError::Full(_)) => true,
            Err(TrySendError::Disconnected(_)) => {
                return tracing::error!("the histories' thread is gone: none are kept");
            }
        };
        let before = self.full.replace(full);
        if full && !before {
            tracing::warn!("usage history is lost: its disk does not keep up");
        }
    }
}

impl Orders {
    /// The same, but waits for room.
    pub(crate) fn send_waiting(&self, order: Order) {
        // Without its thread nothing is kept, which was said.
        let _ = self.sender.send(order);
    }
}

/// The thread, and the two ends of what is said to it and by it.
pub(crate) struct Thread {
    pub(crate) orders: Orders,
    pub(crate) heard: ears::UnboundedReceiver<Event>,
    /// To be joined at the end, so that the last minute is written.
    pub(crate) thread: JoinHandle<()>,
}

/// How long VMs rest, over restarts. It is not a history, and is kept where none are.
fn rests(folder: &Path) -> File<Rests> {
    File::within(folder, "rests.json")
}

/// Tells the loop how long VMs rest; where that cannot be read, they do not.
pub(crate) fn resume_rests(folder: &Path, steering: &mut Steering) {
    match rests(folder).read() {
        Ok(rests) => steering.handle(Event::Rests(rests)),
        Err(error) => tracing::warn!("how long VMs rest is not known: {error:#}"),
    }
}

/// Starts the thread. It ends when nothing can be sent to it any more, and what was sent is written.
pub(crate) fn start(folder: &Path, config: &config::History) -> anyhow::Result<Thread> {
    let (sender, received) = mpsc::sync_channel(ORDERS_MAX);
    let orders = Orders { sender, full: Cell::new(false) };
    let (said, heard) = ears::unbounded_channel();
    let rests = rests(folder);
    let folder = config.keep.then(|| folder.to_owned());
    let spans = config.spans();
    let thread = std::thread::Builder::new()
        .name("history".to_owned())
        .spawn(move || {
            let (histories, waiting) = (None, Vec::new());
            let mut shelf = Shelf { histories, waiting, failing: false, rests, unkept: None, said };
            if let Some(folder) = folder {
                shelf.open(Histories::open(&folder, spans));
            }
            shelf.work(&received);
        })
        .context("starting the histories' thread")?;
    Ok(Thread { orders, heard, thread })
}

struct Shelf {
    /// Absent: nothing is kept on disk.
    histories: Option<Histories>,
    waiting: Vec<Kept>,
    /// The last write failed, and that was said.
    failing: bool,
    rests: File<Rests>,
    /// Those that could not be written.
    unkept: Option<Rests>,
    said: ears::UnboundedSender<Event>,
}

impl Shelf {
    fn open(&mut self, opened: Result<(Histories, Option<StoreError>), StoreError>) {
        match opened {
            Ok((histories, set_aside)) => {
                self.histories = Some(histories);
                if let Some(bad) = set_aside {
                    self.say(format!("the usage histories were set aside and begun anew: {bad}"));
                }
            }
            Err(error) => self.say(format!("no usage history is kept on disk: {}", chain(&error))),
        }
    }

    fn work(&mut self, orders: &Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            match order {
                Order::Keep(kept) => self.keep(kept),
                Order::KeepRests(rests) => self.keep_rests(rests),
                Order::Recall(whose) => self.recall(whose),
                Order::Gather(whose, now, reply) => {
                    // Nobody waits any more only if that took too long.
                    let _ = reply.send(self.gather(whose, now));
                }
                Order::Stage(vm, came, bytes) => {
                    self.keep_aside(|histories| histories.stage(vm, came, &bytes));
                }
                Order::Unstage(vm) => self.keep_aside(|histories| histories.unstage(vm)),
                Order::Read(whose, level, since, reply) => {
                    // Nobody waits any more only if the client went away.
                    let _ = reply.send(self.read(whose, level, since));
                }
            }
        }
        self.write();
    }

    /// What closes a minute closes it for all: then everything is written, together.
    fn keep(&mut self, kept: Vec<Kept>) {
        let due = |kept: &Kept| match kept {
            Kept::Span(_, closed) => closed.level == Level::Minute,
            Kept::Past(..) => true,
        };
        let due = kept.iter().any(due);
        if self.histories.is_some() && self.waiting.len() < WAITING_MAX {
            self.waiting.extend(kept);
        }
        if due {
            self.write();
            if let Some(rests) = self.unkept.clone() {
                self.keep_rests(rests);
            }
        }
    }

    /// What cannot be written is tried again with the next minute; that is said once.
    fn keep_rests(&mut self, rests: Rests) {
        match self.rests.put(&rests) {
            Ok(()) => self.unkept = None,
            Err(error) => {
                if self.unkept.replace(rests).is_none() {
                    self.say(format!("a restart would forget how long VMs rest: {error:#}"));
                }
            }
        }
    }

    fn write(&mut self) {
        let Some(histories) = &mut self.histories else { return };
        match histories.write(&std::mem::take(&mut self.waiting)) {
            Ok(()) => self.failing = false,
            Err(_again) if self.failing => {}
            Err(error) => {
                self.failing = true;
                self.say(format!("usage history is lost: {}", chain(&error)));
            }
        }
    }

    fn recall(&mut self, whose: Whose) {
        self.write();
        match self.histories.as_mut().map(|histories| histories.recall(whose)) {
            None | Some(Ok(None)) => {}
            Some(Ok(Some((quarters, past)))) => {
                // Nobody listens any more: the agent is ending.
                let _ = self.said.send(Event::Recalled { whose, quarters, past });
            }
            Some(Err(error)) => self.say(format!("a usage history is not read: {}", chain(&error))),
        }
    }

    /// Whatever is stored, as it travels; nothing where the disk cannot be read.
    fn gather(&mut self, whose: Whose, now: Time) -> Vec<AgedLevel> {
        self.write();
        let Some(histories) = &mut self.histories else { return Vec::new() };
        let read = |level| Ok(travel::packed(now, level, &histories.read(whose, level, Time(0))?));
        let levels: Result<Vec<Option<AgedLevel>>, StoreError> =
            Level::ALL.into_iter().map(read).collect();
        levels.map(|levels| levels.into_iter().flatten().collect()).unwrap_or_else(|error| {
            let why = chain(&error);
            self.say(format!("of a usage history only what is in memory travels: {why}"));
            Vec::new()
        })
    }

    fn keep_aside(&mut self, act: impl FnOnce(&mut Histories) -> Result<(), StoreError>) {
        if let Some(Err(error)) = self.histories.as_mut().map(act) {
            self.say(format!(
                "of a usage history that came only what is in memory is kept: {}",
                chain(&error)
            ));
        }
    }

    fn read(&mut self, whose: Whose, level: Level, since: Time) -> Result<Vec<Closed>, String> {
        self.write();
        let Some(histories) = &mut self.histories else {
            return Err("no usage history is kept on disk (key history.keep)".to_owned());
        };
        histories.read(whose, level, since).map_err(|error| chain(&error))
    }

    fn say(&self, words: String) {
        // Nobody listens any more: the agent is ending.
        let _ = self.said.send(Event::BadInput(words));
    }
}

#[cfg(test)]
mod tests {
    use decide::host::rests::Rest;

    use super::*;

    #[test]
    fn rests_are_kept_where_no_history_is_and_the_last_ones_count() {
        let folder = tempfile::tempdir().unwrap();
        let config = config::History { keep: false, ..config::History::default() };
        let Thread { orders, thread, .. } = start(folder.path(), &config).unwrap();
        let told = |unpaid| {
            let rest = Rest { until: Time(u64::MAX), insisted_until: Time(3), unpaid };
            Rests { made: vec![Time(7)], vms: [(VmId(u128::MAX), rest)].into() }
        };
        (1..=3).for_each(|unpaid| orders.send(Order::KeepRests(told(unpaid))));
        drop(orders);
        thread.join().unwrap();
        assert_eq!(rests(folder.path()).read().unwrap(), told(3));
    }

    #[test]
    fn a_disk_that_hangs_holds_up_nobody_and_what_waits_has_a_limit() {
        let (sender, hanging) = mpsc::sync_channel(ORDERS_MAX);
        let orders = Orders { sender, full: Cell::new(false) };
        (0..10 * ORDERS_MAX).for_each(|_| orders.send(Order::Recall(Whose::Host)));
        assert!(orders.full.get());
        assert_eq!(hanging.try_iter().count(), ORDERS_MAX);
        orders.send(Order::Recall(Whose::Host));
        assert!(!orders.full.get(), "it keeps up again");
    }
}
