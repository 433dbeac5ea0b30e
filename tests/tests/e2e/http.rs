//! The filter's decisions as a real proxy carries them out: repeated headers, spoofed ones, certificates, upgrades, logs.
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness::mesh::{claims, claims_with};
use harness::{
    Answer, H2Connection, Mesh, MeshOptions, Request, Response, Tls, Upstream, certificate, exchange, extended_connect,
};
use mint::to_base64url;
use serde_json::json;

/// The same over both versions.
async fn both(mesh: &Mesh, request: &Request) -> [Response; 2] {
    let h2 = H2Connection::open(mesh.envoy.address()).await.unwrap();
    [mesh.send(request).await, h2.send(request).await.expect("Envoy answers")]
}

fn problem(response: &Response) -> (u16, String) {
    (response.status, response.json()["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_authorization_headers_are_ambiguous_over_both_versions_of_http() {
    let mesh = Mesh::start("two-headers").await;
    let (good, other) = (mesh.token(), mesh.token());
    let requests = [
        Request::get("/api").bearer(&good).bearer(&other),
        Request::get("/api").bearer(&good).bearer(&good),
        Request::get("/api").bearer(&good).header("authorization", "Basic YTpi"),
        Request::get("/api").header("authorization", "Basic YTpi").bearer(&good),
        Request::get("/api").bearer(&good).header("cookie", format!("session={other}")),
        Request::get("/optional").bearer(&good).bearer("garbage"),
    ];
    for request in &requests {
        for response in both(&mesh, request).await {
            assert_eq!(problem(&response), (400, "TOKEN_AMBIGUOUS".to_owned()), "{:?}", request.headers);
        }
    }
    assert_eq!(mesh.upstream.requests(), 0);
    // Envoy joins repeated values with a comma and drops empty ones, so one token is left for every reader.
    let one = [Request::get("/api").bearer(&good), Request::get("/api").bearer(&good).header("authorization", "")];
    for request in &one {
        for response in both(&mesh, request).await {
            assert_eq!((response.status, response.upstream_saw("authorization").len()), (200, 0));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_headers_of_the_client_never_reach_the_upstream() {
    let mesh = Mesh::start("spoofed").await;
    let claims = claims();
    let (token, user) = (mesh.keys.first.mint(&claims), claims["sub"].as_str().unwrap().to_owned());
    let spoofs: [&[(&str, &str)]; 7] = [
        &[("x-user-id", "eve")],
        &[("X-USER-ID", "eve"), ("x-user-id", "mallory")],
        &[("x-user-id", ""), ("x-user-id", "eve"), ("x-role", "admin")],
        &[("x_user_id", "eve"), ("x-user_id", "eve")],
        &[("x.user.id", "eve"), ("X-User.Id", "eve")],
        &[("x-user-id", "eve"), ("connection", "x-user-id, close")],
        &[("x-role", "admin"), ("x-role", "admin"), ("x_role", "admin")],
    ];
    for spoof in spoofs {
        for path in ["/public", "/optional", "/optional+", "/unchecked+", "/api+"] {
            let has_token = path.ends_with('+');
            let mut request = Request::get(path.trim_end_matches('+'));
            for (name, value) in spoof {
                request = request.header(name, value);
            }
            if has_token {
                request = request.bearer(&token);
            }
            let h2 = spoof.iter().all(|(name, _)| *name != "connection");
            let mut responses = vec![mesh.send(&request).await];
            if h2 {
                responses.push(H2Connection::open(mesh.envoy.address()).await.unwrap().send(&request).await.unwrap());
            }
            for response in responses {
                assert_eq!(response.status, 200, "{path}: {}", response.text());
                let wanted = if has_token { vec![user.clone()] } else { vec![] };
                assert_eq!(response.upstream_saw("x-user-id"), wanted, "{path} {spoof:?}");
                let text = response.text();
                assert!(!["eve", "mallory", "admin"].iter().any(|bad| text.contains(bad)), "{path} {spoof:?}: {text}");
                assert!(response.upstream_saw("authorization").is_empty(), "{path}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_to_a_cookie_session_are_never_stored() {
    let cached = Upstream::answering(|seen| {
        Answer::json(200, &seen.to_json()).header("cache-control", "public, max-age=600").header("x-own", "kept")
    });
    let mesh =
        Mesh::start_with("cookies", MeshOptions { upstream: Some(cached.await), ..MeshOptions::default() }).await;
    let token = mesh.token();
    let cookie = Request::get("/api").header("cookie", format!("theme=dark; session={token}; lang=en"));
    let values = |response: &Response, wanted: &str| -> Vec<String> {
        response.headers.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.clone()).collect()
    };
    // The first of them waits for its verdict, the second does not: both are a session's.
    for _ in 0..2 {
        for response in both(&mesh, &cookie).await {
            assert_eq!((response.status, values(&response, "cache-control")), (200, vec!["no-store".to_owned()]));
            assert_eq!(values(&response, "x-own"), ["kept"]);
            assert_eq!(response.upstream_saw("cookie"), ["theme=dark; lang=en"]);
        }
    }
    for response in both(&mesh, &Request::get("/api").bearer(&token)).await {
        assert_eq!(values(&response, "cache-control"), ["public, max-age=600"]);
    }
    for response in both(&mesh, &Request::get("/api").header("cookie", "session=garbage")).await {
        assert_eq!((response.status, values(&response, "cache-control")), (401, vec!["no-store".to_owned()]));
    }
    let unsafe_method = Request::new("POST", "/browser").header("cookie", format!("session={token}"));
    for response in both(&mesh, &unsafe_method).await {
        assert_eq!(problem(&response), (403, "ORIGIN_NOT_ALLOWED".to_owned()));
    }
    for response in both(&mesh, &unsafe_method.clone().header("origin", "https://app.example")).await {
        assert_eq!(response.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_one_problem_document_with_one_content_type() {
    let mesh = Mesh::start("refusals").await;
    let expired = mesh.keys.first.mint(&claims_with(&json!({ "iat": 1000, "exp": 2000 })));
    let cases = [
        (Request::get("/api"), 401, "TOKEN_MISSING"),
        (Request::get("/api").bearer("garbage"), 401, "TOKEN_MALFORMED"),
        (Request::get("/api").bearer(&expired), 401, "JWT_EXPIRED"),
        (Request::get("/nowhere"), 403, "ROUTE_UNMATCHED"),
        (Request::get("/api;x=y"), 400, "PATH_SUSPICIOUS"),
        (Request::new("POST", "/api").header("accept", "text/html").body("a body"), 401, "TOKEN_MISSING"),
    ];
    for (request, status, code) in cases {
        for response in both(&mesh, &request).await {
            assert_eq!(problem(&response), (status, code.to_owned()), "{}", response.text());
            let named = |wanted: &str| response.headers.iter().filter(|(name, _)| name == wanted).count();
            assert_eq!((named("content-type"), named("cache-control"), named("content-length")), (1, 1, 1), "{code}");
            assert_eq!(response.header("content-type"), Some("application/problem+json"));
            assert_eq!(response.header("cache-control"), Some("no-store"));
            assert_eq!(named("www-authenticate"), usize::from(status == 401), "{code}");
            let document = response.json();
            assert_eq!(document["status"], status);
            assert!(document["type"].is_string() && document["title"].is_string(), "{document}");
        }
    }
    let head = mesh.send(&Request::new("HEAD", "/api")).await;
    assert_eq!((head.status, head.header("content-type")), (401, Some("application/problem+json")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_bound_to_a_certificate_passes_with_that_certificate_alone() {
    let files = harness::Directory::new("certificates");
    let server = certificate(files.path(), "server");
    let (right, wrong) = (certificate(files.path(), "right"), certificate(files.path(), "wrong"));
    let both = [&right, &wrong].map(|(certificate, _)| std::fs::read_to_string(certificate).unwrap()).concat();
    let client_ca = files.write("clients.pem", both);
    let options = MeshOptions {
        tls: Some(Tls { certificate: server.0.clone(), key: server.1.clone(), client_ca }),
        ..MeshOptions::default()
    };
    let mesh = Mesh::start_with("bound", options).await;
    let bound = mesh.keys.first.mint(&claims_with(&json!({ "cnf": { "x5t#S256": thumbprint(&right.0) } })));
    let unbound = mesh.token();
    let get = |path: &str, token: &str, client: Option<&(PathBuf, PathBuf)>| {
        let request = Request::get(path).bearer(token).header("connection", "close");
        over_tls(mesh.envoy.address(), &request, client)
    };
    let mismatch = "\"code\":\"BINDING_MISMATCH\"";
    for _ in 0..2 {
        let answer = get("/bound", &bound, Some(&right));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        for (path, token, client) in [
            ("/bound", &bound, Some(&wrong)),
            ("/bound", &bound, None),
            ("/bound", &unbound, Some(&right)),
            // A rule that does not look at certificates must not take a bound token for a bearer token.
            ("/api", &bound, Some(&right)),
        ] {
            let answer = get(path, token, client);
            assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains(mismatch), "{path}: {answer}");
        }
        let answer = get("/api", &unbound, None);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

/// `x5t#S256` of RFC 8705 section 3.1.
fn thumbprint(certificate: &Path) -> String {
    let printed = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(certificate)
        .output()
        .unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    let (_, hex) = printed.trim().split_once('=').unwrap();
    let bytes: Vec<u8> = hex.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    to_base64url(bytes)
}

/// One request over TLS 1.3, as whom the client is: the response as text.
fn over_tls(address: std::net::SocketAddr, request: &Request, client: Option<&(PathBuf, PathBuf)>) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-tls1_3", "-connect", &address.to_string()]);
    if let Some((certificate, key)) = client {
        command.arg("-cert").arg(certificate).arg("-key").arg(key);
    }
    let mut process =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("openssl runs");
    std::io::Write::write_all(process.stdin.as_mut().unwrap(), &request.to_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_refused_and_passed_by_the_same_rules_over_both_versions_of_http() {
    let options = MeshOptions {
        edit: |bootstrap| {
            let upgrades = "codec_type: AUTO\n                upgrade_configs: [{ upgrade_type: websocket }]\n";
            let bootstrap = bootstrap.replace("codec_type: AUTO", upgrades).replace(" # HTTP/1.1 and HTTP/2", "");
            bootstrap.replace(
                "max_concurrent_streams: 100",
                "max_concurrent_streams: 100\n                  allow_connect: true",
            )
        },
        ..MeshOptions::default()
    };
    let mesh = Mesh::start_with("websocket", options).await;
    let cookie = format!("session={}", mesh.token());
    let (good, evil) = ("https://app.example", "https://evil.example");
    for (path, headers, status) in [
        ("/api", vec![("authorization", "Bearer garbage")], 401),
        ("/api", vec![], 401),
        ("/browser", vec![("cookie", cookie.as_str())], 403),
        ("/browser", vec![("cookie", cookie.as_str()), ("origin", evil)], 403),
        ("/nowhere", vec![("cookie", cookie.as_str()), ("origin", good)], 403),
        ("/browser", vec![("cookie", cookie.as_str()), ("origin", good)], 200),
    ] {
        let before = mesh.upstream.requests();
        let mut request = Request::get(path)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        // The upstream of the test speaks no websocket: the test checks only whether it is asked.
        let response = exchange(mesh.envoy.address(), &request).await.unwrap();
        let passed = mesh.upstream.requests() - before;
        assert_eq!((response.status == status || status == 200, passed), (true, u64::from(status == 200)), "{path}");
        let answered = extended_connect(mesh.envoy.address(), path, &headers).await.expect("no reset");
        let passed = mesh.upstream.requests() - before - passed;
        assert_eq!(passed, u64::from(status == 200), "{path} {headers:?} over HTTP/2: {answered}");
        assert!(answered == status || status == 200, "{path} over HTTP/2: {answered}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_and_no_answer_tells_a_token() {
    let mut mesh = Mesh::start("silent-logs").await;
    let good = mesh.token();
    let expired = mesh.keys.first.mint(&claims_with(&json!({ "exp": 2000 })));
    let forged = format!("{}{}", &good[..good.len() - 86], to_base64url([7; 64]));
    let foreign = mesh.keys.first.mint(&claims_with(&json!({ "iss": "https://foreign-issuer.example" })));
    for token in [&good, &expired, &forged, &foreign] {
        for request in [
            Request::get("/api").bearer(token),
            Request::get("/api").header("cookie", format!("session={token}")),
            Request::get("/api").bearer(token).bearer(token),
            Request::get(&format!("/nowhere?access_token={token}")),
            Request::get("/browser").header("authorization", format!("Bearer {token}x")),
        ] {
            for response in both(&mesh, &request).await {
                let text = format!("{:?}{}", response.headers, response.text());
                let is_refused = response.status >= 400;
                assert!(!is_refused || token.split('.').all(|part| !text.contains(part)), "an answer tells the token");
            }
        }
    }
    mesh.revoke(&["token", &good]).await;
    mesh.redis.as_mut().unwrap().process().kill();
    mesh.get(&mesh.token()).await;
    assert!(mesh.envoy.process().stop());
    let envoy = mesh.envoy_log();
    assert!(envoy.contains("\"details\":\"JWT_EXPIRED\""), "the access log is written: {envoy}");
    assert!(
        envoy.lines().any(|line| line.contains("portcullis: refused {") && line.contains("\"code\":\"SIG_MISMATCH\"")),
        "causes are logged"
    );
    let logs = [envoy, mesh.service.as_mut().unwrap().process().log(), mesh.redis.as_mut().unwrap().process().log()];
    for token in [&good, &expired, &forged, &foreign] {
        let signature = token.rsplit('.').next().unwrap();
        let payload = token.split('.').nth(1).unwrap();
        for log in &logs {
            assert!(!log.contains(signature) && !log.contains(payload), "a log tells a token");
        }
    }
    let keys = std::fs::read_dir(mesh.directory.path().join("appendonlydir")).unwrap();
    for file in keys.filter_map(Result::ok) {
        let stored = std::fs::read(file.path()).unwrap();
        let stored = String::from_utf8_lossy(&stored);
        assert!(!stored.contains(good.rsplit('.').next().unwrap()), "the store tells a token");
    }
}
