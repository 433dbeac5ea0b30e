//! Measurements, not tests: what a million revocations cost an Envoy, and how many commands Redis gets at which rate of
//! requests. `make e2e TEST="feed::measured --ignored"`.
use std::collections::BTreeMap;
use std::sync::Arc;

use harness::{Envoy, EnvoyOptions, FilterHost, MeshOptions, Redis, Service, ServiceOptions, Upstream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::RevocationKey;

use super::*;

const COUNT: u64 = 1_000_000;
const PAGE: u64 = 10_000;
/// Until the service has read them in a build without optimisation.
const PATIENCE: Duration = Duration::from_secs(120);

/// Written into Redis directly, before the service runs.
async fn fill(redis: &Redis) {
    let mut stream = TcpStream::connect(redis.address()).await.expect("Redis runs");
    for page in 0..COUNT / PAGE {
        let mut text = String::new();
        for number in page * PAGE + 1..=(page + 1) * PAGE {
            let bits = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            let key = RevocationKey(bits.to_be_bytes());
            let name = format!("portcullis:{{{:02x}}}:r:{key}", key.0[0]);
            let length = name.len();
            text.push_str(&format!(
                "*5\r\n$3\r\nSET\r\n${length}\r\n{name}\r\n$2\r\nD;\r\n$2\r\nEX\r\n$5\r\n80000\r\n"
            ));
        }
        stream.write_all(text.as_bytes()).await.expect("Redis takes them");
        stream.read_exact(&mut vec![0; "+OK\r\n".len() * PAGE as usize]).await.expect("Redis takes them");
    }
}

async fn gauge(envoy: &Envoy, name: &str) -> u64 {
    envoy.stats(name).await.iter().map(|(_, value)| *value).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn a_million_revocations_in_an_envoy_of_each_host() {
    let directory = harness::Directory::new("feed-million");
    let redis = Redis::start_with(&directory, &["--appendfsync", "no"]).await;
    let mut service = Service::start(&directory, ServiceOptions::new(redis.url())).await;
    let options = options();
    let upstream = Upstream::start().await;
    let mut resident: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for is_full in [false, true] {
        if is_full {
            fill(&redis).await;
            service.restart().await;
        }
        let hosts = [("wasm", FilterHost::Wasm { module: FilterHost::wasm_module() }), ("native", FilterHost::Native)];
        for (name, host) in hosts {
            let mut envoy = EnvoyOptions::new(upstream.address(), service.address(), Some(options.filter.clone()));
            envoy.host = host;
            envoy.concurrency = 2;
            let shared = mint::to_base64url(options.keys.shared.secret().unwrap_or_default());
            envoy.environment =
                vec![("PORTCULLIS_SECRET".to_owned(), MeshOptions::secret()), ("KEY_SHARED".to_owned(), shared)];
            let directory = harness::Directory::new("feed-million-envoy");
            // The first one waits for the service to read the store.
            let turns = if is_full && name == "wasm" { 2 } else { 1 };
            for turn in 0..turns {
                let mut envoy = Envoy::start(&directory, envoy_again(&envoy)).await;
                let began = Instant::now();
                let follows = wait_until(PATIENCE, async || {
                    let (age, bytes) =
                        (gauge(&envoy, "feed_age_milliseconds").await, gauge(&envoy, "feed_bytes").await);
                    age > 0 && (!is_full || bytes > COUNT)
                });
                assert!(follows.await, "{name} does not follow");
                let took = began.elapsed();
                // The other virtual machines take it over meanwhile.
                tokio::time::sleep(Duration::from_secs(5)).await;
                let (bytes, memory) = (gauge(&envoy, "feed_bytes").await, envoy.process().resident_bytes());
                println!("{name}, turn {turn}: follows after {took:?}, feed_bytes {bytes}, resident {memory}");
                if turn + 1 == turns {
                    resident.entry(name).or_default().push(memory);
                }
            }
        }
    }
    for (name, memory) in resident {
        println!("{name}: {} bytes more for {COUNT} revocations", memory[1].saturating_sub(memory[0]));
    }
}

fn envoy_again(options: &EnvoyOptions) -> EnvoyOptions {
    let mut again = EnvoyOptions::new(options.upstream, options.service, options.filter.clone());
    (again.host, again.concurrency) = (options.host.clone(), options.concurrency);
    again.environment.clone_from(&options.environment);
    again
}

/// Requests per second. Each has a token of another session.
const RATES: [u32; 5] = [50, 100, 200, 400, 800];
const PACE_CONNECTIONS: u32 = 10;
const PACE: Duration = Duration::from_secs(6);

async fn commands(mesh: &Mesh) -> u64 {
    let redis = mesh.redis.as_ref().expect("a Redis");
    let info = redis.command(&["INFO", "stats"]).await.expect("Redis runs");
    let count = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:")?.trim().parse().ok());
    count.expect("a count")
}

/// Commands of Redis per second while requests come at this rate, and the requests that were sent per second.
async fn at_rate(mesh: &Mesh, rate: u32) -> (f64, f64) {
    let (began, before) = (Instant::now(), commands(mesh).await);
    let every = Duration::from_secs(1) * PACE_CONNECTIONS / rate;
    let secret = mesh.keys.shared.secret().expect("a shared key");
    let signer = Arc::new(mint::SigningKey::from_secret(mint::Alg::HS256, Some("shared"), secret).expect("a key"));
    let mut tasks = Vec::new();
    for _ in 0..PACE_CONNECTIONS {
        let mut connection = harness::Connection::open(mesh.envoy.address()).await.expect("Envoy listens");
        let signer = Arc::clone(&signer);
        tasks.push(tokio::spawn(async move {
            let (mut due, mut sent) = (tokio::time::interval(every), 0u32);
            while began.elapsed() < PACE {
                due.tick().await;
                let response = connection.send(&Request::get("/api").bearer(&signer.mint(&claims()))).await;
                assert_eq!(response.expect("Envoy answers").status, 200);
                sent += 1;
            }
            sent
        }));
    }
    let mut sent = 0;
    for task in tasks {
        sent += task.await.expect("every request passes");
    }
    let seconds = began.elapsed().as_secs_f64();
    ((commands(mesh).await - before) as f64 / seconds, f64::from(sent) / seconds)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn commands_of_redis_at_each_rate_of_requests() {
    let followed = Mesh::start_with("feed-rates", options()).await;
    follows(&followed).await;
    let asked = Mesh::start_with("asked-rates", MeshOptions::default()).await;
    println!("requests/s, commands of Redis/s with the feed, and without it");
    for rate in RATES {
        let (with, sent) = at_rate(&followed, rate).await;
        let (without, _) = at_rate(&asked, rate).await;
        println!("{sent:.0} {with:.0} {without:.0}");
    }
}
