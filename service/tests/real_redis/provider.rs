//! A provider of a test's own: keys, tokens, and an HTTP server that publishes what it is told to, or misbehaves.
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mint::{Alg, SigningKey, random_id};
use serde_json::{Value, json};

use crate::support::*;

pub const CLIENT: &str = "portcullis-client";
pub const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";
pub const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

/// How the server answers.
#[derive(Debug, Clone)]
pub enum Says {
    Body(String),
    Status(u16),
    Redirect,
    /// Accepts, and says nothing.
    Nothing,
}

pub struct Jwks {
    pub at: SocketAddr,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl Jwks {
    pub fn publishing(keys: &[&SigningKey]) -> Self {
        Self::saying(Says::Body(set(keys)))
    }

    pub fn saying(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let jwks = Self { at, says: Arc::new(Mutex::new(says)), asked: Arc::default(), stopped: Arc::default() };
        let (says, asked, stopped) = (jwks.says.clone(), jwks.asked.clone(), jwks.stopped.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                asked.fetch_add(1, Ordering::SeqCst);
                let says = says.lock().unwrap().clone();
                std::thread::spawn(move || answer(stream, &says));
            }
        });
        jwks
    }

    pub fn now_says(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    pub fn uri(&self) -> String {
        format!("http://{}/jwks", self.at)
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Jwks {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.at);
    }
}

fn answer(mut stream: TcpStream, says: &Says) {
    let mut head = [0; 4096];
    let _ = stream.read(&mut head);
    let (status, extra, body) = match says {
        Says::Body(body) => (200, "", body.as_str()),
        Says::Status(status) => (*status, "", ""),
        Says::Redirect => (302, "location: /elsewhere\r\n", ""),
        Says::Nothing => {
            // Until the other side gives up.
            let _ = stream.read(&mut head);
            return;
        }
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status} Said\r\n{extra}content-length: {length}\r\nconnection: close\r\n\r\n");
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}

pub fn set(keys: &[&SigningKey]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| Value::Object(key.public_jwk().unwrap())).collect();
    json!({ "keys": keys }).to_string()
}

pub fn key_of(alg: Alg, kid: &str) -> SigningKey {
    SigningKey::generate(alg, kid)
}

/// The file's form of this provider, to be changed as a test needs it.
pub fn provider(uri: &str) -> Value {
    json!({
        "issuer": ISSUER, "audiences": [CLIENT], "jwks_uri": uri, "algorithms": ["EdDSA", "RS256"],
        "timeout": "500ms", "logout": {}, "events": {},
    })
}

/// The file of these providers, in the directory of the test's Redis. Those that are null are absent.
pub fn providers(redis: &Redis, list: &[Value]) -> Option<PathBuf> {
    let text = json!({ "providers": list }).to_string();
    Some(file(redis, &format!("providers-{}.json", random_id()), text.as_bytes()))
}

/// What a provider says of a user's session that ended.
pub fn logout_claims() -> Value {
    json!({
        "iss": ISSUER, "aud": CLIENT, "iat": now(), "exp": now() + 120, "jti": random_id(), "sid": random_id(),
        "events": { LOGOUT: {} },
    })
}

pub fn event_claims(sub_id: &Value) -> Value {
    json!({
        "iss": ISSUER, "aud": [CLIENT], "iat": now(), "jti": random_id(), "txn": "8675309", "sub_id": sub_id,
        "events": { REVOKED: { "event_timestamp": now(), "reason_admin": { "en": "tested" } } },
    })
}

/// `claims` with members replaced, or taken away where they are null.
pub fn with(mut claims: Value, members: &Value) -> Value {
    for (name, value) in members.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

pub fn typed(key: &SigningKey, typ: &str, claims: &Value) -> String {
    let header = json!({ "alg": key.alg().name(), "kid": key.kid(), "typ": typ });
    key.sign(&header.to_string(), &claims.to_string())
}

#[derive(Debug)]
pub struct Told {
    pub status: u16,
    pub body: Value,
    pub retry_after: Option<u64>,
}

pub fn send(service: &Running, path: &str, content_type: &str, body: &[u8]) -> Told {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = ureq::Agent::new_with_config(config.timeout_global(Some(Duration::from_secs(20))).build());
    let url = format!("http://{}{path}", service.at.listen);
    let mut answer = agent.post(url).content_type(content_type).send(body).unwrap();
    let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(header("cache-control").as_deref(), Some("no-store"));
    let retry_after = header("retry-after").map(|seconds| seconds.parse().unwrap());
    let status = answer.status().as_u16();
    let text = answer.body_mut().read_to_string().unwrap();
    Told { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)), retry_after }
}

pub fn log_out(service: &Running, token: &str) -> Told {
    let body = format!("logout_token={token}");
    let told = send(service, "/oauth2/backchannel-logout", "application/x-www-form-urlencoded", body.as_bytes());
    if told.status != 200 {
        assert!(told.body["error"].is_string() && told.body["error_description"].is_string(), "{told:?}");
    }
    assert_eq!(told.retry_after.is_some(), told.status == 503, "{told:?}");
    told
}

pub fn push(service: &Running, token: &str) -> Told {
    let told = send(service, "/ssf/events", "application/secevent+jwt", token.as_bytes());
    if told.status != 202 {
        assert!(told.body["err"].is_string() && told.body["description"].is_string(), "{told:?}");
    }
    told
}
