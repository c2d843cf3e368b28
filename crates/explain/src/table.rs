//! The table for a person: plain text, no colour.

use std::fmt::Write as _;

use crate::{LimitsDocument, rows::Row};

const HEADINGS: [&str; 7] = [
    "ITEM",
    "HOST PATH",
    "DEVICE",
    "GUEST PATH",
    "RIGHTS",
    "COST",
    "ON RELEASE",
];

/// The lines under their headings, and the use against the limits.
pub(crate) fn render(rows: &[Row], limits: &LimitsDocument, shares: usize) -> String {
    let lines: Vec<[String; 7]> = std::iter::once(HEADINGS.map(str::to_owned))
        .chain(rows.iter().map(cells))
        .collect();
    let mut widths = [0; 7];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let mut padded = String::new();
        for (cell, width) in line.iter().zip(widths) {
            // Writing to a string cannot fail.
            let _ = write!(padded, "{cell:width$}  ");
        }
        text.push_str(padded.trim_end());
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "\nUsed: {} of {} SCSI disks, {} of {} VPMEM devices, {shares} of any number of shares",
        limits.scsi.used, limits.scsi.total, limits.vpmem.used, limits.vpmem.total,
    );
    text
}

fn cells(row: &Row) -> [String; 7] {
    let text = [
        &row.item,
        &row.host_path,
        &row.device,
        &row.guest_path,
        row.rights,
        row.cost,
        row.on_release,
    ];
    text.map(printable)
}

/// A path is not to move the cursor or to break the line: control characters are shown by their escapes.
fn printable(text: &str) -> String {
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
