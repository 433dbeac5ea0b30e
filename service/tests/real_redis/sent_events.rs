//! Security events that the service sends: to another service, and to receivers that fail in every way.
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mint::{Alg, SigningKey};
use serde_json::{Value, json};
use wire::sightings::{Names, Sighting};
use wire::{Answer, Kind};

use crate::hijack::{ELSEWHERE, HOME, metric, report_at, see, send, sighting};
use crate::provider::{Jwks, REVOKED, Says, providers};
use crate::support::*;

const OURS: &str = "https://sessions.example";
const SOON: Duration = Duration::from_secs(5);

/// A service that issues sessions, with these receivers.
fn sender(redis: &Redis, receivers: &Value, more: &[&str]) -> Running {
    let signing = file(redis, "signing.pem", SigningKey::generate(Alg::ES256, "x").private_pem().unwrap().as_bytes());
    let receivers = file(redis, "receivers.json", json!({ "receivers": receivers }).to_string().as_bytes());
    let mut words = vec!["--session-issuer", OURS, "--session-audience", "api"];
    words.extend(["--signing-key", signing.to_str().unwrap()]);
    words.extend(["--event-receivers-file", receivers.to_str().unwrap()]);
    words.extend(more);
    Running::start(options_with(redis, &words))
}

fn sent(service: &Running, result: &str) -> u64 {
    metric(service, &format!("sent_events_total{{result=\"{result}\"}}"))
}

fn revoke(service: &Running, kind: &str, issuer: &str, id: &str) {
    let body = json!({ "kind": kind, "issuer": issuer, "id": id, "reason": "a reason" });
    let (status, told) = service.admin("POST", "/v1/revocations", &body.to_string());
    assert_eq!(status, 201, "{told}");
}

/// A receiver that gives these answers, the last of them for ever, and keeps what it got.
struct Receiver {
    at: SocketAddr,
    got: Arc<Mutex<Vec<(String, String)>>>,
}

impl Receiver {
    /// An empty answer: the connection is closed.
    fn answering(answers: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let receiver = Self { at, got: Arc::default() };
        let got = Arc::clone(&receiver.got);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (mut reader, mut head) = (BufReader::new(stream.try_clone().unwrap()), String::new());
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|read| read > 0) {}
                let head = head.to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                let mut body = vec![0; length.unwrap_or(0)];
                let _ = reader.read_exact(&mut body);
                let mut got = got.lock().unwrap();
                let answer = answers.get(got.len()).or(answers.last()).unwrap();
                got.push((head, String::from_utf8(body).unwrap()));
                let _ = (&stream).write_all(answer.as_bytes());
            }
        });
        receiver
    }

    fn url(&self) -> String {
        format!("http://{}/events", self.at)
    }

    fn got(&self) -> Vec<(String, String)> {
        self.got.lock().unwrap().clone()
    }
}

const TAKEN: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const REFUSED: &str = "HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ncontent-length: 55\r\nconnection: close\r\n\r\n\
                       {\"err\":\"invalid_audience\",\"description\":\"another one\"} ";

