//! `evenkeel events`: what was seen and decided.

use api::EventFilter;
use api::client::Client;

use crate::args::EventsArgs;
use crate::screen::Screen;
use crate::show;

/// Shows the events that `wanted` asks for; followed, until the agent is lost or nobody reads any more.
///
/// # Errors
///
/// When the agent cannot be asked, or standard output not be written.
pub(crate) async fn run(
    client: &Client,
    screen: &mut Screen,
    wanted: EventsArgs,
) -> anyhow::Result<()> {
    let EventsArgs { follow, move_id, after, limit } = wanted;
    let filter = EventFilter { after, limit: Some(limit), move_id, follow };
    if !follow {
        return screen.show_lines(&client.events(&filter).await?, show::events);
    }
    let mut coming = client.follow(filter);
    let mut first = true;
    loop {
        let events = coming.next().await?;
        screen.stream(&events, |events, look| show::events_as_they_come(events, first, look))?;
        first = false;
    }
}
