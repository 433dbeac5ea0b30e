//! Reports of sightings over HTTP, and what signs of a hijacked session lead to.
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use serde_json::Value;
use wire::check::{NamedIssuer, Needs, StoreError};
use wire::sightings::{Client, PATH, Place, Report, Sighting};
use wire::{Answer, Cidr, Kind, Kinds, Retention, RevocationKey};

use crate::support::*;

const SOON: Duration = Duration::from_secs(5);
pub const HOME: &str = "203.0.113.0/24";
pub const ELSEWHERE: &str = "198.51.100.0/24";

fn started_with(settings: &str) -> (Redis, Running) {
    let redis = Redis::start();
    let file = file(&redis, "hijack.yaml", settings.as_bytes());
    let running = Running::start(options_with(&redis, &["--sightings-file", file.to_str().unwrap()]));
    (redis, running)
}

pub fn sighting(sid: &str, network: &str) -> Sighting {
    let client = Client { network: Cidr::parse(network), ..Client::default() };
    let (session, user) = (key(Kind::Session, sid), Some(key(Kind::User, &format!("user-{sid}"))));
    Sighting { kind: Kind::Session, session, user, age_millis: 0, client, names: None }
}

pub fn report_at(now_seconds: u64, sightings: &[Sighting]) -> Report {
    let needs = Needs { now_seconds, ..needs() };
    Report::new(&secret(1).derive(), nonce(), needs, sightings)
}

pub fn send(service: &Running, report: &Report) -> bool {
    let (status, body) = service.post_bytes(PATH, report.bytes());
    report.is_taken(&secret(1).derive(), status, &body).expect("the reply must be authentic")
}

/// Reports one after the other, so that they are judged in this order.
pub fn see(service: &Running, sid: &str, networks: &[&str]) {
    for network in networks {
        let before = metric(service, "sighting_reports_total{result=\"judged\"}");
        assert!(send(service, &report_at(now(), &[sighting(sid, network)])));
        eventually(SOON, || (metric(service, "sighting_reports_total{result=\"judged\"}") > before).then_some(()));
        // Its judgement takes a few milliseconds more.
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn metric(service: &Running, series: &str) -> u64 {
    let (_, text) = service.admin_text("GET", "/metrics", Some(ADMIN), "");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("portcullis_{series} ")));
    line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
}

fn is_dead(service: &Running, key: RevocationKey) -> bool {
    service.check(&[key]) == Ok(vec![Answer::Dead])
}

#[test]
fn a_session_that_is_used_from_another_network_ends_and_no_other_does() {
    let (_redis, service) = started_with("signals: { network: [audit, end] }");
    see(&service, "stolen", &[HOME, ELSEWHERE]);
    see(&service, "other", &[HOME, HOME]);
    eventually(SOON, || is_dead(&service, key(Kind::Session, "stolen")).then_some(()));
    assert_eq!(service.check(&[key(Kind::Session, "other")]), Ok(vec![Answer::Live]));
    assert_eq!(metric(&service, "hijack_signals_total{signal=\"network\"}"), 1);
    assert_eq!(metric(&service, "hijack_actions_total{result=\"ended\"}"), 1);
    let (status, entries) = service.admin("GET", "/v1/audit", "");
    let entry = entries["entries"].as_array().unwrap().iter().find(|entry| entry["action"] == "session.hijack");
    let entry = entry.unwrap_or_else(|| panic!("{status}: {entries}"));
    assert_eq!((&entry["outcome"], &entry["by"]), (&"network".into(), &"hijack detection".into()));
    assert_eq!(entry["id"], key(Kind::Session, "stolen").to_string());
    let reason: Value = serde_json::from_str(entry["reason"].as_str().unwrap()).unwrap();
    assert_eq!((&reason["before"]["network"], &reason["now"]["network"]), (&HOME.into(), &ELSEWHERE.into()));
    assert_eq!(reason["user"], key(Kind::User, "user-stolen").to_string());
}

