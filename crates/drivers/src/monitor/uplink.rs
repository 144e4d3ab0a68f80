//! What the driver of the uplink says of it, as often as the uplink is read.

use decide::units::BitsPerSec;

use super::netlink::ethtool::Ethtool;
use super::proc;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its index.
    pub ifindex: u32,
    /// As told last.
    pub modes: LinkModes,
    /// Name of the driver; a link that is no device of its own has none.
    pub driver: Option<String>,
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
    /// None where the kernel lacks it, and after a failure.
    ethtool: Option<Ethtool>,
    seen: Option<Uplink>,
}

impl UplinkLook {
    /// Nothing seen yet.
    pub(super) fn new() -> UplinkLook {
        let ethtool = match Ethtool::open() {
            Ok(ethtool) => Some(ethtool),
            Err(why) => {
                tracing::info!("the uplink's speed is read from /sys: {why}");
                None
            }
        };
        UplinkLook { ethtool, seen: None }
    }

    /// As told last.
    pub(super) fn seen(&self) -> Option<&Uplink> {
        self.seen.as_ref()
    }

    /// Its speed in one direction. What its driver says of it is logged whenever it changes.
    pub(super) fn look(&mut self, name: &str, ifindex: u32) -> Option<BitsPerSec> {
        let modes = match self.ethtool.as_mut().map(|ethtool| ethtool.modes(ifindex)) {
            Some(Ok(modes)) => modes,
            Some(Err(why)) => {
                tracing::warn!("the uplink's speed is read from /sys from now on: {why}");
                self.ethtool = None;
                by_sysfs(name, ifindex)
            }
            None => by_sysfs(name, ifindex),
        };
        if self.seen.as_ref().is_none_or(|seen| seen.ifindex != ifindex || seen.modes != modes) {
            let LinkModes { speed, duplex, up } = modes;
            let driver = proc::link_driver(name);
            tracing::info!(uplink = name, ?speed, ?duplex, ?up, ?driver, "the uplink");
            self.seen = Some(Uplink { ifindex, modes, driver });
        }
        // In one direction at a time, so half of it in each.
        let share = if modes.duplex == Some(Duplex::Half) { 2 } else { 1 };
        modes.speed.map(|speed| BitsPerSec(speed.0 / share))
    }
}

fn by_sysfs(name: &str, ifindex: u32) -> LinkModes {
    LinkModes { speed: proc::link_speed(name, ifindex), ..LinkModes::default() }
}

/// Megabits per second; some drivers say 0 or the unsigned form of −1 while it is unknown.
pub(super) fn speed(megabits: u64) -> Option<BitsPerSec> {
    (1..u64::from(u32::MAX)).contains(&megabits).then(|| BitsPerSec(megabits * 1_000_000))
}
