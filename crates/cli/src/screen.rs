//! Standard output: which form was asked for, and what the terminal can do.

use std::io::{self, IsTerminal, Write};

use anyhow::Context;
use serde::Serialize;

use crate::args::Format;

/// The terminal's first place, and nothing after it.
const CLEARED: &str = "\u{1b}[H\u{1b}[J";

/// How tables are to look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// With ids and all figures.
    pub(crate) wide: bool,
    /// With colours.
    pub(crate) colour: bool,
    /// Columns of the terminal, if it is one: longer lines are wrapped within their cell.
    pub(crate) width: Option<u16>,
}

/// Where answers are shown.
#[derive(Debug)]
pub(crate) struct Screen {
    format: Format,
    look: Look,
    /// Written before what comes next.
    before: &'static str,
}

impl Screen {
    /// Shows answers as `format` says.
    pub(crate) fn new(format: Format) -> Screen {
        let terminal = io::stdout().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        let width = if terminal { comfy_table::Table::new().width() } else { None };
        Screen {
            format,
            look: Look { wide: format == Format::Wide, colour: terminal && !no_color, width },
            before: "",
        }
    }

    /// What comes next stands in the place of what was shown; where standard output is no terminal, an empty line parts them.
    pub(crate) fn anew(&mut self, first: bool) {
        self.before = match (io::stdout().is_terminal(), first) {
            (true, _) => CLEARED,
            (false, false) => "\n",
            (false, true) => "",
        };
    }

    /// Whether lines of comma-separated values were asked for.
    pub(crate) fn csv(&self) -> bool {
        self.format == Format::Csv
    }

    /// Shows `value`: as a document, or as the text that `text` makes of it.
    ///
    /// # Errors
    ///
    /// When standard output cannot be written.
    pub(crate) fn show<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
        text: impl FnOnce(&T, Look) -> String,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Table | Format::Wide | Format::Csv => self.write(&text(value, self.look)),
            Format::Json => {
                self.write(&serde_json::to_string_pretty(value).context("writing JSON")?)
            }
            Format::Yaml => self.write(&yaml(value)?),
        }
    }

    /// Shows `values` as they come: each as one line of JSON, or one YAML document, or one row of the text.
    ///
    /// # Errors
    ///
    /// When standard output cannot be written.
    pub(crate) fn stream<T: Serialize>(
        &mut self,
        values: &[T],
        text: impl FnOnce(&[T], Look) -> String,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Table | Format::Wide | Format::Csv => self.write(&text(values, self.look)),
            Format::Json => self.lines(values),
            Format::Yaml => {
                values.iter().try_for_each(|value| self.write(&format!("---\n{}", yaml(value)?)))
            }
        }
    }

    /// Shows `values` all at once, but in JSON each on a line of its own.
    ///
    /// # Errors
    ///
    /// When standard output cannot be written.
    pub(crate) fn show_lines<T: Serialize>(
        &mut self,
        values: &[T],
        text: impl FnOnce(&[T], Look) -> String,
    ) -> anyhow::Result<()> {
        if self.format == Format::Json { self.lines(values) } else { self.show(values, text) }
    }

    fn lines<T: Serialize>(&mut self, values: &[T]) -> anyhow::Result<()> {
        values.iter().try_for_each(|value| self.json(value))
    }

    /// Shows `value` as one line of JSON, whatever form was asked for.
    ///
    /// # Errors
    ///
    /// When standard output cannot be written.
    pub(crate) fn json<T: Serialize>(&mut self, value: &T) -> anyhow::Result<()> {
        self.write(&serde_json::to_string(value).context("writing JSON")?)
    }

    /// Says that nothing came this time: on a terminal in the place of what was shown, else to standard error.
    pub(crate) fn nothing_came(&mut self, why: &str) -> anyhow::Result<()> {
        if self.before == CLEARED {
            return self.write(why);
        }
        Ok(writeln!(io::stderr(), "{why}")?)
    }

    /// Writes `text` and the end of its line, at once: whoever reads along sees it now.
    fn write(&mut self, text: &str) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        let before = std::mem::take(&mut self.before);
        out.write_all(format!("{before}{}\n", text.trim_end_matches('\n')).as_bytes())?;
        out.flush()?;
        Ok(())
    }
}

fn yaml<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<String> {
    serde_saphyr::to_string(&value).context("writing YAML")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_yaml_takes_for_something_else_are_quoted() {
        for word in
            ["no", "null", "1.5", "1e3", "", "- a", "a: b", "a #b", "2026-03-01", "\u{1b}[2J"]
        {
            let text = yaml(&[word]).unwrap();
            assert!(text.starts_with("- \"") || text.starts_with("- '"), "{text:?}");
        }
        assert_eq!(yaml(&["web"]).unwrap(), "- web\n");
    }
}
