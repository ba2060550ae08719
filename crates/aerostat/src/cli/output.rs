//! Everything that goes to standard output.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;
use serde::Serialize;

use super::style::{self, Colour, Paint};
use super::terminal;

/// How data is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// A table for people
    #[default]
    Table,
    /// The table with every column, and exact times
    Wide,
    /// What the API says
    Json,
    /// The same as JSON
    Yaml,
    /// Only names, one in a line
    Name,
}

impl Format {
    /// Whether people read it.
    pub(super) fn is_table(self) -> bool {
        match self {
            Self::Table | Self::Wide => true,
            Self::Json | Self::Yaml | Self::Name => false,
        }
    }
}

/// Rows of text under a heading.
#[derive(Debug)]
pub(super) struct Table {
    heading: Vec<String>,
    /// Columns of the narrow table; those beyond are shown by `-o wide`.
    narrow: usize,
    rows: Vec<Vec<String>>,
}

/// What a table is drawn for.
#[derive(Debug, Clone, Copy)]
struct Look {
    wide: bool,
    paint: Paint,
    /// Columns of the terminal.
    width_max: Option<usize>,
}

/// Space between two columns.
const GAP: usize = 3;
/// A column that has to give way keeps this much, or its heading.
const SHRUNK_MIN: usize = 10;

impl Table {
    pub(super) fn new(heading: &[&str]) -> Self {
        Self {
            heading: heading.iter().map(|&cell| cell.to_owned()).collect(),
            narrow: heading.len(),
            rows: Vec::new(),
        }
    }

    /// Adds columns that only `-o wide` shows. Rows have them too, after the others.
    pub(super) fn wide(mut self, heading: &[&str]) -> Self {
        self.heading.extend(heading.iter().map(|&c| c.to_owned()));
        self
    }

    /// Text from machines and registries is shown, never obeyed: control characters are left out.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let plain = |cell: String| match cell.contains(char::is_control) {
            true => cell.replace(char::is_control, " "),
            false => cell,
        };
        self.rows.push(cells.into_iter().map(plain).collect());
    }

    fn render(&self, look: Look) -> String {
        let columns = if look.wide {
            self.heading.len()
        } else {
            self.narrow
        };
        let layout = self.layout(columns, look.width_max);
        let mut text = drawn(&self.heading, &layout, |_, cell| {
            look.paint.paint(Colour::Bold, cell)
        });
        for row in &self.rows {
            text += &drawn(row, &layout, |column, cell| {
                let is_state = ["STATE", "STATUS", "VERDICT"].contains(&&*self.heading[column]);
                match style::of_state(cell).filter(|_| is_state) {
                    Some(colour) => look.paint.paint(colour, cell),
                    None => cell.to_owned(),
                }
            });
        }
        text
    }

    /// Columns that are shown, and their widths: those of the widest cells. Where the terminal is
    /// narrower the widest columns give way, and where that does not help, those that would be cut
    /// are left out from the right. The first, which is what commands take, never gives way.
    fn layout(&self, columns: usize, width_max: Option<usize>) -> Vec<(usize, usize)> {
        let rows = || std::iter::once(&self.heading).chain(&self.rows);
        let width = |column: usize| {
            let cells = rows().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let least = |column: usize| self.heading[column].chars().count().max(SHRUNK_MIN);
        let total = |layout: &[(usize, usize)]| {
            let widths = layout.iter().map(|(_, width)| width).sum::<usize>();
            widths + GAP * layout.len().saturating_sub(1)
        };
        let mut layout: Vec<_> = (0..columns).map(|column| (column, width(column))).collect();
        let Some(width_max) = width_max else {
            return layout;
        };
        let cut = |&(column, width): &(usize, usize)| match column {
            0 => (column, width),
            _ => (column, width.min(least(column))),
        };
        while total(&layout.iter().map(cut).collect::<Vec<_>>()) > width_max {
            let widest = layout.iter().rposition(|at| cut(at) != *at);
            match widest.or(layout.len().checked_sub(1)) {
                None | Some(0) => break,
                Some(at) => layout.remove(at),
            };
        }
        while total(&layout) > width_max {
            let wide = layout.iter_mut().skip(1);
            let widest = wide.filter(|(column, width)| *width > least(*column));
            match widest.max_by_key(|(_, width)| *width) {
                Some((_, width)) => *width -= 1,
                None => break,
            }
        }
        layout
    }
}

fn drawn(
    cells: &[String],
    layout: &[(usize, usize)],
    paint: impl Fn(usize, &str) -> String,
) -> String {
    let mut line = String::new();
    let mut space = 0;
    for &(column, width) in layout {
        let mut cell = cells.get(column).cloned().unwrap_or_default();
        if cell.chars().count() > width {
            cell = cell.chars().take(width.saturating_sub(1)).collect();
            cell.push('…');
        }
        if !cell.is_empty() {
            line.extend(std::iter::repeat_n(' ', space));
            space = 0;
            line += &paint(column, &cell);
        }
        space += width - cell.chars().count() + GAP;
    }
    line.push('\n');
    line
}

