//! A proxy in memory with one rule, its revocation service, its issuer, and tokens for it.
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use authn::time::{Monotonic, Now, UnixSeconds};
use driver::fake::{FakeHost, FakeProxy, FakeReply, FakeService, InFlight, Request, Seen, SharedData};
use driver::{StreamId, TICK};
use mint::{Alg, Proof, SigningKey};
use serde_json::{Value, json};
use wire::check::{Needs, Question};
use wire::{Answer, Kind, RevocationKey, Secret};

pub const NOW: u64 = 1_750_000_000;
pub const ISSUER: &str = "https://idp.example";
const SECRET: &[u8] = b"a secret of at least 32 bytes, shared";

pub struct Fixture {
    pub proxy: FakeProxy,
    pub service: FakeService,
    document: Value,
    shared: SharedData,
    workers: usize,
    published: Option<Value>,
    /// What the provider says in place of its set.
    pub says: Option<FakeReply>,
    /// When the provider was asked, by path.
    pub asked: Vec<(Monotonic, String)>,
    introspection: BTreeMap<String, Value>,
    machines: u64,
}

pub fn start_of_time() -> Now {
    Now { wall: UnixSeconds(NOW), monotonic: Monotonic(1_000_000_000_000) }
}

pub fn key(kid: &str) -> &'static SigningKey {
    static ONE: OnceLock<SigningKey> = OnceLock::new();
    static TWO: OnceLock<SigningKey> = OnceLock::new();
    static FORGER: OnceLock<SigningKey> = OnceLock::new();
    let cell = match kid {
        "one" => &ONE,
        "two" => &TWO,
        _ => &FORGER,
    };
    cell.get_or_init(|| SigningKey::generate(Alg::EdDSA, kid))
}

pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

pub fn is_forwarded(proxy: &FakeProxy, stream: StreamId) -> bool {
    matches!(proxy.seen(stream), Seen::Forwarded(_))
}

pub fn is_waiting(proxy: &FakeProxy, stream: StreamId) -> bool {
    matches!(proxy.seen(stream), Seen::Waiting)
}

/// The code of a refusal, or what else the request came to.
pub fn code(proxy: &FakeProxy, stream: StreamId) -> String {
    match proxy.seen(stream) {
        Seen::Replied(reply) => reply.details,
        other => format!("{other:?}"),
    }
}

fn document(issuer: Value) -> Value {
    json!({
        "issuers": [issuer],
        "revocation": {
            "cluster": "session_service", "secret_env": "SECRET", "timeout": "500ms", "freshness": "2s",
            "refresh_ahead": false,
        },
        "rules": [{
            "name": "api", "access": "required",
            "forward": { "claims": [{ "claim": "sub", "header": "x-user" }] },
        }],
    })
}

impl Fixture {
    /// With the issuer's key in the configuration.
    pub fn start(workers: usize) -> Self {
        let jwk = key("one").public_jwk().unwrap();
        Self::new(
            document(json!({ "name": "idp", "issuer": ISSUER, "audiences": ["api"], "algorithms": ["EdDSA"],
                "keys": [{ "jwk": jwk }] })),
            workers,
        )
    }

    /// With keys that are fetched. The provider has none until [`Fixture::publish`].
    pub fn with_published_keys() -> Self {
        Self::new(
            document(json!({ "name": "idp", "issuer": ISSUER, "audiences": ["api"], "algorithms": ["EdDSA"],
                "jwks": { "uri": "https://idp.example/keys", "cluster": "idp", "timeout": "1s", "refresh": "10s", "cool_down": "5s" } })),
            1,
        )
    }

    /// With opaque tokens of the form `opaque_…`.
    pub fn with_introspection() -> Self {
        Self::new(
            document(json!({ "name": "as", "issuer": ISSUER, "audiences": "any",
                "introspection": { "cluster": "as", "timeout": "1s",
                    "freshness": "2s", "path": "/introspect", "client_auth": "none", "format": { "shape": { "prefix": "opaque_" } } } })),
            1,
        )
    }

