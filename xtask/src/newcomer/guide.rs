//! What docs/install.md has a newcomer type and write.

use std::fs;

use anyhow::{Context, bail, ensure};

use crate::ci::root;

const GUIDE: &str = "docs/install.md";

/// A command, and on which host it is typed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// From 0.
    pub(super) host: usize,
    pub(super) words: Vec<String>,
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
        let text =
            fs::read_to_string(root().join(GUIDE)).with_context(|| format!("reading {GUIDE}"))?;
        Guide::of(&text)
    }

    fn of(text: &str) -> anyhow::Result<Guide> {
        let mut blocks = blocks(text, "console").into_iter();
        let path = blocks.next().with_context(|| format!("{GUIDE} has no block of commands"))?;
        let looks = blocks.flatten().map(step).collect::<anyhow::Result<_>>()?;
        let path = path.into_iter().map(step).collect::<anyhow::Result<_>>()?;
        let toml = blocks_of_toml(text)?;
        Ok(Guide { path, looks, settings: toml })
    }

    /// The file that is installed first.
    pub(super) fn package(&self) -> &str {
        let installed = self.path.first().and_then(|step| step.words.last());
        installed.map_or("", |word| word.trim_start_matches("./"))
    }
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

/// `host1# evenkeel plan      what it is for`: two spaces begin what is not typed.
fn step(line: &str) -> anyhow::Result<Step> {
    let (host, typed) =
        line.split_once("# ").with_context(|| format!("not typed on a host: {line}"))?;
    let number = host.strip_prefix("host").and_then(|number| number.parse::<usize>().ok());
    let number =
        number.filter(|number| *number > 0).with_context(|| format!("not a host: {line}"))?;
    let typed = typed.split_once("  ").map_or(typed, |(typed, _)| typed);
    let words: Vec<String> = typed.split_whitespace().map(str::to_owned).collect();
    ensure!(!words.is_empty(), "nothing is typed: {line}");
    Ok(Step { host: number - 1, words })
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
        let step =
            |host, line: &str| Step { host, words: line.split(' ').map(str::to_owned).collect() };
        assert_eq!(guide.path, [step(0, "apt install ./a.deb"), step(1, "evenkeel join 1.2.3.4")]);
        assert_eq!(guide.looks, [step(2, "evenkeel hosts")]);
        assert_eq!(guide.settings, [("host".into(), "address".into(), "\"1.2.3.4\"".into())]);
        assert_eq!(guide.package(), "a.deb");
        assert!(Guide::of("```console\nls\n```\n").is_err());
    }

    #[test]
    fn a_setting_is_put_where_its_key_stands() {
        let text = "[hot]\n# for = \"2min\"  # long\n[vm]\n# for = \"1min\"\n";
        let put = with(text, "vm", "for", "\"5s\"").unwrap();
        assert_eq!(put, "[hot]\n# for = \"2min\"  # long\n[vm]\nfor = \"5s\"\n");
        assert!(with(text, "hot", "none", "1").is_err());
    }
}
