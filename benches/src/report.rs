//! The printed and stored results: a table for people, JSON for programs, and the goals beside the measurements.
use std::fmt::{self, Write as _};

use mint::Alg;
use serde::Serialize;

use crate::machine::Machine;
use crate::measure::Sample;
use crate::statistics::{Quartiles, median};
use crate::tokens::Tokens;

/// All windows of one load on one Envoy.
pub struct Measured {
    pub setup: String,
    pub title: &'static str,
    pub load: Tokens,
    pub samples: Vec<Sample>,
    pub resident_bytes: u64,
    pub ready_millis: f64,
    pub module_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub rounds: usize,
    pub window_millis: u64,
    pub connections: usize,
    pub repeated_tokens: usize,
    pub unique_tokens: usize,
    pub rows: Vec<Row>,
    pub promises: Vec<Promise>,
}

#[derive(Debug, Serialize)]
pub struct Row {
    pub setup: String,
    pub title: &'static str,
    #[serde(skip)]
    pub tokens: Tokens,
    pub load: String,
    /// CPU of the whole proxy for each request, minus that of the one without a filter in the same round.
    pub micros_over_none: Quartiles,
    /// CPU of the whole proxy for each request.
    pub micros: f64,
    pub per_second: f64,
    pub p50_micros: f64,
    pub p99_micros: f64,
    pub callouts_per_request: f64,
    /// The share of requests whose token was in a cache of verified tokens.
    pub cached_share: f64,
    /// The share of requests without a fresh verdict.
    pub asked_share: f64,
    pub requests: u64,
    pub failed: u64,
    pub resident_megabytes: f64,
    pub ready_millis: f64,
    pub module_bytes: Option<u64>,
    /// This row's CPU over none divided by a peer's under the same load.
    pub ratios: Vec<Ratio>,
}

#[derive(Debug, Serialize)]
pub struct Ratio {
    pub peer: &'static str,
    /// Of the medians.
    pub ratio: f64,
    /// Of each round.
    pub rounds: Quartiles,
}

/// A bound from the project's goals.
#[derive(Debug, Serialize)]
pub struct Promise {
    pub what: &'static str,
    pub measured: f64,
    pub bound: f64,
    pub at_most: bool,
    pub kept: bool,
    /// Of the rounds, for a ratio of two rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounds: Option<Quartiles>,
}

/// The rows by which every row is divided, if they have one with the same tokens.
const PEERS: [&str; 11] = [
    "noop",
    "jwt_authn-cached",
    "jwt_authn-claims",
    "jwt_authn",
    "ext_authz",
    "jwt_authn-cached-ext_authz",
    "jwt_authn-ext_authz",
    "native-warm",
    "native-rs256",
    "warm",
    "cold-rs256",
];

impl Report {
    /// `measured` begins with the reference, and has all samples in the order of the rounds.
    pub fn new(
        machine: Machine,
        measured: &[Measured],
        window_millis: u64,
        connections: usize,
        tokens: (usize, usize),
    ) -> Self {
        let micros = |measured: &Measured| measured.samples.iter().map(|sample| sample.cpu_micros).collect::<Vec<_>>();
        let none = measured.first().map(micros).unwrap_or_default();
        // An Envoy that is not saturated does more work for each request.
        let active = measured.iter().find(|measured| measured.load == Tokens::Active).map(micros).unwrap_or_default();
        let over = |load| if load == Tokens::Active { &active } else { &none };
        let mut rows: Vec<Row> = measured.iter().map(|measured| Row::new(measured, over(measured.load))).collect();
        let ratios: Vec<Vec<Ratio>> = rows
            .iter()
            .zip(measured)
            .map(|(row, samples)| {
                // Rows with cached signatures are compared with each other.
                let is_compared = row.tokens.are_remembered() && row.tokens != Tokens::Active;
                let load = if is_compared { Tokens::Repeated } else { row.tokens };
                let peer = |name| rows.iter().position(|other| other.setup == name && other.tokens == load);
                PEERS
                    .iter()
                    .filter_map(|name| {
                        let place = peer(*name)?;
                        let theirs = rows[place].micros_over_none.median;
                        let of_rounds = micros(samples).into_iter().zip(micros(&measured[place])).zip(&none);
                        let rounds =
                            Quartiles::of(of_rounds.map(|((ours, theirs), none)| (ours - none) / (theirs - none)));
                        let ratio = row.micros_over_none.median / theirs;
                        // If noise is larger than the cost, a ratio means nothing.
                        (theirs > 0.0).then_some(Ratio { peer: name, ratio, rounds })
                    })
                    .collect()
            })
            .collect();
        for (row, ratios) in rows.iter_mut().zip(ratios) {
            row.ratios = ratios;
        }
        let promises = promises(&rows);
        Self {
            machine,
            rounds: none.len(),
            window_millis,
            connections,
            repeated_tokens: tokens.0,
            unique_tokens: tokens.1,
            rows,
            promises,
        }
    }

    pub fn failed(&self) -> u64 {
        self.rows.iter().map(|row| row.failed).sum()
    }

