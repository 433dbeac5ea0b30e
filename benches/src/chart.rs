//! The table as a bar chart, in SVG written by hand.
use std::fmt::Write as _;

use crate::report::{Report, Row};

const WIDTH: f64 = 980.0;
const LABELS: f64 = 420.0;
const BAR: f64 = 16.0;
const STEP: f64 = 24.0;
const TOP: f64 = 70.0;
/// Room for the number behind the longest bar.
const NUMBERS: f64 = 110.0;
/// Longer bars are cut off here, in µs, so that the short ones can be told apart. Their number stays.
const LONGEST_MICROS: f64 = 80.0;

pub fn svg(report: &Report) -> String {
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

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
