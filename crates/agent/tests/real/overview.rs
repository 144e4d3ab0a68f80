//! Any agent answers for the whole cluster, and goes on doing so, with ages, when others are gone.

use anyhow::{Context, ensure};
use api::client::Client;
use api::{Event, EventFilter, OverviewHost};
use lab::cluster::Cluster;
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

use crate::bed::{SOON, idle, moved, roomy, with_cluster};

#[test]
fn any_agent_answers_for_the_others_and_says_how_old_that_is_once_they_are_gone() {
    let plans = [(idle("web1", 1), 1)];
    with_cluster(
        "overview::any_agent_answers_for_the_others_and_says_how_old_that_is_once_they_are_gone",
        &roomy("off"),
        &plans,
        async |cluster, _| {
            let api = cluster.api(0);
            let there = other(&api, "host2", |host| host.report.is_some()).await?;
            let report = there.report.context("it was waited for")?;
            ensure!(report.status.host == "host2" && report.newest_event > 0, "{report:?}");
            ensure!(report.vms.iter().map(|vm| &*vm.name).eq(["web1"]), "{:?}", report.vms);

            let newest = EventFilter { limit: Some(3), after: Some(0), ..EventFilter::default() };
            let passed_on: Vec<Event> = api.get_at("host2", "/v1/events?limit=3&after=0").await?;
            ensure!(passed_on == cluster.api(1).events(&newest).await?, "{passed_on:?}");
            refusals(&api).await?;
            numbers(&api).await?;

            let view = moved(cluster, "web1", 1, 2).await?;
            let told = other(&api, "host3", |host| {
                host.report
                    .as_ref()
                    .is_some_and(|report| report.vms.iter().any(|vm| vm.name == "web1"))
            });
            let moves = told.await?.report.context("a report")?.moves;
            ensure!(moves.iter().any(|one| one.id == view.id && one.vm == "web1"), "{moves:?}");

            gone(cluster, &api).await?;
            cluster.start_agent(1)
        },
    );
}

async fn gone(cluster: &mut Cluster, api: &Client) -> anyhow::Result<()> {
    cluster.kill_agent(1)?;
    let host = other(api, "host2", |host| host.problem.is_some()).await?;
    let age = host.report_age_seconds.context("the last report is kept")?;
    ensure!(host.report.is_some() && age > 0.0, "{host:?}");
    refused(api, "host2", "/v1/vms", "host-unreachable").await
}

/// Asks one agent for its overview until what it says of another host is as `wanted`.
async fn other(
    api: &Client,
    name: &str,
    wanted: impl Fn(&OverviewHost) -> bool,
) -> anyhow::Result<OverviewHost> {
    let deadline = Instant::now() + SOON;
    loop {
        let mut hosts = api.overview().await?.hosts.into_iter();
        let own = hosts.next().context("the host that answers is first")?;
        ensure!(own.seen.local && own.report.is_some() && own.problem.is_none(), "{own:?}");
        let found = hosts.find(|host| host.seen.name == name);
        if let Some(host) = found.as_ref().filter(|host| wanted(host)) {
            return Ok(host.clone());
        }
        ensure!(Instant::now() < deadline, "{found:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn refusals(api: &Client) -> anyhow::Result<()> {
    for path in ["/v1/at/host1/v1/status", "/v1/overview", "/healthz"] {
        refused(api, "host2", path, "not-passed-on").await?;
    }
    refused(api, "host2", "/v1/audit", "role-too-low").await?;
    refused(api, "host2", "/v1/tokens", "only-here").await?;
    refused(api, "host2", "/v1/none", "no-such-route").await?;
    refused(api, "host9", "/v1/vms", "no-such-host").await
}

async fn refused(api: &Client, host: &str, path: &str, code: &str) -> anyhow::Result<()> {
    let answer = api.get_at::<Value>(host, path).await;
    let said = answer.err().with_context(|| format!("{path} was let through"))?.to_string();
    ensure!(said.contains(code), "{path}: {said}");
    Ok(())
}

/// Who looks at the plan changes nothing; who has it numbered does.
async fn numbers(api: &Client) -> anyhow::Result<()> {
    api.plan().await?;
    let none = api.shown_plan().await.err().context("no numbers were given")?.to_string();
    ensure!(none.contains("no-plan-shown"), "{none}");
    let numbered = api.numbered_plan().await?;
    ensure!(api.shown_plan().await? == numbered);
    Ok(())
}
