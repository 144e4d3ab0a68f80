//! Bad input: each gets a message that names the file, the key or the VM, the agent lives on, and no VM is lost.

use std::fs;
use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::Step;
use lab::cluster::Cluster;
use lab::hosts::{CLIENT, Host, Network};
use lab::sandbox;
use socket2::SockRef;

use crate::bed::{DAEMON, SOON, idle, moved, roomy, send, with_cluster};
use crate::sight::{events, owned, runs_only, told, vm};

const CONFIG: &str = "/etc/evenkeel/evenkeel.toml";
const QEMU_DIR: &str = "/run/evenkeel/qemu";
/// What agents hear requests on where nothing else is configured.
const GROUP: &str = "239.255.79.46:7947";

/// Starts an agent that must refuse to run; gives what it says.
fn refusal(host: &Host, arguments: &[&str]) -> anyhow::Result<String> {
    let output = host.command("timeout").args(["10", DAEMON]).args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code();
    ensure!(matches!(code, Some(1 | 2)), "it ended with {code:?}: {said}");
    Ok(said)
}

fn names(said: &str, words: &[&str]) -> anyhow::Result<()> {
    println!("{}", said.trim());
    ensure!(words.iter().all(|word| said.contains(word)), "{words:?} wanted: {said}");
    Ok(())
}

fn write_config(host: &Host, address: &str, more: &str) -> anyhow::Result<()> {
    let text = format!("[cluster]\nname = \"lab\"\n[host]\naddress = \"{address}\"\n{more}");
    fs::write(host.path(CONFIG), text).context("writing a configuration")
}

