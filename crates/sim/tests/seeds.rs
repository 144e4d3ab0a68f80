//! Seeds that once failed, and what every run of a seed must keep.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use sim::faults::Kind;
use sim::swarm::{Life, Options, Until, live, swarm};

/// A seed that once failed, its hosts, and why. What a seed draws changes with the simulator and with what hosts do, so a seed
/// stays here as long as it may still say something; the mistake itself is held by a test of its own, named here.
const KEPT: &[(u64, u16, &str)] = &[
    (
        15,
        12,
        "a hot host asked again and again for the one VM whose copy never ends \
         (stories: a_vm_whose_copy_never_ends_does_not_keep_others_from_leaving)",
    ),
    (
        46,
        12,
        "a host was suspected for ever, since whoever had suspected it first was killed \
         (membership: a_suspicion_ends_though_whoever_had_it_first_has_died)",
    ),
    (
        67,
        12,
        "a VM was let in on top of one that had just arrived, whose history had not aged while it was copied \
         (stories: a_vm_that_has_just_arrived_counts_in_what_its_new_host_asks_for_the_next)",
    ),
    (
        126,
        12,
        "a VM that had arrived and was not measured yet counted as nothing \
         (stories: a_vm_that_has_arrived_but_was_not_measured_asks_what_was_expected_of_it)",
    ),
    (
        224,
        12,
        "a paused guest was killed at its target once it was in place there: that its source ends the stopped copy is right",
    ),
    (
        1_795_544_557_478,
        12,
        "a VM whose process had died during a move was started again before the move was over, and then forgotten \
         (stories: a_vm_that_is_started_again_before_its_move_is_over_is_not_forgotten)",
    ),
    (
        1_795_554_309_268,
        12,
        "a mistake of the checker of costs: a VM that was down counted as a load while it was, once it had been started again",
    ),
    (
        1_795_828_744_941,
        12,
        "a mistake of the checker of hot spots: a host hardly over its threshold stayed hot, since no departure was worth a move",
    ),
    (
        1_795_560_431_047,
        12,
        "another of its mistakes: a VM asked about just after its load had changed was on its way for half a minute, counted by \
         the load that had been told",
    ),
    (
        90,
        12,
        "a VM died at its target between `owner` and its first instruction: its source's stopped copy stays, for a person to end",
    ),
    (
        20_250,
        12,
        "a rule asked again and again for a VM whose copy never ends, and each failure made its hot host rest for minutes",
    ),
    (
        1_795_966_706_331,
        12,
        "a swap brought less than its margin, since the VM given in return relieved its host of what it was expected to ask \
         (placement::exchange: what_a_vm_only_was_or_will_be_like_relieves_nobody)",
    ),
    (
        1_795_966_710_036,
        12,
        "a hot host asked in turns about two VMs that nobody could take, at ever longer intervals, and never about a third \
         (complaints: complaint_5_vms_that_nobody_takes_are_asked_about_in_turn_with_the_others)",
    ),
    (
        1_795_966_708_131,
        12,
        "a mistake of the checker of room: a host that an operator had overfilled seemed to have room while its agent, just \
         started, had not found all its VMs yet",
    ),
    (
        1_795_966_706_523,
        12,
        "a mistake of the checker of copies: a paused VM that its source had taken back, and whose copy was void, died with its \
         source",
    ),
];

fn lived(seed: u64, hosts: u16) -> Life {
    let life = live(seed, &Options { hosts, ..Options::default() });
    assert_eq!(life.violations, [], "seed {seed} of {hosts} hosts:\n{}", life.story);
    life
}

#[test]
fn seeds_that_once_failed_do_not_fail() {
    for (seed, hosts, _why) in KEPT {
        lived(*seed, *hosts);
    }
}

#[test]
fn the_same_seed_gives_the_same_life_and_another_another() {
    let [one, again, other] = [7, 7, 8].map(|seed| lived(seed, 6));
    assert_eq!((one.hash, one.events, one.moves), (again.hash, again.events, again.moves));
    assert_ne!(one.hash, other.hash);
}

#[test]
fn every_kind_of_fault_strikes_and_moves_are_struck_in_every_phase() {
    let lives = Mutex::new(Vec::new());
    let told = |life: &Life, _| lives.lock().unwrap().push(life.clone());
    let report = swarm(1000, Until::Seeds(16), &Options::default(), None, &told);
    assert_eq!(report.violations, 0, "{}", report.table());
    let lives = lives.into_inner().unwrap();
    let struck: BTreeSet<Kind> =
        lives.iter().flat_map(|life| life.faults.keys().copied()).collect();
    let kinds: BTreeSet<Kind> = Kind::ALL.iter().copied().collect();
    assert_eq!(struck, kinds);
    let phases: BTreeSet<&str> =
        lives.iter().flat_map(|life| life.phases.keys().copied()).collect();
    for phase in [
        "asking",
        "confirmed",
        "ready",
        "copying",
        "switching-over",
        "releasing",
        "handing-over",
        "discarding",
        "undoing",
    ] {
        assert!(phases.contains(phase), "no fault struck a move that was {phase}: {phases:?}");
    }
    let sum = |outcome: &str| lives.iter().map(|life| life.outcomes[outcome]).sum::<u64>();
    let (done, abandoned) = (sum("done"), sum("abandoned"));
    assert!(done > 300 && abandoned > 150, "{done} done, {abandoned} abandoned");
    assert!(report.moves_judged > 10, "{} moves judged", report.moves_judged);
}

#[test]
fn without_faults_nothing_is_struck_and_moves_are_made() {
    let options = Options { faulty: Duration::ZERO, ..Options::default() };
    for seed in 1..6 {
        let life = live(seed, &options);
        assert_eq!(life.violations, [], "seed {seed}:\n{}", life.story);
        assert!(life.faults.is_empty() && life.outcomes["done"] > 0, "{life:?}");
    }
}
