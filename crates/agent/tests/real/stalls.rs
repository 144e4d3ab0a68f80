//! Copies that do not follow their guest, under bare QEMU.

use lab::cluster::Cluster;
use lab::guests::GuestPlan;

use crate::bed::{MOVE_MAX, roomy, send, with_cluster};
use crate::sight::runs_only;
use crate::stalling::{self, CONSENTS, NEVER_SUFFICES, SUFFICES, Stalled, WRITES};

fn with_writer(
    test: &str,
    copy: &str,
    body: impl AsyncFnOnce(&Cluster, &GuestPlan) -> anyhow::Result<()>,
) {
    let plan = GuestPlan { dirty: Some(WRITES), ..GuestPlan::new("web1", 1) };
    let sections = roomy("off") + copy;
    with_cluster(test, &sections, &[(plan, 0)], async |cluster, guests| {
        stalling::narrow(cluster)?;
        body(cluster, &guests[0].plan).await
    });
}

async fn moved(cluster: &Cluster) -> anyhow::Result<Stalled> {
    let id = send(cluster, "web1", 0, 1).await?;
    stalling::ended(cluster, id, MOVE_MAX).await
}

#[test]
fn a_longer_pause_is_allowed_step_by_step_until_it_suffices() {
    let test = "stalls::a_longer_pause_is_allowed_step_by_step_until_it_suffices";
    with_writer(test, SUFFICES, async |cluster, plan| {
        moved(cluster).await?.sufficed()?;
        runs_only(cluster, plan, 1).await
    });
}

#[test]
fn where_it_never_suffices_the_move_is_given_up_with_what_would_help() {
    let test = "stalls::where_it_never_suffices_the_move_is_given_up_with_what_would_help";
    with_writer(test, NEVER_SUFFICES, async |cluster, plan| {
        moved(cluster).await?.given_up()?;
        runs_only(cluster, plan, 0).await
    });
}

#[test]
fn a_guest_that_consents_is_slowed_down_until_the_copy_follows() {
    let test = "stalls::a_guest_that_consents_is_slowed_down_until_the_copy_follows";
    with_writer(test, CONSENTS, async |cluster, plan| {
        moved(cluster).await?.slowed_down()?;
        runs_only(cluster, plan, 1).await
    });
}
