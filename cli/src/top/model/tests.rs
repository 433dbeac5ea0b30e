use super::*;

const START: &str = r#"
portcullis_requests{outcome="admitted",fault="none",rule="api"} 1000
portcullis_requests{outcome="refused",fault="JWT_EXPIRED",rule="api"} 10
portcullis_token_cache{result="hit"} 500
portcullis_token_cache{result="miss"} 500
portcullis_checks_sent 100
portcullis_waiting_requests{reason="check"} 3
portcullis_check_microseconds_bucket{le="1000"} 0
portcullis_check_microseconds_bucket{le="5000"} 0
portcullis_check_microseconds_bucket{le="+Inf"} 0
"#;

/// 10 s later.
const LATER: &str = r#"
portcullis_requests{outcome="admitted",fault="none",rule="api"} 1900
portcullis_requests{outcome="refused",fault="JWT_EXPIRED",rule="api"} 60
portcullis_requests{outcome="refused",fault="SCOPE_INSUFFICIENT",rule="admin"} 30
portcullis_requests{outcome="cannot_tell",fault="STORE_UNAVAILABLE",rule="api"} 20
portcullis_token_cache{result="hit"} 1400
portcullis_token_cache{result="miss"} 600
portcullis_checks_sent 150
portcullis_waiting_requests{reason="check"} 4
portcullis_waiting_requests{reason="keys"} 1
portcullis_feed_age_milliseconds 420
portcullis_check_microseconds_bucket{le="1000"} 50
portcullis_check_microseconds_bucket{le="5000"} 100
portcullis_check_microseconds_bucket{le="+Inf"} 100
"#;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn watched(kind: Kind, url: &str, texts: &[&str]) -> Watched {
    let mut watched = Watched::new(kind, url);
    for (text, seconds) in texts.iter().zip((0..).step_by(10)) {
        watched.observe(at(seconds), Ok(Scrape::parse(text)));
    }
    watched
}

fn proxies(proxies: &[Watched]) -> Vec<Section> {
    sections(proxies, None, 0.0)
}

fn cells(section: &Section) -> Vec<String> {
    section.lines.iter().map(|line| line.cells.join(" ").trim_end().to_owned()).collect()
}

#[test]
fn a_proxy_its_rules_and_its_faults_are_rates_between_two_scrapes() {
    let sections = proxies(&[watched(Kind::Proxy, "http://a:9901/", &[START, LATER])]);
    let titles: Vec<_> = sections.iter().map(|section| section.title).collect();
    assert_eq!(titles, ["Proxies", "Rules", "Faults"]);
    assert!(sections.iter().all(|section| section.lines.iter().all(|line| line.cells.len() == section.columns.len())));
    assert_eq!(cells(&sections[0]), ["a:9901 100 90 8 2 0 90.0% - 5 1.0ms 4.9ms 5 420ms"]);
    assert!(sections[0].lines[0].is_alarm, "requests got 503");
    assert_eq!(cells(&sections[1]), ["api 97 90 5 2 0 JWT_EXPIRED", "admin 3 0 3 0 0 SCOPE_INSUFFICIENT"]);
    assert_eq!(
        cells(&sections[2]),
        ["JWT_EXPIRED 5 5.0% 60", "SCOPE_INSUFFICIENT 3 3.0% 30", "STORE_UNAVAILABLE 2 2.0% 20"]
    );
    let alarms: Vec<_> = sections[2].lines.iter().map(|line| line.is_alarm).collect();
    assert_eq!(alarms, [false, false, true]);
}

#[test]
fn one_scrape_shows_gauges_and_no_rates() {
    let sections = proxies(&[watched(Kind::Proxy, "http://a:9901", &[START])]);
    assert_eq!(cells(&sections[0]), ["a:9901 - - - - - - - - - - 3 -"]);
    assert!(sections[1].lines.is_empty() && !sections[0].lines[0].is_alarm);
}

#[test]
fn a_proxy_that_began_anew_has_no_negative_rate() {
    let again = "portcullis_requests{outcome=\"admitted\",fault=\"none\",rule=\"api\"} 50\n";
    let sections = proxies(&[watched(Kind::Proxy, "http://a:9901", &[LATER, again])]);
    assert!(cells(&sections[0])[0].starts_with("a:9901 5 5 0 0 0 "), "{sections:?}");
}

