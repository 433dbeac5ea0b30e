//! The table of cases, judged by the core alone at a literal time. The same table runs through the real Envoy in
//! `tests/tests/e2e/cases.rs`.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use authn::decide::Unavailable::{NotToBeTrusted, OutOfReach};
use authn::decide::clear::Edit;
use authn::decide::{Admission, Entry, Peer, Removal, RevocationStatus, Verified};
use authn::engine::Portable;
use authn::introspection::Reply;
use authn::policy::Policy;
use authn::reject::{Cause, RejectReason, Rejection};
use authn::request::Request;
use authn::time::{Monotonic, Now, UnixSeconds};
use cases::{Case, Expect, Ready, RevokedSpec, Store, Table};
use wire::{Answer, DerivedKeys, Kind, RevocationKey, Secret, token_id_from_jti};

const NOW: u64 = 1_750_000_000;

struct Loopback;

impl Peer for Loopback {
    fn address(&self) -> Option<IpAddr> {
        Some(IpAddr::from([127, 0, 0, 1]))
    }

    fn certificate_sha256(&self) -> Option<Vec<u8>> {
        None
    }
}

/// What the client or the upstream would see.
#[derive(Debug)]
enum Seen {
    Passed {
        path: String,
        headers: Vec<(String, String)>,
    },
    Refused {
        code: &'static str,
        status: u16,
        #[allow(dead_code, reason = "shown when a case fails")]
        cause: String,
    },
}

#[test]
fn every_case_is_judged_as_the_table_says() {
    let table = Table::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cases")).unwrap();
    assert!(table.cases.len() >= 120, "the table has shrunk to {} cases", table.cases.len());
    let environment: BTreeMap<String, String> = table.environment().into_iter().collect();
    let policies: BTreeMap<&str, Policy> = table
        .configs
        .iter()
        .map(|(name, config)| {
            let lookup = |variable: &str| environment.get(variable).map(|value| value.clone().into_bytes());
            let policy = Policy::from_json(config.to_string().as_bytes(), &lookup);
            (name.as_str(), policy.unwrap_or_else(|error| panic!("{name}: {error}")))
        })
        .collect();
    let mut wrong = Vec::new();
    for case in &table.cases {
        let ready = table.ready(case, NOW).unwrap();
        let seen = judge(&policies[case.config.as_str()], &table, case, &ready);
        if let Some(difference) = difference(case, &seen) {
            wrong.push(format!("{}: {difference}\n    {seen:?}", case.name));
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
            matches!(&case.expect, Expect::Refuse { code, status }
            if code == reason.code() && *status == reason.distinct_status())
        });
        assert!(occurs, "{} with its default status", reason.code());
    }
}

fn judge(policy: &Policy, table: &Table, case: &Case, ready: &Ready) -> Seen {
    let mut pairs: Vec<(&[u8], &[u8])> = vec![
        (b":method", ready.method.as_bytes()),
        (b":path", ready.path.as_bytes()),
        (b":authority", ready.authority.as_bytes()),
        (b":scheme", b"http"),
    ];
    // The proxy hands names over in lower case.
    let headers: Vec<(String, &str)> =
        ready.headers.iter().map(|(name, value)| (name.to_lowercase(), value.as_str())).collect();
    pairs.extend(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    let request = match Request::from_pairs(&pairs) {
        Ok(request) => request,
        Err(rejection) => return refused(policy, None, rejection),
    };
    let mut left: Vec<(String, String)> =
        headers.iter().map(|(name, value)| (name.clone(), (*value).to_owned())).collect();
    let (mut path, mut authority) = (ready.path.clone(), ready.authority.clone());
    for edit in policy.clear(&request) {
        match edit {
            Edit::Remove(name) => left.retain(|(other, _)| other.as_bytes() != name),
            Edit::Set(":path", value) => path = String::from_utf8(value).unwrap(),
            Edit::Set(":authority", value) => authority = String::from_utf8(value).unwrap(),
            Edit::Set(name, value) => {
                left.retain(|(other, _)| other != name);
                left.push((name.to_owned(), String::from_utf8(value).unwrap()));
            }
        }
    }
    left.push((":authority".into(), authority));
    let now = Now { wall: UnixSeconds(NOW), monotonic: Monotonic(1_000_000_000_000) };
    match policy.enter(&request) {
        Entry::Open { removals, .. } => {
            removals.iter().for_each(|removal| remove(removal, &mut left));
            Seen::Passed { path, headers: left }
        }
        Entry::Denied { rule, rejection } => refused(policy, rule, rejection),
        Entry::Token(entered) => {
            let rule = entered.rule();
            let verified = match policy.introspecting(rule, entered.token()) {
                Some(issuer) => introspected(policy, issuer, entered.token(), ready, now),
                None => policy
                    .verify(&Portable, &policy.keyrings(), &entered, now)
                    .map_err(|unverifiable| unverifiable.rejection),
            };
            let admitted = verified
                .and_then(|verified| policy.accept(Arc::new(verified), entered, now, &Loopback))
                .and_then(|accepted| match policy.revocation_status(accepted, now)? {
                    RevocationStatus::MustIntrospect(accepted) => {
                        confirm(policy, accepted.verified(), ready, now)?;
                        policy.revocation_status(accepted, now)
                    }
                    revocation_status => Ok(revocation_status),
                })
                .and_then(|revocation_status| match revocation_status {
                    RevocationStatus::Admitted(admission) => Ok(admission),
                    RevocationStatus::MustIntrospect(_) => panic!("it was introspected"),
                    RevocationStatus::MustAsk(asking) => match case.store {
                        Store::Up => {
                            let answers = answers(policy, table, case, &asking.query().keys);
                            let verdict = asking.query().judge(answers);
                            asking.on_verdict(policy, now.monotonic, verdict, now)
                        }
                        Store::Refused => asking.on_cannot_tell(OutOfReach, Cause::RedisRefused),
                        Store::Slow => asking.on_cannot_tell(OutOfReach, Cause::RedisSlow),
                        Store::Flushed => asking.on_cannot_tell(NotToBeTrusted, Cause::StoreNotOurs),
                    },
                });
            match admitted {
                Ok(admission) => passed(&admission, path, left),
                Err(rejection) => refused(policy, Some(rule), rejection),
            }
        }
    }
}

fn introspected(policy: &Policy, issuer: usize, token: &[u8], ready: &Ready, now: Now) -> Result<Verified, Rejection> {
    policy.introspected(issuer, token, &reply(policy, issuer, token, ready), now.monotonic, now)?
}

fn confirm(policy: &Policy, verified: &Verified, ready: &Ready, now: Now) -> Result<(), Rejection> {
    policy.confirm(verified, &reply(policy, verified.issuer(), verified.token(), ready), now.monotonic, now)?
}

/// As the server of `tests/tests/e2e/cases.rs` answers.
fn reply<'r>(policy: &Policy, issuer: usize, token: &[u8], ready: &'r Ready) -> Reply<'r> {
    let question = policy.introspection(issuer).unwrap().question(token);
    let path = question.headers.iter().find(|(name, _)| *name == ":path").map(|(_, path)| path.clone());
    assert_eq!(question.body, format!("token={}&token_type_hint=access_token", ready.token));
    let says = &ready.introspection;
    let status = if says.path.is_none() || says.path == path { says.status } else { 500 };
    Reply { status, content_type: Some(says.content_type.as_bytes()), body: says.body.as_bytes() }
}

