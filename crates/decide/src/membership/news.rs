//! When a host's digest is worth saying: at once if it is news to the others, else at a slow beat.
//!
//! All hosts pass every digest on, so each one costs them all: noise must not be news. What counts is held against what was
//! *said* last, not against the reading before, so a slow drift is told once it has come far enough, and a figure that only
//! trembles is never told.
//!
//! **Invariant:** whatever is not a figure (hot, VMs, moves, inventory, policy, journal, abilities) is news at any change.

use std::time::Duration;

use super::digest::{Digest, Headroom};
use crate::units::Share;
use crate::usage::load::Capacity;

/// A share, or a part of what there is, that has moved by so many thousandths is news.
const STEP: u64 = 100;
/// Where nobody knows what there is: a figure is news once it has moved by a quarter, and by so much.
const PACKETS_MIN: u64 = 1000;
const BITS_MIN: u64 = 10_000_000;

/// What has not changed is said again after this long, in a cluster of up to [`HOSTS_AT_ONE_BEAT`].
const BEAT: Duration = Duration::from_secs(10);
/// Beyond that the beat slows in proportion, so that beats of all hosts together stay as many as of so many hosts: they must
/// leave room in the datagrams for what is news.
const HOSTS_AT_ONE_BEAT: u32 = 50;

/// After how long a digest that is no news is said all the same, with so many hosts in the cluster: then others can tell an
/// unchanged host from one whose words were lost.
pub(super) fn beat(hosts: usize) -> Duration {
    let hosts = u32::try_from(hosts).unwrap_or(u32::MAX).max(HOSTS_AT_ONE_BEAT);
    BEAT.saturating_mul(hosts) / HOSTS_AT_ONE_BEAT
}

/// Whether `now` is news to those who heard `said`; `capacity` is what the host has to give.
pub fn is_news(said: &Digest, now: &Digest, capacity: Capacity) -> bool {
    let moved = |a: u64, b: u64, all: Option<u64>, min: u64| match all {
        Some(all) if all > 0 => a.abs_diff(b) >= all / 1000 * STEP,
        Some(_) | None => a.abs_diff(b) >= min.max(a.max(b) / 4),
    };
    let shares = |a: Share, b: Share| u64::from(a.0.abs_diff(b.0)) >= STEP;
    shares(said.cpu_used, now.cpu_used)
        || shares(said.memory_committed, now.memory_committed)
        || moved(said.packets.0, now.packets.0, capacity.packets.map(|all| all.0), PACKETS_MIN)
        || moved(said.bits.0, now.bits.0, capacity.bits.map(|all| all.0), BITS_MIN)
        || headroom_moved(said.headroom.as_ref(), now.headroom.as_ref())
        || !same_but_figures(said, now)
}

fn headroom_moved(said: Option<&Headroom>, now: Option<&Headroom>) -> bool {
    let (Some(said), Some(now)) = (said, now) else { return said.is_some() != now.is_some() };
    let asked = said.cpu_asked.0.abs_diff(now.cpu_asked.0);
    let mut pressure = said.pressure.iter().zip(&now.pressure);
    // What guests take of the room is in other figures; what reservations take comes and goes within seconds.
    let Headroom { room, cpu_asked, pressure: figures, .. } = *said;
    asked >= (now.cpu.0 / 1000 * STEP).max(1)
        || pressure.any(|(a, b)| u64::from(a.0.abs_diff(b.0)) >= STEP)
        || *said != Headroom { room, cpu_asked, pressure: figures, ..*now }
}

/// Whether all that is no figure is the same.
fn same_but_figures(said: &Digest, now: &Digest) -> bool {
    let Digest { cpu_used, memory_committed, packets, bits, headroom, .. } = said.clone();
    said == &Digest { cpu_used, memory_committed, packets, bits, headroom, ..now.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{BitsPerSec, JournalId, MilliCores, PacketsPerSec};
    use crate::wire::message::JournalMark;

    fn digest() -> Digest {
        Digest {
            cpu_used: Share(400),
            memory_committed: Share(500),
            packets: PacketsPerSec(50_000),
            bits: BitsPerSec(400_000_000),
            vms: 10,
            hot: false,
            moves_under_way: 0,
            inventory: 1,
            policy: 2,
            journal: JournalMark { id: JournalId(3), generation: 4, ..JournalMark::default() },
            headroom: None,
        }
    }

    fn known() -> Capacity {
        Capacity {
            cpu: MilliCores(16_000),
            bits: Some(BitsPerSec(2_000_000_000)),
            packets: Some(PacketsPerSec(500_000)),
            ..Capacity::default()
        }
    }

    fn news(capacity: Capacity, change: impl FnOnce(&mut Digest)) -> bool {
        let mut now = digest();
        change(&mut now);
        is_news(&digest(), &now, capacity)
    }

    #[test]
    fn a_tremble_is_no_news_a_tenth_of_what_there_is_is() {
        assert!(!news(known(), |_| {}));
        assert!(!news(known(), |now| now.cpu_used = Share(499)));
        assert!(news(known(), |now| now.cpu_used = Share(300)));
        assert!(!news(known(), |now| now.packets = PacketsPerSec(99_999)));
        assert!(news(known(), |now| now.packets = PacketsPerSec(100_000)));
        assert!(news(known(), |now| now.bits = BitsPerSec(600_000_000)));
    }

    #[test]
    fn where_nobody_knows_what_there_is_a_quarter_and_more_than_a_little_counts() {
        let unknown = Capacity::default();
        assert!(!news(unknown, |now| now.packets = PacketsPerSec(60_000)));
        assert!(news(unknown, |now| now.packets = PacketsPerSec(70_000)));
        let little = |now: &mut Digest| now.packets = PacketsPerSec(900);
        let mut said = digest();
        said.packets = PacketsPerSec(0);
        let mut now = said.clone();
        little(&mut now);
        assert!(!is_news(&said, &now, unknown), "from nothing to little is no news");
    }

    #[test]
    fn what_is_no_figure_is_news_at_any_change() {
        assert!(news(known(), |now| now.hot = true));
        assert!(news(known(), |now| now.moves_under_way = 1));
        assert!(news(known(), |now| now.inventory = 9));
        assert!(news(known(), |now| now.journal.generation = 5));
    }

    #[test]
    fn the_beat_slows_with_the_number_of_hosts() {
        let beats = [1, 50, 100, 1000].map(|hosts| beat(hosts).as_secs());
        assert_eq!(beats, [10, 10, 20, 200]);
    }
}
