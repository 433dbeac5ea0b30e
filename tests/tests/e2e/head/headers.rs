//! Headers and trailers of the client that a backend could read as ours.
use super::*;

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

/// The names of docs/overrides.md, which is generated.
fn authn_overrides() -> Vec<String> {
    let text = include_str!("../../../../docs/overrides.md");
    text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_options_cannot_make_the_next_proxy_drop_our_headers() {
    // The answer to an upgrade has no body, so the request is kept.
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

/// Speaks HTTP/2 to the upstream, so that trailers reach it.
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
    tokio::time::timeout(DEADLINE, seen.recv()).await.expect("a request comes").unwrap()
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
