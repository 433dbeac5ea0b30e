//! The cost of a check and of a revocation, printed and not judged. Run by hand, with an optimised binary:
//!
//!     cargo build --profile native -p portcullis-cli
//!     PORTCULLIS=target/native/portcullis cargo test --profile native -p portcullis-e2e --test e2e cost:: -- --ignored --nocapture
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use harness::mesh::{ISSUER, unix_now};
use harness::{Connection, Directory, MeshOptions, Redis, Request, Service, ServiceOptions, exchange};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::check::{CONTENT_TYPE, Needs, PATH, Question};
use wire::{Kind, RevocationKey, Secret};

const RATE: u32 = 2000;
const CLIENTS: u32 = 16;
const RUN: Duration = Duration::from_secs(10);
/// Token, session, user, client, signing key, issuer: the keys of one JWT.
const KEYS: usize = 6;
const REVOCATIONS: usize = 1_000_000;
const BULK: usize = 5000;

fn keys(number: u64) -> Vec<RevocationKey> {
    let derived = Secret::new(MeshOptions::secret().as_bytes()).unwrap().derive();
    Kind::ALL.into_iter().take(KEYS).map(|kind| derived.revocation_key(kind, ISSUER, &number.to_be_bytes())).collect()
}

fn entry(key: &RevocationKey) -> String {
    format!("portcullis:{{{:02x}}}:r:{key}", key.0[0])
}

/// The server that is measured: the service, or Redis with the same names.
enum Asked {
    Service(Connection),
    Redis(TcpStream),
}

impl Asked {
    /// The request, made before the clock starts.
    fn question(&self, number: u64) -> Vec<u8> {
        let keys = keys(number);
        match self {
            Asked::Service(_) => {
                let derived = Secret::new(MeshOptions::secret().as_bytes()).unwrap().derive();
                let needs = Needs { future_iat_tolerance_seconds: 1, now_seconds: unix_now() };
                let question = Question::new(&derived, u128::from(number).to_be_bytes(), needs, &keys).unwrap();
                question.bytes().to_vec()
            }
            Asked::Redis(_) => {
                let mut ask = format!("*{}\r\n$4\r\nMGET\r\n$24\r\nportcullis:{{00}}:sentinel\r\n", keys.len() + 2);
                for key in &keys {
                    let name = entry(key);
                    ask.push_str(&format!("${}\r\n{name}\r\n", name.len()));
                }
                ask.into_bytes()
            }
        }
    }

    async fn ask(&mut self, question: Vec<u8>) -> io::Result<()> {
        match self {
            Asked::Service(connection) => {
                let request = Request::new("POST", PATH).header("content-type", CONTENT_TYPE).body(question);
                let answer = connection.send(&request).await?;
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
            Asked::Redis(stream) => {
                stream.write_all(&question).await?;
                // The sentinel is there, the others are not.
                let mut reply = vec![0; 4 + 5 + 34 + 5 * KEYS];
                stream.read_exact(&mut reply).await?;
                assert!(reply.starts_with(b"*7\r\n$32"), "{}", String::from_utf8_lossy(&reply));
            }
        }
        Ok(())
    }
}

/// Processor time that a process has used.
fn used(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime and stime, in hundredths of a second.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// At a fixed rate, each counted from when it was due.
async fn latencies(service: Option<SocketAddr>, redis: SocketAddr) -> Vec<Duration> {
    let start = Instant::now() + Duration::from_millis(100);
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let mut asked = match service {
            Some(address) => Asked::Service(Connection::open(address).await.unwrap()),
            None => {
                let stream = TcpStream::connect(redis).await.unwrap();
                stream.set_nodelay(true).unwrap();
                Asked::Redis(stream)
            }
        };
        clients.push(tokio::spawn(async move {
            let mut all = Vec::new();
            let mut due = start + Duration::from_secs(1) * client / RATE;
            let mut number = u64::from(client) << 32 | u64::from(service.is_some()) << 40;
            while due < start + RUN {
                let question = asked.question(number);
                tokio::time::sleep_until(due.into()).await;
                // Timers are a millisecond coarse, which is nobody's cost; being later than that is.
                let from = if due.elapsed() > Duration::from_millis(2) { due } else { Instant::now() };
                number += 1;
                asked.ask(question).await.unwrap();
                all.push(from.elapsed());
                due += Duration::from_secs(1) * CLIENTS / RATE;
            }
            all
        }));
    }
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await.unwrap());
    }
    all.sort_unstable();
    all
}

fn print(what: &str, all: &[Duration]) {
    let at = |share: f64| all[((all.len() as f64 * share) as usize).min(all.len() - 1)].as_micros();
    println!(
        "{what}: {} asked, p50 {} µs, p99 {} µs, p99.9 {} µs, most {} µs",
        all.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, by hand"]
async fn checks_beside_the_same_names_asked_of_redis() {
    let directory = Directory::new("cost-checks");
    let redis = Redis::start(&directory).await;
    let mut redis = redis;
    let mut service = Service::start(&directory, ServiceOptions::new(redis.url())).await;
    for round in 1..=3 {
        print(&format!("round {round}, Redis directly"), &latencies(None, redis.address()).await);
        let before = [service.process().id(), redis.process().id()].map(used);
        let all = latencies(Some(service.address()), redis.address()).await;
        print(&format!("round {round}, POST /v1/check"), &all);
        let after = [service.process().id(), redis.process().id()].map(used);
        let each = |at: usize| (after[at] - before[at]).as_micros() / all.len() as u128;
        println!("round {round}, processor time of a check: service {} µs, Redis {} µs", each(0), each(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, by hand"]
async fn memory_of_a_million_revocations() {
    let directory = Directory::new("cost-memory");
    let redis = Redis::start_with(&directory, &["--appendfsync", "no", "--auto-aof-rewrite-percentage", "0"]).await;
    let service = Service::start(&directory, ServiceOptions::new(redis.url())).await;
    let used = async || -> u64 {
        let info = redis.command(&["INFO", "memory"]).await.unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("used_memory");
        line.trim().parse().expect("a number")
    };
    let before = used().await;
    let start = Instant::now();
    for part in 0..REVOCATIONS / BULK {
        let line = |at: usize| {
            let id = format!("session-{:08}-of-somebody", part * BULK + at);
            json!({ "kind": "session", "issuer": ISSUER, "id": id, "reason": "logged out" }).to_string() + "\n"
        };
        let body: String = (0..BULK).map(line).collect();
        let request = Request::new("POST", "/v1/revocations/bulk").bearer(&service.options().admin_token).body(body);
        let answer = exchange(service.admin_address(), &request).await.unwrap();
        assert!(answer.text().contains(&format!("\"written\":{BULK}")), "{}", answer.text());
    }
    let took = start.elapsed();
    let each = (used().await - before) / REVOCATIONS as u64;
    println!("{REVOCATIONS} revocations in {took:?}: {each} bytes of used_memory each");
    print("checks beside them", &latencies(Some(service.address()), redis.address()).await);
}
