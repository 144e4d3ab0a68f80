//! Figures for people: short, each with its unit.

/// Width of a [`time`], which is not to be wrapped.
pub(super) const TIME_WIDTH: u16 = 19;

/// Percent, with one decimal.
pub(crate) fn percent(value: f64) -> String {
    format!("{value:.1} %")
}

/// A cost or relief: with two decimals, since they are compared.
pub(super) fn cost(percent: f64) -> String {
    format!("{percent:.2} %")
}

/// A count per second, for a column whose header has the unit.
pub(crate) fn count(value: u64) -> String {
    scaled(value, 1000, &["", "k", "M", "G", "T"], "")
}

/// Bits per second.
pub(crate) fn bits_per_second(value: u64) -> String {
    scaled(value, 1000, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"], " ")
}

/// Bytes.
pub(super) fn bytes(value: u64) -> String {
    scaled(value, 1024, &["B", "KiB", "MiB", "GiB", "TiB"], " ")
}

/// Bytes per second.
pub(super) fn bytes_per_second(value: u64) -> String {
    bytes(value) + "/s"
}

/// Memory given in MiB.
pub(crate) fn mib(value: u64) -> String {
    bytes(value.saturating_mul(1024 * 1024))
}

/// Milliseconds, as such below a second.
pub(super) fn milliseconds(value: u64) -> String {
    if value < 1000 {
        format!("{value} ms")
    } else {
        format!("{}.{:02} s", value / 1000, value % 1000 / 10)
    }
}

/// A long time in its two greatest units.
pub(super) fn seconds(value: u64) -> String {
    let (minutes, hours, days) = (value / 60, value / 3600, value / 86400);
    if minutes == 0 {
        format!("{value} s")
    } else if hours == 0 {
        format!("{minutes} min")
    } else if days == 0 {
        format!("{hours} h {} min", minutes % 60)
    } else {
        format!("{days} d {} h", hours % 24)
    }
}

/// RFC 3339 in UTC, to the second, for a column whose header says UTC; what is written otherwise stays as it is.
pub(super) fn time(rfc3339: &str) -> String {
    match (rfc3339.get(..19), rfc3339.ends_with('Z')) {
        (Some(seconds), true) => seconds.replacen('T', " ", 1),
        _ => rfc3339.to_owned(),
    }
}

/// Three digits at least, in the greatest unit that leaves one before the point.
fn scaled(value: u64, step: u64, units: &[&str], space: &str) -> String {
    let (mut whole, mut rest, mut unit) = (value, 0, 0);
    while whole >= step && unit + 1 < units.len() {
        rest = whole % step;
        whole /= step;
        unit += 1;
    }
    let text = if unit == 0 || whole >= 100 {
        whole.to_string()
    } else {
        format!("{whole}.{}", rest * 10 / step)
    };
    format!("{text}{space}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_have_units() {
        assert_eq!(
            [count(0), count(999), count(1000), count(12_345)],
            ["0", "999", "1.0k", "12.3k"]
        );
        assert_eq!([count(123_456), count(u64::MAX)], ["123k", "18446744T"]);
        assert_eq!([bits_per_second(0), bits_per_second(94_100_000)], ["0 bit/s", "94.1 Mbit/s"]);
        assert_eq!(
            [bytes(1023), bytes(1024), mib(160), mib(1536)],
            ["1023 B", "1.0 KiB", "160 MiB", "1.5 GiB"]
        );
        assert_eq!(
            [milliseconds(158), milliseconds(2310), milliseconds(1005)],
            ["158 ms", "2.31 s", "1.00 s"]
        );
        assert_eq!(
            [seconds(59), seconds(60), seconds(7500), seconds(90_000)],
            ["59 s", "1 min", "2 h 5 min", "1 d 1 h"]
        );
        assert_eq!([percent(41.26), cost(3.1)], ["41.3 %", "3.10 %"]);
    }

    #[test]
    fn times_that_are_not_utc_stay_as_they_are() {
        assert_eq!(time("2026-03-01T17:12:03.250Z"), "2026-03-01 17:12:03");
        assert_eq!(time("2026-03-01T17:12:03+01:00"), "2026-03-01T17:12:03+01:00");
        assert_eq!(time("soon"), "soon");
    }
}
