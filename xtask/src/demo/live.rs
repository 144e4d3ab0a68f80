//! What the agents tell while it happens: the events of all hosts, merged by time, and the copy's progress.
//!
//! **Invariant:** every event is told once; those that arrive within `HOLD` of each other are told in order of time.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use api::client::Client;
use api::{Event, EventFilter, MoveView, Step};
use indicatif::{ProgressBar, ProgressStyle};
use lab::cluster::Cluster;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval};

use crate::say;

/// How long an event waits for earlier ones of other hosts.
const HOLD: Duration = Duration::from_millis(300);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Where there is no terminal to draw a bar on, progress is told this often.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Follows the agents until stopped.
#[derive(Debug)]
pub(crate) struct Live {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    ears: Vec<JoinHandle<()>>,
}

impl Live {
    /// Tells what happens from now on.
    pub(crate) async fn start(
        cluster: &Cluster,
        hosts: usize,
        source: usize,
    ) -> anyhow::Result<Live> {
        let (heard, events) = mpsc::unbounded_channel();
        let mut ears = Vec::new();
        for host in 0..hosts {
            let api = cluster.api(host);
            let newest = EventFilter { limit: Some(1), ..EventFilter::default() };
            let before = api.events(&newest).await.context("asking an agent for its events")?;
            let after = before.last().map_or(0, |event| event.seq);
            ears.push(tokio::spawn(listen(api, after, heard.clone())));
        }
        let teller = Teller {
            source: cluster.api(source),
            events,
            held: BTreeMap::new(),
            bar: bar(),
            told: None,
        };
        let (stop, stopped) = oneshot::channel();
        Ok(Live { stop, task: tokio::spawn(teller.run(stopped)), ears })
    }

    /// Tells what has been heard, and stops.
    pub(crate) async fn stop(self) {
        tokio::time::sleep(HOLD).await;
        self.ears.iter().for_each(JoinHandle::abort);
        let _told_already = self.stop.send(());
        let _a_panic_has_been_printed = self.task.await;
    }
}

async fn listen(api: Client, after: u64, heard: mpsc::UnboundedSender<Event>) {
    let filter = EventFilter { after: Some(after), ..EventFilter::default() };
    let mut coming = api.follow(filter);
    // An agent that is gone is found by whoever judges the demo.
    while let Ok(events) = coming.next().await {
        for event in events {
            if heard.send(event).is_err() {
                return;
            }
        }
    }
}

/// Hidden where standard error is no terminal.
fn bar() -> ProgressBar {
    let style = "              copy    [{bar:40}] {binary_bytes} of {binary_total_bytes}, {msg}";
    let style = ProgressStyle::with_template(style).expect("the template is well-formed");
    ProgressBar::new(0).with_style(style.progress_chars("=> "))
}

struct Teller {
    source: Client,
    events: mpsc::UnboundedReceiver<Event>,
    held: BTreeMap<(String, String, u64), (Instant, Event)>,
    bar: ProgressBar,
    told: Option<Instant>,
}

impl Teller {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut ticks = interval(LOOK_EVERY);
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                Some(event) = self.events.recv() => self.hold(event),
                _ = ticks.tick() => {
                    self.tell(HOLD);
                    self.progress().await;
                }
            }
        }
        while let Ok(event) = self.events.try_recv() {
            self.hold(event);
        }
        self.tell(Duration::ZERO);
        self.bar.finish_and_clear();
    }

    fn hold(&mut self, event: Event) {
        // The agents' times have one form, so their text sorts as they do.
        let key = (event.time.clone(), event.host.clone(), event.seq);
        self.held.insert(key, (Instant::now(), event));
    }

    fn tell(&mut self, hold: Duration) {
        while let Some(first) = self.held.first_entry() {
            if first.get().0.elapsed() < hold {
                return;
            }
            let (_, event) = first.remove();
            self.bar.suspend(|| say(&line(&event)));
        }
    }

    /// Asks how far the copy is.
    async fn progress(&mut self) {
        let moves = self.source.moves().await.unwrap_or_default();
        let Some(copying) = moves.iter().find(|one| one.phase == "copying" && one.total_bytes > 0)
        else {
            self.bar.finish_and_clear();
            return;
        };
        if self.bar.is_finished() {
            self.bar.reset();
        }
        self.bar.set_length(copying.total_bytes.max(copying.copied_bytes));
        self.bar.set_position(copying.copied_bytes);
        self.bar.set_message(format!("round {}", copying.rounds));
        if self.bar.is_hidden() && self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            say(&far(copying));
        }
    }
}

fn far(copying: &MoveView) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let (copied, total) = (mib(copying.copied_bytes), mib(copying.total_bytes));
    format!("              copy           {copied} of {total} MiB, round {}", copying.rounds)
}

/// `18:20:52.123 host1  acceptance     host2: it would cost 46.01 % there`
fn line(event: &Event) -> String {
    let time = event.time.get(11..23).unwrap_or(&event.time);
    let about = match (event.step, &event.peer) {
        (Step::Membership, _) | (_, None) => String::new(),
        (_, Some(peer)) => format!("{peer}: "),
    };
    format!("{time}  {:<6} {:<14} {about}{}", event.host, event.step.to_string(), event.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_when_who_what_and_why() {
        let event = Event {
            seq: 7,
            time: "2026-01-02T03:04:05.678Z".to_owned(),
            host: "host1".to_owned(),
            move_id: None,
            vm: None,
            step: Step::Acceptance,
            reason: "it would cost 46.01 % there".to_owned(),
            peer: Some("host2".to_owned()),
            cost_percent: Some(46.01),
            copy: None,
        };
        assert_eq!(
            line(&event),
            "03:04:05.678  host1  acceptance     host2: it would cost 46.01 % there"
        );
    }
}
