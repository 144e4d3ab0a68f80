//! What a package manager runs before and after what happens to the files.

use std::fs;

use anyhow::Context;

use crate::ci::root;

/// A line of a script that stands for a file of `packaging/scripts`.
const INCLUDE: &str = "#include ";

/// The script of this name, of `packaging/debian` or `packaging/rpm`, with what it includes.
pub(super) fn script(of: &str, name: &str) -> anyhow::Result<String> {
    let text = read(of, name)?;
    let lines = text.lines().map(|line| match line.strip_prefix(INCLUDE) {
        Some(included) => read("scripts", included),
        None => Ok(format!("{line}\n")),
    });
    lines.collect()
}

fn read(of: &str, name: &str) -> anyhow::Result<String> {
    let path = root().join("packaging").join(of).join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::{deb, rpm};
    use super::*;

    #[test]
    fn scripts_are_what_a_shell_can_read() {
        let (debian, rpm) = (&deb::SCRIPTS[..], &rpm::SCRIPTS[..]);
        for (of, names) in [("debian", debian), ("rpm", rpm)] {
            for name in names {
                let text = script(of, name).unwrap();
                assert!(!text.contains(INCLUDE), "{of}/{name}");
                let read = Command::new("sh").args(["-n", "-c", &text]).status().unwrap();
                assert!(read.success(), "{of}/{name}");
            }
        }
    }
}
