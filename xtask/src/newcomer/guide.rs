//! What docs/install.md has a newcomer type and write, and what the other pages have people type.

use std::fs;

use anyhow::{Context, bail, ensure};

use crate::ci::root;

const DOCS: &str = "docs";
const GUIDE: &str = "install.md";
/// Typed where libvirt is, by the tests of its driver (`crates/agent/tests/libvirt/docs.rs`).
const OF_LIBVIRT: &str = "libvirt.md";

/// A command, and on which host it is typed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The page that has it.
    pub(super) page: String,
    /// From 0.
    pub(super) host: usize,
    /// For a shell.
    pub(super) line: String,
    /// What the page says that it says, line by line; none if the page shows nothing.
    pub(super) shown: Vec<String>,
}

impl Step {
    pub(super) fn words(&self) -> Vec<&str> {
        self.line.split_whitespace().collect()
    }

    /// The names of columns, if the page shows a table: words in capitals, beside which units may stand.
    pub(super) fn columns(&self) -> Vec<&str> {
        let first = self.shown.first().map_or("", |line| line.as_str());
        let capital = |word: &&str| word.chars().all(|letter| letter.is_ascii_uppercase());
        let names: Vec<&str> = first.split_whitespace().filter(capital).collect();
        if names.len() > 1 { names } else { Vec::new() }
    }
}

/// The guide: in its first block of commands the path, in the others how to look around.
#[derive(Debug)]
pub(super) struct Guide {
    pub(super) path: Vec<Step>,
    pub(super) looks: Vec<Step>,
    /// Section, key and value of each line of configuration.
    pub(super) settings: Vec<(String, String, String)>,
}

impl Guide {
    pub(super) fn read() -> anyhow::Result<Guide> {
        Guide::of(&page(GUIDE)?)
    }

    fn of(text: &str) -> anyhow::Result<Guide> {
        let blocks = blocks(text, "console").into_iter();
        let mut blocks =
            blocks.map(|block| steps(GUIDE, &block)).collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(!blocks.is_empty(), "{GUIDE} has no block of commands");
        let path = blocks.remove(0);
        let looks = blocks.into_iter().flatten().collect();
        Ok(Guide { path, looks, settings: blocks_of_toml(text)? })
    }

    /// The file that is installed first.
    pub(super) fn package(&self) -> &str {
        let installed = self.path.first().and_then(|step| step.words().pop());
        installed.map_or("", |word| word.trim_start_matches("./"))
    }
}

/// What all other pages have people type, page by page in the order of their names.
pub(super) fn others() -> anyhow::Result<Vec<Step>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join(DOCS)).context(DOCS)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let mut all = Vec::new();
    for name in names.iter().filter(|name| ![GUIDE, OF_LIBVIRT].contains(&name.as_str())) {
        for block in blocks(&page(name)?, "console") {
            all.append(&mut steps(name, &block)?);
        }
    }
    Ok(all)
}

fn page(name: &str) -> anyhow::Result<String> {
    let path = root().join(DOCS).join(name);
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// The lines of each block of this kind.
fn blocks<'a>(text: &'a str, kind: &str) -> Vec<Vec<&'a str>> {
    let mut blocks = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(opened) if !inside && opened == kind => {
                inside = true;
                blocks.push(Vec::new());
            }
            Some(_) => inside = false,
            None if inside => {
                if let Some(block) = blocks.last_mut() {
                    block.push(line);
                }
            }
            None => {}
        }
    }
    blocks
}

/// The commands of a block. Lines below a command, up to the next, are what it says.
fn steps(page: &str, block: &[&str]) -> anyhow::Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block {
        match typed(line) {
            Some((host, line)) => {
                steps.push(Step { page: page.to_owned(), host, line, shown: Vec::new() })
            }
            None => {
                let last = steps.last_mut();
                let last = last.with_context(|| format!("{page}: not typed on a host: {line}"))?;
                last.shown.push((*line).to_owned());
            }
        }
    }
    Ok(steps)
}

/// `host1# evenkeel plan      what it is for`: two spaces begin what is not typed.
fn typed(line: &str) -> Option<(usize, String)> {
    let (host, typed) = line.strip_prefix("host")?.split_once("# ")?;
    let host = host.parse::<usize>().ok()?.checked_sub(1)?;
    let typed = typed.split_once("  ").map_or(typed, |(typed, _)| typed);
    Some((host, typed.trim().to_owned()))
}

