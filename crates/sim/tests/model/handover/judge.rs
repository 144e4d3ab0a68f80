//! What must hold, and what must be able to happen.

use std::collections::BTreeSet;

use decide::migrate::record::Ownership;
use decide::migrate::{source, target};
use stateright::Property;

use super::qemu::State;
use super::{HandOver, World};

/// What is remembered beside the world, to judge it by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Ghost {
    /// A guest ran with memory that is older than what it has on disk.
    pub(crate) stale_ran: bool,
    /// The only good copy died: nobody can save the VM.
    pub(crate) excused: bool,
    /// Promises never to own the VM under that epoch, by the host that gave them.
    pub(crate) voids: BTreeSet<(u8, u64)>,
    void_broken: bool,
    /// Void was said while the incoming side was there.
    pub(crate) void_early: bool,
    /// A stopped copy was ended although no other had run since.
    pub(crate) discarded: bool,
    /// A journal said void that had been replaced since.
    pub(crate) forgetful_void: bool,
    epoch_fell: bool,
    /// Who owned it last on disk, and under which epoch.
    owner: Option<(u64, u8)>,
    /// Floors on disk.
    floors: Vec<u64>,
    /// Whose journal was replaced by another.
    pub(crate) replaced: BTreeSet<u8>,
    pub(crate) alarm: bool,
    /// How moves ended.
    ends: BTreeSet<End>,
}

/// How a side of a move ended, and whether it had been found open at its agent's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum End {
    Done { recovered: bool },
    Undone { recovered: bool },
    SourceDown,
    Arrived { recovered: bool },
    Void { recovered: bool },
    TargetDown,
}

impl Ghost {
    pub(crate) fn new() -> Ghost {
        Ghost::default()
    }

    /// Whether something that must never happen has.
    pub(crate) fn bad(&self) -> bool {
        self.stale_ran
            || self.void_broken
            || self.epoch_fell
            || self.void_early
            || self.discarded
            || self.forgetful_void
    }

    /// The agent there lets the guest run under that epoch.
    pub(crate) fn resumes(&mut self, site: u8, epoch: u64) {
        self.void_broken |= self.voids.contains(&(site, epoch));
    }

    pub(crate) fn source_ends(&mut self, outcome: &source::Outcome, recovered: bool) {
        self.ends.insert(match outcome {
            source::Outcome::Done => End::Done { recovered },
            source::Outcome::Undone(_) | source::Outcome::GivenUp(_) => End::Undone { recovered },
            source::Outcome::Down(_) => End::SourceDown,
        });
    }

    pub(crate) fn target_ends(&mut self, outcome: &target::Outcome, recovered: bool) {
        self.ends.insert(match outcome {
            target::Outcome::Arrived => End::Arrived { recovered },
            target::Outcome::Void(_) => End::Void { recovered },
            target::Outcome::Down(_) => End::TargetDown,
        });
    }
}

impl World {
    /// Compares what is on disk with what was.
    pub(crate) fn look(&mut self) {
        let floors: Vec<u64> =
            self.hosts.iter().map(|host| host.disk.vm.map_or(0, |vm| vm.floor)).collect();
        for (site, floor) in self.sites().zip(&floors) {
            let before = self.ghost.floors.get(usize::from(site)).copied().unwrap_or(0);
            self.ghost.epoch_fell |= *floor < before && !self.ghost.replaced.contains(&site);
            if self.host(site).owns() && !self.ghost.replaced.contains(&site) {
                self.ghost.void_broken |= self.ghost.voids.contains(&(site, *floor));
                let (last, owner) = self.ghost.owner.unwrap_or((0, site));
                // Another owner under an epoch that is not higher, or both still are.
                if owner != site && *floor > last && !self.host(owner).owns() {
                    self.ghost.owner = Some((*floor, site));
                } else if owner != site {
                    self.ghost.epoch_fell |= *floor <= last && !self.host(owner).owns();
                } else {
                    self.ghost.owner = Some((*floor, site));
                }
            }
        }
        self.ghost.floors = floors;
    }

    fn may_run(&self) -> usize {
        self.hosts.iter().filter(|host| host.qemu.is_some_and(|qemu| qemu.may_run())).count()
    }

    fn runs_by_its_journal(&self) -> bool {
        self.sites().all(|site| {
            let host = self.host(site);
            let runs = host.qemu.is_some_and(|qemu| qemu.may_run());
            !runs || host.owns() || self.ghost.replaced.contains(&site)
        })
    }

    fn owners(&self) -> usize {
        let trusted = self.sites().filter(|site| !self.ghost.replaced.contains(site));
        trusted.filter(|site| self.host(*site).owns()).count()
    }

    fn runs_beside_a_tap(&self) -> bool {
        let runs = |state| matches!(state, State::Running | State::Active);
        let taps = self.hosts.iter().filter_map(|host| host.qemu);
        let stopped = |state| state == State::PostMigrate;
        let left = taps.clone().any(|qemu| stopped(qemu.state) && qemu.tap);
        left && taps.clone().any(|qemu| runs(qemu.state))
    }

    /// Whether nobody has anything left to do, though all are up.
    fn settled(&self) -> bool {
        self.hosts.iter().all(|host| host.agent.as_ref().is_some_and(super::agent::Agent::idle))
    }

