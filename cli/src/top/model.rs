//! What `top` shows, as tables of text: made of the last two scrapes of each proxy and service. It asks nobody and draws
//! nothing.
use std::collections::BTreeMap;
use std::time::Duration;

use super::between::Between;
use crate::exposition::{Scrape, label};

/// A proxy's Envoy, or a service, and what it said.
pub struct Watched {
    pub kind: Kind,
    pub url: String,
    last: Option<Taken>,
    before: Option<Taken>,
    /// Why it did not answer the last time.
    trouble: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Proxy,
    Service,
}

/// An answer, and when it came.
#[derive(Debug, Clone)]
struct Taken {
    /// Since the start.
    at: Duration,
    scrape: Scrape,
}

/// A table.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    pub title: &'static str,
    pub columns: &'static [&'static str],
    pub lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub cells: Vec<String>,
    /// Something is wrong.
    pub is_alarm: bool,
}

const PROXIES: Columns = &[
    "PROXY", "REQ/S", "PASSED", "REFUSED", "503", "REPORT", "TOKEN%", "SHARED%", "CHECKS", "P50", "P99", "WAIT", "FEED",
];
const RULES: Columns = &["RULE", "REQ/S", "PASSED", "REFUSED", "503", "REPORT", "MOST FREQUENT FAULT"];
const FAULTS: Columns = &["FAULT", "PER S", "SHARE", "TOTAL"];
const SERVICES: Columns =
    &["SERVICE", "CHECKS", "FAILED", "P50", "P99", "REVOKED", "LAG P99", "FOLLOW", "FEED", "KEYS", "STORE"];

type Columns = &'static [&'static str];

impl Watched {
    pub fn new(kind: Kind, url: &str) -> Self {
        let url = url.trim_end_matches('/').to_owned();
        Self { kind, url, last: None, before: None, trouble: None }
    }

    /// Where its metrics are.
    pub fn metrics_url(&self) -> String {
        match self.kind {
            Kind::Proxy => format!("{}/stats/prometheus?filter=portcullis", self.url),
            Kind::Service => format!("{}/metrics", self.url),
        }
    }

    /// Takes an answer, or why there is none.
    pub fn observe(&mut self, at: Duration, answer: Result<Scrape, String>) {
        match answer {
            Ok(scrape) => {
                self.before = self.last.replace(Taken { at, scrape });
                self.trouble = None;
            }
            Err(why) => self.trouble = Some(why),
        }
    }

    pub fn is_reachable(&self) -> bool {
        self.trouble.is_none() && self.last.is_some()
    }

    /// `None`: it did not answer the last time.
    fn between(&self) -> Option<Between<'_>> {
        let last = self.last.as_ref().filter(|_| self.trouble.is_none())?;
        let seconds = self.before.as_ref().map_or(0.0, |before| last.at.saturating_sub(before.at).as_secs_f64());
        Some(Between { before: self.before.as_ref().map(|before| &before.scrape), now: &last.scrape, seconds })
    }

    /// In the place of its figures.
    fn trouble(&self, columns: Columns) -> Line {
        let why = self.trouble.as_deref().unwrap_or("no answer yet");
        let why = why.strip_prefix(&format!("{}: ", self.metrics_url())).unwrap_or(why);
        Line { cells: padded([self.name(), format!("unreachable: {why}")], columns), is_alarm: self.trouble.is_some() }
    }

    fn silent(&self, columns: Columns) -> Line {
        Line { cells: padded([self.name(), "has no metric of ours".to_owned()], columns), is_alarm: true }
    }

    fn name(&self) -> String {
        self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest).to_owned()
    }
}

