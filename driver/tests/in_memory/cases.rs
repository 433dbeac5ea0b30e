//! The table of cases, decided by the driver in a proxy in memory, at a literal time. The same table runs through the real
//! Envoy in `tests/tests/e2e/cases.rs`.
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use authn::reject::RejectReason;
use authn::time::{Monotonic, Now, UnixSeconds};
use cases::{Case, Expect, Ready, RevokedSpec, Store, Table};
use driver::StreamId;
use driver::fake::{FakeExchange, FakeHost, FakeProxy, FakeReply, FakeService, InFlight, Request, Seen, SharedData};
use wire::check::StoreError;
use wire::{Answer, DerivedKeys, Kind, RevocationKey, Secret, token_id_from_jti};

const NOW: u64 = 1_750_000_000;

/// The view of the client or the upstream.
#[derive(Debug)]
enum Outcome {
    Passed { path: String, headers: Vec<(String, String)>, answer: Vec<(String, String)> },
    Refused { code: String, status: u16, answer: Vec<(String, String)> },
}

#[test]
fn every_case_is_decided_as_the_table_says() {
    let table = Table::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cases")).unwrap();
    assert!(table.cases.len() >= 1000, "the table has shrunk to {} cases", table.cases.len());
    let secrets: BTreeMap<String, Vec<u8>> =
        table.environment().into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
    let mut wrong = Vec::new();
    for (name, document) in &table.configs {
        // A proxy for each configuration. Cases are minutes apart, so that nothing of one is fresh in the next.
        let now = Now { wall: UnixSeconds(NOW), monotonic: Monotonic(1_000_000_000_000) };
        let host = FakeHost::new(now, secrets.clone(), SharedData::default(), 7);
        let mut proxy = FakeProxy::start(host, document.to_string().as_bytes(), 1).unwrap();
        for case in table.cases.iter().filter(|case| case.config == *name) {
            proxy.advance(Duration::from_secs(6));
            proxy.host.now.wall = UnixSeconds(NOW);
            let nonce = table.asking_for_nonce(case, NOW).unwrap().map(|ready| nonce(&mut proxy, &table, case, &ready));
            let ready = table.ready_with(case, nonce.as_deref(), NOW).unwrap();
            if case.again {
                decide(&mut proxy, &table, case, &ready);
            }
            let outcome = decide(&mut proxy, &table, case, &ready);
            if let Some(difference) = difference(case, &outcome) {
                wrong.push(format!("{}: {difference}\n    {outcome:?}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), table.cases.len(), wrong.join("\n"));
}

#[test]
fn every_fault_that_can_occur_is_in_the_table() {
    // Fetched keys have tests of their own.
    const ELSEWHERE: [RejectReason; 1] = [RejectReason::KeysUnavailable];
    let table = Table::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cases")).unwrap();
    for reason in RejectReason::ALL.iter().filter(|reason| !ELSEWHERE.contains(reason)) {
        let occurs = table.cases.iter().any(|case| {
            matches!(&case.expect, Expect::Refuse { code, status, .. }
            if code == reason.code() && *status == reason.distinct_status())
        });
        assert!(occurs, "{} with its default status", reason.code());
    }
}

/// What the proxy gives to a client whose proof has no nonce.
fn nonce(proxy: &mut FakeProxy, table: &Table, case: &Case, ready: &Ready) -> String {
    let Seen::Replied(reply) = seen(proxy, table, case, ready).1 else {
        panic!("{}: no nonce was asked for", case.name)
    };
    assert_eq!(reply.details, "DPOP_NONCE_REQUIRED", "{}", case.name);
    let nonce = reply.headers.into_iter().find(|(name, _)| name == "dpop-nonce");
    nonce.map(|(_, value)| value).unwrap_or_else(|| panic!("{}: the answer has no nonce", case.name))
}

fn decide(proxy: &mut FakeProxy, table: &Table, case: &Case, ready: &Ready) -> Outcome {
    let (stream, seen) = seen(proxy, table, case, ready);
    match seen {
        Seen::Forwarded(exchange) => {
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            let headers: Vec<(String, String)> =
                exchange.headers.into_iter().map(|(name, value)| (text(name), text(value))).collect();
            let path =
                headers.iter().find(|(name, _)| name == ":path").map(|(_, path)| path.clone()).unwrap_or_default();
            let upstream = case.upstream.as_ref();
            let status = upstream.map_or(200, |upstream| upstream.status);
            let mut answer = vec![(":status".to_owned(), status.to_string())];
            answer.extend(upstream.into_iter().flat_map(|upstream| upstream.headers.iter().cloned()));
            Outcome::Passed { path, headers, answer: proxy.respond_with(stream, answer) }
        }
        Seen::Replied(reply) if reply.details == "PROBE_ANSWERED" => {
            Outcome::Refused { code: reply.details, status: reply.status, answer: reply.headers }
        }
        Seen::Replied(reply) => {
            let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
            assert_eq!((&body["code"], &body["status"]), (&reply.details.as_str().into(), &reply.status.into()));
            Outcome::Refused { code: reply.details, status: reply.status, answer: reply.headers }
        }
        Seen::Waiting | Seen::Unanswered | Seen::Ended(_) => panic!("{}: the request has no answer", case.name),
    }
}

fn seen(proxy: &mut FakeProxy, table: &Table, case: &Case, ready: &Ready) -> (StreamId, Seen) {
    let derived = Secret::new(cases::SHARED_SECRET.as_bytes()).unwrap().derive();
    let mut service = FakeService::new(derived.clone());
    service.revoked = case.revoked.iter().map(|revoked| revocation(&derived, table, revoked)).collect();
    service.fails = match case.store {
        Store::Up => None,
        Store::Refused => Some(StoreError::StoreRefused),
        Store::Slow => Some(StoreError::StoreSlow),
        Store::Flushed => Some(StoreError::StoreChanged),
    };
    let pseudo = [(":method", &ready.method), (":path", &ready.path), (":authority", &ready.authority)];
    let pseudo = pseudo.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    // A proxy hands names over in lower case.
    let headers = ready.headers_in_envoy().into_iter();
    let headers = headers.map(|(name, value)| (name.to_lowercase().into_bytes(), value.into_bytes()));
    let scheme = (b":scheme".to_vec(), b"http".to_vec());
    let exchange = FakeExchange::new(pseudo.into_iter().chain([scheme]).chain(headers).collect());
    let stream = proxy.send(0, Request { exchange, ends: true });
    proxy.answer_all(|call| Some(answer(call, &service, ready)));
    (stream, proxy.seen(stream))
}

/// As the service, and the introspection server of `tests/tests/e2e/cases.rs`.
fn answer(call: &InFlight, service: &FakeService, ready: &Ready) -> FakeReply {
    if call.header(":path") == wire::check::PATH {
        return service.answer(&call.body);
    }
    assert_eq!(call.body, format!("token={}&token_type_hint=access_token", ready.token).into_bytes());
    let says = &ready.introspection;
    let status =
        if says.path.is_none() || says.path.as_deref() == Some(call.header(":path")) { says.status } else { 500 };
    FakeReply::new(status, &says.content_type, says.body.as_bytes())
}

fn revocation(derived: &DerivedKeys, table: &Table, revoked: &RevokedSpec) -> (RevocationKey, Answer) {
    let kind: Kind = revoked.kind.parse().unwrap();
    let id = table.revoked_id(revoked).unwrap();
    let id = if kind == Kind::Token { token_id_from_jti(&id) } else { id.into_bytes() };
    let answer = match kind.is_simply_dead() {
        true => Answer::Dead,
        false => Answer::Before(NOW.checked_add_signed(revoked.before).unwrap()),
    };
    (derived.revocation_key(kind, &revoked.issuer, &id), answer)
}

fn difference(case: &Case, seen: &Outcome) -> Option<String> {
    match (&case.expect, seen) {
        (Expect::Refuse { code, status, .. }, Outcome::Refused { code: seen_code, status: seen_status, answer }) => {
            if code != seen_code || status != seen_status {
                return Some(format!("expected {code} {status}"));
            }
            case.expect.answer_difference("", answer)
        }
        (
            Expect::Pass { headers: expected, absent, path, .. },
            Outcome::Passed { path: seen_path, headers, answer },
        ) => {
            for (name, value) in expected {
                let found: Vec<&str> =
                    headers.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str()).collect();
                if found != [value.as_str()] {
                    return Some(format!("expected {name}: {value}, the upstream sees {found:?}"));
                }
            }
            if let Some(name) = absent.iter().find(|name| headers.iter().any(|(other, _)| other == *name)) {
                return Some(format!("the upstream sees {name}"));
            }
            if let Some(path) = path.as_ref().filter(|path| *path != seen_path) {
                return Some(format!("expected the path {path}"));
            }
            let nonce = headers.iter().find(|(name, _)| name == "x-csp-nonce").map_or("", |(_, value)| value);
            case.expect.answer_difference(nonce, answer)
        }
        (Expect::Pass { .. }, Outcome::Refused { .. }) => Some("expected to pass".into()),
        (Expect::Refuse { code, .. }, Outcome::Passed { .. }) => Some(format!("expected {code}")),
    }
}
