//! The core alone, natively: what of a request's cost is ours, without Envoy, Wasm and host calls. `cargo bench -p benches`.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a measurement that cannot be made ends"
)]
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use authn::decide::{Accepted, Asking, Entered, Entry, Peer, RevocationStatus, Verified};
use authn::engine::Portable;
use authn::policy::Policy;
use authn::request::Request;
use authn::revocation::RevocationQuery;
use authn::time::{Monotonic, Now, UnixSeconds};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use driver::checks::{Checks, Trigger};
use driver::tokens::Tokens;
use jose::json::Json;
use mint::{Alg, SigningKey};
use serde_json::{Value, json};
use wire::check::Reply;
use wire::{Answer, Retention};

criterion_group!(benches, warm, cold, routes, parse, checks);
criterion_main!(benches);

const ISSUED: u64 = 1_750_000_000;
const NOW: Now = Now { wall: UnixSeconds(ISSUED + 60), monotonic: Monotonic(1_000_000_000_000) };
const ALGS: [Alg; 8] = [Alg::HS256, Alg::RS256, Alg::RS512, Alg::PS256, Alg::ES256, Alg::ES384, Alg::EdDSA, Alg::HS512];
const SECRET: &str = "SECRET";

struct Loopback;

impl Peer for Loopback {
    fn address(&self) -> Option<IpAddr> {
        Some(IpAddr::from([127, 0, 0, 1]))
    }

    fn certificate_sha256(&self) -> Option<Vec<u8>> {
        None
    }
}

/// A token that the cache holds and whose verdict is fresh: what most requests are.
fn warm(criterion: &mut Criterion) {
    let keys = keys(&[Alg::RS256]);
    let policy = policy(&keys, one_rule());
    let token = keys[0].mint(&claims("one"));
    let bearer = format!("Bearer {token}");
    let pairs = pairs(b"/api/orders/1", &bearer);
    let request = Request::from_pairs(&pairs).expect("a request");
    let verified = Arc::new(verify(&policy, &request));
    let asking = must_ask(&policy, accept(&policy, &request, &verified));
    let live = asking.query().judge([Answer::Live]);
    asking.query().learn(NOW.monotonic, live);
    let cache = Tokens::new(4096, 64 << 20, 7, 1);
    cache.insert(verified);
    let keyrings = policy.keyrings();
    let mut group = criterion.benchmark_group("warm");
    group.bench_function("request from pairs, headers to clear", |bencher| {
        bencher.iter(|| {
            let request = Request::from_pairs(black_box(&pairs)).expect("a request");
            policy.clear(&request).len()
        });
    });
    group.bench_function("enter, find, accept, admit", |bencher| {
        bencher.iter(|| {
            let Entry::Token(entered) = policy.enter(black_box(&request)) else { unreachable!("a token") };
            let verified = cache.find(entered.token()).expect("a cached token");
            assert!(policy.still_trusts(&verified, &keyrings, NOW).expect("keys"));
            let accepted = policy.accept(verified, entered, NOW, &Loopback).expect("accepted");
            match policy.revocation_status(accepted, None, NOW).expect("no rejection") {
                RevocationStatus::Admitted(admission) => admission.headers().len(),
                RevocationStatus::MustAsk(_) | RevocationStatus::MustIntrospect(_) => unreachable!("a fresh verdict"),
            }
        });
    });
    group.bench_function("find", |bencher| {
        bencher.iter(|| cache.find(black_box(token.as_bytes())).is_some());
    });
    group.finish();
}

/// A token that nobody has seen, with the engine that needs no host.
fn cold(criterion: &mut Criterion) {
    let keys = keys(&ALGS);
    let policy = policy(&keys, one_rule());
    let mut group = criterion.benchmark_group("verify");
    for key in &keys {
        let bearer = format!("Bearer {}", key.mint(&claims("one")));
        let pairs = pairs(b"/api/orders/1", &bearer);
        let request = Request::from_pairs(&pairs).expect("a request");
        group.bench_function(key.alg().name(), |bencher| bencher.iter(|| verify(&policy, black_box(&request))));
    }
    group.finish();
}

/// The last of many rules matches.
fn routes(criterion: &mut Criterion) {
    let keys = keys(&[Alg::EdDSA]);
    let mut group = criterion.benchmark_group("enter by rules");
    for count in [1, 10, 100, 1_000] {
        let name = |place| if place + 1 == count { "orders".to_owned() } else { format!("s{place:05}") };
        let by_path = |place: usize| json!({ "path": { "prefix": format!("/api/{}", name(place)) } });
        let by_host = |place: usize| {
            let host = if place + 1 == count { "*.example.com".to_owned() } else { format!("*.h{place}.example") };
            json!({ "hosts": [host], "path": { "prefix": "/api" } })
        };
        let forms: [(&str, &dyn Fn(usize) -> Value); 2] = [("path", &by_path), ("wildcard host", &by_host)];
        for (form, matches) in forms {
            let rules: Vec<Value> = (0..count)
                .map(|place| json!({ "name": name(place), "match": matches(place), "access": "required" }))
                .collect();
            let policy = policy(&keys, json!(rules));
            let pairs = pairs(b"/api/orders/1", "Bearer a.b.c");
            let request = Request::from_pairs(&pairs).expect("a request");
            group.bench_function(BenchmarkId::new(form, count), |bencher| {
                bencher.iter(|| entered(&policy, black_box(&request)).rule());
            });
        }
    }
    group.finish();
}