/// The tables. `only`: the rules and faults of this proxy, instead of all. `now`: Unix seconds.
pub fn sections(watched: &[Watched], only: Option<usize>, now: f64) -> Vec<Section> {
    let of = |kind: Kind| watched.iter().filter(move |one| one.kind == kind);
    let mut sections = Vec::new();
    if of(Kind::Proxy).next().is_some() {
        let chosen: Vec<Between<'_>> = match only.and_then(|index| of(Kind::Proxy).nth(index)) {
            Some(one) => one.between().into_iter().collect(),
            None => of(Kind::Proxy).filter_map(Watched::between).collect(),
        };
        sections.push(section("Proxies", PROXIES, of(Kind::Proxy).map(proxy).collect()));
        sections.push(section("Rules", RULES, rules(&chosen)));
        sections.push(section("Faults", FAULTS, faults(&chosen)));
    }
    if of(Kind::Service).next().is_some() {
        let lines = of(Kind::Service).map(|one| service(one, now)).collect();
        sections.push(section("Services", SERVICES, lines));
    }
    sections
}

fn section(title: &'static str, columns: Columns, lines: Vec<Line>) -> Section {
    Section { title, columns, lines }
}

/// Requests in a second, by what became of them.
#[derive(Debug, Clone, Copy, Default)]
struct Outcomes {
    passed: f64,
    refused: f64,
    cannot_tell: f64,
    reported: f64,
}

impl Outcomes {
    fn add(&mut self, outcome: Option<&str>, rate: f64) {
        match outcome {
            Some("refused") => self.refused += rate,
            Some("cannot_tell") => self.cannot_tell += rate,
            Some("reported") => self.reported += rate,
            // `open`, `admitted`, `admitted_unchecked`, `answered`.
            _ => self.passed += rate,
        }
    }

    fn all(self) -> f64 {
        self.passed + self.refused + self.cannot_tell + self.reported
    }

    fn cells(self) -> [String; 5] {
        [self.all(), self.passed, self.refused, self.cannot_tell, self.reported].map(|rate| number(Some(rate)))
    }
}

fn proxy(watched: &Watched) -> Line {
    let Some(between) = watched.between() else { return watched.trouble(PROXIES) };
    if between.now.is_empty() {
        return watched.silent(PROXIES);
    }
    let mut outcomes = Outcomes::default();
    for (outcome, rate) in between.rates_by("requests", "outcome") {
        outcomes.add(Some(outcome), rate);
    }
    let has_rates = between.before.is_some();
    let outcome_cells = outcomes.cells().map(|cell| if has_rates { cell } else { "-".to_owned() });
    let checks_failed = between.rate("checks_failed", |_| true);
    let cells = [watched.name()].into_iter().chain(outcome_cells).chain([
        percent(between.share("token_cache", "result", "hit")),
        percent(between.share("shared_verdicts", "result", "hit")),
        number(between.rate("checks_sent", |_| true)),
        duration(between.quantile("check_microseconds", 0.5).map(|micros| micros / 1e6)),
        duration(between.quantile("check_microseconds", 0.99).map(|micros| micros / 1e6)),
        number(between.gauge("waiting_requests")),
        duration(between.gauge("feed_age_milliseconds").map(|millis| millis / 1e3)),
    ]);
    let is_alarm = outcomes.cannot_tell > 0.0 || checks_failed.is_some_and(|rate| rate > 0.0);
    Line { cells: cells.collect(), is_alarm }
}

