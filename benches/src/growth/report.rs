//! The printed and stored results of the series: tables, JSON, a chart each, and the goals beside the measurements.
use std::fmt::Write as _;

use serde::Serialize;

use super::cases::NONE;
use super::store::StoreRow;
use crate::chart::{Line, Panel, lines};
use crate::machine::Machine;
use crate::measure::Sample;
use crate::report::{Promise, described};
use crate::statistics::{Quartiles, median};

/// Every series, in the order of measurement.
pub const NAMES: [&str; 6] = ["tokens", "workers", "rules", "issuers", "keys", "revocations"];

/// How much more memory an Envoy may use after a million tokens than after ten thousand, which fill all caches: the
/// difference is what an allocator keeps.
const FLAT: f64 = 1.05;

#[derive(Debug, Serialize)]
pub struct Growth {
    machine: Machine,
    rounds: usize,
    window_millis: u64,
    connections: usize,
    series: Vec<Table>,
    service: Vec<StoreRow>,
    promises: Vec<Promise>,
}

#[derive(Debug, Serialize)]
pub struct Table {
    pub name: &'static str,
    pub title: &'static str,
    pub grows: &'static str,
    pub rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
pub struct Row {
    curve: &'static str,
    x: usize,
    /// CPU of the whole proxy for each request, minus that of one without a filter in the same round.
    micros_over_none: Quartiles,
    /// CPU of the whole proxy for each request, in each round.
    micros: Vec<f64>,
    per_second: f64,
    p50_micros: f64,
    p99_micros: f64,
    callouts_per_request: f64,
    cached_share: f64,
    asked_share: f64,
    requests: u64,
    failed: u64,
    resident_megabytes: f64,
}

impl Growth {
    pub fn new(
        machine: Machine,
        (rounds, window_millis, connections): (usize, u64, usize),
        series: Vec<Table>,
        service: Vec<StoreRow>,
    ) -> Self {
        let promises = promises(&series, &service);
        Self { machine, rounds, window_millis, connections, series, service, promises }
    }

    pub fn failed(&self) -> u64 {
        self.series.iter().flat_map(|table| &table.rows).map(|row| row.failed).sum()
    }

    pub fn text(&self) -> String {
        let mut out = described(&self.machine);
        let _ = writeln!(
            out,
            "{} rounds of {} ms, {} connections; CPU in µs a request beyond an Envoy with no filter",
            self.rounds, self.window_millis, self.connections,
        );
        for table in &self.series {
            table.write(&mut out);
        }
        if let Some(first) = self.service.first() {
            let _ = writeln!(
                out,
                "\n{:<28} {:>9} {:>15} {:>15} {:>15} {:>15} {:>7} {:>7} {:>9}",
                format!("CPU µs a key, {} a question", first.keys_per_question),
                "revoked",
                "service",
                "its Redis",
                "MGET of 64",
                "GET, -P 64",
                "÷ MGET",
                "÷ GET",
                "questions/s",
            );
        }
        for row in &self.service {
            let shown = |of: Quartiles| format!("{:.3} ±{:.3}", of.median, (of.third - of.first) / 2.0);
            let _ = writeln!(
                out,
                "{:<28} {:>9} {:>15} {:>15} {:>15} {:>15} {:>7.2} {:>7.2} {:>9.0}",
                "",
                row.revocations,
                shown(row.service_micros),
                shown(row.redis_micros),
                shown(row.redis_benchmark_micros),
                shown(row.redis_benchmark_pipelined_micros),
                row.ratio,
                row.ratio_pipelined,
                row.questions_per_second,
            );
        }
        let _ = writeln!(out);
        for promise in &self.promises {
            let _ = writeln!(out, "{promise}");
        }
        out
    }

    /// Each with its name.
    pub fn charts(&self) -> Vec<(&'static str, String)> {
        let head = format!(
            "{}, Linux {}; {}; medians of {} rounds, whiskers: quartiles",
            self.machine.cpu, self.machine.kernel, self.machine.date, self.rounds,
        );
        let of_series = self.series.iter().map(|table| {
            let mut panels = vec![table.panel("CPU µs a request beyond no filter", |row| row.micros_over_none)];
            if table.name == "tokens" {
                panels.push(table.panel("resident memory of Envoy, MB", |row| Quartiles::same(row.resident_megabytes)));
            }
            if table.name == "revocations" {
                panels.push(self.service_panel());
            }
            (table.name, lines(table.title, &head, table.grows, &panels))
        });
        of_series.collect()
    }

