//! Waiting for something that announces itself by no event: asked every 20 ms until it holds, or a deadline passes.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Asks `look` until it gives a value. An error of `look` ends the waiting; so does `within`, with an error naming `what`.
pub async fn until<T>(
    within: Duration,
    what: &str,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {within:?}");
        }
        sleep(BETWEEN_LOOKS).await;
    }
}
