//! The quantities that grow: for each series its Envoys and their requests.
use std::net::SocketAddr;
use std::sync::Arc;

use harness::Service;
use mint::{Alg, SigningKey};
use serde_json::{Value, json};

use super::store::Stack;
use crate::machine::Cores;
use crate::scenario::{self, Host, SECRET, Setup, bare, portcullis, with};
use crate::tokens::{AUDIENCE, ISSUER, now, on_both, small};

/// The reference curve.
pub const NONE: &str = "no filter";
/// More tokens than Portcullis caches by default, so that each is a cache miss when sent in turn.
pub const ASKED: usize = 20_000;
/// Few enough to be cached.
const REPEATED: usize = 100;
/// The most tokens sent before the first window, in series where this changes nothing.
const SENT_FIRST: usize = 10_000;
/// Keys of one issuer; the last is the filter's maximum.
const KEYS: [usize; 3] = [1, 10, 64];
const ISSUERS: [usize; 3] = [1, 10, 100];

pub struct Series {
    pub name: &'static str,
    pub title: &'static str,
    /// The quantity on the horizontal axis.
    pub grows: &'static str,
    pub cases: Vec<Case>,
}

/// One Envoy of a series.
pub struct Case {
    pub curve: &'static str,
    pub x: usize,
    pub setup: Setup,
    pub requests: Arc<Vec<Vec<u8>>>,
    /// How many of the requests, from the first.
    pub count: usize,
    /// How many are sent before the first window.
    pub sent_first: usize,
}

/// Small tokens of one issuer and key, each with its own session, user and client.
pub struct Small {
    key: SigningKey,
    requests: Arc<Vec<Vec<u8>>>,
}

/// The same, with a service to check them.
pub struct Beside {
    small: Small,
    service: SocketAddr,
    secret: String,
}

impl Small {
    pub fn mint(cores: Cores, count: usize) -> anyhow::Result<Self> {
        eprintln!("minting {count} tokens");
        let key = SigningKey::generate(Alg::HS256, "k0");
        let now = now()?;
        let requests = on_both(cores, count, |number| small(&key, ISSUER, number, now))?;
        Ok(Self { key, requests: Arc::new(requests) })
    }

    pub fn beside(self, service: &Service) -> Beside {
        Beside { small: self, service: service.address(), secret: service.options().secret.clone() }
    }
}

impl Beside {
    pub fn tokens(&self, most: usize) -> Series {
        let mut cases = vec![self.none(1, SENT_FIRST)];
        let sizes = [100, 1_000, 10_000, 100_000, 1_000_000].into_iter().filter(|size| *size <= most);
        for count in sizes {
            let case = |curve, setup, sent_first| {
                let requests = Arc::clone(&self.small.requests);
                Case { curve, x: count, setup, requests, count, sent_first }
            };
            let asks = json!({ "revocation": scenario::revocation() });
            let (on, off) = (format!("tokens-{count}"), format!("tokens-unasked-{count}"));
            // All of them once: memory that grows with their number would show.
            cases.push(case("revocation", self.portcullis(&on, &asks), count));
            cases.push(case("revocation off", self.portcullis(&off, &json!({})), count.min(SENT_FIRST)));
        }
        Series { name: "tokens", title: "Different tokens, in turn", grows: "tokens", cases }
    }

    pub fn workers(&self) -> Series {
        let mut cases = Vec::new();
        for workers in [1, 2] {
            let none = self.none(workers, REPEATED);
            cases.push(Case { x: workers, ..none });
            let asks = json!({ "revocation": scenario::revocation() });
            let warm = Setup { workers, ..self.portcullis(&format!("workers-{workers}"), &asks) };
            cases.push(self.case("warm", workers, warm, REPEATED));
            let cold = Setup { workers, ..self.portcullis(&format!("workers-cold-{workers}"), &asks) };
            cases.push(self.case("a new token each time", workers, cold, ASKED));
        }
        Series { name: "workers", title: "Workers, on one core", grows: "workers", cases }
    }

    pub fn rules(&self) -> Series {
        let mut cases = vec![self.none(1, REPEATED)];
        for count in [1, 10, 100, 1_000] {
            // The last one matches, and the path has the same length whatever their number.
            let name = |place| if place + 1 == count { "orders".to_owned() } else { format!("s{place:05}") };
            let rules: Vec<Value> = (0..count)
                .map(|place| {
                    let path = json!({ "prefix": format!("/api/{}", name(place)) });
                    json!({ "name": name(place), "match": { "path": path }, "access": "required" })
                })
                .collect();
            let setup = self.portcullis(&format!("rules-{count}"), &json!({ "rules": rules }));
            cases.push(self.case("warm", count, setup, REPEATED));
        }
        Series { name: "rules", title: "Rules, of which the last matches", grows: "rules", cases }
    }

