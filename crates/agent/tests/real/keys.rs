//! Keys while agents run: a certificate that grows old, a cluster key that is rotated, a host that is shut out.

use std::path::PathBuf;
use std::time::Duration;

use agent::clock::unix_seconds;
use anyhow::{Context, ensure};
use api::Step;
use lab::cluster::Cluster;
use lab::wait;
use tokio::time::{Instant, sleep};
use trust::authority::{Authority, LIFE};
use trust::identity::Unix;
use trust::keys::Keys;
use trust::request::{self, Wanted};

use crate::bed::{idle, moved, roomy, send, with_cluster};
use crate::sight::{runs_only, told};

/// What is promised of whatever is put on any one host.
const EVERYWHERE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

fn keys(cluster: &Cluster, host: usize) -> PathBuf {
    cluster.host(host).path("/var/lib/evenkeel/keys")
}

fn now() -> Unix {
    Unix(u64::from(unix_seconds()))
}

#[test]
fn keys_are_renewed_rotated_and_revoked_while_agents_run() {
    with_cluster(
        "keys::keys_are_renewed_rotated_and_revoked_while_agents_run",
        &roomy("off"),
        &[(idle("web1", 1), 0)],
        async |cluster, guests| {
            age(cluster, 2)?;
            cluster.stop_agent(2)?;
            cluster.start_agent(2)?;
            wait::until(EVERYWHERE, "an old certificate is renewed", || {
                // Between the writes of key and certificate the two do not belong together.
                let Ok(now_held) = Keys::load(&keys(cluster, 2)) else { return Ok(None) };
                let begins = now_held.held().identity.begins;
                // Certificates begin an hour early.
                Ok((begins.0 + 2 * 3600 > now().0).then_some(()))
            })
            .await?;
            told(cluster, 2, Step::Settings, &["keys read anew: certificate until"]).await?;
            cluster.settled().await?;

            cluster.ran(1, &["keys", "rotate"])?;
            wait::until(EVERYWHERE, "all hosts have the new key", || {
                let all = (0..3).map(|host| Ok(Keys::load(&keys(cluster, host))?.held().newest()));
                let all = all.collect::<anyhow::Result<Vec<u32>>>()?;
                Ok((all == [2, 2, 2]).then_some(()))
            })
            .await?;

            cluster.ran(0, &["ca", "revoke", "host3"])?;
            let began = Instant::now();
            for host in 0..2 {
                shut_out(cluster, host, began).await?;
            }
            println!("shut out after {:?}", began.elapsed());
            let refused = match send(cluster, "web1", 0, 2).await {
                Err(refused) => format!("{refused:#}"),
                Ok(id) => {
                    let view = cluster.ended(0, &id, EVERYWHERE).await?;
                    ensure!(view.phase != "done", "it went to a host that is revoked: {view:?}");
                    view.outcome.unwrap_or_default()
                }
            };
            println!("{refused}");
            moved(cluster, "web1", 0, 1).await?;
            runs_only(cluster, &guests[0].plan, 1).await
        },
    );
}

/// Gives a host, in its folder, a certificate of which half the life is over.
fn age(cluster: &Cluster, host: usize) -> anyhow::Result<()> {
    let identity = Keys::load(&keys(cluster, host))?.held().identity.clone();
    let name = cluster.host(host).name();
    let wanted = Wanted { host: identity.host, name, addresses: identity.addresses };
    let request = request::make(&keys(cluster, host), &wanted)?;
    let ca = Authority::open(&cluster.host(0).path("/etc/evenkeel/ca"), None)?;
    let then = Unix(now().0 - LIFE.as_secs() / 2);
    ca.sign(&request, LIFE, then)?.0.install(&keys(cluster, host), now())?;
    Ok(())
}

/// Waits until a host no longer takes the third one for alive.
async fn shut_out(cluster: &Cluster, host: usize, began: Instant) -> anyhow::Result<()> {
    loop {
        let hosts = cluster.api(host).hosts().await?;
        let third = hosts.iter().find(|one| one.name == "host3").context("host3 is known")?;
        if third.state != "alive" {
            return Ok(());
        }
        ensure!(began.elapsed() < EVERYWHERE, "host3 is still {} at host{}", third.state, host + 1);
        sleep(LOOK_EVERY).await;
    }
}
