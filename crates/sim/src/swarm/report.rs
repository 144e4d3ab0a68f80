//! What a swarm of seeds came to: for people and for programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::{Life, Options};

/// The last lines that are shown of what led to a failure.
const STORY_LINES: usize = 150;
/// Failures told in full.
const FAILURES_MAX: usize = 10;

/// The figures of all seeds together.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Seeds lived.
    pub seeds: u64,
    /// The first of them; the others follow it.
    pub first_seed: u64,
    /// Hosts of each.
    pub hosts: u16,
    /// Events that hosts and hypervisors had.
    pub events: u64,
    /// Moves begun.
    pub moves: u64,
    /// Moves by how they ended, by the source's word.
    pub moves_ended: BTreeMap<&'static str, u64>,
    /// Balancing moves of which it was judged whether they lowered the sum of costs.
    pub moves_judged: u64,
    /// Moves of VMs that some rule is about.
    pub moves_judged_by_rules: u64,
    /// Moves that passed in which others were agreed, and others that passed as agreed.
    pub agreed: (u64, u64),
    /// Faults that struck.
    pub faults: u64,
    /// By kind.
    pub faults_by_kind: BTreeMap<&'static str, u64>,
    /// Moves that a fault struck, by the phase that they were in.
    pub faults_by_phase: BTreeMap<&'static str, u64>,
    /// Seeds with a violation.
    pub violations: u64,
    /// The properties that did not hold, by name.
    pub violated: BTreeSet<&'static str>,
    /// The first of the seeds with one.
    pub failures: Vec<Failure>,
    /// Simulated time of all seeds.
    pub simulated_seconds: f64,
    /// Processor time that they took.
    pub cpu_seconds: f64,
    /// Simulated time over the time of one processor.
    pub times_real_time: f64,
    /// Hash of every action of every host of every seed, in order.
    pub hash: String,
    #[serde(skip)]
    hashes: BTreeMap<u64, u64>,
}

/// One seed that failed.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The property that did not hold.
    pub property: &'static str,
    /// What was seen, and when.
    pub what: String,
    /// The command that shows it again.
    pub replay: String,
    /// What hosts noted of it.
    #[serde(skip)]
    pub story: String,
}

/// The command that lives this seed again.
pub fn replay(seed: u64, options: &Options, plant: Option<&str>) -> String {
    let mut features = String::new();
    let mut more = String::new();
    if let Some(plant) = plant {
        features.push_str(" --features planted");
        more = format!(" --plant {plant}");
    }
    let default = Options::default();
    if options.faulty != default.faulty {
        let _ = write!(more, " --faulty {}", options.faulty.as_secs());
    }
    let hosts = options.hosts;
    format!(
        "cargo run -p sim --release{features} -- swarm --seeds 1 --first-seed {seed} --hosts {hosts}{more}"
    )
}

impl Report {
    /// Of no seed yet.
    pub fn new(first_seed: u64, hosts: u16) -> Report {
        Report { first_seed, hosts, ..Report::default() }
    }

    /// One seed more, which took so much of one processor.
    pub fn add(&mut self, life: &Life, cpu: Duration, replay: impl Fn(u64) -> String) {
        self.seeds += 1;
        self.events += life.events;
        self.moves += life.moves;
        self.moves_judged += life.judged;
        self.moves_judged_by_rules += life.judged_by_rules;
        self.agreed.0 += life.agreed;
        self.agreed.1 += life.as_agreed;
        for (outcome, n) in &life.outcomes {
            *self.moves_ended.entry(outcome).or_default() += n;
        }
        for (kind, n) in &life.faults {
            self.faults += n;
            *self.faults_by_kind.entry(kind.name()).or_default() += n;
        }
        for (phase, n) in &life.phases {
            *self.faults_by_phase.entry(phase).or_default() += n;
        }
        self.simulated_seconds += life.simulated.as_secs_f64();
        self.cpu_seconds += cpu.as_secs_f64();
        self.hashes.insert(life.seed, life.hash);
        let Some(first) = life.violations.first() else { return };
        self.violations += 1;
        self.violated.extend(life.violations.iter().map(|violation| violation.property.name()));
        if self.failures.len() < FAILURES_MAX {
            let after = Duration::from_micros(first.when.0).as_secs_f64() - 1.0;
            self.failures.push(Failure {
                seed: life.seed,
                property: first.property.name(),
                what: format!("after {after:.3} s: {}", first.what),
                replay: replay(life.seed),
                story: life.story.clone(),
            });
        }
    }

    /// All seeds were lived.
    pub fn close(&mut self) {
        let all = self.hashes.values().fold(0_u64, |all, hash| {
            (all.rotate_left(7) ^ hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        self.hash = format!("{all:016x}");
        self.times_real_time = self.simulated_seconds / self.cpu_seconds.max(1e-9);
        self.failures.sort_by_key(|failure| failure.seed);
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} seeds from {} on, {} hosts each: {} events, {} moves, {} faults, {} violations\n",
            self.seeds,
            self.first_seed,
            self.hosts,
            self.events,
            self.moves,
            self.faults,
            self.violations
        );
        let _ = writeln!(
            text,
            "{:.0} s simulated in {:.1} s of one processor: {:.0} times real time; hash {}",
            self.simulated_seconds, self.cpu_seconds, self.times_real_time, self.hash
        );
        rows(&mut text, "MOVES ENDED", &self.moves_ended);
        let (agreed, others) = self.agreed;
        for (name, n) in [
            ("judged by cost", self.moves_judged),
            ("of VMs under rules", self.moves_judged_by_rules),
            ("agreed with others", agreed),
            ("others as agreed", others),
        ] {
            let _ = writeln!(text, "  {name:<18} {n:>9}");
        }
        rows(&mut text, "FAULTS", &self.faults_by_kind);
        rows(&mut text, "STRUCK A MOVE", &self.faults_by_phase);
        for failure in &self.failures {
            let Failure { seed, property, what, replay, story } = failure;
            let last: Vec<&str> = story.lines().rev().take(STORY_LINES).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            let _ = writeln!(text, "\nseed {seed}: {property}: {what}\n{}", last.join("\n"));
            let _ = writeln!(text, "again: {replay}");
        }
        text
    }
}

fn rows(text: &mut String, head: &str, rows: &BTreeMap<&'static str, u64>) {
    let _ = writeln!(text, "{head}");
    for (name, n) in rows {
        let _ = writeln!(text, "  {name:<18} {n:>9}");
    }
}