    /// Each row of the group `features` and the one with all of them off, of the same host.
    fn features(&self) -> impl Iterator<Item = (&Row, &Row)> {
        self.rows.iter().filter_map(|row| {
            let (host, feature) = row.setup.rsplit_once('-')?;
            let off = self.rows.iter().find(|other| other.setup == format!("{host}-off"))?;
            (host.starts_with("features") && feature != "off").then_some((row, off))
        })
    }

    pub fn table(&self) -> String {
        let mut out = described(&self.machine);
        let _ = writeln!(
            out,
            "{} rounds of {} ms, {} connections, {} repeated or {} unique tokens\n",
            self.rounds, self.window_millis, self.connections, self.repeated_tokens, self.unique_tokens,
        );
        let _ = writeln!(
            out,
            "{:<48} {:<13} {:>8} {:>15} {:>6} {:>6} {:>7} {:>6} {:>6} {:>7} {:>7} {:>8} {:>8} {:>6} {:>6} {:>6} {:>7} {:>7}",
            "CPU in µs beyond an Envoy with no filter",
            "tokens",
            "µs",
            "quartiles",
            "÷noop",
            "÷jwt c",
            "÷jwt c2",
            "÷jwt",
            "÷j+e c",
            "÷j+e",
            "p50 µs",
            "p99 µs",
            "req/s",
            "calls",
            "cached",
            "asked",
            "RSS MB",
            "ready",
        );
        for row in &self.rows {
            let ratio = |peer: &str| {
                let found = row.ratios.iter().find(|ratio| ratio.peer == peer);
                found.map_or_else(|| "–".to_owned(), |found| format!("{:.2}", found.ratio))
            };
            let quartiles = row.micros_over_none;
            let _ = writeln!(
                out,
                "{:<48} {:<13} {:>8.2} {:>15} {:>6} {:>6} {:>7} {:>6} {:>6} {:>7} {:>7.0} {:>8.0} {:>8.0} {:>6.3} {:>6.2} {:>6.2} \
                 {:>7.0} {:>7.0}{}",
                row.title,
                row.load,
                quartiles.median,
                format!("{:.2}–{:.2}", quartiles.first, quartiles.third),
                ratio("noop"),
                ratio("jwt_authn-cached"),
                ratio("jwt_authn-claims"),
                ratio("jwt_authn"),
                ratio("jwt_authn-cached-ext_authz"),
                ratio("jwt_authn-ext_authz"),
                row.p50_micros,
                row.p99_micros,
                row.per_second,
                row.callouts_per_request,
                row.cached_share,
                row.asked_share,
                row.resident_megabytes,
                row.ready_millis,
                if row.failed > 0 { format!("  {} FAILED", row.failed) } else { String::new() },
            );
        }
        if let Some(none) = self.rows.first() {
            let _ = writeln!(out, "\nno filter: {:.2} µs in all", none.micros);
        }
        for row in &self.rows {
            if let Some(bytes) = row.module_bytes.filter(|_| {
                matches!(row.setup.as_str(), "noop" | "warm" | "native-warm") && row.tokens == Tokens::Repeated
            }) {
                let _ = writeln!(out, "module of {}: {bytes} bytes", row.title);
            }
        }
        for (row, off) in self.features() {
            let (more, noise) = (row.micros_over_none.median - off.micros_over_none.median, off.micros_over_none);
            let _ = writeln!(
                out,
                "{}: {more:+.2} µs beyond the same rule without, whose quartiles are {:.2} apart",
                row.title,
                noise.third - noise.first
            );
        }
        let _ = writeln!(out);
        for promise in &self.promises {
            let _ = writeln!(out, "{promise}");
        }
        out
    }
}

/// The heading of a table.
pub fn described(machine: &Machine) -> String {
    format!(
        "{}, {} cores, Linux {}, Envoy {}\ncommit {}, {}, load average {} at the start\n",
        machine.cpu, machine.cores, machine.kernel, machine.envoy, machine.commit, machine.date, machine.load_average,
    )
}

impl Promise {
    pub fn at_most(what: &'static str, measured: f64, bound: f64) -> Self {
        Self { what, measured, bound, at_most: true, kept: measured <= bound, rounds: None }
    }

    pub fn at_least(what: &'static str, measured: f64, bound: f64) -> Self {
        Self { what, measured, bound, at_most: false, kept: measured >= bound, rounds: None }
    }

    fn at_most_of(what: &'static str, ratio: &Ratio, bound: f64) -> Self {
        Self { rounds: Some(ratio.rounds), ..Self::at_most(what, ratio.ratio, bound) }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = if self.kept { "kept  " } else { "BROKEN" };
        let sign = if self.at_most { "≤" } else { "≥" };
        write!(f, "{kept} {}: {:.2}", self.what, self.measured)?;
        if let Some(rounds) = self.rounds {
            write!(f, " ({:.2}–{:.2})", rounds.first, rounds.third)?;
        }
        write!(f, ", promised {sign} {:.2}", self.bound)
    }
}

