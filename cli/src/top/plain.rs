//! The tables as lines of text, for pipes and logs.
use super::model::{Line, Section};

/// Of one table; the rest is counted.
const MAX_LINES: usize = 30;

pub fn lines(sections: &[Section]) -> Vec<String> {
    let mut lines = Vec::new();
    for section in sections.iter().filter(|section| !section.lines.is_empty()) {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        let widths = widths(section);
        lines.push(aligned(section.columns.iter().copied(), &widths));
        let shown = section.lines.iter().take(MAX_LINES);
        lines.extend(shown.map(|line| aligned(line.cells.iter().map(String::as_str), &widths)));
        if let Some(more) = section.lines.len().checked_sub(MAX_LINES).filter(|more| *more > 0) {
            lines.push(format!("... and {more} more"));
        }
    }
    lines
}

/// The width of each column. A line with a message in the place of figures does not count beyond its name.
pub fn widths(section: &Section) -> Vec<usize> {
    let width = |(index, name): (usize, &&str)| {
        let cells = section.lines.iter().filter(|line| index == 0 || !is_message(line));
        let cells = cells.filter_map(|line| line.cells.get(index)).map(|cell| cell.chars().count());
        cells.chain([name.len()]).max().unwrap_or_default()
    };
    section.columns.iter().enumerate().map(width).collect()
}

/// A name and a message, and no figures.
pub fn is_message(line: &Line) -> bool {
    line.cells.len() > 2 && line.cells.iter().skip(2).all(String::is_empty)
}

/// Names to the left, figures to the right.
fn aligned<'c>(cells: impl Iterator<Item = &'c str>, widths: &[usize]) -> String {
    let cells: Vec<&str> = cells.collect();
    let is_message = cells.len() > 2 && cells.iter().skip(2).all(|cell| cell.is_empty());
    let cell = |(index, (cell, width)): (usize, (&&str, &usize))| match index {
        0 => format!("{cell:<width$}"),
        _ if is_message || is_text(cell) => format!("{cell:<width$}"),
        _ => format!("{cell:>width$}"),
    };
    let cells: Vec<String> = cells.iter().zip(widths).enumerate().map(cell).collect();
    cells.join("  ").trim_end().to_owned()
}

/// A word, not a figure.
fn is_text(cell: &str) -> bool {
    cell.len() > 7 && cell.chars().all(|c| c.is_ascii_alphabetic() || matches!(c, '_' | ' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(cells: &[&str]) -> Line {
        Line { cells: cells.iter().map(|cell| (*cell).to_owned()).collect(), is_alarm: false }
    }

    #[test]
    fn tables_are_aligned_and_a_message_does_not_widen_them() {
        let lines = vec![line(&["127.0.0.1:9901", "1.5", "-"]), line(&["b:1", "unreachable: connection refused", ""])];
        let proxies = Section { title: "Proxies", columns: &["PROXY", "REQ/S", "WAIT"], lines };
        let empty = Section { title: "Rules", columns: &["RULE"], lines: Vec::new() };
        let text = super::lines(&[proxies, empty]);
        assert_eq!(
            text,
            [
                "PROXY           REQ/S  WAIT",
                "127.0.0.1:9901    1.5     -",
                "b:1             unreachable: connection refused",
            ]
        );
    }

    #[test]
    fn long_tables_end_with_a_count() {
        let lines = vec![line(&["a"]); MAX_LINES + 5];
        let text = super::lines(&[Section { title: "Rules", columns: &["RULE"], lines }]);
        assert_eq!((text.len(), text.last().unwrap().as_str()), (MAX_LINES + 2, "... and 5 more"));
    }
}