    fn service_panel(&self) -> Panel {
        let line = |title, of: fn(&StoreRow) -> Quartiles| Line {
            title,
            points: self.service.iter().map(|row| (row.revocations, of(row))).collect(),
        };
        Panel {
            title: "CPU µs a key, 64 keys a question",
            lines: vec![
                line("the service", |row| row.service_micros),
                line("its Redis", |row| row.redis_micros),
                line("Redis under redis-benchmark, MGET of 64", |row| row.redis_benchmark_micros),
                line("Redis under redis-benchmark -P 64, GET", |row| row.redis_benchmark_pipelined_micros),
            ],
        }
    }
}

impl Table {
    fn panel(&self, title: &'static str, of: fn(&Row) -> Quartiles) -> Panel {
        let mut drawn: Vec<Line> = Vec::new();
        for row in self.rows.iter().filter(|row| row.curve != NONE) {
            let point = (row.x, of(row));
            match drawn.iter_mut().find(|line| line.title == row.curve) {
                Some(line) => line.points.push(point),
                None => drawn.push(Line { title: row.curve, points: vec![point] }),
            }
        }
        Panel { title, lines: drawn }
    }

    fn write(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\n{:<36} {:>9} {:>8} {:>15} {:>7} {:>7} {:>8} {:>6} {:>6} {:>6} {:>7}",
            self.title,
            self.grows,
            "µs",
            "quartiles",
            "p50 µs",
            "p99 µs",
            "req/s",
            "calls",
            "cached",
            "asked",
            "RSS MB",
        );
        for row in &self.rows {
            let quartiles = row.micros_over_none;
            let _ = writeln!(
                out,
                "{:<36} {:>9} {:>8.2} {:>15} {:>7.0} {:>7.0} {:>8.0} {:>6.3} {:>6.2} {:>6.2} {:>7.1}{}",
                row.curve,
                if row.curve == NONE { String::new() } else { row.x.to_string() },
                if row.curve == NONE { median(row.micros.iter().copied()) } else { quartiles.median },
                format!("{:.2}–{:.2}", quartiles.first, quartiles.third),
                row.p50_micros,
                row.p99_micros,
                row.per_second,
                row.callouts_per_request,
                row.cached_share,
                row.asked_share,
                row.resident_megabytes,
                if row.failed > 0 { format!("  {} FAILED", row.failed) } else { String::new() },
            );
        }
    }
}

impl Row {
    /// `none`: the CPU of the Envoy without a filter in each round.
    pub fn new(curve: &'static str, x: usize, samples: &[Sample], none: &[f64], resident_bytes: u64) -> Self {
        let each = |of: fn(&Sample) -> f64| median(samples.iter().map(of));
        let requests: u64 = samples.iter().map(|sample| sample.answered).sum();
        let share = |of: fn(&Sample) -> u64| samples.iter().map(of).sum::<u64>() as f64 / requests as f64;
        Self {
            curve,
            x,
            micros_over_none: Quartiles::of(samples.iter().zip(none).map(|(sample, none)| sample.cpu_micros - none)),
            micros: samples.iter().map(|sample| sample.cpu_micros).collect(),
            per_second: each(|sample| sample.per_second),
            p50_micros: each(|sample| sample.p50_micros),
            p99_micros: each(|sample| sample.p99_micros),
            callouts_per_request: share(|sample| sample.callouts),
            cached_share: share(|sample| sample.cache_hits),
            asked_share: share(|sample| sample.asked),
            requests,
            failed: samples.iter().map(|sample| sample.failed).sum(),
            resident_megabytes: resident_bytes as f64 / 1e6,
        }
    }
}

/// The goals that this run can judge.
fn promises(series: &[Table], service: &[StoreRow]) -> Vec<Promise> {
    let row = |name: &str, curve: &str, x: usize| {
        let table = series.iter().find(|table| table.name == name)?;
        table.rows.iter().find(|row| row.curve == curve && row.x == x)
    };
    let beyond = |one: &Row, many: &Row| median(one.micros.iter().zip(&many.micros).map(|(one, many)| many - one));
    let rules = row("rules", "warm", 1).zip(row("rules", "warm", 1_000)).map(|(one, many)| beyond(one, many));
    let memory = row("tokens", "revocation", 10_000)
        .zip(row("tokens", "revocation", 1_000_000))
        .map(|(few, many)| many.resident_megabytes / few.resident_megabytes);
    let worst = service.iter().map(|row| row.ratio_pipelined).reduce(f64::max);
    let all = [
        ("1,000 rules beyond 1 rule, µs", rules, 0.5),
        ("memory of Envoy after 1,000,000 tokens by that after 10,000", memory, FLAT),
        ("CPU of the service by that of Redis under redis-benchmark -P 64", worst, 1.0),
    ];
    all.into_iter().filter_map(|(what, measured, bound)| Some(Promise::at_most(what, measured?, bound))).collect()
}
