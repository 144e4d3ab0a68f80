//! What goes wrong: when and where is drawn from the seed.
//!
//! Two ways lead to a fault. Some come by themselves, at any time. Others lie in wait for moves: whenever an agent does
//! something about a move, a fault may be drawn that strikes one of its two sides within a few seconds, so that every phase of
//! a move is hit often.
//!
//! **Invariant:** every fault that lasts has its end drawn with it, and all end when everything heals.

mod strike;

use std::collections::BTreeMap;
use std::time::Duration;

use decide::units::{Time, VmId};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal, $alone:literal, $waiting:literal;)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// Every kind there is.
            pub const ALL: &[Kind] = &[$(Kind::$kind,)*];

            /// Its name in reports.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$kind => $name,)* }
            }

            /// How often it comes by itself, and how often from an ambush, against the other kinds.
            fn weights(self) -> (u32, u32) {
                match self { $(Kind::$kind => ($alone, $waiting),)* }
            }
        }
    };
}

kinds! {
    /// An agent is killed and started again; of its writes under way some first ones are on disk.
    AgentKilled = "agent-killed", 10, 16;
    /// A host loses power: its agent and all its VMs end.
    PowerLost = "power-lost", 1, 1;
    /// The process of a VM is killed, whatever it is doing.
    ProcessKilled = "process-killed", 3, 5;
    /// A copy breaks off.
    CopyBroken = "copy-broken", 4, 4;
    /// A hypervisor starts no incoming sides for a while.
    IncomingRefused = "incoming-refused", 4, 3;
    /// A hypervisor's reports come late for a while.
    HypervisorSlow = "hypervisor-slow", 4, 3;
    /// Some writes fail.
    WritesFail = "writes-fail", 5, 8;
    /// Writes take long for a while.
    DiskSlow = "disk-slow", 3, 4;
    /// The network is cut both ways, between two hosts or around one.
    CutBothWays = "cut-both-ways", 4, 6;
    /// The network is cut one way.
    CutOneWay = "cut-one-way", 4, 8;
    /// The network loses, repeats and delays for a while.
    Lossy = "lossy", 3, 0;
    /// A clock begins to run faster or slower.
    ClockDrifts = "clock-drifts", 4, 0;
}

/// Something that is due.
#[derive(Clone, Debug)]
pub(crate) enum Due {
    /// The next fault that comes by itself.
    Next,
    /// This kind, at this host; its move's VM and other side.
    Strike { kind: Kind, at: u16, vm: Option<VmId>, peer: Option<u16> },
    /// A fault that lasted ends.
    End(Lasting),
}

/// What lasts.
#[derive(Clone, Debug)]
pub(crate) enum Lasting {
    Refusing(u16),
    SlowHypervisor(u16),
    SlowDisk(u16),
    Cut(Vec<(u16, u16)>),
    Lossy,
}

/// Draws faults and counts them.
#[derive(Debug)]
pub struct Faults {
    rng: ChaCha8Rng,
    /// Whether there are any.
    pub active: bool,
    /// Of a thousand things that agents do about moves, so many wake an ambush.
    pub ambushes: u32,
    /// The mean time between those that come by themselves.
    pub every: Duration,
    /// At most so many hosts lose power, and so many processes are killed beside.
    pub deaths_max: (u32, u32),
    counts: BTreeMap<Kind, u64>,
    phases: BTreeMap<&'static str, u64>,
    told: Vec<(Time, u16, String)>,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Faults {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(1);
        Faults {
            rng,
            active: false,
            ambushes: 20,
            every: Duration::from_secs(4),
            deaths_max: (2, 12),
            counts: BTreeMap::new(),
            phases: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    /// How often each kind has struck.
    pub fn counts(&self) -> &BTreeMap<Kind, u64> {
        &self.counts
    }

    /// How often a move was struck in each phase, by the words of its story.
    pub fn phases(&self) -> &BTreeMap<&'static str, u64> {
        &self.phases
    }

    /// What struck when and which host, in words.
    pub fn told(&self) -> &[(Time, u16, String)] {
        &self.told
    }

    fn draw(&mut self, of: u32) -> u32 {
        self.rng.next_u32() % of.max(1)
    }

    /// Between the two, in milliseconds.
    fn millis(&mut self, from: u32, to: u32) -> Duration {
        Duration::from_millis(u64::from(from + self.draw(to - from)))
    }

    fn kind(&mut self, weight: impl Fn(Kind) -> u32) -> Kind {
        let all: u32 = Kind::ALL.iter().map(|kind| weight(*kind)).sum();
        let mut left = self.draw(all);
        for kind in Kind::ALL {
            match left.checked_sub(weight(*kind)) {
                Some(less) => left = less,
                None => return *kind,
            }
        }
        unreachable!("less than the sum was drawn")
    }
}
