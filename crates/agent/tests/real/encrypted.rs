//! Copies between hosts with keys: what is on the wire, who may speak at either end, and what is left in QEMU afterwards.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, ensure};
use api::Step;
use lab::capture::{Capture, holds};
use lab::cluster::{CALM, Cluster};
use lab::guests::{self, Guest, GuestPlan, operator_socket};
use lab::qmp::Qmp;
use lab::wait;
use rustix::process::Signal;
use serde_json::json;

use crate::bed::{MOVE_MAX, SOON, busy, copying, fast, idle, moved, send, slow, with_cluster};
use crate::sight::{events, never_rebooted, nothing_left, owned, runs_only, told};

/// Of the kernel's command line, which lies in the guest's memory: several times, as the kernel copies it.
const MARKER: &[u8] = b"cryptomgr.notests init_on_alloc=0 lab.address=";
/// Where the agent has what QEMU reads.
const KEYS: &str = "/var/lib/evenkeel/keys";
/// The first of the ports at which incoming copies listen.
const PORT: u16 = 49_152;

/// The operator's sections with this of copies. No host is hot by its packets: a stranger sends as many as it can.
fn with(copies: &str) -> String {
    CALM.to_owned() + copies
}

const OFF: &str = "[migration]\nencryption = \"off\"\n";
const MULTIFD: &str = "[migration]\nencryption = \"required\"\n[copy]\nmultifd = true\n";

/// Runs `body` on three hosts and a guest on the first.
fn with_guest(
    test: &str,
    plan: GuestPlan,
    body: impl AsyncFnOnce(&mut Cluster, &Guest) -> anyhow::Result<()>,
) {
    with_cluster(test, &with(""), &[(plan, 0)], async |cluster, guests| {
        body(cluster, &guests[0]).await?;
        never_rebooted(cluster, &guests[0].plan)
    });
}

