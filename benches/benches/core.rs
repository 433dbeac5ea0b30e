//! Core and driver alone, natively: what of a request's cost is ours, without Envoy, Wasm and host calls.
//! `cargo bench -p benches`.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a measurement that cannot be made ends"
)]
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use authn::decide::{Entered, Entry, Verified};
use authn::engine::Portable;
use authn::policy::Policy;
use authn::request::Request;
use authn::time::{Monotonic, Now, UnixSeconds};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use driver::Action;
use driver::fake::{self, FakeExchange, FakeHost, FakeProxy, FakeService, SharedData};
use jose::json::Json;
use mint::{Alg, SigningKey};
use serde_json::{Value, json};

criterion_group!(benches, warm, cold, routes, parse, checks);
criterion_main!(benches);

const ISSUED: u64 = 1_750_000_000;
const NOW: Now = Now { wall: UnixSeconds(ISSUED + 60), monotonic: Monotonic(1_000_000_000_000) };
const ALGS: [Alg; 8] = [Alg::HS256, Alg::RS256, Alg::RS512, Alg::PS256, Alg::ES256, Alg::ES384, Alg::EdDSA, Alg::HS512];
const SECRET: &str = "SECRET";

/// A token that the cache holds and whose verdict is fresh: what most requests are.
fn warm(criterion: &mut Criterion) {
    let keys = keys(&[Alg::RS256]);
    let policy = policy(&keys, one_rule());
    let bearer = format!("Bearer {}", keys[0].mint(&claims("one")));
    let pairs = pairs(b"/api/orders/1", &bearer);
    let mut proxy = proxy(&keys);
    let exchange = exchange(&bearer);
    send(&mut proxy, std::slice::from_ref(&exchange));
    let mut group = criterion.benchmark_group("warm");
    group.bench_function("request from pairs, headers to clear", |bencher| {
        bencher.iter(|| {
            let request = Request::from_pairs(black_box(&pairs)).expect("a request");
            policy.clear(&request).len()
        });
    });
    group.bench_function("headers to admission, by the driver", |bencher| {
        let FakeProxy { host, dispatcher, workers, .. } = &mut proxy;
        let worker = &mut workers[0];
        bencher.iter_batched_ref(
            || exchange.clone(),
            |exchange| assert_eq!(worker.begin(0, true, host, exchange, dispatcher), Action::Continue),
            BatchSize::SmallInput,
        );
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

/// Cached tokens whose verdicts are stale: requests that wait, the questions for them, and the answers. One tick and
/// the service's part are included.
fn checks(criterion: &mut Criterion) {
    let keys = keys(&[Alg::HS256]);
    let mut group = criterion.benchmark_group("checks, joined, sent and answered");
    for count in [1usize, 8, 32] {
        let requests: Vec<FakeExchange> = (0..count)
            .map(|number| exchange(&format!("Bearer {}", keys[0].mint(&claims(&number.to_string())))))
            .collect();
        let mut proxy = proxy(&keys);
        send(&mut proxy, &requests);
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                // Beyond the freshness. The tokens do not expire.
                proxy.host.now.monotonic = proxy.host.now.monotonic.plus(Duration::from_secs(3));
                proxy.tick();
                send(&mut proxy, black_box(&requests));
            });
        });
    }
    group.finish();
}

/// Sends requests, answers what they ask, and ends them.
fn send(proxy: &mut FakeProxy, requests: &[FakeExchange]) {
    let service =
        FakeService::new(wire::DerivedKeys::clone(&proxy.core.policy.revocation().expect("revocation").derived));
    let request = |exchange: &FakeExchange| fake::Request { exchange: exchange.clone(), ends: true };
    let streams: Vec<driver::StreamId> = requests.iter().map(|exchange| proxy.send(0, request(exchange))).collect();
    proxy.answer_all(|call| Some(service.answer(&call.body)));
    for stream in streams {
        assert!(matches!(proxy.seen(stream), fake::Seen::Forwarded(_)), "{:?}", proxy.seen(stream));
        proxy.reset(stream);
    }
}

fn exchange(bearer: &str) -> FakeExchange {
    FakeExchange::new(pairs(b"/api/orders/1", bearer).map(|(name, value)| (name.to_vec(), value.to_vec())).to_vec())
}

fn keys(algs: &[Alg]) -> Vec<SigningKey> {
    algs.iter().map(|alg| SigningKey::generate(*alg, alg.name())).collect()
}

fn one_rule() -> Value {
    json!([{ "name": "api", "match": { "path": { "prefix": "/api" } }, "access": "required" }])
}

fn policy(keys: &[SigningKey], rules: Value) -> Policy {
    let secrets = secrets(keys);
    let secret = |name: &str| secrets.get(name).cloned();
    Policy::from_json(configuration(keys, rules).to_string().as_bytes(), &secret).expect("a configuration")
}

fn proxy(keys: &[SigningKey]) -> FakeProxy {
    let host = FakeHost::new(NOW, secrets(keys), SharedData::default(), 7);
    FakeProxy::start(host, configuration(keys, one_rule()).to_string().as_bytes(), 1).expect("a configuration")
}

fn variable(key: &SigningKey) -> String {
    format!("KEY_{}", key.alg())
}

fn secrets(keys: &[SigningKey]) -> BTreeMap<String, Vec<u8>> {
    let of_keys = keys.iter().filter_map(|key| Some((variable(key), mint::to_base64url(key.secret()?).into_bytes())));
    of_keys.chain([(SECRET.to_owned(), vec![b's'; 32])]).collect()
}

fn configuration(keys: &[SigningKey], rules: Value) -> Value {
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
    json!({
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
    })
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
