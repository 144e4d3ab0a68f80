//! Histories that came with a VM. One is set aside, on disk, while its move is open; once the VM is here it is joined to what was
//! kept of it, in one transaction.
//!
//! ```text
//!   stage ─▶ set aside ─┬─ recall: the VM is here ─▶ joined, and no longer set aside
//!                       └─ unstage: the move was undone, or nobody asked for it in a week
//! ```
//!
//! **Invariant:** joined or not, never half: a history is set aside no more exactly when all of it is where it belongs.
//! **Invariant:** joined twice is joined once; a span that was kept here stays as it was.
//! **Invariant:** at most [`STAGED_MAX`] are set aside.

use std::collections::BTreeMap;

use decide::units::{Time, VmId};
use decide::usage::history::levels::{Closed, Level};
use decide::usage::history::past::Past;
use decide::usage::history::{Kept, Whose};
use decide::wire;
use redb::{ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::key::{Owner, owner};
use super::{
    BLOCKS, GONE_MAX, Histories, PASTS, ROWS, Spans, drop_owner, level_of, past_of, put, travel,
};
use crate::store::StoreError;

/// What was set aside: when it came, 8 bytes, low byte first, and the bytes that came.
pub(super) const STAGED: TableDefinition<Owner, &[u8]> = TableDefinition::new("staged");

/// Histories that are set aside at once; the oldest goes first. A host takes few moves at a time.
pub const STAGED_MAX: usize = 8;

impl Histories {
    /// Sets aside what came of a VM's history at that time, in place of what came before: bytes that were found to be a history.
    ///
    /// # Errors
    /// `Failed`: nothing was changed; the next call tries afresh.
    pub fn stage(&mut self, vm: VmId, came: Time, bytes: &[u8]) -> Result<(), StoreError> {
        let value = [&came.0.to_le_bytes()[..], bytes].concat();
        self.with_database(|database| {
            let transaction = database.begin_write()?;
            {
                let mut staged = transaction.open_table(STAGED)?;
                staged.insert(owner(Whose::Vm(vm)), value.as_slice())?;
                let mut all: Vec<(Time, Owner)> = Vec::new();
                for entry in staged.iter()? {
                    let (at, value) = entry?;
                    all.push((parted(value.value()).map_or(Time(0), |(came, _)| came), at.value()));
                }
                all.sort_unstable();
                let beyond = all.len().saturating_sub(STAGED_MAX);
                for (index, (at, whose)) in all.into_iter().enumerate() {
                    if index < beyond || came.since(at) > GONE_MAX {
                        staged.remove(whose)?;
                    }
                }
            }
            transaction.commit()?;
            Ok(())
        })
    }

    /// Forgets what was set aside of a VM's history.
    ///
    /// # Errors
    /// `Failed`: nothing was changed; the next call tries afresh.
    pub fn unstage(&mut self, vm: VmId) -> Result<(), StoreError> {
        self.with_database(|database| {
            let transaction = database.begin_write()?;
            transaction.open_table(STAGED)?.remove(owner(Whose::Vm(vm)))?;
            transaction.commit()?;
            Ok(())
        })
    }

    /// Joins what was set aside of a VM's history to what is kept of it, in one transaction; whether there was something.
    pub(super) fn join_staged(&mut self, whose: Whose) -> Result<bool, StoreError> {
        let keep = self.spans;
        self.with_database(|database| {
            let at = owner(whose);
            if database.begin_read()?.open_table(STAGED)?.get(at)?.is_none() {
                return Ok(false);
            }
            let transaction = database.begin_write()?;
            let removed = transaction.open_table(STAGED)?.remove(at)?.map(|it| it.value().to_vec());
            if let Some((spans, past)) = removed.as_deref().and_then(read) {
                join(&transaction, &keep, whose, &spans, &past)?;
            }
            transaction.commit()?;
            Ok(true)
        })
    }
}

fn parted(staged: &[u8]) -> Option<(Time, &[u8])> {
    let (came, bytes) = staged.split_first_chunk()?;
    Some((Time(u64::from_le_bytes(*came)), bytes))
}

/// What was set aside, by this host's time. It was looked at when it came: another version may have written it since.
fn read(staged: &[u8]) -> Option<(Vec<Closed>, Past)> {
    let (came, bytes) = parted(staged)?;
    let whole = wire::decode_history(bytes).ok()?;
    let spans = travel::arrived(came, &whole.levels).ok()?;
    Some((spans, Past::of_aged(came, &whole.recent.past).ok()?))
}

fn join(
    transaction: &WriteTransaction,
    keep: &Spans,
    whose: Whose,
    came: &[Closed],
    past: &Past,
) -> Result<(), redb::Error> {
    let mut joined: BTreeMap<(Level, u64), Closed> = BTreeMap::new();
    joined.extend(came.iter().map(|span| ((span.level, span.level.number(span.start)), *span)));
    let mut stays = past_of(&transaction.open_table(PASTS)?, whose)?;
    for level in Level::ALL {
        let (blocks, rows) = (transaction.open_table(BLOCKS)?, transaction.open_table(ROWS)?);
        let own = level_of(&blocks, &rows, whose, level)?;
        joined.extend(own.into_iter().map(|span| ((level, level.number(span.start)), span)));
    }
    stays.import(past);
    drop_owner(transaction, &owner(whose))?;
    let mut kept: Vec<Kept> = joined.into_values().map(|span| Kept::Span(whose, span)).collect();
    if let Whose::Vm(vm) = whose {
        kept.push(Kept::Past(vm, stays));
    }
    put(transaction, keep, &kept)
}

#[cfg(test)]
mod tests;
