//! Bugs planted on purpose, to see that the model checks and the simulator find them (`cargo xtask mutants`).
//!
//! Without the feature `planted` all of this is a constant `false`, and tidy keeps the feature out of every crate that is
//! shipped.

macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident = $name:literal,)*) => {
        /// One bug. At most one is planted at a time.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Bug { $($(#[$doc])* $bug,)* }

        impl Bug {
            /// Every bug there is.
            pub const ALL: &[Bug] = &[$(Bug::$bug,)*];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Bug::$bug => $name,)* }
            }
        }
    };
}

bugs! {
    /// The target resumes before `owner` is on disk.
    ResumeBeforeRecord = "resume-before-record",
    /// The source writes `released` before the hypervisor said `completed`.
    ReleasedBeforeCompleted = "released-before-completed",
    /// The source resumes its copy when the target's answer to the hand-over is lost.
    ResumeOnLostAnswer = "resume-on-lost-answer",
    /// The source discards its copy on `owner` instead of `running`.
    DiscardOnOwner = "discard-on-owner",
    /// The target says void before its incoming side is proven gone.
    VoidBeforeGone = "void-before-gone",
    /// A journal that is new, or was set back, says void.
    FreshJournalVoids = "fresh-journal-voids",
    /// The target discards a complete copy when its source is silent for long.
    DiscardCompleteOnTimeout = "discard-complete-on-timeout",
    /// The target sends `cont` before its copy is complete.
    EarlyCont = "early-cont",
    /// A reservation does not end by itself.
    ReservationKept = "reservation-kept",
    /// The hand-over does not raise the epoch.
    EpochNotRaised = "epoch-not-raised",
    /// A confirmation that comes twice starts two incoming sides.
    ConfirmedTwice = "confirmed-twice",
    /// The hand-over goes out while the tap is still on the bridge.
    TapLeftOn = "tap-left-on",
    /// A source whose process ended without having said `completed` hands the VM over.
    ReleasedWhenGone = "released-when-gone",
    /// A target whose wait for the copy ended voids and ends it without a look.
    LateCopyEnded = "late-copy-ended",
    /// Relief is judged as if departures under way were still here.
    ReliefWithDepartures = "relief-with-departures",
    /// A target that judges by groups does not see the VMs that it has let in and that are not there yet.
    RulesWithoutArrivals = "rules-without-arrivals",
    /// Another VM goes in return than the one that was judged with the first half.
    ReturnNotJudged = "return-not-judged",
    /// Room is kept for ever for a VM that was to come in return.
    ReturnAwaitedForEver = "return-awaited-for-ever",
}

#[cfg(feature = "planted")]
mod switch {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Bug;

    /// 0: none.
    static PLANTED: AtomicU8 = AtomicU8::new(0);

    /// Plants a bug in this process, or takes it out again.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.store(bug.map_or(0, |bug| bug as u8 + 1), Ordering::SeqCst);
    }

    /// Whether this bug is planted.
    pub fn planted(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as u8 + 1
    }
}

#[cfg(feature = "planted")]
pub use switch::{plant, planted};

/// Whether this bug is planted: never, without the feature.
#[cfg(not(feature = "planted"))]
pub const fn planted(_bug: Bug) -> bool {
    false
}
