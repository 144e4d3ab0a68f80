//! The configuration file, read anew at a SIGHUP.
//!
//! What decides changes at once: it goes to the host as an event, so that a recording has it too. What the agent was built from,
//! addresses and paths, waits for its next start, and is named.
//!
//! **Invariant:** a file with a mistake changes nothing; an event and `evenkeel status` say so.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use decide::host::Event;
use decide::host::story::{Note, Step};
use decide::policy::settings::Settings;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::{Config, Traces, Webhook};
use crate::posting::{Posts, Ready, ready};
use crate::steering::{Question, Steering};

/// Waits for SIGHUP.
#[derive(Debug)]
pub(crate) struct Reload {
    path: PathBuf,
    running: Config,
    /// Those that are served.
    served: (Vec<Webhook>, Option<Traces>),
    keyed: bool,
    signal: Signal,
}

/// What was read anew.
struct Read {
    settings: Settings,
    /// What excludes each other, if anything.
    doubtful: Option<String>,
    /// The sections that name who is told, where others are told now.
    others: Vec<&'static str>,
    /// Keys that are not as they were, and not in force before the next start.
    waiting: Vec<&'static str>,
}

impl Reload {
    /// From here on a SIGHUP does not end the process.
    pub(crate) fn new(path: &Path, running: &Config, keyed: bool) -> anyhow::Result<Reload> {
        let signal = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
        let (running, served) =
            (running.clone(), (running.webhook.clone(), running.traces.clone()));
        Ok(Reload { path: path.to_owned(), running, served, keyed, signal })
    }

    /// Goes on until the loop has ended.
    pub(crate) async fn go(mut self, questions: mpsc::WeakSender<Question>, posts: Arc<Posts>) {
        while self.signal.recv().await.is_some() {
            let (path, keyed) = (self.path.clone(), self.keyed);
            let read = tokio::task::spawn_blocking(move || read_anew(&path, keyed)).await;
            let read = match read.unwrap_or_else(|error| Err(vec![error.to_string()])) {
                Ok((config, doubtful, hooks)) => {
                    // Also where they are as before: their files may not be.
                    posts.serve_anew(hooks).await;
                    let (webhooks, traces) = &self.served;
                    let others = [
                        ("[[webhook]]", config.webhook != *webhooks),
                        ("[traces]", config.traces != *traces),
                    ];
                    self.served = (config.webhook.clone(), config.traces.clone());
                    Ok(Read {
                        settings: config.settings(),
                        doubtful,
                        others: others.into_iter().filter(|it| it.1).map(|it| it.0).collect(),
                        waiting: waiting(&self.running, &config),
                    })
                }
                Err(wrong) => Err(wrong),
            };
            let question: Question = Box::new(move |at_work| at_work.reload(read));
            // Held no longer than this: the loop must notice if the API ends.
            let Some(questions) = questions.upgrade() else { return };
            if questions.send(question).await.is_err() {
                return;
            }
        }
    }
}

type Anew = (Config, Option<String>, Vec<Ready>);

/// What the file says, and the files that it names for webhooks and traces, if an agent may go by it.
fn read_anew(path: &Path, keyed: bool) -> Result<Anew, Vec<String>> {
    let (config, doubtful) = Config::read(path)?;
    let unsuited = |wrong| vec![format!("{}, {wrong}", path.display())];
    config.suits(keyed).map_err(unsuited)?;
    let hooks = ready(path, &config)?;
    Ok((config, doubtful, hooks))
}

impl Steering {
    fn reload(&mut self, read: Result<Read, Vec<String>>) {
        let Read { settings, doubtful, others, waiting } = match read {
            Ok(read) => read,
            Err(found) => {
                let words = format!("{}; what was in force before still is", found.join("; "));
                self.tell(&[Note::bad_input(words.clone())]);
                self.config = Some(words);
                return;
            }
        };
        let mut notes: Vec<Note> = doubtful.iter().cloned().map(Note::bad_input).collect();
        let same = settings == *self.host.settings();
        if !same {
            self.handle(Event::Settings(Box::new(settings)));
        }
        if !others.is_empty() {
            let words = format!("in force from now on: {}", others.join(", "));
            notes.push(Note::new(Step::Settings, words));
        }
        let waits = (!waiting.is_empty())
            .then(|| format!("not in force before evenkeeld is restarted: {}", waiting.join(", ")));
        match &waits {
            Some(words) => notes.push(Note::new(Step::Settings, words.clone())),
            None if same && others.is_empty() => {
                notes.push(Note::new(Step::Settings, "read anew, and as before"))
            }
            None => {}
        }
        self.tell(&notes);
        let told: Vec<String> = doubtful.into_iter().chain(waits).collect();
        self.config = (!told.is_empty()).then(|| told.join("; "));
    }
}

/// The keys that the agent was built from and that are not as they were.
fn waiting(running: &Config, read: &Config) -> Vec<&'static str> {
    let (cluster, host) = (&running.cluster, &running.host);
    let keys = [
        ("cluster.name", cluster.name != read.cluster.name),
        ("cluster.seeds", cluster.seeds != read.cluster.seeds),
        ("cluster.request", cluster.request != read.cluster.request),
        ("cluster.group", cluster.group != read.cluster.group),
        ("host.name", host.name != read.host.name),
        ("host.address", host.address != read.host.address),
        ("host.copy_address", host.copy_address != read.host.copy_address),
        ("host.port", host.port != read.host.port),
        ("host.uplink", host.uplink != read.host.uplink),
        ("host.state", host.state != read.host.state),
        ("host.ca", running.host.ca != read.host.ca),
        ("host.keys", running.keys() != read.keys()),
        ("host.qemu", host.qemu != read.host.qemu),
        ("host.cgroup", host.cgroup != read.host.cgroup),
        ("host.api", host.api != read.host.api),
        ("[hypervisor]", running.hypervisor != read.hypervisor),
        ("[history]", running.history != read.history),
        ("[api]", running.api != read.api),
        ("[record]", running.record != read.record),
    ];
    keys.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(host: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("evenkeel.toml");
        let text = format!("[cluster]\nname = \"c\"\n[host]\n{host}\n");
        std::fs::write(&file, text).unwrap();
        Config::read(&file).unwrap().0
    }

    #[test]
    fn each_key_of_the_host_that_waits_for_a_restart_is_named() {
        let address = "address = \"198.18.0.1\"\n";
        let running = read(address);
        assert_eq!(waiting(&running, &running), [""; 0]);
        assert_eq!(waiting(&running, &read("address = \"198.18.0.2\"")), ["host.address"]);
        for (key, value) in [
            ("copy_address", "\"198.18.0.9\""),
            ("name", "\"other\""),
            ("port", "7999"),
            ("uplink", "\"eth9\""),
            ("qemu", "\"/run/q\""),
            ("cgroup", "\"/sys/fs/cgroup/q\""),
            ("api", "\"/run/q/api.sock\""),
        ] {
            let read = read(&format!("{address}{key} = {value}"));
            assert_eq!(waiting(&running, &read), [format!("host.{key}")], "{key}");
        }
    }
}
