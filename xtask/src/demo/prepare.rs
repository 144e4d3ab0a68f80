//! What every task on real guests begins with: what it needs is installed and built, then it runs in a sandbox.

use std::path::PathBuf;
use std::process::{self, Command, ExitCode, Stdio};
use std::thread;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use lab::sandbox::{self, Entered};
use lab::setup::Parts;

use crate::ci::{cargo, root};
use crate::say;

/// Which hypervisor driver moves the guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Driver {
    /// QEMU processes, by their QMP sockets.
    Qemu,
    /// Domains of libvirt.
    Libvirt,
}

impl Driver {
    /// What an operator writes to have it.
    pub(crate) fn section(self) -> &'static str {
        match self {
            Driver::Qemu => "",
            Driver::Libvirt => "[hypervisor]\ndriver = \"libvirt\"\n",
        }
    }

    /// By what its guests run.
    pub(crate) fn accelerator(self, parts: &Parts) -> &str {
        match self {
            Driver::Qemu => &parts.accelerator,
            Driver::Libvirt => "tcg",
        }
    }
}

/// Runs `body` in a sandbox, after setup and build outside of it.
///
/// Called once outside, and again, from the start of `main`, inside.
pub(crate) fn in_sandbox(
    body: impl AsyncFnOnce() -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    in_sandbox_with(Driver::Qemu, body)
}

/// As [`in_sandbox`], with all that this driver needs.
pub(crate) fn in_sandbox_with(
    driver: Driver,
    body: impl AsyncFnOnce() -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let build = || {
        let with_libvirt = driver == Driver::Libvirt;
        lab::setup::ensure_with(with_libvirt, &mut |step| say(step)).context("setup")?;
        build(driver)
    };
    in_sandbox_after(build, body)
}

/// Runs `body` in a sandbox, after `prepare` outside of it.
pub(crate) fn in_sandbox_after(
    prepare: impl FnOnce() -> anyhow::Result<()>,
    body: impl AsyncFnOnce() -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    if sandbox::outside() {
        sandbox::allowed()?;
        prepare()?;
        end_at_ctrl_c()?;
    }
    match sandbox::enter()? {
        Entered::Inside => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .context("starting the runtime")?;
            runtime.block_on(body())
        }
        Entered::Outside(status) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
        }
    }
}

/// Ends this program, and with it the sandbox, at Ctrl-C, also where a shell's script started it in the background: such a
/// program inherits that interrupts are ignored.
fn end_at_ctrl_c() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("ctrl-c".to_owned()).spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            exit(128 + 2);
        }
    })?;
    Ok(())
}

#[expect(clippy::exit, reason = "there is nothing to tidy up: all ends with this process")]
fn exit(code: i32) -> ! {
    process::exit(code)
}

/// Builds a crate's program for release: the crate, what cargo is to be told besides, and the program last.
pub(crate) fn release(what: &[&str]) -> anyhow::Result<()> {
    let program = what.last().copied().unwrap_or_default();
    say(&format!("building {program} for release"));
    let build = [&["build", "--quiet", "--release", "-p"], what].concat();
    let status = cargo(&build).status().context("running cargo")?;
    ensure!(status.success(), "{program} cannot be built (see above)");
    Ok(())
}

/// A program that was built so, by its path under the folder of release builds.
pub(crate) fn released(program: &str) -> PathBuf {
    root().join("target/release").join(program)
}

/// The agent, as [`in_sandbox`] built it.
pub(crate) fn daemon() -> anyhow::Result<PathBuf> {
    beside("evenkeeld")
}

/// The CLI, as [`in_sandbox`] built it.
pub(crate) fn cli() -> anyhow::Result<PathBuf> {
    beside("evenkeel")
}

fn beside(program: &str) -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe().context("finding this program")?.with_file_name(program))
}

/// Builds agent and CLI as this program was built, so that they lie beside it.
///
/// `cargo xtask` builds for development, and so do tests: what they built is used again. A release build would take twice
/// as long on its own and share nothing, and `decide`, where the reckoning is, is optimised in development too.
fn build(driver: Driver) -> anyhow::Result<()> {
    say("building evenkeeld and evenkeel");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "agent", "--package", "cli"]);
    cargo.args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")]);
    if driver == Driver::Libvirt {
        cargo.args(["--features", "agent/libvirt"]);
    }
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let status = cargo.stdin(Stdio::null()).stdout(Stdio::null()).status();
    ensure!(
        status.context("starting cargo")?.success(),
        "evenkeeld and evenkeel cannot be built (see above)"
    );
    Ok(())
}
