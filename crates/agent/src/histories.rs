//! What the API says of usage histories: the newest ten minutes from memory, all else from disk.

use std::time::Duration;

use api::{HistoryFilter, HistoryView, Problem, Series, StayView};
use decide::units::Time;
use decide::usage::history::bucket::{Bucket, Stat, Stats};
use decide::usage::history::levels::{Closed, Level};
use decide::usage::history::past::Stay;
use decide::usage::history::sample::Metric;
use decide::usage::history::{History, Whose};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::history::Order;
use crate::http::About;
use crate::steering::Steering;
use crate::why;

/// How far back where nobody says, and how far the seconds go.
const SECONDS: Duration = Duration::from_mins(10);

/// How far back, and how finely; absent: by the second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    since: Duration,
    level: Option<Level>,
}

impl Asked {
    pub(crate) fn of(filter: &HistoryFilter) -> Result<Asked, Problem> {
        let since = filter.since.map_or(SECONDS, Duration::from_secs);
        let level = match filter.step {
            Some(1) => None,
            Some(10) => Some(Level::TenSeconds),
            Some(60) => Some(Level::Minute),
            Some(900) => Some(Level::Quarter),
            Some(other) => {
                let title = format!("nothing is kept by {other} seconds");
                let hint = "ask for a step of 1, 10, 60 or 900 seconds";
                return Err(Problem::new(400, "no-such-step", title, hint));
            }
            None => match since.as_secs().div_ceil(3600) {
                _ if since <= SECONDS => None,
                0..=6 => Some(Level::TenSeconds),
                7..=48 => Some(Level::Minute),
                _ => Some(Level::Quarter),
            },
        };
        let known = |metric: &String| Metric::ALL.iter().any(|one| name(*one).0 == *metric);
        if let Some(metric) = filter.metric.as_ref().filter(|metric| !known(metric)) {
            let title = format!("there is no metric {metric:?}");
            let all = Metric::ALL.map(|metric| name(metric).0).join(", ");
            return Err(Problem::new(400, "no-such-metric", title, format!("there are: {all}")));
        }
        Ok(Asked { since, level })
    }
}

/// An answer under way.
pub(crate) struct Begun {
    view: HistoryView,
    clock: Clock,
    points: Vec<(Time, Stats)>,
    /// What comes from the disk.
    pub(crate) stored: Option<oneshot::Receiver<Result<Vec<Closed>, String>>>,
}

pub(crate) fn begun(at_work: &Steering, about: &About, asked: Asked) -> Result<Begun, Problem> {
    let host = &at_work.host;
    let (whose, name, id, history) = match about {
        About::Vm(vm) => {
            let id = why::find_vm(at_work, vm).ok_or_else(|| why::no_such_vm(vm))?;
            (Whose::Vm(id), host.vm_name(id), id.to_string(), host.usage().history(id))
        }
        About::Host(wanted) => {
            let id = host.id().to_string();
            if wanted != host.name() && *wanted != id {
                let title = format!("{wanted:?} is not this host");
                let hint = "each host keeps its own history: ask there";
                return Err(Problem::new(404, "not-this-host", title, hint));
            }
            (Whose::Host, host.name().to_owned(), id, Some(host.usage().own_history()))
        }
    };
    let clock = at_work.clock;
    let since = clock.now().minus(asked.since);
    let (mut points, mut stored) = (Vec::new(), None);
    match asked.level {
        None => points = history.map(|history| seconds(history, since)).unwrap_or_default(),
        Some(level) => {
            let (reply, answer) = oneshot::channel();
            at_work.history.send(Order::Read(whose, level, since, reply));
            stored = Some(answer);
        }
    }
    let stay = |stay: &Stay| {
        let host_id = stay.host.to_string();
        // A host that had not been met yet when the VM came was noted by its id.
        let unnamed = stay.name == host_id;
        let name = if unnamed { host.name_of(stay.host) } else { stay.name.clone() };
        let (move_id, ended) = (stay.move_id.to_string(), clock.wall(stay.ended));
        StayView { host: name, host_id, move_id, ended }
    };
    let past = history.map(|history| history.past().stays().iter().map(stay).collect());
    let view = HistoryView {
        name,
        id,
        host: host.name().to_owned(),
        step_seconds: asked.level.map_or(1, |level| level.span().as_secs()),
        at: Vec::new(),
        metrics: Vec::new(),
        past: past.unwrap_or_default(),
    };
    Ok(Begun { view, clock, points, stored })
}

fn seconds(history: &History, since: Time) -> Vec<(Time, Stats)> {
    let recent = history.seconds().filter(|(at, _)| *at >= since);
    let one = |(at, sample)| {
        let mut bucket = Bucket::default();
        bucket.add(&sample, 1);
        Some((at, bucket.stats()?))
    };
    recent.filter_map(one).collect()
}

impl Begun {
    pub(crate) fn read(&mut self, closed: Vec<Closed>) {
        self.points = closed.into_iter().map(|closed| (closed.start, closed.stats)).collect();
    }

    pub(crate) fn told(self, only: Option<&str>) -> HistoryView {
        let Begun { mut view, clock, points, .. } = self;
        view.at = points.iter().map(|(at, _)| clock.wall(*at)).collect();
        let wanted = |metric: &Metric| only.is_none_or(|only| only == name(*metric).0);
        let series = |metric: Metric| {
            let all = |figure: fn(Stat) -> u64| -> Vec<u64> {
                points.iter().map(|(_, stats)| figure(stats.of(metric))).collect()
            };
            let (word, unit) = name(metric);
            Series {
                metric: word.to_owned(),
                unit: unit.to_owned(),
                min: all(|stat| stat.min.value()),
                mean: all(|stat| stat.mean.value()),
                max: all(|stat| stat.max.value()),
                p95: all(|stat| stat.p95.value()),
            }
        };
        view.metrics = Metric::ALL.into_iter().filter(wanted).map(series).collect();
        view
    }
}

/// A metric's word and unit.
fn name(metric: Metric) -> (&'static str, &'static str) {
    match metric {
        Metric::Cpu => ("cpu", "mcores"),
        Metric::CpuWait => ("cpu-wait", "mcores"),
        Metric::Memory => ("memory", "MiB"),
        Metric::SentPackets => ("sent-packets", "packets/s"),
        Metric::ReceivedPackets => ("received-packets", "packets/s"),
        Metric::SentBits => ("sent-bits", "bit/s"),
        Metric::ReceivedBits => ("received-bits", "bit/s"),
        Metric::Dropped => ("dropped", "packets/s"),
        Metric::Disk => ("disk", "bytes/s"),
        Metric::Dirty => ("dirty", "MiB/s"),
    }
}

pub(crate) fn unreadable(why: String) -> Problem {
    Problem::new(503, "history-unreadable", why, "look into the agent's log and [history]")
}
