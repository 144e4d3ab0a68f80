//! Hours of the week in which VMs may be moved: `any`, or `Mon-Fri 20:00-06:00 Europe/Berlin`.
//!
//! Which minute it is somewhere depends on a table of time zones that is not here: whoever has one says it (`LocalTimes`).

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::until::Until;

/// Minutes of a day, and of a week.
const DAY: u16 = 24 * 60;
const WEEK: u16 = 7 * DAY;
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// When something may be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Hours {
    /// At any time.
    #[default]
    Any,
    /// On some days between two times.
    Some(Window),
}

/// From a time to a time on some days of the week. One that ends before it begins goes on into the next day.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// The first and last of the days on which it begins; Monday is 0. `None`: every day.
    days: Option<(u8, u8)>,
    /// Minute of the day at which it begins.
    from: u16,
    /// Minute of the day before which it ends; 24 h is the end of the day.
    to: u16,
    /// The time zone by its IANA name.
    zone: String,
}

/// The text names no hours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no hours; write \"any\", or \"Mon-Fri 20:00-06:00 Europe/Berlin\", or \"22:00-05:00 UTC\""
)]
pub struct NotHours(String);

/// What the calendar says at an instant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalTimes {
    /// UTC.
    pub unix: u64,
    /// Minute of the week since Monday 00:00, by the names of the zones that the settings ask for; one that is not known is not
    /// there.
    pub zones: BTreeMap<String, u16>,
}

impl LocalTimes {
    /// Whether that instant is not reached yet.
    pub fn before(&self, until: Until) -> bool {
        self.unix < until.0
    }
}

impl Hours {
    /// Reads them.
    ///
    /// # Errors
    /// If it is no such text. Whether there is such a zone is not known here.
    pub fn parse(text: &str) -> Result<Hours, NotHours> {
        if text == "any" {
            return Ok(Hours::Any);
        }
        read(text).map(Hours::Some).ok_or_else(|| NotHours(text.to_owned()))
    }

    /// The zone that it takes to tell.
    pub fn zone(&self) -> Option<&str> {
        match self {
            Hours::Any => None,
            Hours::Some(window) => Some(&window.zone),
        }
    }

    /// Whether they allow it now.
    ///
    /// # Errors
    /// Why not. While nobody has told the time, nothing is allowed but what is at any time.
    pub fn allow(&self, now: Option<&LocalTimes>) -> Result<(), String> {
        let Hours::Some(window) = self else { return Ok(()) };
        let Some(minute) = now.and_then(|now| now.zones.get(&window.zone)) else {
            return Err(format!("hours: {self}, and the time there is not known"));
        };
        if window.holds(*minute) { Ok(()) } else { Err(format!("hours: only {self}")) }
    }
}

impl Window {
    fn holds(&self, minute: u16) -> bool {
        let length = (self.to + DAY - self.from) % DAY;
        let length = if length == 0 { DAY } else { length };
        (0..7_u8).filter(|day| self.begins_on(*day)).any(|day| {
            let begins = u16::from(day) * DAY + self.from;
            (minute % WEEK + WEEK - begins) % WEEK < length
        })
    }

    fn begins_on(&self, day: u8) -> bool {
        match self.days {
            None => true,
            Some((first, last)) if first <= last => (first..=last).contains(&day),
            Some((first, last)) => day >= first || day <= last,
        }
    }
}

fn read(text: &str) -> Option<Window> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (days, hours, zone) = match words[..] {
        [hours, zone] => (None, hours, zone),
        [days, hours, zone] => (Some(days_in(days)?), hours, zone),
        _ => return None,
    };
    let (from, to) = hours.split_once('-')?;
    let (from, to) = (minute(from)?, minute(to)?);
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_+-".contains(c);
    let is_name = zone.chars().all(plain) && zone.starts_with(|c: char| c.is_ascii_alphabetic());
    (from < DAY && from != to && is_name).then(|| Window { days, from, to, zone: zone.to_owned() })
}

