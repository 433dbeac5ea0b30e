//! A provider that is down, refuses, or answers with something else than a key set.
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_costs_503_before_the_first_set_and_after_max_stale_and_nothing_between() {
    let good = key("good");
    let mut provider = Provider::absent();
    provider.publish(KEYS, &[&good]);
    let mesh = Mesh::start_with("down", options(&provider, &json!({ "refresh": "10s", "max_stale": "10s" }))).await;
    let mut connections = mesh.connections(1).await;
    let token = good.mint(&claims());
    let deadline = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < deadline {
        for connection in &mut connections {
            let response = connection.send(&get(&token)).await.unwrap();
            assert!(is(&response, 503, "KEYS_UNAVAILABLE"), "{}", response.text());
            assert!(response.header("retry-after").is_some());
        }
        let other = mesh.keys.first.mint(&claims_with(&json!({ "iss": OTHER_ISSUER })));
        assert_eq!(mesh.send(&get(&other)).await.status, 200, "another issuer is not touched");
    }

    let recover = async |provider: &mut Provider, connections: &mut [Connection]| {
        provider.come().await;
        let up = Instant::now();
        for connection in connections {
            let passes = wait_until(DEADLINE, async || {
                let response = connection.send(&get(&token)).await.unwrap();
                assert!(response.status == 200 || is(&response, 503, "KEYS_UNAVAILABLE"), "{}", response.text());
                response.status == 200
            });
            assert!(passes.await);
        }
        up.elapsed()
    };
    let after_start = recover(&mut provider, &mut connections).await;
    assert!(after_start < Duration::from_secs(3), "{after_start:?}");

    let fetched = provider.last_fetch();
    provider.go();
    let mut refused = vec![None; connections.len()];
    let mut passed = 0u64;
    while refused.iter().any(Option::is_none) {
        assert!(fetched.elapsed() < Duration::from_secs(12), "{refused:?}");
        for (connection, refused) in connections.iter_mut().zip(&mut refused) {
            let response = connection.send(&get(&token)).await.unwrap();
            let age = fetched.elapsed();
            if response.status == 200 {
                passed += 1;
                assert!(refused.is_none() && age < Duration::from_millis(10_100), "{age:?}");
            } else {
                assert!(is(&response, 503, "KEYS_UNAVAILABLE") && age > Duration::from_millis(9_900), "{age:?}");
                refused.get_or_insert(age);
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let after_stale = recover(&mut provider, &mut connections).await;
    println!(
        "provider down: up after the start, {after_start:?}; down with max_stale 10 s, {passed} passed, then 503 from {:?}; up again, {after_stale:?}",
        refused.iter().flatten().min()
    );
    assert!(after_stale < Duration::from_secs(3), "{after_stale:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_set_survives_whatever_the_provider_says_and_one_issuer_touches_no_other() {
    let (main, other) = (key("main"), key("other"));
    let provider = Provider::start(&[&main]).await;
    provider.publish("/other-keys", &[&other]);
    let document = |issuer: &str| json!({ "issuer": issuer, "jwks_uri": "https://idp.example/other-keys" });
    provider.say(DISCOVERY, Answer::json(200, &document(OTHER_ISSUER)));
    let mut options = options(&provider, &json!({ "cool_down": "1s" }));
    options.filter["issuers"][1].as_object_mut().unwrap().remove("keys");
    options.filter["issuers"][1]["jwks"] = json!({ "cluster": "idp", "discovery": true, "cool_down": "1s" });
    let mesh = Mesh::start_with("garbage", options).await;
    let of_main = main.mint(&claims());
    let of_other = other.mint(&claims_with(&json!({ "iss": OTHER_ISSUER })));
    let mut connections = mesh.connections(1).await;
    for token in [&of_main, &of_other] {
        for connection in &mut connections {
            let passes = wait_until(DEADLINE, async || connection.send(&get(token)).await.unwrap().status == 200);
            assert!(passes.await);
        }
    }
    assert_eq!((provider.fetches(DISCOVERY), provider.fetches("/other-keys")), (1, 1), "discovery leads to the set");
    // A key is its own issuer's alone.
    let crossed = mesh.send(&get(&main.mint(&claims_with(&json!({ "iss": OTHER_ISSUER }))))).await;
    assert!(is(&crossed, 401, "KEY_UNKNOWN"), "{}", crossed.text());

    let intruder = key("intruder");
    let mut huge = set(&[&intruder]);
    huge["padding"] = "x".repeat(1 << 20).into();
    let twice = set(&[&intruder]).to_string().replacen('{', r#"{"keys":[],"#, 1);
    let bad_sets = [
        ("garbage", Answer::new(200, "<html>sign in</html>")),
        ("status 500", Answer::json(500, &set(&[&intruder]))),
        ("a redirect", Answer::new(302, "").header("location", "/elsewhere")),
        ("a huge body", Answer::json(200, &huge)),
        ("a member that is there twice", Answer::new(200, twice)),
        ("nothing", Answer::new(200, "")),
    ];
    let evil = json!({ "issuer": ISSUER, "jwks_uri": "https://idp.example/keys" });
    let bad_documents = [("another issuer's document", Answer::json(200, &evil)), ("none", Answer::new(404, ""))];
    let cases = bad_sets
        .into_iter()
        .map(|(what, answer)| (what, KEYS, ISSUER, answer))
        .chain(bad_documents.into_iter().map(|(what, answer)| (what, DISCOVERY, OTHER_ISSUER, answer)));
    for (what, path, issuer, answer) in cases {
        provider.say(path, answer);
        let before = provider.fetches(path);
        let asked = wait_until(DEADLINE, async || {
            let token = with(&claims(), &json!({ "iss": issuer }));
            let response = mesh.send(&get(&intruder.mint(&token))).await;
            assert!(is(&response, 401, "KEY_UNKNOWN"), "{what}: {}", response.text());
            provider.fetches(path) > before
        });
        assert!(asked.await, "{what}");
        for connection in &mut connections {
            for token in [&of_main, &of_other] {
                let response = connection.send(&get(token)).await.unwrap();
                assert_eq!(response.status, 200, "{what}: {}", response.text());
            }
        }
    }
    let failed = mesh.envoy.stats("portcullis.key_fetches").await;
    println!("bad answers: {failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_refuses_is_asked_less_and_less() {
    let refusals = [
        Answer::new(401, ""),
        Answer::new(302, "").header("location", "https://elsewhere.example/keys"),
        Answer::new(429, ""),
        Answer::new(500, ""),
    ];
    join_all(refusals.map(is_asked_less_and_less)).await;
}

async fn is_asked_less_and_less(refusal: Answer) {
    let (good, status) = (key("good"), refusal.status);
    let provider = Provider::start(&[&good]).await;
    provider.say(KEYS, refusal);
    let mut mesh = Mesh::start_with("refused", options(&provider, &json!({}))).await;
    let token = good.mint(&claims());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(7) {
        let response = mesh.send(&get(&token)).await;
        assert!(is(&response, 503, "KEYS_UNAVAILABLE"), "{}", response.text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // At 0, 1, 3 and 7 s, each pause shorter by up to a quarter.
    let pauses = provider.pauses(KEYS);
    println!("status {status}: pauses {pauses:?}");
    assert!((2..=4).contains(&pauses.len()), "{status}: {pauses:?}");
    let log = mesh.envoy_log();
    assert!(log.contains(&format!("issuer=main keys not fetched: status {status}")), "{log}");
    // A provider that was asked rarely is asked again in time.
    provider.publish(KEYS, &[&good]);
    until_passes(&mut mesh.connections(1).await, &good).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_honoured_and_delays_no_rotation() {
    let (good, next) = (key("good"), key("next"));
    let provider = Provider::start(&[&good]).await;
    provider.say(KEYS, Answer::new(429, "").header("retry-after", "4"));
    let jwks = json!({ "cool_down": "2s", "refresh": "10s", "min_refresh": "1s" });
    let mesh = Mesh::start_with("retry-after", options(&provider, &jwks)).await;
    let token = good.mint(&claims());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        assert!(is(&mesh.send(&get(&token)).await, 503, "KEYS_UNAVAILABLE"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(provider.fetches(KEYS), 1, "{:?}", provider.pauses(KEYS));
    provider.publish(KEYS, &[&good]);
    let mut connections = mesh.connections(1).await;
    until_passes(&mut connections, &good).await;
    assert!(provider.pauses(KEYS)[0] >= Duration::from_secs(4), "{:?}", provider.pauses(KEYS));

    // From now on it refuses, and tokens with unknown key ids come. Then the issuer changes keys.
    provider.say(KEYS, Answer::new(429, "").header("retry-after", "3600"));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        let response = mesh.send(&get(&unknown(&mint::random_id()))).await;
        assert!(is(&response, 401, "KEY_UNKNOWN"), "{}", response.text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    provider.publish(KEYS, &[&good, &next]);
    let rotated = Instant::now();
    until_passes(&mut connections, &next).await;
    println!("rotation after 429 with Retry-After: 3600: {:?}", rotated.elapsed());
    assert!(rotated.elapsed() < Duration::from_millis(3500), "{:?}", rotated.elapsed());
}