fn blocks_of_toml(text: &str) -> anyhow::Result<Vec<(String, String, String)>> {
    let mut settings = Vec::new();
    let mut section = String::new();
    for line in blocks(text, "toml").concat() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            section = name.to_owned();
            continue;
        }
        let Some((key, value)) = line.split_once(" = ") else { bail!("not a setting: {line}") };
        let value = value.split_once("  ").map_or(value, |(value, _)| value);
        settings.push((section.clone(), key.trim().to_owned(), value.trim().to_owned()));
    }
    Ok(settings)
}

/// The text of a configuration with another value for a key, which stands in it, set or as a comment.
pub(super) fn with(text: &str, section: &str, key: &str, value: &str) -> anyhow::Result<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let head = |line: &String| line.starts_with(&format!("[{section}]"));
    let first = lines.iter().position(head).with_context(|| format!("no section [{section}]"))? + 1;
    let of_section = lines[first..].iter_mut().take_while(|line| !line.starts_with('['));
    let is_key = |line: &&mut String| {
        let of_key = line.trim_start_matches("# ").strip_prefix(key);
        of_key.is_some_and(|rest| rest.starts_with(" = "))
    };
    let line = { of_section }.find(is_key);
    *line.with_context(|| format!("no {key} in [{section}]"))? = format!("{key} = {value}");
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guide_is_its_commands_and_settings() {
        let text = "# Guide\n```console\nhost1# apt install ./a.deb\nhost2# evenkeel join 1.2.3.4   asks\n```\n\
                    ```toml\n[host]\naddress = \"1.2.3.4\"   # where\n```\n```text\nnot typed\n```\n```console\nhost3# evenkeel hosts\n```\n";
        let guide = Guide::of(text).unwrap();
        let step = |host, line: &str| Step {
            page: GUIDE.to_owned(),
            host,
            line: line.to_owned(),
            shown: Vec::new(),
        };
        assert_eq!(guide.path, [step(0, "apt install ./a.deb"), step(1, "evenkeel join 1.2.3.4")]);
        assert_eq!(guide.looks, [step(2, "evenkeel hosts")]);
        assert_eq!(guide.settings, [("host".into(), "address".into(), "\"1.2.3.4\"".into())]);
        assert_eq!(guide.package(), "a.deb");
        assert!(Guide::of("```console\nls\n```\n").is_err());
    }

    #[test]
    fn what_a_command_says_stands_below_it() {
        let block = [
            "host1# evenkeel vms",
            "VM    CPU (1 core)  SENT PKT/s",
            "web1  3 %",
            "",
            "host2# evenkeel vms web1",
            "VM  web1",
        ];
        let steps = steps("a.md", &block).unwrap();
        assert_eq!(steps[0].columns(), ["VM", "CPU", "SENT"]);
        assert_eq!(steps[0].shown.len(), 3);
        assert_eq!((steps[1].host, steps[1].columns().len()), (1, 0));
    }

    #[test]
    fn no_page_has_commands_that_nobody_types() {
        // What a shell would be told by the names of its programs, or after a prompt.
        let commands = [
            "$ ",
            "# ",
            "apt ",
            "cargo ",
            "cat ",
            "cp ",
            "curl ",
            "echo ",
            "evenkeel ",
            "evenkeeld ",
            "install ",
            "ip ",
            "rm ",
            "ssh ",
            "systemctl ",
            "useradd ",
            "usermod ",
            "virsh ",
        ];
        for entry in fs::read_dir(root().join(DOCS)).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            for line in blocks(&page(&name).unwrap(), "text").concat() {
                let hidden = typed(line).is_some()
                    || commands.iter().any(|command| line.trim_start().starts_with(command));
                assert!(!hidden, "docs/{name}: make it a block of the kind console: {line}");
            }
        }
        assert!(!others().unwrap().is_empty());
    }

    #[test]
    fn a_setting_is_put_where_its_key_stands() {
        let text = "[hot]\n# for = \"2min\"  # long\n[vm]\n# for = \"1min\"\n";
        let put = with(text, "vm", "for", "\"5s\"").unwrap();
        assert_eq!(put, "[hot]\n# for = \"2min\"  # long\n[vm]\nfor = \"5s\"\n");
        assert!(with(text, "hot", "none", "1").is_err());
    }
}
