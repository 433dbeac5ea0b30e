//! The service's admin listener: which version runs, and what its metrics say.
use std::time::Duration;

use authn::time::UnixSeconds;
use driver::CalloutReply as _;
use serde_json::Value;

use super::finding::{Finding, Report, Severity};
use crate::exposition::{Scrape, label};
use crate::peers::Peers;

const WAIT: Duration = Duration::from_secs(5);
/// Filters that follow the feed may accept proofs of this age.
const FEED_SECONDS: f64 = 5.0;
const OURS: &str = env!("CARGO_PKG_VERSION");
/// As the service judges it: a region is cut off after this time without a proof.
const REGION_SECONDS: f64 = 30.0;
const REGIONS: &str = "docs/regions.md";
const NOT_READY: &str = "docs/operations.md#store-not-ready";

/// `url`: the admin listener.
pub fn look(report: &mut Report, peers: &Peers, url: &str, now: UnixSeconds) {
    let whose = format!("the service at {url}");
    match get(peers, &format!("{url}/openapi.json")) {
        Ok(body) => version(report, &whose, &body),
        Err(why) => return report.found(unreachable(why)),
    }
    match get(peers, &format!("{url}/metrics")) {
        Ok(body) => {
            // It answers 503 if it is not ready, and says why.
            let readiness = peers.get(&format!("{url}/readyz"), WAIT).map(|answer| answer.body).unwrap_or_default();
            let readiness = serde_json::from_slice(&readiness).unwrap_or_default();
            metrics(report, &whose, &Scrape::parse(&String::from_utf8_lossy(&body)), &readiness, now);
        }
        Err(why) => report.found(unreachable(why)),
    }
}

fn get(peers: &Peers, url: &str) -> Result<Vec<u8>, String> {
    let answer = peers.get(url, WAIT)?;
    match answer.status() {
        Some(200) => Ok(answer.body),
        status => Err(format!("{url}: HTTP status {}", status.unwrap_or_default())),
    }
}

fn unreachable(why: String) -> Finding {
    Finding {
        name: "admin_unreachable",
        severity: Severity::Error,
        what: format!("the service's admin listener does not answer: {why}"),
        why: "nothing can be revoked there",
        mend: "give --service the admin listener (--admin-listen), and look whether the service runs".to_owned(),
        link: "docs/operations.md#run-the-service".to_owned(),
    }
}

fn version(report: &mut Report, whose: &str, document: &[u8]) {
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    match document["info"]["version"].as_str() {
        Some(OURS) => report.passed("version", format!("{whose}: {OURS}, as this command")),
        version => report.found(Finding {
            name: "service_version",
            severity: Severity::Warning,
            what: format!("{whose} has version {}, this command has {OURS}", version.unwrap_or("unknown")),
            why: "this command judges it by its own version",
            mend: "use the command of the service's version, or finish the upgrade".to_owned(),
            link: "docs/operations.md".to_owned(),
        }),
    }
}

/// `readiness`: its answer to /readyz.
fn metrics(report: &mut Report, whose: &str, scrape: &Scrape, readiness: &Value, now: UnixSeconds) {
    let sum = |name: &str| scrape.of(name).map(|(_, value)| value).reduce(|sum, value| sum + value);
    let before = report.findings.len();
    let mut found = |name, severity, what: &str, why, mend: &str, link: &str| {
        let what = format!("{whose}: {what}");
        report.found(Finding { name, severity, what, why, mend: mend.to_owned(), link: link.to_owned() });
    };
    if sum("store_ready") == Some(0.0) {
        let why = "it answers no check, and requests that need one get 503";
        let what = match readiness["trouble"].as_str() {
            Some(trouble) => format!("its store is not ready: {trouble}"),
            None => "its store is not ready".to_owned(),
        };
        let mend = "do what is said there of this word; the service's log has the details";
        let link = "docs/operations.md#what-each-503-means";
        found("store_not_ready", Severity::Error, &what, why, mend, link);
    }
    if sum("redis_evicted_keys").is_some_and(|keys| keys > 0.0) {
        let why = "some of them may have been revocations, so the service refuses to answer from it";
        let mend = "restore the store, or revoke again what must stay revoked";
        found("redis_evicts", Severity::Error, "Redis has evicted keys", why, mend, NOT_READY);
    }
    if sum("signing_ready") == Some(0.0) {
        let why = "no session with a JWT begins or is refreshed";
        let mend = "look at its log, and at the HSM";
        let link = "docs/sessions.md#keys-in-an-hsm-pkcs11";
        found("signing_unavailable", Severity::Error, "its key does not sign", why, mend, link);
    }
    if let Some(failed) = sum("revocations_failed").filter(|failed| *failed > 0.0) {
        let what = format!("{failed} revocations were not acknowledged since it started");
        let why = "they may not be in force";
        let mend = "look at its log and repeat them; `portcullis revoke list` shows those that are in force";
        found("revocations_failed", Severity::Warning, &what, why, mend, "docs/metrics.md#the-service");
    }
    let is_full = |labels| label(labels, "event") == Some("full");
    if scrape.of("status_lists").any(|(labels, value)| is_full(labels) && value > 0.0) {
        let why = "JWTs without an index are not issued";
        let what = "its status lists had no free index";
        let link = "docs/sessions.md#status-lists";
        found("status_lists_full", Severity::Warning, what, why, "raise --status-lists", link);
    }
    // Only while somebody follows.
    let complete =
        sum("feed_complete_timestamp_seconds").filter(|_| sum("feed_followers").is_some_and(|all| all > 0.0));
    if let Some(age) = complete.map(|complete| now.0 as f64 - complete).filter(|age| *age > FEED_SECONDS) {
        let what = format!("its feed was last complete {age:.0} s ago");
        let why = "filters then ask about each token: more load, and no less safety";
        let mend = "look at its metric portcullis_feed_rounds_total, and at Redis";
        found("feed", Severity::Warning, &what, why, mend, "docs/feed.md");
    }
    regions(report, whose, scrape, readiness["regions"] == "joined", now);
    if report.findings.len() == before {
        report.passed("metrics", format!("{whose}: nothing in its metrics is wrong"));
    }
}

