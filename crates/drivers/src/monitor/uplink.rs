//! What the driver of the uplink says of it: in every reading, of its queues every ten seconds.
//!
//! The uplink itself is asked. Of a bond or a bridge that is not the cards below it.

use decide::units::BitsPerSec;
use tokio::time::Instant;

use super::netlink::ethtool::Ethtool;
use super::netlink::kind::link_kind;
use super::proc;
use super::queues::{LosingQueue, Queues};
use super::way::Way;

/// A link as its driver tells it; each is absent where it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkModes {
    /// In one direction, or in both together at half duplex.
    pub speed: Option<BitsPerSec>,
    /// Whether both directions can be used at once.
    pub duplex: Option<Duplex>,
    /// Whether it has a link.
    pub up: Option<bool>,
}

/// The uplink, and what its driver says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// As told last.
    pub modes: LinkModes,
    /// Name of the driver; for a link that is no device of its own, its kind, such as `bond`. The loopback has neither.
    pub driver: Option<String>,
    /// Its queues that lose something, where the driver tells: as they did in the last ten seconds that were measured.
    /// They are in the uplink's own count of drops already.
    pub losing: Vec<LosingQueue>,
}

/// Whether a link sends and receives at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplex {
    /// One at a time.
    Half,
    /// Both at once.
    Full,
}

/// Looks at the uplink.
#[derive(Debug)]
pub(super) struct UplinkLook {
    ethtool: Way<Ethtool>,
    queues: Queues,
    seen: Option<Uplink>,
}

impl UplinkLook {
    /// Nothing seen yet.
    pub(super) fn new() -> UplinkLook {
        UplinkLook { ethtool: Way::new(), queues: Queues::new(), seen: None }
    }

    /// As told last; none while it does not exist.
    pub(super) fn seen(&self) -> Option<&Uplink> {
        self.seen.as_ref()
    }

    /// It does not exist now.
    pub(super) fn gone(&mut self) {
        self.seen = None;
    }

    /// Its speed in one direction. What its driver says of it is logged whenever it changes.
    pub(super) fn look(&mut self, name: &str, ifindex: u32) -> Option<BitsPerSec> {
        let now = Instant::now();
        let modes = self.modes(now, name, ifindex);
        let losing = match self.queues.look(now, ifindex) {
            Ok(losing) => losing.to_vec(),
            Err(why) => {
                tracing::warn!(
                    "for a while it is not known which queues of the uplink drop: {why}"
                );
                Vec::new()
            }
        };
        match &mut self.seen {
            Some(seen) if seen.ifindex == ifindex && seen.modes == modes => seen.losing = losing,
            _ => {
                let LinkModes { speed, duplex, up } = modes;
                let driver = proc::link_driver(name, ifindex).or_else(|| link_kind(ifindex));
                tracing::info!(uplink = name, ?speed, ?duplex, ?up, ?driver, "the uplink");
                self.seen = Some(Uplink { name: name.to_owned(), ifindex, modes, driver, losing });
            }
        }
        // In one direction at a time, so half of it in each.
        let share = if modes.duplex == Some(Duplex::Half) { 2 } else { 1 };
        modes.speed.map(|speed| BitsPerSec(speed.0 / share))
    }

    fn modes(&mut self, now: Instant, name: &str, ifindex: u32) -> LinkModes {
        match self.ethtool.ask(now, Ethtool::open, |ethtool| ethtool.modes(ifindex)) {
            Some(Ok(modes)) => return modes,
            Some(Err(why)) => {
                tracing::warn!("for a while the uplink's speed is read from /sys: {why}");
            }
            None => {}
        }
        LinkModes { speed: proc::link_speed(name, ifindex), ..LinkModes::default() }
    }
}

/// Megabits per second; some drivers say 0 or the unsigned form of −1 while it is unknown.
pub(super) fn speed(megabits: u64) -> Option<BitsPerSec> {
    (1..u64::from(u32::MAX)).contains(&megabits).then(|| BitsPerSec(megabits * 1_000_000))
}
