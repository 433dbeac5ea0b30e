//! Memory does not grow with the number of tokens that are offered.
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use harness::mesh::{ISSUER, unix_now};
use harness::{Mesh, MeshOptions};
use mint::{Alg, SigningKey, to_base64url};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Each half: more than the caches hold by default (4096 tokens a worker, 8192 verdicts), so that they are full.
const HALF: usize = 12_500;
const CONNECTIONS: usize = 64;
const ALLOWED_GROWTH: u64 = 2 << 20;
const RETRIES: usize = 20;
/// Memory is measured once it no longer falls, at most this long after the load.
const SETTLING: Duration = Duration::from_secs(3);

/// Sends `make(0..HALF)`, each as a bearer token, and returns how many answers had one of `statuses`.
async fn offer(
    address: SocketAddr,
    from: usize,
    statuses: &'static [&'static str],
    make: fn(&SigningKey, usize) -> String,
    key: &[u8],
) -> usize {
    let mut clients = Vec::new();
    for client in 0..CONNECTIONS {
        let key = SigningKey::from_secret(Alg::HS256, Some("shared"), key).unwrap();
        clients.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let mut right = 0;
            for number in (from..from + HALF).filter(|number| number % CONNECTIONS == client) {
                let token = make(&key, number);
                let request = format!("GET /api HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n");
                let mut status = String::new();
                // On a busy machine Redis may be slow for a moment, and then the filter says so.
                for _ in 0..RETRIES {
                    stream.write_all(request.as_bytes()).await.unwrap();
                    status = read_status(&mut stream).await;
                    if status != "503" {
                        break;
                    }
                }
                right += usize::from(statuses.contains(&&*status));
            }
            right
        }));
    }
    let mut right = 0;
    for client in clients {
        right += client.await.unwrap();
    }
    right
}

/// Reads one response, which has no body or one with a content-length.
async fn read_status(stream: &mut TcpStream) -> String {
    let mut unread = Vec::new();
    let head = loop {
        if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        assert!(stream.read_buf(&mut unread).await.unwrap() > 0, "Envoy closed the connection");
    };
    let text = std::str::from_utf8(&unread[..head]).unwrap().to_owned();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let end = head + length.unwrap_or(0);
    while unread.len() < end {
        assert!(stream.read_buf(&mut unread).await.unwrap() > 0, "Envoy closed the connection");
    }
    text.split(' ').nth(1).unwrap_or_default().to_owned()
}

async fn resident(mesh: &mut Mesh) -> u64 {
    let (start, mut least) = (Instant::now(), u64::MAX);
    while start.elapsed() < SETTLING {
        least = least.min(mesh.envoy.process().resident_bytes());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    least
}

/// A whole mesh, but for the upstream: Envoy itself answers requests that pass, so that the load takes less time.
async fn mesh(name: &str) -> (Mesh, Vec<u8>) {
    let options = MeshOptions {
        edit: |bootstrap| {
            let upstream = "route: { cluster: upstream, timeout: 15s }";
            assert!(bootstrap.contains(upstream));
            bootstrap.replace(upstream, "direct_response: { status: 204 }")
        },
        ..MeshOptions::default()
    };
    let mesh = Mesh::start_with(name, options).await;
    let key = mesh.keys.shared.secret().unwrap().to_vec();
    (mesh, key)
}

async fn does_not_grow(name: &str, statuses: &'static [&'static str], make: fn(&SigningKey, usize) -> String) {
    let (mut mesh, key) = mesh(name).await;
    let address = mesh.envoy.address();
    let fresh = mesh.envoy.process().resident_bytes();
    let mut after = Vec::new();
    for half in 0..2 {
        let start = Instant::now();
        let right = offer(address, half * HALF, statuses, make, &key).await;
        assert_eq!(right, HALF, "not all were answered with {statuses:?}");
        after.push(resident(&mut mesh).await);
        println!("{name}: {HALF} answered {statuses:?} in {:.1} s", start.elapsed().as_secs_f64());
    }
    let missed = mesh.envoy.stat("wasmcustom.portcullis.token_cache.result.miss").await;
    assert_eq!(missed, 2 * HALF as u64, "every token was another one");
    let grown = i128::from(after[1]) - i128::from(after[0]);
    println!(
        "{name}: {} KiB at first, {} KiB after the first half, {:+} KiB in the second",
        fresh >> 10,
        after[0] >> 10,
        grown >> 10
    );
    assert!(grown <= i128::from(ALLOWED_GROWTH), "{name}: the second half took {} KiB", grown >> 10);
}

fn valid(key: &SigningKey, number: usize) -> String {
    let now = unix_now();
    key.mint(&json!({
        "iss": ISSUER, "aud": "api", "iat": now, "exp": now + 600,
        "jti": format!("token-{number}"), "sid": format!("session-{number}"), "sub": format!("user-{number}"),
    }))
}

/// No two alike, and each of another sort: all the ways to be wrong, and to ask for memory.
fn garbage(key: &SigningKey, number: usize) -> String {
    let header = format!(r#"{{"alg":"HS256","typ":"JWT","kid":"kid-{number}"}}"#);
    let known = r#"{"alg":"HS256","typ":"JWT","kid":"shared"}"#;
    let good = valid(key, number);
    match number % 8 {
        0 => format!("garbage-{number}"),
        1 => format!("{}.{}", &good[..good.len() - 43], to_base64url([number as u8; 32])),
        2 => key.sign(&header, &format!(r#"{{"iss":"{ISSUER}"}}"#)),
        3 => key.sign(known, &format!(r#"{{"iss":"https://issuer-{number}.example"}}"#)),
        4 => key.sign(known, &format!(r#"{{"iss":"{ISSUER}","exp":{number}}}"#)),
        5 => key.sign(known, &format!(r#"{{"iss":"{ISSUER}","a":{}{number}{}}}"#, "[".repeat(30), "]".repeat(30))),
        6 => format!("{}.{}.{}", to_base64url(&header), to_base64url(format!("{{\"n\":{number}")), "A".repeat(2000)),
        _ => format!("{number}.{}.", "A.".repeat(number % 50)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_five_thousand_valid_tokens_take_no_more_memory_than_half_of_them() {
    let _turn = harness::under_load().await;
    does_not_grow("valid", &["204"], valid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_five_thousand_garbage_tokens_take_no_more_memory_than_half_of_them() {
    let _turn = harness::under_load().await;
    does_not_grow("garbage", &["401", "403"], garbage).await;
}
