//! Redis Sentinel: whether a failover could be decided, and whether there is a replica to fail over to.
use std::collections::BTreeMap;

use service::SentinelReport;

use super::finding::{Finding, Report, Severity};

/// With two, the loss of one of them prevents a failover.
const LEAST: usize = 3;
/// What a replica or primary has among its flags while the Sentinel does not reach it.
const DOWN: [&str; 3] = ["s_down", "o_down", "disconnected"];
const LINK: &str = "docs/operations.md#the-doctor";

pub fn look(report: &mut Report, sentinels: &[(String, Result<SentinelReport, String>)]) {
    for (address, said) in sentinels {
        match said {
            Ok(said) => look_at(report, address, said),
            Err(why) => report.found(Finding {
                name: "sentinel_unreachable",
                severity: Severity::Warning,
                what: format!("the Sentinel {address} does not answer: {why}"),
                why: "a failover needs most of the Sentinels",
                mend: "start it, or take it out of --redis if it is gone".to_owned(),
                link: LINK.to_owned(),
            }),
        }
    }
}

fn look_at(report: &mut Report, address: &str, said: &SentinelReport) {
    let before = report.findings.len();
    let mut found = |name, severity, what: String, why, mend: &str| {
        let what = format!("the Sentinel {address}: {what}");
        report.found(Finding { name, severity, what, why, mend: mend.to_owned(), link: LINK.to_owned() });
    };
    if let Some(why) = &said.no_quorum {
        let mend =
            "start the other Sentinels, and look at the network between; the quorum must not exceed their number";
        found(
            "sentinel_quorum",
            Severity::Error,
            why.clone(),
            "if the primary fails, no replica takes its place",
            mend,
        );
    }
    let others: usize = said.primary.get("num-other-sentinels").and_then(|text| text.parse().ok()).unwrap_or_default();
    if others + 1 < LEAST {
        let what = format!("other Sentinels that it knows: {others}");
        let why = "with fewer than three, the loss of one prevents a failover";
        found("sentinel_few", Severity::Warning, what, why, "run at least three, on different machines");
    }
    if is_down(&said.primary) {
        let what = format!("it does not reach the primary {}", place(&said.primary));
        found(
            "sentinel_primary_down",
            Severity::Error,
            what,
            "a failover is near",
            "look at the primary and the network",
        );
    }
    if said.replicas.is_empty() {
        let what = "the primary has no replica".to_owned();
        let why = "if the primary fails, nothing takes its place: every request with a check gets 503";
        found("sentinel_no_replica", Severity::Error, what, why, "add a replica");
    }
    for replica in said.replicas.iter().filter(|replica| is_down(replica)) {
        let what = format!("it does not reach the replica {}", place(replica));
        let why = "the replica cannot take the primary's place";
        found(
            "sentinel_replica_down",
            Severity::Warning,
            what,
            why,
            "start it, or SENTINEL RESET if it is gone for good",
        );
    }
    if report.findings.len() == before {
        report.passed(
            "sentinel",
            format!("{address}: a quorum; other Sentinels: {others}; replicas: {}", said.replicas.len()),
        );
    }
}

fn is_down(fields: &BTreeMap<String, String>) -> bool {
    let flags = fields.get("flags").map_or("", String::as_str);
    flags.split(',').any(|flag| DOWN.contains(&flag))
}

fn place(fields: &BTreeMap<String, String>) -> &str {
    fields.get("name").map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn healthy() -> SentinelReport {
        SentinelReport {
            primary: fields(&[("name", "main"), ("flags", "master"), ("num-other-sentinels", "2")]),
            replicas: vec![fields(&[("name", "10.0.0.2:6379"), ("flags", "slave")])],
            no_quorum: None,
        }
    }

    fn found(said: Result<SentinelReport, String>) -> Vec<&'static str> {
        let mut report = Report::default();
        look(&mut report, &[("10.0.0.9:26379".to_owned(), said)]);
        report.findings.iter().map(|finding| finding.name).collect()
    }

    #[test]
    fn what_keeps_a_failover_from_succeeding_is_found() {
        assert!(found(Ok(healthy())).is_empty());
        assert_eq!(found(Err("refused".into())), ["sentinel_unreachable"]);
        let no_quorum = Some("NOQUORUM 1 usable Sentinels".to_owned());
        assert_eq!(found(Ok(SentinelReport { no_quorum, ..healthy() })), ["sentinel_quorum"]);
        assert_eq!(found(Ok(SentinelReport { replicas: vec![], ..healthy() })), ["sentinel_no_replica"]);
        let replicas = vec![fields(&[("name", "10.0.0.2:6379"), ("flags", "s_down,slave,disconnected")])];
        assert_eq!(found(Ok(SentinelReport { replicas, ..healthy() })), ["sentinel_replica_down"]);
        let primary = fields(&[("flags", "s_down,master"), ("num-other-sentinels", "1")]);
        assert_eq!(found(Ok(SentinelReport { primary, ..healthy() })), ["sentinel_few", "sentinel_primary_down"]);
    }
}
