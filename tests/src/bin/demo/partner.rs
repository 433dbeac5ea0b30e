//! The second issuer of envoy/filter.yaml, which publishes its keys: a real HTTP server, and the keys to sign with.
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::{Answer, Upstream};
use mint::{Alg, SigningKey, random_id};
use serde_json::{Value, json};

/// What its answers allow: the shortest that the filter honours.
pub const MAX_AGE: Duration = Duration::from_secs(10);

pub struct Partner {
    pub name: String,
    /// Published from the start.
    pub first: SigningKey,
    audience: String,
    published: Arc<Mutex<Vec<Value>>>,
    fetches: Arc<Mutex<Vec<Instant>>>,
    server: Upstream,
}

impl Partner {
    /// As the configuration has it.
    pub async fn start(issuer: &Value) -> Self {
        let (published, fetches) = (Arc::<Mutex<Vec<Value>>>::default(), Arc::<Mutex<Vec<Instant>>>::default());
        let (keys, times) = (Arc::clone(&published), Arc::clone(&fetches));
        let server = Upstream::answering(move |_| {
            let keys = keys.lock().map(|keys| keys.clone()).unwrap_or_default();
            if let Ok(mut times) = times.lock() {
                times.push(Instant::now());
            }
            let age = format!("max-age={}", MAX_AGE.as_secs());
            Answer::json(200, &json!({ "keys": keys })).header("cache-control", &age)
        });
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let partner = Self {
            first: Self::key("old"),
            name: text(&issuer["issuer"]),
            audience: text(&issuer["audiences"][0]),
            server: server.await,
            published,
            fetches,
        };
        partner.publish(&[&partner.first]);
        partner
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// From now on, these and no others.
    pub fn publish(&self, keys: &[&SigningKey]) {
        if let Ok(mut published) = self.published.lock() {
            *published = keys.iter().filter_map(|key| key.public_jwk().ok().map(Value::Object)).collect();
        }
    }

    pub fn fetches(&self) -> usize {
        self.fetches.lock().map_or(0, |fetches| fetches.len())
    }

    /// The first fetch after this moment.
    pub fn fetched_after(&self, moment: Instant) -> Option<Instant> {
        self.fetches.lock().ok()?.iter().find(|at| **at >= moment).copied()
    }

    pub fn key(kid: &str) -> SigningKey {
        SigningKey::generate(Alg::ES256, kid)
    }

    pub fn sign(&self, key: &SigningKey, user: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        key.mint(&json!({
            "iss": self.name, "aud": self.audience, "sub": user, "sid": random_id(), "jti": random_id(),
            "scope": "orders", "iat": now, "exp": now + 600,
        }))
    }
}