impl Row {
    fn new(measured: &Measured, none: &[f64]) -> Self {
        let samples = &measured.samples;
        let each = |of: fn(&Sample) -> f64| median(samples.iter().map(of));
        let requests: u64 = samples.iter().map(|sample| sample.answered).sum();
        let share = |of: fn(&Sample) -> u64| samples.iter().map(of).sum::<u64>() as f64 / requests as f64;
        Self {
            setup: measured.setup.clone(),
            title: measured.title,
            tokens: measured.load,
            load: measured.load.name(),
            micros_over_none: Quartiles::of(samples.iter().zip(none).map(|(sample, none)| sample.cpu_micros - none)),
            micros: each(|sample| sample.cpu_micros),
            per_second: each(|sample| sample.per_second),
            p50_micros: each(|sample| sample.p50_micros),
            p99_micros: each(|sample| sample.p99_micros),
            callouts_per_request: share(|sample| sample.callouts),
            cached_share: share(|sample| sample.cache_hits),
            asked_share: share(|sample| sample.asked),
            requests,
            failed: samples.iter().map(|sample| sample.failed).sum(),
            resident_megabytes: measured.resident_bytes as f64 / 1e6,
            ready_millis: measured.ready_millis,
            module_bytes: measured.module_bytes,
            ratios: Vec::new(),
        }
    }
}

/// The goals that this run can judge, without those whose rows were not measured.
fn promises(rows: &[Row]) -> Vec<Promise> {
    let row = |setup: &str, alg: Option<Alg>| {
        let tokens = alg.map_or(Tokens::Repeated, Tokens::Unique);
        rows.iter().find(|row| row.setup == setup && row.tokens == tokens)
    };
    let rate = |setup, load| row(setup, load).map(|row| row.per_second);
    let part = |of: Option<f64>, by: Option<f64>| Some(of? / by?);
    let over_none = |of: fn(&Row) -> f64| Some(of(row("native-warm", None)?) - of(rows.first()?));
    let (rs, es) = (Some(Alg::RS256), Some(Alg::ES256));
    let waiting = row("asked", Some(Alg::HS256)).map(|row| row.asked_share / row.callouts_per_request);
    let ratios = [
        (
            "native warm, as a part of cached jwt_authn, both with 2 claims",
            "native-warm",
            None,
            "jwt_authn-claims",
            0.6,
        ),
        ("native cold RS256 as a part of jwt_authn", "native-rs256", rs, "jwt_authn", 0.6),
        ("native cold ES256 as a part of jwt_authn", "native-es256", es, "jwt_authn", 0.75),
        ("native cold RS256 with revocation as a part of jwt_authn", "native-rs256-asked", rs, "jwt_authn", 1.0),
        ("warm, as a part of cached jwt_authn, both with 2 claims", "warm", None, "jwt_authn-claims", 1.6),
        ("cold RS256 as a part of jwt_authn", "cold-rs256", rs, "jwt_authn", 0.85),
        ("cold RS256 with revocation as a part of jwt_authn", "cold-rs256-asked", rs, "jwt_authn", 1.0),
        ("native cold RS256 with the feed, as a part of no revocation", "native-rs256-feed", rs, "native-rs256", 1.05),
        ("native warm with the feed, as a part of checks", "native-warm-feed", None, "native-warm", 1.0),
        ("cold RS256 with the feed, as a part of no revocation", "cold-rs256-feed", rs, "cold-rs256", 1.05),
        ("warm with the feed, as a part of checks", "warm-feed", None, "warm", 1.0),
        (
            "cold RS256 with revocation as a part of jwt_authn + ext_authz",
            "cold-rs256-asked",
            rs,
            "jwt_authn-ext_authz",
            0.5,
        ),
        ("cold ES256 as a part of jwt_authn", "cold-es256", es, "jwt_authn", 0.9),
    ];
    let ratios = ratios.into_iter().filter_map(|(what, setup, load, peer, bound)| {
        let ratio = row(setup, load)?.ratios.iter().find(|ratio| ratio.peer == peer)?;
        Some(Promise::at_most_of(what, ratio, bound))
    });
    let ready = row("native-warm", None).map(|row| row.ready_millis);
    let others = [
        ("native, ms from start to ready", ready, 150.0, true),
        ("native, MB beyond no filter", over_none(|row| row.resident_megabytes), 10.0, true),
        ("warm, two claims forwarded, µs", row("warm", None).map(|row| row.micros_over_none.median), 2.5, true),
        ("warm, requests/s as a part of no-op's", part(rate("warm", None), rate("noop", None)), 0.95, false),
        (
            "each request asks, requests/s by those of jwt_authn with its cache + ext_authz",
            part(rate("asked", Some(Alg::HS256)), rate("jwt_authn-cached-ext_authz", None)),
            1.5,
            false,
        ),
        ("each request asks, requests that one callout answers", waiting, 8.0, false),
    ];
    let others = others.into_iter().filter_map(|(what, measured, bound, at_most)| {
        let judge = if at_most { Promise::at_most } else { Promise::at_least };
        Some(judge(what, measured?, bound))
    });
    ratios.chain(others).collect()
}
