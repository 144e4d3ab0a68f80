//! `cargo xtask dist --check`: the packages in clean Debian folders: installed, started, upgraded, removed.
//!
//! A folder is made by `mmdebstrap` (of Debian's package, unpacked but not installed) and holds no more than Debian's essential
//! packages and what ours needs. There is no systemd running in it: what the scripts tell systemd is not tried, all else is.
//! The package of Red Hat's kin is tried by Debian's rpm.

mod clean;
mod deb;
mod rpm;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::say;

/// How one step went.
#[derive(Serialize)]
pub(super) struct Row {
    package: &'static str,
    step: &'static str,
    pub(super) ok: bool,
    /// What was seen, or what went wrong.
    seen: String,
}

impl Row {
    fn line(&self) -> String {
        let verdict = if self.ok { "ok" } else { "FAILED" };
        format!("{verdict:<7} {:<4} {:<60} {}", self.package, self.step, self.seen)
    }
}

/// A package, and the same with a later version.
pub(super) struct Pair {
    pub(super) first: PathBuf,
    pub(super) later: PathBuf,
}

/// Goes through all steps of both packages, each from where the one before has left it, until one fails.
pub(super) fn run(deb: &Pair, rpm: &Pair, folder: &Path) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut step = |package, step, done: anyhow::Result<String>| {
        let ok = done.is_ok();
        let seen = done.unwrap_or_else(|error| format!("{error:#}"));
        let row = Row { package, step, ok, seen };
        say(&row.line());
        rows.push(row);
        ok
    };
    deb::check(deb, folder, &mut |name, done| step("deb", name, done))?;
    rpm::check(rpm, &deb.first, folder, &mut |name, done| step("rpm", name, done))?;
    Ok(rows)
}

/// Hears how a step went; says whether to go on.
type Step<'a> = &'a mut dyn FnMut(&'static str, anyhow::Result<String>) -> bool;
