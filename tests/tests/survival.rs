//! Nothing that a client sends or does ends a virtual machine, leaks out of one, or slips past it.
use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mint::SigningKey;
use serde_json::json;
use tests::mesh::{CHECK_TIMEOUT, ISSUER, claims, claims_with};
use tests::{Connection, H2Connection, Host, Mesh, MeshOptions, RawServer, Reply, Request, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::check::Asked;
use wire::{Answer, Retention, Secret};

/// As much as Envoy takes in all headers together, by default.
const HEADERS: usize = 60 << 10;

/// What Envoy counts of its virtual machines: how many were made, are there, and were made again after a trap.
async fn machines(mesh: &Mesh) -> Vec<(String, u64)> {
    mesh.envoy.stats("wasm.").await.into_iter().filter(|(name, _)| !name.starts_with("wasmcustom.")).collect()
}

/// The same machines as before, all workers serving, and no trap in the log.
async fn is_unharmed(mesh: &mut Mesh, before: &[(String, u64)]) {
    assert_eq!(machines(mesh).await, before);
    assert!(
        Host::is_native()
            || before.iter().any(|(name, made)| name == "wasm.envoy.wasm.runtime.v8.created" && *made > 2),
        "{before:?}"
    );
    let token = mesh.token();
    for mut connection in mesh.connections(2).await {
        let response = connection.send(&Request::get("/api").bearer(&token)).await.unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
    }
    let log = mesh.envoy_log().to_ascii_lowercase();
    for bad in [
        "trap",
        "panicked",
        "wasm failed",
        "function: proxy_",
        "uncaught",
        "unreachable",
        "[critical]",
        "called back within",
    ] {
        let line = log.lines().find(|line| line.contains(bad));
        assert!(line.is_none(), "{}", line.unwrap_or_default());
    }
}

/// Headers that are wrong, large, or meant for another parser.
fn bad_requests(key: &SigningKey) -> Vec<Request> {
    let get = || Request::get("/api");
    let header = json!({ "alg": key.alg().name(), "kid": key.kid(), "typ": "JWT" }).to_string();
    let payload = claims().to_string();
    let good = key.mint(&claims());
    let nested = |open: &str, close: &str, times: usize| format!("{}1{}", open.repeat(times), close.repeat(times));
    let mut tokens: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b".".to_vec(),
        b"..".to_vec(),
        b"...".to_vec(),
        b"a.b.c".to_vec(),
        b"\xff\xfe.\x80.\xc3\x28".to_vec(),
        vec![b'A'; HEADERS],
        vec![b'.'; HEADERS],
        vec![0xff; HEADERS],
        "A.".repeat(HEADERS / 2).into_bytes(),
        format!("{good}=").into_bytes(),
        format!("{good}, Bearer {good}").into_bytes(),
        format!("{good}\t{good}").into_bytes(),
    ];
    // Signed by the right key: these reach what parses payloads.
    for payload in [
        "",
        " ",
        "null",
        "[]",
        "\"\"",
        "1e999",
        "{",
        "{}}",
        "{\"a\"}",
        "\u{feff}{}",
        "{\"\\ud800\":1}",
        "{\"\":{}}",
        "{\"exp\":1e400}",
        "{\"exp\":-1}",
        "{\"exp\":99999999999999999999999}",
        "{\"iss\":\"\\u0000\"}",
    ] {
        tokens.push(key.sign(&header, payload).into_bytes());
    }
    for deep in [nested("[", "]", 20_000), nested("{\"a\":", "}", 4_000), "[".repeat(30_000), "{\"a\":".repeat(8_000)] {
        tokens.push(key.sign(&header, &format!("{{\"iss\":\"{ISSUER}\",\"x\":{deep}}}")).into_bytes());
        tokens.push(key.sign(&format!("{{\"alg\":\"EdDSA\",\"x\":{deep}}}"), &payload).into_bytes());
    }
    for times in [
        "0",
        "-0",
        "0.0000001",
        "1e18",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775809",
        "1.7e308",
    ] {
        for claim in ["exp", "iat", "nbf", "auth_time"] {
            let mut text = claims().to_string();
            text.truncate(text.len() - 1);
            tokens.push(key.sign(&header, &format!("{text},\"{claim}\":{times}}}")).into_bytes());
            let claims = claims_with(&json!({ claim: "TIMES" })).to_string().replace("\"TIMES\"", times);
            tokens.push(key.sign(&header, &claims).into_bytes());
        }
    }
    for members in [
        json!({ "sub": "\u{0}\r\nx-role: admin" }),
        json!({ "sub": "ünïcödé" }),
        json!({ "sub": "x".repeat(5000) }),
        json!({ "sub": { "a": [1] } }),
        json!({ "jti": 1 }),
        json!({ "sid": null }),
        json!({ "aud": [[]] }),
        json!({ "cnf": { "jwk": {} } }),
        json!({ "iss": ["a"] }),
        json!({ "role": vec!["a"; 500] }),
    ] {
        tokens.push(key.mint(&claims_with(&members)).into_bytes());
    }
    let mut requests: Vec<Request> =
        tokens.iter().map(|token| get().header("authorization", [b"Bearer ", token.as_slice()].concat())).collect();
    requests.extend(tokens.iter().map(|token| get().header("cookie", [b"session=", token.as_slice()].concat())));
    for scheme in ["", "Basic ", "bearer\t", "Bearer,", "Bearer  ", "BEARER ", "Bearer\u{a0}"] {
        requests.push(get().header("authorization", format!("{scheme}{good}")));
    }
    requests.push(get().bearer(&good).bearer(&good));
    requests.push(get().bearer(&good).header("cookie", format!("session={good}")));
    requests.push(get().header("cookie", "session=".repeat(HEADERS / 8)));
    requests.push(get().header("cookie", "; ".repeat(HEADERS / 2)));
    requests.push(get().header("cookie", vec![0xfe; HEADERS]));
    // Bytes that are no UTF-8, in values and in names.
    for bytes in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\x80", b"caf\xe9"] {
        requests.push(get().header("x-user-id", bytes).bearer(&good));
        requests.push(get().header("user-agent", bytes));
        requests.push(get().header("host", bytes));
        requests.push(get().header(&String::from_utf8_lossy(bytes), "name"));
    }
    for name in ["x-user-id", "X-USER-ID", "x_user_id", "x-role", "x--", "!#$%&'*+", "x.y"] {
        requests.push(get().header(name, "eve").header(name, "mallory").bearer(&good));
    }
    requests.push((0..90).fold(get(), |request, number| request.header(&format!("x-{number}"), "y")));
    requests.push((0..200).fold(get(), |request, number| request.header(&format!("x-{number}"), "y")));
    requests.push(get().header("x-large", "y".repeat(HEADERS)).bearer(&good));
    for path in [
        "/",
        "//",
        "/api/..",
        "/api/%2e%2e/x",
        "/api/%00",
        "/api;a=b",
        "/api\\x",
        "/api#x",
        "*",
        "",
        "api",
        "/%",
        "/%zz",
        "/api/%c0%ae",
        "/api?%00",
        "/api?a=\u{fc}",
        "http://other/api",
        "/unmatched",
        "/browser",
        "/bound",
    ] {
        requests.push(Request::get(path).bearer(&good));
    }
    requests.push(Request::get(&format!("/api/{}", "a/".repeat(HEADERS / 2))).bearer(&good));
    requests.push(Request::get(&format!("/api?{}", "a=b&".repeat(HEADERS / 4))).bearer(&good));
    for host in ["", ":", "a:b:c", "[::1", "a..b", "A.EXAMPLE.:99999", "xn--a", "a b", "user@host"] {
        requests.push(get().header("host", host).bearer(&good));
    }
    for method in ["OPTIONS", "HEAD", "PUT", "TRACE", "CONNECT", "get", "X", "PRI"] {
        requests.push(Request::new(method, "/api").header("origin", "https://evil.example"));
        requests.push(Request::new(method, "/browser").header("cookie", format!("session={good}")));
    }
    requests.push(get().header("upgrade", "websocket").header("connection", "upgrade").bearer("x"));
    requests.push(get().header("content-type", "application/grpc").header("te", "trailers").bearer("x"));
    requests.push(Request::new("POST", "/api").header("expect", "100-continue").body("body").bearer("x"));
    requests
}

