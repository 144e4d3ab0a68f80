//! Wrong tokens, counted by the address that they came from, so that guessing is slow; and how much of what strangers do is noted.
//!
//! **Invariant:** what is kept is bounded, however many addresses there are.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;

/// Addresses that are counted at once.
const ADDRESSES_MAX: usize = 1024;
/// Wrong tokens are counted for so long.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Lines of the audit log about strangers within [`WINDOW`], all addresses together: they must not crowd out what was done.
const LINES_MAX: u32 = 6;

/// Who guessed wrong of late.
#[derive(Debug)]
pub(super) struct Guesses {
    wrong_max: u32,
    by: BTreeMap<IpAddr, Since>,
    noted: Option<Since>,
    not_noted: u64,
}

/// How often since when.
#[derive(Clone, Copy, Debug)]
struct Since {
    began: Instant,
    count: u32,
}

impl Since {
    fn holds(&self, now: Instant) -> bool {
        now.duration_since(self.began) < WINDOW
    }
}

impl Guesses {
    /// After so many wrong tokens within [`WINDOW`] none of an address is looked at before that is over.
    pub(super) fn new(wrong_max: u32) -> Guesses {
        Guesses { wrong_max, by: BTreeMap::new(), noted: None, not_noted: 0 }
    }

    /// For how long tokens of an address are not looked at, if they are not.
    pub(super) fn barred(&self, from: IpAddr, now: Instant) -> Option<Duration> {
        let since = self.by.get(&network(from))?;
        let barred = since.holds(now) && since.count >= self.wrong_max;
        barred.then(|| WINDOW.saturating_sub(now.duration_since(since.began)))
    }

    /// A wrong token; says whether that was one too many, for the first time.
    pub(super) fn wrong(&mut self, from: IpAddr, now: Instant) -> bool {
        let from = network(from);
        if !self.by.contains_key(&from) && self.by.len() >= ADDRESSES_MAX {
            self.by.retain(|_, since| since.holds(now));
        }
        if !self.by.contains_key(&from) && self.by.len() >= ADDRESSES_MAX {
            let oldest = self.by.iter().min_by_key(|(_, since)| since.began).map(|(from, _)| *from);
            oldest.and_then(|oldest| self.by.remove(&oldest));
        }
        let anew = Since { began: now, count: 0 };
        let since = self.by.entry(from).or_insert(anew);
        if !since.holds(now) {
            *since = anew;
        }
        since.count = since.count.saturating_add(1);
        since.count == self.wrong_max
    }

    /// Whether what a stranger asked may have a line of the audit log; if so, how many before it had none.
    pub(super) fn noted(&mut self, now: Instant) -> Option<u64> {
        let before = self.noted.filter(|since| since.holds(now));
        let Since { began, count } = before.unwrap_or(Since { began: now, count: 0 });
        if count >= LINES_MAX {
            self.not_noted = self.not_noted.saturating_add(1);
            return None;
        }
        self.noted = Some(Since { began, count: count + 1 });
        Some(std::mem::take(&mut self.not_noted))
    }
}

/// Who has one IPv6 address mostly has the 2^64 of its network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRONG_MAX: u32 = 10;

    fn address(last: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0xc612_0000 + last).into()
    }

    #[test]
    fn an_address_is_barred_after_ten_wrong_tokens_until_the_minute_is_over() {
        let (mut guesses, now) = (Guesses::new(WRONG_MAX), Instant::now());
        for guess in 1..=WRONG_MAX {
            assert_eq!(guesses.barred(address(1), now), None, "guess {guess}");
            assert_eq!(guesses.wrong(address(1), now), guess == WRONG_MAX);
        }
        let half = now + WINDOW / 2;
        assert_eq!(guesses.barred(address(1), half), Some(WINDOW / 2));
        assert_eq!(guesses.barred(address(2), half), None, "another address");
        assert_eq!(guesses.barred(address(1), now + WINDOW), None);
        assert!(!guesses.wrong(address(1), now + WINDOW), "counted anew");
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address_and_a_mapped_one_as_itself() {
        let (mut guesses, now) = (Guesses::new(WRONG_MAX), Instant::now());
        for host in 0..WRONG_MAX {
            guesses.wrong(format!("2001:db8::{host:x}").parse().unwrap(), now);
        }
        assert!(guesses.barred("2001:db8::ffff".parse().unwrap(), now).is_some());
        assert!(guesses.barred("2001:db8:0:1::1".parse().unwrap(), now).is_none());
        assert_eq!(network("::ffff:198.18.0.1".parse().unwrap()), address(1));
    }

    #[test]
    fn however_many_addresses_guess_what_is_kept_is_bounded() {
        let (mut guesses, now) = (Guesses::new(WRONG_MAX), Instant::now());
        for last in 0..5000 {
            guesses.wrong(address(last), now + Duration::from_millis(u64::from(last)));
        }
        assert_eq!(guesses.by.len(), ADDRESSES_MAX);
        assert!(guesses.by.contains_key(&address(4999)) && !guesses.by.contains_key(&address(0)));
    }

    #[test]
    fn strangers_get_a_few_lines_a_minute_and_the_next_says_how_many_are_missing() {
        let (mut guesses, now) = (Guesses::new(WRONG_MAX), Instant::now());
        for _ in 0..LINES_MAX {
            assert_eq!(guesses.noted(now), Some(0));
        }
        assert_eq!([guesses.noted(now), guesses.noted(now)], [None, None]);
        assert_eq!(guesses.noted(now + WINDOW), Some(2));
        assert_eq!(guesses.noted(now + WINDOW), Some(0));
    }
}