#[test]
fn a_proxy_that_is_unreachable_says_so_and_counts_for_nothing() {
    let up = watched(Kind::Proxy, "http://a:9901", &[START, LATER]);
    let mut down = watched(Kind::Proxy, "http://b:9901", &[START, LATER]);
    down.observe(at(20), Err("http://b:9901/stats/prometheus?filter=portcullis: Connection refused".into()));
    let never = Watched::new(Kind::Proxy, "http://c:9901");
    let without = watched(Kind::Proxy, "http://d:9901", &["", "envoy_server_uptime 5\n"]);
    let sections = proxies(&[up, down, never, without]);
    let shown = cells(&sections[0]);
    assert_eq!(
        shown[1..],
        ["b:9901 unreachable: Connection refused", "c:9901 unreachable: no answer yet", "d:9901 has no metric of ours"]
    );
    assert_eq!(sections[0].lines.iter().map(|line| line.is_alarm).collect::<Vec<_>>(), [true, true, false, true]);
    assert_eq!(cells(&sections[2])[0], "JWT_EXPIRED 5 5.0% 60");
}

#[test]
fn a_proxy_that_is_back_has_rates_over_its_absence() {
    let mut back = watched(Kind::Proxy, "http://a:9901", &[START]);
    back.observe(at(10), Err("timeout".into()));
    assert!(!back.is_reachable());
    back.observe(at(100), Ok(Scrape::parse(LATER)));
    assert!(back.is_reachable());
    assert!(cells(&proxies(&[back])[0])[0].starts_with("a:9901 10 9 0.8 0.2 0 "));
}

#[test]
fn rules_and_faults_are_of_all_proxies_or_of_one() {
    let all = [
        watched(Kind::Proxy, "http://a:9901", &[START, LATER]),
        watched(Kind::Proxy, "http://b:9901", &[START, LATER]),
        watched(Kind::Proxy, "http://c:9901", &[START, START]),
    ];
    assert_eq!(cells(&sections(&all, None, 0.0)[2])[0], "JWT_EXPIRED 10 5.0% 130");
    assert_eq!(cells(&sections(&all, Some(1), 0.0)[2])[0], "JWT_EXPIRED 5 5.0% 60");
    assert_eq!(cells(&sections(&all, Some(2), 0.0)[2]), ["JWT_EXPIRED 0 - 10"]);
}

#[test]
fn a_service_shows_its_store_and_its_feed() {
    let start = "portcullis_checks_total{result=\"answered\"} 0\nportcullis_store_ready 1\n";
    let later = r#"
portcullis_checks_total{result="answered"} 1230
portcullis_troubles_total{trouble="store_slow"} 5
portcullis_revocations_total{kind="user"} 20
portcullis_redis_seconds_bucket{le="0.001"} 90
portcullis_redis_seconds_bucket{le="0.01"} 100
portcullis_redis_seconds_bucket{le="+Inf"} 100
portcullis_feed_followers 7
portcullis_feed_complete_timestamp_seconds 999.5
portcullis_feed_keys 12000
portcullis_store_ready 0
"#;
    let all = [watched(Kind::Service, "https://s:7701", &[start, later])];
    let sections = sections(&all, None, 1000.0);
    assert_eq!(sections.len(), 1);
    assert_eq!(cells(&sections[0]), ["s:7701 123 0.5 556us 9.1ms 2 - 7 500ms 12k NOT READY"]);
    assert!(sections[0].lines[0].is_alarm);
    assert_eq!(all[0].metrics_url(), "https://s:7701/metrics");
}

#[test]
fn figures_have_few_digits() {
    let numbers = [0.0, 0.01, 0.25, 3.0, 99.96, 12_345.0, 2e6].map(|value| number(Some(value)));
    assert_eq!(numbers, ["0", "<0.1", "0.2", "3", "100", "12k", "2.0M"]);
    let durations = [0.0005, 0.0042, 0.25, 4.2, 300.0].map(|value| duration(Some(value)));
    assert_eq!(durations, ["500us", "4.2ms", "250ms", "4.2s", "300s"]);
}
