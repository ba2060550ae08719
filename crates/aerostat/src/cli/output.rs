//! Everything that goes to standard output.

use std::io::{self, Write as _};

use anyhow::Context as _;
use serde::Serialize;

/// How data is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    #[default]
    Table,
    Json,
    Yaml,
    /// Only names, one in a line
    Name,
}

/// Rows of text under a heading.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(heading: &[&str]) -> Self {
        Self {
            rows: vec![heading.iter().map(|&cell| cell.to_owned()).collect()],
        }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn render(&self) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|c| c.chars().count())
                .max()
        };
        let widths: Vec<usize> = (0..columns)
            .map(|column| width(column).unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}   "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Prints `data` as asked for; `table` and `name` say how it looks to people and as names.
pub(super) fn print<T: Serialize>(
    format: Format,
    data: &T,
    table: impl FnOnce() -> Table,
    names: impl FnOnce() -> Vec<String>,
) -> anyhow::Result<()> {
    let text = match format {
        Format::Table => table().render(),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(data)?),
        Format::Yaml => {
            // Through JSON, so that both show the same fields in the same way.
            serde_saphyr::to_string(&serde_json::to_value(data)?)?
        }
        Format::Name => names().iter().map(|name| format!("{name}\n")).collect(),
    };
    write(text.as_bytes())
}

/// A line of text.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    write(format!("{text}\n").as_bytes())
}

/// Bytes as they are. A reader that has gone (`… | head`) is no failure.
pub(super) fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// Bytes for standard error.
pub(super) fn write_error(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stderr = io::stderr().lock();
    stderr
        .write_all(bytes)
        .and_then(|()| stderr.flush())
        .context("cannot write to standard error")
}

/// Time since `then`, as kubectl shows it.
pub(super) fn age(now_ms: i64, then_ms: i64) -> String {
    let seconds = (now_ms - then_ms).max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A size in bytes for people.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["ID", "STATE"]);
        table.row(["0123".to_owned(), "started".to_owned()]);
        assert_eq!(table.render(), "ID     STATE\n0123   started\n");
    }

    #[test]
    fn ages_read_as_in_kubectl() {
        assert_eq!(age(5_000, 0), "5s");
        assert_eq!(age(180_000, 0), "3m");
        assert_eq!(age(0, 5_000), "0s");
        assert_eq!(size(3 << 20), "3 MiB");
    }
}
