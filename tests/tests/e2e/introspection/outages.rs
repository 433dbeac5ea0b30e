//! An introspection server that is slow, broken or absent.
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn trouble_at_the_server_is_503_in_time_and_never_a_pass_and_tells_no_secret() {
    let (server, mut mesh) = start_alone("opaque-trouble").await;
    let active = json!({ "active": true, "aud": "api" });
    let huge = json!({ "active": true, "aud": "api", "x": "x".repeat(1_000_000) });
    let page = Answer::new(200, active.to_string()).header("content-type", "text/html");
    let troubles = [
        ("huge", Answer::json(200, &huge), "not_understood"),
        ("a page", page, "not_understood"),
        ("401", Answer::json(401, &active), "client_refused"),
        ("500", Answer::json(500, &active), "server_error"),
        ("slow", Answer::json(200, &active).after(CHECK_TIMEOUT * 3), "no_answer"),
    ];
    let mut tokens = Vec::new();
    for (name, answer, reason) in troubles {
        server.say_instead(Some(answer));
        let token = server.token();
        let metric = format!("wasmcustom.portcullis.introspections.issuer.opaque.result.{reason}");
        let before = mesh.envoy.stat(&metric).await;
        for _ in 0..2 {
            let response = mesh.get(&token).await;
            assert_eq!((response.status, code(&response).as_str()), (503, "STORE_UNAVAILABLE"), "{name}");
            assert!(response.header("retry-after").is_some());
            assert!(response.took < CHECK_TIMEOUT + GRACE, "{name}: {:?}", response.took);
        }
        assert!(wait_until(DEADLINE, async || mesh.envoy.stat(&metric).await == before + 2).await, "{name}: {reason}");
        // Nothing is remembered of it: the next answer counts at once.
        server.say_instead(None);
        assert_eq!(mesh.get(&token).await.status, 200, "{name}");
        tokens.push(token);
    }
    let log = mesh.envoy_log();
    assert!(log.contains("does not accept the filter's client credentials"), "the log says what to do");
    let encoded = STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
    for secret in tokens.iter().map(String::as_str).chain([CLIENT_SECRET, &encoded]) {
        assert!(!log.contains(secret), "the log has a secret");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_breaks_off_or_is_not_there_is_503() {
    let cut = |_: &[u8]| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n";
        Reply::bytes(format!("{head}{{\"active\":true}}")).closing()
    };
    let server = RawServer::start(cut).await;
    let mesh = Mesh::start_with("opaque-cut", options(server.address())).await;
    let response = mesh.get(&made_up()).await;
    assert_eq!((response.status, code(&response).as_str()), (503, "STORE_UNAVAILABLE"));
    drop(server);
    let response = mesh.get(&made_up()).await;
    assert_eq!((response.status, code(&response).as_str()), (503, "STORE_UNAVAILABLE"));
    // The JWTs of the other issuers need no introspection server.
    assert_eq!(mesh.get(&mesh.token()).await.status, 200);
    let failed = mesh.envoy.stat("wasmcustom.portcullis.introspections.issuer.opaque.result.no_answer").await;
    assert_eq!(failed, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_not_there_refuses_at_once() {
    let server = Server::start().await;
    let mut options = options(server.http.address());
    let issuers = options.filter["issuers"].as_array_mut().unwrap();
    issuers.last_mut().unwrap()["introspection"]["cluster"] = json!("nowhere");
    let mesh = Mesh::start_with("opaque-no-cluster", options).await;
    for _ in 0..3 {
        let response = mesh.get(&server.token()).await;
        assert_eq!((response.status, code(&response).as_str()), (503, "STORE_UNAVAILABLE"));
    }
    assert_eq!(mesh.envoy.stat("wasmcustom.portcullis.introspections.issuer.opaque.result.not_sent").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_could_ask_two_servers_about_one_token_does_not_start() {
    let server = Server::start().await;
    let mut options = options(server.http.address());
    let mut twin = options.filter["issuers"].as_array().unwrap().last().unwrap().clone();
    twin["name"] = json!("twin");
    twin["issuer"] = json!("https://twin.example");
    options.filter["issuers"].as_array_mut().unwrap().push(twin);
    let log = Mesh::try_start("opaque-ambiguous", options).await.err().expect("it is refused");
    assert!(log.contains("rules[1].issuers: an opaque token could be for `opaque` or for `twin`"), "{log}");
}