    /// Each stack has its own Envoy; every request causes a check.
    pub fn revocations(&self, stacks: &[Stack]) -> Series {
        let mut cases = vec![self.none(1, ASKED)];
        let asks = with(json!({ "revocation": scenario::revocation() }), &scenario::asks_each_time());
        for stack in stacks {
            let asked = Beside {
                small: Small { key: self.key_again(), requests: Arc::clone(&self.small.requests) },
                service: stack.service.address(),
                secret: stack.service.options().secret.clone(),
            };
            let setup = asked.portcullis(&format!("revocations-{}", stack.revocations), &asks);
            cases.push(self.case("each request asks", stack.revocations, setup, ASKED));
        }
        Series { name: "revocations", title: "Revocations in Redis", grows: "revocations", cases }
    }

    fn key_again(&self) -> SigningKey {
        let secret = self.small.key.secret().unwrap_or_default();
        SigningKey::from_secret(Alg::HS256, self.small.key.kid(), secret).expect("an HMAC key")
    }

    fn none(&self, workers: usize, count: usize) -> Case {
        let setup = bare(&format!("none-{workers}"), NONE, Vec::new(), Vec::new());
        self.case(NONE, 1, Setup { workers, ..setup }, count)
    }

    fn case(&self, curve: &'static str, x: usize, setup: Setup, count: usize) -> Case {
        let requests = Arc::clone(&self.small.requests);
        Case { curve, x, setup, requests, count, sent_first: count }
    }

    fn portcullis(&self, name: &str, more: &Value) -> Setup {
        self.with_keys(name, &[(ISSUER, &[&self.small.key])], more)
    }

    /// Each issuer with its keys.
    fn with_keys(&self, name: &str, issuers: &[(&str, &[&SigningKey])], more: &Value) -> Setup {
        let mut environment = vec![(SECRET.to_owned(), self.secret.clone())];
        let mut described = Vec::new();
        for (place, (issuer, keys)) in issuers.iter().enumerate() {
            let mut listed = Vec::new();
            for key in *keys {
                let variable = format!("KEY_{place}_{}", key.kid().unwrap_or_default());
                listed.push(json!({
                    "kid": key.kid(), "alg": "HS256", "secret_env": variable, "secret_encoding": "base64url",
                }));
                environment.push((variable, mint::to_base64url(key.secret().unwrap_or_default())));
            }
            described.push(json!({
                "name": format!("i{place}"), "issuer": issuer, "audiences": [AUDIENCE], "algorithms": ["HS256"],
                "keys": listed,
            }));
        }
        let rule = json!({ "name": "api", "match": { "path": { "prefix": "/api" } }, "access": "required" });
        let config = with(json!({ "issuers": described, "rules": [rule] }), more);
        portcullis(Host::Wasm, name, "Portcullis", &config, environment, self.service, Vec::new())
    }
}

/// Every token is new, so its issuer is looked up each time.
///
/// # Errors
/// There are no two cores to mint on.
pub fn issuers(beside: &Beside, cores: Cores) -> anyhow::Result<Series> {
    let now = now()?;
    let mut cases = vec![beside.none(1, ASKED)];
    for count in ISSUERS {
        let all: Vec<(String, SigningKey)> = (0..count)
            .map(|place| (format!("https://i{place}.example.com"), SigningKey::generate(Alg::HS256, "k0")))
            .collect();
        let requests = on_both(cores, ASKED, |number| {
            let (issuer, key) = &all[number % count];
            small(key, issuer, number, now)
        })?;
        let keys: Vec<[&SigningKey; 1]> = all.iter().map(|(_, key)| [key]).collect();
        let listed: Vec<(&str, &[&SigningKey])> =
            all.iter().zip(&keys).map(|((issuer, _), key)| (issuer.as_str(), key.as_slice())).collect();
        let setup = beside.with_keys(&format!("issuers-{count}"), &listed, &json!({}));
        let requests = Arc::new(requests);
        cases.push(Case { requests, ..beside.case("a new token each time", count, setup, ASKED) });
    }
    Ok(Series { name: "issuers", title: "Issuers, with a key each", grows: "issuers", cases })
}

/// Like [`issuers`], with keys of one.
///
/// # Errors
/// As [`issuers`].
pub fn keys(beside: &Beside, cores: Cores) -> anyhow::Result<Series> {
    let now = now()?;
    let mut cases = vec![beside.none(1, ASKED)];
    for count in KEYS {
        let all: Vec<SigningKey> =
            (0..count).map(|place| SigningKey::generate(Alg::HS256, &format!("k{place}"))).collect();
        let requests = Arc::new(on_both(cores, ASKED, |number| small(&all[number % count], ISSUER, number, now))?);
        let listed: Vec<&SigningKey> = all.iter().collect();
        let setup = beside.with_keys(&format!("keys-{count}"), &[(ISSUER, &listed)], &json!({}));
        cases.push(Case { requests, ..beside.case("a new token each time", count, setup, ASKED) });
    }
    Ok(Series { name: "keys", title: "Keys of one issuer", grows: "keys", cases })
}
