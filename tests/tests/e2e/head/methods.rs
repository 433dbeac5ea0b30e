//! Methods: their spelling, overrides in the query, and preflights.
use super::*;

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
