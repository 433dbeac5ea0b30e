//! Requests whose head can be read in two ways, through two virtual hosts of a real Envoy: what the rules judged must be
//! what is routed and what the upstream gets.
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use harness::mesh::{claims, claims_with};
use harness::{Answer, Connection, H2Connection, Mesh, MeshOptions, Request, Response, Upstream, exchange, wait_until};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(20);

/// `public.example.com` is public and has a route of its own; every other host needs a token.
fn options() -> MeshOptions {
    let mut options = MeshOptions::default();
    let rules = [
        json!({ "name": "write", "match": { "hosts": ["api.example.com"], "methods": ["DELETE"] }, "access": "required", "scopes": { "all": ["admin"] } }),
        json!({ "name": "cors", "match": { "hosts": ["cors.example.com"] }, "access": "required", "cors_preflight": "pass" }),
        json!({ "name": "open", "match": { "hosts": ["public.example.com", "[::1]"] }, "access": "public" }),
        json!({ "name": "rest", "match": { "path": { "prefix": "/" } }, "access": "required", "revocation": "off" }),
    ];
    options.filter["rules"] = rules.into_iter().collect();
    options.filter["tokens"]["query"] = json!(["access_token"]);
    options.filter["tokens"]["headers"] =
        json!([{ "name": "authorization", "scheme": "Bearer" }, { "name": "x-session-token" }]);
    options.edit = two_virtual_hosts;
    options
}

