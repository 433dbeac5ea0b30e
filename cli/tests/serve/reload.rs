//! SIGHUP to a process that serves from a file store: what can change changes, the rest is named, a wrong file changes nothing.
use std::net::TcpStream;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use wire::check::{Needs, Question};
use wire::{Answer, Kind, Secret};

use super::*;

pub const ISSUER: &str = "https://issuer.example";
const RELOADED: &str = "the configuration was read again and applied";

pub struct Server {
    pub desk: Desk,
    pub process: Running,
    pub log: std::io::Lines<BufReader<ChildStderr>>,
    pub client: Client,
}

/// Sends requests to a server.
#[derive(Clone)]
pub struct Client {
    pub listen: String,
    pub admin: String,
    pub agent: ureq::Agent,
}

impl Deref for Server {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Server {
    /// Serves with `options` beside its store and addresses.
    pub fn start(desk: Desk, options: &str) -> Self {
        write(&desk, options);
        let mut process = Running(desk.serve().stderr(Stdio::piped()).spawn().unwrap());
        let mut log = BufReader::new(process.0.stderr.take().unwrap()).lines();
        assert!(log.any(|line| line.unwrap().contains("listening")));
        let ports: Value = serde_json::from_slice(&std::fs::read(desk.path("ports")).unwrap()).unwrap();
        let address = |name: &str| ports[name].as_str().unwrap().to_owned();
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        let agent = ureq::Agent::new_with_config(config);
        let client = Client { listen: address("listen"), admin: address("admin"), agent };
        Self { desk, process, log, client }
    }

    /// Returns the line that says what came of it.
    pub fn reload(&mut self, options: &str) -> String {
        write(&self.desk, options);
        self.process.signal("-HUP");
        self.reloaded()
    }

    /// The next line that says what came of a reload.
    pub fn reloaded(&mut self) -> String {
        let is_result = |line: &String| line.contains(RELOADED) || line.contains("nothing was changed");
        self.log.by_ref().map(Result::unwrap).find(is_result).unwrap()
    }
}

impl Client {
    pub fn revoke(&self, token: &str, session: &str) -> u16 {
        let request = self.agent.post(format!("http://{}/v1/revocations", self.admin));
        let body = json!({ "kind": "session", "issuer": ISSUER, "id": session, "reason": "case 17" }).to_string();
        let request = request.header("authorization", format!("Bearer {token}"));
        request.header("content-type", "application/json").send(body.as_bytes()).unwrap().status().as_u16()
    }

    /// As a filter with this secret. `None`: the secret is not known.
    pub fn is_dead(&self, secret: &str, session: &str) -> Option<bool> {
        self.is_dead_of(secret, ISSUER, session)
    }