#[test]
fn a_thief_who_is_first_to_use_a_session_is_found_if_it_is_known_where_it_was_made() {
    let redis = Redis::start();
    let settings = file(&redis, "hijack.yaml", b"signals: { network: [end] }");
    let ours = "https://sessions.example";
    let more = ["--session-issuer", ours, "--session-audience", "api", "--sightings-file", settings.to_str().unwrap()];
    let service = Running::start(options_with(&redis, &more));
    let used_first = |made_from: Value| {
        let body = serde_json::json!({ "subject": "alice", "made_from": made_from });
        let (status, made) = service.admin("POST", "/v1/sessions", &body.to_string());
        assert_eq!(status, 201, "{made}");
        let sid = made["sid"].as_str().unwrap();
        let session = secret(1).derive().revocation_key(Kind::Session, ours, sid.as_bytes());
        let first = Sighting { session, ..sighting(sid, ELSEWHERE) };
        assert!(send(&service, &report_at(now(), &[first])));
        session
    };
    let unknown = used_first(serde_json::json!({}));
    let at_home = used_first(serde_json::json!({ "address": "198.51.100.77" }));
    let stolen = used_first(serde_json::json!({ "address": "203.0.113.9", "user_agent": "curl/8.0" }));
    eventually(SOON, || is_dead(&service, stolen).then_some(()));
    assert_eq!(service.check(&[unknown, at_home]), Ok(vec![Answer::Live; 2]));
    assert_eq!(metric(&service, "hijack_signals_total{signal=\"network\"}"), 1);
}

#[test]
fn a_signal_demands_a_login_if_a_filter_asks_for_demands() {
    let (_redis, service) = started_with("signals: { network: [step_up] }");
    see(&service, "early", &[HOME, ELSEWHERE]);
    let acted = |result: &str| metric(&service, &format!("hijack_actions_total{{result=\"{result}\"}}"));
    eventually(SOON, || (acted("not_demanded") == 1).then_some(()));
    let needs = Retention::default();
    service.announce(&[NamedIssuer { issuer: ISSUER.into(), needs, kinds: Kinds::of([Kind::Session, Kind::StepUp]) }]);
    see(&service, "stolen", &[HOME, ELSEWHERE]);
    eventually(SOON, || (acted("demanded") == 1).then_some(()));
    let keys = [key(Kind::StepUp, "stolen"), key(Kind::Session, "stolen"), key(Kind::StepUp, "early")];
    let answers = service.check(&keys).unwrap();
    assert!(
        matches!(answers[..], [Answer::Before(before), Answer::Live, Answer::Live] if before > now()),
        "{answers:?}"
    );
}

#[test]
fn a_record_reveals_nothing_and_expires() {
    let (redis, service) = started_with("{}");
    see(&service, "one", &[HOME, ELSEWHERE]);
    let name = format!("portcullis:{{{:02x}}}:w:{}", key(Kind::Session, "one").0[0], key(Kind::Session, "one"));
    let record = redis.ask(&["GET", &name]);
    assert!(record.len() > 50 && !record.contains("203.0.113"), "{record}");
    let life: i64 = redis.ask(&["PTTL", &name]).trim().trim_start_matches(':').parse().unwrap();
    assert!((86_000_000..=86_400_000).contains(&life), "{life}");
    assert_eq!(metric(&service, "hijack_signals_total{signal=\"network\"}"), 1, "it is counted, and nothing else");
    assert_eq!(service.check(&[key(Kind::Session, "one")]), Ok(vec![Answer::Live]));
}

#[test]
fn a_report_counts_once_and_only_while_it_is_new() {
    let (_redis, service) = started_with("signals: { network: [end] }");
    see(&service, "one", &[HOME]);
    let report = report_at(now(), &[sighting("two", HOME)]);
    assert!(send(&service, &report));
    assert!(send(&service, &report), "a sender that had no reply asks again");
    assert_eq!(metric(&service, "sighting_reports_total{result=\"repeated\"}"), 1);
    for then in [now() - 120, now() + 120] {
        assert!(!send(&service, &report_at(then, &[sighting("one", ELSEWHERE)])));
    }
    assert_eq!(metric(&service, "sighting_reports_total{result=\"other_time\"}"), 2);
    assert_eq!(service.check(&[key(Kind::Session, "one")]), Ok(vec![Answer::Live]));
}

#[test]
fn what_is_not_a_filters_is_refused() {
    let (_redis, service) = started_with("signals: { network: [end] }");
    see(&service, "one", &[HOME]);
    let forged = Report::new(&secret(2).derive(), nonce(), needs(), &[sighting("one", ELSEWHERE)]);
    assert_eq!(service.post_bytes(PATH, forged.bytes()).0, 401);
    let mut changed = report_at(now(), &[sighting("one", ELSEWHERE)]).bytes().to_vec();
    changed[60] ^= 1;
    assert_eq!(service.post_bytes(PATH, &changed).0, 401);
    assert_eq!(service.post_bytes(PATH, b"sightings").0, 400);
    assert_eq!(metric(&service, "sighting_reports_total{result=\"refused\"}"), 3);
    assert_eq!(service.check(&[key(Kind::Session, "one")]), Ok(vec![Answer::Live]));
    // Without the option there is no such endpoint.
    let (_redis, service) = started();
    assert_eq!(service.post_bytes(PATH, b"sightings").0, 404);
}

