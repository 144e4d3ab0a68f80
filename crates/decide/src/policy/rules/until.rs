//! An instant of the calendar, as `2026-12-24T00:00Z`: always UTC, to the second.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Seconds since 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Until(pub u64);

/// The text is no such instant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no date and time in UTC; write it as \"2026-12-24T18:00Z\"")]
pub struct NotADate(String);

const DAY: u64 = 86_400;
/// The first year that is not read: sums stay far from any limit.
const YEARS: std::ops::Range<u64> = 1970..3000;

impl Until {
    /// Reads `2026-12-24T18:00Z`, `2026-12-24T18:00:30Z` or `2026-12-24` (its beginning).
    ///
    /// # Errors
    /// If it is none of these, or no such day is.
    pub fn parse(text: &str) -> Result<Until, NotADate> {
        read(text).map(Until).ok_or_else(|| NotADate(text.to_owned()))
    }
}

fn read(text: &str) -> Option<u64> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, time.strip_suffix('Z')?),
        None => (text, "00:00"),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = match time.len() {
        5 => {
            let [hour, minute] = numbers(time, ':', [2, 2])?;
            [hour, minute, 0]
        }
        _ => numbers(time, ':', [2, 2, 2])?,
    };
    if !YEARS.contains(&year)
        || !(1..=12).contains(&month)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    if day == 0 || day > days_of(year, month) {
        return None;
    }
    let years: u64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let months: u64 = (1..month).map(|month| days_of(year, month)).sum();
    Some((years + months + day - 1) * DAY + hour * 3600 + minute * 60 + second)
}

/// Numbers of exactly so many digits.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[u64; N]> {
    let parts: Vec<&str> = text.split(between).collect();
    let parts: [&str; N] = parts.try_into().ok()?;
    let mut all = [0; N];
    for ((part, digits), number) in parts.iter().zip(digits).zip(&mut all) {
        if part.len() != digits || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    Some(all)
}

fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of(year: u64, month: u64) -> u64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut days, seconds) = (self.0 / DAY, self.0 % DAY);
        let (mut year, mut month) = (1970, 1);
        let length = |year| if leap(year) { 366 } else { 365 };
        while days >= length(year) {
            days -= length(year);
            year += 1;
        }
        while days >= days_of(year, month) {
            days -= days_of(year, month);
            month += 1;
        }
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year}-{month:02}-{:02}T{hour:02}:{minute:02}", days + 1)?;
        if second != 0 {
            write!(f, ":{second:02}")?;
        }
        write!(f, "Z")
    }
}

impl Serialize for Until {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Until {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Until, D::Error> {
        Until::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_and_written_alike() {
        for (text, seconds) in [
            ("1970-01-01T00:00Z", 0),
            ("2000-02-29T12:00Z", 951_825_600),
            ("2026-12-24T18:30:05Z", 1_798_137_005),
            ("2100-03-01T00:00Z", 4_107_542_400),
        ] {
            assert_eq!(Until::parse(text), Ok(Until(seconds)), "{text}");
            assert_eq!(Until(seconds).to_string(), text);
        }
        assert_eq!(Until::parse("2026-12-24"), Until::parse("2026-12-24T00:00Z"));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "tomorrow",
            "2026-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-12-00",
            "26-12-24",
            "2026-12-24T18:00",
            "2026-12-24T24:00Z",
            "2026-12-24T1:00Z",
            "2026-12-24T18:00+01:00",
            "1969-12-31",
            "+026-12-24",
        ] {
            assert!(Until::parse(text).is_err(), "{text}");
        }
    }
}
