//! A running Envoy, by its admin interface: what it has loaded, and what stands around it.
use std::time::Duration;

use authn::config::Document;
use driver::metrics::version_number;
use serde_json::Value;

use super::finding::{Finding, Report, Severity};
use super::tls;
use crate::embedded::{self, Plugin};
use crate::exposition::Scrape;
use crate::loaded;
use crate::peers::Peers;

const OURS: &str = env!("CARGO_PKG_VERSION");
const WAIT: Duration = Duration::from_secs(10);

/// `wanted`: the configuration that it should have.
pub fn look(report: &mut Report, dump: &Value, document: &Document, wanted: Option<&Value>) {
    let plugins = loaded::plugins(dump);
    if plugins.is_empty() {
        report.found(error(
            "filter_absent",
            "no filter of ours is in Envoy's configuration".to_owned(),
            "requests pass unchecked, or Envoy answers for the filter that it could not load",
            "look for a rejected listener in Envoy's log, and at the selector of the WasmPlugin",
            "docs/operations.md#filter-absent",
        ));
    }
    for plugin in &plugins {
        for remark in plugin.remarks(Some(document)) {
            let severity = if remark.is_error { Severity::Error } else { Severity::Warning };
            report.found(Finding {
                name: if remark.message.contains("FAIL_OPEN") { "fail_open" } else { "envoy_setting" },
                severity,
                what: format!("{}: {}", remark.field, remark.message),
                why: "the filter does not protect as its configuration says",
                mend: "change this field in the source of Envoy's configuration".to_owned(),
                link: "docs/operations.md#the-doctor".to_owned(),
            });
        }
        match wanted {
            Some(wanted) if loaded::with_integers(wanted.clone()) != loaded::tree(plugin) => report.found(error(
                "configuration_differs",
                format!("{}: Envoy has another configuration than the file", plugin.place),
                "a change has not arrived, or was rejected",
                "look for `update_rejected` in Envoy's statistics, and apply the file again",
                "docs/operations.md#the-configuration",
            )),
            Some(_) => report.passed("loaded", format!("{}: the configuration of the file", plugin.place)),
            None => report.passed("loaded", plugin.place.clone()),
        }
    }
    open_elsewhere(report, dump, &mut String::new());
    before_ours(report, dump);
    for (name, state) in listeners(dump) {
        if !state["error_state"].is_null() {
            report.found(error(
                "update_rejected",
                format!("the listener {name}: {}", state["error_state"]["details"].as_str().unwrap_or("no details")),
                "Envoy goes on with the earlier configuration",
                "correct the configuration: the details name the field",
                "docs/operations.md#the-configuration",
            ));
        }
        let active = &state["active_state"];
        if let (Some(version), Some(since)) = (active["version_info"].as_str(), active["last_updated"].as_str()) {
            report.passed("loaded", format!("the listener {name}: version {version:?}, since {since}"));
        }
    }
}

/// The version of the filter that runs, by its gauge.
pub fn version(report: &mut Report, peers: &Peers, envoy: &str) {
    let url = format!("{envoy}/stats/prometheus?filter=portcullis");
    match peers.get(&url, WAIT) {
        Ok(answer) => judge_version(report, &Scrape::parse(&String::from_utf8_lossy(&answer.body))),
        Err(why) => report.skipped("version", why),
    }
}

fn judge_version(report: &mut Report, scrape: &Scrape) {
    let running = scrape.of("version").next().map(|(_, version)| version as u64);
    match running {
        Some(version) if Some(version) == version_number(OURS) => {
            report.passed("version", format!("the filter: {OURS}, as this command"));
        }
        Some(version) => report.found(Finding {
            name: "filter_version",
            severity: Severity::Warning,
            what: format!(
                "the filter in Envoy has version {}.{}.{}, this command has {OURS}",
                version / 1_000_000,
                version / 1000 % 1000,
                version % 1000
            ),
            why: "filter and service of different versions are meant for the time of an upgrade only",
            mend: "finish the upgrade, and look with the command of the filter's version".to_owned(),
            link: "docs/operations.md".to_owned(),
        }),
        None => report.skipped("version", "the filter's gauge portcullis_version: it is older, or not loaded"),
    }
}

