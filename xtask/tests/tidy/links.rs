//! Whether links between pages lead somewhere: the file is there, and the heading in it.

use crate::tree::File;

/// A link of a page, in Markdown.
#[derive(Debug, PartialEq, Eq)]
struct Link<'a> {
    line: usize,
    /// Empty: the page itself.
    page: &'a str,
    heading: Option<&'a str>,
}

/// Complaints about this page's links to `files`. Addresses elsewhere are not looked at.
pub(crate) fn dead(page: &File, files: &[File]) -> Vec<String> {
    let folder = page.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let complaint = |link: Link<'_>| {
        let path = if link.page.is_empty() { page.path.clone() } else { join(folder, link.page) };
        let there = files.iter().find(|file| file.path == path);
        let why = match (there, link.heading) {
            (None, _) => format!("no file {path}"),
            (Some(file), Some(heading)) if !headings(file).iter().any(|one| one == heading) => {
                format!("{path} has no heading #{heading}")
            }
            (Some(_), _) => return None,
        };
        Some(format!("{}:{}: {why}", page.path, link.line))
    };
    links(page).into_iter().filter_map(complaint).collect()
}

fn links(page: &File) -> Vec<Link<'_>> {
    let mut links = Vec::new();
    for (line, text) in page.lines() {
        for part in text.split("](").skip(1) {
            let target = part.split(')').next().unwrap_or_default();
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (page, heading) = match target.split_once('#') {
                Some((page, heading)) => (page, Some(heading)),
                None => (target, None),
            };
            links.push(Link { line, page, heading });
        }
    }
    links
}

/// `docs` and `../README.md` are `README.md`.
fn join(folder: &str, link: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// The headings as links name them: in small letters, joined by hyphens.
fn headings(file: &File) -> Vec<String> {
    let mut inside = false;
    let mut headings = Vec::new();
    for (_, line) in file.lines() {
        inside ^= line.starts_with("```");
        let words =
            line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'));
        if let Some(words) = words.filter(|_| !inside) {
            headings.push(slug(words));
        }
    }
    headings
}

fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}

#[test]
fn a_link_to_no_file_or_no_heading_is_found() {
    let page = File::new(
        "docs/a.md",
        "[x](b.md#two-words) [y](../c.md)\n[z](#here) [w](d.md) [v](b.md#none)",
    );
    let others = [
        page.clone(),
        File::new("docs/b.md", "# `Two` words!\n```\n# none\n```"),
        File::new("c.md", ""),
    ];
    assert_eq!(
        dead(&page, &others),
        [
            "docs/a.md:2: docs/a.md has no heading #here",
            "docs/a.md:2: no file docs/d.md",
            "docs/a.md:2: docs/b.md has no heading #none",
        ]
    );
}