fn rules(proxies: &[Between<'_>]) -> Vec<Line> {
    let mut rules: BTreeMap<&str, (Outcomes, BTreeMap<&str, f64>)> = BTreeMap::new();
    for between in proxies {
        for (labels, rate) in between.rates("requests") {
            let (outcomes, faults) = rules.entry(label(labels, "rule").unwrap_or("none")).or_default();
            outcomes.add(label(labels, "outcome"), rate);
            if let Some(fault) = label(labels, "fault").filter(|fault| *fault != "none" && rate > 0.0) {
                *faults.entry(fault).or_default() += rate;
            }
        }
    }
    let mut rules: Vec<_> = rules.into_iter().collect();
    // The busiest first; the names decide between equals, so that lines do not jump.
    rules.sort_by(|(_, (one, _)), (_, (other, _))| other.all().total_cmp(&one.all()));
    let line = |(rule, (outcomes, faults)): (&str, (Outcomes, BTreeMap<&str, f64>))| {
        let most = faults.into_iter().max_by(|(_, one), (_, other)| one.total_cmp(other));
        let most = most.map_or("-", |(fault, _)| fault).to_owned();
        let cells = [rule.to_owned()].into_iter().chain(outcomes.cells()).chain([most]).collect();
        Line { cells, is_alarm: outcomes.cannot_tell > 0.0 }
    };
    rules.into_iter().map(line).collect()
}

fn faults(proxies: &[Between<'_>]) -> Vec<Line> {
    let mut faults: BTreeMap<&str, (f64, f64, bool)> = BTreeMap::new();
    let mut all = 0.0;
    for between in proxies {
        for (labels, rate) in between.rates("requests") {
            all += rate;
            let Some(fault) = label(labels, "fault").filter(|fault| *fault != "none") else { continue };
            let (sum, total, is_alarm) = faults.entry(fault).or_default();
            *sum += rate;
            *total += between.now.value("requests", labels).unwrap_or_default();
            *is_alarm |= label(labels, "outcome") == Some("cannot_tell") && rate > 0.0;
        }
    }
    let mut faults: Vec<_> = faults.into_iter().collect();
    faults.sort_by(|(_, one), (_, other)| other.0.total_cmp(&one.0).then(other.1.total_cmp(&one.1)));
    let line = |(fault, (rate, total, is_alarm)): (&str, (f64, f64, bool))| {
        let share = percent((all > 0.0).then(|| rate / all));
        let cells = vec![fault.to_owned(), number(Some(rate)), share, number(Some(total))];
        Line { cells, is_alarm }
    };
    faults.into_iter().map(line).collect()
}

fn service(watched: &Watched, now: f64) -> Line {
    let Some(between) = watched.between() else { return watched.trouble(SERVICES) };
    if between.now.is_empty() {
        return watched.silent(SERVICES);
    }
    let failed = between.rate("troubles", |_| true);
    // 0: nobody follows, or it is not complete.
    let complete = between.gauge("feed_complete_timestamp_seconds").filter(|complete| *complete > 0.0);
    let ready = between.gauge("store_ready");
    let store = match ready {
        Some(ready) if ready > 0.0 => "ready",
        Some(_) => "NOT READY",
        None => "-",
    };
    let cells = vec![
        watched.name(),
        number(between.rate("checks", |_| true)),
        number(failed),
        duration(between.quantile("redis_seconds", 0.5)),
        duration(between.quantile("redis_seconds", 0.99)),
        number(between.rate("revocations", |_| true)),
        duration(between.quantile("revocation_lag_seconds", 0.99)),
        number(between.gauge("feed_followers")),
        duration(complete.map(|complete| (now - complete).max(0.0))),
        number(between.gauge("feed_keys")),
        store.to_owned(),
    ];
    Line { cells, is_alarm: failed.is_some_and(|rate| rate > 0.0) || ready == Some(0.0) }
}

fn padded<const N: usize>(cells: [String; N], columns: Columns) -> Vec<String> {
    let empty = columns.len().saturating_sub(N);
    cells.into_iter().chain(std::iter::repeat_n(String::new(), empty)).collect()
}

/// With three digits, or whole.
fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(value) if value < 0.05 => "<0.1".to_owned(),
        Some(value) if value < 9.95 && value.fract() != 0.0 => format!("{value:.1}"),
        Some(value) if value < 9_999.5 => format!("{value:.0}"),
        Some(value) if value < 999_500.0 => format!("{:.0}k", value / 1e3),
        Some(value) => format!("{:.1}M", value / 1e6),
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1}%", share * 100.0))
}

fn duration(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds < 0.000_999_5 => format!("{:.0}us", seconds * 1e6),
        Some(seconds) if seconds < 0.009_95 => format!("{:.1}ms", seconds * 1e3),
        Some(seconds) if seconds < 0.999_5 => format!("{:.0}ms", seconds * 1e3),
        Some(seconds) if seconds < 99.5 => format!("{seconds:.1}s"),
        Some(seconds) => format!("{seconds:.0}s"),
    }
}

#[cfg(test)]
mod tests;