    pub fn is_dead_of(&self, secret: &str, issuer: &str, session: &str) -> Option<bool> {
        let derived = Secret::new(secret.as_bytes()).unwrap().derive();
        let key = derived.revocation_key(Kind::Session, issuer, session.as_bytes());
        let now_seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let needs = Needs { future_iat_tolerance_seconds: 1, now_seconds };
        let question = Question::new(&derived, [7; 16], needs, &[key]).unwrap();
        let url = format!("http://{}{}", self.listen, wire::check::PATH);
        let mut answer = self.agent.post(url).send(question.bytes()).unwrap();
        let status = answer.status().as_u16();
        let body = answer.body_mut().read_to_vec().unwrap();
        if status == 401 {
            return None;
        }
        Some(question.read_reply(&derived, status, &body).unwrap().unwrap().answers == [Answer::Dead])
    }
}

pub fn write(desk: &Desk, options: &str) {
    let text = format!(
        "listen = '127.0.0.1:0'\nadmin-listen = '127.0.0.1:0'\nports-file = {:?}\nstore = 'file:{}'\ncreate-store = true\n\
         issuer = '{ISSUER}'\n{options}",
        desk.path("ports"),
        desk.path("store").display(),
    );
    std::fs::write(desk.path("serve.toml"), text).unwrap();
}

/// A file with a secret of 32 bytes or more, which is its name repeated.
pub fn secret(desk: &Desk, name: &str) -> String {
    let text = name.repeat(4);
    std::fs::write(desk.path(name), &text).unwrap();
    desk.set_mode(name, 0o600);
    text
}

pub fn secrets(desk: &Desk, token: &str, shared: &[&str]) -> String {
    let shared: Vec<_> = shared.iter().map(|name| desk.path(name)).collect();
    format!("admin-token-file = {:?}\nsecret-file = {shared:?}\n", desk.path(token))
}

#[test]
fn a_reload_takes_secrets_and_limits_and_nothing_of_a_file_that_is_wrong() {
    let desk = Desk::new("");
    let [first, second] = ["first-secret", "second-secret"].map(|name| secret(&desk, name));
    let [old, new] = ["former-token", "latest-token"].map(|name| secret(&desk, name));
    let options = secrets(&desk, "former-token", &["first-secret"]);
    let mut server = Server::start(desk, &options);
    assert_eq!((server.revoke(&old, "a"), server.revoke(&new, "a")), (201, 401));
    assert_eq!((server.is_dead(&first, "a"), server.is_dead(&second, "a")), (Some(true), None));

    // A rotation begins. Options that need a restart are named, and do not keep the others from taking effect.
    let rotated = secrets(&server.desk, "latest-token", &["second-secret", "first-secret"]);
    let said = server.reload(&format!("{rotated}max-followers = 7\nmax-lifetime = '2h'\n"));
    assert!(said.contains(r#""options":"max-followers,max-lifetime""#), "{said}");
    assert_eq!((server.revoke(&old, "b"), server.revoke(&new, "b")), (401, 201));
    assert_eq!((server.is_dead(&first, "a"), server.is_dead(&second, "a")), (Some(true), Some(false)));
    assert_eq!((server.is_dead(&first, "b"), server.is_dead(&second, "b")), (Some(true), Some(true)));

    // Nothing of a wrong file is applied, wherever the error is.
    std::fs::write(server.desk.path("short"), "short").unwrap();
    server.desk.set_mode("short", 0o600);
    let back = secrets(&server.desk, "former-token", &["first-secret"]);
    let short = secrets(&server.desk, "former-token", &["first-secret", "short"]);
    for (wrong, reason) in [
        (short, "has 5 bytes"),
        (format!("{back}max-followers = 'many'\n"), "max-followers"),
        (format!("{back}admin-rate = 0\n"), "admin-rate"),
        (format!("{back}max-session = '1h'\n"), "max-session"),
        (format!("{back}providers-file = '/none'\n"), "/none"),
        (format!("{back}log = 'inof'\n"), "inof"),
        (secrets(&server.desk, "first-secret", &["first-secret"]), "the same secret"),
    ] {
        let said = server.reload(&wrong);
        assert!(said.contains("nothing was changed") && said.contains(reason), "{wrong}: {said}");
        assert_eq!((server.revoke(&old, "c"), server.is_dead(&second, "b")), (401, Some(true)), "{wrong}");
    }

    // The rotation ends. What needed a restart, and was taken back, is not named any more.
    let ended = secrets(&server.desk, "latest-token", &["second-secret"]);
    let said = server.reload(&format!("{ended}admin-rate = 1\n"));
    assert!(!said.contains("restart"), "{said}");
    assert_eq!((server.is_dead(&first, "b"), server.is_dead(&second, "b")), (None, Some(true)));
    let statuses: Vec<u16> = (0..5).map(|_| server.revoke(&new, "d")).collect();
    assert!(statuses.contains(&201) && statuses.contains(&429), "{statuses:?}");

    // A file of the same name with another content.
    std::fs::write(server.desk.path("latest-token"), old.as_bytes()).unwrap();
    server.reload(&ended);
    assert_eq!((server.revoke(&new, "e"), server.revoke(&old, "e")), (401, 201));
}

fn certificate(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (certificate, key) = (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key")));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"])
        .args(["-subj", "/CN=a", "-addext", "subjectAltName=DNS:a", "-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output();
    assert!(made.unwrap().status.success());
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    (certificate, key)
}

/// Whether the server at `address` has this certificate.
fn has_certificate(address: &str, certificate: &Path) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let mut tls = rustls::ClientConnection::new(Arc::new(config), ServerName::try_from("a").unwrap()).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    while tls.is_handshaking() {
        if tls.complete_io(&mut stream).is_err() {
            return false;
        }
    }
    true
}

#[test]
fn a_reload_takes_other_certificates_and_does_not_turn_tls_off() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let desk = Desk::new("");
    let [old, new] = ["old", "new"].map(|name| certificate(desk.directory.path(), name));
    let common = secrets(&desk, "admin-token", &["shared-secret"]);
    let with = |pair: &(PathBuf, PathBuf)| format!("{common}tls-cert = {:?}\ntls-key = {:?}\n", pair.0, pair.1);
    let mut server = Server::start(desk, &with(&old));
    assert!(has_certificate(&server.listen, &old.0) && !has_certificate(&server.listen, &new.0));
    let said = server.reload(&with(&(old.0.clone(), new.1.clone())));
    assert!(said.contains("nothing was changed") && said.contains("data listener"), "{said}");
    assert!(has_certificate(&server.listen, &old.0));
    let said = server.reload(&with(&new));
    assert!(!said.contains("restart"), "{said}");
    assert!(has_certificate(&server.listen, &new.0) && !has_certificate(&server.listen, &old.0));
    let said = server.reload(&common);
    assert!(said.contains(r#""options":"tls-cert,tls-key""#), "{said}");
    assert!(has_certificate(&server.listen, &new.0));
}
