//! The table for a person: plain text, no colour.

use std::fmt::Write as _;

use crate::{
    LimitsDocument,
    columns::{Line, printable, widths, write},
    rows::Row,
};

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
    let lines = lines(rows);
    let mut text = String::new();
    write(&mut text, &lines, widths(&lines));
    write_sum(&mut text, limits, shares);
    text
}

/// One such part a container, each under a title, all with the same columns, and one sum.
pub(crate) fn render_pod(parts: &[(String, &[Row])], limits: &LimitsDocument, shares: usize) -> String {
    let parts: Vec<_> = parts.iter().map(|(title, rows)| (title, lines(rows))).collect();
    let widths = widths(parts.iter().flat_map(|(_, lines)| lines));
    let mut text = String::new();
    for (title, lines) in &parts {
        let _ = writeln!(text, "{}", printable(title));
        write(&mut text, lines, widths);
        text.push('\n');
    }
    // The last part's empty line is the sum's.
    text.pop();
    write_sum(&mut text, limits, shares);
    text
}

fn lines(rows: &[Row]) -> Vec<Line<7>> {
    let headings = std::iter::once(HEADINGS.map(str::to_owned));
    headings.chain(rows.iter().map(cells)).collect()
}

fn write_sum(text: &mut String, limits: &LimitsDocument, shares: usize) {
    let _ = writeln!(
        text,
        "\nUsed: {} of {} SCSI disks, {} of {} VPMEM devices, {shares} of any number of shares",
        limits.scsi.used, limits.scsi.total, limits.vpmem.used, limits.vpmem.total,
    );
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