/// What is no request at all, or not a whole one.
fn raw_bytes() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = vec![
        b"\r\n\r\n".to_vec(),
        vec![0; 4096],
        vec![0xff; 70_000],
        b"\x16\x03\x01\x02\x00\x01\x00".to_vec(),
        b"GET /api HTTP/1.1\r\nhost: a\r\nauthorization: Bearer \x00\r\n\r\n".to_vec(),
        b"GET /api HTTP/1.1\r\nhost: a\r\nauthorization: Bearer a\r\n b\r\n\r\n".to_vec(),
        b"GET /api HTTP/1.1\r\nhost: a\r\nauth\xffname: b\r\n\r\n".to_vec(),
        b"GET /api HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_vec(),
        b"GET /api HTTP/1.1\r\nhost: a\r\n: b\r\n\r\n".to_vec(),
        b"GET /api HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /api HTTP/1.0\r\n\r\n".to_vec(),
        b"GET /\xff\xfe HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
        b"POST /api HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
        b"POST /api HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        b"POST /api HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: \xff\r\n\r\n".to_vec(),
    ];
    let mut h2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    h2.extend_from_slice(&[0xff; 64]);
    all.push(h2);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_never_ends_a_virtual_machine() {
    let mut mesh = Mesh::start("bad-input").await;
    let (requests, bytes) = (bad_requests(&mesh.keys.first), raw_bytes());
    let before = machines(&mesh).await;
    let (mut statuses, mut codes, mut count) = (BTreeSet::new(), BTreeSet::new(), 0);
    for _ in 0..2 {
        for request in &requests {
            // One each: a connection that Envoy closes is no loss, and the kernel spreads them over the workers.
            let mut connection = Connection::open(mesh.envoy.address()).await.unwrap();
            if let Ok(response) = connection.send(request).await {
                statuses.insert(response.status);
                codes.insert(response.json()["code"].as_str().unwrap_or("none").to_owned());
                assert!(response.status < 500, "{} {request:?}", response.text().get(..200).unwrap_or_default());
            }
            count += 1;
        }
        for bytes in &bytes {
            let mut stream = TcpStream::connect(mesh.envoy.address()).await.unwrap();
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
            let _ = tokio::time::timeout(Duration::from_secs(1), stream.read_to_end(&mut Vec::new())).await;
            count += 1;
        }
        // The same over HTTP/2, where the client can say them.
        let h2 = H2Connection::open(mesh.envoy.address()).await.unwrap();
        for request in requests.iter().filter(|request| request.to_bytes().len() < 50_000) {
            let Ok(response) = h2.send(request).await else { continue };
            statuses.insert(response.status);
            codes.insert(response.json()["code"].as_str().unwrap_or("none").to_owned());
            count += 1;
        }
    }
    println!("{count} bad requests; statuses {statuses:?}; codes {codes:?}");
    is_unharmed(&mut mesh, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_with_the_widest_limits_survives_the_largest_tokens() {
    let mut options = MeshOptions::default();
    options.filter["limits"] = json!({ "token_bytes": 65536 });
    let mut mesh = Mesh::start_with("largest-tokens", options).await;
    let before = machines(&mesh).await;
    for request in bad_requests(&mesh.keys.first).iter().chain(&bad_requests(&mesh.keys.shared)) {
        let mut connection = Connection::open(mesh.envoy.address()).await.unwrap();
        if let Ok(response) = connection.send(request).await {
            assert!(response.status < 500, "{} {request:?}", response.text().get(..200).unwrap_or_default());
        }
    }
    is_unharmed(&mut mesh, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_while_they_wait_leave_nothing_behind() {
    let mut options = MeshOptions::default();
    options.filter["limits"] = json!({ "waiting_requests": 20 });
    let mut mesh = Mesh::start_with("leaving-clients", options).await;
    let before = machines(&mesh).await;
    assert_eq!(mesh.get(&mesh.token()).await.status, 200);

    // Far more than may wait, on each of many rounds: a place that is not given back is missed soon.
    for _ in 0..8 {
        mesh.service.as_mut().unwrap().process().pause();
        let mut clients = Vec::new();
        for _ in 0..30 {
            let mut stream = TcpStream::connect(mesh.envoy.address()).await.unwrap();
            let request = Request::new("POST", "/api").bearer(&mesh.token()).header("content-length", "100");
            stream.write_all(&request.to_bytes()).await.unwrap();
            stream.write_all(b"a part of a body").await.unwrap();
            clients.push(stream);
        }
        let h2 = H2Connection::open(mesh.envoy.address()).await.unwrap();
        let waiting: Vec<_> = (0..10)
            .map(|_| {
                let (h2, request) = (h2.clone(), Request::get("/api").bearer(&mesh.token()));
                tokio::spawn(async move { h2.send(&request).await.map(|response| response.status) })
            })
            .collect();
        let active = async || mesh.envoy.stat("http.main.downstream_rq_active").await;
        assert!(wait_until(Duration::from_secs(5), async || active().await >= 20).await);
        waiting.iter().for_each(|one| one.abort());
        drop(clients);
        mesh.service.as_mut().unwrap().process().resume();
    }
    let idle = async || mesh.envoy.stat("http.main.downstream_rq_active").await == 0;
    assert!(wait_until(CHECK_TIMEOUT * 4, idle).await, "requests are left behind");
    assert_eq!(mesh.upstream.requests(), 1, "a request passed whose client had left");

    // Every place is free again, on every worker.
    let mut connections = mesh.connections(15).await;
    let requests = connections.drain(..).take(20).map(|mut connection| {
        let request = Request::get("/api").bearer(&mesh.token());
        tokio::spawn(async move { connection.send(&request).await.unwrap() })
    });
    for request in requests.collect::<Vec<_>>() {
        let response = request.await.unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
    }
    is_unharmed(&mut mesh, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_may_wait_are_refused_at_once() {
    let mut options = MeshOptions { concurrency: 1, ..MeshOptions::default() };
    options.filter["limits"] = json!({ "waiting_requests": 5 });
    let mut mesh = Mesh::start_with("too-many-wait", options).await;
    mesh.service.as_mut().unwrap().process().pause();
    let address = mesh.envoy.address();
    let all: Vec<_> = (0..20)
        .map(|_| Request::get("/api").bearer(&mesh.token()))
        .map(|request| tokio::spawn(async move { tests::exchange(address, &request).await.unwrap() }))
        .collect();
    let mut quick = 0;
    for one in all {
        let response = one.await.unwrap();
        assert_eq!((response.status, response.json()["code"].as_str()), (503, Some("STORE_UNAVAILABLE")));
        quick += usize::from(response.took < CHECK_TIMEOUT / 2);
    }
    assert!(quick >= 10, "only {quick} of 20 were refused without waiting");
    let waiting = async |seen: fn(u64) -> bool| {
        let text = mesh.envoy.prometheus().await;
        let line = text.lines().find(|line| line.starts_with("portcullis_waiting_requests{reason=\"check\""));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).is_some_and(seen)
    };
    let more: Vec<_> = (0..5)
        .map(|_| {
            let request = Request::get("/api").bearer(&mesh.token());
            tokio::spawn(async move {
                for _ in 0..50 {
                    let _ = tests::exchange(address, &request).await;
                }
            })
        })
        .collect();
    let seen = wait_until(Duration::from_secs(10), async || waiting(|count| (1..=5).contains(&count)).await).await;
    more.iter().for_each(tokio::task::JoinHandle::abort);
    assert!(seen, "nobody is seen to wait");
    assert!(wait_until(Duration::from_secs(5), async || waiting(|count| count == 0).await).await, "they wait for ever");
    mesh.service.as_mut().unwrap().process().resume();
    assert!(wait_until(Duration::from_secs(5), async || mesh.get(&mesh.token()).await.status == 200).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_waits_with_its_request_and_goes_nowhere_when_that_is_refused() {
    let mut mesh = Mesh::start("waiting-body").await;
    let large = "b".repeat(300_000);
    let post = |token: &str| Request::new("POST", "/api").bearer(token).body(&large);
    // It passes whole when its request does.
    let response = mesh.send(&post(&mesh.token())).await;
    assert_eq!((response.status, response.json()["body_bytes"].as_u64()), (200, Some(300_000)));
    let h2 = H2Connection::open(mesh.envoy.address()).await.unwrap();
    let (status, echo) = h2_with_trailers(&mesh, &mesh.token(), &large).await;
    assert_eq!((status, echo["body_bytes"].as_u64()), (200, Some(300_000)));
    assert_eq!(mesh.upstream.requests(), 2);
    let touched = mesh.envoy.stat("cluster.upstream.upstream_rq_total").await;

    mesh.service.as_mut().unwrap().process().pause();
    for _ in 0..3 {
        let response = mesh.send(&post(&mesh.token())).await;
        assert_eq!((response.status, response.json()["code"].as_str()), (503, Some("STORE_UNAVAILABLE")));
        let response = h2.send(&post(&mesh.token())).await.unwrap();
        assert_eq!(response.status, 503);
        let (status, _) = h2_with_trailers(&mesh, &mesh.token(), &large).await;
        assert_eq!(status, 503);
        let chunked = b"2\r\nab\r\n0\r\ntrailer: yes\r\n\r\n";
        let mut bytes =
            Request::new("POST", "/api").bearer(&mesh.token()).header("transfer-encoding", "chunked").to_bytes();
        bytes.extend_from_slice(chunked);
        let mut connection = Connection::open(mesh.envoy.address()).await.unwrap();
        assert_eq!(connection.send_bytes(&bytes, false).await.unwrap().status, 503);
    }
    assert_eq!(mesh.upstream.requests(), 2, "a refused request reached the upstream");
    assert_eq!(mesh.envoy.stat("cluster.upstream.upstream_rq_total").await, touched);
    mesh.service.as_mut().unwrap().process().resume();
    // And one that waits for long, but not too long, still passes whole.
    assert!(wait_until(Duration::from_secs(5), async || mesh.get(&mesh.token()).await.status == 200).await);
    let (status, echo) = h2_with_trailers(&mesh, &mesh.token(), &large).await;
    assert_eq!((status, echo["body_bytes"].as_u64()), (200, Some(300_000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_larger_than_any_buffer_waits_for_a_slow_verdict_and_passes_whole() {
    let derived = Secret::new(MeshOptions::secret().as_bytes()).unwrap().derive();
    let service = RawServer::start(move |question| {
        let asked = Asked::read(std::slice::from_ref(&derived), question).unwrap();
        Reply::http(200, &asked.answers(&derived, Retention::LONGEST, &vec![Answer::Live; asked.keys().len()]))
            .after(CHECK_TIMEOUT / 2)
    })
    .await;
    let options = MeshOptions { asks: Some(service.address()), ..MeshOptions::default() };
    let mesh = Mesh::start_with("slow-verdict", options).await;
    // More than Envoy holds for a connection, which is 1 MiB, and for a stream, which is 64 KiB.
    let large = "b".repeat(3 << 20);
    let response = mesh.send(&Request::new("POST", "/api").bearer(&mesh.token()).body(&large)).await;
    assert_eq!((response.status, response.json()["body_bytes"].as_u64()), (200, Some(3 << 20)), "{}", response.text());
    let (status, echo) = h2_with_trailers(&mesh, &mesh.token(), &large).await;
    assert_eq!((status, echo["body_bytes"].as_u64()), (200, Some(3 << 20)));
}

/// A POST over HTTP/2 whose body comes in pieces and ends with trailers.
async fn h2_with_trailers(mesh: &Mesh, token: &str, body: &str) -> (u16, serde_json::Value) {
    let stream = TcpStream::connect(mesh.envoy.address()).await.unwrap();
    let mut frames: Vec<Result<Frame<Bytes>, std::convert::Infallible>> = Vec::new();
    for piece in body.as_bytes().chunks(10_000) {
        frames.push(Ok(Frame::data(Bytes::copy_from_slice(piece))));
    }
    let mut trailers = hyper::HeaderMap::new();
    trailers.insert("x-checksum", "abc".parse().unwrap());
    frames.push(Ok(Frame::trailers(trailers)));
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::builder()
        .method("POST")
        .uri("http://test.example/api")
        .header("authorization", format!("Bearer {token}"))
        .body(body)
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_is_refused_in_its_own_way_and_passes_when_it_may() {
    let mesh = Mesh::start("grpc").await;
    let h2 = H2Connection::open(mesh.envoy.address()).await.unwrap();
    let call = |token: &str| {
        Request::new("POST", "/api").header("content-type", "application/grpc").header("te", "trailers").bearer(token)
    };
    // Envoy says a refusal to gRPC as 200 with a grpc-status; what counts is that nothing reached the upstream.
    let response = h2.send(&call("garbage")).await.unwrap();
    let unauthenticated = Some("16");
    assert_eq!((response.status, response.header("grpc-status")), (200, unauthenticated), "{:?}", response.headers);
    assert_eq!(mesh.upstream.requests(), 0);
    let response = h2.send(&call(&mesh.token())).await.unwrap();
    assert_eq!((response.status, mesh.upstream.requests()), (200, 1));
}