fn days_in(text: &str) -> Option<(u8, u8)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let day =
        |name: &str| DAYS.iter().position(|day| *day == name).and_then(|n| u8::try_from(n).ok());
    Some((day(first)?, day(last)?))
}

/// Minute of the day, up to 24:00.
fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let two = |digits: &str| {
        let plain = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse::<u16>().ok()).flatten()
    };
    let (hour, minute) = (two(hour)?, two(minute)?);
    let all = hour * 60 + minute;
    (minute < 60 && all <= DAY).then_some(all)
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hours::Some(Window { days, from, to, zone }) = self else { return write!(f, "any") };
        if let Some((first, last)) = days {
            write!(f, "{}", DAYS[usize::from(*first)])?;
            if first != last {
                write!(f, "-{}", DAYS[usize::from(*last)])?;
            }
            write!(f, " ")?;
        }
        let (h, m) = (|t: &u16| t / 60, |t: &u16| t % 60);
        write!(f, "{:02}:{:02}-{:02}:{:02} {zone}", h(from), m(from), h(to), m(to))
    }
}

impl Serialize for Hours {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Hours, D::Error> {
        Hours::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: u16, hour: u16, minute: u16) -> LocalTimes {
        let minute = day * DAY + hour * 60 + minute;
        LocalTimes { unix: 0, zones: BTreeMap::from([("Europe/Berlin".to_owned(), minute)]) }
    }

    fn allowed(hours: &str, now: &LocalTimes) -> bool {
        Hours::parse(hours).unwrap().allow(Some(now)).is_ok()
    }

    #[test]
    fn nights_of_the_week_go_on_into_the_next_morning() {
        let nights = "Mon-Fri 20:00-06:00 Europe/Berlin";
        for (now, yes) in [
            (at(0, 19, 59), false),
            (at(0, 20, 0), true),
            (at(1, 5, 59), true),
            (at(1, 6, 0), false),
            // The night from Sunday to Monday does not begin on one of the days; that from Friday does.
            (at(0, 3, 0), false),
            (at(5, 3, 0), true),
            (at(5, 21, 0), false),
            (at(6, 3, 0), false),
        ] {
            assert_eq!(allowed(nights, &now), yes, "{now:?}");
        }
    }

    #[test]
    fn days_may_go_round_the_weeks_end() {
        let week_end = "Sat-Mon 00:00-24:00 Europe/Berlin";
        let days: Vec<u16> = (0..7).filter(|day| allowed(week_end, &at(*day, 12, 0))).collect();
        assert_eq!(days, [0, 5, 6]);
        assert!(allowed("Sun 22:00-02:00 Europe/Berlin", &at(0, 1, 0)));
        assert!(allowed("22:00-02:00 Europe/Berlin", &at(3, 1, 0)));
    }

    #[test]
    fn while_the_time_is_not_known_only_any_is_allowed() {
        let hours = Hours::parse("22:00-05:00 Asia/Tokyo").unwrap();
        assert!(hours.allow(None).is_err());
        assert_eq!(
            hours.allow(Some(&at(0, 23, 0))),
            Err("hours: 22:00-05:00 Asia/Tokyo, and the time there is not known".to_owned())
        );
        assert_eq!(Hours::Any.allow(None), Ok(()));
    }

    #[test]
    fn hours_are_read_and_written_alike() {
        for text in [
            "any",
            "Mon-Fri 20:00-06:00 Europe/Berlin",
            "Sun 00:00-24:00 UTC",
            "09:30-17:15 Etc/GMT+5",
        ] {
            assert_eq!(Hours::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "always",
            "20:00-06:00",
            "Mo 20:00-06:00 UTC",
            "Mon-Fri 20-06 UTC",
            "20:00-20:00 UTC",
            "24:00-25:00 UTC",
            "20:60-21:00 UTC",
            "20:00-06:00 ../etc",
            "Mon Tue 20:00-06:00 UTC",
            "24:00-06:00 UTC",
        ] {
            assert!(Hours::parse(text).is_err(), "{text}");
        }
    }
}
