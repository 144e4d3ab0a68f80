//! `evenkeel audit`: what was asked of the agent, and whether the log of that fits together.

use std::io::{self, Write};
use std::process::ExitCode;

use api::AuditFilter;
use api::client::Client;

use crate::REFUSED;
use crate::args::AuditArgs;
use crate::screen::Screen;
use crate::show;

/// Shows lines of the log, or what is to be said of it as a whole.
///
/// # Errors
///
/// When the agent says no or cannot be asked, or standard output cannot be written.
pub(crate) async fn run(
    client: &Client,
    screen: &mut Screen,
    wanted: AuditArgs,
) -> anyhow::Result<ExitCode> {
    let AuditArgs { since, after, limit, json, verify, kept } = wanted;
    let verify = verify || kept.is_some();
    let filter = AuditFilter { since, after, limit: Some(limit), kept };
    let view = client.audit(&filter).await?;
    let amiss = show::audit_amiss(&view);
    if verify {
        if json {
            screen.json(&view.check)?;
        } else {
            screen.show(&view.check, |_, _| show::audit_check(&view))?;
        }
        return Ok(amiss.map_or(ExitCode::SUCCESS, |_| ExitCode::from(REFUSED)));
    }
    if json {
        view.lines.iter().try_for_each(|line| screen.json(line))?;
    } else {
        screen.show_lines(&view.lines, show::audit)?;
    }
    if let Some(amiss) = amiss {
        // Where it is closed, `--verify` tells.
        let _ = writeln!(io::stderr(), "evenkeel: {amiss}");
    }
    Ok(ExitCode::SUCCESS)
}
