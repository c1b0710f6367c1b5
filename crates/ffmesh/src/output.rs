//! Everything that the command writes to stdout and stderr, logs aside.
//!
//! A reader that closes the pipe early (`ffmesh flows | head`) is no failure.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use ffmesh_core::text::{escape, is_unfit};
use serde::Serialize;

use crate::failure::{Failure, Outcome};

/// Whether what is written to stdout may be coloured: a terminal that can do it, and no `NO_COLOR`
/// (<https://no-color.org>).
pub(crate) fn colour() -> bool {
    io::stdout().is_terminal() && colour_wanted()
}

/// Whether the environment lets a terminal be coloured.
pub(crate) fn colour_wanted() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    !no_color && !dumb
}

/// Writes text to stdout as it is.
pub(crate) fn text(text: &str) -> Outcome {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("the output could not be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a line to stdout.
pub(crate) fn line(line: &str) -> Outcome {
    text(&format!("{line}\n"))
}

/// Writes a value to stdout as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Outcome {
    let json = serde_json::to_string(value).map_err(Failure::failed)?;
    line(&fit_json(&json))
}

/// Writes a table to stdout, with a line instead when it has no rows.
pub(crate) fn table(header: &[Column], rows: Vec<Vec<Cell>>, empty: &str) -> Outcome {
    if rows.is_empty() {
        return line(empty);
    }
    line(&draw(header, rows))
}

/// Writes a remark to stderr, where it disturbs no reader of stdout.
pub(crate) fn remark(remark: &str) {
    // There is nowhere left to say that stderr is closed.
    let _ = writeln!(io::stderr().lock(), "{remark}");
}

/// Says on stderr why the command failed.
pub(crate) fn error(failure: &Failure) {
    if failure.message().is_empty() {
        return;
    }
    let label =
        if io::stderr().is_terminal() && colour_wanted() { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
    remark(&format!("{label} {}", failure.printable()));
}

/// A cell with someone else's text.
pub(crate) fn cell(text: impl AsRef<str>) -> Cell {
    Cell::new(escape(text.as_ref()))
}

/// A column: its name, and the side that its cells stand on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Column {
    Text(&'static str),
    Number(&'static str),
}

/// What a state means to its reader.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tone {
    Good,
    Busy,
    Bad,
    Quiet,
}

/// A cell with a state.
pub(crate) fn state(text: impl AsRef<str>, tone: Tone) -> Cell {
    cell(text).fg(match tone {
        Tone::Good => Color::Green,
        Tone::Busy => Color::Yellow,
        Tone::Bad => Color::Red,
        Tone::Quiet => Color::DarkGrey,
    })
}

/// A table without lines, in the terminal's width when there is a terminal.
pub(crate) fn draw(header: &[Column], rows: Vec<Vec<Cell>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !header.is_empty() {
        let name = |column: &Column| match column {
            Column::Text(name) | Column::Number(name) => Cell::new(name).add_attribute(Attribute::Bold),
        };
        table.set_header(header.iter().map(name));
    }
    table.add_rows(rows);
    let width = table.width();
    if colour() {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    if let Some(width) = width {
        table.set_width(width);
    }
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if matches!(header.get(i), Some(Column::Number(_))) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// JSON escapes control characters below U+0020 only; the others stand in its strings and nowhere else.
pub(crate) fn fit_json(json: &str) -> String {
    let mut fit = String::with_capacity(json.len());
    for c in json.chars() {
        if is_unfit(c) {
            let _ = write!(fit, "\\u{:04x}", u32::from(c));
        } else {
            fit.push(c);
        }
    }
    fit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_carries_no_control_character() {
        let json = fit_json(&serde_json::to_string("a\u{9b}\u{1b}\u{202e}").unwrap());
        assert_eq!(json, r#""a\u009b\u001b\u202e""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), "a\u{9b}\u{1b}\u{202e}");
    }

    #[test]
    fn tables_align_without_trailing_blanks() {
        let rows = vec![vec![cell("a\x1b[2J"), cell("5")], vec![state("up", Tone::Good), cell("1000")]];
        let text = draw(&[Column::Text("NAME"), Column::Number("N")], rows);
        assert_eq!(text, "NAME           N\na\\u{1b}[2J     5\nup          1000");
    }
}
