//! The service on a DynamoDB server that is frozen, killed and throttled: it closes, and recovers without a restart.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use service::{Addresses, Options, Service};
use tokio::sync::oneshot;
use wire::check::{Needs, Question};
use wire::{Answer, Kind, Secret};

const ISSUER: &str = "https://issuer.example";
const ADMIN: &str = "an-admin-token-for-tests-of-32-bytes";

/// dynalite, with its data in a folder.
struct Server(Child, u16);

impl Server {
    fn start(folder: &Path, port: u16) -> Self {
        let port = match port {
            0 => std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(),
            port => port,
        };
        let program = std::env::var("DYNALITE").expect("DYNALITE names dynalite's cli.js");
        let mut command = Command::new("node");
        command.arg(program).args(["--host", "127.0.0.1", "--createTableMs", "0", "--port", &port.to_string()]);
        let mut process = command.arg("--path").arg(folder).stdout(Stdio::piped()).spawn().unwrap();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        Self(process, port)
    }

    fn make_table(&self, agent: &ureq::Agent) {
        let attribute = |name: &str| json!({ "AttributeName": name, "AttributeType": "S" });
        let key = |name: &str, kind: &str| json!({ "AttributeName": name, "KeyType": kind });
        let table = json!({
            "TableName": "portcullis",
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [attribute("p"), attribute("s")],
            "KeySchema": [key("p", "HASH"), key("s", "RANGE")],
        });
        let signed =
            "AWS4-HMAC-SHA256 Credential=a/20260101/eu-west-1/dynamodb/aws4_request, SignedHeaders=host, Signature=b";
        let made = agent.post(format!("http://127.0.0.1:{}", self.1)).header("authorization", signed);
        let made =
            made.header("x-amz-date", "20260101T000000Z").header("x-amz-target", "DynamoDB_20120810.CreateTable");
        let made = made.header("content-type", "application/x-amz-json-1.0").send(table.to_string()).unwrap();
        assert_eq!(made.status(), 200);
        std::thread::sleep(Duration::from_millis(300));
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.0.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(clap::Parser)]
struct Words {
    #[command(flatten)]
    options: Options,
}

struct Running {
    at: Addresses,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    agent: ureq::Agent,
}

impl Running {
    fn start(options: Options, agent: ureq::Agent) -> Self {
        let (say, hear) = mpsc::channel();
        let (stop, on_stop) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let service = Service::bind(options).await.unwrap();
                say.send(service.addresses()).unwrap();
                service.run(async { drop(on_stop.await) }).await;
            });
        });
        let at = hear.recv_timeout(Duration::from_secs(20)).unwrap();
        Self { at, stop: Some(stop), thread: Some(thread), agent }
    }

    /// What a filter concludes about a session, or the error that the service names.
    fn check(&self, id: &str) -> Result<Answer, String> {
        let derived = Secret::new(&[1; 32]).unwrap().derive();
        let now_seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let needs = Needs { future_iat_tolerance_seconds: 1, now_seconds };
        let key = derived.revocation_key(Kind::Session, ISSUER, id.as_bytes());
        let nonce = Instant::now().elapsed().as_nanos().to_be_bytes();
        let question = Question::new(&derived, nonce, needs, &[key]).unwrap();
        let url = format!("http://{}{}", self.at.listen, wire::check::PATH);
        let mut answer = self.agent.post(url).send(question.bytes()).unwrap();
        let (status, body) = (answer.status().as_u16(), answer.body_mut().read_to_vec().unwrap());
        let reply = question.read_reply(&derived, status, &body).expect("the reply must be authentic");
        reply.map(|reply| reply.answers[0]).map_err(|error| error.name().to_owned())
    }

    fn is_ready(&self) -> bool {
        self.agent.get(format!("http://{}/readyz", self.at.listen)).call().unwrap().status() == 200
    }

    fn revoke(&self, id: &str) -> (u16, Value) {
        let body = json!({ "kind": "session", "issuer": ISSUER, "id": id }).to_string();
        let url = format!("http://{}/v1/revocations", self.at.admin);
        let request = self.agent.post(url).header("authorization", format!("Bearer {ADMIN}"));
        let mut answer = request.header("content-type", "application/json").send(body).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn recovers(&self, id: &str) {
        let began = Instant::now();
        while self.check(id) != Ok(Answer::Dead) || !self.is_ready() {
            assert!(began.elapsed() < Duration::from_secs(15), "{:?}", self.check(id));
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

#[test]
fn a_frozen_or_killed_table_closes_the_service_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = ureq::Agent::new_with_config(config.timeout_global(Some(Duration::from_secs(20))).build());
    let data = folder.path().join("data");
    let mut server = Server::start(&data, 0);
    server.make_table(&agent);
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (token, secret) = (file("admin-token", ADMIN.as_bytes()), file("secret", &[1; 32]));
    let table = format!("dynamodb:portcullis?region=eu-west-1&endpoint=http://127.0.0.1:{}", server.1);
    let words = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--issuer",
        ISSUER,
        "--create-store",
        "--admin-token-file",
        &token,
        "--secret-file",
        &secret,
        "--store",
        &table,
        "--future-iat-tolerance",
        "1s",
    ];
    let options = <Words as clap::Parser>::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).options;
    let service = Running::start(options, agent);
    let (status, answer) = service.revoke("one");
    assert_eq!((status, &answer["on_disk"]), (201, &json!(true)), "{answer}");
    assert_eq!((service.check("one"), service.check("other")), (Ok(Answer::Dead), Ok(Answer::Live)));

    server.signal("STOP");
    for _ in 0..3 {
        let began = Instant::now();
        assert_eq!(service.check("other"), Err("store_slow".to_owned()), "closed");
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    assert!(!service.is_ready());
    assert_eq!(service.revoke("two").0, 503);
    server.signal("CONT");
    service.recovers("one");
    assert_eq!(service.revoke("two").0, 201);

    let port = server.1;
    drop(server);
    assert!(service.check("other").is_err(), "closed");
    assert!(service.check("two").is_err());
    assert_ne!(service.revoke("three").0, 201);
    assert!(!service.is_ready());
    server = Server::start(&data, port);
    service.recovers("two");
    assert_eq!(service.check("one"), Ok(Answer::Dead));
    assert_eq!(service.revoke("three").0, 201);
    drop(server);
}
