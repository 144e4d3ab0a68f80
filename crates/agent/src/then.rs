//! What a host did, and why nothing else, at a time that is over: by the events that it keeps.

use std::collections::BTreeSet;
use std::time::Duration;

use api::{Event, Problem, Step, Why};
use jiff::Timestamp;
use jiff::civil::Time as OfDay;
use jiff::tz::TimeZone;

/// Events so near are told with the answer.
const NEAR: Duration = Duration::from_mins(10);
/// At most so many: the nearest.
const TOLD: usize = 50;

/// A time that is over, in words: RFC 3339, or a time of day in UTC (`03:10`), which means the last one before `now`.
///
/// # Errors
/// The words mean no time, or one that is yet to come.
pub(crate) fn moment(now: Timestamp, words: &str) -> Result<Timestamp, Problem> {
    let words = words.trim();
    let of_day = |time: OfDay| {
        let date = now.to_zoned(TimeZone::UTC).date();
        let today = date.to_datetime(time).to_zoned(TimeZone::UTC).ok()?.timestamp();
        let day = Duration::from_hours(24);
        if today <= now { Some(today) } else { today.checked_sub(day).ok() }
    };
    let at = words.parse::<Timestamp>().ok();
    let at = at.or_else(|| words.parse::<OfDay>().ok().and_then(of_day)).ok_or_else(|| {
        let hint = "Write a time of day in UTC, 03:10, or date and time, 2026-03-01T03:10:00Z";
        Problem::new(400, "bad-time", format!("{words:?} is no time"), hint)
    })?;
    if at > now {
        let title = format!("{at:.0} is yet to come: by the clock of this host it is {now:.0}");
        let hint = "Ask about a time that is over; `evenkeel why` tells of now";
        return Err(Problem::new(400, "time-to-come", title, hint));
    }
    Ok(at)
}

/// What `host` did then, by its events, oldest first.
pub(crate) fn told(host: &str, at: Timestamp, events: &[Event]) -> Why {
    let time = |event: &Event| event.time.parse::<Timestamp>().ok();
    let until = events.partition_point(|event| time(event).is_none_or(|time| time <= at));
    let (before, after) = events.split_at(until);
    let is_reason = |event: &&Event| event.step == Step::Doing;
    let reason = before.iter().rev().find(is_reason);
    let moving = moving(host, before);
    let verdict = match (moving.last(), reason) {
        (Some(moving), _) => moving.clone(),
        (None, Some(reason)) => reason.reason.clone(),
        (None, None) => "not known: no reason was noted before that".to_owned(),
    };
    let mut because = Vec::new();
    match (reason, before.first().or(after.first())) {
        (Some(reason), _) => {
            let next = after.iter().find(is_reason);
            let next = next.map_or_else(
                || "and no other since".to_owned(),
                |next| format!("the next at {}: {}", next.time, next.reason),
            );
            because.push(format!("{:?} was noted at {}, {next}", reason.reason, reason.time));
        }
        (None, Some(oldest)) => because.push(format!("the oldest event is of {}", oldest.time)),
        (None, None) => because.push("no event is kept".to_owned()),
    }
    let ended = before.iter().rev().find(|event| ends(event));
    because.extend(ended.map(|event| {
        let vm = event.vm.as_deref().unwrap_or("a VM");
        format!(
            "the last move before that: {vm}, {} at {}: {}",
            event.step, event.time, event.reason
        )
    }));
    let near = |event: &&Event| {
        time(event).is_some_and(|time| time.duration_since(at).unsigned_abs() <= NEAR)
    };
    let mut near: Vec<&Event> = events.iter().filter(near).collect();
    if near.is_empty() {
        because.push(format!("nothing was noted within {} min of it", NEAR.as_secs() / 60));
    }
    near.sort_by_key(|event| time(event).map(|time| time.duration_since(at).unsigned_abs()));
    near.truncate(TOLD);
    near.sort_by_key(|event| event.seq);
    Why {
        about: format!("host {host} at {at:.0}"),
        verdict,
        because,
        events: near.into_iter().cloned().collect(),
    }
}