/// Prints `data` as asked for; `table` and `name` say how it looks to people and as names.
pub(super) fn print<T: Serialize>(
    format: Format,
    data: &T,
    table: impl FnOnce() -> Table,
    names: impl FnOnce() -> Vec<String>,
) -> anyhow::Result<()> {
    let text = match format {
        Format::Table | Format::Wide => table().render(Look {
            wide: format == Format::Wide,
            paint: Paint::stdout(),
            width_max: terminal::size()
                .filter(|size| format == Format::Table && size.width > 0)
                .map(|size| size.width.into()),
        }),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(data)?),
        Format::Yaml => {
            // Through JSON, so that both show the same fields in the same way.
            serde_saphyr::to_string(&serde_json::to_value(data)?)?
        }
        Format::Name => names().iter().map(|name| format!("{name}\n")).collect(),
    };
    write(text.as_bytes())
}

/// [`print`]s a list. Where it is empty people are told so, and what `first` makes the first one.
pub(super) fn print_list<T: Serialize>(
    format: Format,
    list: &[T],
    table: impl FnOnce() -> Table,
    names: impl FnOnce() -> Vec<String>,
    first: &str,
) -> anyhow::Result<()> {
    if list.is_empty() && format.is_table() {
        eprintln!("{first}");
        return Ok(());
    }
    print(format, &list, table, names)
}

/// Says what was changed. On a terminal people read `told`; a program gets `name` on standard
/// output; and any other format prints `data`.
pub(super) fn changed<T: Serialize>(
    format: Format,
    data: &T,
    name: &str,
    told: &str,
) -> anyhow::Result<()> {
    if !format.is_table() {
        return print(format, data, || Table::new(&[]), || vec![name.to_owned()]);
    }
    if io::stdout().is_terminal() {
        return line(told);
    }
    eprintln!("{told}");
    line(name)
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
        _ => format!("{}.{} GiB", bytes >> 30, ((bytes & 0x3fff_ffff) * 10) >> 30),
    }
}

/// A length of time for people.
pub(super) fn took(ms: i64) -> String {
    match ms {
        ..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look {
        wide: false,
        paint: Paint::NONE,
        width_max: None,
    };

    fn table() -> Table {
        let mut table = Table::new(&["ID", "STATE", "IMAGE"]).wide(&["REGION"]);
        let row = ["0123", "started", "docker.io/library/nginx:1.27", "local"];
        table.row(row.map(str::to_owned));
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let narrow = table().render(PLAIN);
        assert_eq!(
            narrow,
            "ID     STATE     IMAGE\n0123   started   docker.io/library/nginx:1.27\n"
        );
        let wide = Look {
            wide: true,
            ..PLAIN
        };
        assert!(table().render(wide).ends_with("nginx:1.27   local\n"));
    }

    #[test]
    fn a_narrow_terminal_shortens_columns_and_then_leaves_them_out() {
        let at = |width| {
            table().render(Look {
                width_max: Some(width),
                ..PLAIN
            })
        };
        assert_eq!(
            at(30),
            "ID     STATE     IMAGE\n0123   started   docker.io/li…\n"
        );
        assert_eq!(at(20), "ID     STATE\n0123   started\n");
        assert_eq!(at(1), "ID\n0123\n", "the first always stays");
    }

    #[test]
    fn states_are_coloured_and_padding_is_not() {
        let coloured = Look {
            paint: Paint::ALWAYS,
            ..PLAIN
        };
        let text = table().render(coloured);
        assert!(
            text.contains("0123   \x1b[32mstarted\x1b[0m   docker.io"),
            "{text:?}"
        );
    }

    #[test]
    fn text_from_outside_cannot_move_the_cursor() {
        let mut table = Table::new(&["NAME"]);
        table.row(["a\x1b[2Jb\nc".to_owned()]);
        assert_eq!(table.render(PLAIN), "NAME\na [2Jb c\n");
    }

    #[test]
    fn ages_read_as_in_kubectl() {
        assert_eq!(age(5_000, 0), "5s");
        assert_eq!(age(180_000, 0), "3m");
        assert_eq!(age(0, 5_000), "0s");
        assert_eq!(size(3 << 20), "3 MiB");
        assert_eq!(size(3 << 29), "1.5 GiB");
        assert_eq!((took(34), took(1_250)), ("34 ms".into(), "1.2 s".into()));
        assert_eq!(took(61_000), "1 min 1 s");
    }
}
