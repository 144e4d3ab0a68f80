//! `evenkeel best-host`: which host would take a VM that is yet to be started.

use std::process::ExitCode;

use api::BestHostRequest;
use api::client::Client;

use crate::args::BestHostArgs;
use crate::screen::Screen;
use crate::{REFUSED, show};

/// Asks for the VM that `wanted` describes.
///
/// # Errors
///
/// When the agent says no or cannot be asked, or standard output cannot be written.
pub(crate) async fn run(
    client: &Client,
    screen: &mut Screen,
    wanted: BestHostArgs,
) -> anyhow::Result<ExitCode> {
    let BestHostArgs { memory, cpu, tags, name } = wanted;
    let request = BestHostRequest { name, tags, memory_mib: memory, cpu_millicores: cpu };
    let hosts = client.best_host(&request).await?;
    screen.show(&hosts, |hosts, look| show::best_hosts(hosts, look))?;
    let some = hosts.iter().any(|host| host.cost_percent.is_some());
    Ok(if some { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}
