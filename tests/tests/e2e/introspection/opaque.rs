//! Opaque tokens: how often the server is asked, and for how long its answer holds.
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
    assert!((2..=3).contains(&asked), "each of two workers asks once and remembers: {asked}");

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

    // A "no" is remembered for just as long: many requests are few questions.
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
    assert!(count("issuer.opaque.result.active") >= Some(4), "{active:?}");
    assert!(count("issuer.opaque.result.inactive") >= Some(2), "{active:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_many_wait_for_is_asked_about_once_and_their_bodies_wait_with_them() {
    let (server, mesh) = start_alone("opaque-shared").await;
    server.delay(Duration::from_millis(200), Duration::ZERO);
    let token = server.token();
    // The first one goes away while all wait: its question must not go with it.
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
    let (server, mesh) = start("opaque-revoked").await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_known_waits_for_introspection_and_check_at_once() {
    let (server, mesh) = start_alone("opaque-anticipated").await;
    let token = server.token();
    assert_eq!(mesh.get(&token).await.status, 200);
    // The service counts what it has answered, and at once.
    let admin = mesh.service.as_ref().unwrap().admin_address();
    let checks = async || {
        let metrics = harness::exchange(admin, &Request::get("/metrics")).await.unwrap().text();
        let answered = "portcullis_checks_total{result=\"answered\"} ";
        metrics.lines().find_map(|line| line.strip_prefix(answered)?.parse::<u64>().ok()).expect("a counter")
    };
    assert_eq!((server.asked(&token), checks().await), (1, 1), "a new one has to wait for one and then the other");
    // Both answers are stale then.
    tokio::time::sleep(FRESHNESS).await;
    server.delay(CHECK_TIMEOUT - Duration::from_millis(100), Duration::ZERO);
    let request = Request::get("/api").bearer(&token);
    let address = mesh.envoy.address();
    let waiting = tokio::spawn(async move { harness::exchange(address, &request).await.unwrap() });
    assert!(wait_until(DEADLINE, async || checks().await == 2).await);
    assert!(!waiting.is_finished(), "the check went out before the introspection was answered");
    let response = waiting.await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!((server.asked(&token), checks().await), (2, 2), "and was not asked again");
}
