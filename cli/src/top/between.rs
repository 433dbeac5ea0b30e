//! What happened between two scrapes: rates, shares and quantiles. A counter that went down began again at 0.
use std::collections::BTreeMap;

use crate::exposition::{Labels, Scrape, label};

#[derive(Clone, Copy)]
pub struct Between<'s> {
    /// `None`: this is the first one.
    pub before: Option<&'s Scrape>,
    pub now: &'s Scrape,
    pub seconds: f64,
}

impl<'s> Between<'s> {
    /// The events of each series. A series appears with its first event.
    fn events(self, name: &str) -> impl Iterator<Item = (&'s Labels, f64)> {
        self.now.of(name).map(move |(labels, now)| {
            let before = self.before.and_then(|before| before.value(name, labels)).unwrap_or(0.0);
            (labels, if now < before { now } else { now - before })
        })
    }

    /// Events in a second, of each series. Empty if there is nothing to compare with.
    pub fn rates(self, name: &str) -> impl Iterator<Item = (&'s Labels, f64)> {
        let is_known = self.before.is_some() && self.seconds > 0.0;
        self.events(name).filter(move |_| is_known).map(move |(labels, events)| (labels, events / self.seconds))
    }

    /// Events in a second, of the series that `is_wanted`. `None`: there is nothing to compare with.
    pub fn rate(self, name: &str, is_wanted: impl Fn(&Labels) -> bool) -> Option<f64> {
        let is_known = self.before.is_some() && self.seconds > 0.0;
        is_known.then(|| self.rates(name).filter(|(labels, _)| is_wanted(labels)).map(|(_, rate)| rate).sum())
    }

    /// The rate of all series with this value of a label.
    pub fn rate_of(self, name: &str, of: &str, value: &str) -> Option<f64> {
        self.rate(name, |labels| label(labels, of) == Some(value))
    }

    /// The rates by the values of a label.
    pub fn rates_by(self, name: &str, by: &str) -> BTreeMap<&'s str, f64> {
        let mut rates = BTreeMap::new();
        for (labels, rate) in self.rates(name) {
            *rates.entry(label(labels, by).unwrap_or("none")).or_default() += rate;
        }
        rates
    }

    /// The share of events with `result` among all, if there were any.
    pub fn share(self, name: &str, of: &str, value: &str) -> Option<f64> {
        let (part, all) = (self.rate_of(name, of, value)?, self.rate(name, |_| true)?);
        (all > 0.0).then(|| part / all)
    }

    /// A gauge now; the sum of its series. `None`: there is no such series.
    pub fn gauge(self, name: &str) -> Option<f64> {
        self.now.of(name).map(|(_, value)| value).reduce(|sum, value| sum + value)
    }

    /// The value that this share of the observations did not exceed, by the buckets of a histogram. It is interpolated in its
    /// bucket. `None`: nothing was observed.
    pub fn quantile(self, name: &str, share: f64) -> Option<f64> {
        self.before?;
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (labels, events) in self.events(&format!("{name}_bucket")) {
            let bound = match label(labels, "le")? {
                "+Inf" => f64::INFINITY,
                bound => bound.parse().ok()?,
            };
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, sum)) => *sum += events,
                None => buckets.push((bound, events)),
            }
        }
        buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let all = buckets.last().map(|(_, all)| *all).filter(|all| *all > 0.0)?;
        let wanted = all * share;
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, until) in buckets {
            if until >= wanted {
                let is_exact = bound.is_infinite() || until <= below;
                return Some(if is_exact { low } else { low + (bound - low) * (wanted - below) / (until - below) });
            }
            (low, below) = (bound, until);
        }
        Some(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between<'s>(before: &'s Scrape, now: &'s Scrape) -> Between<'s> {
        Between { before: Some(before), now, seconds: 2.0 }
    }

    #[test]
    fn a_series_that_is_new_began_at_0_and_so_did_a_counter_that_went_down() {
        let before = Scrape::parse("portcullis_requests{rule=\"a\"} 100\n");
        let now = Scrape::parse("portcullis_requests{rule=\"a\"} 10\nportcullis_requests{rule=\"b\"} 6\n");
        let between = between(&before, &now);
        assert_eq!(between.rate_of("requests", "rule", "a"), Some(5.0));
        assert_eq!(between.rate_of("requests", "rule", "b"), Some(3.0));
        assert_eq!(between.rates_by("requests", "rule"), BTreeMap::from([("a", 5.0), ("b", 3.0)]));
        assert_eq!(between.share("requests", "rule", "b"), Some(0.375));
        assert_eq!(between.rate("absent", |_| true), Some(0.0));
        assert_eq!(between.share("absent", "rule", "b"), None);
    }

    #[test]
    fn one_scrape_has_gauges_and_no_rates() {
        let now = Scrape::parse(
            "portcullis_waiting_requests{reason=\"check\"} 2\nportcullis_waiting_requests{reason=\"keys\"} 1\n",
        );
        let first = Between { before: None, now: &now, seconds: 0.0 };
        assert_eq!((first.gauge("waiting_requests"), first.gauge("absent")), (Some(3.0), None));
        assert_eq!((first.rate("waiting_requests", |_| true), first.quantile("x", 0.5)), (None, None));
        let at_once = Between { before: Some(&now), now: &now, seconds: 0.0 };
        assert_eq!(at_once.rate("waiting_requests", |_| true), None);
    }

    #[test]
    fn a_quantile_is_of_what_was_observed_between() {
        let buckets = |counts: [u32; 4]| {
            let lines = ["1", "5", "10", "+Inf"].iter().zip(counts);
            let lines =
                lines.map(|(le, count)| format!("portcullis_check_microseconds_bucket{{le=\"{le}\"}} {count}\n"));
            Scrape::parse(&lines.collect::<String>())
        };
        let (before, now) = (buckets([100, 100, 100, 100]), buckets([100, 104, 108, 110]));
        let quantile = |share| between(&before, &now).quantile("check_microseconds", share);
        assert_eq!(quantile(0.4), Some(5.0));
        assert_eq!(quantile(0.6), Some(7.5));
        assert_eq!(quantile(0.99), Some(10.0), "beyond the last bound nothing is known");
        assert_eq!(between(&now, &now).quantile("check_microseconds", 0.5), None);
    }
}
