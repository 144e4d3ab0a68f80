//! A line drawn with braille dots, two across and four down in each character.
//!
//! **Invariant:** no line is longer than the width that was given, however long the labels are.

/// Lines of the drawing.
const LINES: usize = 12;
/// Columns where the output is no terminal.
const WIDTH: usize = 80;
/// Columns that a drawing has at the least.
const WIDTH_MIN: usize = 10;
/// The dots of a character, by column and from the top: their bits in U+2800 and on.
const DOTS: [[u32; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];

/// `line` over time as a whole line, `above` as every other dot; `ends`: when it begins and ends.
pub(super) fn drawn(
    line: &[u64],
    above: &[u64],
    ends: (&str, &str),
    width: Option<u16>,
    label: &dyn Fn(u64) -> String,
) -> String {
    let most = line.iter().chain(above).max().copied().unwrap_or(0).max(1);
    let labels = [label(most), label(most / 2), label(0)];
    let margin = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    let width = width.map_or(WIDTH, usize::from);
    let columns = width.saturating_sub(margin + 2).max(WIDTH_MIN);
    let mut dots = vec![vec![0u32; columns]; LINES];
    let (across, down) = (columns * 2, LINES * 4);
    let mut put = |x: usize, y: usize| {
        let from_top = down - 1 - y;
        dots[from_top / 4][x / 2] |= DOTS[x % 2][from_top % 4];
    };
    let height = |value: u64| {
        let top = u128::try_from(down - 1).unwrap_or(0);
        usize::try_from(u128::from(value) * top / u128::from(most)).unwrap_or(0)
    };
    let mut before: Option<usize> = None;
    for x in 0..across {
        let part = |values: &[u64]| {
            let (from, to) = (x * values.len() / across, (x + 1) * values.len() / across);
            values.get(from..to.max(from + 1)).unwrap_or_default().iter().max().copied()
        };
        if let Some(y) = part(line).map(height) {
            // Steps are joined, so that the line has no holes.
            let from = before.unwrap_or(y);
            (from.min(y)..=from.max(y)).for_each(|y| put(x, y));
            before = Some(y);
        }
        if let Some(y) = part(above).map(height).filter(|_| x % 2 == 0) {
            put(x, y);
        }
    }
    let mut text = String::new();
    for (row, cells) in dots.iter().enumerate() {
        let label = match row {
            0 => &*labels[0],
            row if row == LINES / 2 => &*labels[1],
            row if row == LINES - 1 => &*labels[2],
            _ => "",
        };
        let cells: String =
            cells.iter().map(|dots| char::from_u32(0x2800 + dots).unwrap_or(' ')).collect();
        text += &format!("{label:>margin$} \u{2524}{cells}\n");
    }
    let (from, to) = ends;
    let room = columns.saturating_sub(from.chars().count());
    if room > to.chars().count() {
        text += &format!("{:margin$}  {from}{to:>room$}\n", "");
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn plot(line: &[u64], width: u16) -> String {
        drawn(line, &[], ("10:00", "10:10"), Some(width), &|value| format!("{value} mcores"))
    }

    #[test]
    fn a_rise_is_a_line_from_corner_to_corner() {
        expect![[r#"
            199 mcores ┤⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⣠⠞
                       ┤⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⢀⡤⠞⠁⠀
                       ┤⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⢀⡴⠋⠀⠀⠀⠀
                       ┤⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⣠⠞⠉⠀⠀⠀⠀⠀⠀
                       ┤⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⢀⡤⠞⠁⠀⠀⠀⠀⠀⠀⠀⠀
                       ┤⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⣠⠴⠋⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀
             99 mcores ┤⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⣠⠞⠁⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀
                       ┤⠀⠀⠀⠀⠀⠀⠀⠀⠀⢀⡴⠋⠁⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀
                       ┤⠀⠀⠀⠀⠀⠀⠀⣠⠴⠋⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀
                       ┤⠀⠀⠀⠀⢀⣠⠞⠁⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀
                       ┤⠀⠀⢀⡴⠋⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀
              0 mcores ┤⣠⠞⠉⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀
                        10:00                  10:10
        "#]]
        .assert_eq(&plot(&(0..200).collect::<Vec<_>>(), 40));
    }

    #[test]
    fn no_line_is_longer_than_the_terminal() {
        for width in [25, 40, 200] {
            let text = plot(&[5, 9, 1], width);
            assert!(text.lines().all(|line| line.chars().count() <= usize::from(width)), "{text}");
        }
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(plot(&[], 40).lines().take(LINES).all(|line| line.ends_with('\u{2800}')));
    }
}
