//! Rules that the text of one file can break.

use crate::tree::File;

const LINES_MAX: usize = 800;

pub(crate) fn opening(file: &File) -> Vec<String> {
    let opens = file.text.starts_with("//!");
    (!opens).then(|| format!("{}: does not open with `//!`", file.path)).into_iter().collect()
}

pub(crate) fn length(file: &File) -> Vec<String> {
    let lines = file.text.lines().count();
    let long = lines > LINES_MAX;
    long.then(|| format!("{}: {lines} lines, {LINES_MAX} at most", file.path)).into_iter().collect()
}

pub(crate) fn unsafety(file: &File) -> Vec<String> {
    if file.path.starts_with("crates/drivers/") {
        return Vec::new();
    }
    complain(file, concat!("un", "safe code"), |line| {
        code(line) && words(line).any(|word| word == concat!("un", "safe"))
    })
}

pub(crate) fn left_for_later(file: &File) -> Vec<String> {
    // Put together here, so that this file holds none of them.
    let marks = [concat!("to", "do!"), concat!("un", "implemented!"), concat!("#[ig", "nore")]
        .map(str::to_owned);
    let notes = [concat!("FIX", "ME"), concat!("XX", "X"), concat!("TO", "DO")];
    complain(file, "left for later", |line| {
        marks.iter().any(|mark| line.contains(mark))
            || words(line).any(|word| notes.contains(&word))
    })
}

/// Words that say nothing of what a type is.
const EMPTY: [&str; 7] = ["Manager", "Helper", "Util", "Utils", "Handler", "Data", "Info"];

pub(crate) fn empty_names(file: &File) -> Vec<String> {
    complain(file, "a name that says nothing", |line| {
        let mut words = words(line).skip_while(|word| ["pub", "crate", "super"].contains(word));
        let kind = words.next().filter(|word| ["struct", "enum", "trait"].contains(word));
        let named = kind.filter(|_| code(line)).and_then(|_| words.next()).unwrap_or_default();
        camel_words(named).iter().any(|word| EMPTY.contains(&word.as_str()))
    })
}

/// A fenced block in docs that rustdoc would run as a test.
pub(crate) fn doc_tests(file: &File) -> Vec<String> {
    let mut open = false;
    complain(file, "an example that nobody runs", |line| {
        let text = line.trim_start();
        let doc = text.strip_prefix("//!").or_else(|| text.strip_prefix("///"));
        let Some(label) = doc.and_then(|doc| doc.trim().strip_prefix("```")) else { return false };
        open = !open;
        open && ["", "rust", "no_run", "should_panic", "compile_fail", "ignore"]
            .contains(&label.split(',').next().unwrap_or_default())
    })
}

pub(crate) fn blanks(file: &File) -> Vec<String> {
    complain(file, "a tab or a trailing blank", |line| {
        line.contains('\t') || line.ends_with([' ', '\r'])
    })
}

/// Parts of paths and names that mean one machine or one registry.
const PLACES: [&str; 9] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("crates", ".io"),
    concat!("docker", ".io"),
    concat!("deb.deb", "ian.org"),
    concat!("gh", "cr.io"),
    concat!("npm", "js.org"),
    concat!("py", "pi.org"),
];

pub(crate) fn places(file: &File) -> Vec<String> {
    // The lock file is cargo's own; it names where each crate comes from.
    if file.path == "Cargo.lock" {
        return Vec::new();
    }
    complain(file, "names one machine or registry", |line| {
        PLACES.iter().any(|place| line.contains(place))
    })
}

fn complain(file: &File, what: &str, mut bad: impl FnMut(&str) -> bool) -> Vec<String> {
    let said = |(number, line): (usize, &str)| {
        bad(line).then(|| format!("{}:{number}: {what}: {}", file.path, line.trim()))
    };
    file.lines().filter_map(said).collect()
}

/// Whether a line is more than a comment.
fn code(line: &str) -> bool {
    !line.trim_start().starts_with("//")
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// `VmInfo` is `Vm` and `Info`.
fn camel_words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for letter in name.chars() {
        match words.last_mut() {
            Some(word) if !letter.is_uppercase() => word.push(letter),
            _ => words.push(letter.to_string()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(check: fn(&File) -> Vec<String>, text: &str) -> usize {
        check(&File::new("crates/agent/src/x.rs", text)).len()
    }

    #[test]
    fn a_file_without_purpose_is_found() {
        assert_eq!(complaints(opening, "use std::fmt;\n"), 1);
        assert_eq!(complaints(opening, "//! Why.\n"), 0);
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(complaints(length, &"x\n".repeat(LINES_MAX + 1)), 1);
        assert_eq!(complaints(length, &"x\n".repeat(LINES_MAX)), 0);
    }

    #[test]
    fn unsafe_code_is_found_outside_of_drivers() {
        let text = concat!("    un", "safe { x() }\n// un", "safe is a word here\n");
        assert_eq!(complaints(unsafety, text), 1);
        assert_eq!(complaints(unsafety, concat!("un", "safe_op = 1")), 0);
        assert_eq!(unsafety(&File::new("crates/drivers/src/x.rs", text)).len(), 0);
    }

    #[test]
    fn what_is_left_for_later_is_found() {
        for bad in [
            concat!("to", "do!()"),
            concat!("un", "implemented!(\"x\")"),
            concat!("#[ig", "nore]"),
            concat!("#[ig", "nore = \"slow\"]"),
            concat!("// FIX", "ME: later"),
            concat!("// XX", "X"),
            concat!("// TO", "DO: later"),
        ] {
            assert_eq!(complaints(left_for_later, bad), 1, "{bad}");
        }
        assert_eq!(complaints(left_for_later, "let ignored = mastodon!();"), 0);
    }

    #[test]
    fn empty_names_are_found_as_whole_words() {
        for bad in ["pub struct VmManager {", "pub(crate) enum Data {", "trait HostInfo: Sized {}"]
        {
            assert_eq!(complaints(empty_names, bad), 1, "{bad}");
        }
        for good in
            ["struct Datagram;", "/// A struct Data", "enum Information {}", "let x = Info;"]
        {
            assert_eq!(complaints(empty_names, good), 0, "{good}");
        }
    }

    #[test]
    fn examples_that_rustdoc_would_run_are_found() {
        assert_eq!(complaints(doc_tests, "//! ```\n//! let x = 1;\n//! ```\n"), 1);
        assert_eq!(complaints(doc_tests, "    /// ```rust,no_run\n    /// ```\n"), 1);
        assert_eq!(complaints(doc_tests, "//! ```text\n//! a ─▶ b\n//! ```\n"), 0);
    }

    #[test]
    fn tabs_and_trailing_blanks_are_found() {
        assert_eq!(complaints(blanks, "\tx\ny \nz\r\n"), 3);
        assert_eq!(complaints(blanks, "  x\n\ny\n"), 0);
    }

    #[test]
    fn machines_and_registries_are_found() {
        for place in PLACES {
            assert_eq!(complaints(places, &format!("see {place} for more")), 1, "{place}");
        }
        assert_eq!(complaints(places, "a network/ro uter"), 0);
        assert!(places(&File::new("Cargo.lock", PLACES[3])).is_empty());
    }
}
