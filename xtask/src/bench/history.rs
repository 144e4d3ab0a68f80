//! `cargo xtask bench history`: a month of Bitbrains VMs, second by second, into the histories that an agent keeps.
//!
//! Replayed are three days, ten times over: pco looks for no repetition, so that saves nothing. Every slot of 300 s is held for
//! its 300 seconds; for the noisy load each second's value is drawn from 70 % to 130 % of it. The trace says nothing of packets,
//! run-queue wait, drops and dirty memory: packets are taken as 1,000 bytes each, the dirty rate as a 64th of the active
//! memory a second, wait and drops as none.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use decide::units::{Time, VmId};
use decide::usage::history::sample::Sample;
use decide::usage::history::{History as Usage, Kept, Whose};
use drivers::store::history::{Histories, Spans};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use sim::traces::{self, Guest};

use crate::{print, say};

/// The target: a VM's month.
const KIB_MAX: f64 = 200.0;
const DAYS: [&str; 3] = ["2013-07-01", "2013-07-02", "2013-07-03"];
const MONTH: u64 = 30 * 86_400;
const SLOT: u64 = 300;

/// Arguments of the task.
#[derive(Args)]
pub(crate) struct History {
    /// The folder of the traces; it holds `bitbrains/rnd-2013-07-01.csv.zst` and so on
    #[arg(env = "EVENKEEL_TRACES")]
    traces: PathBuf,
    /// VMs, taken evenly from the trace
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=400))]
    vms: u32,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// The document.
#[derive(Serialize)]
struct Report {
    vms: usize,
    kib_max: f64,
    rows: Vec<Row>,
}

/// One load.
#[derive(Serialize)]
struct Row {
    load: &'static str,
    /// Rows and blocks with their keys, the mean VM and the greatest.
    kib_a_vm: f64,
    kib_greatest: f64,
    /// The file, by the number of VMs.
    file_kib_a_vm: f64,
    /// Processor time a VM and minute: taking 60 samples in, and writing what they close.
    decide_us: f64,
    store_us: f64,
}

impl History {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let guests = traces::bitbrains(&self.traces, &DAYS)
            .context("the traces of Bitbrains are needed (EVENKEEL_TRACES, or the argument)")?;
        ensure!(!guests.is_empty(), "the traces have no VM");
        let wanted = usize::try_from(self.vms)?.min(guests.len());
        let every = guests.len() / wanted;
        let guests: Vec<&Guest> = guests.iter().step_by(every).take(wanted).collect();
        let mut rows = Vec::new();
        for (load, noisy) in [("held", false), ("noisy", true)] {
            say(&format!("a month of {} VMs, {load}", guests.len()));
            rows.push(month(&guests, load, noisy)?);
        }
        let held = rows.iter().all(|row| row.load != "held" || row.kib_greatest <= KIB_MAX);
        let report = Report { vms: guests.len(), kib_max: KIB_MAX, rows };
        if self.json {
            print(&serde_json::to_string(&report)?);
        } else {
            for row in &report.rows {
                print(&format!(
                    "{:<6} {:.1} KiB a VM-month, {:.1} the greatest, {:.1} in the file; {:.1} us + {:.1} us a VM and minute",
                    row.load,
                    row.kib_a_vm,
                    row.kib_greatest,
                    row.file_kib_a_vm,
                    row.decide_us,
                    row.store_us
                ));
            }
        }
        Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn month(guests: &[&Guest], load: &'static str, noisy: bool) -> anyhow::Result<Row> {
    let folder = tempfile::tempdir()?;
    let (mut histories, _new) = Histories::open(folder.path(), Spans::default())?;
    let mut usages: Vec<Usage> = guests.iter().map(|_| Usage::default()).collect();
    let (mut chance, mut decided, mut stored) = (1u64, Duration::ZERO, Duration::ZERO);
    // An hour of all at a time: an agent writes every minute, which costs more system calls and no other room.
    for hour in 0..MONTH / 3600 {
        let mut kept = Vec::new();
        let began = processor_time();
        for (usage, guest) in usages.iter_mut().zip(guests) {
            let mut closed = Vec::new();
            for second in hour * 3600..(hour + 1) * 3600 {
                let share = if noisy { 700 + draw(&mut chance) % 601 } else { 1000 };
                if let Some(sample) = sample(guest, second, share) {
                    usage.push(Time(second * 1_000_000), sample, &mut closed);
                }
            }
            let whose = whose(guest);
            kept.extend(closed.into_iter().map(|closed| Kept::Span(whose, closed)));
        }
        let between = processor_time();
        histories.write(&kept)?;
        decided += between - began;
        stored += processor_time() - between;
    }
    let sizes: Vec<u64> =
        guests.iter().map(|guest| histories.bytes(whose(guest))).collect::<Result<_, _>>()?;
    drop(histories);
    let file = std::fs::metadata(folder.path().join("history.redb"))?.len();
    let vms = guests.len() as f64;
    let minutes = (MONTH / 60) as f64 * vms;
    Ok(Row {
        load,
        kib_a_vm: sizes.iter().sum::<u64>() as f64 / 1024.0 / vms,
        kib_greatest: sizes.iter().copied().max().unwrap_or(0) as f64 / 1024.0,
        file_kib_a_vm: file as f64 / 1024.0 / vms,
        decide_us: decided.as_secs_f64() * 1e6 / minutes,
        store_us: stored.as_secs_f64() * 1e6 / minutes,
    })
}

fn whose(guest: &Guest) -> Whose {
    Whose::Vm(VmId(u128::from(guest.vm)))
}

/// What the guest did in that second, times `share` thousandths.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures of a trace are small and not negative"
)]
fn sample(guest: &Guest, second: u64, share: u64) -> Option<Sample> {
    let slot = usize::try_from(second / SLOT).ok()? % guest.cpu.len();
    let figure = |of: &[Option<f64>], unit: f64| -> Option<u64> {
        Some((of.get(slot).copied().flatten()? * unit).max(0.0) as u64 * share / 1000)
    };
    let memory = guest.memory_mib as f64 / 100.0;
    let (all, sent) = (figure(&guest.network, 1000.0)?, figure(&guest.sent, 1000.0)?);
    let received = all.saturating_sub(sent);
    let cpu = figure(&guest.cpu, f64::from(guest.cores) * 10.0)?;
    let memory = figure(&guest.memory, memory)?;
    let disk = figure(&guest.disk, 1000.0)?;
    let (out, into) = (sent / 1000, received / 1000);
    Some(Sample::of([cpu, 0, memory, out, into, sent * 8, received * 8, 0, disk, memory / 64]))
}

/// Xorshift: any noise will do.
fn draw(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
