//! Requests and bodies that wait for a verdict.
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_while_they_wait_leave_nothing_behind() {
    let mut options = MeshOptions::timed();
    options.filter["limits"] = json!({ "waiting_requests": 20 });
    let mut mesh = Mesh::start_with("leaving-clients", options).await;
    let before = machines(&mesh).await;
    assert_eq!(mesh.get(&mesh.token()).await.status, 200);

    // Far more than may wait, on each of many rounds: a place that is not given back is missed soon.
    for _ in 0..8 {
        let came = async || mesh.envoy.stat("http.main.downstream_rq_total").await;
        let earlier = came().await;
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
        assert!(wait_until(Duration::from_secs(5), async || came().await >= earlier + 20).await);
        waiting.iter().for_each(|one| one.abort());
        drop(clients);
        // Envoy knows that they left before a verdict comes.
        let idle = async || mesh.envoy.stat("http.main.downstream_rq_active").await == 0;
        assert!(wait_until(CHECK_TIMEOUT * 4, idle).await, "requests are left behind");
        mesh.service.as_mut().unwrap().process().resume();
    }
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
    let mut options = MeshOptions { concurrency: 1, ..MeshOptions::timed() };
    options.filter["limits"] = json!({ "waiting_requests": 5 });
    let mut mesh = Mesh::start_with("too-many-wait", options).await;
    mesh.service.as_mut().unwrap().process().pause();
    let address = mesh.envoy.address();
    let all: Vec<_> = (0..20)
        .map(|_| Request::get("/api").bearer(&mesh.token()))
        .map(|request| tokio::spawn(async move { harness::exchange(address, &request).await.unwrap() }))
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
                    let _ = harness::exchange(address, &request).await;
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
    let mut mesh = Mesh::start_timed("waiting-body").await;
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
        Reply::http(200, &asked.answers(&derived, Retention::LONGEST, &vec![Answer::Live; asked.keys().len()], &[]))
            .after(CHECK_TIMEOUT / 2)
    })
    .await;
    let options = MeshOptions { check_address: Some(service.address()), ..MeshOptions::timed() };
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
    // Envoy says a refusal to gRPC as 200 with a grpc-status; the test checks that nothing reached the upstream.
    let response = h2.send(&call("garbage")).await.unwrap();
    let unauthenticated = Some("16");
    assert_eq!((response.status, response.header("grpc-status")), (200, unauthenticated), "{:?}", response.headers);
    assert_eq!(mesh.upstream.requests(), 0);
    let response = h2.send(&call(&mesh.token())).await.unwrap();
    assert_eq!((response.status, mesh.upstream.requests()), (200, 1));
}