fn ends(event: &Event) -> bool {
    matches!(event.step, Step::Done | Step::Abandoned)
}

/// The moves that were asked about by this host and not over, in words.
fn moving(host: &str, before: &[Event]) -> Vec<String> {
    let ended: BTreeSet<Option<&str>> =
        before.iter().filter(|event| ends(event)).map(|event| event.move_id.as_deref()).collect();
    let begun = before.iter().filter(|event| event.step == Step::Request && event.host == host);
    let open = begun.filter(|begun| !ended.contains(&begun.move_id.as_deref()));
    let words = |begun: &Event| {
        let vm = begun.vm.as_deref().unwrap_or("a VM");
        let id = begun.move_id.as_deref().unwrap_or_default();
        format!("{vm} was being moved (move {id}, asked about since {})", begun.time)
    };
    open.map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> Timestamp {
        format!("2026-03-02T{time}Z").parse().unwrap()
    }

    fn event(time: &str, step: Step, move_id: Option<&str>, reason: &str) -> Event {
        Event {
            seq: 0,
            time: at(time).to_string(),
            host: "host1".to_owned(),
            move_id: move_id.map(str::to_owned),
            vm: move_id.map(|_| "web".to_owned()),
            step,
            reason: reason.to_owned(),
            peer: None,
            cost_percent: None,
            copy: None,
        }
    }

    #[test]
    fn a_time_of_day_is_the_last_one_that_is_over() {
        let now = at("03:30:00");
        assert_eq!(moment(now, "03:10").unwrap(), at("03:10:00"));
        assert_eq!(moment(now, "03:30:00").unwrap(), now);
        assert_eq!(moment(now, " 23:50 ").unwrap().to_string(), "2026-03-01T23:50:00Z");
        assert_eq!(
            moment(now, "2026-03-01T23:50:00+01:00").unwrap().to_string(),
            "2026-03-01T22:50:00Z"
        );
        for (words, code) in [
            ("soon", "bad-time"),
            ("25:00", "bad-time"),
            ("", "bad-time"),
            ("2026-03-02T04:00:00Z", "time-to-come"),
        ] {
            assert_eq!(moment(now, words).unwrap_err().code, code, "{words}");
        }
    }

    #[test]
    fn the_reason_that_held_then_is_told_and_a_move_under_way_before_it() {
        let events = [
            event("01:00:00", Step::Doing, None, "this host is not hot"),
            event("01:30:00", Step::Request, Some("m1"), "3 hosts asked"),
            event("01:31:00", Step::Done, Some("m1"), "the VM runs at host2"),
            event("01:31:10", Step::Doing, None, "this host rests for 300 s: a move"),
            event("01:36:10", Step::Doing, None, "this host is not hot"),
            event("04:00:00", Step::Doing, None, "cpu_used 85 % over 80 %, not for 120 s yet"),
        ];
        let why = |time| told("host1", at(time), &events);
        let quiet = why("03:10:00");
        assert_eq!(quiet.about, "host host1 at 2026-03-02T03:10:00Z");
        assert_eq!(quiet.verdict, "this host is not hot");
        assert!(
            quiet.because[0].contains("01:36:10Z, the next at 2026-03-02T04:00:00Z"),
            "{quiet:?}"
        );
        assert!(quiet.because[1].contains("web, done at 2026-03-02T01:31:00Z"), "{quiet:?}");
        assert!(quiet.because[2].contains("nothing was noted within 10 min"), "{quiet:?}");
        assert_eq!(quiet.events, []);
        assert!(why("01:30:30").verdict.starts_with("web was being moved (move m1"));
        assert_eq!(why("01:30:30").events.len(), 4);
        assert_eq!(why("01:32:00").verdict, "this host rests for 300 s: a move");
        assert!(why("00:10:00").verdict.starts_with("not known"));
        assert!(told("host1", at("00:10:00"), &[]).because[0].contains("no event is kept"));
    }
}
