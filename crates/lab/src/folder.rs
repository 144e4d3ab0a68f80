//! The folder `target/lab` and its locks.
//!
//! **Invariant:** a file or folder with a final name is complete: it was made under another name and renamed.
//! **Invariant:** a folder `run-*` whose lock nobody holds belongs to a run that has ended, and may be removed.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Held while run folders are made or removed.
const RUNS_LOCK: &str = "runs.lock";

/// `target/lab` of this workspace, made if absent.
pub fn lab() -> anyhow::Result<PathBuf> {
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => PathBuf::from(target),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
    };
    let lab = target.join("lab");
    fs::create_dir_all(&lab).with_context(|| format!("making {}", lab.display()))?;
    fs::canonicalize(&lab).with_context(|| format!("looking at {}", lab.display()))
}

/// Waits for the lock named `name` in `folder`; it ends with the returned file, at the latest with the process.
pub fn lock(folder: &Path, name: &str) -> anyhow::Result<File> {
    let path = folder.join(name);
    let file = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
    file.lock().with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// Writes `bytes` under another name first, so that `path` is never seen half written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes).with_context(|| format!("writing {}", partial.display()))?;
    fs::rename(&partial, path).with_context(|| format!("renaming to {}", path.display()))
}

/// A folder of one run on a real disk, removed at its end, or by the next run if this one was killed.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Makes a new one, after removing those of runs that have ended.
    pub fn new() -> anyhow::Result<RunFolder> {
        let lab = lab()?;
        let _one_at_a_time = lock(&lab, RUNS_LOCK)?;
        remove_ended(&lab)?;
        let path = lab.join(format!("run-{}", random_name()?));
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        let held = lock(&path, "lock")?;
        Ok(RunFolder { path, _lock: held })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder in it, made if absent.
    pub fn sub(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // Under the lock: once our own lock file is removed, another run would take the rest for that of an ended one.
        let _one_at_a_time = self.path.parent().map(|lab| lock(lab, RUNS_LOCK));
        // What cannot be removed now is removed by the next run.
        let _left_to_the_next_run = fs::remove_dir_all(&self.path);
    }
}

fn remove_ended(lab: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(lab)? {
        let path = entry?.path();
        let is_run =
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("run-"));
        if is_run && path.is_dir() && File::create(path.join("lock"))?.try_lock().is_ok() {
            fs::remove_dir_all(&path)
                .with_context(|| format!("removing {} of an earlier run", path.display()))?;
        }
    }
    Ok(())
}

fn random_name() -> anyhow::Result<String> {
    let mut bytes = [0; 4];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("reading /dev/urandom")?;
    Ok(format!("{:08x}", u32::from_ne_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn runs_that_begin_and_end_side_by_side_leave_each_other_alone() {
        let runs: Vec<_> = (0..4)
            .map(|_| {
                thread::spawn(|| {
                    for _ in 0..50 {
                        let run = RunFolder::new().expect("another run is in the way");
                        run.sub("host1/state").expect("another run removed this one");
                    }
                })
            })
            .collect();
        for run in runs {
            run.join().expect("no run fails");
        }
    }
}
