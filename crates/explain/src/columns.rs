//! Lines of cells under each other, for people: plain text, no colour.

/// One line of cells.
pub type Line<const N: usize> = [String; N];

/// Aligns the lines under each other.
#[must_use]
pub fn render<const N: usize>(lines: &[Line<N>]) -> String {
    let lines: Vec<_> = lines
        .iter()
        .map(|line| line.each_ref().map(|cell| printable(cell)))
        .collect();
    let mut text = String::new();
    write(&mut text, &lines, widths(&lines));
    text
}

/// The width of each column, in characters.
pub(crate) fn widths<'a, const N: usize>(lines: impl IntoIterator<Item = &'a Line<N>>) -> [usize; N] {
    let mut widths = [0; N];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

/// Adds lines of printable cells, padded to these widths.
pub(crate) fn write<const N: usize>(text: &mut String, lines: &[Line<N>], widths: [usize; N]) {
    for line in lines {
        let padded = line
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}  "));
        text.push_str(padded.collect::<String>().trim_end());
        text.push('\n');
    }
}

/// A path is not to move the cursor or to break the line: control characters are shown by their escapes.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let lines = [["A", "B"], ["long", "x\n"]].map(|line| line.map(str::to_owned));
        assert_eq!(render(&lines), "A     B\nlong  x\\n\n");
    }
}
