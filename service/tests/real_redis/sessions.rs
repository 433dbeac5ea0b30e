//! Sessions from their making to their end, and what attackers try with their tokens.
mod clients;
mod ending;
mod introspection;
mod refresh;
mod rotation;
mod status_lists;

use std::path::PathBuf;
use std::time::Duration;

use mint::{Alg, SigningKey};
use serde_json::{Value, json};
use service::SessionOptions;
use wire::opaque_token::{self, OpaqueToken, Purpose};
use wire::{Answer, Kind};

use crate::support::*;

pub const OURS: &str = "https://sessions.example";
pub const SECRET: &str = "a-client-secret-of-at-least-32-bytes";
const OTHER_SECRET: &str = "another-secret-of-at-least-32-bytes!";
const SOON: Duration = Duration::from_secs(5);

struct Stack {
    redis: Redis,
    service: Running,
    dir: tempfile::TempDir,
}

pub fn session_options(dir: &tempfile::TempDir) -> SessionOptions {
    let clients = json!({ "clients": [
        { "client_id": "app", "secret_files": ["app"], "may": ["introspect", "refresh", "revoke"] },
        { "client_id": "other", "secret_files": ["other"], "may": ["introspect", "refresh", "revoke"] },
        { "client_id": "gateway", "secret_files": ["app"], "may": ["introspect"] },
        { "client_id": "mute", "secret_files": ["app"], "may": [] },
    ]});
    let write = |name: &str, text: &str| write_private(&dir.path().join(name), text.as_bytes());
    write("app", SECRET);
    write("other", OTHER_SECRET);
    write("clients.json", &clients.to_string());
    let words = ["serve", "--session-issuer", OURS, "--session-audience", "api", "--refresh-grace", "1s"];
    let mut options = <Command as clap::Parser>::parse_from(words).sessions;
    options.signing_keys = vec![signing_key(dir, "signing.pem", Alg::ES256).0.display().to_string()];
    options.clients_file = Some(dir.path().join("clients.json"));
    options
}

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    sessions: SessionOptions,
}

/// Files with the secrets that [`secret`] makes of these bytes.
fn session_secrets(dir: &tempfile::TempDir, bytes: &[u8]) -> Vec<PathBuf> {
    let write = |byte: &u8| {
        let path = dir.path().join(format!("session-secret-{byte}"));
        write_private(&path, &[*byte; 32]);
        path
    };
    bytes.iter().map(write).collect()
}

fn signing_key(dir: &tempfile::TempDir, name: &str, alg: Alg) -> (PathBuf, String) {
    let key = SigningKey::generate(alg, "x");
    let path = dir.path().join(name);
    // As careful operators do: the file is all there or not at all.
    write_private(&dir.path().join("new"), key.private_pem().unwrap().as_bytes());
    std::fs::rename(dir.path().join("new"), &path).unwrap();
    (path, key.thumbprint())
}

fn stack() -> Stack {
    stack_with(|_| {})
}

fn stack_with(change: impl FnOnce(&mut SessionOptions)) -> Stack {
    let (redis, dir) = (Redis::start(), tempfile::tempdir().unwrap());
    let mut sessions = session_options(&dir);
    change(&mut sessions);
    let service = Running::start(service::Options { sessions, ..options(&redis) });
    Stack { redis, service, dir }
}

impl Stack {
    fn create(&self, body: Value) -> Value {
        let (status, made) = self.service.admin("POST", "/v1/sessions", &body.to_string());
        assert_eq!(status, 201, "{made}");
        made
    }

    fn create_refreshable(&self) -> Value {
        self.create(json!({ "subject": "alice", "client_id": "app", "refresh": true, "scope": "read write" }))
    }

    fn as_client(&self, client: &str, secret: &str, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("client_id", client), ("client_secret", secret)])
            .extend_pairs(form)
            .finish();
        self.post(path, &[("content-type", "application/x-www-form-urlencoded")], &body)
    }

    fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let (status, text, _) = self.service.post(path, headers, body);
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn introspect(&self, token: &str) -> Value {
        let (status, said) = self.as_client("gateway", SECRET, "/oauth2/introspect", &[("token", token)]);
        assert_eq!(status, 200, "{said}");
        said
    }

    fn is_active(&self, token: &str) -> bool {
        let said = self.introspect(token);
        let active = said["active"].as_bool().unwrap();
        // RFC 7662 section 2.2: nothing more is said of what is not active.
        assert!(active || said == json!({ "active": false }), "{said}");
        active
    }

    fn refresh(&self, token: &str) -> (u16, Value) {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
        self.as_client("app", SECRET, "/oauth2/token", &form)
    }

    /// Sends a request whose writes have to wait a moment, and is gone before they are done.
    fn ask_and_hang_up(&self, at: std::net::SocketAddr, line: &str, body: &str) {
        let mut stream = std::net::TcpStream::connect(at).unwrap();
        let request = format!(
            "{line} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {ADMIN}\r\ncontent-length: {}\r\n\
             content-type: application/x-www-form-urlencoded\r\n\r\n{body}",
            body.len()
        );
        // The OAuth endpoints take one way to authenticate.
        let request = match line.contains("/oauth2/") {
            true => request.replace(&format!("authorization: Bearer {ADMIN}\r\n"), ""),
            false => request,
        };
        self.redis.ask(&["CLIENT", "PAUSE", "700", "WRITE"]);
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        // Not sooner than that: a request that was never begun ends nothing.
        let waits = || !self.redis.ask(&["INFO", "clients"]).contains("blocked_clients:0");
        eventually(SOON, || waits().then_some(()));
    }

    fn dead_for_filters(&self, sid: &str) -> bool {
        let key = secret(1).derive().revocation_key(Kind::Session, OURS, sid.as_bytes());
        self.service.check(&[key]) == Ok(vec![Answer::Dead])
    }

    fn audit(&self) -> Vec<Value> {
        let (status, page) = self.service.admin("GET", "/v1/audit?limit=1000", "");
        assert_eq!(status, 200, "{page}");
        page["entries"].as_array().unwrap().clone()
    }

    fn audited(&self, action: &str) -> Value {
        let entries = self.audit();
        let found = entries.iter().find(|entry| entry["action"] == action);
        found.unwrap_or_else(|| panic!("no {action} in {entries:?}")).clone()
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}