    fn new(document: Value, workers: usize) -> Self {
        let shared = SharedData::default();
        let keys = Secret::new(SECRET).unwrap().derive();
        let mut service = FakeService::new(keys);
        service.keeps = wire::Retention::LONGEST;
        let proxy = proxy(&document, shared.clone(), workers, 1, start_of_time());
        Self {
            proxy,
            service,
            document,
            shared,
            workers,
            published: None,
            says: None,
            asked: Vec::new(),
            introspection: BTreeMap::new(),
            machines: 1,
        }
    }

    /// Starts anew with another configuration, in a process of its own.
    pub fn edit(&mut self, edit: impl FnOnce(&mut Value)) {
        edit(&mut self.document);
        self.shared = SharedData::default();
        self.proxy = proxy(&self.document, self.shared.clone(), self.workers, 1, self.proxy.host.now);
    }

    /// The same configuration in another virtual machine of the process.
    pub fn another_virtual_machine(&mut self) -> Fixture {
        self.machines += 1;
        Fixture {
            proxy: proxy(&self.document, self.shared.clone(), self.workers, self.machines, self.proxy.host.now),
            service: self.service.clone(),
            document: self.document.clone(),
            shared: self.shared.clone(),
            workers: self.workers,
            published: self.published.clone(),
            says: self.says.clone(),
            asked: Vec::new(),
            introspection: self.introspection.clone(),
            machines: self.machines,
        }
    }

    pub fn token(&self, jti: &str) -> String {
        token("one", jti, "alice", self.proxy.host.now.wall.0)
    }

    pub fn send(&mut self, jti: &str) -> StreamId {
        self.send_signed("one", jti)
    }

    pub fn send_signed(&mut self, kid: &str, jti: &str) -> StreamId {
        let token = token(kid, jti, "alice", NOW);
        self.send_token(&token)
    }

    pub fn send_token(&mut self, token: &str) -> StreamId {
        self.proxy.send(0, Request::get("/api", &[("authorization", &bearer(token))]))
    }

    pub fn revoke(&mut self, kind: Kind, id: &str) {
        let key = self.service.keys.revocation_key(kind, ISSUER, id.as_bytes());
        let answer = if kind.is_simply_dead() { Answer::Dead } else { Answer::Before(NOW + 3600) };
        self.service.revoke(key, answer);
    }

    /// The provider's set from now on.
    pub fn publish(&mut self, kids: &[&str]) {
        let keys: Vec<Value> = kids.iter().map(|kid| Value::Object(key(kid).public_jwk().unwrap())).collect();
        self.published = Some(json!({ "keys": keys }));
    }

    /// What the introspection server says of a token from now on.
    pub fn active(&mut self, token: &str, says: Option<Value>) {
        match says {
            Some(says) => self.introspection.insert(token.to_owned(), says),
            None => self.introspection.remove(token),
        };
    }

    pub fn is_check(&self, call: &InFlight) -> bool {
        call.header(":path") == wire::check::PATH && call.body.starts_with(b"PCQ")
    }

    /// How many checks are in flight.
    pub fn checks(&self) -> usize {
        self.proxy.host.in_flight.iter().filter(|call| self.is_check(call)).count()
    }

    pub fn answer_one_check(&mut self) {
        let call = self.proxy.host.in_flight.iter().find(|call| self.is_check(call)).unwrap().clone();
        let reply = self.service.answer(&call.body);
        self.proxy.answer(call.id, &reply);
    }

