//! Charts in hand-written SVG: the table as bars, and growth as lines.
use std::fmt::Write as _;

use crate::report::{Report, Row};
use crate::statistics::Quartiles;

const WIDTH: f64 = 980.0;
const LABELS: f64 = 420.0;
const BAR: f64 = 16.0;
const STEP: f64 = 24.0;
const TOP: f64 = 70.0;
/// Space for the number beside the longest bar.
const NUMBERS: f64 = 110.0;
/// Longer bars are cut off here, in µs, so that the short ones can be compared. Their number stays.
const LONGEST_MICROS: f64 = 80.0;

/// Lines over the same x values.
pub struct Panel {
    pub title: &'static str,
    pub lines: Vec<Line>,
}

pub struct Line {
    pub title: &'static str,
    /// By the growing quantity, in its order.
    pub points: Vec<(usize, Quartiles)>,
}

pub fn bars(report: &Report) -> String {
    let rows = &report.rows;
    let longest = rows.iter().map(|row| row.micros_over_none.third).fold(1.0, f64::max).min(LONGEST_MICROS);
    let height = TOP + STEP * rows.len() as f64 + 20.0;
    let scale = (WIDTH - LABELS - NUMBERS) / longest;
    let machine = &report.machine;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"16\">CPU µs a request costs beyond an Envoy with no filter</text>\n\
         <text x=\"12\" y=\"44\" fill=\"#555\">{}</text>\n",
        escaped(&format!(
            "{}, Linux {}, Envoy {}; {}; medians of {} rounds, whiskers: quartiles",
            machine.cpu,
            machine.kernel,
            machine.envoy.split('/').nth(1).unwrap_or(&machine.envoy),
            machine.date,
            report.rounds,
        )),
    );
    for (place, row) in rows.iter().enumerate() {
        bar(&mut out, row, TOP + STEP * place as f64, longest, scale);
    }
    out.push_str("</svg>\n");
    out
}

fn bar(out: &mut String, row: &Row, y: f64, longest: f64, scale: f64) {
    let quartiles = row.micros_over_none;
    let length = |micros: f64| micros.clamp(0.0, longest) * scale;
    let colour = if row.title.starts_with("Portcullis") { "#1f5fa8" } else { "#a9a9a9" };
    let middle = y + BAR / 2.0;
    let (low, high) = (LABELS + length(quartiles.first), LABELS + length(quartiles.third));
    let cut = if quartiles.median > longest { " ▸" } else { "" };
    let _ = write!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
         <rect x=\"{LABELS}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\n\
         <path d=\"M{low:.1} {middle:.1}H{high:.1}\" stroke=\"#000\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\">{:.1}{cut}</text>\n",
        LABELS - 8.0,
        y + 13.0,
        escaped(&format!("{} ({})", row.title, row.load)),
        length(quartiles.median),
        high + 6.0,
        y + 13.0,
        quartiles.median,
    );
}

const PANEL_HEIGHT: f64 = 240.0;
const PANEL_STEP: f64 = 330.0;
const PANEL_LEFT: f64 = 70.0;
const PANEL_WIDTH: f64 = 620.0;
const COLOURS: [&str; 3] = ["#1f5fa8", "#c05a1c", "#555"];

/// The x values have equal distances, since all quantities here grow tenfold. Each panel begins at 0.
pub fn lines(title: &str, head: &str, grows: &str, panels: &[Panel]) -> String {
    let height = TOP + PANEL_STEP * panels.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"16\">{}</text>\n\
         <text x=\"12\" y=\"44\" fill=\"#555\">{}</text>\n",
        escaped(title),
        escaped(head),
    );
    for (place, panel) in panels.iter().enumerate() {
        draw(&mut out, panel, grows, TOP + PANEL_STEP * place as f64 + 20.0);
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, panel: &Panel, grows: &str, top: f64) {
    let points = || panel.lines.iter().flat_map(|line| &line.points);
    let mut places: Vec<usize> = points().map(|(x, _)| *x).collect();
    places.sort_unstable();
    places.dedup();
    let highest = points().map(|(_, of)| of.third).fold(0.0, f64::max) * 1.1;
    let lowest = points().map(|(_, of)| of.first).fold(0.0, f64::min);
    let scale = PANEL_HEIGHT / (highest - lowest).max(f64::MIN_POSITIVE);
    let y = |value: f64| top + (highest - value) * scale;
    let x = |of: usize| {
        let place = places.iter().position(|x| *x == of).unwrap_or_default();
        PANEL_LEFT + PANEL_WIDTH * (place as f64 + 0.5) / places.len() as f64
    };
    let (bottom, right) = (top + PANEL_HEIGHT, PANEL_LEFT + PANEL_WIDTH);
    let _ = write!(
        out,
        "<text x=\"12\" y=\"{:.1}\">{}</text>\n\
         <path d=\"M{PANEL_LEFT} {top:.1}V{bottom:.1}M{PANEL_LEFT} {:.1}H{right}\" stroke=\"#999\" fill=\"none\"/>\n\
         <text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{}</text>\n",
        top - 8.0,
        escaped(panel.title),
        y(0.0),
        bottom + 38.0,
        escaped(grows),
    );
    for step in 0..=4 {
        let value = highest * f64::from(step) / 4.0;
        let decimals = if highest < 1.0 { 3 } else { 1 };
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{value:.decimals$}</text>",
            PANEL_LEFT - 6.0,
            y(value) + 4.0,
        );
    }
    for place in &places {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x(*place),
            bottom + 18.0,
            grouped(*place),
        );
    }
    for (line, colour) in panel.lines.iter().zip(COLOURS.iter().cycle()) {
        let mut path = String::new();
        for (place, of) in &line.points {
            let _ = write!(path, "{}{:.1} {:.1}", if path.is_empty() { 'M' } else { 'L' }, x(*place), y(of.median));
        }
        let _ = writeln!(out, "<path d=\"{path}\" stroke=\"{colour}\" stroke-width=\"2\" fill=\"none\"/>");
        for (place, of) in &line.points {
            let (x, low, high, middle) = (x(*place), y(of.first), y(of.third), y(of.median));
            let _ = writeln!(
                out,
                "<path d=\"M{x:.1} {low:.1}V{high:.1}\" stroke=\"{colour}\"/>\
                 <circle cx=\"{x:.1}\" cy=\"{middle:.1}\" r=\"3.5\" fill=\"{colour}\"/>",
            );
        }
        if let Some((_, last)) = line.points.last() {
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{} {:.decimals$}</text>",
                right + 8.0,
                y(last.median) + 4.0,
                escaped(line.title),
                last.median,
                decimals = if highest < 1.0 { 3 } else { 1 },
            );
        }
    }
}

/// 1000000 as 1,000,000.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([1, 64, 1000, 1_000_000].map(grouped), ["1", "64", "1,000", "1,000,000"]);
    }

    #[test]
    fn a_chart_has_a_point_for_each_place_and_escapes_its_text() {
        let points = vec![(1, Quartiles::same(1.0)), (10, Quartiles::same(2.0))];
        let svg =
            lines("a < b", "head", "rules", &[Panel { title: "µs", lines: vec![Line { title: "warm", points }] }]);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("a &lt; b") && !svg.contains("NaN"));
    }
}
