//! Requests that are wrong, large, or meant for another parser.
use super::*;

/// As much as Envoy takes in all headers together, by default.
const HEADERS: usize = 60 << 10;

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
    // Signed by the right key, so these reach the parser of payloads.
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

/// Bytes that are not a request, or not a whole one.
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
