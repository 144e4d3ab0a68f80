//! Clusters whose guests follow a trace, with histories that travel and without.

use sim::traces::Guest;
use sim::travel::{Options, live};

/// Guests of a made-up trace of six hours: each is busy for an hour and a half in turn, so that hosts become hot.
fn guests() -> Vec<Guest> {
    let busy = |vm: u32, slot: u32| (slot / 18 + vm / 6).is_multiple_of(4);
    let load = |vm, slot| Some(if busy(vm, slot) { 90.0 } else { 15.0 });
    let cpu = |vm| (0..72).map(|slot| load(vm, slot)).collect();
    (0..24).map(|vm| Guest { vm, cores: 2, cpu: cpu(vm), ..Guest::default() }).collect()
}

#[test]
fn a_seed_lives_the_same_twice_and_without_travel_nothing_is_read() {
    let options = Options { hosts: 4, vms: 24, load: 60 };
    let with = live(3, &guests(), &options, true);
    assert_eq!(with, live(3, &guests(), &options, true));
    assert!(with.moves > 0 && with.hot_minutes > 0, "{with:?}");
    let without = live(3, &guests(), &options, false);
    assert_eq!(without.refused_at_readiness, 0, "{without:?}");
    assert!(without.moves > 0, "{without:?}");
}
