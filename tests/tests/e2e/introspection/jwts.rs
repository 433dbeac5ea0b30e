//! JWTs of an issuer that also requires introspection.
use super::*;

/// The issuer of the mesh's JWTs has them introspected too.
async fn start_with_jwts(name: &str, concurrency: u32) -> (Server, Mesh) {
    let server = Server::start().await;
    let mut options = MeshOptions { concurrency, ..options(server.http.address()) };
    let issuers = options.filter["issuers"].as_array_mut().unwrap();
    let mut introspection = issuers.last().unwrap()["introspection"].clone();
    introspection.as_object_mut().unwrap().remove("format");
    introspection["of"] = json!("jwt");
    issuers[0]["introspection"] = introspection;
    let mesh = Mesh::start_with(name, options).await;
    (server, mesh)
}

/// A JWT that the server calls active.
fn active_jwt(server: &Server, mesh: &Mesh) -> String {
    let claims = harness::mesh::claims();
    let token = mesh.keys.first.mint(&claims);
    let mut response = claims;
    response["active"] = json!(true);
    server.state.lock().unwrap().active.insert(token.clone(), response);
    token
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verified_jwt_is_asked_about_and_what_the_server_ends_is_refused_on_every_worker_within_the_freshness() {
    let (server, mesh) = start_with_jwts("introspected-jwt", 2).await;
    let token = active_jwt(&server, &mesh);
    let mut connections = mesh.connections(1).await;
    for _ in 0..3 {
        for connection in &mut connections {
            let response = connection.send(&Request::get("/api").bearer(&token)).await.unwrap();
            assert_eq!(response.status, 200, "{}", response.text());
        }
    }
    let asked = server.asked(&token);
    let least = if FilterHost::is_native() { 1 } else { 2 };
    assert!((least..=4).contains(&asked), "each of two workers asks and remembers: {asked}");
    server.end(&token);
    let ended = Instant::now();
    for connection in &mut connections {
        loop {
            let response = connection.send(&Request::get("/api").bearer(&token)).await.unwrap();
            if response.status == 401 {
                assert_eq!(code(&response), "SESSION_UNKNOWN");
                break;
            }
            assert!(ended.elapsed() < FRESHNESS + GRACE, "passes {:?} after its end", ended.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    // The rule without a check introspects too.
    let response = mesh.send(&Request::get("/unchecked").bearer(&token)).await;
    assert_eq!((response.status, code(&response).as_str()), (401, "SESSION_UNKNOWN"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_whose_server_is_slow_or_broken_is_503_and_a_client_that_leaves_keeps_nothing() {
    let (server, mesh) = start_with_jwts("introspected-jwt-trouble", 1).await;
    let token = active_jwt(&server, &mesh);
    server.say_instead(Some(Answer::new(500, "")));
    let response = mesh.get(&token).await;
    assert_eq!((response.status, code(&response).as_str()), (503, "STORE_UNAVAILABLE"));
    server.say_instead(None);
    server.delay(CHECK_TIMEOUT * 2, Duration::ZERO);
    let response = mesh.get(&token).await;
    assert_eq!((response.status, code(&response).as_str()), (503, "STORE_UNAVAILABLE"));
    // The client disconnects before the answer. The answer alone does not make a JWT valid.
    server.delay(CHECK_TIMEOUT / 2, Duration::ZERO);
    let mut leaves = Connection::open(mesh.envoy.address()).await.unwrap();
    let asked = server.asked(&token);
    let request = Request::get("/api").bearer(&token);
    tokio::select! {
        biased;
        is_asked = wait_until(DEADLINE, async || server.asked(&token) > asked) => assert!(is_asked),
        _ = leaves.send(&request) => panic!("it is answered before the server is asked"),
    }
    drop(leaves);
    server.delay(Duration::ZERO, Duration::ZERO);
    let is_back = wait_until(DEADLINE, async || mesh.get(&token).await.status == 200).await;
    assert!(is_back, "and it passes when the server is well");
}
