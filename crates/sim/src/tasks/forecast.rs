//! `evenkeel-sim forecast`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use sim::forecast::{Report, measures, score, us_per_series};

use super::{print, say};

/// Arguments of the task.
#[derive(Args)]
#[command(after_help = "Example: evenkeel-sim forecast --traces ~/traces --json")]
pub(crate) struct Forecast {
    /// Folder with planetlab/ and bitbrains/
    #[arg(long)]
    traces: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Forecast {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let mut report = Report { us_per_series: us_per_series(), ..Report::default() };
        for measure in measures(&self.traces)? {
            let (rows, peaks) = score(&measure);
            report.rows.extend(rows);
            report.peaks.push(peaks);
        }
        report.close();
        say(&report.table())?;
        if self.json {
            print(&report)?;
        }
        Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