fn parse(criterion: &mut Criterion) {
    let payload = claims("one").to_string();
    criterion.bench_function("JSON of a payload", |bencher| {
        bencher.iter(|| Json::parse(black_box(payload.as_bytes())).expect("JSON").as_object().map_or(0, |of| of.len()));
    });
}

/// Requests that wait, one question for all of them, and its answers.
fn checks(criterion: &mut Criterion) {
    let keys = keys(&[Alg::HS256]);
    let policy = policy(&keys, one_rule());
    let mut group = criterion.benchmark_group("checks, joined, sent and answered");
    for count in [1usize, 8, 32] {
        let asks: Vec<Arc<RevocationQuery>> =
            (0..count).map(|number| ask(&policy, &keys[0], &number.to_string())).collect();
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter_batched_ref(
                || Checks::new(1024, Duration::from_millis(500), Duration::from_millis(100)),
                |checks| {
                    for (waiter, ask) in (1..).zip(&asks) {
                        checks.join(waiter, Arc::clone(ask), NOW.monotonic).expect("room");
                    }
                    let batch = checks.next_batch(Trigger::Waiters, NOW.monotonic).expect("a batch");
                    let answers = vec![Answer::Live; batch.keys.len()];
                    let reply = Reply { keeps: Retention::LONGEST, answers };
                    let resolved = checks.answered(batch.id, &reply).expect("answers");
                    assert_eq!(resolved.len(), count);
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn keys(algs: &[Alg]) -> Vec<SigningKey> {
    algs.iter().map(|alg| SigningKey::generate(*alg, alg.name())).collect()
}

fn one_rule() -> Value {
    json!([{ "name": "api", "match": { "path": { "prefix": "/api" } }, "access": "required" }])
}

fn policy(keys: &[SigningKey], rules: Value) -> Policy {
    let variable = |key: &SigningKey| format!("KEY_{}", key.alg());
    let described: Vec<Value> = keys
        .iter()
        .map(|key| match key.public_jwk() {
            Ok(jwk) => json!({ "jwk": jwk }),
            Err(_) => json!({
                "kid": key.kid(), "alg": key.alg().name(), "secret_env": variable(key), "secret_encoding": "base64url",
            }),
        })
        .collect();
    let algorithms: Vec<&str> = keys.iter().map(|key| key.alg().name()).collect();
    let config = json!({
        "issuers": [{
            "name": "login", "issuer": "https://login.example.com", "audiences": ["orders"],
            "algorithms": algorithms, "keys": described,
        }],
        "revocation": { "cluster": "session_service", "secret_env": SECRET, "freshness": "2s" },
        "forward": { "claims": [
            { "claim": "sub", "header": "x-user-id" },
            { "claim": "scope", "header": "x-user-scope" },
        ] },
        "rules": rules,
    });
    let environment = |name: &str| {
        let key = keys.iter().find(|key| variable(key) == name);
        match key.and_then(SigningKey::secret) {
            Some(secret) => Some(mint::to_base64url(secret).into_bytes()),
            None => (name == SECRET).then(|| vec![b's'; 32]),
        }
    };
    Policy::from_json(config.to_string().as_bytes(), &environment).expect("a configuration")
}

fn claims(id: &str) -> Value {
    json!({
        "iss": "https://login.example.com", "aud": "orders", "iat": ISSUED, "exp": ISSUED + 3600,
        "jti": id, "sid": id, "sub": id, "client_id": id, "scope": "orders:read orders:write",
        "name": "A user of some length", "email": "a.user@mail.example.com", "roles": ["reader", "writer"],
    })
}

fn pairs<'p>(path: &'p [u8], bearer: &'p str) -> [(&'p [u8], &'p [u8]); 8] {
    [
        (b":authority", b"api.example.com"),
        (b":path", path),
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b"user-agent", b"bench"),
        (b"accept", b"*/*"),
        (b"authorization", bearer.as_bytes()),
        (b"x-request-id", b"00000000-0000-4000-8000-000000000000"),
    ]
}

fn entered<'r>(policy: &Policy, request: &Request<'r>) -> Entered<'r> {
    match policy.enter(request) {
        Entry::Token(entered) => entered,
        other => panic!("not a request with a token: {other:?}"),
    }
}

fn verify(policy: &Policy, request: &Request<'_>) -> Verified {
    policy.verify(&Portable, &policy.keyrings(), &entered(policy, request), NOW).expect("a good token")
}

fn accept(policy: &Policy, request: &Request<'_>, verified: &Arc<Verified>) -> Accepted {
    policy.accept(Arc::clone(verified), entered(policy, request), NOW, &Loopback).expect("accepted")
}

fn must_ask(policy: &Policy, accepted: Accepted) -> Asking {
    match policy.revocation_status(accepted, None, NOW).expect("no rejection") {
        RevocationStatus::MustAsk(asking) => asking,
        RevocationStatus::Admitted(_) | RevocationStatus::MustIntrospect(_) => panic!("nothing was asked yet"),
    }
}

fn ask(policy: &Policy, key: &SigningKey, id: &str) -> Arc<RevocationQuery> {
    let bearer = format!("Bearer {}", key.mint(&claims(id)));
    let pairs = pairs(b"/api/orders/1", &bearer);
    let request = Request::from_pairs(&pairs).expect("a request");
    let verified = Arc::new(verify(policy, &request));
    Arc::clone(must_ask(policy, accept(policy, &request, &verified)).query())
}
