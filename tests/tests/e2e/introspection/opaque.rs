//! Opaque tokens: how often the server is asked, and how long its answer holds.
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_ends_is_refused_on_every_worker_within_the_freshness_and_comes_back_as_fast() {
    let (server, mesh) = start("opaque-ended").await;
    let token = server.token();
    let mut connections = mesh.connections(1).await;
    for connection in &mut connections {
        assert_eq!(connection.send(&Request::get("/api").bearer(&token)).await.unwrap().status, 200);
    }
    let asked = server.asked(&token);
    let least = if FilterHost::is_native() { 1 } else { 2 };
    assert!((least..=3).contains(&asked), "each of two workers asks once and remembers: {asked}");

    let response = server.state.lock().unwrap().active[&token].clone();
    server.end(&token);
    let ended = Instant::now();
    let mut last_pass = ended;
    while ended.elapsed() < FRESHNESS + GRACE {
        for connection in &mut connections {
            let at = Instant::now();
            let seen = connection.send(&Request::get("/api").bearer(&token)).await.unwrap();
            match (seen.status, code(&seen).as_str()) {
                (200, _) => last_pass = at,
                (401, "SESSION_UNKNOWN") => {}
                other => panic!("{other:?}"),
            }
        }
    }
    println!("the last to pass was sent {} ms after the end", (last_pass - ended).as_millis());
    assert!(last_pass - ended < FRESHNESS, "an answer counts from when it was asked for");

    // A "no" is cached for just as long: many requests cause few introspections.
    let before = server.asked(&token);
    let start = Instant::now();
    while start.elapsed() < FRESHNESS {
        for connection in &mut connections {
            assert_eq!(connection.send(&Request::get("/api").bearer(&token)).await.unwrap().status, 401);
        }
    }
    let questions = server.asked(&token) - before;
    assert!(questions <= 4, "{questions} questions of two workers in one freshness");
    server.state.lock().unwrap().active.insert(token.clone(), response);
    for connection in &mut connections {
        let request = Request::get("/api").bearer(&token);
        let passes = wait_until(FRESHNESS + GRACE, async || connection.send(&request).await.unwrap().status == 200);
        assert!(passes.await, "it is active again");
    }
    let active = mesh.envoy.stats("portcullis.introspections").await;
    let count = |result: &str| active.iter().find(|(name, _)| name.ends_with(result)).map(|(_, count)| *count);
    assert!(count("issuer.opaque.result.active") >= Some(2 * least as u64), "{active:?}");
    assert!(count("issuer.opaque.result.inactive") >= Some(least as u64), "{active:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_many_wait_for_is_asked_about_once_and_their_bodies_wait_with_them() {
    let (server, mesh) = start_alone("opaque-shared").await;
    server.delay(Duration::from_millis(200), Duration::ZERO);
    let token = server.token();
    // The first one disconnects while all wait: its introspection must continue.
    let mut first = Connection::open(mesh.envoy.address()).await.unwrap();
    let gone = Request::get("/api").bearer(&token).to_bytes();
    tokio::time::timeout(Duration::from_millis(50), first.send_bytes(&gone, false)).await.unwrap_err();
    assert!(wait_until(DEADLINE, async || server.asked(&token) == 1).await);
    drop(first);
    let before = mesh.upstream.requests();
    let post = |_| Request::new("POST", "/api").bearer(&token).body("x".repeat(10_000));
    let responses = at_once(&mesh, 50, post).await;
    assert!(responses.iter().all(|response| response.status == 200));
    assert!(responses.iter().all(|response| response.json()["body_bytes"] == 10_000));
    assert_eq!(server.asked(&token), 1);
    assert_eq!(mesh.upstream.requests() - before, 50, "and the one that went away reached nobody");

    // Refused ones do not leak their body either.
    let bad = made_up();
    server.delay(Duration::ZERO, Duration::from_millis(200));
    let responses = at_once(&mesh, 20, |_| Request::new("POST", "/api").bearer(&bad).body("x".repeat(10_000))).await;
    assert!(responses.iter().all(|response| code(response) == "SESSION_UNKNOWN"));
    assert_eq!((server.asked(&bad), mesh.upstream.requests() - before), (1, 50));
}

#[tokio::test(flavor = "multi_thread")]
async fn revocations_end_opaque_tokens_that_the_server_still_calls_active() {
    let server = Server::start().await;
    let mut options = options(server.http.address());
    for (field, time) in [("freshness", FRESHNESS), ("timeout", CHECK_TIMEOUT)] {
        options.filter["revocation"][field] = json!(format!("{}ms", time.as_millis()));
    }
    let mesh = Mesh::start_with("opaque-revoked", options).await;
    let (session, user) = (random_id(), random_id());
    let tokens = [
        server.token_with(&json!({ "sid": session })),
        server.token_with(&json!({ "sub": user })),
        server.token_with(&json!({ "sub": user, "iat": null, "exp": null })),
    ];
    for token in &tokens {
        let response = mesh.get(token).await;
        assert_eq!(response.status, 200, "{}", response.text());
    }
    mesh.revoke(&["session", "--issuer", OPAQUE_ISSUER, "--id", &session]).await;
    mesh.revoke(&["user", "--issuer", OPAQUE_ISSUER, "--id", &user]).await;
    for token in &tokens {
        let is_ended = wait_until(FRESHNESS + GRACE, async || code(&mesh.get(token).await) == "SESSION_REVOKED");
        assert!(is_ended.await, "within the freshness");
    }
    assert_eq!(mesh.get(&server.token()).await.status, 200);
}
