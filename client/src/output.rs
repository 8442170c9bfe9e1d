//! Output for people: aligned columns, sizes and times, without untrusted control characters.

use serde_json::Value;
use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

/// Writes to standard output, which may be a closed pipe.
pub fn print_text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') && !text.is_empty() {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Removes characters that could control the terminal or change the text direction.
pub fn plain(text: &str) -> String {
    let drives =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .map(|c| {
            if drives(c) {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// Formats a JSON field on one line; `-` if it is missing.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => plain(text),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().map(cell).collect::<Vec<_>>().join(", ")
        }
        other => plain(&other.to_string()),
    }
}

/// Formats a time, to the second.
pub(super) fn time(value: &Value) -> String {
    let text = cell(value);
    match text.split_once('.') {
        Some((seconds, rest)) if rest.ends_with('Z') => format!("{seconds}Z"),
        _ => text,
    }
}

/// Formats bytes in a readable unit.
pub(super) fn size(value: &Value) -> String {
    match value.as_u64() {
        Some(bytes) => bytesize::ByteSize(bytes).display().iec().to_string(),
        None => cell(value),
    }
}

/// A table. The columns of later pages are never narrower than those of earlier ones.
#[derive(Debug)]
pub struct Table {
    titles: &'static [&'static str],
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
    titled: bool,
}

impl Table {
    pub fn new(titles: &'static [&'static str]) -> Self {
        let widths = titles.iter().map(|title| title.len()).collect();
        Self {
            titles,
            widths,
            rows: Vec::new(),
            titled: false,
        }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = cell.chars().count().max(*width);
        }
        self.rows.push(cells);
    }

    /// Returns the rows since the last call, with the titles the first time; empty for a table without rows.
    pub fn take(&mut self) -> String {
        let mut text = String::new();
        if !self.titled && !self.rows.is_empty() {
            self.titled = true;
            let titles: Vec<_> = self
                .titles
                .iter()
                .map(|title| (*title).to_owned())
                .collect();
            self.line(&titles, &mut text);
        }
        for row in &std::mem::take(&mut self.rows) {
            self.line(row, &mut text);
        }
        text
    }

    fn line(&self, cells: &[String], text: &mut String) {
        let last = cells.len().saturating_sub(1);
        for (at, (cell, width)) in cells.iter().zip(&self.widths).enumerate() {
            if at == last {
                text.push_str(cell);
            } else {
                write!(text, "{cell:width$}  ").expect("writing to memory succeeds");
            }
        }
        text.push('\n');
    }
}

/// Formats names and values, one per line.
pub fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    let mut text = String::new();
    for (name, value) in pairs {
        writeln!(text, "{:width$} {value}", format!("{name}:"))
            .expect("writing to memory succeeds");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_line_up_and_the_last_is_not_padded() {
        let mut table = Table::new(&["ID", "NAME"]);
        assert_eq!(table.take(), "");
        table.row(vec!["a".to_owned(), "bill.pdf".to_owned()]);
        table.row(vec!["äöüß".to_owned(), "b".to_owned()]);
        assert_eq!(table.take(), "ID    NAME\na     bill.pdf\näöüß  b\n");
        table.row(vec!["c".to_owned(), "d".to_owned()]);
        assert_eq!(table.take(), "c     d\n");
    }

    #[test]
    fn cells_cannot_drive_the_terminal() {
        assert_eq!(
            cell(&json!("a\u{1b}[31mb\nc\u{202e}d")),
            "a\u{fffd}[31mb\u{fffd}c\u{fffd}d"
        );
    }

    #[test]
    fn cells_are_short_words() {
        assert_eq!(cell(&json!(null)), "-");
        assert_eq!(cell(&json!([])), "-");
        assert_eq!(
            cell(&json!(["file.stored", "file.deleted"])),
            "file.stored, file.deleted"
        );
        assert_eq!(cell(&json!({"a": 1})), r#"{"a":1}"#);
        assert_eq!(
            time(&json!("2026-11-24T12:00:00.123456Z")),
            "2026-11-24T12:00:00Z"
        );
        assert_eq!(size(&json!(8_388_608)), "8.0 MiB");
    }
}
