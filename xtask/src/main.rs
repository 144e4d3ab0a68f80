//! `cargo xtask TASK`: the one door for tasks.
//!
//! Every task installs what it needs, prints a table for people, and with `--json` exactly one JSON document as the last
//! thing on standard output. Progress goes to standard error. The exit code is 0 only if all held.

mod attack;
mod bench;
mod bpf;
mod ci;
mod demo;
mod dist;
mod faults;
mod fleet;
mod fuzz;
mod model;
mod mutants;
mod newcomer;
mod night;
mod setup;
mod web;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of this repository", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run the gate: format, lints, all tests, documentation
    #[command(after_help = "Example: cargo xtask ci --json")]
    Ci(ci::Ci),
    /// Try what strangers, thieves and forgers would, against three hosts with keys; all must be refused
    #[command(
        after_help = "Examples:\n  cargo xtask attack --json\n  cargo xtask attack --case 'join:'"
    )]
    Attack(attack::Attack),
    /// Measure, against something that is known
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Build the program that counts frames at taps, or check that the committed object is what its source gives
    #[command(after_help = "Examples:\n  cargo xtask bpf\n  cargo xtask bpf --check --json")]
    Bpf(bpf::Bpf),
    /// Show a flooded VM leave its host by itself, on three hosts made of namespaces
    #[command(after_help = "Examples:\n  cargo xtask demo\n  cargo xtask demo --keep")]
    Demo(demo::Demo),
    /// Make the Debian package, in target/dist
    #[command(after_help = "Example: cargo xtask dist --json")]
    Dist(dist::Dist),
    /// Break something in each phase of a move, and hold what becomes of the VM against a table
    #[command(
        after_help = "Examples:\n  cargo xtask faults --json\n  cargo xtask faults --phase ready --fault 'target cut off'"
    )]
    Faults(faults::Faults),
    /// Serve a simulated cluster by the agent's own API, for dashboard and CLI
    #[command(
        after_help = "Examples:\n  cargo xtask fleet --night\n  cargo xtask fleet --hosts 50 --vms 1000"
    )]
    Fleet(fleet::Fleet),
    /// Give damaged input to whatever reads what others write, for longer than the gate does
    #[command(
        after_help = "Examples:\n  cargo xtask fuzz\n  cargo xtask fuzz trust --seconds 3600\n  cargo xtask fuzz histories --seed 1 --json"
    )]
    Fuzz(fuzz::Fuzz),
    /// Check the machines of a move under every order of events, within budgets
    #[command(after_help = "Examples:\n  cargo xtask model\n  cargo xtask model --deep --json")]
    Model(model::Model),
    /// Plant bugs, one at a time, and see that the checks find them
    #[command(after_help = "Example: cargo xtask mutants --json")]
    Mutants(mutants::Mutants),
    /// Go from the package to the first recommendation on three clean Debian hosts, by the commands of docs/install.md
    #[command(after_help = "Example: cargo xtask newcomer --json")]
    Newcomer(newcomer::Newcomer),
    /// After a simulated night on twelve hosts: have a script on the terminal and one in the browser tell what moved and why there, why
    /// nothing moved at 03:10, what would have to change, and whether the moves paid
    #[command(after_help = "Example: cargo xtask night --json")]
    Night(night::Night),
    /// Stand for a QEMU; started by `bench monitor` only
    #[command(hide = true)]
    StandIn(bench::StandIn),
    /// Install and build what test guests need
    #[command(after_help = "Example: cargo xtask setup --json")]
    Setup(setup::Setup),
    /// Build the dashboard, which the next build of evenkeeld takes in; or go through it in a browser, on three hosts with real VMs
    #[command(after_help = "Examples:\n  cargo xtask web\n  cargo xtask web --test --json")]
    Web(web::Web),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Ci(task) => task.run(),
        Task::Attack(task) => task.run(),
        Task::Bench(task) => task.run(),
        Task::Bpf(task) => task.run(),
        Task::Demo(task) => task.run(),
        Task::Dist(task) => task.run(),
        Task::Faults(task) => task.run(),
        Task::Fleet(task) => task.run(),
        Task::Fuzz(task) => task.run(),
        Task::Model(task) => task.run(),
        Task::Mutants(task) => task.run(),
        Task::Newcomer(task) => task.run(),
        Task::Night(task) => task.run(),
        Task::StandIn(task) => task.run(),
        Task::Setup(task) => task.run(),
        Task::Web(task) => task.run(),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Tells a person how far things are.
#[expect(clippy::print_stderr, reason = "progress goes to standard error")]
fn say(line: &str) {
    eprintln!("{line}");
}

/// Prints a task's outcome.
#[expect(clippy::print_stdout, reason = "a task's outcome goes to standard output")]
fn print(text: &str) {
    println!("{text}");
}
