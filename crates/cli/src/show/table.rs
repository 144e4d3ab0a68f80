//! Tables without lines: a header, aligned columns, two spaces between them.

use comfy_table::{Attribute, Cell, CellAlignment, ColumnConstraint, ContentArrangement, Width};

use crate::screen::Look;

pub(super) use comfy_table::Color;

/// Spaces after each column.
const GAP: u16 = 2;

/// A table under construction: which columns it has, then its rows.
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
    look: Look,
}

/// A column's header, side, and least width.
struct Column {
    header: &'static str,
    side: CellAlignment,
    width_min: u16,
}

impl Table {
    pub(super) fn new(look: Look) -> Table {
        Table { columns: Vec::new(), rows: Vec::new(), look }
    }

    /// A column of words.
    pub(super) fn words(self, header: &'static str) -> Table {
        self.column(header, CellAlignment::Left, 0)
    }

    /// A column of words that is at least `width_min` wide, so that later tables line up with this one.
    pub(super) fn words_at_least(self, header: &'static str, width_min: u16) -> Table {
        self.column(header, CellAlignment::Left, width_min)
    }

    /// A column of figures.
    pub(super) fn figures(self, header: &'static str) -> Table {
        self.column(header, CellAlignment::Right, 0)
    }

    /// A column of figures that is at least `width_min` wide.
    pub(super) fn figures_at_least(self, header: &'static str, width_min: u16) -> Table {
        self.column(header, CellAlignment::Right, width_min)
    }

    fn column(mut self, header: &'static str, side: CellAlignment, width_min: u16) -> Table {
        self.columns.push(Column { header, side, width_min });
        self
    }

    /// A row: as many cells as there are columns.
    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        assert_eq!(cells.len(), self.columns.len(), "each row fills each column");
        self.rows.push(cells);
    }

    pub(super) fn text(self) -> String {
        self.drawn(true)
    }

    pub(super) fn text_without_header(self) -> String {
        self.drawn(false)
    }

    fn drawn(self, header: bool) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING).force_no_tty();
        if self.look.colour {
            table.enforce_styling();
        }
        if let Some(width) = self.look.width {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        if header {
            table.set_header(
                self.columns.iter().map(|c| Cell::new(c.header).add_attribute(Attribute::Bold)),
            );
        }
        table.add_rows(self.rows);
        for (column, drawn) in self.columns.iter().zip(table.column_iter_mut()) {
            drawn.set_padding((0, GAP));
            drawn.set_cell_alignment(column.side);
            if column.width_min > 0 {
                drawn.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(
                    column.width_min + GAP,
                )));
            }
        }
        table.trim_fmt()
    }
}

/// A cell of plain text.
pub(super) fn cell(text: impl Into<String>) -> Cell {
    Cell::new_owned(one_line(text.into()))
}

/// A cell of plain text, in `colour` if there is one.
pub(super) fn coloured(text: impl Into<String>, colour: Option<Color>) -> Cell {
    match colour {
        Some(colour) => cell(text).fg(colour),
        None => cell(text),
    }
}

/// What hosts and guests call themselves and say must not steer the terminal.
pub(super) fn one_line(text: String) -> String {
    if text.contains(char::is_control) { text.replace(char::is_control, "\u{fffd}") } else { text }
}
