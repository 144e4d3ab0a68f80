//! A real agent that is told to read its configuration anew.

use std::fs::File;
use std::time::Duration;

use api::client::Client;
use api::{Event, EventFilter, Status, Step};
use rustix::process::{Pid, Signal, kill_process};
use sim::replay::{replay, unpacked};
use tokio::time::timeout;

use alone::Agent;

mod alone;

const PATIENCE: Duration = Duration::from_secs(30);

/// Tells the agent, and waits for the next event of this step.
async fn told_to_reload(agent: &Agent, step: Step) -> Event {
    let api: Client = agent.api();
    let newest = api.events(&EventFilter::default()).await.expect("it answers");
    let after = Some(newest.last().map_or(0, |event| event.seq));
    let mut follow = api.follow(EventFilter { after, ..EventFilter::default() });
    kill_process(Pid::from_child(agent.child()), Signal::HUP).expect("it runs");
    let told = async {
        loop {
            let news = follow.next().await.expect("it answers");
            if let Some(event) = news.into_iter().find(|event| event.step == step) {
                return event;
            }
        }
    };
    timeout(PATIENCE, told).await.expect("it tells")
}

async fn status(agent: &Agent) -> Status {
    agent.api().status().await.expect("it answers")
}

#[tokio::test]
async fn what_decides_changes_at_once_and_is_in_the_recording() {
    let mut agent = Agent::new("127.78.0.2");
    agent.start();
    agent.has_told(0).await;
    assert_eq!((&*status(&agent).await.balance, status(&agent).await.config), ("recommend", None));

    agent.configure(
        "[mode]\nbalance = \"off\"\n[vm_policy]\nwhen = \"host.vms > 40\"\n[limits]\nhours = \"20:00-06:00 Europe/Berlin\"\n",
    );
    let told = told_to_reload(&agent, Step::Settings).await;
    assert_eq!(told.reason, "in force from now on: [mode], [limits], [vm_policy]");
    assert_eq!((&*status(&agent).await.balance, status(&agent).await.config), ("off", None));

    let told = told_to_reload(&agent, Step::Settings).await;
    assert_eq!(told.reason, "read anew, and as before");

    // By that policy it goes on, and what it recorded gives the same again.
    agent.has_read(3).await;
    agent.kill();
    let log = agent.logs().pop().expect("it records");
    let again = replay(unpacked(File::open(log).expect("it is there")).expect("read"));
    let again = again.expect("a log");
    assert!(again.same() && again.events > 5, "{again:?}");
}

#[tokio::test]
async fn a_mistake_leaves_what_was_in_force_and_is_told_until_it_is_mended() {
    let mut agent = Agent::new("127.78.0.3");
    agent.configure("[mode]\nbalance = \"off\"\n");
    agent.start();
    agent.has_told(0).await;

    agent.configure("[mode]\nbalance = \"automatic\"\n[hot]\ncpu_usd = \"80%\"\n");
    let told = told_to_reload(&agent, Step::BadInput).await.reason;
    for words in ["evenkeel.toml: line 16, column 1, key hot.cpu_usd", "did you mean \"cpu_used\"?"]
    {
        assert!(told.contains(words), "{told}");
    }
    let at_work = status(&agent).await;
    assert_eq!((&*at_work.balance, at_work.config), ("off", Some(told)));

    // It has no keys.
    agent.configure("[mode]\nbalance = \"automatic\"\n[migration]\nencryption = \"required\"\n");
    let told = told_to_reload(&agent, Step::BadInput).await.reason;
    let words = "evenkeel.toml, key migration.encryption: copies cannot be encrypted without keys";
    assert!(told.contains(words), "{told}");
    assert_eq!(&*status(&agent).await.balance, "off");

    agent.configure("[mode]\nbalance = \"automatic\"\n");
    told_to_reload(&agent, Step::Settings).await;
    let at_work = status(&agent).await;
    assert_eq!((&*at_work.balance, at_work.config), ("automatic", None));
}

#[tokio::test]
async fn what_waits_for_a_restart_is_named() {
    let mut agent = Agent::new("127.78.0.4");
    agent.start();
    agent.has_told(0).await;
    agent.configure("size_max = \"2GiB\"\n[history]\nkeep = false\n");
    let told = told_to_reload(&agent, Step::Settings).await.reason;
    assert_eq!(told, "not in force before evenkeeld is restarted: [history], [record]");
    assert_eq!(status(&agent).await.config, Some(told));
}