fn two_virtual_hosts(bootstrap: String) -> String {
    let found = bootstrap
        .find("                    - name: upstream\n                      domains: [\"*\"]")
        .expect("a virtual host");
    let host = |name: &str, domains: &str| {
        format!(
            r#"                    - name: {name}
                      domains: [{domains}]
                      request_headers_to_add: [{{ header: {{ key: x-routed-by, value: {name} }} }}]
                      routes: [{{ match: {{ prefix: / }}, route: {{ cluster: upstream, upgrade_configs: [{{ upgrade_type: websocket }}] }} }}]
"#
        )
    };
    let end = bootstrap[found..].find("http_filters:").expect("filters") + found;
    let edited = format!(
        "{}{}{}\n                {}",
        &bootstrap[..found],
        host("public", r#""public.example.com", "[::1]""#),
        host("everything-else", r#""*""#),
        &bootstrap[end..]
    );
    edited.replacen(
        "codec_type: AUTO",
        "upgrade_configs: [{ upgrade_type: websocket }]\n                codec_type: AUTO",
        1,
    )
}

/// As [`two_virtual_hosts`], in an Envoy that leaves the host as the client wrote it.
fn without_stripping(bootstrap: String) -> String {
    let stripped = ["strip_any_host_port: true", "strip_trailing_host_dot: true"];
    assert!(stripped.iter().all(|line| bootstrap.contains(line)), "the shipped bootstrap strips ports and dots");
    two_virtual_hosts(stripped.iter().fold(bootstrap, |bootstrap, line| bootstrap.replace(line, "")))
}

fn code(response: &Response) -> String {
    response.json()["code"].as_str().unwrap_or_default().to_owned()
}

async fn over_h2(mesh: &Mesh, request: &Request) -> Option<Response> {
    H2Connection::open(mesh.envoy.address()).await.unwrap().send(request).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_that_was_judged_is_the_one_that_is_routed_and_forwarded() {
    for (edit, strips) in [(two_virtual_hosts as fn(String) -> String, true), (without_stripping, false)] {
        let mesh = Mesh::start_with("hosts", MeshOptions { edit, ..options() }).await;
        for host in [
            "public.example.com",
            "PUBLIC.Example.com",
            "public.example.com:1234",
            "public.example.com:80",
            "public.example.com:",
            "public.example.com.",
            "public.example.com.:443",
            "Public.Example.Com.:65535",
        ] {
            let request = Request::get("/x").header("host", host);
            let mut seen = vec![mesh.send(&request).await];
            // The absolute form wins over the Host header (RFC 9112 section 3.2.2).
            let absolute = format!("GET http://{host}/x HTTP/1.1\r\nhost: other.example.com\r\n\r\n");
            let mut connection = Connection::open(mesh.envoy.address()).await.unwrap();
            seen.push(connection.send_bytes(absolute.as_bytes(), false).await.unwrap());
            seen.extend(over_h2(&mesh, &request).await);
            assert!(seen.len() == 3 || host.ends_with(':'), "{host}: not sent over HTTP/2");
            for response in seen {
                // Envoy itself refuses an empty port in the absolute form.
                if host.ends_with(':') && response.status == 400 {
                    continue;
                }
                assert_eq!(response.status, 200, "{host}: {}", response.text());
                assert_eq!(response.upstream_saw("x-routed-by"), ["public"], "{host}");
                assert_eq!(response.upstream_saw("host"), ["public.example.com"], "{host}");
            }
        }
        let request = Request::get("/x").header("host", "[0:0::1]:8080");
        for response in [mesh.send(&request).await, over_h2(&mesh, &request).await.unwrap()] {
            assert_eq!(response.upstream_saw("x-routed-by"), ["public"], "{}", response.text());
            assert_eq!(response.upstream_saw("host"), ["[::1]"]);
        }
        for host in [
            "user@public.example.com",
            "public.example.com@other.example.com",
            "public.example.com:65536",
            "public.example.com:0x50",
            "public.example.com:80:80",
            "public..example.com",
            ".public.example.com",
            "public.example.com..",
            "public.example.com%2e",
            "public.example.com\\",
            "public.example.com,other.example.com",
            "public.example.com other.example.com",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "017700000001",
            "127.0.0.01:80",
            "[::1",
            "[::1]x",
            "[fe80::1%25eth0]",
            "",
        ] {
            let request = Request::get("/x").header("host", host);
            let mut seen = vec![mesh.send(&request).await];
            seen.extend(over_h2(&mesh, &request).await);
            for response in seen {
                // Where Envoy strips what comes after the colon, whatever it is, there is one reading left.
                let one_reading = response.upstream_saw("x-routed-by") == ["public"]
                    && response.upstream_saw("host") == ["public.example.com"];
                assert!(response.status == 400 || (strips && one_reading), "{host:?}: {}", response.text());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_is_not_in_upper_case_meets_no_rule() {
    let mesh = Mesh::start_with("methods", options()).await;
    let token = mesh.keys.first.mint(&claims());
    for method in ["delete", "Delete", "DELETe", "dELETE", "connect", "get", "GEt", "DELETE#", "DELETE~", "get'"] {
        for host in ["api.example.com", "public.example.com", "other.example.com"] {
            let request = Request::new(method, "/x").header("host", host).bearer(&token);
            // Envoy refuses some of them itself: it knows only some methods over HTTP/1.1.
            let first = mesh.send(&request).await;
            assert_eq!(first.status, 400, "{method}: {}", first.text());
            if let Some(second) = over_h2(&mesh, &request).await {
                assert_eq!((second.status, code(&second)), (400, "REQUEST_MALFORMED".into()), "{method} {host}");
            }
        }
    }
    assert_eq!(mesh.upstream.requests(), 0);
    let response = over_h2(&mesh, &Request::new("DELETE", "/x").header("host", "api.example.com").bearer(&token)).await;
    assert_eq!(code(&response.unwrap()), "SCOPE_INSUFFICIENT");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_override_the_request_line_are_removed_and_envoys_own_are_not() {
    let mesh = Mesh::start_with("overrides", options()).await;
    let names = authn_overrides();
    assert!(names.len() > 30, "docs/overrides.md has the table");
    for chunk in names.chunks(12) {
        let upper = |name: &str| {
            name.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect::<Vec<_>>().join("-")
        };
        let spellings: [fn(&str) -> String; 3] =
            [str::to_owned, |name| name.replace('-', "."), |name| name.replacen('-', ".", 1)];
        for spelling in spellings {
            let mut request = Request::get("/x").header("host", "public.example.com").header("x-kept", "1");
            for name in chunk {
                request =
                    request.header(&spelling(name), "evil.example.com").header(&upper(name).to_lowercase(), "/admin");
            }
            for response in [mesh.send(&request).await, over_h2(&mesh, &request).await.unwrap()] {
                assert_eq!(response.status, 200, "{}", response.text());
                let text = response.text();
                assert!(!text.contains("evil.example.com") && !text.contains("/admin"), "{text}");
                assert_eq!(response.upstream_saw("x-kept"), ["1"]);
                for own in ["x-forwarded-proto", "x-request-id", "x-forwarded-for"] {
                    assert_eq!(response.upstream_saw(own).len(), 1, "{own}");
                }
            }
        }
    }
    let mut kept = options();
    kept.filter["keep_override_headers"] = json!(["X-Forwarded-Prefix"]);
    let mesh = Mesh::start_with("kept", kept).await;
    let request = Request::get("/x")
        .header("host", "public.example.com")
        .header("x-forwarded-prefix", "/a")
        .header("x-forwarded-host", "evil.example.com");
    let response = mesh.send(&request).await;
    assert_eq!(response.upstream_saw("x-forwarded-prefix"), ["/a"]);
    assert!(response.upstream_saw("x-forwarded-host").is_empty());
}

/// The cluster sends each request to the address that its header names.
fn original_destination(bootstrap: String) -> String {
    let edited = two_virtual_hosts(bootstrap);
    let start = edited.find("    - name: upstream\n      type: STRICT_DNS\n").expect("the upstream's cluster");
    let end = edited.find("    - name: session_service\n").expect("the service's cluster");
    assert!(start < end);
    let cluster = "    - name: upstream\n      type: ORIGINAL_DST\n      lb_policy: CLUSTER_PROVIDED\n      \
                   connect_timeout: 1s\n      original_dst_lb_config: { use_http_header: true }\n";
    format!("{}{cluster}{}", &edited[..start], &edited[end..])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_does_not_choose_the_upstream() {
    for (kept, status) in [(json!([]), 503), (json!(["X-Envoy-Original-Dst-Host"]), 200)] {
        let mut options = MeshOptions { edit: original_destination, ..options() };
        options.filter["keep_override_headers"] = kept;
        let mesh = Mesh::start_with("original-dst", options).await;
        let request = Request::get("/x")
            .header("host", "public.example.com")
            .header("x-envoy-original-dst-host", mesh.upstream.address().to_string());
        for response in [mesh.send(&request).await, over_h2(&mesh, &request).await.unwrap()] {
            assert_eq!(response.status, status, "{}", response.text());
        }
        assert_eq!(mesh.upstream.requests() > 0, status == 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_name_another_method_do_not_reach_the_upstream_where_they_are_to_be_removed() {
    let mut options = options();
    options.filter["remove_query_parameters"] = json!(["_method"]);
    let mesh = Mesh::start_with("query-method", options).await;
    let token = mesh.keys.first.mint(&claims());
    for query in ["_method=DELETE", "_Method=DELETE", "%5fmethod=DELETE", ".method=DELETE", "%255Fmethod=DELETE"] {
        for (host, token) in [("public.example.com", None), ("other.example.com", Some(&token))] {
            let mut request = Request::new("POST", &format!("/x?a=1&{query}&b=2")).header("host", host).body("x");
            if let Some(token) = token {
                request = request.bearer(token);
            }
            for response in [mesh.send(&request).await, over_h2(&mesh, &request).await.unwrap()] {
                assert_eq!(response.json()["path"], "/x?a=1&b=2", "{query}: {}", response.text());
            }
        }
    }
}

/// The names of docs/overrides.md, which is generated.
fn authn_overrides() -> Vec<String> {
    let text = include_str!("../../../docs/overrides.md");
    text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_that_becomes_something_else_needs_a_token() {
    let mesh = Mesh::start_with("preflights", options()).await;
    let preflight = || {
        Request::new("OPTIONS", "/x")
            .header("host", "cors.example.com")
            .header("origin", "https://app.example")
            .header("access-control-request-method", "PUT")
    };
    for response in [mesh.send(&preflight()).await, over_h2(&mesh, &preflight()).await.unwrap()] {
        assert_eq!(response.status, 200, "{}", response.text());
    }
    let refused = [
        preflight().header("connection", "upgrade").header("upgrade", "websocket"),
        preflight().body("x"),
        preflight().header("transfer-encoding", "chunked"),
        preflight().header("content-length", "00"),
    ];
    for request in &refused {
        let mut connection = Connection::open(mesh.envoy.address()).await.unwrap();
        let mut bytes = request.to_bytes();
        if request.headers.iter().any(|(name, _)| name == "transfer-encoding") {
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        let response = connection.send_bytes(&bytes, false).await.unwrap();
        assert_eq!((response.status, code(&response)), (401, "TOKEN_MISSING".into()), "{:?}", request.headers);
    }

    // Over HTTP/2 a body can follow that nothing has announced.
    let stream = TcpStream::connect(mesh.envoy.address()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let frames = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"body")))]);
    let request = hyper::Request::options("http://cors.example.com/x")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "PUT")
        .body(StreamBody::new(frames))
        .unwrap();
    assert!(!request.headers().contains_key("content-length"));
    assert_eq!(sender.send_request(request).await.unwrap().status(), 401);
    // Over HTTP/2 a preflight that asks for a tunnel is an extended CONNECT, which no preflight is.
    assert_eq!(mesh.upstream.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_options_cannot_make_the_next_proxy_drop_our_headers() {
    // The answer to an upgrade has no body, so what was seen is kept.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let upstream = Upstream::answering({
        let seen = Arc::clone(&seen);
        move |request| {
            seen.lock().unwrap().push(request);
            Answer::new(400, "no websocket here")
        }
    })
    .await;
    let mesh = Mesh::start_with("connection", MeshOptions { upstream: Some(upstream), ..options() }).await;
    let token = mesh.keys.first.mint(&claims());
    for options in [
        "Upgrade, x-user-id",
        "x-user-id,upgrade",
        "X-User-Id, Upgrade, authorization",
        "upgrade, x.user.id, x-request-id",
    ] {
        let request = Request::get("/x")
            .header("host", "other.example.com")
            .header("connection", options)
            .header("upgrade", "websocket")
            .bearer(&token);
        exchange(mesh.envoy.address(), &request).await.unwrap();
        let seen = seen.lock().unwrap().pop().expect("it was forwarded");
        assert!(seen.header("x-user-id").is_some(), "{options}: {seen:?}");
        assert_eq!(seen.header("connection").map(str::to_lowercase).as_deref(), Some("upgrade"), "{options}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_token_under_another_spelling_does_not_reach_the_upstream() {
    let mesh = Mesh::start_with("spellings", options()).await;
    let token = mesh.keys.first.mint(&claims());
    let (good, evil) = (format!("Bearer {token}"), "evil-token");
    let queries = [
        "Access_Token=evil-token",
        ";access_token=evil-token",
        "a=b;access_token=evil-token",
        "access.token=evil-token",
        "%20access_token=evil-token",
        "access%5Btoken=evil-token",
        "access_token%5B%5D=evil-token",
        "access%2Etoken=evil-token",
        "ACCESS+TOKEN=evil-token",
        "%u0061ccess_token=evil-token",
        "%25u0061ccess_token=evil-token",
        "%2561ccess_token=evil-token",
        "acc%ess_token=evil-token",
        "acce%C5%BF%C5%BF_token=evil-token",
        "access_to%E2%84%AAen=evil-token",
        "%EF%BD%81ccess_token=evil-token",
        "%uff41ccess_token=evil-token",
        "%c1%a1ccess_token=evil-token",
        "acce%C3%9F_token=evil-token",
        "?access_token=evil-token",
        "access_token%00=evil-token",
        "%0baccess_token%09=evil-token",
    ];
    for query in queries {
        let request = Request::get(&format!("/x?keep=1&{query}"))
            .header("host", "other.example.com")
            .header("authorization", &good);
        for response in [mesh.send(&request).await, over_h2(&mesh, &request).await.unwrap()] {
            assert_eq!(response.status, 200, "{query}: {}", response.text());
            assert!(!response.text().contains(evil), "{query}: {}", response.text());
            assert!(response.text().contains("keep=1"), "{query}: {}", response.text());
        }
    }
    let headers: [(&str, &str); 14] = [
        ("cookie", "Session=evil-token; keep=1"),
        ("cookie", "keep=1; %2573ession=evil-token"),
        ("cookie", "keep=1; %u0073ession=evil-token"),
        ("cookie", "keep=1; \u{17f}ession=evil-token"),
        ("cookie", "keep=1; se\u{df}ion=evil-token"),
        ("cookie", "keep=1; \u{ff33}ession=evil-token"),
        ("cookie", "keep=1; SESSION=evil-token"),
        ("cookie", "keep=1; %73ession=evil-token"),
        ("cookie", "keep=1,session=evil-token"),
        ("cookie", "keep=1; session%20=evil-token"),
        ("cookie", "keep=1; sess%69on=evil-token"),
        ("x.session.token", "evil-token"),
        ("x-session.token", "evil-token"),
        ("X.Session-Token", "evil-token"),
    ];
    for (name, value) in headers {
        let request = Request::get("/x")
            .header("host", "other.example.com")
            .header("authorization", &good)
            .header(&name.to_lowercase(), value);
        for response in [mesh.send(&request).await, over_h2(&mesh, &request).await.unwrap()] {
            assert_eq!(response.status, 200, "{name}: {value}: {}", response.text());
            assert!(!response.text().contains(evil), "{name}: {value}: {}", response.text());
            assert!(name != "cookie" || response.upstream_saw("cookie").concat().contains("keep=1"), "{value}");
        }
    }
    for value in ["\u{a0}Bearer evil-token", "\u{2003}Bearer evil-token", "\"Bearer evil-token"] {
        let request = Request::get("/x").header("host", "other.example.com").header("authorization", value);
        let cookie = request.clone().header("cookie", format!("session={token}"));
        for (request, expected) in [(&request, "TOKEN_MALFORMED"), (&cookie, "TOKEN_AMBIGUOUS")] {
            for response in [mesh.send(request).await, over_h2(&mesh, request).await.unwrap()] {
                assert_eq!(code(&response), expected, "{value:?}: {}", response.text());
            }
        }
    }
}

/// Envoy's own default, which has the path.
fn default_access_log(bootstrap: String) -> String {
    let edited = two_virtual_hosts(bootstrap);
    let (start, end) = (
        edited.find("                      log_format:").unwrap(),
        edited.find("                route_config:").unwrap(),
    );
    assert!(start < end);
    format!("{}\n{}", edited[..start].trim_end(), &edited[end..])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_the_query_is_in_no_access_log_whatever_becomes_of_the_request() {
    let mut options = options();
    options.edit = default_access_log;
    let first = options.filter["issuers"][0].clone();
    let mut fetched = first.clone();
    fetched["name"] = json!("fetched");
    fetched["issuer"] = json!("https://fetched.example");
    fetched.as_object_mut().unwrap().remove("keys");
    fetched["jwks"] =
        json!({ "uri": "https://idp.example/keys", "cluster": "idp", "cool_down": "1s", "timeout": "1s" });
    options.filter["issuers"].as_array_mut().unwrap().push(fetched);
    // The second key comes with the second fetch, which a token of that key causes and waits for.
    let has_second = Arc::new(AtomicBool::new(false));
    let keys = Upstream::answering({
        let jwk = |key: &mint::SigningKey| key.public_jwk().unwrap();
        let (first, second) = (jwk(&options.keys.first), jwk(&options.keys.second));
        let has_second = Arc::clone(&has_second);
        move |_| {
            let all = if has_second.load(Ordering::SeqCst) { json!([first, second]) } else { json!([first]) };
            Answer::json(200, &json!({ "keys": all })).after(Duration::from_millis(200))
        }
    })
    .await;
    options.idp = Some(keys.address());
    let mut mesh = Mesh::start_with("query-log", options).await;
    let mint = |members: Value| mesh.keys.first.mint(&claims_with(&members));
    let good = mint(json!({}));
    let fetched = json!({ "iss": "https://fetched.example" });
    let waits_and_passes = mesh.keys.second.mint(&claims_with(&fetched));
    let nobodys = mint::SigningKey::generate(mint::Alg::EdDSA, "nobodys");
    let unknown = nobodys.mint(&claims_with(&fetched));
    let ready = mint(fetched.clone());
    let request = Request::get("/x").header("host", "other.example.com").bearer(&ready);
    for mut connection in mesh.connections(2).await {
        let has_keys = wait_until(PATIENCE, async || connection.send(&request).await.unwrap().status == 200);
        assert!(has_keys.await, "every worker has the first key");
    }
    has_second.store(true, Ordering::SeqCst);
    let expired = mint(json!({ "iat": 1, "exp": 2 }));
    let refused = "not-a-token-but-a-secret".to_owned();
    let mut sent = Vec::new();
    for (token, host) in [
        (&good, "other.example.com"),
        (&waits_and_passes, "other.example.com"),
        (&unknown, "other.example.com"),
        (&expired, "other.example.com"),
        (&refused, "other.example.com"),
        (&good, "public.example.com"),
        (&good, "api.example.com..:x"),
    ] {
        let request = Request::get(&format!("/logged?access_token={token}&b=1")).header("host", host);
        let mut responses = vec![mesh.send(&request).await];
        responses.extend(over_h2(&mesh, &request).await);
        sent.push(responses.iter().map(|response| response.status).collect::<Vec<_>>());
    }
    assert_eq!(sent[0], [200, 200], "{sent:?}");
    assert_eq!(sent[1], [200, 200], "{sent:?}");
    assert_eq!(sent[5], [200, 200], "{sent:?}");
    for at in [2, 3, 4] {
        assert!(sent[at].iter().all(|status| *status == 401), "{at}: {sent:?}");
    }
    let lines = sent.iter().map(Vec::len).sum::<usize>();
    let logged = wait_until(PATIENCE, async || mesh.envoy_log().matches("/logged").count() >= lines);
    assert!(logged.await, "{}", mesh.envoy_log());
    let log = mesh.envoy_log();
    for token in [&good, &waits_and_passes, &unknown, &expired, &refused] {
        assert!(!log.contains(token.as_str()), "{log}");
    }
}

/// Speaks HTTP/2 to the upstream, which is what carries trailers there.
fn http2_upstream(bootstrap: String) -> String {
    let edited = two_virtual_hosts(bootstrap);
    let cluster = edited.find("    - name: upstream\n      type: STRICT_DNS\n").expect("the cluster");
    let (before, after) = edited.split_at(cluster);
    let options = r#"    - name: upstream
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: { http2_protocol_options: {} }
      type: STRICT_DNS
"#;
    format!("{before}{options}{}", after.split_once("STRICT_DNS\n").expect("its type").1)
}

/// The names of the trailers of one request.
async fn trailers_of_one_request(listener: tokio::net::TcpListener) -> Vec<String> {
    let (names, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let (stream, _) = listener.accept().await.unwrap();
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let names = names.clone();
        async move {
            let body = http_body_util::BodyExt::collect(request.into_body()).await.unwrap();
            let trailers = body.trailers().cloned().unwrap_or_default();
            let _ = names.send(trailers.keys().map(|name| name.as_str().to_owned()).collect());
            Ok::<_, Infallible>(hyper::Response::new(http_body_util::Full::new(Bytes::new())))
        }
    });
    tokio::spawn(
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service),
    );
    tokio::time::timeout(PATIENCE, seen.recv()).await.expect("a request comes").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_that_could_be_read_as_our_headers_do_not_reach_the_upstream() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let behind = Mesh::start("trailers").await;
    let service = behind.service.as_ref().unwrap().address();
    let mut envoy = harness::EnvoyOptions::new(upstream, service, Some(options().filter));
    envoy.environment = vec![
        ("PORTCULLIS_SECRET".to_owned(), MeshOptions::secret()),
        ("KEY_SHARED".to_owned(), mint::to_base64url([7; 32])),
    ];
    envoy.edit = http2_upstream;
    let directory = harness::Directory::new("trailers-envoy");
    let envoy = harness::Envoy::start(&directory, envoy).await;
    let seen = tokio::spawn(trailers_of_one_request(listener));

    let stream = TcpStream::connect(envoy.address()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut trailers = hyper::HeaderMap::new();
    for name in ["x-kept", "x-user-id", "x_user_id", "x.user.id", "x-role", "x.session.token", "x-forwarded-host"] {
        trailers.insert(name, "evil".parse().unwrap());
    }
    let frames = [Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"body"))), Ok(Frame::trailers(trailers))];
    let request = hyper::Request::post("http://public.example.com/x")
        .body(StreamBody::new(futures_util::stream::iter(frames)))
        .unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    assert_eq!(seen.await.unwrap(), ["x-kept"]);
}