    pub fn reply(&self, call: &InFlight) -> FakeReply {
        match call.cluster.as_str() {
            "session_service" if call.header(":path") != "/introspect" => self.service.answer(&call.body),
            "idp" => match &self.published {
                _ if self.says.is_some() => self.says.clone().unwrap_or_default(),
                Some(set) => FakeReply::new(200, "application/json", set.to_string()),
                None => FakeReply::new(503, "text/plain", "no keys yet"),
            },
            _ => {
                let body = String::from_utf8_lossy(&call.body).into_owned();
                let token = body.strip_prefix("token=").and_then(|rest| rest.split('&').next()).unwrap_or_default();
                match self.introspection.get(token) {
                    Some(says) => FakeReply::new(200, "application/json", says.to_string()),
                    None => FakeReply::new(200, "application/json", r#"{"active":false}"#),
                }
            }
        }
    }

    /// Time passes, and everything is answered at once.
    pub fn run(&mut self, time: Duration) {
        let end = self.proxy.host.now.monotonic.plus(time);
        while self.proxy.host.now.monotonic < end {
            self.proxy.advance(TICK);
            self.answer_all();
        }
    }

    /// The polls of the feed in flight.
    pub fn polls(&self) -> Vec<InFlight> {
        let is_poll = |call: &&InFlight| call.header(":path") == wire::feed::PATH;
        self.proxy.host.in_flight.iter().filter(is_poll).cloned().collect()
    }

    /// Answers the poll in flight, if there is news.
    pub fn answer_poll(&mut self) {
        for call in self.polls() {
            if let Some(reply) = self.answer_to(&call) {
                self.proxy.answer(call.id, &reply);
            }
        }
    }

    /// What answers this callout. `None` for a poll of the feed that is still held.
    fn answer_to(&self, call: &InFlight) -> Option<FakeReply> {
        match call.header(":path") == wire::feed::PATH {
            true => self.service.poll(&call.body, self.proxy.host.now.monotonic.since(call.sent)),
            false => Some(self.reply(call)),
        }
    }

    pub fn answer_all(&mut self) {
        let answerable =
            |it: &Self| it.proxy.host.in_flight.iter().find_map(|call| Some((call.clone(), it.answer_to(call)?)));
        while let Some((call, reply)) = answerable(self) {
            if call.cluster == "idp" {
                self.asked.push((self.proxy.host.now.monotonic, call.header(":path").to_owned()));
            }
            self.proxy.answer(call.id, &reply);
        }
    }

    /// A question of the same service that asks about something else.
    pub fn question_about_nothing(&self) -> Vec<u8> {
        let needs = Needs { future_iat_tolerance_seconds: 1, now_seconds: NOW };
        Question::new(&self.service.keys, [9; 16], needs, &[RevocationKey([3; 16])]).unwrap().bytes().to_vec()
    }
}

pub fn token(kid: &str, jti: &str, subject: &str, issued: u64) -> String {
    key(kid).mint(&json!({ "iss": ISSUER, "aud": "api", "sub": subject, "jti": jti, "iat": issued, "exp": NOW + 3600 }))
}

/// The key that tokens are bound to.
pub fn client() -> &'static SigningKey {
    static CLIENT: OnceLock<SigningKey> = OnceLock::new();
    CLIENT.get_or_init(|| SigningKey::generate(Alg::EdDSA, "client"))
}

/// A token that is bound to the key of [`client`].
pub fn bound_token(kid: &str, jti: &str, subject: &str, issued: u64) -> String {
    key(kid).mint(&json!({ "iss": ISSUER, "aud": "api", "sub": subject, "jti": jti, "iat": issued, "exp": NOW + 3600,
        "cnf": { "jkt": client().thumbprint() } }))
}

/// The section `dpop` for such tokens.
pub fn dpop() -> Value {
    json!({ "origins": ["https://api.example"], "algorithms": ["EdDSA"], "remembered_proofs": 1024 })
}

/// A proof for `GET /api`, of this moment.
pub fn proof(at: &Fixture, token: &str, nonce: Option<&str>) -> String {
    let UnixSeconds(iat) = at.proxy.host.now.wall;
    let url = "https://api.example/api";
    client().prove(&Proof { method: "GET", url, token: Some(token), nonce, iat }).unwrap()
}

fn proxy(document: &Value, shared: SharedData, workers: usize, seed: u64, now: Now) -> FakeProxy {
    let secrets = BTreeMap::from([("SECRET".to_owned(), SECRET.to_vec())]);
    let host = FakeHost::new(now, secrets, shared, seed);
    FakeProxy::start(host, document.to_string().as_bytes(), workers).unwrap()
}
