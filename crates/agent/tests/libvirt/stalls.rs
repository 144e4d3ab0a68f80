//! Copies that do not follow their guest, under libvirt.

use std::path::PathBuf;

use crate::stalling::{self, CONSENTS, NEVER_SUFFICES, SUFFICES, Stalled, WRITES};
use crate::{Bed, DAEMON, LONG, Set, with_guest_and};

fn with_writer(test: &str, copy: &str, body: impl AsyncFnOnce(&mut Bed) -> anyhow::Result<()>) {
    let set = Set { sections: copy, writes: WRITES, ..Set::default() };
    with_guest_and(test, &set, |_network| Ok(PathBuf::from(DAEMON)), body);
}

async fn moved(bed: &Bed) -> anyhow::Result<Stalled> {
    stalling::narrow(&bed.cluster)?;
    let id = bed.send(0, 1).await?;
    // Encrypted, on a busy machine: slowing the guest down may take all the time that such a copy has.
    stalling::ended(&bed.cluster, id, LONG * 2).await
}

#[test]
fn a_longer_pause_is_allowed_step_by_step_until_it_suffices() {
    let test = "stalls::a_longer_pause_is_allowed_step_by_step_until_it_suffices";
    with_writer(test, SUFFICES, async |bed| {
        moved(bed).await?.sufficed()?;
        bed.runs_only(1).await
    });
}

#[test]
fn where_it_never_suffices_the_move_is_given_up_with_what_would_help() {
    let test = "stalls::where_it_never_suffices_the_move_is_given_up_with_what_would_help";
    with_writer(test, NEVER_SUFFICES, async |bed| {
        moved(bed).await?.given_up()?;
        bed.runs_only(0).await
    });
}

#[test]
fn a_guest_that_consents_is_slowed_down_until_the_copy_follows() {
    let test = "stalls::a_guest_that_consents_is_slowed_down_until_the_copy_follows";
    with_writer(test, CONSENTS, async |bed| {
        moved(bed).await?.slowed_down()?;
        bed.runs_only(1).await
    });
}
