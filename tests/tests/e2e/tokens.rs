//! Long tokens, and tokens in the less usual places, through a real Envoy.
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::mesh::claims_with;
use harness::{Answer, H2Connection, Mesh, MeshOptions, Request, Response, Upstream, extended_connect, wait_until};
use mint::to_base64url;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(10);
const KUBERNETES: &str = "base64url.bearer.authorization.k8s.io.";

/// The same over both versions.
async fn both(mesh: &Mesh, request: &Request) -> [Response; 2] {
    let h2 = H2Connection::open(mesh.envoy.address()).await.unwrap();
    [mesh.send(request).await, h2.send(request).await.expect("Envoy answers")]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_many_roles_passes_and_the_bound_that_one_breaks_is_named() {
    let mut mesh = Mesh::start("long-tokens").await;
    let words = |count: usize, length: usize| (0..count).map(|at| format!("{at:0>length$}")).collect::<Vec<_>>();
    let object = |count: usize| {
        words(count, 1).into_iter().map(|name| (name, json!(0))).collect::<serde_json::Map<String, Value>>()
    };
    let nested = (0..16).fold(json!(0), |inner, _| json!([inner]));
    for (claims, verdict) in [
        (json!({ "groups": words(157, 36) }), "pass"),
        (json!({ "realm_access": { "roles": words(300, 40) } }), "pass"),
        (json!({ "realm_access": { "roles": words(480, 40) } }), "pass"),
        (json!({ "roles": object(1024) }), "pass"),
        (json!({ "roles": words(800, 40) }), "TOKEN_TOO_LONG"),
        (json!({ "roles": object(1025) }), "TOKEN_TOO_MANY_MEMBERS"),
        (json!({ "deep": nested }), "TOKEN_TOO_DEEP"),
    ] {
        let token = mesh.keys.first.mint(&claims_with(&claims));
        // Twice: the second time it may come from the cache.
        for _ in 0..2 {
            for response in both(&mesh, &Request::get("/api").bearer(&token)).await {
                if verdict == "pass" {
                    assert_eq!(response.status, 200, "{} bytes: {}", token.len(), response.text());
                    assert!(response.upstream_saw("authorization").is_empty());
                } else {
                    assert_eq!((response.status, &response.json()["code"]), (401, &json!(verdict)));
                }
            }
        }
    }
    for cause in [
        r#""rule":"api","code":"TOKEN_TOO_LONG","status":401,"cause":"the token is longer than limits.token_bytes""#,
        r#""code":"TOKEN_TOO_MANY_MEMBERS","status":401,"cause":"the payload has an object of more than 1024 members""#,
        r#""code":"TOKEN_TOO_DEEP","status":401,"cause":"the payload is nested more than 16 levels deep""#,
    ] {
        let is_logged = wait_until(DEADLINE, async || mesh.envoy_log().contains(cause)).await;
        assert!(is_logged, "{cause}: {}", mesh.envoy_log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_chunks_of_cookies_passes_over_both_versions_of_http() {
    let mut options = MeshOptions::default();
    options.filter["tokens"]["cookies"] = json!([{ "name": "session", "chunks": "dot" }]);
    let mesh = Mesh::start_with("chunks", options).await;
    let token = mesh.keys.first.mint(&claims_with(&json!({ "pad": "x".repeat(9000) })));
    let chunks: Vec<&str> = token.as_bytes().chunks(3800).map(|part| std::str::from_utf8(part).unwrap()).collect();
    assert!(chunks.len() >= 3);
    let all: Vec<String> = chunks.iter().enumerate().map(|(at, part)| format!("session.{at}={part}")).collect();
    // HTTP/2 has each cookie in a field of its own (RFC 9113 section 8.2.3), and Envoy joins them.
    let one = Request::get("/api").header("cookie", format!("a=b; {}; c=d", all.join("; ")));
    let many = all
        .iter()
        .rev()
        .fold(Request::get("/api").header("cookie", "a=b"), |request, chunk| request.header("cookie", chunk));
    for (request, rest) in [(&one, "a=b; c=d"), (&many, "a=b")] {
        for response in both(&mesh, request).await {
            assert_eq!(response.status, 200, "{}", response.text());
            assert_eq!(response.upstream_saw("cookie"), [rest]);
            // It is a browser's session like any other.
            assert_eq!(response.header("cache-control"), Some("no-store"));
        }
    }
    let part = Request::get("/api").header("cookie", all[1..].join("; "));
    let spoof = Request::get("/api").header("cookie", format!("{}; Session.1=x", all.join("; ")));
    for request in [part, spoof] {
        for response in both(&mesh, &request).await {
            assert_eq!((response.status, &response.json()["code"]), (401, &json!("TOKEN_MALFORMED")));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_among_the_subprotocols_opens_a_websocket_and_stays_here() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let upstream = Upstream::answering({
        let seen = Arc::clone(&seen);
        move |request| {
            let asked = request.header("sec-websocket-protocol").unwrap_or_default().to_owned();
            seen.lock().unwrap().push(request);
            // The first that the client offers.
            let chosen = asked.split(", ").next().unwrap_or_default();
            Answer::new(101, "")
                .header("connection", "upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-protocol", chosen)
        }
    })
    .await;
    let mut options = MeshOptions { upstream: Some(upstream), ..MeshOptions::default() };
    options.filter["tokens"]["websocket"] = json!([{}, { "prefix": "bearer.", "encoding": "plain" }]);
    options.edit = |bootstrap| {
        let upgrades = "codec_type: AUTO\n                upgrade_configs: [{ upgrade_type: websocket }]\n";
        let bootstrap = bootstrap.replace("codec_type: AUTO", upgrades).replace(" # HTTP/1.1 and HTTP/2", "");
        bootstrap.replace(
            "max_concurrent_streams: 100",
            "max_concurrent_streams: 100\n                  allow_connect: true",
        )
    };
    let mesh = Mesh::start_with("subprotocols", options).await;
    let token = mesh.token();
    let encoded = format!("{KUBERNETES}{}", to_base64url(token.as_bytes()));
    let elsewhere = ("origin", "https://elsewhere.example");
    for offered in [format!("{encoded}, chat, superchat"), format!("chat,bearer.{token},superchat")] {
        let head = handshake(&mesh, "/api", &[("sec-websocket-protocol", &offered), elsewhere]).await;
        assert!(head.starts_with("http/1.1 101 ") && head.contains("sec-websocket-protocol: chat\r\n"), "{head}");
        let request = seen.lock().unwrap().pop().expect("it was forwarded");
        assert_eq!(request.header("sec-websocket-protocol"), Some("chat, superchat"));
        assert!(request.header("x-user-id").is_some() && !format!("{request:?}").contains(token.as_str()));

        // No upstream of the test can end this as it should: the test checks only its request.
        extended_connect(mesh.envoy.address(), "/api", &[("sec-websocket-protocol", &offered), elsewhere]).await;
        let request = seen.lock().unwrap().pop().expect("it was forwarded");
        assert_eq!(request.header("sec-websocket-protocol"), Some("chat, superchat"));
        assert!(request.header("x-user-id").is_some() && !format!("{request:?}").contains(token.as_str()));
    }
    let public = handshake(&mesh, "/public", &[("sec-websocket-protocol", &format!("chat, bearer.{token}"))]).await;
    assert!(public.starts_with("http/1.1 101 "), "{public}");
    assert_eq!(seen.lock().unwrap().pop().unwrap().header("sec-websocket-protocol"), Some("chat"));
    for (headers, status) in [
        (vec![("sec-websocket-protocol", encoded.as_str())], 401),
        (vec![("sec-websocket-protocol", "chat")], 401),
        (vec![("sec-websocket-protocol", "chat, bearer.garbage")], 401),
        (
            vec![
                ("sec-websocket-protocol", "chat"),
                ("sec-websocket-protocol", encoded.as_str()),
                ("cookie", "session=x"),
            ],
            400,
        ),
        (vec![("sec-websocket-protocol", "chat"), ("sec-websocket-protocol", "bearer.x, bearer.y")], 400),
    ] {
        let head = handshake(&mesh, "/api", &headers).await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{headers:?}: {head}");
        assert_eq!(extended_connect(mesh.envoy.address(), "/api", &headers).await, Some(status), "{headers:?}");
    }
    assert!(seen.lock().unwrap().is_empty());
}

/// The head of the answer to a WebSocket's handshake (RFC 6455 section 4.1), in lower case.
async fn handshake(mesh: &Mesh, path: &str, headers: &[(&str, &str)]) -> String {
    let request = Request::get(path)
        .header("host", "test.example")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
    let mut stream = TcpStream::connect(mesh.envoy.address()).await.unwrap();
    stream.write_all(&request.to_bytes()).await.unwrap();
    let mut read = Vec::new();
    let whole = tokio::time::timeout(DEADLINE, async {
        while !read.windows(4).any(|window| window == b"\r\n\r\n") {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0, "it was closed");
        }
    });
    whole.await.expect("an answer in time");
    String::from_utf8_lossy(&read).to_ascii_lowercase()
}
