//! A Redis and a service of a test's own, and what tests do to them.
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use service::{Addresses, Options, Service};
use tokio::sync::oneshot;
use wire::check::{NamedIssuer, Needs, Question, ReplyError, StoreError};
use wire::{Answer, DerivedKeys, Kind, Retention, RevocationKey, Secret};

pub use crate::redis::{Redis, eventually};

pub const ISSUER: &str = "https://issuer.example";
pub const ADMIN: &str = "an-admin-token-for-tests-of-32-bytes";
pub const DAY: u32 = 86_400;

pub struct Running {
    pub at: Addresses,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    agent: ureq::Agent,
}

/// Of a filter with the default lead and a clock that is right.
pub fn needs() -> Needs {
    Needs { future_iat_tolerance_seconds: 1, now_seconds: now() }
}

pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

pub fn secret(byte: u8) -> Secret {
    Secret::new(&[byte; 32]).unwrap()
}

/// A file that lives as long as the Redis.
pub fn file(redis: &Redis, name: &str, content: &[u8]) -> PathBuf {
    let path = redis.directory().join(name);
    write_private(&path, content);
    path
}

/// The service refuses secrets that every user can read.
pub fn write_private(path: &Path, content: &[u8]) {
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// Files with the secrets that [`secret`] makes of these bytes.
pub fn secret_files(redis: &Redis, bytes: &[u8]) -> Vec<PathBuf> {
    bytes.iter().map(|byte| file(redis, &format!("secret-{byte}"), &[*byte; 32])).collect()
}

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    options: Options,
}

pub fn options(redis: &Redis) -> Options {
    options_with(redis, &[])
}

/// The options of a command line. An option that is not given here has its default.
pub fn options_with(redis: &Redis, more: &[&str]) -> Options {
    let token = file(redis, "admin-token", ADMIN.as_bytes());
    let mut words: Vec<OsString> = vec!["serve".into(), "--admin-token-file".into(), token.into()];
    for path in secret_files(redis, &[1]) {
        words.extend(["--secret-file".into(), path.into()]);
    }
    words.extend(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--issuer", ISSUER].map(Into::into));
    words.extend(["--create-store", "--require-disk", "--admin-rate", "10000"].map(Into::into));
    words.extend(["--future-iat-tolerance", "1s", "--max-requests", "256"].map(Into::into));
    if !more.contains(&"--redis") {
        words.extend(["--redis".into(), redis.url().into()]);
    }
    words.extend(more.iter().map(Into::into));
    let command = <Command as clap::Parser>::try_parse_from(words);
    command.unwrap_or_else(|error| panic!("{error}")).options
}

pub fn started() -> (Redis, Running) {
    let redis = Redis::start();
    let running = Running::start(options(&redis));
    (redis, running)
}

impl Running {
    pub fn start(options: Options) -> Self {
        let (say, hear) = mpsc::channel();
        let (stop, on_stop) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(
                async {
                    let service = Service::bind(options).await.unwrap();
                    say.send(service.addresses()).unwrap();
                    service.run(async { drop(on_stop.await) }).await;
                },
            );
        });
        let at = hear.recv_timeout(Duration::from_secs(10)).unwrap();
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = ureq::Agent::new_with_config(config.timeout_global(Some(Duration::from_secs(10))).build());
        Self { at, stop: Some(stop), thread: Some(thread), agent }
    }

    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// What a filter would conclude.
    pub fn check(&self, keys: &[RevocationKey]) -> Result<Vec<Answer>, StoreError> {
        self.check_as(&secret(1).derive(), keys).1.expect("the reply must be authentic")
    }

    pub fn check_as(
        &self,
        derived: &DerivedKeys,
        keys: &[RevocationKey],
    ) -> (u16, Result<Result<Vec<Answer>, StoreError>, ReplyError>) {
        self.check_with(derived, needs(), keys)
    }

    pub fn check_with(
        &self,
        derived: &DerivedKeys,
        needs: Needs,
        keys: &[RevocationKey],
    ) -> (u16, Result<Result<Vec<Answer>, StoreError>, ReplyError>) {
        let question = Question::new(derived, nonce(), needs, keys).unwrap();
        let (status, body) = self.post_check(question.bytes());
        let reply = question.read_reply(derived, status, &body);
        (status, reply.map(|reply| reply.map(|reply| reply.answers)))
    }

    /// What a filter tells of its issuers, and what it learns.
    pub fn announce(&self, issuers: &[NamedIssuer]) -> Retention {
        let derived = secret(1).derive();
        let question = Question::about_issuers(&derived, nonce(), needs(), issuers).unwrap();
        let (status, body) = self.post_check(question.bytes());
        question.read_reply(&derived, status, &body).unwrap().unwrap().keeps
    }

    pub fn post_check(&self, body: &[u8]) -> (u16, Vec<u8>) {
        self.post_bytes(wire::check::PATH, body)
    }

    pub fn post_bytes(&self, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let url = format!("http://{}{path}", self.at.listen);
        let mut answer = self.agent.post(url).send(body).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_vec().unwrap())
    }

    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String, ureq::http::HeaderMap) {
        let mut request = self.agent.post(format!("http://{}{path}", self.at.listen));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        // ureq gives a body of text a type of its own.
        let mut answer = request.send(body.as_bytes()).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap(), answer.headers().clone())
    }

    /// `None`: the connection was closed while the body was sent.
    pub fn post_status(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Option<u16> {
        let mut request = self.agent.post(format!("http://{}{path}", self.at.listen));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match request.send(body.as_bytes()) {
            Ok(answer) => Some(answer.status().as_u16()),
            Err(ureq::Error::Io(error)) => {
                let kinds = [std::io::ErrorKind::BrokenPipe, std::io::ErrorKind::ConnectionReset];
                assert!(kinds.contains(&error.kind()), "{error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        let mut answer = self.agent.get(format!("http://{}{path}", self.at.listen)).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    pub fn admin_text(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("http://{}{path}", self.at.admin));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut answer = match body.is_empty() {
            true => self.agent.run(request.body(()).unwrap()).unwrap(),
            false => self.agent.run(request.body(body.to_owned()).unwrap()).unwrap(),
        };
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    pub fn admin(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, text) = self.admin_text(method, path, Some(ADMIN), body);
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub fn revoke(&self, kind: Kind, id: &str) -> Value {
        let (status, answer) = self.admin("POST", "/v1/revocations", &asking(kind, id));
        assert_eq!(status, 201, "{answer}");
        answer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

pub fn asking(kind: Kind, id: &str) -> String {
    serde_json::json!({ "kind": kind.name(), "issuer": ISSUER, "id": id }).to_string()
}

/// The name that the first secret gives it.
pub fn key(kind: Kind, id: &str) -> RevocationKey {
    secret(1).derive().revocation_key(kind, ISSUER, id.as_bytes())
}

/// Where an entry lies in Redis.
pub fn entry(key: RevocationKey) -> String {
    format!("portcullis:{{{:02x}}}:r:{key}", key.0[0])
}

/// Different for each question of this process, which is all that a test needs.
pub fn nonce() -> [u8; 16] {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    u128::from(NEXT.fetch_add(1, Ordering::Relaxed)).to_be_bytes()
}
