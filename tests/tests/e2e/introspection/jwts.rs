//! JWTs whose issuer has them introspected too.
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

/// A JWT that the server calls active, and its claims.
fn active_jwt(server: &Server, mesh: &Mesh) -> (String, Value) {
    let claims = harness::mesh::claims();
    let token = mesh.keys.first.mint(&claims);
    let mut response = claims.clone();
    response["active"] = json!(true);
    server.state.lock().unwrap().active.insert(token.clone(), response);
    (token, claims)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verified_jwt_is_asked_about_and_what_the_server_ends_is_refused_on_every_worker_within_the_freshness() {
    let (server, mesh) = start_with_jwts("introspected-jwt", 2).await;
    let (token, _) = active_jwt(&server, &mesh);
    let mut connections = mesh.connections(1).await;
    for _ in 0..3 {
        for connection in &mut connections {
            let response = connection.send(&Request::get("/api").bearer(&token)).await.unwrap();
            assert_eq!(response.status, 200, "{}", response.text());
        }
    }
    let asked = server.asked(&token);
    assert!((2..=4).contains(&asked), "each of two workers asks and remembers: {asked}");
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
    // The rule without a check asks too.
    let response = mesh.send(&Request::get("/unchecked").bearer(&token)).await;
    assert_eq!((response.status, code(&response).as_str()), (401, "SESSION_UNKNOWN"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_that_is_not_good_by_itself_is_never_sent_to_the_server() {
    let (server, mesh) = start_with_jwts("introspected-jwt-unverified", 1).await;
    let now = unix_now();
    let sign = |members: &Value| mesh.keys.first.mint(&harness::mesh::claims_with(members));
    let good = sign(&json!({}));
    let (input, signature) = good.rsplit_once('.').unwrap();
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    let refused = [
        (format!("{input}.{other}{}", &signature[1..]), "SIG_MISMATCH"),
        (sign(&json!({ "exp": now - 400 })), "JWT_EXPIRED"),
        (sign(&json!({ "aud": "other" })), "INVALID_AUDIENCE"),
        (sign(&json!({ "cnf": { "jkt": "AAAA" } })), "BINDING_MISMATCH"),
    ];
    for (token, expected) in &refused {
        assert_eq!(code(&mesh.get(token).await), *expected);
    }
    assert_eq!(server.state.lock().unwrap().asked.len(), 0);
    // And the good one is asked about, which the server does not know.
    assert_eq!(code(&mesh.get(&good).await), "SESSION_UNKNOWN");
    assert_eq!(server.asked(&good), 1);
    assert_eq!(code(&mesh.get(&good).await), "SESSION_UNKNOWN", "a refusal is remembered");
    assert_eq!(server.asked(&good), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_introspected_jwt_is_checked_at_the_same_time_and_refused_when_it_is_revoked() {
    let (server, mesh) = start_with_jwts("introspected-jwt-revoked", 1).await;
    let (token, claims) = active_jwt(&server, &mesh);
    let user = claims["sub"].as_str().unwrap();
    mesh.revoke(&["user", "--issuer", harness::mesh::ISSUER, "--id", user]).await;
    let is_ended = wait_until(FRESHNESS + GRACE, async || code(&mesh.get(&token).await) == "SESSION_REVOKED");
    assert!(is_ended.await);
    assert!(server.asked(&token) >= 1);

    let admin = mesh.service.as_ref().unwrap().admin_address();
    let checks = async || {
        let metrics = harness::exchange(admin, &Request::get("/metrics")).await.unwrap().text();
        let answered = "portcullis_checks_total{result=\"answered\"} ";
        metrics.lines().find_map(|line| line.strip_prefix(answered)?.parse::<u64>().ok()).expect("a counter")
    };
    let before = checks().await;
    let (other, _) = active_jwt(&server, &mesh);
    server.delay(CHECK_TIMEOUT - Duration::from_millis(100), Duration::ZERO);
    let request = Request::get("/api").bearer(&other);
    let address = mesh.envoy.address();
    let waiting = tokio::spawn(async move { harness::exchange(address, &request).await.unwrap() });
    assert!(wait_until(DEADLINE, async || checks().await > before).await);
    assert!(!waiting.is_finished(), "the check went out before the introspection was answered");
    assert_eq!(waiting.await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_whose_server_is_slow_or_broken_is_503_and_a_client_that_leaves_keeps_nothing() {
    let (server, mesh) = start_with_jwts("introspected-jwt-trouble", 1).await;
    let (token, _) = active_jwt(&server, &mesh);
    server.say_instead(Some(Answer::new(500, "")));
    let response = mesh.get(&token).await;
    assert_eq!((response.status, code(&response).as_str()), (503, "STORE_UNAVAILABLE"));
    server.say_instead(None);
    server.delay(CHECK_TIMEOUT * 2, Duration::ZERO);
    let response = mesh.get(&token).await;
    assert_eq!((response.status, code(&response).as_str()), (503, "STORE_UNAVAILABLE"));
    // The client goes before the answer comes. The answer alone makes nothing of a JWT.
    server.delay(Duration::from_millis(100), Duration::ZERO);
    let mut leaves = Connection::open(mesh.envoy.address()).await.unwrap();
    let asked = server.asked(&token);
    let request = Request::get("/api").bearer(&token);
    let sent = leaves.send(&request);
    assert!(tokio::time::timeout(Duration::from_millis(30), sent).await.is_err());
    drop(leaves);
    assert!(wait_until(DEADLINE, async || server.asked(&token) > asked).await);
    server.delay(Duration::ZERO, Duration::ZERO);
    let is_back = wait_until(DEADLINE, async || mesh.get(&token).await.status == 200).await;
    assert!(is_back, "and it passes when the server is well");
}