fn passed(admission: &Admission, path: String, mut headers: Vec<(String, String)>) -> Seen {
    for (name, value) in admission.headers() {
        headers.retain(|(other, _)| other != name);
        headers.push((name.clone(), value.clone()));
    }
    remove(admission.removal(), &mut headers);
    Seen::Passed { path, headers }
}

fn remove(removal: &Removal, headers: &mut Vec<(String, String)>) {
    match removal {
        Removal::Nothing => {}
        Removal::Header(name) => headers.retain(|(other, _)| *other.as_bytes() != **name),
        Removal::Cookie(rest) => {
            headers.retain(|(name, _)| name != "cookie");
            headers.extend(rest.iter().map(|rest| ("cookie".into(), String::from_utf8(rest.clone()).unwrap())));
        }
        Removal::Subprotocols(rest) => {
            let name = "sec-websocket-protocol";
            headers.retain(|(other, _)| other != name);
            headers.extend(rest.iter().map(|rest| (name.into(), String::from_utf8(rest.clone()).unwrap())));
        }
    }
}

fn refused(policy: &Policy, rule: Option<usize>, rejection: Rejection) -> Seen {
    let refusal = policy.refusal(rejection.reason, rule);
    let body: serde_json::Value = serde_json::from_str(&refusal.body).unwrap();
    assert_eq!(body["code"], rejection.reason.code());
    assert_eq!(body["status"], refusal.status);
    Seen::Refused { code: rejection.reason.code(), status: refusal.status, cause: rejection.to_string() }
}

/// What the service would answer after the case's revocations.
fn answers(policy: &Policy, table: &Table, case: &Case, keys: &[RevocationKey]) -> Vec<Answer> {
    let derived = Secret::new(cases::SHARED_SECRET.as_bytes()).unwrap().derive();
    assert_eq!(policy.revocation().unwrap().derived.id(), derived.id());
    let revoked: BTreeMap<RevocationKey, Answer> =
        case.revoked.iter().map(|revoked| revocation(&derived, table, revoked)).collect();
    keys.iter().map(|key| revoked.get(key).copied().unwrap_or(Answer::Live)).collect()
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

fn difference(case: &Case, seen: &Seen) -> Option<String> {
    match (&case.expect, seen) {
        (Expect::Refuse { code, status }, Seen::Refused { code: seen_code, status: seen_status, .. }) => {
            (code != seen_code || status != seen_status).then(|| format!("expected {code} {status}"))
        }
        (Expect::Pass { headers: expected, absent, path }, Seen::Passed { path: seen_path, headers }) => {
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
            path.as_ref().filter(|path| *path != seen_path).map(|path| format!("expected the path {path}"))
        }
        (Expect::Pass { .. }, Seen::Refused { .. }) => Some("expected to pass".into()),
        (Expect::Refuse { code, .. }, Seen::Passed { .. }) => Some(format!("expected {code}")),
    }
}
