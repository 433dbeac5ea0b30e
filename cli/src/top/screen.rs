//! Draws the tables on a terminal. It decides nothing about what they say.
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as Text, Span};
use ratatui::widgets::{Block, Borders, Cell, Row, Table};

use super::model::{Line, Section};
use super::plain::{is_message, widths};

/// What the user chose.
#[derive(Debug, Clone, Copy, Default)]
pub struct View {
    /// Lines that are scrolled over, in the table of rules.
    pub offset: usize,
    pub is_paused: bool,
    pub has_color: bool,
}

const KEYS: &str = "q quit  p pause  tab next proxy  up/down scroll the rules";

/// `heading`: what is shown, and since when.
pub fn draw(frame: &mut Frame<'_>, heading: &str, sections: &[Section], view: View) {
    let small = |section: &&Section| !is_long(section);
    let fixed = sections.iter().filter(small).map(|section| Constraint::Length(height(section)));
    let has_long = sections.iter().any(is_long);
    let constraints = [Constraint::Length(1)].into_iter().chain(fixed);
    let areas = Layout::vertical(constraints.chain([Constraint::Min(0), Constraint::Length(1)])).split(frame.area());
    let mut areas = areas.iter().copied();
    let strong = Style::new().add_modifier(Modifier::BOLD);
    // First, so that a narrow terminal shows it too.
    let state = if view.is_paused { "PAUSED  " } else { "" };
    if let Some(area) = areas.next() {
        frame.render_widget(Text::styled(format!("{state}{heading}"), strong), area);
    }
    for section in sections.iter().filter(small) {
        if let Some(area) = areas.next() {
            table(frame, area, section, 0, view.has_color);
        }
    }
    let (Some(rest), Some(last)) = (areas.next(), areas.next()) else { return };
    if has_long {
        let halves = Layout::horizontal([Constraint::Percentage(62), Constraint::Percentage(38)]).split(rest);
        for (section, area) in sections.iter().filter(|section| is_long(section)).zip(halves.iter()) {
            let offset = if section.title == "Rules" { view.offset } else { 0 };
            table(frame, *area, section, offset, view.has_color);
        }
    }
    frame.render_widget(Text::from(Span::styled(KEYS, Style::new().add_modifier(Modifier::DIM))), last);
}

/// Rules and faults get the space that the others leave.
fn is_long(section: &Section) -> bool {
    matches!(section.title, "Rules" | "Faults")
}

/// With its title and columns. Many proxies leave room for the rest.
fn height(section: &Section) -> u16 {
    u16::try_from(section.lines.len().clamp(1, 12) + 2).unwrap_or(u16::MAX)
}

fn table(frame: &mut Frame<'_>, area: Rect, section: &Section, offset: usize, has_color: bool) {
    let alarm = if has_color { Style::new().fg(Color::Red) } else { Style::new().add_modifier(Modifier::BOLD) };
    let plain = Style::new();
    let header = Row::new(section.columns.to_vec()).style(Style::new().add_modifier(Modifier::UNDERLINED));
    // At least the last line stays.
    let offset = offset.min(section.lines.len().saturating_sub(1));
    let rows = section.lines.iter().skip(offset).filter(|line| !is_message(line));
    let rows = rows.map(|line| row(line).style(if line.is_alarm { alarm } else { plain }));
    let constraints = widths(section).into_iter().map(|width| Constraint::Length(width.try_into().unwrap_or(u16::MAX)));
    let title = match section.lines.len() {
        lines if offset > 0 => format!("{} (from {} of {lines})", section.title, offset + 1),
        lines => format!("{} ({lines})", section.title),
    };
    let block = Block::new().borders(Borders::TOP).title(title);
    frame.render_widget(Table::new(rows, constraints).header(header).column_spacing(1).block(block), area);
    // A message is wider than its column.
    let below = section.lines.iter().skip(offset).filter(|line| !is_message(line)).count();
    let first = area.y.saturating_add(u16::try_from(below + 2).unwrap_or(u16::MAX));
    for (line, y) in section.lines.iter().filter(|line| is_message(line)).zip(first..area.bottom()) {
        let text = line.cells.iter().take(2).map(String::as_str).collect::<Vec<_>>().join("  ");
        frame.render_widget(Text::styled(text, alarm), Rect { y, height: 1, ..area });
    }
}

fn row(line: &Line) -> Row<'_> {
    Row::new(line.cells.iter().map(|cell| Cell::from(cell.as_str())))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn line(cells: &[&str], is_alarm: bool) -> Line {
        Line { cells: cells.iter().map(|cell| (*cell).to_owned()).collect(), is_alarm }
    }

    fn sections() -> Vec<Section> {
        let proxies = vec![line(&["a:9901", "12", "0"], false), line(&["b:9901", "unreachable: refused", ""], true)];
        let rules = (0..9).map(|n| line(&[&format!("rule{n}"), "3"], n == 1)).collect();
        vec![
            Section { title: "Proxies", columns: &["PROXY", "REQ/S", "503"], lines: proxies },
            Section { title: "Rules", columns: &["RULE", "REQ/S"], lines: rules },
            Section { title: "Faults", columns: &["FAULT", "PER S"], lines: vec![line(&["JWT_EXPIRED", "1"], false)] },
        ]
    }

    fn drawn(width: u16, height: u16, view: View) -> (Vec<String>, Terminal<TestBackend>) {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, "portcullis top", &sections(), view)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        ((0..height).map(line).collect(), terminal)
    }

    #[test]
    fn tables_stand_in_their_places_and_a_proxy_that_is_unreachable_says_why() {
        let (lines, terminal) = drawn(72, 14, View { has_color: true, ..View::default() });
        assert_eq!(lines[0], "portcullis top");
        assert!(lines[1].starts_with("Proxies (2)"), "{lines:#?}");
        assert_eq!(lines[2], "PROXY  REQ/S 503");
        assert_eq!(lines[3], "a:9901 12    0");
        assert_eq!(lines[4], "b:9901  unreachable: refused");
        assert!(lines[5].contains("Rules (9)") && lines[5].contains("Faults (1)"), "{lines:#?}");
        assert!(lines[7].starts_with("rule0 3") && lines[7].contains("JWT_EXPIRED 1"), "{lines:#?}");
        assert_eq!(lines[13], KEYS);
        let buffer = terminal.backend().buffer();
        assert_eq!([buffer[(0, 4)].fg, buffer[(0, 3)].fg, buffer[(0, 8)].fg], [Color::Red, Color::Reset, Color::Red]);
    }

    #[test]
    fn the_rules_scroll_and_their_last_line_stays() {
        let (lines, _) = drawn(72, 14, View { offset: 7, is_paused: true, has_color: false });
        assert!(lines[0].starts_with("PAUSED  portcullis") && lines[7].starts_with("rule7"), "{lines:#?}");
        let (lines, _) = drawn(72, 14, View { offset: 700, ..View::default() });
        assert!(lines[7].starts_with("rule8"), "{lines:#?}");
    }

    #[test]
    fn any_size_can_be_drawn() {
        for (width, height) in [(1, 1), (3, 2), (20, 5), (500, 3), (10, 200)] {
            drawn(width, height, View::default());
        }
    }
}