    fn executes(&self) -> bool {
        let runs = |state| matches!(state, State::Running | State::Active);
        self.hosts.iter().any(|host| host.qemu.is_some_and(|qemu| runs(qemu.state)))
    }

    fn ended(&self, wanted: fn(&End) -> bool) -> bool {
        self.ghost.ends.iter().any(wanted)
    }

    fn holds_complete(&self) -> bool {
        self.hosts.iter().any(|host| {
            host.qemu.is_some_and(|qemu| qemu.state == State::IncomingComplete && qemu.fresh)
        })
    }
}

/// The names are what a violation is told by.
pub(crate) fn properties(model: &HandOver) -> Vec<Property<HandOver>> {
    let mut all = vec![
        Property::always("at most one host may run the VM", |_, w: &World| w.may_run() <= 1),
        Property::always("never is every copy discarded", |_, w: &World| {
            w.fresh_copies() > 0 || w.ghost.excused
        }),
        Property::always(
            "a stopped copy is discarded only after another has run",
            |_, w: &World| !w.ghost.discarded,
        ),
        Property::always("a guest runs only where the journal says that it may", |_, w: &World| {
            w.runs_by_its_journal()
        }),
        Property::always("void is said only once the incoming side is gone", |_, w: &World| {
            !w.ghost.void_early
        }),
        Property::always("a journal that was lost or set back says no void", |_, w: &World| {
            !w.ghost.forgetful_void
        }),
        Property::always("memory that may be stale is never let run", |_, w: &World| {
            !w.ghost.stale_ran
        }),
        Property::always("at most one journal says that its host owns the VM", |_, w: &World| {
            w.owners() <= 1
        }),
        Property::always("an epoch never goes back", |_, w: &World| !w.ghost.epoch_fell),
        Property::always("a void promise is kept", |_, w: &World| !w.ghost.void_broken),
        Property::always("a guest never runs beside another copy's tap", |_, w: &World| {
            !w.runs_beside_a_tap()
        }),
        // But where its owner's copy died, and the owner cannot tell whether that had run: in doubt nobody resumes.
        Property::always("when all is settled the VM runs", |_, w: &World| {
            let in_doubt = !w.ghost.replaced.is_empty() || w.ended(|end| *end == End::TargetDown);
            w.ghost.excused || in_doubt || !w.settled() || w.executes()
        }),
        Property::sometimes("a move completes", |_, w: &World| {
            w.ended(|end| matches!(end, End::Done { .. }))
        }),
        Property::sometimes("a move is undone", |_, w: &World| {
            w.ended(|end| matches!(end, End::Undone { .. }))
        }),
    ];
    all.extend(model.budget.properties());
    all
}

impl super::Budget {
    /// What must be able to happen with these faults.
    fn properties(&self) -> Vec<Property<HandOver>> {
        let mut all = Vec::new();
        if self.crashes > 0 {
            all.extend([
                Property::sometimes(
                    "a move completes by recovery at its source",
                    |_, w: &World| w.ended(|end| *end == End::Done { recovered: true }),
                ),
                Property::sometimes(
                    "a move is undone by recovery at its source",
                    |_, w: &World| w.ended(|end| *end == End::Undone { recovered: true }),
                ),
                Property::sometimes(
                    "a move completes by recovery at its target",
                    |_, w: &World| w.ended(|end| *end == End::Arrived { recovered: true }),
                ),
                Property::sometimes(
                    "a move is voided by recovery at its target",
                    |_, w: &World| w.ended(|end| *end == End::Void { recovered: true }),
                ),
                Property::sometimes(
                    "an agent dies between a write and what follows",
                    |_, w: &World| w.hosts.iter().any(|host| host.died_between),
                ),
            ]);
        }
        if self.deaths > 0 || self.power > 0 {
            all.extend([
                Property::sometimes("the only complete copy dies", |_, w: &World| w.ghost.excused),
                Property::sometimes("a released VM is taken back", |_, w: &World| {
                    w.ended(|end| matches!(end, End::Void { .. }))
                        && w.hosts.iter().any(|host| {
                            host.disk
                                .vm
                                .is_some_and(|vm| vm.ownership == Ownership::Owner && vm.floor > 2)
                                && host.qemu.is_some_and(|qemu| qemu.state == State::Running)
                        })
                }),
                Property::sometimes("a source is told that its VM is down", |_, w: &World| {
                    w.ended(|end| *end == End::SourceDown)
                }),
                Property::sometimes(
                    "a target is left with a dead VM of its own",
                    |_, w: &World| w.ended(|end| *end == End::TargetDown),
                ),
            ]);
        }
        if self.moves > 1 {
            all.push(Property::sometimes("a VM comes to a third host, or back", |_, w: &World| {
                w.ghost.owner.is_some_and(|(epoch, _)| epoch > 2)
                    && w.ended(|end| matches!(end, End::Done { .. }))
            }));
        }
        if self.journals > 0 {
            all.push(Property::sometimes(
                "a complete copy waits although a journal was lost",
                |_, w: &World| !w.ghost.replaced.is_empty() && w.holds_complete(),
            ));
        }
        all
    }
}
