//! `evenkeel exclude`: leaves a VM where it is, or lists which are.

use api::ExcludeRequest;
use api::client::Client;

use crate::screen::Screen;
use crate::show;

/// Excludes `vm` for so long; without a VM: shows what is excluded.
///
/// # Errors
///
/// When the agent says no or cannot be asked, or standard output cannot be written.
pub(crate) async fn exclude(
    client: &Client,
    screen: &mut Screen,
    vm: Option<String>,
    for_seconds: Option<u64>,
) -> anyhow::Result<()> {
    let Some(vm) = vm else {
        return screen.show(&client.exclusions().await?, |all, look| show::exclusions(all, look));
    };
    let excluded = client.exclude(&vm, ExcludeRequest { for_seconds }).await?;
    screen.show(&excluded, |excluded, _| show::exclusion(excluded))
}