async fn answers(cluster: &Cluster, host: usize) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + SOON;
    while let Err(error) = cluster.api(host).status().await {
        ensure!(tokio::time::Instant::now() < deadline, "no answer: {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[test]
fn an_agent_that_cannot_start_safely_says_why_and_touches_nothing() {
    let test = "bad_input::an_agent_that_cannot_start_safely_says_why_and_touches_nothing";
    sandbox::test(test, async || {
        let network = Network::new(2)?;
        let host = &network.hosts()[0];
        let here = host.address().to_string();
        let start = ["--insecure", "--config", CONFIG];

        names(&refusal(host, &start)?, &[CONFIG, "No such file"])?;
        write_config(host, &here, "[hot]\ncpu_usd = \"80%\"\n")?;
        names(&refusal(host, &start)?, &[CONFIG, "line 6", "hot.cpu_usd", "cpu_used"])?;
        write_config(host, &here, "")?;
        names(
            &refusal(host, &["--config", CONFIG])?,
            &["/var/lib/evenkeel/keys", "evenkeel join", "start with --insecure"],
        )?;
        write_config(host, "198.20.0.1", "")?;
        names(&refusal(host, &start)?, &["host.address", "--insecure is refused on 198.20.0.1"])?;
        let state = host.path("/var/lib/evenkeel");
        ensure!(fs::read_dir(&state)?.next().is_none(), "a refused start left files behind");

        let mut cluster = Cluster::start_insecure(network, Path::new(DAEMON), &roomy("off"))?;
        answers(&cluster, 0).await?;
        let host = cluster.host(0);
        names(&refusal(host, &start)?, &["another agent is using /var/lib/evenkeel"])?;
        answers(&cluster, 0).await?;

        // A socket that nobody listens at any more stands in nobody's way.
        cluster.kill_agent(0)?;
        ensure!(cluster.host(0).path("/run/evenkeel/api.sock").exists(), "no socket was left");
        cluster.start_agent(0)?;
        answers(&cluster, 0).await?;
        cluster.settled().await?;

        cluster.stop_agent(0)?;
        let host = cluster.host(0);
        fs::write(host.path("/etc/machine-id"), "f".repeat(32))?;
        names(&refusal(host, &start)?, &["/var/lib/evenkeel/journal", "another machine"])?;
        fs::write(host.path("/etc/machine-id"), "no id")?;
        names(&refusal(host, &start)?, &["/etc/machine-id holds no machine-id"])
    });
}

#[test]
fn noise_from_the_wire_is_told_and_harms_nobody() {
    with_cluster(
        "bad_input::noise_from_the_wire_is_told_and_harms_nobody",
        &roomy("off"),
        &[(idle("web1", 1), 0)],
        async |cluster, guests| {
            let web1 = &guests[0].plan;
            let host = cluster.host(0).address();
            cluster.network.client().inside(|| -> anyhow::Result<()> {
                let udp = UdpSocket::bind((CLIENT, 0))?;
                SockRef::from(&udp).set_multicast_if_v4(&CLIENT)?;
                // Noise, a newer version, what agents without keys say, and a seal that nobody made.
                let forged = [&b"EVKL\x02\0\0\0\x01"[..], &[0xee; 300]].concat();
                for datagram in [&b"noise"[..], b"EVKL\x09\x01..", b"EVKL\x01\x01..", &forged] {
                    udp.send_to(datagram, (host, 7946))?;
                    udp.send_to(datagram, GROUP)?;
                }
                TcpStream::connect((host, 7946))?.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
                Ok(())
            })??;
            let client = CLIENT.to_string();
            for words in [
                [&*client, "that is not of this protocol"].as_slice(),
                &[&client, "version 9"],
                &[&client, "its agent has no keys"],
                &[&client, "whose seal is broken"],
                &[&client, "it does not speak TLS"],
            ] {
                println!("{}", told(cluster, 0, Step::BadInput, words).await?.reason);
            }
            for other in 1..3 {
                told(cluster, other, Step::BadInput, &[&client, "version 9"]).await?;
            }
            cluster.network.client().inside(|| -> anyhow::Result<()> {
                let udp = UdpSocket::bind((CLIENT, 0))?;
                for n in 0..2000_u32 {
                    udp.send_to(&[b"EVKL\x02", &n.to_be_bytes()[..]].concat(), (host, 7946))?;
                }
                Ok(())
            })??;
            told(cluster, 0, Step::BadInput, &["a datagram of 9 bytes"]).await?;
            let bad = events(cluster, 0).await?;
            let bad = bad.iter().filter(|event| event.step == Step::BadInput).count();
            ensure!(bad <= 60, "{bad} events of noise: it washes the others out");
            owned(cluster, "web1", 0, 1).await?;
            moved(cluster, "web1", 0, 1).await?;
            runs_only(cluster, web1, 1).await
        },
    );
}

#[test]
fn files_sockets_and_taps_that_are_wrong_are_named_and_no_vm_is_lost() {
    with_cluster(
        "bad_input::files_sockets_and_taps_that_are_wrong_are_named_and_no_vm_is_lost",
        &roomy("off"),
        &[(idle("web1", 1), 0)],
        async |cluster, guests| {
            let web1 = &guests[0].plan;
            let host = cluster.host(0);
            let lone = "00000000-0000-4000-8000-0000000000aa";
            let garbled = "00000000-0000-4000-8000-0000000000bb";
            let own = host.path(&format!("{QEMU_DIR}/{}.toml", web1.vm()));
            let text = fs::read_to_string(&own)?;
            let file = |name: &str| host.path(&format!("{QEMU_DIR}/{name}.toml"));
            fs::write(file(lone), text.replace("web1", "lone"))?;
            fs::write(file(garbled), "name = \"x\"\nmemory = 12 parsecs\n")?;
            fs::write(file("web2"), &text)?;
            for words in [
                [lone, "the QMP socket", "is absent: start VM lone"].as_slice(),
                &[garbled, "line 2"],
                &["web2.toml", "rename it to UUID.toml"],
            ] {
                println!("{}", told(cluster, 0, Step::BadInput, words).await?.reason);
            }

            // Its tap goes away while it runs, and comes back.
            host.ip(&format!("link delete {}\n", web1.tap()))?;
            let missing = told(cluster, 0, Step::BadInput, &["tap"]).await?;
            println!("{}", missing.reason);
            ensure!(missing.vm.as_deref() == Some("web1"), "{missing:?}");
            let trouble = vm(cluster, 0, "web1").await?.trouble;
            ensure!(trouble.as_deref().is_some_and(|words| words.contains("tap")), "{trouble:?}");
            let stays = send(cluster, "web1", 0, 1).await.err();
            ensure!(stays.is_some_and(|why| why.to_string().contains("tap")), "it is moved");
            runs_only(cluster, web1, 0).await?;
            host.ip(&format!(
                "tuntap add dev {tap} mode tap\nlink set {tap} master br0 up\n",
                tap = web1.tap()
            ))?;
            cluster.watches(0, "web1").await?;

            // Its definition goes away while it runs, and comes back.
            fs::remove_file(&own)?;
            println!("{}", told(cluster, 0, Step::BadInput, &["it is gone"]).await?.reason);
            fs::write(&own, &text)?;
            cluster.watches(0, "web1").await?;
            owned(cluster, "web1", 0, 1).await?;
            runs_only(cluster, web1, 0).await
        },
    );
}