fn claims(token: &str) -> Value {
    serde_json::from_slice(&mint::from_base64url(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[test]
fn a_second_service_ends_what_the_first_one_has_ended_and_sends_nothing_back() {
    let (redis, redis_there, jwks) = (Redis::start(), Redis::start(), Jwks::saying(Says::Status(503)));
    let back = Receiver::answering(&[TAKEN]);
    let provider = json!({
        "issuer": OURS, "audiences": ["https://there.example"], "jwks_uri": jwks.uri(), "algorithms": ["ES256"],
        "events": { "actions": { "risk-level-change": { "action": "end_user" } } },
    });
    let list = providers(&redis_there, &[provider]).unwrap();
    let to_us = json!([{ "url": back.url(), "audience": "back" }]);
    let there = sender(&redis_there, &to_us, &["--providers-file", list.to_str().unwrap()]);
    let receivers =
        json!([{ "url": format!("http://{}/ssf/events", there.at.listen), "audience": "https://there.example" }]);
    let here = sender(&redis, &receivers, &[]);
    // The keys of events are those of sessions.
    jwks.now_says(Says::Body(here.get("/.well-known/jwks.json").1));

    let (status, made) = here.admin("POST", "/v1/sessions", &json!({ "subject": "alice" }).to_string());
    assert_eq!(status, 201, "{made}");
    let sid = made["sid"].as_str().unwrap();
    assert_eq!(here.admin("DELETE", &format!("/v1/sessions/{sid}"), "").0, 200);
    revoke(&here, "session", OURS, "by-an-operator");
    revoke(&here, "user", OURS, "bob");
    // Of another issuer: this receiver is not told.
    revoke(&here, "session", ISSUER, "another");
    let ours = |kind, id: &str| secret(1).derive().revocation_key(kind, OURS, id.as_bytes());
    let keys = [ours(Kind::Session, sid), ours(Kind::Session, "by-an-operator"), ours(Kind::User, "bob")];
    let ended = |answers: &[Answer]| matches!(answers, [Answer::Dead, Answer::Dead, Answer::Before(_)]);
    eventually(SOON, || there.check(&keys).is_ok_and(|answers| ended(&answers)).then_some(()));
    eventually(SOON, || (sent(&here, "sent") == 3).then_some(()));
    assert_eq!(there.check(&[ours(Kind::User, "alice"), key(Kind::Session, "another")]), Ok(vec![Answer::Live; 2]));
    // What a provider ended is not sent on: two services that send to each other would do so for ever.
    assert_eq!((back.got().len(), sent(&there, "sent"), sent(&there, "dropped")), (0, 0, 0));
    revoke(&there, "session", OURS, "ended-there");
    eventually(SOON, || (back.got().len() == 1).then_some(()));
}

#[test]
fn an_event_is_sent_again_unchanged_until_it_is_taken_and_a_refused_one_is_not() {
    let (redis, receiver) = (Redis::start(), Receiver::answering(&[BUSY, TAKEN, REFUSED, TAKEN]));
    let token = file(&redis, "receiver-token", b"for-the-receiver\n");
    let receivers = json!([{ "url": receiver.url(), "audience": "siem", "token_file": token, "reasons": true }]);
    let service = sender(&redis, &receivers, &[]);
    revoke(&service, "session", OURS, "one");
    eventually(SOON, || (sent(&service, "sent") == 1).then_some(()));
    let got = receiver.got();
    assert_eq!(got[0].1, got[1].1, "the same token, and so the same jti");
    for expected in
        ["post /events ", "content-type: application/secevent+jwt\r\n", "authorization: bearer for-the-receiver\r\n"]
    {
        assert!(got[0].0.contains(expected), "{expected} {}", got[0].0);
    }
    let event = claims(&got[0].1);
    assert_eq!((&event["iss"], &event["aud"]), (&OURS.into(), &"siem".into()));
    assert_eq!(event["events"][REVOKED]["reason_admin"]["en"], "a reason");
    assert_eq!(metric(&service, "sent_events_retried_total{reason=\"status\"}"), 1);
    revoke(&service, "session", OURS, "two");
    eventually(SOON, || (sent(&service, "refused") == 1).then_some(()));
    revoke(&service, "session", OURS, "three");
    eventually(SOON, || (sent(&service, "sent") == 2).then_some(()));
    let ids: Vec<_> =
        receiver.got().iter().map(|(_, token)| claims(token)["sub_id"]["session"]["id"].clone()).collect();
    assert_eq!(ids, ["one", "one", "two", "three"]);
}

#[test]
fn a_receiver_that_does_not_answer_delays_no_revocation_and_loses_what_is_too_old() {
    let (redis, silent) = (Redis::start(), TcpListener::bind("127.0.0.1:0").unwrap());
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let receivers = json!([{ "url": url, "audience": "siem", "timeout": "200ms", "retry_for": "1s" }]);
    let service = sender(&redis, &receivers, &[]);
    let began = Instant::now();
    for number in 0..3 {
        revoke(&service, "session", OURS, &format!("s{number}"));
    }
    assert_eq!(service.check(&[secret(1).derive().revocation_key(Kind::Session, OURS, b"s2")]), Ok(vec![Answer::Dead]));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    eventually(SOON, || (sent(&service, "expired") == 3).then_some(()));
    assert!(metric(&service, "sent_events_retried_total{reason=\"unreachable\"}") >= 1);
}

#[test]
fn a_finding_is_an_event_and_names_what_is_known() {
    let (redis, by_key, by_name) = (Redis::start(), Receiver::answering(&[TAKEN]), Receiver::answering(&[TAKEN]));
    let both = ["session-revoked", "risk-level-change"];
    let receivers = json!([
        { "url": by_key.url(), "audience": "siem", "subject": "key", "events": both },
        { "url": by_name.url(), "audience": "siem", "events": both, "issuer": ISSUER },
    ]);
    let settings = file(&redis, "hijack.yaml", b"signals: { network: [event, end] }\nquiet: 0s");
    let service = sender(&redis, &receivers, &["--sightings-file", settings.to_str().unwrap()]);
    see(&service, "stolen", &[HOME, ELSEWHERE]);
    eventually(SOON, || (sent(&service, "sent") == 2).then_some(()));
    let events: Vec<_> = by_key.got().iter().map(|(_, token)| claims(token)).collect();
    let risk = &events[0]["events"]["https://schemas.openid.net/secevent/caep/event-type/risk-level-change"];
    assert_eq!((&risk["current_level"], &risk["risk_reason"]), (&"HIGH".into(), &"network".into()));
    assert_eq!(events[1]["events"][REVOKED]["initiating_entity"], "policy");
    let id = key(Kind::Session, "stolen").to_string();
    assert!(events.iter().all(|event| event["sub_id"] == json!({ "format": "opaque", "id": id })), "{events:?}");
    assert_eq!((by_name.got().len(), sent(&service, "unnamed")), (0, 2));
    // A filter with `names` says who it is, and the keys prove it.
    let named = |network, issuer: &str, session: &str| {
        let sighting = sighting("named", network);
        let names = Names::new(issuer, Some(session), Some("user-named")).map(Box::new);
        assert!(send(&service, &report_at(now(), &[Sighting { names, ..sighting }])));
        std::thread::sleep(Duration::from_millis(100));
    };
    named(HOME, ISSUER, "named");
    named(ELSEWHERE, ISSUER, "named");
    eventually(SOON, || (by_name.got().len() == 2).then_some(()));
    let user = json!({ "format": "iss_sub", "iss": ISSUER, "sub": "user-named" });
    let session = json!({ "format": "opaque", "id": "named" });
    let event = claims(&by_name.got()[0].1);
    assert_eq!(event["sub_id"], json!({ "format": "complex", "user": user, "session": session }));
    named("192.0.2.0/24", ISSUER, "another");
    eventually(SOON, || (sent(&service, "sent") >= 4).then_some(()));
    assert!(by_name.got().iter().all(|(_, token)| claims(token)["sub_id"]["session"]["id"] == "named"));
}
