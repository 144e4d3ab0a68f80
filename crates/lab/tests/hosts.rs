//! Hosts of the lab are hosts to each other, and nothing of the machine is theirs to change.

#![expect(clippy::print_stdout, reason = "figures are read by people")]

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use decide::units::BitsPerSec;
use lab::clients::Pinger;
use lab::hosts::{Host, Network};
use lab::{sandbox, wait};
use tokio::time::Instant;

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const PORT: u16 = 5_000;

fn said(mut command: Command) -> anyhow::Result<String> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn shell(host: &Host, script: &str) -> anyhow::Result<String> {
    let mut command = host.command("sh");
    command.args(["-euc", script]);
    said(command)
}

#[test]
fn hosts_have_names_and_files_of_their_own() {
    let machine = || -> Vec<String> {
        ["/etc/machine-id", "/etc/hostname"]
            .map(|path| fs::read_to_string(path).unwrap_or_default())
            .to_vec()
    };
    sandbox::test("hosts_have_names_and_files_of_their_own", async || {
        let before = machine();
        let network = Network::new(3)?;
        let script = "hostname; cat /etc/machine-id; touch /etc/evenkeel/a /var/lib/evenkeel/b /run/c; ls /etc/evenkeel /var/lib/evenkeel";
        let mut seen: Vec<String> = Vec::new();
        for host in network.hosts() {
            let told = shell(host, script)?;
            ensure!(told.starts_with(&format!("{}\n", host.name())), "{told}");
            ensure!(
                told.contains('a') && told.contains('b') && !seen.contains(&told),
                "{told} after {seen:?}"
            );
            ensure!(host.path("/run/c").exists(), "the host's files cannot be seen from outside");
            let kind = shell(host, "stat -f -c %T /var/lib/evenkeel")?;
            ensure!(kind != "tmpfs", "the state lies on {kind}");
            ensure!(
                shell(host, "ls /sys/class/net")?.contains("up0"),
                "sysfs shows another network"
            );
            ensure!(shell(host, "ip -6 address")?.is_empty(), "IPv6 is on");
            seen.push(told);
        }
        ensure!(machine() == before && !fs::exists("/etc/evenkeel/a")?, "the machine was changed");
        Ok(())
    });
}

#[test]
fn multicast_reaches_the_other_hosts() {
    sandbox::test("multicast_reaches_the_other_hosts", async || {
        let network = Network::new(3)?;
        let [sender, listeners @ ..] = network.hosts() else {
            unreachable!("three hosts were made")
        };
        let open = |host: &Host| -> anyhow::Result<UdpSocket> {
            let address = host.address();
            host.namespace().inside(|| -> anyhow::Result<UdpSocket> {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
                socket.join_multicast_v4(&GROUP, &address)?;
                socket.set_read_timeout(Some(Duration::from_secs(5)))?;
                Ok(socket)
            })?
        };
        let ears = listeners.iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
        open(sender)?.send_to(b"who takes it?", (GROUP, PORT))?;
        for ear in ears {
            let mut heard = [0; 64];
            let (length, from) = ear.recv_from(&mut heard).context("nothing was heard")?;
            ensure!(
                &heard[..length] == b"who takes it?" && from.ip() == sender.address(),
                "heard {from}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_pulled_cable_cuts_a_host_off_until_it_is_back() {
    sandbox::test("a_pulled_cable_cuts_a_host_off_until_it_is_back", async || {
        let network = Network::new(1)?;
        let host = &network.hosts()[0];
        let pinger = Pinger::start(network.client(), host.address(), Duration::from_millis(20))?;
        let more = async |count: u32| {
            let enough = pinger.so_far().answered + count;
            let look = || Ok((pinger.so_far().answered >= enough).then_some(()));
            wait::until(Duration::from_secs(10), "pings answered", look).await
        };
        more(5).await?;
        host.link_down()?;
        let lost = pinger.so_far().lost();
        let look = || Ok((pinger.so_far().lost() >= lost + 20).then_some(()));
        wait::until(Duration::from_secs(10), "pings lost", look).await?;
        host.link_up()?;
        more(5).await?;
        let pings = pinger.stop().await?;
        ensure!(pings.lost() >= 20 && pings.gap_ms >= 400, "the cut was not seen: {pings:?}");
        Ok(())
    });
}

#[test]
fn an_uplink_is_as_slow_as_it_is_made() {
    sandbox::test("an_uplink_is_as_slow_as_it_is_made", async || {
        let network = Network::new(2)?;
        let [from, to] = network.hosts() else { unreachable!("two hosts were made") };
        let megabytes = |count: u32| -> anyhow::Result<Duration> {
            let listener = to.namespace().inside(|| TcpListener::bind((to.address(), PORT)))??;
            let start = Instant::now();
            let mut stream =
                from.namespace().inside(|| TcpStream::connect((to.address(), PORT)))??;
            let send = thread::spawn(move || {
                std::io::copy(&mut std::io::repeat(1).take(u64::from(count) << 20), &mut stream)
            });
            let (mut accepted, _from) = listener.accept()?;
            let got = std::io::copy(&mut accepted, &mut std::io::sink())?;
            ensure!(got == u64::from(count) << 20, "only {got} bytes came");
            send.join().expect("the sender does not panic")?;
            Ok(start.elapsed())
        };
        let free = megabytes(10)?;
        from.limit_uplink(Some(BitsPerSec(80_000_000)))?;
        let limited = megabytes(10)?;
        from.limit_uplink(None)?;
        let freed = megabytes(10)?;
        println!("10 MiB: {free:?}, {limited:?}, {freed:?}");
        ensure!((900..3_000).contains(&limited.as_millis()), "80 Mbit/s took {limited:?}");
        ensure!(free < limited && freed < limited, "{free:?} {limited:?} {freed:?}");
        Ok(())
    });
}
