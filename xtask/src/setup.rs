//! `cargo xtask setup`: installs and builds what test guests need.

use std::process::ExitCode;

use clap::Args;
use lab::setup::{self, Report};

use crate::{print, say};

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct Setup {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Setup {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let report = setup::run(true, &mut |step| say(step))?;
        print(&if self.json { serde_json::to_string_pretty(&report)? } else { table(&report) });
        Ok(if report.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn table(report: &Report) -> String {
    let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let listed =
        |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    let mut text = format!(
        "installed    {}\nmissing      {}\nQEMU         {}\nlibvirt      {}\nguest kernel {}\naccelerator  {}",
        listed(&report.installed),
        listed(&report.missing),
        shown(&report.qemu),
        shown(&report.libvirt),
        shown(&report.kernel),
        shown(&report.accelerator),
    );
    if let Some(command) = &report.command {
        text += &format!("\n\nAs root, run:\n  {command}");
    }
    text
}
