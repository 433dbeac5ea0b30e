//! Metrics in Prometheus's text format, as Envoy and the service give them: the series of ours among them.
use std::collections::BTreeMap;

use driver::metrics::Metric;

/// A filter has one series for each outcome, fault and rule that occurred; more are left out.
const MAX_SERIES: usize = 50_000;
/// What Envoy puts before the names of extensions, depending on its settings.
const PREFIXES: [&str; 4] = ["envoy_", "wasmcustom_", "dynamicmodulescustom_", "portcullis_"];

/// The series of one moment, by their names without `portcullis_` and `_total`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scrape {
    series: BTreeMap<String, BTreeMap<Labels, f64>>,
    /// Series that were too many.
    pub left_out: usize,
}

/// In the order of their names.
pub type Labels = Vec<(String, String)>;

impl Scrape {
    /// Lines that are no series of ours are skipped.
    pub fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        let mut count = 0_usize;
        for (name, labels, value) in text.lines().filter_map(series) {
            let family = scrape.series.entry(name).or_default();
            match family.get_mut(&labels) {
                // Envoy's own labels are dropped, and may have been the difference.
                Some(sum) => *sum += value,
                None if count < MAX_SERIES => {
                    family.insert(labels, value);
                    count += 1;
                }
                None => scrape.left_out += 1,
            }
        }
        scrape
    }

    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    pub fn of(&self, name: &str) -> impl Iterator<Item = (&Labels, f64)> {
        self.series.get(name).into_iter().flatten().map(|(labels, value)| (labels, *value))
    }

    pub fn value(&self, name: &str, labels: &Labels) -> Option<f64> {
        self.series.get(name)?.get(labels).copied()
    }
}

pub fn label<'l>(labels: &'l Labels, name: &str) -> Option<&'l str> {
    labels.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn series(line: &str) -> Option<(String, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let name = ours(name)?;
    let (mut labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels_of(rest)?,
        None => (Labels::new(), rest),
    };
    // A time or an exemplar may follow.
    let value: f64 = rest.split_whitespace().next()?.parse().ok()?;
    if !value.is_finite() {
        return None;
    }
    let name = match labels_in_name(name) {
        Some((family, more)) => {
            labels.extend(more);
            family.to_owned()
        }
        None => name.strip_suffix("_total").unwrap_or(name).to_owned(),
    };
    labels.retain(|(name, _)| !name.starts_with("envoy_"));
    labels.sort_unstable();
    Some((name, labels, value))
}

fn ours(name: &str) -> Option<&str> {
    let mut rest = name;
    for prefix in PREFIXES {
        match rest.strip_prefix(prefix) {
            Some(stripped) => rest = stripped,
            None if prefix == "portcullis_" => return None,
            None => {}
        }
    }
    Some(rest)
}

/// Of a Wasm filter in an Envoy without `stats_tags`: `requests_outcome_refused_fault_JWT_EXPIRED_rule_api`.
fn labels_in_name(name: &str) -> Option<(&'static str, Labels)> {
    Metric::ALL.iter().find_map(|metric| {
        let rest = name.strip_prefix(metric.name())?.strip_prefix('_')?;
        let (first, others) = metric.labels().split_first()?;
        let mut rest = rest.strip_prefix(first)?.strip_prefix('_')?;
        let mut labels = Labels::new();
        let mut current = first;
        for next in others {
            let (value, after) = rest.split_once(&format!("_{next}_"))?;
            labels.push(((*current).to_owned(), value.to_owned()));
            (current, rest) = (next, after);
        }
        labels.push(((*current).to_owned(), rest.to_owned()));
        Some((metric.name(), labels))
    })
}

/// The labels, and what follows the brace.
fn labels_of(text: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        let end = loop {
            match characters.next()? {
                (end, '"') => break end,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((name.trim().to_owned(), value));
        rest = quoted.get(end + 1..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn both_hosts_and_both_settings_of_envoy_give_the_same_series() {
        let wanted = labels(&[("fault", "JWT_EXPIRED"), ("outcome", "refused"), ("rule", "api_v1")]);
        for line in [
            r#"portcullis_requests{outcome="refused",fault="JWT_EXPIRED",rule="api_v1"} 7"#,
            r#"portcullis_requests{ outcome="refused", fault="JWT_EXPIRED", rule="api_v1", envoy_x="y", } 7 1700000000"#,
            "portcullis_requests_outcome_refused_fault_JWT_EXPIRED_rule_api_v1{} 7",
            "envoy_wasmcustom_portcullis_requests_outcome_refused_fault_JWT_EXPIRED_rule_api_v1 7",
            r#"envoy_dynamicmodulescustom_portcullis_requests{rule="api_v1",fault="JWT_EXPIRED",outcome="refused"} 7"#,
        ] {
            let scrape = Scrape::parse(line);
            assert_eq!(scrape.of("requests").collect::<Vec<_>>(), [(&wanted, 7.0)], "{line}");
        }
    }

    #[test]
    fn the_services_counters_lose_their_suffix_and_values_are_unescaped() {
        let text = "# TYPE portcullis_checks counter\nportcullis_checks_total{result=\"answered\"} 3 # {a=\"b\"} 1\n\
                    portcullis_odd{a=\"x\\\"}\\\\\\n\"} 1\nother_total 5\nportcullis_bad{a=\"} 1\nportcullis_nan NaN\n# EOF\n";
        let scrape = Scrape::parse(text);
        assert_eq!(scrape.value("checks", &labels(&[("result", "answered")])), Some(3.0));
        assert_eq!(scrape.value("odd", &labels(&[("a", "x\"}\\\n")])), Some(1.0));
        assert_eq!(scrape.series.len(), 2);
    }

    #[test]
    fn series_that_differ_in_envoys_labels_alone_are_added_and_too_many_are_counted() {
        let sum = "portcullis_checks_sent{envoy_a=\"1\"} 2\nportcullis_checks_sent{envoy_a=\"2\"} 3\n";
        assert_eq!(Scrape::parse(sum).value("checks_sent", &Labels::new()), Some(5.0));
        let many: String = (0..=MAX_SERIES).map(|n| format!("portcullis_requests{{rule=\"{n}\"}} 1\n")).collect();
        assert_eq!(Scrape::parse(&many).left_out, 1);
    }
}