/// Gives all hosts other sections, and waits until they go by them.
async fn configured(cluster: &Cluster, copies: &str) -> anyhow::Result<()> {
    for number in 0..3 {
        let before = of_settings(cluster, number).await?;
        cluster.configure(number, &with(copies))?;
        cluster.signal_agent(number, Signal::HUP)?;
        let deadline = tokio::time::Instant::now() + SOON;
        while of_settings(cluster, number).await? == before {
            ensure!(tokio::time::Instant::now() < deadline, "not read anew");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        told(cluster, number, Step::Settings, &["migration"]).await?;
    }
    Ok(())
}

async fn of_settings(cluster: &Cluster, number: usize) -> anyhow::Result<usize> {
    let all = events(cluster, number).await?;
    Ok(all.iter().filter(|event| event.step == Step::Settings).count())
}

/// Moves the guest, and says whether its memory could be read on the wire.
async fn read_on_the_wire(
    cluster: &Cluster,
    guest: &Guest,
    (from, to): (usize, usize),
    encrypted: bool,
) -> anyhow::Result<bool> {
    let capture = Capture::start(cluster.host(from))?;
    let view = moved(cluster, &guest.plan.name, from, to).await?;
    let frames = capture.stop()?;
    println!("{} bytes on the wire, {view:?}", frames.len());
    ensure!(view.encrypted == Some(encrypted), "{view:?}");
    ensure!(
        u64::try_from(frames.len())? >= view.copied_bytes && view.copied_bytes > 10_000_000,
        "of {} bytes {} were seen",
        view.copied_bytes,
        frames.len()
    );
    let about = cluster.api(from).why(Some(&view.id)).await?;
    let how = if encrypted { "the copy: encrypted" } else { "the copy: in the clear" };
    ensure!(format!("{about:?}").contains(how), "{about:?}");
    runs_only(cluster, &guest.plan, to).await?;
    Ok(holds(&frames, MARKER))
}

#[test]
fn a_guests_memory_cannot_be_read_on_the_wire_unless_encryption_is_off() {
    let test = "encrypted::a_guests_memory_cannot_be_read_on_the_wire_unless_encryption_is_off";
    with_guest(test, idle("web1", 1), async |cluster, guest| {
        // Nothing is set: that is what hosts with keys do.
        ensure!(!read_on_the_wire(cluster, guest, (0, 1), true).await?, "it was read");
        configured(cluster, OFF).await?;
        ensure!(read_on_the_wire(cluster, guest, (1, 2), false).await?, "the test cannot see it");
        configured(cluster, MULTIFD).await?;
        ensure!(!read_on_the_wire(cluster, guest, (2, 0), true).await?, "it was read");
        owned(cluster, "web1", 0, 4).await
    });
}

/// Somebody who connects to a port again and again, says this, and reads what comes; or holds so many lines, and says nothing.
struct Stranger {
    stop: Sender<()>,
    heard: JoinHandle<(usize, Vec<u8>)>,
}

impl Stranger {
    fn at(
        cluster: &Cluster,
        at: SocketAddr,
        says: (&'static [u8], usize),
    ) -> anyhow::Result<Stranger> {
        let (stop, stopped) = mpsc::channel();
        let heard = cluster.network.client().inside(|| {
            // A thread stays in the network in which it was made.
            thread::spawn(move || annoy(at, says, &stopped))
        })?;
        Ok(Stranger { stop, heard })
    }

    /// How often it was let in as far as TCP goes, and all that it heard.
    fn ended(self) -> anyhow::Result<(usize, Vec<u8>)> {
        drop(self.stop);
        self.heard.join().map_err(|_panicked| anyhow::anyhow!("the stranger panicked"))
    }
}

fn annoy(at: SocketAddr, (says, most): (&[u8], usize), stopped: &Receiver<()>) -> (usize, Vec<u8>) {
    let (mut times, mut heard, mut held) = (0, Vec::new(), Vec::new());
    while held.len() < most && stopped.try_recv() == Err(TryRecvError::Empty) {
        let Ok(mut stream) = TcpStream::connect_timeout(&at, Duration::from_millis(100)) else {
            continue;
        };
        times += 1;
        if says.is_empty() {
            held.push(stream);
            continue;
        }
        let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
        // An error is an answer too.
        let _ = stream.write_all(says).and_then(|()| stream.read_to_end(&mut heard));
    }
    // Holds the line until it is told to stop.
    let _ = stopped.recv();
    drop(held);
    (times, heard)
}

#[test]
fn a_stranger_at_the_port_of_a_copy_gets_nothing_and_stops_no_move() {
    let test = "encrypted::a_stranger_at_the_port_of_a_copy_gets_nothing_and_stops_no_move";
    with_guest(test, idle("web1", 1), async |cluster, guest| {
        let mut here = 0;
        // What a source in the clear would begin with; one who only takes up room; many of those.
        for (says, most, made) in
            [(&b"QEVM\0\0\0\x03"[..], usize::MAX, true), (b"", 1, true), (b"", 4, false)]
        {
            let mut times = 0;
            for _ in 0..2 {
                let there = 1 - here;
                let address = cluster.host(there).address();
                let stranger = Stranger::at(cluster, (address, PORT).into(), (says, most))?;
                let id = send(cluster, "web1", here, there).await?;
                let view = cluster.ended(here, &id, MOVE_MAX).await?;
                let (came, heard) = stranger.ended()?;
                println!("{came} times, heard {} bytes; {view:?}", heard.len());
                // At each time an alert, and no more.
                ensure!(heard.len() <= came * 64 && !holds(&heard, MARKER), "{heard:?}");
                times += came;
                ensure!(view.phase == "done" || !made, "{view:?}");
                ensure!(["done", "abandoned"].contains(&&*view.phase), "{view:?}");
                if view.phase == "done" {
                    here = there;
                }
                runs_only(cluster, &guest.plan, here).await?;
                nothing_left(cluster, 1 - here, &guest.plan).await?;
            }
            ensure!(times > 0, "it never came at the right time");
        }
        Ok(())
    });
}

/// Puts another host's certificate and key where a host's QEMU finds its own; undone by a second call.
fn swap_keys(cluster: &Cluster, one: usize, other: usize) -> anyhow::Result<()> {
    for name in ["host.crt", "host.key"] {
        let file = |number: usize| cluster.host(number).path(&format!("{KEYS}/{name}"));
        let (ours, theirs) = (std::fs::read(file(one))?, std::fs::read(file(other))?);
        std::fs::write(file(one), theirs).context("a host's keys")?;
        std::fs::write(file(other), ours).context("a host's keys")?;
    }
    Ok(())
}

/// The agents still are who they were: they hold what they have read, and take no other host's keys.
#[test]
fn a_qemu_with_the_certificate_of_another_host_is_neither_sent_to_nor_listened_to() {
    let test =
        "encrypted::a_qemu_with_the_certificate_of_another_host_is_neither_sent_to_nor_listened_to";
    with_guest(test, idle("web1", 1), async |cluster, guest| {
        // The target is host 2 and shows the certificate of host 3; then the source does.
        for (swapped, why) in [(1, "does not match the hostname 198.18.0.2"), (0, "")] {
            swap_keys(cluster, swapped, 2)?;
            let capture = Capture::start(cluster.host(0))?;
            let id = send(cluster, "web1", 0, 1).await?;
            let view = cluster.ended(0, &id, MOVE_MAX).await?;
            let frames = capture.stop()?;
            println!("{view:?}");
            ensure!(view.phase == "abandoned", "{view:?}");
            let outcome = view.outcome.clone().unwrap_or_default();
            ensure!(outcome.contains(why), "{outcome}");
            ensure!(!holds(&frames, MARKER), "it was sent");
            runs_only(cluster, &guest.plan, 0).await?;
            nothing_left(cluster, 1, &guest.plan).await?;
            swap_keys(cluster, swapped, 2)?;
        }
        moved(cluster, "web1", 0, 1).await?;
        runs_only(cluster, &guest.plan, 1).await
    });
}

/// What is left in the guest's QEMU of its encryption: our objects, and what the parameters say.
async fn left_in_qemu(cluster: &Cluster, at: usize, plan: &GuestPlan) -> anyhow::Result<String> {
    let mut qmp = Qmp::connect(&operator_socket(cluster.host(at), plan.vm())).await?;
    let objects = qmp.command("qom-list", json!({ "path": "/objects" })).await?;
    let objects = objects.as_array().context("a list")?;
    let ours = objects.iter().filter_map(|one| one["name"].as_str());
    let mut left: Vec<String> =
        ours.filter(|name| name.starts_with("evenkeel")).map(str::to_owned).collect();
    let parameters = qmp.command("query-migrate-parameters", json!({})).await?;
    for key in ["tls-creds", "tls-hostname", "tls-authz"] {
        if let Some(value) = parameters[key].as_str().filter(|value| !value.is_empty()) {
            left.push(format!("{key}={value}"));
        }
    }
    Ok(left.join(" "))
}

async fn nothing_left_in_qemu(
    cluster: &Cluster,
    at: usize,
    plan: &GuestPlan,
) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let left = left_in_qemu(cluster, at, plan).await?;
        if left.is_empty() {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < deadline, "left: {left}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn nothing_of_its_encryption_is_left_in_qemu_however_a_move_ends() {
    let test = "encrypted::nothing_of_its_encryption_is_left_in_qemu_however_a_move_ends";
    let plan = GuestPlan { operator: true, ..busy("web1", 1) };
    with_guest(test, plan, async |cluster, guest| {
        let plan = &guest.plan;
        slow(cluster, 1)?;
        let id = copying(cluster, "web1", 0, 1).await?;
        let during = left_in_qemu(cluster, 0, plan).await?;
        let all = "evenkeel-tls tls-creds=evenkeel-tls tls-hostname=198.18.0.2";
        ensure!(during == all, "the test cannot see it: {during}");
        cluster.api(0).cancel(&id).await?;
        cluster.ended(0, &id, MOVE_MAX).await?;
        nothing_left_in_qemu(cluster, 0, plan).await?;

        // The agent dies, and the copy ends while nobody looks: so does the target's QEMU.
        copying(cluster, "web1", 0, 1).await?;
        cluster.kill_agent(0)?;
        guests::kill_qemu(cluster.host(1), plan.vm())?;
        wait::until(SOON, "the copy has failed", || {
            Ok(guests::qemus(cluster.host(1), plan.vm())?.is_empty().then_some(()))
        })
        .await?;
        ensure!(
            left_in_qemu(cluster, 0, plan).await? == all,
            "the agent is not there to remove it"
        );
        cluster.start_agent(0)?;
        nothing_left_in_qemu(cluster, 0, plan).await?;
        cluster.watches(0, "web1").await?;
        cluster.settled().await?;

        fast(cluster, 1)?;
        moved(cluster, "web1", 0, 1).await?;
        runs_only(cluster, plan, 1).await?;
        nothing_left_in_qemu(cluster, 1, plan).await
    });
}
