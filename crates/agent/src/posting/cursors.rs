//! Up to where each receiver is settled, on disk: `webhooks.json` beside the event log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::kept::Kept;

const FILE: &str = "webhooks.json";

/// The number of the last settled event, by the receiver's key.
type Settled = BTreeMap<String, u64>;

#[derive(Clone, Debug)]
pub(super) struct Cursors(Arc<Mutex<Kept<Settled>>>);

impl Cursors {
    pub(super) fn within(folder: &Path) -> Cursors {
        Cursors(Arc::new(Kept::within(folder, FILE).into()))
    }

    /// Where these hooks go on, none after `newest`; others are forgotten. If it cannot be read or kept they begin at `newest`.
    pub(super) async fn begin(&self, keys: BTreeSet<String>, newest: u64) -> Settled {
        let begun = self.change(move |kept: &mut Settled| {
            let old = std::mem::take(kept);
            let from = |key: &String| old.get(key).copied().unwrap_or(newest).min(newest);
            *kept = keys.iter().map(|key| (key.clone(), from(key))).collect();
            kept.clone()
        });
        begun.await.unwrap_or_else(|error| {
            tracing::error!("webhooks and traces begin with what happens from now on: {error:#}");
            Settled::new()
        })
    }

    /// Keeps that this receiver is settled up to there.
    ///
    /// # Errors
    /// It may be kept or not: after a restart something may be delivered again.
    pub(super) async fn settle(&self, key: String, seq: u64) -> anyhow::Result<()> {
        self.change(move |kept| kept.insert(key, seq)).await.map(|_before| ())
    }

    async fn change<R: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Settled) -> R + Send + 'static,
    ) -> anyhow::Result<R> {
        let kept = Arc::clone(&self.0).lock_owned().await;
        // Who asked may be gone; the lock goes with the write.
        tokio::task::spawn_blocking(move || kept.change(change)).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(|&key| key.to_owned()).collect()
    }

    #[tokio::test]
    async fn each_goes_on_where_it_stopped_and_none_beyond_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let cursors = || Cursors::within(folder.path());
        let from = cursors().begin(keys(&["a", "b"]), 10).await;
        assert_eq!(from, Settled::from([("a".to_owned(), 10), ("b".to_owned(), 10)]));
        cursors().settle("a".to_owned(), 15).await.unwrap();
        let from = cursors().begin(keys(&["a", "c"]), 20).await;
        assert_eq!(from, Settled::from([("a".to_owned(), 15), ("c".to_owned(), 20)]));
        // The log has lost its end; and what was forgotten begins anew.
        let from = cursors().begin(keys(&["a", "b"]), 12).await;
        assert_eq!(from, Settled::from([("a".to_owned(), 12), ("b".to_owned(), 12)]));
    }

    #[tokio::test]
    async fn a_damaged_file_keeps_nobody_from_being_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "not it").unwrap();
        let cursors = Cursors::within(folder.path());
        assert_eq!(cursors.begin(keys(&["a"]), 10).await, Settled::new());
        let why = format!("{:#}", cursors.settle("a".to_owned(), 11).await.unwrap_err());
        assert!(why.contains("webhooks.json: mend it, or remove it"), "{why}");
    }
}
