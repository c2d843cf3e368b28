//! Figures as a table for a person.

use serde_json::Value;

use super::Line;

/// One column for each name of the lines, in the order in which they first come.
pub(super) fn render(lines: &[Line]) -> String {
    let mut columns: Vec<&str> = Vec::new();
    for name in lines.iter().flat_map(Line::keys) {
        if !columns.contains(&name.as_str()) {
            columns.push(name);
        }
    }
    let heading: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
    let cells = |line: &Line| columns.iter().map(|name| cell(line.get(*name))).collect();
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(lines.iter().map(cells)).collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| {
            let lengths = rows.iter().map(|row| row[column].chars().count());
            lengths.max().unwrap_or_default()
        })
        .collect();
    let mut text = String::new();
    for row in &rows {
        for (n, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let width = *width;
            // Words stand left, numbers right.
            text.push_str(&match n {
                0 => format!("{cell:width$}"),
                _ => format!("  {cell:>width$}"),
            });
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if number.is_f64() => three_digits(number.as_f64().unwrap_or_default()),
        Some(other) => other.to_string(),
    }
}

/// More digits than three would be noise.
fn three_digits(figure: f64) -> String {
    let decimals = match figure.abs() {
        small if small < 10.0 => 2,
        medium if medium < 100.0 => 1,
        _ => 0,
    };
    format!("{figure:.decimals$}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_and_what_a_line_lacks_is_a_dash() {
        let lines: Vec<Line> = [
            json!({"what": "one", "each, ms": 1.2345}),
            json!({"what": "three", "each, ms": 123.45, "growth": 11.04}),
        ]
        .into_iter()
        .map(|line| line.as_object().cloned().unwrap_or_default())
        .collect();
        let expected = "what   each, ms  growth\none        1.23       -\nthree       123    11.0\n";
        assert_eq!(render(&lines), expected);
    }
}
