//! Who owns the guest, in its domain's metadata, by agents at work: named wherever it is, and known to one that has lost its journal.

use std::fs;

use anyhow::ensure;
use api::EventFilter;
use lab::libvirt::virsh;
use lab::wait;

use crate::{Bed, LONG, with_guest};

const JOURNAL: &str = "/var/lib/evenkeel/journal.redb";

impl Bed {
    /// Waits until both definitions of the guest on that host name it as the owner, under that epoch.
    async fn is_named(&self, on: usize, epoch: u64) -> anyhow::Result<()> {
        let host = self.cluster.host(on);
        let words = [format!("name=\"{}\"", host.name()), format!("epoch=\"{epoch}\"")];
        let named = |arguments: &[&str]| {
            let text = virsh(host, arguments).unwrap_or_default();
            let mut ours = text.lines().filter(|line| line.contains("urn:evenkeel:owner"));
            ours.next().is_some_and(|line| words.iter().all(|word| line.contains(word)))
        };
        let what = format!("it is named {words:?}");
        let both = || {
            let both = named(&["dumpxml", "web1"]) && named(&["dumpxml", "--inactive", "web1"]);
            Ok(both.then_some(()))
        };
        wait::until(LONG, &what, both).await
    }
}

#[test]
fn a_domain_names_its_owner_and_an_agent_without_its_journal_goes_on_above() {
    let name = "witness::a_domain_names_its_owner_and_an_agent_without_its_journal_goes_on_above";
    with_guest(name, async |bed| {
        bed.is_named(0, 1).await?;
        let id = bed.send(0, 1).await?;
        let view = bed.ended(&id).await?;
        ensure!(view.phase == "done", "{view:?}");
        bed.runs_only(1).await?;
        bed.is_named(1, 2).await?;

        bed.cluster.stop_agent(1)?;
        fs::remove_file(bed.cluster.host(1).path(JOURNAL))?;
        bed.cluster.start_agent(1)?;
        bed.cluster.watches(1, "web1").await?;
        bed.is_named(1, 3).await?;
        let told = bed.cluster.api(1).events(&EventFilter::default()).await?;
        let told = serde_json::to_string(&told)?;
        let said = "names host2 as its owner under epoch 2, this host's journal does not know it; it goes on here under epoch 3";
        ensure!(told.contains(said), "{told}");
        bed.runs_only(1).await
    });
}