/// The other regions that it follows. `are_joined`: it does not say that one of them is cut off.
fn regions(report: &mut Report, whose: &str, scrape: &Scrape, are_joined: bool, now: UnixSeconds) {
    for (labels, complete) in scrape.of("region_complete_timestamp_seconds") {
        let region = label(labels, "region").unwrap_or_default();
        let age = now.0 as f64 - complete;
        // Just started: it compares itself with the region for the first time.
        if complete == 0.0 && are_joined {
            report.passed("regions", format!("{whose}: it has not heard everything of the region {region} yet"));
        } else if age > REGION_SECONDS {
            let since = if complete > 0.0 { format!("for {age:.0} s") } else { "since it started".to_owned() };
            report.found(Finding {
                name: "region_cut_off",
                severity: Severity::Error,
                what: format!("{whose}: it has not heard everything of the region {region} {since}"),
                why: "revocations that were made there do not hold here",
                mend: "look at portcullis_region_requests_total and the log of this service, and at the service there"
                    .to_owned(),
                link: REGIONS.to_owned(),
            });
        }
    }
    for (labels, _) in scrape.of("region_mismatch").filter(|(_, value)| *value > 0.0) {
        let of = |name| label(labels, name).unwrap_or_default();
        report.found(Finding {
            name: "region_mismatch",
            severity: Severity::Error,
            what: format!("{whose}: the region {} differs in {}", of("region"), of("what")),
            why: "revocations of one region may have no effect in the other, or end too early",
            mend: "give the services of all regions the same secrets, lifetimes and tolerance, and synchronise their clocks".to_owned(),
            link: REGIONS.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: UnixSeconds = UnixSeconds(1_750_000_000);

    fn found(text: &str) -> Vec<&'static str> {
        found_if(text, false)
    }

    fn found_if(text: &str, are_joined: bool) -> Vec<&'static str> {
        let mut report = Report::default();
        let readiness = if are_joined { json!({ "regions": "joined" }) } else { Value::Null };
        metrics(&mut report, "the service", &Scrape::parse(text), &readiness, NOW);
        report.findings.iter().map(|finding| finding.name).collect()
    }

    #[test]
    fn each_metric_that_says_that_something_is_wrong_is_a_finding() {
        let healthy = "portcullis_store_ready 1\nportcullis_redis_evicted_keys 0\nportcullis_signing_ready 1\n\
                       portcullis_revocations_failed_total{reason=\"unknown\"} 0\n\
                       portcullis_status_lists_total{event=\"full\"} 0\nportcullis_status_lists_total{event=\"built\"} 3\n\
                       portcullis_feed_followers 2\nportcullis_feed_complete_timestamp_seconds 1749999998\n\
                       portcullis_region_complete_timestamp_seconds{region=\"eu\"} 1749999997\n\
                       portcullis_region_mismatch{region=\"eu\",what=\"clock\"} 0\n";
        assert!(found(healthy).is_empty());
        for (from, to, name) in [
            ("store_ready 1", "store_ready 0", "store_not_ready"),
            ("evicted_keys 0", "evicted_keys 7", "redis_evicts"),
            ("signing_ready 1", "signing_ready 0", "signing_unavailable"),
            ("\"unknown\"} 0", "\"unknown\"} 1", "revocations_failed"),
            ("\"full\"} 0", "\"full\"} 1", "status_lists_full"),
            ("1749999998", "1749999990", "feed"),
            ("1749999998", "0", "feed"),
            ("1749999997", "1749999900", "region_cut_off"),
            ("1749999997", "0", "region_cut_off"),
            ("\"clock\"} 0", "\"clock\"} 1", "region_mismatch"),
        ] {
            assert_eq!(found(&healthy.replace(from, to)), [name], "{to}");
        }
        assert!(found(&healthy.replace("followers 2", "followers 0").replace("1749999998", "0")).is_empty());
        // It has just started, and has not decided yet whether a region is cut off.
        assert!(found_if(&healthy.replace("1749999997", "0"), true).is_empty());
    }

    #[test]
    fn another_version_is_a_warning() {
        for (document, is_found) in [
            (format!(r#"{{"info":{{"version":"{OURS}"}}}}"#), false),
            (r#"{"info":{"version":"9.9.9"}}"#.to_owned(), true),
            ("no JSON".to_owned(), true),
        ] {
            let mut report = Report::default();
            version(&mut report, "the service", document.as_bytes());
            assert_eq!(report.worst(), is_found.then_some(Severity::Warning), "{document}");
        }
    }
}