#[test]
fn instances_share_what_they_remember_and_excepted_users_are_left_alone() {
    let settings =
        format!("signals: {{ network: [end] }}\nsubjects: [{{ issuer: '{ISSUER}', subject: user-tester }}]\n");
    let (redis, one) = started_with(&settings);
    let file = file(&redis, "hijack.yaml", settings.as_bytes());
    let other = Running::start(options_with(&redis, &["--sightings-file", file.to_str().unwrap()]));
    see(&one, "stolen", &[HOME]);
    see(&other, "stolen", &[ELSEWHERE]);
    eventually(SOON, || is_dead(&one, key(Kind::Session, "stolen")).then_some(()));
    see(&one, "tester", &[HOME, ELSEWHERE]);
    assert_eq!(one.check(&[key(Kind::Session, "tester")]), Ok(vec![Answer::Live]));
    assert_eq!(metric(&one, "hijack_signals_total{signal=\"network\"}"), 0);
}

#[test]
fn a_wrong_database_does_not_end_everybody() {
    let (_redis, service) = started_with("signals: { travel: [end] }\nmax_ends_per_minute: 3");
    let at = |sid: &str, network, latitude| {
        let sighting = sighting(sid, network);
        Sighting { client: Client { place: Place::new(latitude, 0), ..sighting.client }, ..sighting }
    };
    let sids: Vec<String> = (0..10).map(|number| format!("s{number}")).collect();
    let all = |network, latitude| sids.iter().map(|sid| at(sid, network, latitude)).collect::<Vec<_>>();
    assert!(send(&service, &report_at(now(), &all(HOME, 5000))));
    std::thread::sleep(Duration::from_millis(500));
    assert!(send(&service, &report_at(now(), &all(ELSEWHERE, -5000))));
    eventually(SOON, || (metric(&service, "hijack_signals_total{signal=\"travel\"}") == 10).then_some(()));
    eventually(SOON, || (metric(&service, "hijack_actions_total{result=\"ended\"}") == 3).then_some(()));
    assert_eq!(metric(&service, "hijack_actions_total{result=\"too_many\"}"), 7);
    let ended = sids.iter().filter(|sid| is_dead(&service, key(Kind::Session, sid))).count();
    assert_eq!(ended, 3);
}

#[test]
fn without_the_store_nothing_is_taken() {
    let (redis, service) = started_with("signals: { network: [end] }");
    see(&service, "one", &[HOME]);
    drop(redis);
    assert!(!send(&service, &report_at(now(), &[sighting("one", ELSEWHERE)])));
    assert!(service.check(&[key(Kind::Session, "one")]).is_err_and(|error| error != StoreError::StoreChanged));
}

/// Takes one request, and answers with 204.
fn take_one(listener: &TcpListener) -> (String, Value) {
    let (mut stream, _) = listener.accept().unwrap();
    let (mut reader, mut head) = (BufReader::new(stream.try_clone().unwrap()), String::new());
    while !head.ends_with("\r\n\r\n") {
        reader.read_line(&mut head).unwrap();
    }
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap()];
    reader.read_exact(&mut body).unwrap();
    stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").unwrap();
    (head.to_lowercase(), serde_json::from_slice(&body).unwrap())
}

#[test]
fn a_webhook_gets_each_alarm_with_its_token() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let redis = Redis::start();
    let token = file(&redis, "webhook-token", b"a-token\n");
    let settings = format!(
        "signals: {{ network: [webhook] }}\nwebhook: {{ url: 'http://{}/alarms', token_file: '{}' }}\n",
        listener.local_addr().unwrap(),
        token.display()
    );
    let settings = file(&redis, "hijack.yaml", settings.as_bytes());
    let service = Running::start(options_with(&redis, &["--sightings-file", settings.to_str().unwrap()]));
    see(&service, "one", &[HOME, ELSEWHERE]);
    let (head, alarm) = take_one(&listener);
    assert!(head.starts_with("post /alarms ") && head.contains("authorization: bearer a-token\r\n"), "{head}");
    assert_eq!((&alarm["signals"][0], &alarm["ends"]), (&"network".into(), &false.into()));
    eventually(SOON, || (metric(&service, "hijack_actions_total{result=\"sent\"}") == 1).then_some(()));
}