/// The certificates that Envoy itself has loaded.
pub fn certificates(report: &mut Report, peers: &Peers, envoy: &str, soon: Duration) {
    let listed = match loaded::json(peers, &format!("{envoy}/certs")) {
        Ok(listed) => listed,
        Err(why) => return report.skipped("certificates", why),
    };
    for certificate in listed["certificates"].as_array().into_iter().flatten() {
        for kind in ["cert_chain", "ca_cert"] {
            for one in certificate[kind].as_array().into_iter().flatten() {
                let Some(days) = one["days_until_expiration"].as_str().and_then(|days| days.parse::<i64>().ok()) else {
                    continue;
                };
                let ends = one["expiration_time"].as_str().and_then(|time| crate::instant::parse(time).ok());
                let ends = ends.map_or(0, |ends| i64::try_from(ends.0).unwrap_or(i64::MAX));
                let path = one["path"].as_str().unwrap_or_default();
                if ends > 0 || days == 0 {
                    tls::expiry(report, &format!("Envoy ({kind} {path})"), ends, soon);
                }
            }
        }
    }
}

fn listeners(dump: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let sections = dump["configs"].as_array().into_iter().flatten();
    let dynamic = sections.flat_map(|section| section["dynamic_listeners"].as_array().into_iter().flatten());
    dynamic.map(|listener| (listener["name"].as_str().unwrap_or_default(), listener))
}

/// Other filters that let requests pass when they fail.
fn open_elsewhere(report: &mut Report, value: &Value, place: &mut String) {
    let end = place.len();
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                place.push_str(&format!(".{name}"));
                let is_open = *member == "FAIL_OPEN" || (name == "failure_mode_allow" && *member == true);
                // Those of ours are reported with the filter.
                let is_ours =
                    place.contains("portcullis") || value["configuration"]["value"].to_string().contains("issuers");
                if is_open && !is_ours {
                    report.found(Finding {
                        name: "fail_open",
                        severity: Severity::Warning,
                        what: format!(
                            "{}: another filter lets requests pass when it fails",
                            place.trim_start_matches('.')
                        ),
                        why: "what it should have refused reaches the filters after it",
                        mend: "let it fail closed, if requests must not pass without it".to_owned(),
                        link: "docs/operations.md#the-doctor".to_owned(),
                    });
                }
                open_elsewhere(report, member, place);
                place.truncate(end);
            }
        }
        Value::Array(members) => {
            for (index, member) in members.iter().enumerate() {
                place.push_str(&format!("[{index}]"));
                open_elsewhere(report, member, place);
                place.truncate(end);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The filters that see a request before it is checked.
fn before_ours(report: &mut Report, value: &Value) {
    if let Some(filters) = value["http_filters"].as_array() {
        let is_ours = |filter: &&Value| embedded::plugins(filter).iter().any(Plugin::is_ours);
        if filters.iter().any(|filter| is_ours(&filter)) {
            let before = filters.iter().take_while(|filter| !is_ours(filter));
            let names: Vec<&str> = before.filter_map(|filter| filter["name"].as_str()).collect();
            let says = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            report.passed("before", format!("filters that run before ours: {says}"));
        }
    }
    match value {
        Value::Object(members) => members.values().for_each(|member| before_ours(report, member)),
        Value::Array(members) => members.iter().for_each(|member| before_ours(report, member)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn error(name: &'static str, what: String, why: &'static str, mend: &str, link: &str) -> Finding {
    Finding { name, severity: Severity::Error, what, why, mend: mend.to_owned(), link: link.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_of_another_version_is_a_warning() {
        let ours = version_number(OURS).unwrap();
        for (number, found) in [(Some(ours), None), (Some(ours + 1_001_001), Some(Severity::Warning)), (None, None)] {
            let text = number.map(|number| format!("envoy_wasmcustom_portcullis_version{{}} {number}\n"));
            let mut report = Report::default();
            judge_version(&mut report, &Scrape::parse(&text.unwrap_or_default()));
            assert_eq!(report.worst(), found, "{number:?}");
        }
        assert_eq!((version_number("1.2.3"), version_number("0.1.0-rc.1")), (Some(1_002_003), Some(1000)));
        assert_eq!((version_number("1.2"), version_number("1.2.1000"), version_number("1.2.3.4")), (None, None, None));
    }
}
